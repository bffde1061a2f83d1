"""Which commands book what happens to deposits, withdrawals and our transactions. Pure; ids are derived.

`n` counts from 1 how often the thing happened (a deposit credited again after a reorg, a withdrawal settled
again), so that a repetition of the same booking has the same id, and the next booking has another.
"""

from __future__ import annotations

from uuid import UUID

from chains.errors import InvalidValue
from custody.ids import derived_id
from custody.ledger.model import (
    AccountKind,
    Hold,
    Leg,
    LineType,
    PostHold,
    Reverse,
    Transfer,
    VoidHold,
    available,
    frozen,
    house,
)


def deposit_reference(deposit_id: UUID) -> str:
    """What all bookings of a deposit have as reference; `service.shortfall` takes it."""
    return f"deposit:{deposit_id}"


def withdrawal_reference(withdrawal_id: UUID) -> str:
    """What all bookings of a withdrawal have as reference."""
    return f"withdrawal:{withdrawal_id}"


def transaction_reference(transaction_id: UUID) -> str:
    """What all bookings of a transaction of ours have as reference."""
    return f"transaction:{transaction_id}"


def withdrawal_hold_id(withdrawal_id: UUID) -> UUID:
    """Id of the one hold of a withdrawal."""
    return derived_id("hold", withdrawal_id)


def settlement_id(withdrawal_id: UUID, n: int) -> UUID:
    """Id of the transfer that settles a withdrawal for the n-th time."""
    return derived_id("settle", withdrawal_id, n)


def network_fee_id(transaction_id: UUID, n: int) -> UUID:
    """Id of the transfer that books a transaction's network fee for the n-th time."""
    return derived_id("network-fee", transaction_id, n)


def credit_deposit(
    deposit_id: UUID,
    n: int,
    *,
    customer: str | None,
    asset: str,
    wallet: str,
    units: int,
    shortfall_units: int = 0,
) -> Transfer:
    """Credit a deposit to its customer, or to suspense where `customer` is None.

    Args:
        deposit_id: the deposit.
        n: how often it has been credited, this time included.
        customer: whose it is.
        asset: asset id.
        wallet: key-set that received it.
        units: what arrived, base units.
        shortfall_units: what earlier claw-backs of this deposit left in suspense (`service.shortfall`); it is
            repaid first.

    Raises:
        InvalidValue: no positive number of units, or a shortfall that is negative or exceeds them.
    """
    if not 0 <= shortfall_units <= units:
        raise InvalidValue(f"shortfall of {shortfall_units} base units for a deposit of {units}")
    suspense = house(AccountKind.SUSPENSE, asset)
    legs = [Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), -units, LineType.DEPOSIT)]
    if shortfall_units:
        legs.append(Leg(suspense, shortfall_units, LineType.CLAW_BACK))
    if units > shortfall_units:
        owner = suspense if customer is None else available(customer, asset)
        legs.append(Leg(owner, units - shortfall_units, LineType.DEPOSIT))
    return Transfer(derived_id("credit", deposit_id, n), tuple(legs), deposit_reference(deposit_id))


def claw_back(
    deposit_id: UUID, n: int, *, customer: str | None, asset: str, wallet: str, units: int
) -> Transfer:
    """Undo the n-th credit of a deposit: from the customer's available money as far as it reaches, the rest
    from suspense, where it stands as a loss to be recovered.

    Raises:
        InvalidValue: no positive number of units.
    """
    suspense = house(AccountKind.SUSPENSE, asset)
    if customer is None:
        debit = Leg(suspense, -units, LineType.CLAW_BACK)
    else:
        debit = Leg(available(customer, asset), -units, LineType.CLAW_BACK, overflow=suspense)
    credit = Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), units, LineType.CLAW_BACK)
    return Transfer(derived_id("claw-back", deposit_id, n), (debit, credit), deposit_reference(deposit_id))


def hold_withdrawal(withdrawal_id: UUID, *, customer: str, asset: str, units: int, fee_units: int) -> Hold:
    """Freeze what a withdrawal takes: `units` for the destination and `fee_units`, the customer's fee."""
    return Hold(
        withdrawal_hold_id(withdrawal_id),
        customer,
        asset,
        units + fee_units,
        withdrawal_reference(withdrawal_id),
    )


