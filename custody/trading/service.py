"""The trading core as its faces use it: commands in, answers out; reads of what is known; and everything that
runs beside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

import structlog

from chains.types import Asset
from custody.trading.candles import INTERVALS, Candle
from custody.trading.commands import (
    AnyCommand,
    Cancel,
    CancelAll,
    Configure,
    Kill,
    Place,
    Replace,
    SetMarketState,
    Switch,
    Tick,
    Withdraw,
)
from custody.trading.config import Terms, TradingSettings
from custody.trading.core import Applied, Core, Listener, Micros
from custody.trading.errors import Refused
from custody.trading.events import Configured, Event, Rejected
from custody.trading.failures import OrderRejected, SettlementBehind, TransferConflict
from custody.trading.history import FillRecord, OrderRecord
from custody.trading.journal import segments
from custody.trading.market import Market, MarketState
from custody.trading.ports import Cursor, Custody, Transfer
from custody.trading.settlement import Settlement
from custody.trading.starting import Places, Started, write_cursor
from custody.trading.transferbook import Entry, TransferBook
from custody.trading.views import Views

TICK_SECONDS: Final = 1.0
WRITE_SECONDS: Final = 1.0
"""How often the history is written."""
TRANSFER_SECONDS: Final = 5.0
"""How long a request waits for its transfer to be made; then it is answered with how far it is."""
_MICROS: Final = 1_000_000

_T = TypeVar("_T")
_log = structlog.get_logger("strongroom.trading")


class Trading:
    """One core and all around it; lives in one event loop.

    Args:
        started: the core at its journal's end; this object closes its files.
        settings: as loaded.
        terms: markets and fees of the settings.
        custody: the other side.
        clock: what time commands get.
    """

    def __init__(
        self,
        started: Started,
        settings: TradingSettings,
        terms: Terms,
        custody: Custody,
        clock: Micros,
    ) -> None:
        self.id: UUID = started.id
        self.settings = settings
        self.assets: dict[str, Asset] = dict(terms.assets)
        self._terms = terms
        self._places = Places(Path(settings.directory))
        self._journal, self._history = started.journal, started.history
        self.engine = started.engine
        self.core = Core(
            started.engine, started.journal, last_at=started.last_at, clock=clock, queue=settings.queue
        )
        self.records = started.records
        self.market_data = started.market_data
        self._book = TransferBook(self._places.transfers)
        self.settlement = Settlement(
            self.core, started.outbox, self._book, custody, id=started.id, batch=settings.custody.batch
        )
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._written = asyncio.Lock()
        self.ready = asyncio.Event()
        """Set when the markets are as configured: from then on faces may ask."""
        self.views = Views(self.assets, {})
        self._segments = 1
        """That the newest snapshot has seen. After a crash what was closed before may lack its snapshot."""
        listeners: tuple[Listener, ...] = (self.settlement, self.records, self.market_data)
        for listener in listeners:
            self.core.listen(listener)

    # --- running ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until the core is closed or cannot go on.

        Raises:
            JournalBroken: the disk failed; nothing more is taken.
        """
        beside: list[asyncio.Task[None]] = []
        core = asyncio.create_task(self.core.run(), name="core")
        try:
            await self.configure()
            await self._load_market_data()
            self.views = Views(self.assets, {name: book.market for name, book in self.engine.books.items()})
            self.ready.set()
            beside = [
                asyncio.create_task(work(), name=work.__name__)
                for work in (self.settlement.run, self._tick, self._keep_history, self._keep_snapshots)
            ]
            done, _ = await asyncio.wait([core, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            await core
        finally:
            self.core.close()
            for task in (core, *beside):
                task.cancel()
            await asyncio.gather(core, *beside, return_exceptions=True)
            await self._end()

    async def _end(self) -> None:
        await self._write_history()
        self._disk.shutdown()
        write_cursor(self._places, self.settlement.outbox.cursor)
        self._journal.close()
        self._history.close()
        self._book.close()

    async def configure(self) -> None:
        """Have the engine take the settings' markets and fees, if it has others; new markets get their state.

        Raises:
            OrderRejected: what cannot be changed in a market has changed.
        """
        present = tuple(book.market for book in self.engine.books.values())
        known = {market.id for market in self._terms.markets}
        wanted = (*self._terms.markets, *(market for market in present if market.id not in known))
        if present != wanted or self.engine.fees != self._terms.fees:
            events = await self._ask(Configure(self.core.now(), wanted, self._terms.fees))
            added = next((event.added for event in events if isinstance(event, Configured)), ())
            for name in added:
                state = self._terms.opens.get(name, "halted")
                if state != "halted":
                    await self._ask(SetMarketState(self.core.now(), name, state))

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.core.now() >= self.engine.clock.due:
                self.core.submit(Tick(self.core.now()))

    async def _keep_history(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self._write_history()
            cursor = self.settlement.outbox.cursor
            await self._in_thread(partial(write_cursor, self._places, cursor))

    async def _write_history(self) -> None:
        async with self._written:
            chapter = self.records.take_chapter()
            if chapter is not None:
                await self._in_thread(lambda: self._history.write(chapter))

    async def _keep_snapshots(self) -> None:
        """After each closed segment a process of its own makes a snapshot: the engine never pauses for it."""
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            found = len(segments(self._places.journal))
            if found == self._segments:
                continue
            cursor = self.settlement.outbox.cursor
            needed = cursor.last if cursor.complete else cursor.last - 1
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "custody.trading.snapshots"),
                *(str(self._places.journal), str(self._places.snapshots), str(self.id), str(needed)),
            )
            try:
                code = await process.wait()
            except asyncio.CancelledError:
                process.kill()
                raise
            if code:
                _log.error("no snapshot could be made", code=code)
            self._segments = found

    async def _load_market_data(self) -> None:
        await self._write_history()
        since = self.core.now() - INTERVALS["1d"]
        for market in self.engine.books:
            trades = await self.trades(market, before=None, limit=100)
            minutes = await self.candles(market, "1m", before=1 << 62, limit=1_440)
            recent = [candle for candle in reversed(minutes) if candle.start >= since]
            self.market_data.load(market, reversed(trades), recent)

    # --- what faces ask for -------------------------------------------------------------------------------

    def submit(self, command: AnyCommand) -> asyncio.Future[Applied]:
        """Have a command journaled and applied.

        Raises:
            Busy, Closed: see `Core.submit`.
            SettlementBehind: it could trade, and too much waits for the ledger.
        """
        if isinstance(command, Place | Replace):
            self._check_settlement()
        return self.core.submit(command)

    async def place(self, command: Place) -> list[Event]:
        """Place an order. Raises OrderRejected, and as `submit`."""
        return await self._ask(command)

    async def cancel(self, customer: str, client_order_id: str) -> list[Event]:
        """Cancel an order. Raises OrderRejected, and as `submit`."""
        return await self._ask(Cancel(self.core.now(), customer, client_order_id))

    async def cancel_all(self, customer: str, market: str) -> list[Event]:
        """Cancel a customer's orders, of one market or (empty) of all. Raises OrderRejected, and as `submit`."""
        return await self._ask(CancelAll(self.core.now(), customer, market))

    async def replace(self, customer: str, client_order_id: str, price: int, base_units: int) -> list[Event]:
        """Change an order. Raises OrderRejected, and as `submit`."""
        return await self._ask(Replace(self.core.now(), customer, client_order_id, price, base_units))

    async def set_market_state(self, market: str, state: MarketState) -> list[Event]:
        """Open or halt a market. Raises OrderRejected, and as `submit`."""
        return await self._ask(SetMarketState(self.core.now(), market, state))

    async def kill(self, customer: str, switch: Switch) -> list[Event]:
        """Turn a customer's kill switch. Raises OrderRejected, and as `submit`."""
        return await self._ask(Kill(self.core.now(), customer, switch))

    async def transfer(self, transfer: Transfer) -> Entry:
        """Move a customer's money in or out; again is answered with how far it is.

        Into trading the ledger moves it first, then the engine has it; out of trading the engine gives it up
        first, and the ledger moves it once all fills before it are settled. Waits some seconds for the end.

        Raises:
            OrderRejected: the engine has not so much free, or does not take the id.
            TransferConflict: the id was used for another transfer.
        """
        if transfer.to == "trading":
            self._check_transfer(transfer)
            entry = await self.settlement.begin(transfer)
        else:
            applied = await self.core.submit(
                Withdraw(self.core.now(), transfer.id, transfer.customer, transfer.asset, transfer.units)
            )
            self._raise_rejection(applied.events)
            entry = Entry(0, transfer, "debited", "", applied.command.at)
        ended = await self.settlement.ended(transfer, timeout=TRANSFER_SECONDS)
        return ended if ended is not None else entry

    async def _ask(self, command: AnyCommand) -> list[Event]:
        applied = await self.submit(command)
        self._raise_rejection(applied.events)
        return applied.events

    def _raise_rejection(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Rejected):
                raise OrderRejected(
                    event.code, event.subject, {name: str(value) for name, value in event.numbers.items()}
                )

    def _check_transfer(self, transfer: Transfer) -> None:
        """What the engine would refuse is not asked of custody in the first place."""
        if transfer.asset not in self.assets:
            raise OrderRejected("unknown_asset", transfer.id, {})
        content = (transfer.customer, transfer.asset, transfer.units)
        try:
            self.engine.transfers.seen("deposit", transfer.id, content, self.core.now())
        except Refused as refused:
            if refused.code == "id_reused":
                raise TransferConflict(transfer.id) from None
            raise OrderRejected(refused.code, transfer.id, {}) from None

    def _check_settlement(self) -> None:
        fills, seconds = self.unsettled()
        limits = self.settings.custody
        if fills >= limits.max_unsettled or seconds >= limits.max_lag_seconds:
            raise SettlementBehind(fills, seconds)

    # --- reads --------------------------------------------------------------------------------------------

    def unsettled(self) -> tuple[int, int]:
        """How many fills wait for the ledger, and for how many seconds the oldest does."""
        outbox = self.settlement.outbox
        if not outbox.fills or (oldest := outbox.oldest_at) is None:
            return 0, 0
        return outbox.fills, max(0, self.core.now() - oldest) // _MICROS

    @property
    def settled(self) -> Cursor:
        """How far custody has settled."""
        return self.settlement.outbox.cursor

    def market(self, market: str) -> Market | None:
        """A market by id."""
        book = self.engine.books.get(market)
        return None if book is None else book.market

    def balances(self, customer: str) -> dict[str, tuple[int, int]]:
        """A customer's balances by asset: free and held, base units; what is empty is left out."""
        known = self.engine.customers.get(customer)
        if known is None:
            return {}
        return {
            asset: (balance.free, balance.held)
            for asset, balance in sorted(known.balances.items())
            if balance.free or balance.held
        }

    def ledger_balances(self) -> dict[tuple[str, str], int]:
        """By customer and asset, base units: what the ledger's trading accounts hold if it agrees with us, at
        `settled`.

        That is what the engine has, without what is not settled yet, and with what left the engine and not the
        ledger. Transfers into trading that are under way (`settlement.open_transfers`) may be there in the
        ledger or not.
        """
        found = {
            (customer.id, asset): balance.free + balance.held
            for customer in self.engine.customers.values()
            for asset, balance in customer.balances.items()
        }
        for key, units in self.settlement.outbox.unsettled().items():
            found[key] = found.get(key, 0) - units
        for entry in self.settlement.open_transfers:
            if entry.transfer.to == "funding":
                key = entry.transfer.customer, entry.transfer.asset
                found[key] = found.get(key, 0) + entry.transfer.units
        return {key: units for key, units in sorted(found.items()) if units}

    async def order(self, customer: str, client_order_id: str) -> OrderRecord | None:
        """An order, open or closed."""
        found = self.records.order(customer, client_order_id)
        if found is not None:
            return found
        return await self._in_thread(lambda: self._history.order(customer, client_order_id))

    async def fills(self, customer: str, *, after: tuple[int, int], limit: int) -> list[FillRecord]:
        """A customer's fills, oldest first."""
        await self._write_history()
        return await self._in_thread(lambda: self._history.fills(customer, after=after, limit=limit))

    async def trades(self, market: str, *, before: tuple[int, int] | None, limit: int) -> list[FillRecord]:
        """A market's trades, the newest first."""
        await self._write_history()
        place = (1 << 62, 0) if before is None else before
        return await self._in_thread(lambda: self._history.trades(market, before=place, limit=limit))

    async def candles(self, market: str, interval: str, *, before: int, limit: int) -> list[Candle]:
        """A market's candles, the newest first."""
        await self._write_history()
        return await self._in_thread(
            lambda: self._history.candles(market, interval, before=before, limit=limit)
        )

    async def _in_thread(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)
