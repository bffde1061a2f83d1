"""What protects a market and how it opens, by example: states, auctions, bands, the breaker, fees, transfers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from custody.trading import codec
from custody.trading.commands import Cancel, Configure, Deposit, Place, SetMarketState, Tick, Withdraw
from custody.trading.engine import Engine
from custody.trading.events import Filled, MarketStateChanged, Uncrossed
from custody.trading.fees import FeeSchedule, Tier, Value
from custody.trading.market import Market
from custody.trading.transfers import REMEMBERED_DAYS
from tests.unit.custody.trading.desk_of import Desk, code, fills, kinds
from tests.unit.custody.trading.scenes import AT, DAY, FEES, MARKETS, market, opened, transfer_id

ONE_TIER = FeeSchedule((Tier(0, 0),))
SECOND = 1_000_000


@pytest.fixture
def desk() -> Desk:
    return Desk(opened(market(breaker_bps=0), fees=ONE_TIER))


def test_a_market_begins_halted_and_takes_what_its_state_allows(desk: Desk) -> None:
    assert code(Engine(MARKETS, FEES).apply(Place(AT, "ada", "a", "X-Q", "buy"))) == "unknown_customer"
    assert Engine(MARKETS, FEES).books["X-Q"].state == "halted"
    desk.place("ada", "buy", 600, 100)
    desk.do(SetMarketState(AT, "X-Q", "halted"))
    assert code(desk.place("ada", "buy", 600, 100)) == "market_halted"
    assert code(desk.cancel("ada", "o1")) == "market_halted"
    desk.do(SetMarketState(AT, "X-Q", "cancel_only"))
    assert code(desk.place("ada", "buy", 600, 100)) == "market_cancel_only"
    assert code(desk.replace("ada", "o1", 600, 50)) == "market_cancel_only"
    assert kinds(desk.cancel("ada", "o1")) == ["Cancelled:asked"]
    assert code(desk.do(SetMarketState(AT, "X-Q", "cancel_only"))) == "already_in_state"


def test_an_auction_collects_and_then_trades_most_at_one_price(desk: Desk) -> None:
    desk.do(SetMarketState(AT, "X-Q", "auction"))
    desk.place("ada", "buy", 620, 100)
    desk.place("ada", "buy", 610, 100)
    desk.place("bob", "sell", 590, 50)
    desk.place("dan", "sell", 610, 120)
    assert code(desk.place("bob", "sell", 600, 50, tif="ioc")) == "not_in_auction"
    assert code(desk.place("bob", "sell", type="market", size=50)) == "not_in_auction"
    assert code(desk.place("bob", "buy", 590, 50)) == "self_trade_in_auction"
    events = desk.do(SetMarketState(AT, "X-Q", "open"))
    # At 610 buyers want 200 and sellers offer 170: no other price trades as much.
    assert [(one.price, one.base_units) for one in events if isinstance(one, Uncrossed)] == [(610, 170)]
    assert [(one.price, one.base_units, one.maker) for one in events if isinstance(one, Filled)] == [
        (610, 50, "ada"),
        (610, 50, "ada"),
        (610, 70, "ada"),
    ]
    assert desk.depth() == ([(610, 30)], [])
    # What her limit of 620 had held is free again. The rest of the other costs 183; with the fee of 9.15 on it, and the
    # 4.27 of which she has paid 5 as a maker, she would come to 14.
    assert desk.held("ada", "Q") == 183 + 14 - 5


@pytest.mark.parametrize(
    ("orders", "expected"),
    [
        # Equal volume at 590..610, least surplus at 610.
        ([("ada", "buy", 610, 100), ("bob", "sell", 590, 100), ("dan", "sell", 600, 50)], (590, 100)),
        # Volume and surplus equal at both limits: the nearer to the reference of 600.
        ([("ada", "buy", 630, 100), ("bob", "sell", 610, 100)], (610, 100)),
        # As near from above as from below: the lower.
        ([("ada", "buy", 610, 100), ("bob", "sell", 590, 100)], (590, 100)),
        ([("ada", "buy", 590, 100), ("bob", "sell", 600, 100)], (0, 0)),
    ],
)
def test_ties_of_an_auction_are_broken_by_surplus_then_reference_then_the_lower_price(
    desk: Desk, orders: list[tuple[str, str, int, int]], expected: tuple[int, int]
) -> None:
    desk.do(SetMarketState(AT, "X-Q", "auction"))
    for customer, side, price, size in orders:
        desk.place(customer, side, price, size)  # type: ignore[arg-type]
    events = desk.do(SetMarketState(AT, "X-Q", "open"))
    assert [(one.price, one.base_units) for one in events if isinstance(one, Uncrossed)] == [expected]


def test_an_order_that_would_leave_the_band_halts_the_market_and_time_opens_it_by_auction(desk: Desk) -> None:
    for price in (640, 650):
        desk.place("ada", "sell", price, 100)
    assert code(desk.place("bob", "buy", 650, 100)) == "outside_band"
    events = desk.place("bob", "buy", type="market", size=200)
    assert kinds(events) == ["Filled", "Cancelled:price_band", "MarketStateChanged:price_band"]
    assert code(desk.place("bob", "buy", 600, 100)) == "market_halted"
    desk.at += 4 * SECOND
    assert kinds(desk.do(Tick(desk.at))) == ["MarketStateChanged:halt_over"]
    assert kinds(desk.place("bob", "buy", 640, 100)) == ["Rested"]
    desk.at += 5 * SECOND
    assert kinds(desk.do(Tick(desk.at))) == ["MarketStateChanged:auction_over", "Uncrossed"]
    # No trade, so the band is laid around the middle of 640 and 650.
    assert desk.engine.books["X-Q"].guard.reference == 640
    assert kinds(desk.place("bob", "buy", 650, 50)) == ["Filled"]


def test_time_that_has_passed_over_halt_and_auction_does_both_in_one_command(desk: Desk) -> None:
    desk.place("ada", "sell", 650, 100)
    desk.place("bob", "buy", type="market", size=100)
    desk.at += 60 * SECOND
    events = desk.do(Tick(desk.at))
    assert [one.state for one in events if isinstance(one, MarketStateChanged)] == ["auction", "open"]
    assert desk.do(Tick(desk.at)) == []


def test_the_breaker_halts_on_a_move_within_its_window_even_across_two_of_them() -> None:
    desk = Desk(opened(market(band_bps=0), fees=ONE_TIER))
    for price in (600, 640, 660):
        desk.place("ada", "sell", price, 100)
    desk.place("bob", "buy", 600, 100)
    desk.at += 4 * SECOND
    assert kinds(desk.place("bob", "buy", 640, 100)) == ["Filled"]
    desk.at += 4 * SECOND
    events = desk.place("bob", "buy", 660, 150)
    assert kinds(events) == ["Filled", "Rested", "MarketStateChanged:circuit_breaker"]
    slow = Desk(opened(market(band_bps=0), fees=ONE_TIER))
    for price in (600, 630, 660):
        slow.place("ada", "sell", price, 100)
    for price in (600, 630, 660):
        assert kinds(slow.place("bob", "buy", price, 100)) == ["Filled"]
        slow.at += 60 * SECOND


def test_stops_that_a_halt_kept_asleep_wake_when_the_market_opens(desk: Desk) -> None:
    desk.place("bob", "sell", 600, 100, type="stop_limit", stop_price=560)
    for price in (560, 550):
        desk.place("ada", "buy", price, 100)
    assert kinds(desk.place("cyd", "sell", type="market", size=200))[-1] == "MarketStateChanged:price_band"
    events = desk.do(SetMarketState(AT, "X-Q", "open"))
    assert kinds(events) == ["MarketStateChanged:operator", "Triggered", "Rested"]


def test_fees_fall_with_volume_and_for_the_api_and_rounding_never_favours_the_customer() -> None:
    schedule = FeeSchedule((Tier(0, 0), Tier(1_000, 60)), values=(Value("Q", 1, 1),))
    desk = Desk(opened(market(band_bps=0, breaker_bps=0, taker_ppm=50_000, maker_ppm=0), fees=schedule))
    desk.place("ada", "sell", 610, 1_000)
    fees = []
    for channel, size in (("web", 100), ("api", 100), ("web", 100), ("api", 100)):
        events = desk.place("bob", "buy", 610, size, channel=channel)
        fees += [one.taker_fee for one in events if isinstance(one, Filled)]
    # 610 at 5 % is 30.5; 10 % less is 27.45; from a volume of 1,000 on 60 % less: 12.2 and 10.98.
    assert fees == [31, 28, 13, 11]
    assert desk.engine.customers["bob"].tier == 1
    desk.at += 30 * DAY
    assert "TierChanged" in kinds(desk.place("bob", "buy", 500, 100))
    assert desk.engine.customers["bob"].tier == 0


def test_many_small_fills_cost_no_more_than_one_and_a_rebate_comes_out_of_the_takers_fee() -> None:
    desk = Desk(
        opened(market(band_bps=0, breaker_bps=0, maker_ppm=-20_000, minimum_notional=1), fees=ONE_TIER)
    )
    for _ in range(10):
        desk.place("ada", "sell", 610, 10)
    found = [one for one in desk.place("bob", "buy", 610, 100) if isinstance(one, Filled)]
    # 5 % of 61 is 3.05, of all ten fills together 30.5; 2 % of 61 is 1.22, rounded down each time.
    assert sum(one.taker_fee for one in found) == 31
    assert [one.maker_fee for one in found] == [-1] * 10
    assert all(one.taker_fee + one.maker_fee >= 0 for one in found)
    assert desk.engine.books["X-Q"].earned == 21


def test_a_deposit_or_withdrawal_with_the_same_id_again_changes_nothing() -> None:
    engine = opened(market())
    deposit = Deposit(AT, transfer_id(77), "eve", "Q", 500)
    assert kinds(engine.apply(deposit)) == ["Credited"]
    assert kinds(engine.apply(deposit)) == ["AlreadyApplied"]
    assert code(engine.apply(msgspec.structs.replace(deposit, units=501))) == "id_reused"
    withdraw = Withdraw(AT, transfer_id(77), "eve", "Q", 400)
    assert kinds(engine.apply(withdraw)) == ["Debited"]
    assert kinds(engine.apply(withdraw)) == ["AlreadyApplied"]
    assert engine.customers["eve"].balance("Q").free == 100
    assert code(engine.apply(Withdraw(AT, transfer_id(78), "eve", "Q", 101))) == "insufficient_funds"
    for bad, expected in (
        (Deposit(AT, "not-an-id", "eve", "Q", 5), "bad_id"),
        (Deposit(AT, transfer_id(79), "eve", "Z", 5), "unknown_asset"),
        (Deposit(AT, transfer_id(79), "eve", "Q", 0), "bad_units"),
        (Deposit(AT, transfer_id(79, AT + 3 * DAY), "eve", "Q", 5), "id_from_the_future"),
    ):
        assert code(engine.apply(bad)) == expected


def test_an_id_that_is_forgotten_is_too_old_to_be_taken() -> None:
    engine = opened(market())
    deposit = Deposit(AT, transfer_id(77), "eve", "Q", 500)
    engine.apply(deposit)
    last = AT // DAY * DAY + (REMEMBERED_DAYS + 1) * DAY - 1
    assert kinds(engine.apply(msgspec.structs.replace(deposit, at=last))) == ["AlreadyApplied"]
    assert code(engine.apply(msgspec.structs.replace(deposit, at=last + 1))) == "id_too_old"
    assert engine.transfers.days == {}


def test_money_that_orders_hold_cannot_be_withdrawn() -> None:
    desk = Desk(opened(market(), fees=ONE_TIER, units=700))
    desk.place("ada", "buy", 600, 100)
    assert code(desk.do(Withdraw(AT, transfer_id(90), "ada", "Q", 71))) == "insufficient_funds"
    assert kinds(desk.do(Withdraw(AT, transfer_id(90), "ada", "Q", 70))) == ["Debited"]


def test_a_command_from_the_past_is_refused_but_counts() -> None:
    engine = opened(market())
    before = engine.sequence
    assert code(engine.apply(Tick(AT - 1))) == "time_went_back"
    assert engine.sequence == before + 1


def test_a_new_configuration_adds_markets_and_keeps_what_orders_were_made_for(desk: Desk) -> None:
    desk.place("ada", "buy", 600, 100)
    more = (market(breaker_bps=0, taker_ppm=60_000), market("Y-Q"))
    assert [one.added for one in desk.do(Configure(AT, more, ONE_TIER))] == [("Y-Q",)]  # type: ignore[attr-defined]
    assert [one.added for one in desk.do(Configure(AT, more, ONE_TIER))] == [()]  # type: ignore[attr-defined]
    # Held were 5 %; an order keeps the fees it was accepted with.
    assert desk.held("ada", "Q") == 630
    for wrong in ((market("Y-Q"),), (market(tick=20), market("Y-Q")), (*more, market("Y-Q"))):
        assert code(desk.do(Configure(AT, wrong, ONE_TIER))) == "bad_configuration"
    greedy = FeeSchedule((Tier(0, 0, 70_000),))
    assert code(desk.do(Configure(AT, more, greedy))) == "bad_configuration"


def test_an_old_rebate_never_costs_the_house_under_a_new_schedule() -> None:
    generous = market(band_bps=0, breaker_bps=0, maker_ppm=-50_000)
    no_discount = FeeSchedule((Tier(0, 0),), api_discount_percent=0)
    desk = Desk(opened(generous, fees=no_discount))
    desk.place("ada", "sell", 600, 1_000)
    desk.do(Configure(AT, (market(band_bps=0, breaker_bps=0, maker_ppm=0, taker_ppm=10_000),), no_discount))
    found = [one for one in desk.place("bob", "buy", 600, 1_000) if isinstance(one, Filled)]
    assert [(one.maker_fee, one.taker_fee) for one in found] == [(-60, 60)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"tick": 7}, {"lot": 0}, {"minimum_notional": 0}, {"base_decimals": 37}, {"taker_ppm": 200_000},
        {"maker_ppm": 60_000}, {"maker_ppm": -60_000}, {"slippage_bps": 0}, {"band_bps": 10_000}, {"breaker_bps": -1},
        {"halt_micros": 0}, {"reference_price": 605},
    ],
)  # fmt: skip
def test_a_market_whose_numbers_do_not_fit_cannot_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        market(**wrong)
    with pytest.raises(InvalidValue):
        Market("X-X", "X", "X", 2, 10, 10, 100, 0, 0)


@pytest.mark.parametrize(
    "tiers",
    [
        (), (Tier(1, 0),), (Tier(0, 0), Tier(0, 10)), (Tier(0, 61),), (Tier(0, 0, -1),),
        tuple(Tier(step, 0) for step in range(7)),
    ],
)  # fmt: skip
def test_a_fee_schedule_whose_tiers_do_not_fit_cannot_be_made(tiers: tuple[Tier, ...]) -> None:
    with pytest.raises(InvalidValue):
        FeeSchedule(tiers)


def test_a_rebate_above_the_lowest_taker_fee_is_refused() -> None:
    with pytest.raises(InvalidValue, match="rebate"):
        Engine((market(maker_ppm=0, taker_ppm=10_000),), FeeSchedule((Tier(0, 0), Tier(100, 60, 4_001))))


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b'["place"]', b'["cancel",1,"a",5]', b'["tick",1.5]', b'["nothing",1]', b'["tick","1"]'],
)
def test_bytes_that_are_no_command_are_refused_and_the_engine_stays_as_it_was(data: bytes) -> None:
    engine = opened(market())
    before = engine.digest()
    with pytest.raises(InvalidValue):
        codec.run(engine, data)
    assert engine.digest() == before


def test_amounts_beyond_64_bits_survive_the_journal_and_the_snapshot() -> None:
    wei = 10**18
    eth = Market("ETH-USDX", "ETH", "USDX", 18, 10_000, 10**14, 10**6, 800, 1_000)
    desk = Desk(opened(eth, fees=ONE_TIER, units=10**6 * wei), "ETH-USDX")
    desk.place("ada", "sell", 3_000 * 10**6, 500_000 * wei)
    command = Place(AT, "bob", "b", "ETH-USDX", "buy", price=3_000 * 10**6, base_units=400_000 * wei)
    assert codec.decode_command(codec.encode_command(command)) == command
    events = codec.decode_events(codec.run(desk.engine, codec.encode_command(command)))
    assert fills(list(events)) == [(3_000 * 10**6, 400_000 * wei, "ada")]
    assert Engine.from_state(desk.engine.state()).digest() == desk.engine.digest()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"[2,{},[],[],[],[]]"])
def test_bytes_that_are_no_state_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue):
        Engine.from_state(data)


def test_a_state_with_an_order_of_nobody_is_refused() -> None:
    desk = Desk(opened(market()))
    desk.place("ada", "buy", 600, 100)
    state = msgspec.json.decode(desk.engine.state())
    state[4] = [customer for customer in state[4] if customer[0] != "ada"]
    with pytest.raises(InvalidValue, match="ada"):
        Engine.from_state(msgspec.json.encode(state))


def test_equal_states_give_equal_bytes_whatever_way_led_there() -> None:
    long, short = Desk(opened(market())), Desk(opened(market()))
    long.place("ada", "buy", 500, 100)
    long.do(Cancel(AT, "ada", "o1"))
    assert code(long.place("ada", "buy", 601, 100, client_order_id="o2")) == "bad_price"
    short.do(Tick(AT))
    short.do(Tick(AT))
    short.do(Tick(AT))
    short.engine.customers["ada"].closed.append("o1")
    assert long.engine.state() == short.engine.state()