def release_withdrawal(withdrawal_id: UUID) -> VoidHold:
    """Give a withdrawal's hold back: it was rejected, cancelled, expired, or failed."""
    return VoidHold(
        derived_id("release", withdrawal_id),
        withdrawal_hold_id(withdrawal_id),
        withdrawal_reference(withdrawal_id),
    )


def settle_withdrawal(
    withdrawal_id: UUID, n: int, *, customer: str, asset: str, wallet: str, units: int, fee_units: int
) -> PostHold:
    """The payment is final on the chain: the held money leaves, the fee is earned."""
    paid = Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), units, LineType.WITHDRAWAL)
    return _settle(withdrawal_id, n, customer, asset, units, fee_units, paid)


def settle_internally(
    withdrawal_id: UUID,
    n: int,
    *,
    customer: str,
    to_customer: str,
    asset: str,
    units: int,
    fee_units: int,
) -> PostHold:
    """The destination is another customer's address of ours: the money changes hands in the ledger."""
    paid = Leg(available(to_customer, asset), units, LineType.DEPOSIT)
    return _settle(withdrawal_id, n, customer, asset, units, fee_units, paid)


def unsettle_withdrawal(withdrawal_id: UUID, n: int) -> Reverse:
    """The n-th settlement is undone (its block left the best chain): the hold is pending again."""
    return Reverse(
        derived_id("unsettle", withdrawal_id, n),
        settlement_id(withdrawal_id, n),
        withdrawal_reference(withdrawal_id),
    )


def book_network_fee(transaction_id: UUID, n: int, *, asset: str, wallet: str, fee_units: int) -> Transfer:
    """The house pays what the confirmed version of a transaction gave to miners.

    Raises:
        InvalidValue: no positive fee.
    """
    return Transfer(
        network_fee_id(transaction_id, n),
        (
            Leg(house(AccountKind.NETWORK_FEES, asset), -fee_units, LineType.NETWORK_FEE),
            Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), fee_units, LineType.NETWORK_FEE),
        ),
        transaction_reference(transaction_id),
    )


def unbook_network_fee(transaction_id: UUID, n: int) -> Reverse:
    """The n-th booking of a network fee is undone: that version is no longer in the best chain."""
    return Reverse(
        derived_id("unbook-network-fee", transaction_id, n),
        network_fee_id(transaction_id, n),
        transaction_reference(transaction_id),
    )


def rotation_reference(transaction_id: UUID) -> str:
    """What all bookings of a rotation have as reference."""
    return f"rotation:{transaction_id}"


def book_rotation(
    transaction_id: UUID, n: int, *, asset: str, source: str, target: str, units: int
) -> Transfer:
    """Money has moved from one wallet of ours into another; nobody is richer or poorer.

    Args:
        transaction_id: that moved it.
        n: how often it has been final, this time included.
        asset: asset id.
        source, target: key-sets.
        units: base units that arrived.

    Raises:
        InvalidValue: no positive number of units.
    """
    return Transfer(
        derived_id("rotation", transaction_id, n),
        _between(asset, source, target, units),
        rotation_reference(transaction_id),
    )


def _between(asset: str, source: str, target: str, units: int) -> tuple[Leg, Leg]:
    return (
        Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=target), -units, LineType.TRANSFER),
        Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=source), units, LineType.TRANSFER),
    )


def unbook_rotation(transaction_id: UUID, n: int) -> Reverse:
    """The n-th booking of a rotation is undone: its block left the best chain."""
    return Reverse(
        derived_id("unbook-rotation", transaction_id, n),
        derived_id("rotation", transaction_id, n),
        rotation_reference(transaction_id),
    )


def refill_reference(refill_id: UUID) -> str:
    """What all bookings of a refill have as reference."""
    return f"refill:{refill_id}"


def book_refill(refill_id: UUID, n: int, *, asset: str, source: str, target: str, units: int) -> Transfer:
    """A refill is final: its target has what its source had. See `book_rotation`.

    Raises:
        InvalidValue: no positive number of units.
    """
    legs = _between(asset, source, target, units)
    return Transfer(derived_id("refill", refill_id, n), legs, refill_reference(refill_id))


