"""A lost token or machine: the same keys on a new token, from shares, record and wrapped key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.canonical import verify_ed25519
from signers.ceremony.record import SignedRestoration, restored_path
from signers.ceremony.session import read_ceremony
from signers.process.files import read_kept
from tests.support.ceremonies import (
    COSIGNER,
    EVM_KEY,
    HOLDERS,
    OPERATORS,
    SAFE_OWNER,
    STEPS,
    TAPROOT,
    WALLET,
    RestoreSite,
    Site,
    labels,
    opened,
)


@pytest.mark.parametrize(
    "keyset", [WALLET, TAPROOT, COSIGNER, EVM_KEY, SAFE_OWNER], ids=lambda keyset: str(keyset["id"])
)
def test_a_restored_signer_has_the_same_keys_and_addresses(keyset: dict[str, Any], tmp_path: Path) -> None:
    origin = Site(tmp_path / "origin", keyset)
    origin.held()
    site = RestoreSite(tmp_path / "new", origin)
    done = site.held()
    assert "the same keys, the same addresses, the same attestation key" in done.stdout
    assert "journal.sqlite" in done.stdout
    # Opened as a signer opens them, both tokens sign, attest and derive alike.
    before, after = opened(origin), opened(site)
    assert before["record"] == after["record"]
    assert before["addresses"] == after["addresses"]
    assert before["attestation"] == after["attestation"]
    assert before["public_key"] == after["public_key"]
    if keyset["kind"].startswith("btc"):
        assert before["signature"] == after["signature"]
    assert read_ceremony(site.directory, site.id) == read_ceremony(origin.directory, origin.id)
    said = read_kept(restored_path(site.directory, site.id), SignedRestoration)
    assert [operator.name for operator in said.restoration.operators] == list(OPERATORS)
    assert said.restoration.holders == HOLDERS[:2]
    for operator, signature in zip(said.restoration.operators, said.signatures, strict=True):
        verify_ed25519(operator.key, said.restoration.digest(), signature.signature)
    key = said.restoration
    verify_ed25519(origin.record().record.keyset.attestation_key, key.digest(), said.attestation)


def test_again_changes_nothing(tmp_path: Path) -> None:
    origin = Site(tmp_path / "origin", EVM_KEY)
    origin.held()
    site = RestoreSite(tmp_path / "new", origin)
    site.held()
    before = {path.name: path.read_bytes() for path in site.directory.iterdir()}
    again = site.held()
    assert "already" in again.stdout
    assert {path.name: path.read_bytes() for path in site.directory.iterdir()} == before
    assert len(labels(site.token)) == 2


def test_missing_wrong_and_mixed_shares_restore_nothing(tmp_path: Path) -> None:
    origin, other = Site(tmp_path / "origin", EVM_KEY), Site(tmp_path / "other", EVM_KEY)
    origin.held()
    other.held()
    site = RestoreSite(tmp_path / "new", origin)
    shares = {name: str(origin.share_file(name)) for name in HOLDERS}
    for given, said in (
        ({"carl": shares["carl"]}, "1 shares: 2 are needed"),
        ({**shares, "ben": str(other.share_file("ben"))}, "ben gave share 2"),
        ({"anna": shares["ben"], "ben": shares["anna"]}, "anna gave share 2"),
        ({name: str(other.share_file(name)) for name in HOLDERS}, "anna gave share 1"),
    ):
        site.write_answers(shares=given)
        done = site.held(check=False)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
        assert labels(site.token) == []
        assert not site.directory.exists() or not any(site.directory.iterdir())
    for name in OPERATORS:
        site.write_answers(confirm={other: list(STEPS) for other in OPERATORS if other != name})
        assert f"{name} did not confirm" in site.held(check=False).stderr
    assert labels(site.token) == []
    site.write_answers(shares={"ben": shares["ben"], "carl": shares["carl"]})
    site.held()


def test_another_wrapped_key_restores_nothing(tmp_path: Path) -> None:
    origin, other = Site(tmp_path / "origin", EVM_KEY), Site(tmp_path / "other", EVM_KEY)
    origin.held()
    other.held()
    site = RestoreSite(tmp_path / "new", origin)
    path = origin.backup / f"{origin.id}.wrapped.json"
    path.write_bytes((other.backup / path.name).read_bytes())
    assert "not the one of the ceremony's record" in site.held(check=False).stderr
    path.unlink()
    assert "is missing" in site.held(check=False).stderr
    assert labels(site.token) == []


def test_keys_that_a_token_has_are_never_replaced_or_removed(tmp_path: Path) -> None:
    origin = Site(tmp_path / "origin", WALLET)
    origin.held()
    site = RestoreSite(tmp_path / "new", origin)
    site.token = origin.token
    site.write_plan()
    for command in ("run", "remove"):
        done = site.held(command, check=False)
        assert command == "remove" or "nothing is replaced" in done.stderr
        assert len(labels(origin.token)) == 2
    assert opened(origin)["signature"]


def test_an_unproven_backup_restores_and_says_so(tmp_path: Path) -> None:
    origin = Site(tmp_path / "origin", WALLET)
    origin.held_until("proof")
    site = RestoreSite(tmp_path / "new", origin)
    assert "never proven" in site.held().stdout
    assert read_ceremony(site.directory, site.id)[1] is None


def test_an_edited_record_restores_nothing(tmp_path: Path) -> None:
    origin = Site(tmp_path / "origin", WALLET)
    origin.held()
    path = origin.backup / f"{origin.id}.ceremony.json"
    signed = origin.record()
    record = msgspec.structs.replace(signed.record, environment="production")
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(signed, record=record)))
    assert "signature" in RestoreSite(tmp_path / "new", origin).held(check=False).stderr
