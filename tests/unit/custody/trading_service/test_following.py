"""Those who follow the core: what they fold out of events is what the engine has, whatever is traded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.types import Asset
from custody.ids import new_id
from custody.trading import commands as c
from custody.trading.candles import Candles
from custody.trading.core import Applied, system_micros
from custody.trading.engine import Engine
from custody.trading.fees import FeeSchedule, Tier
from custody.trading.history import History
from custody.trading.market import Market
from custody.trading.marketdata import MarketData
from custody.trading.outbox import Outbox
from custody.trading.ports import Batch, Cursor, Fill, Transfer
from custody.trading.records import Records
from custody.trading.transferbook import TransferBook
from custody.trading.views import Views

BTC, DOLLAR = 10**8, 10**6
MARKET = Market("BTC-USDX", "BTC", "USDX", 8, 10_000, 10_000, DOLLAR, 800, 1_000, band_bps=0, breaker_bps=0)
CUSTOMERS = ("alice", "bob", "carol")
SIDES: tuple[c.Side, ...] = ("buy", "sell")


def traded(seed: int, orders: int = 150) -> tuple[Engine, list[Applied]]:
    """A random afternoon, auction included."""
    random = Random(seed)
    engine = Engine((MARKET,), FeeSchedule((Tier(0, 0),)))
    applied: list[Applied] = []
    at = system_micros()

    def do(command: c.AnyCommand) -> None:
        applied.append(Applied(engine.sequence + 1, command, engine.apply(command)))

    for customer in CUSTOMERS:
        do(c.Deposit(at, str(new_id()), customer, "BTC", 100 * BTC))
        do(c.Deposit(at, str(new_id()), customer, "USDX", 10_000_000 * DOLLAR))
    do(c.SetMarketState(at, "BTC-USDX", "auction"))
    for number in range(orders):
        at += random.randrange(2_000_000)
        if number == orders // 5:
            do(c.SetMarketState(at, "BTC-USDX", "open"))
        customer = random.choice(CUSTOMERS)
        kind = random.random()
        old = f"o-{random.randrange(number + 1)}"
        price = 50_000 * DOLLAR + random.randrange(-20, 20) * 10_000
        units = random.randrange(1, 50) * 10_000
        if kind < 0.2:
            do(c.Cancel(at, customer, old))
        elif kind < 0.3:
            do(c.Replace(at, customer, old, price, units))
        elif kind < 0.33:
            do(c.Withdraw(at, str(new_id()), customer, "BTC", units))
        else:
            side = SIDES[random.randrange(2)]
            name = f"o-{number}"
            if kind < 0.4:
                do(c.Place(at, customer, name, "BTC-USDX", side, "market", "ioc", base_units=units))
            else:
                do(c.Place(at, customer, name, "BTC-USDX", side, price=price, base_units=units))
    return engine, applied


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_depth_by_increments_is_depth_by_snapshot_and_is_the_engines(seed: int) -> None:
    engine, applied = traded(seed)
    data = MarketData(Engine((MARKET,), FeeSchedule((Tier(0, 0),))))
    mirror: dict[str, dict[int, int]] = {"bids": {}, "asks": {}}
    at = 0
    for one in applied:
        data.take(one)
        change = data.increment("BTC-USDX", one.sequence)
        if change is not None:
            assert change.previous == at
            at = change.sequence
            for side, levels in (("bids", change.bids), ("asks", change.asks)):
                for price, units in levels:
                    mirror[side][price] = units
                    if not units:
                        del mirror[side][price]
    view = data.markets["BTC-USDX"]
    assert (mirror["bids"], mirror["asks"]) == (view.bids, view.asks)
    fresh = MarketData(engine).markets["BTC-USDX"]
    assert (fresh.bids, fresh.asks, fresh.state) == (view.bids, view.asks, view.state)


@given(seed=st.integers(0, 2**32), limit=st.integers(1, 5))
@settings(max_examples=25)
def test_settled_in_batches_of_any_size_the_ledger_has_what_the_engine_has(seed: int, limit: int) -> None:
    engine, applied = traded(seed)
    outbox = Outbox(lambda _: MARKET, Cursor())
    ledger: Counter[tuple[str, str]] = Counter()
    for customer in CUSTOMERS:
        ledger[customer, "BTC"], ledger[customer, "USDX"] = 100 * BTC, 10_000_000 * DOLLAR
    for one in applied:
        outbox.take(one)
    due = outbox.unsettled()
    expected = 1
    while (found := outbox.next(limit)) is not None:
        if isinstance(found, Transfer):
            ledger[found.customer, found.asset] -= found.units
            outbox.handed_over(found)
            continue
        assert found.first == expected
        assert 0 < len(found.fills) <= limit
        for fill in found.fills:
            assert found.first <= fill.sequence <= found.last
            ledger[fill.buyer, fill.base] += fill.base_units
            ledger[fill.seller, fill.base] -= fill.base_units
            ledger[fill.buyer, fill.quote] -= fill.quote_units + fill.buyer_fee
            ledger[fill.seller, fill.quote] += fill.quote_units - fill.seller_fee
        outbox.settled(found)
        expected = outbox.cursor.expected
    assert outbox.fills == 0
    assert outbox.unsettled() == {}
    has = {
        (customer.id, asset): balance.free + balance.held
        for customer in engine.customers.values()
        for asset, balance in customer.balances.items()
    }
    assert dict(ledger) == has
    begun = {key: (100 * BTC if key[1] == "BTC" else 10_000_000 * DOLLAR) for key in has}
    assert {key: units - begun[key] for key, units in has.items()} == {key: due.get(key, 0) for key in has}


@given(seed=st.integers(0, 2**32), cut=st.integers(0, 10_000))
@settings(max_examples=25)
def test_after_a_restart_at_any_cursor_the_outbox_has_what_is_behind_it_and_no_more(
    seed: int, cut: int
) -> None:
    _, applied = traded(seed)
    whole = Outbox(lambda _: MARKET, Cursor())
    for one in applied:
        whole.take(one)
    cursors = [Cursor()]
    fills: list[Fill] = []
    while (found := whole.next(2)) is not None:
        if isinstance(found, Batch):
            fills += found.fills
            whole.settled(found)
            cursors.append(whole.cursor)
        else:
            whole.handed_over(found)
    cursor = cursors[cut % len(cursors)]
    again = Outbox(lambda _: MARKET, cursor)
    for one in applied:
        if one.sequence > (cursor.last if cursor.complete else cursor.last - 1):
            again.take(one)
    behind: list[Fill] = []
    while (found := again.next(3)) is not None:
        if isinstance(found, Batch):
            behind += found.fills
            again.settled(found)
        else:
            again.handed_over(found)
    assert behind == [fill for fill in fills if not cursor.covers(fill.sequence, fill.index)]


@pytest.mark.parametrize("seed", range(3))
def test_records_after_a_restart_are_those_of_before(seed: int, tmp_path: Path) -> None:
    engine, applied = traded(seed)
    records = Records(Candles(), 0)
    for one in applied:
        records.take(one)
    with History(tmp_path / "h") as history:
        chapter = records.take_chapter()
        assert chapter is not None
        history.write(chapter)
        history.write(chapter)  # again changes nothing
        assert history.reach == engine.sequence
        again = Records(history.candles_to_go_on_with(["BTC-USDX"]), history.reach)
        again.load(engine, history.filled)
        for customer in CUSTOMERS:
            before = list(records.open_orders(customer, None))
            after = list(again.open_orders(customer, None))
            names = (
                "id",
                "client_order_id",
                "price",
                "base_units",
                "filled_base",
                "filled_quote",
                "fees",
                "status",
            )
            assert [[getattr(o, n) for n in names] for o in after] == [
                [getattr(o, n) for n in names] for o in before
            ]
            fills = history.fills(customer, after=(0, -1), limit=1_000)
            pages, place = [], (0, -1)
            while page := history.fills(customer, after=place, limit=3):
                pages += page
                place = (page[-1].sequence, page[-1].number)
            assert pages == fills
        day = history.candles("BTC-USDX", "1d", before=1 << 62, limit=10)
        trades = history.trades("BTC-USDX", before=(1 << 62, 0), limit=10_000)
        assert sum(candle.trades for candle in day) == len(trades)
        assert sum(candle.base_units for candle in day) == sum(fill.base_units for fill in trades)
        assert (day[-1].open, day[0].close) == (trades[-1].price, trades[0].price)


def test_a_transfer_goes_its_way_once_and_its_id_is_not_used_for_another(tmp_path: Path) -> None:
    with TransferBook(tmp_path / "t") as book:
        moved = Transfer(str(new_id()), "alice", "BTC", 10**30, "trading")
        assert book.begin(moved, 7) == book.begin(moved, 8)
        assert book.follow(moved, "done").state == "asked"  # not before the ledger has it
        assert book.follow(moved, "moved").state == "moved"
        assert [entry.transfer for entry in book.open()] == [moved]
        assert book.follow(moved, "refused").state == "moved"
        assert book.follow(moved, "done").state == "done"
        assert book.open() == []
        back = Transfer(moved.id, "alice", "BTC", 1, "funding")
        assert book.begin(back, 9).state == "debited"
        assert book.follow(back, "refused", "customer-frozen").reason == "customer-frozen"
    with TransferBook(tmp_path / "t") as book:
        assert [(entry.transfer, entry.state) for entry in book.open()] == [(back, "refused")]
        assert book.follow(back, "returned").state == "returned"


def test_amounts_are_shown_with_all_places_and_read_exactly() -> None:
    views = Views({"BTC": Asset("BTC", "b", 8), "USDX": Asset("USDX", "e", 6)}, {"BTC-USDX": MARKET})
    assert views.quote_units(MARKET, "60300.01") == 60_300_010_000
    assert views.quote(MARKET, 60_300_010_000) == "60300.010000"
    assert views.base_units(MARKET, None) == 0
