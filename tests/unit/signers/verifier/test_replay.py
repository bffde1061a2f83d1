"""The verifier's replay against books made by the online side's own rules, and against rows that somebody edited."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from custody.ledger.bookings import deposit_reference, withdrawal_hold_id
from custody.ledger.lifecycle import HoldState
from custody.ledger.model import AccountKey, AccountKind, TransferKind, available, house
from custody.ledger.posting import TransferRecord
from signers.verifier.model import Line, Replayed
from signers.verifier.replay import replay
from tests.fakes.ledger_rows import ASSETS, CORE, CUSTOMERS, WALLET, Books, Rows

MOST_FEE = 3
LEAST_FRAUD = 1_000
"""More than all fees that a history of these tests has: what a deletion gives back of them is not looked at."""


def explained(books: Books, rows: Rows, customer: str, done: frozenset[str] = frozenset()) -> Replayed | None:
    """The replay, if it and everything that it rests on outside of the ledger holds."""
    found = replay(rows.history(customer))
    held = found.held.values()
    outside = (
        not found.findings
        and all(
            books.deposits.get(each.deposit) == (customer, each.asset, each.units) and each.wallet == WALLET
            for each in found.credits
        )
        and all(
            (order := books.orders.get(each.withdrawal)) is not None
            and order[:2] == (customer, each.asset)
            and each.units == order[2] + order[3]
            and (each.state != "posted" or (each.paid, each.fee) == order[2:])
            and (each.state != "posted" or each.payee is not None or each.withdrawal in books.paid)
            for each in held
        )
        and all(
            books.internal.get(each.withdrawal) == customer
            and books.orders[each.withdrawal][:3] == (each.payer, each.asset, each.units)
            for each in found.received
        )
        and {each.id: Counter(each.legs) for each in found.trades}
        == {id: legs for id, legs in books.trades.items() if any(leg.customer == customer for leg in legs)}
        and all(
            (each := found.held.get(order)) is not None and each.state != "voided" and each.payee is None
            for order in books.paid
            if books.orders[order][0] == customer
        )
    )
    if not outside:
        return None
    for partner in found.partners - done - {customer}:
        if explained(books, rows, partner, done | {customer}) is None:
            return None
    return found


def claimable(books: Books, found: Replayed, asset: str) -> int:
    """What a customer could still take out, by a replay."""
    all_of_it = sum(found.balance(kind, asset) for kind in ("available", "frozen", "trading"))
    on_its_way = sum(
        each.units
        for each in found.held.values()
        if each.state == "pending" and each.asset == asset and each.withdrawal in books.paid
    )
    return all_of_it - on_its_way - found.shortfalls.get(asset, 0)


def one_of(draw: Any, choices: Iterable[Any]) -> Any:
    return draw(st.sampled_from(list(choices)))


@st.composite
def honest(draw: st.DrawFn) -> Books:
    books = Books()
    for customer in CUSTOMERS:
        for asset in ASSETS:
            books.deposit(customer, asset, draw(st.integers(10_000, 90_000)))
    for _ in range(draw(st.integers(0, 25))):
        customer, asset = one_of(draw, list(CUSTOMERS)), one_of(draw, list(ASSETS))
        other = next(each for each in CUSTOMERS if each != customer)
        units, fee = draw(st.integers(1, 30_000)), draw(st.integers(0, MOST_FEE))
        pending = books.pending()
        match draw(st.integers(0, 10)):
            case 0:
                books.deposit(customer, asset, units)
            case 1 | 2:
                books.request(customer, asset, units, fee)
            case 3 if pending and (order := one_of(draw, pending)) not in books.paid:
                books.cancel(order)
            case 4 | 5 if pending:
                books.settle(one_of(draw, pending))
            case 6 if pending and (order := one_of(draw, pending)) not in books.paid:
                payer = books.orders[order][0]
                books.settle_internally(
                    order, draw(st.sampled_from([payer, "bob" if payer == "alice" else "alice"]))
                )
            case 7 if books.settled:
                books.unsettle(one_of(draw, list(books.settled)))
            case 8:
                books.to_trading(customer, asset, units)
            case 9:
                books.trade(
                    customer, other, min(units, 5_000), units + MOST_FEE, fee, draw(st.integers(0, fee))
                )
            case 10 if books.deposits:
                id = one_of(draw, list(books.deposits))
                books.claw_back(id)
                if draw(st.booleans()):
                    books.mine_again(id)
    return books


@given(honest())
@settings(max_examples=150)
def test_random_honest_histories_are_explained_and_add_up(books: Books) -> None:
    for customer in CUSTOMERS:
        found = replay(books.rows.history(customer))
        overdrawn = any(
            missing > sum(found.balance(kind, asset) for kind in ("available", "frozen", "trading"))
            for asset, missing in found.shortfalls.items()
        )
        assert {each.kind for each in found.findings} == ({"overdrawn"} if overdrawn else set())
        for asset in ASSETS:
            for kind in (AccountKind.AVAILABLE, AccountKind.FROZEN, AccountKind.TRADING):
                place = books.book.accounts[AccountKey(customer, kind, asset)]
                assert found.balance(kind.value, asset) == place.balance


@given(honest(), st.data())
@settings(max_examples=400)
def test_no_single_edit_of_an_honest_history_lets_customers_take_more(
    books: Books, data: st.DataObject
) -> None:
    before = {c: explained(books, books.rows, c) for c in CUSTOMERS}
    if None in before.values():
        return  # a reorg took back what was spent: nobody is covered, edited or not
    rows = books.rows.copy()
    edit(data.draw, books, rows)
    if not rows.consistent():
        return  # the database itself would refuse
    after = {c: explained(books, rows, c) for c in CUSTOMERS}
    for asset in ASSETS:
        # Whoever owes after a reorg does not make less of what the others have.
        had = sum(max(0, claimable(books, found, asset)) for found in before.values() if found is not None)
        has = sum(claimable(books, found, asset) for found in after.values() if found is not None)
        assert has < had + LEAST_FRAUD


def edit(draw: Any, books: Books, rows: Rows) -> None:
    """One change that whoever can write every table makes, numbered and added up as it has to be."""
    choose = partial(one_of, draw)
    transfer = choose(rows.legs)
    much = draw(st.integers(LEAST_FRAUD, 10**9))
    legs = rows.legs[transfer]
    asset: str = choose(ASSETS)
    alice = [
        books.ids[AccountKey("alice", kind, asset)] for kind in (AccountKind.TRADING, AccountKind.AVAILABLE)
    ]
    match draw(st.integers(0, 11)):
        case 0:
            del rows.legs[transfer], rows.transfers[transfer]
        case 1:
            copy = uuid4()
            rows.transfers[copy] = replace(rows.transfers[transfer], id=copy)
            rows.legs[copy] = list(legs)
        case 2:
            (first, amount, kind), (second, other, kind2) = legs[:2]
            rows.legs[transfer] = [
                (first, amount + much * (1 if amount > 0 else -1), kind),
                (second, other + much * (1 if other > 0 else -1), kind2),
                *legs[2:],
            ]
        case 3:
            one, two = choose(rows.owners), choose(rows.owners)
            rows.owners[one], rows.owners[two] = rows.owners[two], rows.owners[one]
        case 4:
            at = draw(st.integers(0, len(legs) - 1))
            rows.legs[transfer][at] = (choose(rows.owners), *legs[at][1:])
        case 5:
            reference = choose([each.reference for each in rows.transfers.values()] + ["", "batch:2"])
            rows.transfers[transfer] = replace(rows.transfers[transfer], reference=reference)
        case 6:
            forge(rows, deposit_reference(uuid4()), (books, "alice", asset, much))
        case 7:
            forge(rows, deposit_reference(choose(books.credits)), (books, "alice", asset, much))
        case 8:
            source = choose(
                [house(AccountKind.CHAIN_ASSETS, asset, wallet=WALLET), house(AccountKind.SUSPENSE, asset)]
            )
            target = choose(alice)
            kind = choose(["trade_buy", "transfer", "deposit", "unfreeze"])
            write(rows, choose(["", "batch:3"]), [(books.ids[source], -much, kind), (target, much, kind)])
        case 9:
            at = draw(st.integers(0, len(legs) - 1))
            rows.legs[transfer][at] = (
                *legs[at][:2],
                choose(["deposit", "transfer", "trade_buy", "claw_back", "fee"]),
            )
        case 10:
            kind = choose(TransferKind)
            rows.transfers[transfer] = replace(
                rows.transfers[transfer], kind=kind, parent=choose([None, *rows.legs])
            )
        case 11 if rows.holds:
            hold = choose(rows.holds)
            rows.holds[hold] = replace(rows.holds[hold], state=choose(HoldState), customer=choose(CUSTOMERS))


def write(rows: Rows, reference: str, legs: list[tuple[int, int, str]]) -> UUID:
    id = uuid4()
    rows.transfers[id] = TransferRecord(id, TransferKind.IMMEDIATE, bytes(32), None, reference)
    rows.legs[id] = legs
    return id


def forge(rows: Rows, reference: str, what: tuple[Books, str, str, int]) -> UUID:
    books, customer, asset, units = what
    wallet = books.ids[house(AccountKind.CHAIN_ASSETS, asset, wallet=WALLET)]
    return write(
        rows,
        reference,
        [(wallet, -units, "deposit"), (books.ids[available(customer, asset)], units, "deposit")],
    )


# ------------------------------------------------------------------------------------ single edits, one by one


@pytest.fixture
def books() -> Books:
    made = Books()
    made.deposit("alice", "BTC", 100_000)
    made.deposit("bob", "BTC", 50_000)
    order = made.request("alice", "BTC", 30_000, 500)
    assert order is not None
    made.settle(order)
    pending = made.request("alice", "BTC", 10_000, 500)
    assert pending is not None
    return made


def kinds(books: Books, rows: Rows, customer: str = "alice") -> set[str]:
    return {each.kind for each in replay(rows.history(customer)).findings}


def test_an_honest_history_is_explained_to_the_last_line(books: Books) -> None:
    found = replay(books.rows.history("alice"))
    assert found.findings == ()
    assert found.balances[("available", "BTC")] == 59_000
    assert found.balances[("frozen", "BTC")] == 10_500
    assert [(each.state, each.units, each.paid, each.fee) for each in found.held.values()] == [
        ("posted", 30_500, 30_000, 500),
        ("pending", 10_500, 0, 0),
    ]
    assert replay(books.rows.history("alice")) == found


@pytest.mark.parametrize("column", ["amount", "after", "before", "seq"])
def test_a_line_that_was_edited_breaks_the_account_it_is_in(books: Books, column: str) -> None:
    lines = books.rows.lines()
    at = next(n for n, line in enumerate(lines) if line.account == books.ids[available("alice", "BTC")])
    lines[at] = Line(**{**fields(lines[at]), column: getattr(lines[at], column) + 5})
    assert "account-not-replayed" in {
        each.kind for each in replay(books.rows.history("alice", lines)).findings
    }


def test_a_line_that_was_deleted_breaks_the_account_it_was_in(books: Books) -> None:
    lines = books.rows.lines()
    place = books.ids[available("alice", "BTC")]
    lines.remove(next(line for line in lines if line.account == place))
    assert "account-not-replayed" in {
        each.kind for each in replay(books.rows.history("alice", lines)).findings
    }


def test_money_that_comes_from_nowhere_is_unexplained(books: Books) -> None:
    suspense = books.ids[house(AccountKind.SUSPENSE, "BTC")]
    for account in (AccountKind.AVAILABLE, AccountKind.TRADING):
        for reference in ("", "bonus", "deposit:none", "withdrawal:none"):
            rows = books.rows.copy()
            place = books.ids[AccountKey("alice", account, "BTC")]
            write(rows, reference, [(suspense, -7, "transfer"), (place, 7, "transfer")])
            assert kinds(books, rows) == {"unexplained-transfer"}


def test_an_invented_trade_takes_from_nobody_but_a_trading_account(books: Books) -> None:
    trading = books.ids[AccountKey("alice", AccountKind.TRADING, "BTC")]
    for source in (
        house(AccountKind.CHAIN_ASSETS, "BTC", wallet=WALLET),
        house(AccountKind.FEES_EARNED, "BTC"),
        available("bob", "BTC"),
    ):
        rows = books.rows.copy()
        for reference in ("batch:9", f"trade:{CORE}:9:0"):
            write(rows, reference, [(books.ids[source], -100, "trade_sell"), (trading, 100, "trade_buy")])
            assert kinds(books, rows) == {"unexplained-transfer"}


def test_whoever_trades_with_one_whose_ledger_is_not_explained_has_a_partner_to_be_examined(
    books: Books,
) -> None:
    assert books.to_trading("bob", "BTC", 5_000)
    assert books.to_trading("alice", "BTC", 5_000)
    books.deposit("bob", "ETH", 900)
    assert books.to_trading("bob", "ETH", 900)
    assert books.trade("alice", "bob", 100, 900, 1)
    assert replay(books.rows.history("alice")).partners == {"bob"}


def test_one_deposit_credited_to_two_customers_is_found_with_both(books: Books) -> None:
    rows = books.rows.copy()
    forge(rows, deposit_reference(next(iter(books.credits))), (books, "bob", "BTC", 100_000))
    assert kinds(books, rows, "alice") == {"deposit-repeated"}
    assert kinds(books, rows, "bob") == {"deposit-repeated"}


def test_a_deposit_that_was_clawed_back_and_spent_leaves_its_customer_owing(books: Books) -> None:
    deposit = next(iter(books.credits))
    books.claw_back(deposit)
    found = replay(books.rows.history("alice"))
    assert found.shortfalls == {"BTC": 41_000}
    assert {each.kind for each in found.findings} == {"overdrawn"}
    books.mine_again(deposit)
    again = replay(books.rows.history("alice"))
    assert (again.findings, again.shortfalls.get("BTC", 0)) == ((), 0)


def test_a_hold_whose_row_says_something_else_than_its_lines_is_found(books: Books) -> None:
    order = next(iter(books.orders))
    changes: list[dict[str, Any]] = [
        {"state": HoldState.PENDING},
        {"units": 1},
        {"customer": "bob"},
        {"asset": "ETH"},
    ]
    for change in changes:
        rows = books.rows.copy()
        hold = withdrawal_hold_id(order)
        rows.holds[hold] = replace(rows.holds[hold], **change)
        assert "hold-broken" in kinds(books, rows)


def fields(line: Line) -> dict[str, Any]:
    return {name: getattr(line, name) for name in Line.__slots__}
