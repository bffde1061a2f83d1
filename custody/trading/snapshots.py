"""Snapshots of the engine, so that a start replays the end of the journal and not all of it.

A snapshot is a convenience: the journal alone is the truth, and one that cannot be read is passed over. It is
made by a process of its own (`python -m custody.trading.snapshots`) that replays closed segments, so the engine
never pauses for it.

```
file      magic 8 | core id 16 | sequence u64 | length u64 | sha256 32 of what follows | the engine's state
```
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from uuid import UUID

from custody.trading.codec import decode_command
from custody.trading.engine import Engine
from custody.trading.fees import FeeSchedule, Tier
from custody.trading.journal import first_sequence, read, segments, write_whole

NO_FEES: Final = FeeSchedule(tiers=(Tier(0, 0),))
"""Of an engine without markets."""
KEPT: Final = 3
"""Snapshots that are kept at least."""
_MAGIC: Final = b"SRTSNAP1"
_HEAD: Final = struct.Struct("<8s16sQQ32s")
_SUFFIX: Final = ".snapshot"


def write(directory: Path, core: UUID, engine: Engine, sequence: int) -> Path:
    """Write the engine's state after command number `sequence`; whole or not at all."""
    state = engine.state()
    path = directory / f"{sequence:020d}{_SUFFIX}"
    head = _HEAD.pack(_MAGIC, core.bytes, sequence, len(state), hashlib.sha256(state).digest())
    write_whole(path, head, state)
    return path


def newest(directory: Path, core: UUID, *, at_most: int) -> tuple[int, Engine] | None:
    """The newest snapshot that can be read, of a state no later than after command `at_most`.

    Returns:
        The sequence number of the last command in it, and the engine; None if there is no such snapshot.
    """
    for path in sorted(directory.glob(f"*{_SUFFIX}"), reverse=True):
        found = _read(path, core)
        if found is not None and found[0] <= at_most:
            return found
    return None


def tidy(directory: Path, *, needed: int) -> None:
    """Delete old snapshots: all but the newest `KEPT`, and the newest one that is not later than command `needed`."""
    found = sorted(directory.glob(f"*{_SUFFIX}"))
    before = [path for path in found if path.stem <= f"{needed:020d}"]
    for path in found[:-KEPT]:
        if path not in before[-1:]:
            path.unlink(missing_ok=True)


def advance(journal: Path, directory: Path, core: UUID) -> int | None:
    """Make a snapshot at the end of the last closed segment, from the newest one before it.

    Returns:
        The sequence number of the last command in it; None if there was nothing to do.

    Raises:
        JournalCorrupt: a closed segment is damaged.
    """
    found = segments(journal)
    if len(found) < 2:
        return None
    last = first_sequence(found[-1]) - 1
    start = newest(directory, core, at_most=last)
    done, engine = start if start is not None else (0, new_engine())
    if done == last:
        return None
    for _, record in read(journal, core, done + 1, until=last + 1):
        engine.apply(decode_command(record))
    write(directory, core, engine, last)
    return last


def new_engine() -> Engine:
    """An engine before its first command, which is a `Configure`: so the journal holds its configuration, too."""
    return Engine((), NO_FEES)


def _read(path: Path, core: UUID) -> tuple[int, Engine] | None:
    data = path.read_bytes()
    if len(data) < _HEAD.size:
        return None
    magic, owner, sequence, length, digest = _HEAD.unpack_from(data)
    state = data[_HEAD.size :]
    if magic != _MAGIC or owner != core.bytes or len(state) != length:
        return None
    if hashlib.sha256(state).digest() != digest:
        return None
    return sequence, Engine.from_state(state)


def main(arguments: Sequence[str] | None = None) -> int:
    """`JOURNAL SNAPSHOTS CORE NEEDED`: advance, then tidy. Run by the service after each closed segment."""
    journal, directory, core, needed = sys.argv[1:] if arguments is None else arguments
    advance(Path(journal), Path(directory), UUID(core))
    tidy(Path(directory), needed=int(needed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
