"""The engine beside a slow, obviously right exchange: equal events and money; and equal to itself at every replay."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from custody.trading import codec
from custody.trading.commands import AnyCommand
from custody.trading.engine import Engine
from tests.fakes.slow_exchange import SlowExchange
from tests.unit.custody.trading.scenes import (
    ASSETS,
    AT,
    CUSTOMERS,
    DAY,
    FEES,
    MARKETS,
    command,
    opening,
    told,
)


def script(seed: int, length: int, units: int) -> list[AnyCommand]:
    """A run of commands by chance, over some minutes with a few days' leaps."""
    chance, at = Random(seed), AT
    commands = opening(MARKETS, units)
    for number in range(length):
        at += chance.choice((0, 0, 100_000, 1_000_000, 3_000_000))
        if chance.random() < 0.002:
            at += chance.choice((1, 31)) * DAY
        commands.append(command(chance, at, 1_000 + number))
    return commands


def check_invariants(engine: Engine, put_in: dict[str, int]) -> None:
    """What holds between any two commands."""
    for asset in ASSETS:
        balances = [one.balances[asset] for one in engine.customers.values() if asset in one.balances]
        earned = sum(book.earned for book in engine.books.values() if book.market.quote == asset)
        assert sum(one.free + one.held for one in balances) == put_in.get(asset, 0) - earned
        assert all(one.free >= 0 and one.held >= 0 for one in balances)
    for customer in engine.customers.values():
        for asset, balance in customer.balances.items():
            holds = [one.hold for one in customer.open_orders() if one.funds() is balance]
            assert balance.held == sum(holds), asset
        for order in customer.open_orders():
            if not order.by_quote:
                assert order.hold == order.need(order.price, order.left)
    for book in engine.books.values():
        assert book.earned >= 0
        assert not (book.state == "open" and book.crossed())
        for ladder in (book.bids, book.asks):
            assert ladder.ranks == sorted(ladder.levels)
            for rank, level in ladder.levels.items():
                live = [order for order in level.queue if order.left]
                assert level.live == len(live) > 0
                assert level.units == sum(order.left for order in live)
                assert all(order.rank == rank for order in live)


def compare(commands: list[AnyCommand]) -> dict[str, int]:
    """Runs both; returns how often each kind of event was seen."""
    engine, slow, put_in, seen = Engine(MARKETS, FEES), SlowExchange(MARKETS, FEES), {}, {}  # type: ignore[var-annotated]
    for number, one in enumerate(commands):
        events = engine.apply(one)
        expected = slow.apply(one)
        assert told(events) == told(expected), (number, one)
        for event in events:
            kind = getattr(event, "code", "") or getattr(event, "reason", "") or type(event).__name__
            seen[kind] = seen.get(kind, 0) + 1
            if type(event).__name__ in ("Credited", "Debited"):
                sign = 1 if type(event).__name__ == "Credited" else -1
                put_in[event.asset] = put_in.get(event.asset, 0) + sign * event.units  # type: ignore[attr-defined]
        check_invariants(engine, put_in)
        for name in CUSTOMERS:
            if name in engine.customers:
                for asset, balance in engine.customers[name].balances.items():
                    assert (balance.free, balance.held) == (slow.free(name, asset), slow.held(name, asset))
    return seen


def test_long_runs_give_the_same_events_and_money_as_the_slow_exchange_and_meet_every_rule() -> None:
    seen: dict[str, int] = {}
    for seed in (1, 2, 3):
        for kind, times in compare(script(seed, 1_500, 30_000)).items():
            seen[kind] = seen.get(kind, 0) + times
    for kind in (
        "Filled", "Rested", "Triggered", "Replaced", "Uncrossed", "TierChanged", "KillSwitched", "Debited", "asked",
        "unfilled", "spent", "self_trade", "kill_switch", "halt_over", "auction_over", "circuit_breaker",
        "price_band", "post_only_would_take", "not_fillable", "outside_band", "bad_price", "id_reused",
        "self_trade_in_auction", "not_in_auction", "stop_would_trigger", "unknown_order", "too_many_orders",
        "not_replaceable",
    ):  # fmt: skip
        assert seen.get(kind), f"{kind} was never seen"


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 60), units=st.sampled_from([300, 3_000, 10**6]))
def test_any_short_run_gives_the_same_events_and_money_as_the_slow_exchange(
    seed: int, length: int, units: int
) -> None:
    compare(script(seed, length, units))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), cut=st.integers(0, 300))
def test_a_replay_gives_the_same_bytes_and_a_snapshot_at_any_point_changes_nothing(
    seed: int, cut: int
) -> None:
    journal = [codec.encode_command(one) for one in script(seed, 300, 30_000)]
    engine, again = Engine(MARKETS, FEES), Engine(MARKETS, FEES)
    events = [codec.run(engine, one) for one in journal]
    assert [codec.run(again, one) for one in journal[:cut]] == events[:cut]
    resumed = Engine.from_state(again.state())
    assert resumed.state() == again.state()
    for one, expected in zip(journal[cut:], events[cut:], strict=True):
        assert codec.run(again, one) == codec.run(resumed, one) == expected
    assert resumed.digest() == again.digest() == engine.digest()
