"""Nonces that give a key away are found, whatever is wrong with them; good ones never are."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from fractions import Fraction
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.secp256k1 import CURVE_ORDER
from signers.keytest.bias import CHECKS, FALSE_ALARM, MIN_SIGNATURES, _distance, _limit, suspicions

COUNT = 4096


def good(count: int = COUNT) -> list[int]:
    return [secrets.randbelow(CURVE_ORDER - 1) + 1 for _ in range(count)]


def digests(count: int = COUNT) -> list[bytes]:
    return [secrets.token_bytes(32) for _ in range(count)]


def negated_at_random(nonces: list[int]) -> list[int]:
    """What is left of k where the signer brings s into the lower half."""
    return [nonce if secrets.randbits(1) else CURVE_ORDER - nonce for nonce in nonces]


def test_a_good_signer_passes_twenty_times_in_a_row() -> None:
    for _ in range(20):
        assert suspicions(good(), digests()) == ()


def test_a_good_signer_with_low_s_passes_as_well() -> None:
    for _ in range(5):
        assert suspicions(negated_at_random(good()), digests()) == ()
        assert suspicions([min(nonce, CURVE_ORDER - nonce) for nonce in good()], digests()) != ()


@settings(max_examples=60)
@given(st.binary(min_size=16, max_size=16), st.integers(MIN_SIGNATURES, 700))
def test_no_good_signer_is_suspected_whatever_it_signs(seed: bytes, count: int) -> None:
    """Nonces are hashes, so that an example that fails can be run again."""
    numbers = [
        int.from_bytes(hashlib.sha256(seed + n.to_bytes(4, "big")).digest(), "big") % CURVE_ORDER or 1
        for n in range(count)
    ]
    signed = [hashlib.sha256(b"z" + seed + n.to_bytes(4, "big")).digest() for n in range(count)]
    assert suspicions(numbers, signed) == ()


def _mask(nonces: list[int], clear: int) -> list[int]:
    return [(nonce & ~clear) or 1 for nonce in nonces]


def _stepping(step: int) -> list[int]:
    start = secrets.randbelow(CURVE_ORDER)
    return [(start + step * n) % CURVE_ORDER or 1 for n in range(COUNT)]


def _generator() -> list[int]:
    factor, more = secrets.randbelow(CURVE_ORDER), secrets.randbelow(CURVE_ORDER)
    found = [secrets.randbelow(CURVE_ORDER)]
    while len(found) < COUNT:
        found.append((found[-1] * factor + more) % CURVE_ORDER)
    return found


def _repeated(nonces: list[int]) -> list[int]:
    first, second = sorted(secrets.SystemRandom().sample(range(COUNT), 2))
    nonces[second] = nonces[first]
    return nonces


def _shuffled(nonces: list[int]) -> list[int]:
    secrets.SystemRandom().shuffle(nonces)
    return nonces


FAULTY: dict[str, Callable[[], list[int]]] = {
    "the top 4 bits are zero": lambda: [nonce >> 4 for nonce in good()],
    "the bottom 4 bits are zero": lambda: _mask(good(), 0xF),
    "4 bits in the middle are zero": lambda: _mask(good(), 0xF << 121),
    "4 bits are ones": lambda: [(nonce | 0xF << 77) % CURVE_ORDER for nonce in good()],
    "the top bit is zero": lambda: [nonce >> 1 for nonce in good()],
    "one bit is 1 in five of eight": lambda: [
        nonce | (1 << 30 if secrets.randbelow(4) == 0 else 0) for nonce in good()
    ],
    "two bits are always equal": lambda: [nonce & ~(1 << 9) | (nonce >> 200 & 1) << 9 for nonce in good()],
    "half the bits twice": lambda: [(part := nonce >> 128) << 128 | part for nonce in good()],
    "a counter": lambda: _stepping(1),
    "a counter with large steps": lambda: _stepping(secrets.randbelow(CURVE_ORDER)),
    "a counter, seen out of order": lambda: _shuffled(_stepping(3)),
    "a linear generator": _generator,
    "one k twice in 4096": lambda: _repeated(good()),
    "two that are near": lambda: [*(nonces := good(COUNT - 1)), nonces[7] + 5],
    "a twentieth of them is short by 8 bits": lambda: [
        nonce >> 8 if n % 20 == 0 else nonce for n, nonce in enumerate(good())
    ],
    "one of them is short by 64 bits": lambda: [
        nonce >> 64 if n == 9 else nonce for n, nonce in enumerate(good())
    ],
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_is_found(fault: str) -> None:
    assert suspicions(FAULTY[fault](), digests())


# With either sign these are no faults, or hardly: a k below n/2 or its negative is as good as any number.
HIDDEN_BY_A_SIGN = {
    "the top bit is zero",
    "one bit is 1 in five of eight",
    "two bits are always equal",
}


@pytest.mark.parametrize("fault", sorted(set(FAULTY) - HIDDEN_BY_A_SIGN))
def test_a_fault_is_found_although_k_or_its_negative_may_be_behind_a_low_s(fault: str) -> None:
    assert suspicions(negated_at_random(FAULTY[fault]()), digests())


@pytest.mark.parametrize(
    "follows",
    [
        lambda z: (z + 12345) % CURVE_ORDER,
        lambda z: (98765 - z) % CURVE_ORDER,
        lambda z: z * 7 % CURVE_ORDER,
        lambda z: (z ^ 2**200) % CURVE_ORDER,
    ],
)
def test_nonces_that_follow_from_what_is_signed_are_found(follows: Callable[[int], int]) -> None:
    signed = digests()
    found = suspicions([follows(int.from_bytes(digest, "big")) for digest in signed], signed)
    assert found
    assert all("nonces follow from what is signed" in text for text in found)


def test_what_is_found_tells_no_nonce() -> None:
    nonces = FAULTY["a counter"]()
    text = "".join(suspicions(nonces, digests()))
    assert len(text) < 5000
    assert not any(str(nonce) in text or f"{nonce:x}" in text for nonce in nonces)


def test_too_few_signatures_or_digests_say_nothing() -> None:
    with pytest.raises(ValueError, match="at least 256"):
        suspicions(good(255), digests(255))
    with pytest.raises(ValueError, match="a digest each"):
        suspicions(good(256), digests(257))


@pytest.mark.parametrize("count", [256, 257, 1000, 4096])
def test_bounds_are_the_least_that_keep_false_alarms_rare(count: int) -> None:
    """Computed again as exact fractions, the slow way."""
    rare = Fraction(1, CHECKS * FALSE_ALARM)

    def tails(distance: int) -> Fraction:
        ways = sum(comb(count, heads) for heads in range(count + 1) if abs(2 * heads - count) >= distance)
        return Fraction(ways, 2**count)

    assert tails(_distance(count)) <= rare < tails(_distance(count) - 2)
    for length in (4, 8, 31, 64):
        limit = _limit(count, length)
        assert Fraction(comb(count, limit), 2 ** (length * limit)) <= rare
        assert limit == 1 or Fraction(comb(count, limit - 1), 2 ** (length * (limit - 1))) > rare
