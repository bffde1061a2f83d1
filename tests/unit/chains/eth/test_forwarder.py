"""Forwarder addresses: the examples of EIP-1014, two implementations that agree, and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import DerivationDisagreement, InvalidValue
from chains.eth import forwarder
from chains.eth.address import checksummed, keccak256
from chains.eth.forwarder import (
    MAX_INDEX,
    agreed_forwarder,
    forwarder_address,
    index_of,
    salt_of,
    second_opinion,
)

# Factory, salt, init code, address: the examples of EIP-1014.
EIP_1014 = [
    ("00" * 20, "00" * 32, "00", "0x4D1A2e2bB4F88F0250f26Ffff098B0b30B26BF38"),
    ("deadbeef" + "00" * 16, "00" * 32, "00", "0xB928f69Bb1D91Cd65274e3c79d8986362984fDA3"),
    (
        "deadbeef" + "00" * 16,
        "00" * 12 + "feed" + "00" * 18,
        "00",
        "0xD04116cDd17beBE565EB2422F2497E06cC1C9833",
    ),
    ("00" * 20, "00" * 32, "deadbeef", "0x70f2b2914A2a4b783FaEFb75f459A580616Fcb5e"),
    (
        "00" * 16 + "deadbeef",
        "00" * 28 + "cafebabe",
        "deadbeef",
        "0x60f3f640a8508fC6a86d45DF051962668E1e8AC7",
    ),
    (
        "00" * 16 + "deadbeef",
        "00" * 28 + "cafebabe",
        "deadbeef" * 11,
        "0x1d8bfDC5D46DC4f61D6b6115972536eBE6A8854C",
    ),
    ("00" * 20, "00" * 32, "", "0xE33C0C7F7df4809055C3ebA6c09CFe4BaF1BD9e0"),
]
FACTORY = checksummed(b"\xfa" * 20)
CODE = "ab" * 32


@pytest.mark.parametrize(("factory", "salt", "initcode", "address"), EIP_1014)
def test_the_examples_of_eip_1014(factory: str, salt: str, initcode: str, address: str) -> None:
    hashed = keccak256(bytes.fromhex(initcode))
    assert checksummed(forwarder_address(bytes.fromhex(factory), hashed, bytes.fromhex(salt))) == address


@given(st.binary(min_size=20, max_size=20), st.binary(min_size=32, max_size=32), st.integers(0, MAX_INDEX))
def test_both_implementations_give_the_same_address(factory: bytes, code: bytes, index: int) -> None:
    address = agreed_forwarder(checksummed(factory), code.hex(), index)
    assert address == checksummed(forwarder_address(factory, code, salt_of(index)))
    assert address == second_opinion(checksummed(factory), code.hex(), index)


def test_where_they_disagree_there_is_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "second_opinion", lambda *_: FACTORY)
    with pytest.raises(DerivationDisagreement):
        agreed_forwarder(FACTORY, CODE, 0)


def test_each_index_has_an_address_of_its_own() -> None:
    assert len({agreed_forwarder(FACTORY, CODE, index) for index in range(100)}) == 100


@given(st.integers(0, MAX_INDEX))
def test_a_salt_is_its_index(index: int) -> None:
    assert len(salt_of(index)) == 32
    assert index_of(salt_of(index)) == index


def test_indices_salts_and_texts_of_another_kind_are_refused() -> None:
    for wrong in (-1, MAX_INDEX + 1, 2**300):
        with pytest.raises(InvalidValue):
            salt_of(wrong)
    for salt in (bytes(31), (MAX_INDEX + 1).to_bytes(32, "big"), b"\xff" * 32):
        with pytest.raises(InvalidValue):
            index_of(salt)
    for factory, code in (
        (FACTORY.lower(), CODE),
        ("", CODE),
        (FACTORY, CODE.upper()),
        (FACTORY, "0x" + CODE),
    ):
        with pytest.raises(InvalidValue):
            agreed_forwarder(factory, code, 0)
    with pytest.raises(InvalidValue):
        forwarder_address(bytes(19), bytes(32), bytes(32))
