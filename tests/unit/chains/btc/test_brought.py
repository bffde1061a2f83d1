"""Files that holders bring: whatever is in them is read or refused, and nothing but good signatures comes out."""

from __future__ import annotations

import base64
from functools import cache
from typing import NamedTuple

import pytest
from embit.psbt import PSBT
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.multisig import parse_multisig
from chains.btc.psbt import ParsedPsbt, finalize, parse_psbt, read_brought, verified
from chains.errors import InvalidValue
from tests.fakes.cold_till import Holder, together
from tests.support.airgap import REGTEST, Payment, maps_of, psbt_of, version_2

TWO_COINS = [(100_000_000, 0, 0), (100_000_000, 1, 7)]


class Signed(NamedTuple):
    request: ParsedPsbt
    file: bytes
    """Of three holders together."""


@cache
def signed() -> Signed:
    holders = [Holder.make(str(number)) for number in range(5)]
    wallet = parse_multisig(3, [(each.origin, each.account) for each in holders], REGTEST)
    raw = Payment(wallet, TWO_COINS).build()
    return Signed(parse_psbt(raw), together(*[each.sign(raw) for each in holders[1:4]]))


def finished() -> bytes:
    """The transaction itself."""
    found = verified(signed().request, read_brought(signed().file))
    return finalize(signed().request, found.signatures)


def test_binary_base64_hexadecimal_version_2_and_the_finished_transaction_say_the_same() -> None:
    request, file = signed()
    expected = verified(request, read_brought(file))
    assert (len(expected.signatures), expected.refused) == (6, ())
    lines = base64.encodebytes(file)
    for form in (file, base64.b64encode(file), lines, file.hex().encode() + b"\n", version_2(file)):
        assert verified(request, read_brought(form)) == expected
    for form in (finished(), finished().hex().encode()):
        assert verified(request, read_brought(form)) == expected


def test_fields_that_nobody_knows_are_passed_over() -> None:
    request, file = signed()
    maps = maps_of(file)
    for each in maps:
        each[b"\xfc\x05other\x00"] = b"note"
        each[b"\x77" + bytes(40)] = bytes(100)
    maps[1][b"\x13"] = b"of another kind of output"
    assert verified(request, read_brought(psbt_of(maps))) == verified(request, read_brought(file))


def test_a_finished_input_with_another_script_or_signature_gives_the_others() -> None:
    request, _ = signed()
    psbt = PSBT.parse(signed().file)
    for scope, txin in zip(psbt.inputs, read_brought(finished()).inputs, strict=True):
        scope.partial_sigs.clear()
        scope.unknown[b"\x08"] = b""
        stack = list(txin.witness)
        stack[1] = stack[1][:30] + bytes([stack[1][30] ^ 1]) + stack[1][31:]
        scope.unknown[b"\x08"] = bytes([len(stack)]) + b"".join(bytes([len(i)]) + i for i in stack)
    found = verified(request, read_brought(bytes(psbt.serialize())))
    assert (len(found.signatures), len(found.refused)) == (4, 2)


def test_a_file_about_another_transaction_is_none_about_this_one() -> None:
    request, file = signed()
    psbt = PSBT.parse(file)
    psbt.outputs[0].value += 1
    with pytest.raises(InvalidValue, match="about"):
        verified(request, read_brought(bytes(psbt.serialize())))


@given(at=st.integers(0, 100_000), change=st.integers(1, 255))
def test_whatever_byte_is_flipped_nothing_but_good_signatures_comes_out(at: int, change: int) -> None:
    request, file = signed()
    good = set(verified(request, read_brought(file)).signatures)
    raw = bytearray(file)
    raw[at % len(raw)] ^= change
    try:
        found = verified(request, read_brought(bytes(raw)))
    except InvalidValue:
        return
    assert set(found.signatures) <= good


@given(st.binary(max_size=400), st.sampled_from([b"", b"psbt\xff"]))
def test_any_bytes_are_read_or_refused(rest: bytes, head: bytes) -> None:
    try:
        read_brought(head + rest)
    except InvalidValue:
        return
