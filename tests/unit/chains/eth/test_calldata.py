"""Calldata of our calls beside eth-abi: the same bytes, and only these are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from chains.eth.abi import MAX_ITEMS
from chains.eth.address import checksummed
from chains.eth.erc20 import (
    BALANCE_OF,
    TRANSFER_TOPIC,
    TokenTransfer,
    balance_of_calldata,
    decode_transfer,
    transfer_calldata,
)
from chains.eth.forwarder import ETHER_FLUSHED_TOPIC, Flush, decode_flush, flush_calldata
from chains.eth.payout import Payout, decode_payout, payout_calldata

addresses = st.binary(min_size=20, max_size=20)
amounts = st.one_of(st.integers(0, 1000), st.integers(0, 2**256 - 1))
salts = st.binary(min_size=32, max_size=32)

TRANSFER = transfer_calldata(b"\x11" * 20, 5)
FLUSH = flush_calldata([bytes(32), b"\x01" * 32], [b"\x22" * 20])
PAY = payout_calldata([Payout(b"\x11" * 20, 5), Payout(b"\x12" * 20, 6)])


def theirs(signature: str, *arguments: object) -> bytes:
    types = signature[signature.index("(") + 1 : -1].split(",")
    return keccak(text=signature)[:4] + encode(types, arguments)


@given(addresses, amounts)
def test_a_token_transfer_is_what_eth_abi_writes(to: bytes, units: int) -> None:
    calldata = transfer_calldata(to, units)
    assert calldata == theirs("transfer(address,uint256)", checksummed(to), units)
    assert decode_transfer(calldata) == TokenTransfer(to, units)


@given(st.lists(salts, min_size=1, max_size=6), st.lists(addresses, max_size=6))
def test_a_flush_is_what_eth_abi_writes(indices: list[bytes], tokens: list[bytes]) -> None:
    calldata = flush_calldata(indices, tokens)
    texts = [checksummed(token) for token in tokens]
    assert calldata == theirs("flush(bytes32[],address[])", indices, texts)
    assert decode_flush(calldata) == Flush(tuple(indices), tuple(tokens))


@given(st.lists(st.builds(Payout, addresses, amounts), min_size=1, max_size=6))
def test_a_payout_is_what_eth_abi_writes(payouts: list[Payout]) -> None:
    calldata = payout_calldata(payouts)
    assert calldata == theirs(
        "pay(address[],uint256[])", [checksummed(p.to) for p in payouts], [p.units for p in payouts]
    )
    assert decode_payout(calldata) == tuple(payouts)


def test_names_of_events_and_views_are_hashed_as_eth_utils_does() -> None:
    assert "0x" + keccak(text="Transfer(address,address,uint256)").hex() == TRANSFER_TOPIC
    assert "0x" + keccak(text="EtherFlushed(uint256)").hex() == ETHER_FLUSHED_TOPIC
    assert balance_of_calldata(b"\x11" * 20) == theirs("balanceOf(address)", checksummed(b"\x11" * 20))
    assert balance_of_calldata(b"\x11" * 20)[:4] == BALANCE_OF


_DECODERS: list[tuple[bytes, Callable[[bytes], object]]] = [
    (TRANSFER, decode_transfer),
    (FLUSH, decode_flush),
    (PAY, decode_payout),
]


@pytest.mark.parametrize(("good", "decode"), _DECODERS)
@given(data=st.data())
def test_no_changed_byte_is_read_as_the_same_call(
    good: bytes, decode: Callable[[bytes], object], data: st.DataObject
) -> None:
    raw = bytearray(good)
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = decode(bytes(raw))
    except InvalidValue:
        return
    assert read != decode(good)


@pytest.mark.parametrize(("good", "decode"), _DECODERS)
@given(data=st.data())
def test_bytes_cut_off_added_or_invented_are_refused(
    good: bytes, decode: Callable[[bytes], object], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(good) - 1))
    for wrong in (
        good[:cut],
        good + data.draw(st.binary(min_size=1, max_size=64)),
        good[:4] + data.draw(st.binary(max_size=200)),
    ):
        if wrong != good:
            with pytest.raises(InvalidValue):
                decode(wrong)


@pytest.mark.parametrize(("good", "decode"), _DECODERS)
def test_the_calldata_of_another_call_is_refused(good: bytes, decode: Callable[[bytes], object]) -> None:
    for other, _ in _DECODERS:
        if other != good:
            with pytest.raises(InvalidValue):
                decode(other)


def _word(value: int) -> bytes:
    return value.to_bytes(32, "big")


PAYEE = bytes(12) + b"\x11" * 20


@pytest.mark.parametrize(
    "body",
    [
        # Both arrays in one tail, which contracts read as two.
        _word(64) + _word(64) + _word(1) + PAYEE,
        # The tails the other way round, or with a gap between them.
        _word(128) + _word(64) + _word(1) + _word(5) + _word(1) + PAYEE,
        _word(64) + _word(160) + _word(1) + PAYEE + _word(0) + _word(1) + _word(5),
        # An address with something in its upper bytes.
        _word(64) + _word(128) + _word(1) + b"\x01" + PAYEE[1:] + _word(1) + _word(5),
        # Lengths that reach beyond the end, or around it.
        _word(64) + _word(128) + _word(2) + PAYEE + _word(1) + _word(5),
        _word(64) + _word(128) + _word(2**255) + PAYEE + _word(1) + _word(5),
        _word(2**256 - 32) + _word(128) + _word(1) + PAYEE + _word(1) + _word(5),
        # Arrays of two lengths, and of none.
        _word(64) + _word(128) + _word(1) + PAYEE + _word(2) + _word(5) + _word(6),
        _word(64) + _word(96) + _word(0) + _word(0),
    ],
)
def test_other_encodings_that_contracts_would_read_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidValue):
        decode_payout(PAY[:4] + body)


def test_what_cannot_be_meant_is_not_written() -> None:
    writes: list[Callable[[], bytes]] = [
        lambda: transfer_calldata(b"\x11" * 19, 5),
        lambda: transfer_calldata(b"\x11" * 20, -1),
        lambda: transfer_calldata(b"\x11" * 20, 2**256),
        lambda: flush_calldata([], [b"\x11" * 20]),
        lambda: flush_calldata([b"\x11" * 31], []),
        lambda: flush_calldata([bytes(32)] * (MAX_ITEMS + 1), []),
        lambda: payout_calldata([]),
        lambda: payout_calldata([Payout(b"\x11" * 21, 5)]),
    ]
    for write in writes:
        with pytest.raises(InvalidValue):
            write()
