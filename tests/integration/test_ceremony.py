"""The key ceremony on real SoftHSM tokens, rehearsed through the command: made, backed up, proven, opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.ceremonies import COSIGNER, EVM_KEY, SAFE_OWNER, TAPROOT, WALLET, Site, labels


@pytest.mark.parametrize("keyset", [WALLET, TAPROOT, COSIGNER, EVM_KEY, SAFE_OWNER], ids=lambda k: k["id"])
def test_a_rehearsal_makes_and_proves_a_key_set_of_each_kind(keyset: dict[str, Any], tmp_path: Path) -> None:
    site = Site(tmp_path, keyset)
    done = site.held()
    print(done.stdout)
    assert site.proven().proof.proven
    assert labels(site.proof_token) == []
