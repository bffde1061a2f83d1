"""EVM addresses: the examples of EIP-55, and eth-utils as a second reader."""

from __future__ import annotations

import pytest
from eth_utils.address import is_checksum_address, to_checksum_address
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidAddress
from chains.eth.address import checksummed, is_checksummed, parse_address, raw_address

# The examples of EIP-55.
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("text", EIP_55)
def test_the_examples_of_eip_55(text: str) -> None:
    raw = bytes.fromhex(text[2:])
    assert checksummed(raw) == text
    assert raw_address(text) == raw
    read = parse_address(text.lower(), "ethereum-devnet")
    assert (read.text, read.script, read.kind, read.chain) == (text, raw, "evm", "ethereum-devnet")


@given(st.binary(min_size=20, max_size=20))
def test_eth_utils_writes_the_same(raw: bytes) -> None:
    assert checksummed(raw) == to_checksum_address(raw)


@given(st.binary(min_size=20, max_size=20), st.integers(2, 41))
def test_one_letter_of_the_other_case_is_a_wrong_checksum(raw: bytes, at: int) -> None:
    text = checksummed(raw)
    changed = text[:at] + text[at].swapcase() + text[at + 1 :]
    if changed not in (text, text.lower()):
        assert not is_checksummed(changed)
        assert not is_checksum_address(changed)
        with pytest.raises(InvalidAddress, match="checksum"):
            parse_address(changed, "ethereum-devnet")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0x",
        "0x" + "a" * 39,
        "0x" + "a" * 41,
        "a" * 42,
        "0X" + "a" * 40,
        "0x" + "g" * 40,
        "0x" + "a" * 40 + "\n",
    ],
)
def test_other_texts_are_no_addresses(text: str) -> None:
    assert not is_checksummed(text)
    for read in (raw_address, lambda t: parse_address(t, "ethereum-devnet")):
        with pytest.raises(InvalidAddress):
            read(text)


def test_our_own_documents_write_addresses_in_one_form_only() -> None:
    with pytest.raises(InvalidAddress):
        raw_address(EIP_55[4].lower())
    with pytest.raises(InvalidAddress):
        checksummed(bytes(19))
