"""The core's one writer: commands wait in a bounded queue, are journaled in groups, applied in order, and only
then answered.

All of it runs in one event loop's thread, but for the write to the disk: while one group is being synced, the
next one gathers. So whoever runs in the loop may read the engine at any time and sees a state between two
commands, never within one.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from custody.trading.codec import encode_command
from custody.trading.commands import AnyCommand
from custody.trading.engine import Engine
from custody.trading.events import Event
from custody.trading.failures import Busy, Closed, JournalBroken
from custody.trading.journal import Journal

MAX_GROUP: Final = 1_000
"""Most commands of one group: the loop does nothing else while it applies them."""
QUEUE: Final = 10_000

Micros = Callable[[], int]
"""The present, microseconds since 1970 (UTC)."""

_log = structlog.get_logger("strongroom.trading")


def calm_collector() -> None:
    """Lets the garbage collector look at what lives long, such as orders at rest, rarely: a sixth of an order's time.

    For the whole process, once what was loaded at the start is there.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def system_micros() -> int:
    """This machine's clock."""
    return time.time_ns() // 1_000


@dataclass(frozen=True, slots=True)
class Applied:
    """A command, on the disk and applied."""

    sequence: int
    command: AnyCommand
    events: list[Event]


class Listener(Protocol):
    """Who follows the core. Both methods run in the core's loop and must return soon; neither may raise."""

    def take(self, one: Applied) -> None:
        """One command was applied; called in order."""

    def flush(self) -> None:
        """A group ends here: a good moment to pass on what was taken."""


class Core:
    """Engine and journal behind one queue.

    Args:
        engine: in the state after the journal's last record.
        journal: open; nobody else appends.
        last_at: `at` of the last record (0: there is none).
        clock: what time commands get.
        queue: most commands that may wait.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        *,
        last_at: int = 0,
        clock: Micros = system_micros,
        queue: int = QUEUE,
    ) -> None:
        self.engine = engine
        self._journal = journal
        self._last_at = last_at
        self._clock = clock
        self._limit = queue
        self._waiting: list[tuple[AnyCommand, asyncio.Future[Applied]]] = []
        self._arrived = asyncio.Event()
        self._closed = False
        self._listeners: list[Listener] = []
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")

    @property
    def sequence(self) -> int:
        """The number of the last command that was journaled."""
        return self._journal.next_sequence - 1

    @property
    def waiting(self) -> int:
        """How many commands wait to be journaled."""
        return len(self._waiting)

    def listen(self, listener: Listener) -> None:
        """Tell `listener` of everything that is applied from now on."""
        self._listeners.append(listener)

    def now(self) -> int:
        """The time for the next command: never before that of one that was submitted earlier."""
        self._last_at = max(self._last_at, self._clock())
        return self._last_at

    def submit(self, command: AnyCommand) -> asyncio.Future[Applied]:
        """Have a command journaled and applied. Its `at` is `now()`, with no `await` in between.

        Returns:
            A future that is done when the command is on the disk and applied. Cancelling it does not take it back.

        Raises:
            Busy: the queue is full; nothing was done.
            Closed: the core is ending; nothing was done.
        """
        if self._closed:
            raise Closed("the trading core is ending")
        if len(self._waiting) >= self._limit:
            raise Busy(len(self._waiting))
        answer: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        self._arrived.set()
        return answer

    def close(self) -> None:
        """Take nothing more. `run` returns once what waits is done."""
        self._closed = True
        self._arrived.set()

    async def run(self) -> None:
        """Work until `close`.

        Raises:
            JournalBroken: a write failed. What was not acknowledged may be on the disk or not; end the process.
        """
        try:
            while True:
                await self._arrived.wait()
                self._arrived.clear()
                while self._waiting:
                    group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                    await self._work(group)
                if self._closed:
                    return
        finally:
            self._closed = True
            self._give_up(self._waiting)
            self._disk.shutdown()

    async def _work(self, group: Sequence[tuple[AnyCommand, asyncio.Future[Applied]]]) -> None:
        loop = asyncio.get_running_loop()
        records = [encode_command(command) for command, _ in group]
        try:
            first = await loop.run_in_executor(self._disk, self._journal.append, records)
        except JournalBroken:
            self._give_up(group)
            raise
        apply, listeners = self.engine.apply, self._listeners
        for sequence, (command, answer) in enumerate(group, first):
            applied = Applied(sequence, command, apply(command))
            for listener in listeners:
                listener.take(applied)
            if not answer.cancelled():
                answer.set_result(applied)
        for listener in listeners:
            listener.flush()

    @staticmethod
    def _give_up(group: Sequence[tuple[AnyCommand, asyncio.Future[Applied]]]) -> None:
        for _, answer in group:
            if not answer.done():
                answer.set_exception(
                    Closed("the trading core ended; whether the command was taken is not known")
                )
                answer.exception()  # looked at: whoever asked may be gone
