"""The core's loop and what stands around it: order, back-pressure, failure, answers, readers."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import pytest

from custody.ids import new_id
from custody.trading import snapshots
from custody.trading import streams as streaming
from custody.trading.answers import REPLAYED, Answers
from custody.trading.codec import decode_command
from custody.trading.commands import Configure, Deposit, Tick
from custody.trading.core import Applied, Core
from custody.trading.engine import Engine
from custody.trading.failures import Busy, Closed, CustodyUnavailable, JournalBroken, JournalCorrupt
from custody.trading.fees import FeeSchedule, Tier
from custody.trading.journal import Journal
from custody.trading.market import Market
from custody.trading.ports import Cursor
from custody.trading.starting import Places, core_id, start
from custody.trading.streams import Reader
from custody.web.errors import IdempotencyKeyMissing, IdempotencyKeyReused

ID = UUID(int=5)
MARKET = Market("BTC-USDX", "BTC", "USDX", 8, 10_000, 10_000, 1, 800, 1_000)
FEES = FeeSchedule((Tier(0, 0),))


class Following:
    def __init__(self) -> None:
        self.taken: list[Applied] = []

    def take(self, one: Applied) -> None:
        self.taken.append(one)

    def flush(self) -> None:
        """Nothing."""


def running(
    directory: Path, work: Callable[[Core], Awaitable[None]], *, queue: int = 100, **options: int
) -> None:
    """Run a core for as long as `work` does, then close it in good order."""

    async def main() -> None:
        with Journal(directory / "journal", ID, **options) as journal:
            core = Core(snapshots.new_engine(), journal, queue=queue, clock=iter(range(10**6)).__next__)
            task = asyncio.create_task(core.run())
            try:
                await work(core)
            finally:
                core.close()
                await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())


def test_commands_are_applied_in_the_order_they_came_and_are_in_the_journal_when_answered(
    tmp_path: Path,
) -> None:
    follower = Following()

    async def work(core: Core) -> None:
        core.listen(follower)
        answers = [core.submit(Tick(core.now())) for _ in range(50)]
        found = await asyncio.gather(*answers)
        assert [one.sequence for one in found] == list(range(1, 51))
        assert core.sequence == 50

    running(tmp_path, work)
    assert [one.sequence for one in follower.taken] == list(range(1, 51))
    with Journal(tmp_path / "journal", ID) as journal:
        assert [decode_command(record) for _, record in journal.read(1)] == [
            one.command for one in follower.taken
        ]


def test_a_full_queue_says_busy_and_time_never_goes_back(tmp_path: Path) -> None:
    async def work(core: Core) -> None:
        first = [core.submit(Tick(core.now())) for _ in range(3)]
        with pytest.raises(Busy):
            core.submit(Tick(core.now()))
        times = [one.command.at for one in await asyncio.gather(*first)]
        assert times == sorted(times)
        await core.submit(Tick(core.now()))
        core.close()
        with pytest.raises(Closed):
            core.submit(Tick(core.now()))

    running(tmp_path, work, queue=3)


def test_fault_40_a_full_disk_ends_the_core_and_nothing_is_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async def main() -> None:
        with Journal(tmp_path / "journal", ID) as journal:
            core = Core(snapshots.new_engine(), journal)
            follower = Following()
            core.listen(follower)
            monkeypatch.setattr(os, "fdatasync", full)
            answer = core.submit(Tick(core.now()))
            with pytest.raises(JournalBroken):
                await core.run()
            with pytest.raises(Closed):
                await answer
            assert follower.taken == []
            with pytest.raises(Closed):
                core.submit(Tick(core.now()))

    asyncio.run(main())


def test_a_snapshot_of_closed_segments_is_what_a_whole_replay_gives(tmp_path: Path) -> None:
    async def work(core: Core) -> None:
        await core.submit(Configure(core.now(), (MARKET,), FEES))
        for number in range(30):
            await core.submit(Deposit(core.now(), str(new_id()), f"c{number}", "BTC", number + 1))

    running(tmp_path, work, segment_bytes=200)
    places = tmp_path / "snapshots"
    places.mkdir()
    last = snapshots.advance(tmp_path / "journal", places, ID)
    assert last is not None
    assert snapshots.advance(tmp_path / "journal", places, ID) is None
    found = snapshots.newest(places, ID, at_most=last)
    assert found is not None
    engine = snapshots.new_engine()
    with Journal(tmp_path / "journal", ID) as journal:
        for number, record in journal.read(1):
            if number <= last:
                engine.apply(decode_command(record))
    assert found[1].digest() == engine.digest()
    assert snapshots.newest(places, ID, at_most=last - 1) is None
    (file,) = places.iterdir()
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert snapshots.newest(places, ID, at_most=last) is None  # damaged: passed over


def test_a_journal_that_ends_before_what_custody_has_settled_is_not_traded_on(tmp_path: Path) -> None:
    places = Places(tmp_path)
    id = core_id(places)
    assert core_id(places) == id
    with pytest.raises(JournalCorrupt, match="custody is settled until command 7"):
        start(places, id, Cursor(7), segment_bytes=1_000)
    started = start(places, id, Cursor(), segment_bytes=1_000)
    started.journal.close()
    started.history.close()


def test_an_answer_is_given_again_for_its_key_and_what_may_pass_is_tried_again() -> None:
    async def main() -> None:
        answers, calls = Answers(), 0

        async def effect() -> dict[str, object]:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise CustodyUnavailable("away")
            return {"calls": calls}

        with pytest.raises(IdempotencyKeyMissing):
            await answers.once("a", None, b"r", 201, effect)
        with pytest.raises(CustodyUnavailable):
            await answers.once("a", "k", b"r", 201, effect)
        first, second = await asyncio.gather(*(answers.once("a", "k", b"r", 201, effect) for _ in range(2)))
        assert first.body == second.body == b'{"calls":2}'
        assert (first.headers[REPLAYED], second.headers[REPLAYED]) == ("false", "true")
        with pytest.raises(IdempotencyKeyReused):
            await answers.once("a", "k", b"other", 201, effect)
        assert (await answers.once("b", "k", b"r", 201, effect)).body == b'{"calls":3}'

    asyncio.run(main())


def test_a_full_reader_misses_market_data_and_is_lost_only_for_what_he_must_not_miss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streaming, "QUEUE", 3)

    async def main() -> None:
        reader = Reader()
        topic = ("depth", "BTC-USDX")
        for number in range(10):
            reader.offer(topic, str(number))
        assert reader.behind == {topic}
        reader.insist("answer")
        assert not reader.lost
        assert [await reader.next() for _ in range(5)] == ["0", "1", "2", "answer", None]
        for number in range(7):
            reader.insist(str(number))
        assert reader.lost

    asyncio.run(main())


def test_an_engine_without_markets_takes_its_configuration_as_first_command() -> None:
    engine = snapshots.new_engine()
    engine.apply(Configure(1, (MARKET,), FEES))
    assert Engine.from_state(engine.state()).digest() == engine.digest()
    assert set(engine.books) == {"BTC-USDX"}
