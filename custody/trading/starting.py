"""From a directory to a running core: its id, its newest snapshot, the end of its journal, and who follows it.

Everybody who follows begins where he stands: the outbox at what custody has settled, records at what the history
has. So the start replays from a snapshot before both, and tells each from his own place on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from chains.errors import InvalidValue
from custody.ids import new_id
from custody.trading import snapshots
from custody.trading.candles import Candles
from custody.trading.codec import decode_command
from custody.trading.core import Applied
from custody.trading.engine import Engine
from custody.trading.failures import JournalCorrupt
from custody.trading.history import History
from custody.trading.journal import Journal, write_whole
from custody.trading.marketdata import MarketData
from custody.trading.outbox import Outbox
from custody.trading.ports import Cursor
from custody.trading.records import Records

_ID_FILE: Final = "core.json"


class _Identity(msgspec.Struct, frozen=True):
    core: str


@dataclass(frozen=True, slots=True)
class Places:
    """Where a core keeps what."""

    root: Path

    @property
    def journal(self) -> Path:
        """Segments."""
        return self.root / "journal"

    @property
    def snapshots(self) -> Path:
        """Snapshots."""
        return self.root / "snapshots"

    @property
    def transfers(self) -> Path:
        """The transfer book."""
        return self.root / "transfers.sqlite"

    @property
    def history(self) -> Path:
        """The history."""
        return self.root / "history.sqlite"

    @property
    def cursor(self) -> Path:
        """What custody was last known to have settled."""
        return self.root / "settled.json"


@dataclass(frozen=True, slots=True)
class Started:
    """A core in the state of its journal's end."""

    id: UUID
    engine: Engine
    journal: Journal
    last_at: int
    replayed: int
    """Commands that were applied again."""
    outbox: Outbox
    records: Records
    market_data: MarketData
    history: History


def core_id(places: Places) -> UUID:
    """The id of the core in this directory; a new one is written if it has none.

    Raises:
        InvalidValue: the file is there and is none.
    """
    path = places.root / _ID_FILE
    if not path.exists():
        places.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, msgspec.json.encode(_Identity(str(new_id()))))
    try:
        return UUID(msgspec.json.decode(path.read_bytes(), type=_Identity).core)
    except (msgspec.DecodeError, ValueError):
        raise InvalidValue(f"{path} names no core: restore it, it belongs to the journal beside it") from None


def known_cursor(places: Places) -> Cursor:
    """What custody had settled at the least, as it was last written down; the beginning if it never was."""
    try:
        return msgspec.json.decode(places.cursor.read_bytes(), type=Cursor)
    except (OSError, msgspec.DecodeError):
        return Cursor()


def write_cursor(places: Places, cursor: Cursor) -> None:
    """Write down what custody has settled. Not needed for anything but a start while custody is away."""
    write_whole(places.cursor, msgspec.json.encode(cursor))


def start(places: Places, id: UUID, cursor: Cursor, *, segment_bytes: int) -> Started:
    """Open everything, and replay.

    Args:
        places: of the core.
        id: of the core.
        cursor: what custody has settled, or was last known to have.
        segment_bytes: from which size on a segment of the journal is closed.

    Raises:
        JournalError: the journal is damaged, in use, or ends before what a snapshot or custody says there is.
    """
    places.snapshots.mkdir(mode=0o700, parents=True, exist_ok=True)
    journal = Journal(places.journal, id, segment_bytes=segment_bytes)
    history = History(places.history)
    try:
        return _replay(places, id, cursor, journal, history)
    except BaseException:
        journal.close()
        history.close()
        raise


def _replay(places: Places, id: UUID, cursor: Cursor, journal: Journal, history: History) -> Started:
    end = journal.next_sequence - 1
    for what, sequence in (("custody is settled", cursor.last), ("a snapshot reaches", _newest(places))):
        if sequence > end:
            raise JournalCorrupt(
                str(places.journal), 0, f"it ends at command {end}, but {what} until command {sequence}"
            )
    reach = min(history.reach, end)
    settled = cursor.last if cursor.complete else cursor.last - 1
    found = snapshots.newest(places.snapshots, id, at_most=min(reach, settled))
    done, engine = found if found is not None else (0, snapshots.new_engine())
    outbox = Outbox(lambda name: engine.books[name].market, cursor)
    records = Records(Candles(), reach)
    last_at = 0
    began = done
    if done == reach:
        _load(records, engine, history)
    for sequence, record in journal.read(done + 1):
        command = decode_command(record)
        applied = Applied(sequence, command, engine.apply(command))
        last_at = command.at
        if sequence > settled:
            outbox.take(applied)
        if sequence > reach:
            records.take(applied)
        if sequence == reach:
            _load(records, engine, history)
        done = sequence
    if began == end and end:
        last_at = next(decode_command(record).at for _, record in journal.read(end))
    market_data = MarketData(engine)
    return Started(id, engine, journal, last_at, done - began, outbox, records, market_data, history)


def _load(records: Records, engine: Engine, history: History) -> None:
    records.candles = history.candles_to_go_on_with(list(engine.books))
    records.load(engine, history.filled)


def _newest(places: Places) -> int:
    return max((int(path.stem) for path in places.snapshots.glob("*.snapshot")), default=0)
