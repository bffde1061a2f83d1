"""Lists in files: exact addresses, txids and outputs that must not be dealt with.

A list is CSV after RFC 4180 in UTF-8. Lines that begin with `#` are comments, of which the first ones may say
`# date: 2026-11-20` (needed), `# version: ...` and `# source: ...`; the last line of the file is `# end`:

```
# date: 2026-11-20
# version: 20261120-1
# source: OFAC SDN
address,chain,reason,source
bc1qexample,,sanctioned,
0xExample,ethereum,stolen funds,our own case 17
# end
```

Columns may be in any order; only `address` is needed. An empty chain means all. A file is read again when it changes.
One without its end is half-written: the list that was read before stays in force, for a minute; then the list counts as
not available, as one that is too old does from the start. Deleting a file of a directory ends its list at once.
"""

from __future__ import annotations

import csv
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from chains.errors import InvalidValue
from custody.ports import Clock
from custody.screening.model import Finding, Subject, Word, normal
from custody.screening.ports import ScreeningUnavailable

MAX_BYTES: Final = 256 * 1024 * 1024
GRACE_SECONDS: Final = 60
"""So long may a list be half-written, or gone for a moment, before it counts as not available."""
_DAY_SECONDS: Final = 24 * 3600
_COLUMNS: Final = frozenset({"address", "chain", "reason", "source"})
_HEAD: Final = re.compile(r"#\s*(date|version|source)\s*:\s*(.*\S)\s*", re.IGNORECASE)
_END: Final = re.compile(r"#\s*end\s*", re.IGNORECASE)
_MAX_TEXT: Final = 300
Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: why a text is listed, and by whom; on one chain, or (empty) on all."""

    chain: str
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class AddressList:
    """A list as it was read."""

    version: str
    dated: date
    begins: int
    """That day, UNIX seconds."""
    entries: Mapping[str, tuple[Entry, ...]]


def parse_list(text: str, name: str) -> AddressList:
    """Read a list.

    Args:
        text: the file's content.
        name: for messages.

    Raises:
        InvalidValue: not such a list, or half of one; the message names the line.
    """
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines or not _END.fullmatch(lines[-1]):
        raise InvalidValue(f"{name}: the last line is not `# end`: it is half-written, or its end is missing")
    head: dict[str, str] = {}
    rows: list[tuple[int, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.lstrip().startswith("#"):
            if line.strip():
                rows.append((number, line))
        elif not rows and (found := _HEAD.fullmatch(line.strip())):
            head[found[1].lower()] = found[2]
    dated = _date(head.get("date"), name)
    entries = _entries(rows, head.get("source", "")[:_MAX_TEXT], name)
    begins = int(datetime(dated.year, dated.month, dated.day, tzinfo=UTC).timestamp())
    return AddressList(head.get("version", dated.isoformat())[:_MAX_TEXT], dated, begins, entries)


def _date(text: str | None, name: str) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise InvalidValue(f"{name}: write `# date: YYYY-MM-DD` above the columns' names") from None


def _entries(rows: Sequence[tuple[int, str]], source: str, name: str) -> Mapping[str, tuple[Entry, ...]]:
    if not rows:
        raise InvalidValue(
            f"{name}: the line with the columns' names is missing: address,chain,reason,source"
        )
    columns = [column.strip().lower() for column in next(csv.reader([rows[0][1]]))]
    if "address" not in columns or len(set(columns)) != len(columns) or not set(columns) <= _COLUMNS:
        raise InvalidValue(
            f"{name}:{rows[0][0]}: write the columns' names, of address, chain, reason, source"
        )
    entries: dict[str, tuple[Entry, ...]] = {}
    for number, line in rows[1:]:
        try:
            cells = next(csv.reader([line], strict=True))
        except csv.Error as error:
            raise InvalidValue(f"{name}:{number}: {error}") from None
        if len(cells) != len(columns):
            raise InvalidValue(f"{name}:{number}: {len(cells)} columns, expected {len(columns)}")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        if not row["address"]:
            raise InvalidValue(f"{name}:{number}: the address is empty")
        entry = Entry(
            row.get("chain", ""),
            row.get("reason", "")[:_MAX_TEXT],
            row.get("source", "")[:_MAX_TEXT] or source,
        )
        key = normal(row["address"])
        entries[key] = (*entries.get(key, ()), entry)
    return entries


class _File:
    """One list, kept until its file changes."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.stem
        self._stamp: Stamp | None = None
        self._trouble: str | None = "it was never read"
        self._bad_since: int | None = None
        self._list: AddressList | None = None

    def read(self, now: int, valid_seconds: int) -> AddressList:
        """The list in force. Raises ScreeningUnavailable."""
        self._refresh()
        found = self._list
        if self._trouble is None:
            self._bad_since = None
        else:
            self._bad_since = now if self._bad_since is None else self._bad_since
            if found is None or now - self._bad_since >= GRACE_SECONDS:
                raise ScreeningUnavailable(self._trouble)
        assert found is not None
        midnight = found.begins
        if now - midnight >= valid_seconds:
            days = valid_seconds // _DAY_SECONDS
            raise ScreeningUnavailable(f"{self.path.name} is of {found.dated}: older than {days} days")
        if midnight - now >= _DAY_SECONDS:
            raise ScreeningUnavailable(f"{self.path.name} is of {found.dated}: that day has not come")
        return found

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self._stamp:
                return
            if status.st_size > MAX_BYTES:
                raise InvalidValue(f"{self.path.name} has more than {MAX_BYTES} bytes")
            self._list = parse_list(self.path.read_text(encoding="utf-8"), self.path.name)
            self._stamp, self._trouble = stamp, None
        except (OSError, UnicodeDecodeError) as error:
            self._stamp, self._trouble = None, f"{self.path.name}: {error}"
        except InvalidValue as error:
            self._stamp, self._trouble = None, str(error)


