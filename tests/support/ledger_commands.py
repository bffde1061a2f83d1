"""Commands as the service would give them, and ones that it never should, drawn by hypothesis."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st

from custody.ids import derived_id
from custody.ledger import bookings
from custody.ledger.model import (
    AccountKind,
    Command,
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

CUSTOMERS = ("ada", "ben")
# Few values, so that commands meet: the same deposit again, the hold that was made, the transfer to reverse.
_small = st.integers(0, 1)
_units = st.sampled_from((3, 4, 5))
_n = st.integers(1, 2)
_who = st.sampled_from(CUSTOMERS)


def commands(asset: str) -> st.SearchStrategy[Command]:
    """Any command over a few customers, deposits and withdrawals, so that ids meet again and again."""
    # Ids are derived from the asset: examples that share a database never meet.
    thing = st.builds(lambda name, number: derived_id(asset, name, number), st.just("thing"), _small)
    at = {"asset": st.just(asset)}
    chain = at | {"wallet": st.just("hot"), "units": _units}
    owner = st.one_of(st.none(), _who)
    payment = at | {"customer": _who, "units": _units, "fee_units": st.integers(0, 1)}
    return st.one_of(
        st.builds(bookings.credit_deposit, thing, _n, customer=owner, **chain),
        # Enough that what follows has something to work with.
        st.builds(bookings.credit_deposit, thing, _n, customer=_who, **(chain | {"units": st.just(20)})),
        st.builds(bookings.claw_back, thing, _n, customer=owner, **chain),
        st.builds(bookings.hold_withdrawal, thing, **payment),
        st.builds(bookings.settle_withdrawal, thing, _n, wallet=st.just("hot"), **payment),
        st.builds(bookings.settle_internally, thing, _n, to_customer=_who, **payment),
        st.builds(bookings.release_withdrawal, thing),
        st.builds(bookings.unsettle_withdrawal, thing, _n),
        st.builds(
            bookings.book_network_fee, thing, _n, wallet=st.just("hot"), fee_units=st.integers(1, 5), **at
        ),
        st.builds(bookings.unbook_network_fee, thing, _n),
        _odd(asset, thing),
    )


def _odd(asset: str, thing: st.SearchStrategy[UUID]) -> st.SearchStrategy[Command]:
    """Commands that no booking makes."""

    def transfer(id: UUID, a: str, b: str, take: int, give: int) -> Transfer:
        legs = (
            Leg(available(a, asset), -take, LineType.TRANSFER),
            Leg(available(b, asset), give, LineType.TRANSFER),
        )
        return Transfer(id, legs)

    def post(id: UUID, hold: UUID, who: str, take: int, give: int) -> PostHold:
        legs = (
            Leg(frozen(who, asset), -take, LineType.FEE),
            Leg(house(AccountKind.FEES_EARNED, asset), give, LineType.FEE),
        )
        return PostHold(id, bookings.withdrawal_hold_id(hold), legs)

    def reverse(id: UUID, deposit: UUID, n: int) -> Reverse:
        return Reverse(id, derived_id("credit", deposit, n))

    id = st.builds(lambda number: derived_id(asset, "odd", number), st.integers(0, 9))
    return st.one_of(
        st.builds(transfer, id, _who, _who, _units, _units),
        st.builds(lambda id, a, b, units: transfer(id, a, b, units, units), id, _who, _who, _units),
        st.builds(post, id, thing, _who, _units, _units),
        st.builds(lambda id, hold, who, u: post(id, hold, who, u, u), id, thing, _who, _units),
        st.builds(reverse, id, thing, _n),
        st.builds(lambda id, w: Reverse(id, bookings.withdrawal_hold_id(w)), id, thing),
        st.builds(lambda id, w: VoidHold(id, bookings.withdrawal_hold_id(w)), id, thing),
    )
