"""Feerates and fees in integers: rounding up, bounds, and what a replacement has to pay. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue

MAX_SAT_PER_KVB: Final = 100_000_000
"""1 BTC per kvB: beyond it a number is a mistake."""


@dataclass(frozen=True, slots=True, order=True)
class FeeRate:
    """Satoshis per 1,000 virtual bytes.

    Raises:
        InvalidValue: not an int, negative, or above `MAX_SAT_PER_KVB`.
    """

    sat_per_kvb: int

    def __post_init__(self) -> None:
        if type(self.sat_per_kvb) is not int or not 0 <= self.sat_per_kvb <= MAX_SAT_PER_KVB:
            raise InvalidValue(f"feerate {self.sat_per_kvb!r}: expected 0 to {MAX_SAT_PER_KVB} sat/kvB")

    @classmethod
    def paid(cls, fee_sats: int, size_vb: int) -> FeeRate:
        """The feerate a transaction pays, rounded down as bitcoind does (`CFeeRate`).

        Raises:
            InvalidValue: a size below 1, or the rate is out of range.
        """
        if size_vb < 1:
            raise InvalidValue(f"size {size_vb}: expected at least 1 vB")
        return cls(fee_sats * 1000 // size_vb)

    def fee_for(self, size_vb: int) -> int:
        """Satoshis that `size_vb` virtual bytes cost, rounded up so that the rate is always reached."""
        return -(-self.sat_per_kvb * size_vb // 1000)

    def fee_for_weight(self, weight_wu: int) -> int:
        """Satoshis that `weight_wu` weight units cost without rounding to whole virtual bytes first."""
        return -(-self.sat_per_kvb * weight_wu // 4000)

    def __str__(self) -> str:
        return f"{self.sat_per_kvb // 1000}.{self.sat_per_kvb % 1000:03d} sat/vB"


@dataclass(frozen=True, slots=True)
class Evicted:
    """What a replacement of one mempool transaction pushes out (BIP125): itself, and all that spends from it."""

    transactions: int
    fees_sats: int
    """Of all of them together."""


MAX_EVICTED: Final = 100
"""Most that one replacement may push out (rule 5 of BIP125)."""


def clamp(rate: FeeRate, floor: FeeRate, cap: FeeRate) -> FeeRate:
    """`rate`, but at least `floor` and at most `cap`.

    Raises:
        InvalidValue: the floor is above the cap, so no rate satisfies both.
    """
    if floor > cap:
        raise InvalidValue(f"fee floor {floor} is above the fee cap {cap}")
    return max(floor, min(rate, cap))


def minimum_replacement_fee(
    old_fee_sats: int, old_feerate: FeeRate, new_size_vb: int, incremental: FeeRate
) -> int:
    """Least fee in satoshis with which bitcoind accepts a replacement of `new_size_vb` virtual bytes.

    Rules 3 and 4 of BIP125 (pay what all replaced transactions pay, and their relay at the `incremental` rate
    on top), and bitcoind's own rule that the feerate must be higher than that of each transaction replaced.

    Args:
        old_fee_sats: sum of the fees of all replaced transactions, descendants included.
        old_feerate: the highest feerate among them, as `FeeRate.paid` gives it.
        new_size_vb: of the replacement.
        incremental: the node's `incrementalrelayfee`.
    """
    pays_for_relay = old_fee_sats + incremental.fee_for(new_size_vb)
    strictly_higher = FeeRate(old_feerate.sat_per_kvb + 1).fee_for(new_size_vb)
    return max(pays_for_relay, strictly_higher)
