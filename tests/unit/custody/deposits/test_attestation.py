"""Whose address is it: every field of an attestation counts, and our own derivation comes first."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import msgspec
import pytest

from custody.deposits.attestation import (
    AddressNotOurs,
    AttestationMismatch,
    Prover,
    derive,
    verify,
    verify_ours,
    verify_row,
)
from custody.deposits.model import AddressRow, Purpose
from signers.ports import AttestRequest, SignedAttestation
from tests.fakes.desk import ASSET, CHAIN, KEYSET, Keys, make_bundle

KEYS = Keys()
BUNDLE = make_bundle(KEYS)


def attested(**changes: object) -> SignedAttestation:
    request = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset=ASSET, branch=0, index=7)
    return KEYS.attest(msgspec.structs.replace(request, **changes))


def row(**changes: object) -> AddressRow:
    text, script = derive(BUNDLE, KEYSET, 0, 7)
    whole = AddressRow(
        id=1,
        chain=CHAIN,
        keyset=KEYSET,
        asset=ASSET,
        customer="alice",
        purpose=Purpose.DEPOSIT,
        branch=0,
        index=7,
        address=text,
        script=script,
        attestation=msgspec.json.encode(attested()).decode(),
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def check(signed: SignedAttestation) -> tuple[str, bytes]:
    return verify(signed, BUNDLE, keyset=KEYSET, customer="alice", asset=ASSET, branch=0, index=7)


def test_a_true_attestation_gives_the_address_and_its_script() -> None:
    assert check(attested()) == derive(BUNDLE, KEYSET, 0, 7)


@pytest.mark.parametrize(
    "changes", [{"customer": "mallory"}, {"customer": None}, {"asset": "LTC"}, {"chain": "main"}]
)
def test_an_attestation_for_anything_else_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(AttestationMismatch):
        check(attested(**changes))


def test_the_address_of_another_index_is_not_believed_even_if_signed() -> None:
    with pytest.raises(AddressNotOurs):
        check(attested(index=8))


def test_another_key_s_signature_is_refused() -> None:
    other = Keys(seed=KEYS.seed)
    request = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset=ASSET, branch=0, index=7)
    with pytest.raises(AttestationMismatch):
        check(other.attest(request))


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"},
        {"script": b"\x00\x14" + bytes(20)},
        {"index": 8},
        {"branch": 1},
        {"chain": "bitcoin"},
        {"keyset": "unknown"},
    ],
)
def test_a_row_that_our_keys_do_not_give_is_not_ours(changes: dict[str, object]) -> None:
    with pytest.raises(AddressNotOurs):
        verify_ours(row(**changes), BUNDLE)


@pytest.mark.parametrize(
    "changes", [{"customer": "mallory"}, {"asset": "LTC"}, {"attestation": "{}"}, {"attestation": None}]
)
def test_a_row_of_ours_with_another_owner_is_unproven(changes: dict[str, object]) -> None:
    verify_ours(row(**changes), BUNDLE)
    with pytest.raises(AttestationMismatch):
        verify_row(row(**changes), BUNDLE)


def test_a_prover_remembers_rows_and_sees_edits() -> None:
    prover = Prover(BUNDLE)
    for _ in range(2):
        assert prover.unproven(row()) is None
        assert "customer is 'alice', expected 'mallory'" in str(prover.unproven(row(customer="mallory")))
        assert prover.not_ours(row(index=8)) is not None
