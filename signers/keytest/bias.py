"""Looks for what is wrong with the nonces k of signatures: bias of bits, runs of zeros, repeats, relations. Pure.

A few bits of bias, or one k used twice, give an ECDSA or Schnorr key away to anybody who sees the signatures, so
nonces must be uniform and independent below the order n of the curve. As n is within 2**129 of 2**256, each of the
256 bits of a good k is 1 in half of the cases, to within 2**-127. Whoever brings s into the lower half may negate k,
so everything is looked at twice: in k, and in the lesser of k and n - k.

All bounds are exact integers: a count is suspicious if a good signer reaches it with a probability below
1 / (number of checks * 10**7), so that all checks together raise a false alarm less than once in 10**7 tests
(Bonferroni).

Sources: SEC 1 section 4.1; Nguyen and Shparlinski, "The insecurity of ECDSA with partially known nonces" (2003);
Breitner and Heninger, "Biased nonce sense" (2019).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from math import comb
from typing import Final

from chains.secp256k1 import CURVE_ORDER

FALSE_ALARM: Final = 10**7
"""One test in so many, at most, finds something in a good signer."""
MIN_SIGNATURES: Final = 256
BITS: Final = 256
LONGEST_RUN: Final = 64
SHORTEST_RUN: Final = 4
NEAR: Final = 2**64
"""Two of a few thousand good nonces, or two of their differences, are never this near to each other."""
_PAIRS: Final = BITS * (BITS - 1) // 2
_RUNS: Final = 4 * (LONGEST_RUN - SHORTEST_RUN + 1)
CHECKS: Final = 2 * (BITS + _PAIRS + _RUNS)
"""How many counts are compared with a bound."""
_MAX_SUSPICIONS: Final = 8


def suspicions(nonces: Sequence[int], digests: Sequence[bytes]) -> tuple[str, ...]:
    """What a good signer does not do, in words without any secret; empty if nothing was found. At most a few each.

    Args:
        nonces: k of each signature in the order in which they were made, 1 to n - 1.
        digests: what was signed, 32 bytes each.

    Raises:
        ValueError: too few of them, or not one digest for each.
    """
    if len(nonces) < MIN_SIGNATURES or len(digests) != len(nonces):
        raise ValueError(f"at least {MIN_SIGNATURES} nonces are needed, with a digest each")
    folded = [min(nonce, CURVE_ORDER - nonce) for nonce in nonces]
    found = [*_relations(nonces, digests)]
    for name, values, width in (("k", nonces, BITS), ("the lesser of k and n-k", folded, BITS - 1)):
        found += _biased(name, values, width)
        found += _runs(name, values, width)
    return tuple(found)


def _biased(name: str, values: Sequence[int], width: int) -> list[str]:
    """Bits that are 1 too often or too seldom, and pairs of bits that are equal too often or too seldom."""
    count = len(values)
    distance = _distance(count)
    written = "".join(format(value, f"0{width}b") for value in values)
    columns = [int(written[place::width], 2) for place in range(width)]  # of the highest bit first
    found = []
    for place, column in enumerate(columns):
        ones = column.bit_count()
        if abs(2 * ones - count) >= distance:
            found.append(f"bit {width - 1 - place} of {name} is 1 in {ones} of {count}")
    pairs: list[str] = []
    for place, column in enumerate(columns):
        for other in range(place + 1, width):
            unequal = (column ^ columns[other]).bit_count()
            if abs(2 * unequal - count) >= distance and not found:
                pairs.append(
                    f"bits {width - 1 - place} and {width - 1 - other} of {name} differ in {unequal} of {count}"
                )
    return _few(found) + _few(pairs)


def _runs(name: str, values: Sequence[int], width: int) -> list[str]:
    """Zeros or ones at the beginning or end of too many values: what lattice attacks live on."""
    all_ones = (1 << width) - 1
    found = []
    for text, lengths in (
        ("leading zeros", [width - value.bit_length() for value in values]),
        ("leading ones", [width - (value ^ all_ones).bit_length() for value in values]),
        ("trailing zeros", [_trailing_zeros(value, width) for value in values]),
        ("trailing ones", [_trailing_zeros(value ^ all_ones, width) for value in values]),
    ):
        for length in range(SHORTEST_RUN, LONGEST_RUN + 1):
            reached = sum(1 for each in lengths if each >= length)
            if reached >= _limit(len(values), length):
                found.append(f"{reached} of {len(values)} have {length} {text} in {name}")
                break
    return found


def _trailing_zeros(value: int, width: int) -> int:
    return (value & -value).bit_length() - 1 if value else width


def _relations(nonces: Sequence[int], digests: Sequence[bytes]) -> Iterator[str]:
    """Nonces that are equal or near, progressions, and nonces that follow from their digests."""
    order = CURVE_ORDER
    if len({min(nonce, order - nonce) for nonce in nonces}) != len(nonces):
        yield "a nonce was used twice"
    ordered = sorted([*nonces, *(order - nonce for nonce in nonces)])
    # A small or large k is as near to its own negative as it is small; the runs tell of that.
    near = sum(1 for low, high in pairwise(ordered) if 0 < high - low < NEAR and low + high != order)
    if near:
        yield f"{near} pairs of nonces, or of a nonce and another's negative, are nearer than 2**64"
    steps = [(after - before) % order for before, after in pairwise(nonces)]
    if any(_near_zero(after - before) for before, after in pairwise(steps)):
        yield "nonces grow by the same step, or nearly"
    triples = zip(steps, steps[1:], steps[2:], strict=False)
    if any((b * b - a * c) % order == 0 for a, b, c in triples):
        yield "nonces follow from each other as in a linear generator"
    numbers = [int.from_bytes(digest, "big") for digest in digests]
    pairs = list(zip(nonces, numbers, strict=True))
    for text, values in (
        ("k - z", [(nonce - number) % order for nonce, number in pairs]),
        ("k + z", [(nonce + number) % order for nonce, number in pairs]),
        ("k / z", [nonce * pow(number, -1, order) % order for nonce, number in pairs if number % order]),
        ("k xor z", [nonce ^ number for nonce, number in pairs]),
    ):
        if len(set(values)) != len(values):
            yield f"nonces follow from what is signed: {text} repeats"


def _near_zero(difference: int) -> bool:
    value = difference % CURVE_ORDER
    return min(value, CURVE_ORDER - value) < NEAR


def _few(found: list[str]) -> list[str]:
    if len(found) <= _MAX_SUSPICIONS:
        return found
    return [*found[:_MAX_SUSPICIONS], f"and {len(found) - _MAX_SUSPICIONS} more of the kind"]


@lru_cache(maxsize=16)
def _distance(count: int) -> int:
    """How far apart heads and tails of a fair coin are with a probability of at most 1/(CHECKS * FALSE_ALARM)."""
    allowed = (1 << count) // (2 * CHECKS * FALSE_ALARM)
    tail, heads = 0, count
    term = 1  # comb(count, heads)
    while tail + term <= allowed:
        tail += term
        term = term * heads // (count - heads + 1)
        heads -= 1
    return 2 * (heads + 1) - count  # more than `heads` heads are rare enough, `heads` are not


@lru_cache(maxsize=1024)
def _limit(count: int, length: int) -> int:
    """Least number of values with a run of this length that is suspicious.

    That c of N values have it is at most comb(N, c) / 2**(length * c) likely (union bound).
    """
    reached = 1
    while reached <= count and comb(count, reached) * CHECKS * FALSE_ALARM > 1 << (length * reached):
        reached += 1
    return reached