class FileLists:
    """Lists in files and directories (all `*.csv` in them).

    Args:
        name: in records.
        paths: files, which must be there, and directories.
        valid_days: how old a list may be.
        clock: the present, UNIX seconds.
    """

    def __init__(self, name: str, paths: Sequence[Path], valid_days: int, clock: Clock) -> None:
        self._name = name
        self._paths, self._valid_seconds, self._clock = (
            tuple(map(str, paths)),
            valid_days * _DAY_SECONDS,
            clock,
        )
        self._files: dict[str, _File] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """As configured."""
        return self._name

    def ask(self, subject: Subject) -> Word:
        """A finding for each line that names one of the subject's texts, on its chain or on all.

        Raises:
            ScreeningUnavailable: a list is missing, cannot be read, or is too old.
        """
        now = self._clock()
        keys = tuple(dict.fromkeys(map(normal, subject.texts())))
        with self._lock:
            lists = [(file.name, file.read(now, self._valid_seconds)) for file in self._present()]
        findings = [
            Finding(self._name, key, entry.reason, entry.source or name, found.version)
            for name, found in lists
            for key in keys
            for entry in found.entries.get(key, ())
            if entry.chain in ("", subject.chain)
        ]
        return Word(
            self._name, ", ".join(f"{name} {found.version}" for name, found in lists), tuple(findings)
        )

    def _present(self) -> list[_File]:
        # Thousands of deposits are asked about in a row: no more than a listing and a look at each file.
        found: list[str] = []
        for path in self._paths:
            try:
                names = os.listdir(path)
            except (NotADirectoryError, FileNotFoundError):
                found.append(path)
            except OSError as error:
                raise ScreeningUnavailable(f"{path}: {error}") from error
            else:
                found += sorted(os.path.join(path, name) for name in names if name.endswith(".csv"))
        if not found:
            raise ScreeningUnavailable("there is no list: put one into the directory")
        self._files = {path: self._files.get(path) or _File(Path(path)) for path in found}
        return list(self._files.values())

    def close(self) -> None:
        """Nothing to do."""
