"""Addresses of EVM key-sets: a forwarder for each index, the key's own address, and nothing else."""

from __future__ import annotations

import msgspec
import pytest

from chains.errors import InvalidValue
from chains.eth.address import checksummed, keccak256
from custody.deposits.attestation import (
    DEPOSITS,
    HOUSE,
    AddressNotOurs,
    AttestationMismatch,
    address_path,
    derive,
    verify,
)
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, GasCaps
from policies.intent import Attestation
from policies.keys import SigningKey
from policies.rules import Policy
from signers.ports import SignedAttestation

SIGNER = SigningKey.generate()
KEYSET = EvmKeyset(
    id="eth-hot",
    chain="ethereum",
    tier="hot",
    attestation_key=SIGNER.public_hex,
    address=checksummed(bytes.fromhex("11" * 20)),
    # From the examples of EIP-1014: this creator, salt 0 and this init code give the address below.
    factory=checksummed(bytes.fromhex("deadbeef" + "00" * 16)),
    forwarder=keccak256(b"\x00").hex(),
    payout=None,
)
OF_EIP_1014 = "0xB928f69Bb1D91Cd65274e3c79d8986362984fDA3"
BUNDLE = Bundle(
    v=1,
    version=1,
    issued_at=1,
    expires_at=2**40,
    longest_order_seconds=86_400,
    networks=(
        EvmNetwork(
            chain="ethereum",
            genesis="00" * 32,
            native_asset="ETH",
            settle_blocks=1,
            feerate_floor=1,
            feerate_cap=2,
            fee_cap="1",
            fee_window_cap="1",
            fee_window_seconds=1,
            chain_id=1,
            native_mode="trace",
            gas_caps=GasCaps(transfer=1, token=1, payout=1, sweep=1, execution=300_000),
        ),
    ),
    assets=(),
    keysets=(KEYSET,),
    caps=(),
    callers=(),
    officers=(),
    policy=Policy(),
)


def attested(**changes: str | None) -> SignedAttestation:
    fields = {
        "chain": "ethereum",
        "keyset": "eth-hot",
        "customer": "alice",
        "asset": "ETH",
        "path": "m/0/7",
        "address": derive(BUNDLE, "eth-hot", DEPOSITS, 7)[0],
    }
    attestation = Attestation(v=1, **(fields | changes))  # type: ignore[arg-type]
    return SignedAttestation(attestation=attestation, signature=SIGNER.sign(attestation))


def verified(signed: SignedAttestation) -> tuple[str, bytes]:
    return verify(signed, BUNDLE, keyset="eth-hot", customer="alice", asset="ETH", branch=DEPOSITS, index=7)


def test_a_forwarder_is_where_eip_1014_says() -> None:
    text, script = derive(BUNDLE, "eth-hot", DEPOSITS, 0)
    assert (text, script) == (OF_EIP_1014, bytes.fromhex(OF_EIP_1014[2:]))
    assert derive(BUNDLE, "eth-hot", DEPOSITS, 1)[0] != text


def test_the_house_has_one_address_which_is_the_keys() -> None:
    assert derive(BUNDLE, "eth-hot", HOUSE, 0) == (KEYSET.address, bytes.fromhex(KEYSET.address[2:]))
    for branch, index in ((HOUSE, 1), (2, 0), (DEPOSITS, 2**31), (DEPOSITS, -1)):
        with pytest.raises(InvalidValue):
            derive(BUNDLE, "eth-hot", branch, index)


def test_an_honest_attestation_gives_the_address() -> None:
    assert address_path(KEYSET, DEPOSITS, 7) == "m/0/7"
    assert verified(attested()) == derive(BUNDLE, "eth-hot", DEPOSITS, 7)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("chain", "polygon"), ("keyset", "other"), ("customer", "mallory"), ("customer", None)),
        *(("asset", "USDX"), ("path", "m/0/8"), ("path", "m/1/7")),
    ],
)
def test_an_attestation_of_anything_else_is_refused(field: str, value: str | None) -> None:
    with pytest.raises(AttestationMismatch):
        verified(attested(**{field: value}))


def test_another_forwarders_address_and_an_edited_attestation_are_refused() -> None:
    with pytest.raises(AddressNotOurs):
        verified(attested(address=derive(BUNDLE, "eth-hot", DEPOSITS, 8)[0]))
    honest = attested()
    edited = msgspec.structs.replace(attested(customer="bob"), attestation=honest.attestation)
    with pytest.raises(AttestationMismatch):
        verified(edited)
