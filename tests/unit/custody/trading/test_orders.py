"""Each type of order and each rule about it, by example."""

from __future__ import annotations

from typing import Any

import pytest

from custody.trading.accounts import REMEMBERED_ORDERS
from custody.trading.commands import CancelAll, Deposit, Kill
from custody.trading.engine import Engine
from custody.trading.events import Filled, Replaced
from custody.trading.fees import FeeSchedule, Tier
from custody.trading.market import Market
from tests.unit.custody.trading.desk_of import Desk, code, fills, kinds
from tests.unit.custody.trading.scenes import AT, market, opened, transfer_id


@pytest.fixture
def desk() -> Desk:
    quiet: dict[str, Any] = {"band_bps": 0, "breaker_bps": 0, "maker_ppm": 0, "taker_ppm": 0}
    return Desk(opened(market(**quiet), fees=FeeSchedule((Tier(0, 0),))))


def test_known_case_a_market_buy_of_2_takes_both_asks_at_an_average_of_60360() -> None:
    usdx = 10**6
    btc_usdx = Market("BTC-USDX", "BTC", "USDX", 8, 100_000, 1_000, usdx, 800, 1_000)
    desk = Desk(opened(btc_usdx, fees=FeeSchedule((Tier(0, 0),)), units=10**12), "BTC-USDX")
    desk.place("ada", "sell", 60_300 * usdx, 80_000_000)
    desk.place("bob", "sell", 60_400 * usdx, 120_000_000)
    events = desk.place("cyd", "buy", type="market", size=200_000_000)
    assert fills(events) == [(60_300 * usdx, 80_000_000, "ada"), (60_400 * usdx, 120_000_000, "bob")]
    paid = sum(one.quote_units for one in events if isinstance(one, Filled))
    assert paid == 2 * 60_360 * usdx
    assert desk.free("cyd", "BTC") == 10**12 + 200_000_000
    assert desk.free("cyd", "USDX") == 10**12 - paid - paid // 1_000


def test_the_best_price_trades_first_and_at_one_price_the_oldest(desk: Desk) -> None:
    desk.place("ada", "sell", 610, 100)
    desk.place("bob", "sell", 600, 100)
    desk.place("dan", "sell", 600, 100)
    assert fills(desk.place("cyd", "buy", 610, 250)) == [
        (600, 100, "bob"),
        (600, 100, "dan"),
        (610, 50, "ada"),
    ]
    assert desk.depth() == ([], [(610, 50)])


def test_a_limit_order_holds_its_price_with_the_takers_fee_and_gives_back_what_it_did_not_need() -> None:
    desk = Desk(opened(market(band_bps=0, breaker_bps=0), fees=FeeSchedule((Tier(0, 0),))))
    desk.place("ada", "buy", 600, 100)
    assert (desk.free("ada", "Q"), desk.held("ada", "Q")) == (10**6 - 630, 630)
    desk.place("bob", "sell", 600, 100)
    # As the maker ada pays 1 %, not the 5 % that were held; bob pays 5 % of his proceeds.
    assert (desk.free("ada", "Q"), desk.held("ada", "Q")) == (10**6 - 606, 0)
    assert desk.free("bob", "Q") == 10**6 + 600 - 30
    assert desk.engine.books["X-Q"].earned == 36


def test_gtc_rests_ioc_does_not_fok_is_all_or_nothing_post_only_never_takes(desk: Desk) -> None:
    desk.place("ada", "sell", 600, 100)
    assert code(desk.place("bob", "buy", 600, 110, tif="fok")) == "not_fillable"
    assert code(desk.place("bob", "buy", 600, 50, tif="post_only")) == "post_only_would_take"
    assert desk.depth() == ([], [(600, 100)])
    assert kinds(desk.place("bob", "buy", 590, 50, tif="post_only")) == ["Rested"]
    assert kinds(desk.place("bob", "buy", 600, 40, tif="fok")) == ["Filled"]
    assert kinds(desk.place("bob", "buy", 600, 100, tif="ioc")) == ["Filled", "Cancelled:unfilled"]
    assert kinds(desk.place("bob", "buy", 600, 100)) == ["Rested"]
    assert desk.depth() == ([(600, 100), (590, 50)], [])


