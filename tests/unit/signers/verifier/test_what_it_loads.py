"""The verifier is a second pair of eyes only as long as it shares nothing with the first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def test_it_loads_nothing_of_the_online_service_and_no_key_that_moves_money() -> None:
    program = "import sys, signers.verifier.process; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in done.stdout.split()}
    assert (
        loaded & {"custody", "ops", "fastapi", "sqlalchemy", "celery", "web3", "bitcoinlib", "PyKCS11"}
        == set()
    )
    modules = set(done.stdout.split())
    assert (
        modules & {"signers.wallets", "signers.keys.sealed", "signers.service", "signers.journal.journal"}
        == set()
    )
