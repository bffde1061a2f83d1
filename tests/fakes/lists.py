"""A real screening list in a file, which tests rewrite."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from custody.ports import system_clock
from custody.screening.lists import FileLists
from custody.screening.ports import Screening


class Lists:
    """One list, empty at first."""

    def __init__(self, directory: Path, name: str = "listed.csv") -> None:
        self.path = directory / name
        self._version = 0
        self.write()
        self.screening = Screening([FileLists("lists", [self.path], 7, system_clock)])

    def write(self, *lines: str) -> None:
        """A new version with these lines, `address,chain,reason,source`; put in place at once."""
        self._version += 1
        head = f"# date: {datetime.now(UTC).date()}\n# version: {self._version}\n# source: tests\n"
        fresh = self.path.with_suffix(".new")
        fresh.write_text(head + "\n".join(["address,chain,reason,source", *lines, "# end\n"]))
        os.replace(fresh, self.path)