def test_a_market_order_by_quote_spends_at_most_that_with_its_fee() -> None:
    desk = Desk(opened(market(band_bps=0, breaker_bps=0), fees=FeeSchedule((Tier(0, 0),))))
    desk.place("ada", "sell", 600, 1_000)
    assert kinds(desk.place("bob", "buy", type="market", quote_units=1_000)) == ["Filled", "Cancelled:spent"]
    # A lot of 10 costs 60 and 3 of fee: fifteen of them are 945, sixteen would be 1,008.
    assert (desk.free("bob", "X"), desk.free("bob", "Q")) == (10**6 + 150, 10**6 - 945)


def test_a_market_sell_by_quote_sells_no_more_than_its_proceeds_need(desk: Desk) -> None:
    desk.place("ada", "buy", 600, 1_000)
    assert kinds(desk.place("bob", "sell", type="market", quote_units=1_000)) == ["Filled", "Cancelled:spent"]
    assert (desk.free("bob", "X"), desk.free("bob", "Q")) == (10**6 - 160, 10**6 + 960)


def test_a_market_order_goes_no_further_than_its_slippage(desk: Desk) -> None:
    for price in (600, 610, 640):
        desk.place("ada", "sell", price, 100)
    events = desk.place("bob", "buy", type="market", size=300, slippage_bps=300)
    assert fills(events) == [(600, 100, "ada"), (610, 100, "ada")]
    assert kinds(events)[-1] == "Cancelled:unfilled"
    assert code(desk.place("bob", "buy", type="market", size=100, slippage_bps=1_001)) == "bad_slippage"
    assert code(desk.place("bob", "sell", type="market", size=100)) == "no_price"


def test_a_market_buy_by_base_ends_where_the_money_ends(desk: Desk) -> None:
    desk.do(Deposit(AT, transfer_id(99), "eve", "Q", 1_000))
    desk.place("ada", "sell", 600, 1_000)
    events = desk.place("eve", "buy", type="market", size=500)
    assert kinds(events) == ["Filled", "Cancelled:insufficient_funds"]
    assert (desk.free("eve", "X"), desk.free("eve", "Q")) == (160, 40)


def test_a_stop_waits_holds_its_money_and_comes_to_life_at_its_price(desk: Desk) -> None:
    desk.place("ada", "sell", 600, 100)
    desk.place("ada", "sell", 620, 100)
    desk.place("ada", "sell", 630, 100)
    assert kinds(desk.place("bob", "buy", 630, 50, type="stop_limit", stop_price=620)) == []
    assert kinds(desk.place("dan", "sell", size=50, type="stop_market", stop_price=580)) == []
    assert (desk.held("bob", "Q"), desk.held("dan", "X")) == (315, 50)
    assert kinds(desk.place("cyd", "buy", 600, 100)) == ["Filled"]
    assert kinds(desk.place("cyd", "buy", 620, 20)) == ["Filled", "Triggered", "Filled"]
    assert (desk.held("bob", "Q"), desk.free("bob", "X")) == (0, 10**6 + 50)
    assert code(desk.place("bob", "buy", 630, 50, type="stop_limit", stop_price=620)) == "stop_would_trigger"
    assert kinds(desk.cancel("dan", "o5")) == ["Cancelled:asked"]
    assert desk.held("dan", "X") == 0


def test_one_stop_can_bring_the_next_to_life(desk: Desk) -> None:
    for price in (600, 590, 580):
        desk.place("ada", "buy", price, 100)
    desk.place("bob", "sell", size=100, type="stop_market", stop_price=600)
    desk.place("dan", "sell", size=100, type="stop_market", stop_price=590)
    events = desk.place("cyd", "sell", 600, 100)
    assert kinds(events) == ["Filled", "Triggered", "Filled", "Triggered", "Filled"]
    assert fills(events) == [(600, 100, "ada"), (590, 100, "ada"), (580, 100, "ada")]


