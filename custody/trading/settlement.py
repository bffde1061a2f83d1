"""Two tasks that speak to custody: one settles fills in their order, the other moves money in and out.

Custody may be away for as long as it likes. Then what waits grows, the status says so, and beyond a bound the
desk refuses new orders. Everything is repeated until custody has said yes or no; ledger and engine do each thing
once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import structlog

from custody.trading.commands import Deposit
from custody.trading.core import Applied, Core
from custody.trading.events import Rejected
from custody.trading.failures import CustodyRefused, CustodyUnavailable
from custody.trading.outbox import Outbox
from custody.trading.ports import Batch, Custody, Target, Transfer
from custody.trading.transferbook import Entry, State, TransferBook

BACK_OFF_SECONDS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
IDLE_SECONDS: Final = 60.0
"""How long nothing is settled before custody is told how far nothing happened."""

_T = TypeVar("_T")
_log = structlog.get_logger("strongroom.trading")


class Settlement:
    """Carries the outbox to custody, and transfers to both sides.

    Args:
        core: takes the deposits.
        outbox: of that core.
        book: of the transfers; used by this object only.
        custody: the other side; called from a thread.
        id: of the core's journal.
        batch: most fills of one settlement.
    """

    def __init__(
        self, core: Core, outbox: Outbox, book: TransferBook, custody: Custody, *, id: UUID, batch: int
    ) -> None:
        self._core = core
        self.outbox = outbox
        self._book = book
        self._custody = custody
        self._id = id
        self._batch = batch
        self._work = asyncio.Event()
        self._moves: dict[tuple[str, str], Entry] = {}
        """Transfers that are not at an end, by id and direction."""
        self._moved = asyncio.Event()
        self._ends: dict[tuple[str, str], asyncio.Future[Entry]] = {}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="transfers")
        self._net = ThreadPoolExecutor(2, thread_name_prefix="custody")
        self.trouble = ""
        """Why settling does not go on, as custody said; empty while it does."""
        self.move_trouble = ""
        """The same of transfers."""

    def take(self, one: Applied) -> None:
        """Follow the core."""
        self.outbox.take(one)

    def flush(self) -> None:
        """A group of commands ended."""
        self._work.set()

    @property
    def open_transfers(self) -> list[Entry]:
        """Transfers that are not at an end."""
        return list(self._moves.values())

    async def begin(self, transfer: Transfer) -> Entry:
        """Write down a transfer into trading, and have it made. The same again is answered with how far it is.

        Raises:
            TransferConflict: the id was used for another one.
        """
        entry = await self._on_disk(lambda: self._book.begin(transfer, self._core.now()))
        self._take_up(entry)
        return entry

    async def ended(self, transfer: Transfer, *, timeout: float) -> Entry | None:
        """Wait for a transfer's end, at most `timeout` seconds. Returns how far it is; None if it is not known
        yet."""
        key = (transfer.id, transfer.to)
        if key in self._moves or await self.find(transfer.id, transfer.to) is None:
            end = self._ends.setdefault(key, asyncio.get_running_loop().create_future())
            await asyncio.wait([end], timeout=timeout)
        return await self.find(transfer.id, transfer.to)

    async def find(self, id: str, to: Target) -> Entry | None:
        """A transfer by id and direction."""
        return await self._on_disk(lambda: self._book.find(id, to))

    async def page(self, customer: str, *, after: int, limit: int) -> list[Entry]:
        """A customer's transfers, oldest first."""
        return await self._on_disk(lambda: self._book.page(customer, after=after, limit=limit))

    async def run(self) -> None:
        """Work until cancelled."""
        for entry in await self._on_disk(self._book.open):
            self._take_up(entry)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._settle())
                group.create_task(self._move())
        finally:
            self._disk.shutdown(wait=False)
            self._net.shutdown(wait=False, cancel_futures=True)

    # --- fills ------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        failures = 0
        while True:
            due = self.outbox.next(self._batch)
            if due is None:
                due = await self._idle()
            if isinstance(due, Transfer):
                # On the disk before the cursor can pass it: from now on the book remembers it, not the journal.
                entry = await self._on_disk(partial(self._book.begin, due, self._core.now()))
                self.outbox.handed_over(due)
                self._take_up(entry)
            elif due is not None:
                failures = 0 if await self._settled(due) else failures + 1
                if failures:
                    await asyncio.sleep(BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1])

    async def _idle(self) -> Batch | None:
        self._work.clear()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                await self._work.wait()
        except TimeoutError:
            return self.outbox.idle()
        return None

    async def _settled(self, batch: Batch) -> bool:
        try:
            await self._on_net(lambda: self._custody.settle(self._id, batch))
        except CustodyUnavailable as error:
            self._settle_trouble(str(error))
            return False
        except CustodyRefused as error:
            self._settle_trouble(str(error))
            if error.code == "settlement-out-of-order":
                await self._ask_cursor()
            return False
        self.outbox.settled(batch)
        if self.trouble:
            _log.warning("settling goes on", sequence=batch.last)
            self.trouble = ""
        return True

    async def _ask_cursor(self) -> None:
        """An answer got lost, or the journal is not the one that custody knows: find out which."""
        try:
            cursor = await self._on_net(lambda: self._custody.cursor(self._id))
        except (CustodyUnavailable, CustodyRefused) as error:
            self._settle_trouble(str(error))
            return
        if cursor.last > self.outbox.seen:
            self._settle_trouble(
                f"custody is settled until command {cursor.last}, the journal ends at {self.outbox.seen}: "
                "a part of the journal is lost"
            )
        elif (cursor.last, cursor.complete) >= (self.outbox.cursor.last, self.outbox.cursor.complete):
            self.outbox.settled_until(cursor)

    def _settle_trouble(self, why: str) -> None:
        if why != self.trouble:
            _log.error("settling stands still", why=why, fills=self.outbox.fills)
        self.trouble = why

    # --- transfers --------------------------------------------------------------------------------------

    def _take_up(self, entry: Entry) -> None:
        key = (entry.transfer.id, entry.transfer.to)
        if _is_open(entry):
            self._moves[key] = entry
            self._moved.set()
        else:
            self._moves.pop(key, None)
            end = self._ends.pop(key, None)
            if end is not None and not end.done():
                end.set_result(entry)

    async def _move(self) -> None:
        failures = 0
        while True:
            self._moved.clear()
            done = [await self._advance(entry) for entry in list(self._moves.values())]
            failures = 0 if all(done) else failures + 1
            if not failures:
                self.move_trouble = ""
            wait = BACK_OFF_SECONDS[min(failures, len(BACK_OFF_SECONDS)) - 1] if failures else None
            try:
                async with asyncio.timeout(wait):
                    await self._moved.wait()
            except TimeoutError:
                continue

    async def _advance(self, entry: Entry) -> bool:
        """Take a transfer one step or more on. False if it has to be tried again."""
        moved = entry.transfer
        if entry.state in ("asked", "debited"):
            try:
                await self._on_net(lambda: self._custody.move(moved))
            except CustodyUnavailable as error:
                if str(error) != self.move_trouble:
                    _log.warning("a transfer waits", id=moved.id, why=str(error))
                self.move_trouble = str(error)
                return False
            except CustodyRefused as error:
                code = error.code
                entry = await self._on_disk(lambda: self._book.follow(moved, "refused", code))
            else:
                state: State = "moved" if moved.to == "trading" else "done"
                entry = await self._on_disk(partial(self._book.follow, moved, state))
        if _is_open(entry):
            # The ledger has moved it in, or has refused to move it out: the engine gets it (back), under the same id.
            applied = await self._core.submit(
                Deposit(self._core.now(), moved.id, moved.customer, moved.asset, moved.units)
            )
            rejected = [event for event in applied.events if isinstance(event, Rejected)]
            if rejected:
                self.move_trouble = f"the engine does not take transfer {moved.id}: {rejected[0].code}"
                _log.error("the engine does not take a transfer", id=moved.id, code=rejected[0].code)
                return False
            end: State = "done" if moved.to == "trading" else "returned"
            entry = await self._on_disk(partial(self._book.follow, moved, end))
        self._take_up(entry)
        return True

    async def _on_disk(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, call)

    async def _on_net(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._net, call)


def _is_open(entry: Entry) -> bool:
    return entry.state in ("asked", "moved", "debited") or (
        entry.state == "refused" and entry.transfer.to == "funding"
    )
