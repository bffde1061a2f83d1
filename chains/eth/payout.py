"""Many payments of the native asset in one transaction, by the contract `BatchPayout`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from chains.eth.abi import (
    address_word,
    decode_two_arrays,
    encode_two_arrays,
    selector,
    uint_word,
    word_address,
    word_uint,
)

PAY: Final = selector("pay(address[],uint256[])")


@dataclass(frozen=True, slots=True)
class Payout:
    """One payment of a batch."""

    to: bytes
    """Payee, 20 bytes."""
    units: int
    """Wei."""


def payout_calldata(payouts: Sequence[Payout]) -> bytes:
    """Calldata for the contract; the transaction's value must be the sum of the payments.

    Raises:
        InvalidValue: no payments, more than `abi.MAX_ITEMS`, or one that is malformed.
    """
    if not payouts:
        raise InvalidValue("payout: no payment")
    payees = [address_word(payout.to) for payout in payouts]
    return encode_two_arrays(PAY, payees, [uint_word(payout.units) for payout in payouts])


def decode_payout(calldata: bytes) -> tuple[Payout, ...]:
    """Read what `payout_calldata` writes, and nothing else. Raises InvalidValue."""
    payees, units = decode_two_arrays(calldata, PAY)
    if not payees or len(payees) != len(units):
        raise InvalidValue(f"payout: {len(payees)} payees and {len(units)} amounts")
    return tuple(Payout(word_address(to), word_uint(of)) for to, of in zip(payees, units, strict=True))
