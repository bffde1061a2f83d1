"""Gas and its price (EIP-1559), in integers: what is offered, and what a replacement must offer. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue

TRANSFER_GAS: Final = 21_000
"""A payment to an address without code."""

MAX_WEI_PER_GAS: Final = 10**15
"""A million gwei: beyond it a number is a mistake."""

_GWEI: Final = 10**9

BUMP_NUMERATOR: Final = 1125
BUMP_DENOMINATOR: Final = 1000
"""A replacement offers 12.5 % more of both fees: go-ethereum's pool asks for 10 %, Nethermind's and others' for up to
12.5 %."""

BASE_FEE_HEADROOM: Final = 2
"""Room for the base fee to double before the offer falls short: six full blocks in a row."""

ESTIMATE_NUMERATOR: Final = 13
ESTIMATE_DENOMINATOR: Final = 10
"""What is estimated may grow by 30 % before it is mined."""


@dataclass(frozen=True, slots=True)
class GasPrice:
    """What the network asks for now, as the node sees it.

    Raises:
        InvalidValue: not an int, negative, or above `MAX_WEI_PER_GAS`.
    """

    base_fee_wei: int
    """Per gas, of the next block; it is burnt."""
    priority_wei: int
    """Per gas, for the proposer: a suggestion."""

    def __post_init__(self) -> None:
        _price("base fee", self.base_fee_wei)
        _price("priority fee", self.priority_wei)

    @property
    def now_wei(self) -> int:
        """What gas costs if it is mined in the next block."""
        return self.base_fee_wei + self.priority_wei


@dataclass(frozen=True, slots=True)
class FeeOffer:
    """The two fees of a transaction, wei per gas.

    Raises:
        InvalidValue: not an int, negative, above `MAX_WEI_PER_GAS`, or the priority above the whole.
    """

    max_fee_wei: int
    """Most that is paid per gas (`maxFeePerGas`)."""
    priority_wei: int
    """Most that goes to the proposer, per gas (`maxPriorityFeePerGas`)."""

    def __post_init__(self) -> None:
        _price("fee", self.max_fee_wei)
        _price("priority fee", self.priority_wei)
        if self.priority_wei > self.max_fee_wei:
            raise InvalidValue(f"priority fee {self.priority_wei} above fee {self.max_fee_wei} wei")

    def pays(self, price: GasPrice) -> bool:
        """Whether the next block may take it at all."""
        return self.max_fee_wei >= price.base_fee_wei


def offer(price: GasPrice, *, floor_wei: int, cap_wei: int) -> FeeOffer | None:
    """What to offer for gas now: twice the base fee and the suggested priority, within the bounds.

    Args:
        price: what the network asks for.
        floor_wei: least that is ever offered as `max_fee_wei`.
        cap_wei: most; the lowest of the network's cap and what the order's ceiling leaves per gas.

    Returns:
        The offer, or None if the cap does not even pay what gas costs now (or the floor): wait.

    Raises:
        InvalidValue: a bound is out of range.
    """
    _price("floor", floor_wei)
    _price("cap", cap_wei)
    if max(price.now_wei, floor_wei) > cap_wei:
        return None
    wanted = BASE_FEE_HEADROOM * price.base_fee_wei + price.priority_wei
    return FeeOffer(min(max(wanted, floor_wei), cap_wei), price.priority_wei)


def replacement(before: FeeOffer, price: GasPrice, *, cap_wei: int) -> FeeOffer | None:
    """What the next version with the same nonce offers: both fees 12.5 % up, and at least what gas costs now.

    Args:
        before: the highest offer among the versions there are.
        price: what the network asks for.
        cap_wei: like in `offer`.

    Returns:
        The offer, or None if the cap leaves no room for a replacement that nodes take: wait, and say so.
    """
    _price("cap", cap_wei)
    least = FeeOffer(_bumped(before.max_fee_wei), _bumped(before.priority_wei))
    wanted = BASE_FEE_HEADROOM * price.base_fee_wei + price.priority_wei
    if least.max_fee_wei > cap_wei:
        return None
    return FeeOffer(
        min(max(least.max_fee_wei, wanted), cap_wei),
        min(max(least.priority_wei, price.priority_wei), cap_wei),
    )


def told(wei_per_gas: int) -> str:
    """A price of gas as people read it, exactly: `1.5 gwei`."""
    whole, rest = divmod(wei_per_gas, _GWEI)
    return f"{whole}{f'.{rest:09}'.rstrip('0') if rest else ''} gwei"


def gas_limit(estimate: int, cap: int) -> int | None:
    """The limit for a call that is estimated to take `estimate` gas: 30 % more, at most `cap`.

    Returns:
        The limit, or None if the estimate itself is above the cap.
    """
    if estimate > cap:
        return None
    return min(-(-estimate * ESTIMATE_NUMERATOR // ESTIMATE_DENOMINATOR), cap)


def _bumped(wei: int) -> int:
    """12.5 % more, rounded up, and at least 1 wei more."""
    return max(-(-wei * BUMP_NUMERATOR // BUMP_DENOMINATOR), wei + 1)


def _price(what: str, wei: int) -> None:
    if type(wei) is not int or not 0 <= wei <= MAX_WEI_PER_GAS:
        raise InvalidValue(f"{what} {wei!r}: expected 0 to {MAX_WEI_PER_GAS} wei per gas")
