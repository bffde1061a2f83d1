"""Orders through the trading engine, with holds, fees and a journal on the disk, beside LightMatchingEngine, bare.

Both get the same sequence: about half limit orders around a price that wanders, 43 % cancels of open orders, 5 % market
orders. Ours is the whole writer's work: each command encoded, groups of them written and synced, then risk, matching,
fees and events. The peer matches only: no money, no journal, no events but its own trades.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ops.bench.compare import Row, Side, interleave

if TYPE_CHECKING:
    from custody.trading.commands import AnyCommand
    from custody.trading.engine import Engine

ORDERS: Final = 200_000
GROUP: Final = 1_000
"""Commands of one group commit: what gathers in a hundredth of a second at the aim."""
_CUSTOMERS: Final = 500
_AT: Final = 1_800_000_000_000_000
_MARKET: Final = "BTC-USDX"
_TICK: Final = 100_000
_LOT: Final = 1_000
_FIRST: Final = 10_000
"""The sequence begins with so many limit orders, so that there is a book to trade with."""
_MIDDLE: Final = 600_000
"""Of prices, in ticks: 60,000 USDX."""


@dataclass(frozen=True, slots=True)
class Work:
    """The same sequence for both: commands, and what the peer is called with."""

    commands: list[AnyCommand]
    peer: list[tuple[int, int, int]]
    """(price in ticks, 0 for market; size in lots, 0 for a cancel; 1 buy, 2 sell, or the order id to cancel)."""


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Orders a second of one process."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine

    from custody.trading.codec import encode_command
    from custody.trading.core import calm_collector
    from custody.trading.journal import Journal

    progress(f"matching: {ORDERS:,} orders")
    work = sequence(ORDERS)

    groups = [work.commands[start : start + GROUP] for start in range(0, ORDERS, GROUP)]

    def ours() -> None:
        before = gc.get_threshold()
        calm_collector()
        try:
            run()
        finally:
            gc.unfreeze()
            gc.set_threshold(*before)

    def run() -> None:
        apply = opened().apply
        with (
            TemporaryDirectory() as folder,
            Journal(Path(folder), UUID(int=1)) as journal,
            ThreadPoolExecutor(1) as disk,
        ):
            # A group is applied when it is on the disk; meanwhile the next one is written, as in the service.
            synced: list[AnyCommand] = []
            for group in [*groups, []]:
                records = [encode_command(command) for command in group]
                writing = disk.submit(journal.append, records) if records else None
                for command in synced:
                    apply(command)
                if writing is not None:
                    writing.result()
                synced = group

    def peer() -> None:
        engine = LightMatchingEngine()
        add, cancel = engine.add_order, engine.cancel_order
        for price, size, which in work.peer:
            if size:
                add(_MARKET, price, size, which)
            else:
                cancel(which, _MARKET)

    rates = interleave(Side(ours, ORDERS), Side(peer, ORDERS), repeats=3)
    yield Row("matching", *rates, "LightMatchingEngine, bare: no money, no journal", "orders/s")


def opened() -> Engine:
    """An engine with one open market and customers who have money enough."""
    from custody.trading.commands import Deposit, SetMarketState
    from custody.trading.engine import Engine
    from custody.trading.fees import FeeSchedule, Tier
    from custody.trading.market import Market

    market = Market(
        _MARKET, "BTC", "USDX", 8, _TICK, _LOT, 1_000_000, maker_ppm=800, taker_ppm=1_000,
        reference_price=_MIDDLE * _TICK,
    )  # fmt: skip
    tiers = tuple(Tier(10**12 * 10**step if step else 0, 12 * step) for step in range(6))
    engine = Engine((market,), FeeSchedule(tiers))
    for number in range(_CUSTOMERS):
        for offset, (asset, units) in enumerate((("BTC", 10**12), ("USDX", 10**17))):
            stamp = f"{_AT // 1_000:012x}"
            transfer = f"{stamp[:8]}-{stamp[8:]}-7000-8000-{2 * number + offset:012x}"
            engine.apply(Deposit(_AT, transfer, f"customer-{number}", asset, units))
    engine.apply(SetMarketState(_AT, _MARKET, "open"))
    return engine


def sequence(orders: int) -> Work:
    """A day's worth of orders, always the same. Only open orders are cancelled: the peer stops at any other."""
    from lightmatchingengine.lightmatchingengine import LightMatchingEngine

    from custody.trading.commands import Cancel, Place

    chance, peer, work = Random(7), LightMatchingEngine(), Work([], [])
    middle, placed = _MIDDLE, 0
    resting: list[tuple[str, str, Any]] = []
    for number in range(orders):
        at, kind = _AT + 10 * number, chance.random()
        cancelled = _any_open(resting, chance) if kind < 0.43 and number > _FIRST else None
        if cancelled is not None:
            customer, client_id, order = cancelled
            peer.cancel_order(order.order_id, _MARKET)
            work.commands.append(Cancel(at, customer, client_id))
            work.peer.append((0, 0, order.order_id))
            continue
        placed += 1
        customer, client_id = f"customer-{chance.randrange(_CUSTOMERS)}", f"o{placed}"
        market = kind > 0.95 and number > _FIRST
        buy, lots = chance.random() < 0.5, chance.randint(10, 300 if market else 1_000)
        middle += chance.choice((-1, *[0] * 8, 1))
        # Most join the book near its best price, a few reach over to the other side.
        away = 2 + int(chance.expovariate(1 / 20))
        price = 0 if market else middle - away if buy else middle + away
        work.commands.append(
            Place(
                at, customer, client_id, _MARKET, "buy" if buy else "sell", "market" if market else "limit",
                "ioc" if market else "gtc", price * _TICK, lots * _LOT, channel="api",
            )
        )  # fmt: skip
        work.peer.append((price, lots, 1 if buy else 2))
        order, _ = peer.add_order(_MARKET, *work.peer[-1])
        if not market:
            resting.append((customer, client_id, order))
    return work


def _any_open(resting: list[tuple[str, str, Any]], chance: Random) -> tuple[str, str, Any] | None:
    """Takes any order out that has something left; None if there is none."""
    while resting:
        index = chance.randrange(len(resting))
        resting[index], resting[-1] = resting[-1], resting[index]
        found = resting.pop()
        if found[2].leaves_qty:
            return found
    return None