@pytest.mark.parametrize(
    ("mode", "events", "depth"),
    [
        ("cancel_newest", ["Filled", "Cancelled:self_trade"], ([], [(600, 100)])),
        ("cancel_oldest", ["Filled", "Cancelled:self_trade", "Rested"], ([(600, 150)], [])),
        ("cancel_both", ["Filled", "Cancelled:self_trade", "Cancelled:self_trade"], ([], [])),
    ],
)
def test_nobody_trades_with_himself(
    desk: Desk, mode: str, events: list[str], depth: tuple[list[tuple[int, int]], list[tuple[int, int]]]
) -> None:
    desk.place("bob", "sell", 590, 50)
    desk.place("ada", "sell", 600, 100)
    assert kinds(desk.place("ada", "buy", 600, 200, self_trade=mode)) == events
    assert desk.depth() == depth


def test_a_replace_keeps_its_place_only_when_it_shrinks_at_its_price(desk: Desk) -> None:
    for customer in ("ada", "bob", "dan"):
        desk.place(customer, "sell", 600, 100)
    shrunk = desk.replace("ada", "o1", 600, 50)
    assert [one.priority for one in shrunk if isinstance(one, Replaced)] == ["kept"]
    assert desk.held("ada", "X") == 50
    grown = desk.replace("bob", "o2", 600, 110)
    assert kinds(grown) == ["Replaced", "Rested"]
    assert [one.priority for one in grown if isinstance(one, Replaced)] == ["lost"]
    assert fills(desk.place("cyd", "buy", 600, 260)) == [
        (600, 50, "ada"),
        (600, 100, "dan"),
        (600, 110, "bob"),
    ]


def test_a_replace_counts_what_is_filled_and_may_trade_at_once(desk: Desk) -> None:
    desk.place("ada", "sell", 600, 100)
    desk.place("bob", "buy", 600, 40)
    assert code(desk.replace("ada", "o1", 600, 40)) == "already_filled"
    assert kinds(desk.replace("ada", "o1", 610, 200)) == ["Replaced", "Rested"]
    assert desk.depth() == ([], [(610, 160)])
    desk.place("bob", "buy", 590, 100)
    assert kinds(desk.replace("ada", "o1", 590, 200)) == ["Replaced", "Filled", "Rested"]
    assert code(desk.replace("ada", "o1", 590, 10**9)) == "insufficient_funds"
    assert desk.depth() == ([], [(590, 60)])


def test_client_order_ids_are_unique_per_customer_and_remembered_for_a_while(desk: Desk) -> None:
    assert code(desk.place("ada", "buy", 500, 100, client_order_id="same")) == ""
    assert code(desk.place("ada", "buy", 500, 100, client_order_id="same")) == "duplicate_client_order_id"
    assert code(desk.place("bob", "buy", 500, 100, client_order_id="same")) == ""
    desk.cancel("ada", "same")
    assert code(desk.place("ada", "buy", 500, 100, client_order_id="same")) == "duplicate_client_order_id"
    assert code(desk.cancel("ada", "same")) == "unknown_order"
    for _ in range(REMEMBERED_ORDERS):
        desk.place("ada", "buy", 500, 100, tif="ioc")
    assert code(desk.place("ada", "buy", 500, 100, client_order_id="same")) == ""
    assert len(desk.engine.customers["ada"].orders) == REMEMBERED_ORDERS + 1


def test_cancel_all_takes_one_customers_orders_and_stops(desk: Desk) -> None:
    desk.place("ada", "buy", 500, 100)
    desk.place("ada", "buy", 600, 100, type="stop_limit", stop_price=620)
    desk.place("bob", "buy", 500, 100)
    assert kinds(desk.do(CancelAll(AT, "ada", "X-Q"))) == ["Cancelled:asked"] * 2
    assert desk.do(CancelAll(AT, "ada")) == []
    assert (desk.held("ada", "Q"), desk.depth()) == (0, ([(500, 100)], []))