def unbook_refill(refill_id: UUID, n: int) -> Reverse:
    """The n-th booking of a refill is undone: its block left the best chain."""
    return Reverse(
        derived_id("unbook-refill", refill_id, n),
        derived_id("refill", refill_id, n),
        refill_reference(refill_id),
    )


def loss_reference(chain: str, resource: str) -> str:
    """What all bookings of a coin's loss have as reference."""
    return f"loss:{chain}:{resource}"


def book_loss(chain: str, resource: str, n: int, *, asset: str, wallet: str, units: int) -> Transfer:
    """A stranger spent a coin of ours for good: the house bears it, in suspense, as a loss to be recovered.

    Lines are of type `transfer`: value moves between two accounts of the house. No customer withdrew or deposited
    anything, and nothing was credited that could be clawed back.

    Raises:
        InvalidValue: no positive number of units.
    """
    return Transfer(
        derived_id("loss", chain, resource, n),
        (
            Leg(house(AccountKind.SUSPENSE, asset), -units, LineType.TRANSFER),
            Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), units, LineType.TRANSFER),
        ),
        loss_reference(chain, resource),
    )


def unbook_loss(chain: str, resource: str, n: int) -> Reverse:
    """The n-th booking of a loss is undone: the foreign transaction left the best chain."""
    return Reverse(
        derived_id("unbook-loss", chain, resource, n),
        derived_id("loss", chain, resource, n),
        loss_reference(chain, resource),
    )


def variance_reference(variance_id: UUID) -> str:
    """What all bookings of a variance have as reference."""
    return f"variance:{variance_id}"


def book_variance(
    variance_id: UUID, *, asset: str, wallet: str, units: int, account: AccountKind
) -> Transfer:
    """A wallet has more (positive) or less than blocks explain: the house's `account` gains or bears it.

    Args:
        variance_id: of the variance; of the transfer, too.
        asset: asset id.
        wallet: key-set.
        units: base units, not zero.
        account: SUSPENSE for what came unexplained or was stolen; NETWORK_FEES for what a token kept.

    Raises:
        InvalidValue: no units.
    """
    kind = LineType.NETWORK_FEE if account is AccountKind.NETWORK_FEES else LineType.TRANSFER
    return Transfer(
        variance_id,
        (
            Leg(house(AccountKind.CHAIN_ASSETS, asset, wallet=wallet), -units, kind),
            Leg(house(account, asset), units, kind),
        ),
        variance_reference(variance_id),
    )


def unbook_variance(variance_id: UUID) -> Reverse:
    """The booking of a variance is undone: the block at which it was found left the best chain."""
    return Reverse(derived_id("unbook-variance", variance_id), variance_id, variance_reference(variance_id))


def adjustment_reference(adjustment_id: UUID) -> str:
    """What the booking of an adjustment has as reference."""
    return f"adjustment:{adjustment_id}"


def book_adjustment(adjustment_id: UUID, *, customer: str, asset: str, units: int) -> Transfer:
    """Operators give a customer `units` (positive) or take them (negative); the other side is suspense.

    Raises:
        InvalidValue: no units.
    """
    return Transfer(
        adjustment_id,
        (
            Leg(house(AccountKind.SUSPENSE, asset), -units, LineType.ADJUSTMENT),
            Leg(available(customer, asset), units, LineType.ADJUSTMENT),
        ),
        adjustment_reference(adjustment_id),
    )


def _settle(
    withdrawal_id: UUID, n: int, customer: str, asset: str, units: int, fee_units: int, paid: Leg
) -> PostHold:
    held = frozen(customer, asset)
    legs = [Leg(held, -units, LineType.WITHDRAWAL), paid]
    if fee_units:
        legs.append(Leg(held, -fee_units, LineType.FEE))
        legs.append(Leg(house(AccountKind.FEES_EARNED, asset), fee_units, LineType.FEE))
    return PostHold(
        settlement_id(withdrawal_id, n),
        withdrawal_hold_id(withdrawal_id),
        tuple(legs),
        withdrawal_reference(withdrawal_id),
    )
