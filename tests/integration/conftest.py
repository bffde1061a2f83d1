"""What several files of integration tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.softhsm import SoftHsmToken
from signers.hsm.pkcs11 import Token
from signers.keys.keyset import BitcoinKeysetRecord
from tests.fakes.signer_daemon import BitcoinDaemon, make_daemon_keys


@pytest.fixture
def token(softhsm: SoftHsmToken) -> Iterator[Token]:
    """The token, with its user logged in."""
    opened = Token(softhsm.module_path, softhsm.label, softhsm.user_pin)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def daemon_keys(
    softhsm: SoftHsmToken, tmp_path_factory: pytest.TempPathFactory
) -> tuple[BitcoinKeysetRecord, Path]:
    """A BTC key-set in the token, and the directory with its sealed seed."""
    directory = tmp_path_factory.mktemp("keys")
    return make_daemon_keys(softhsm, directory), directory


@pytest.fixture
def daemon(
    softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path], tmp_path: Path
) -> Iterator[BitcoinDaemon]:
    """A signer daemon with that key-set, not started."""
    made = BitcoinDaemon(softhsm, *daemon_keys, tmp_path)
    yield made
    made.close()