def test_the_kill_switch_cancels_everything_and_refuses_until_it_is_off(desk: Desk) -> None:
    desk.place("ada", "buy", 500, 100)
    assert kinds(desk.do(Kill(AT, "ada", "on"))) == ["KillSwitched", "Cancelled:kill_switch"]
    assert code(desk.place("ada", "buy", 500, 100)) == "killed"
    assert kinds(desk.do(Kill(AT, "ada", "on"))) == ["KillSwitched"]
    desk.do(Kill(AT, "ada", "off"))
    assert code(desk.place("ada", "buy", 500, 100)) == ""


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"price": 601, "size": 100}, "bad_price"),
        ({"price": -600, "size": 100}, "bad_price"),
        ({"price": 0, "size": 100}, "bad_price"),
        ({"price": 10**40, "size": 100}, "bad_price"),
        ({"price": 600, "size": 101}, "bad_size"),
        ({"price": 600, "size": -100}, "bad_size"),
        ({"price": 600, "size": 10**40}, "bad_size"),
        ({"price": 600, "size": 100, "quote_units": 5}, "bad_size"),
        ({"price": 600, "size": 10}, "below_minimum_notional"),
        ({"price": 600, "size": 10**6}, "insufficient_funds"),
        ({"price": 600, "size": 100, "stop_price": 610}, "bad_stop_price"),
        ({"price": 600, "size": 100, "stop_price": -10}, "bad_stop_price"),
        ({"price": 600, "size": 100, "slippage_bps": 5}, "bad_slippage"),
        ({"price": 600, "size": 100, "client_order_id": ""}, "bad_client_order_id"),
        ({"price": 600, "size": 100, "client_order_id": "x" * 65}, "bad_client_order_id"),
        ({"price": 600, "size": 100, "market": "Z-Q"}, "unknown_market"),
        ({"price": 600, "size": 100, "type": "stop_limit"}, "bad_stop_price"),
        ({"price": 600, "size": 100, "type": "stop_limit", "stop_price": 610, "tif": "post_only"}, "bad_tif"),
        ({"price": 600, "size": 100, "type": "market"}, "bad_price"),
        ({"type": "market"}, "bad_size"),
        ({"type": "market", "size": 100, "quote_units": 100}, "bad_size"),
        ({"type": "market", "size": -100, "quote_units": 100}, "bad_size"),
        ({"type": "market", "size": 105}, "bad_size"),
    ],
)
def test_a_wrong_order_is_refused_and_changes_nothing(
    desk: Desk, fields: dict[str, object], expected: str
) -> None:
    desk.place("bob", "sell", 600, 100)
    state = desk.engine.state()
    assert code(desk.place("ada", "buy", **fields)) == expected  # type: ignore[arg-type]
    assert _without_clock(desk.engine) == _without_clock(Engine.from_state(state))


def test_so_many_open_orders_and_no_more() -> None:
    desk = Desk(opened(market(open_orders=2)))
    assert code(desk.place("ada", "buy", 600, 100)) == ""
    assert code(desk.place("ada", "buy", 600, 100)) == ""
    assert code(desk.place("ada", "buy", 600, 100)) == "too_many_orders"
    desk.cancel("ada", "o1")
    assert code(desk.place("ada", "buy", 600, 100)) == ""


def test_a_queue_forgets_cancelled_orders_and_keeps_the_order_of_the_others() -> None:
    desk = Desk(opened(market(open_orders=200)))
    for _ in range(100):
        desk.place("ada", "sell", 600, 20)
    for number in range(1, 101):
        if number % 10:
            desk.cancel("ada", f"o{number}")
    level = desk.engine.books["X-Q"].asks.levels[-600]
    assert (level.live, level.units) == (10, 200)
    assert len(level.queue) < 40
    taken = [one.maker_order for one in desk.place("bob", "buy", 600, 200) if isinstance(one, Filled)]
    assert taken == sorted(taken)
    assert len(taken) == 10


def _without_clock(engine: Engine) -> bytes:
    engine.clock.sequence = 0
    return engine.state()
