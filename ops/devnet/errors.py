"""What can go wrong with a launched part.

DevnetError
├── PartMissing         a program or library is not on this machine
├── StartFailed         it ended, or did not get ready in time
└── DeadlineExceeded    something that was waited for did not become true
"""

from __future__ import annotations


class DevnetError(Exception):
    """Base of all errors of the launchers. None is transient: a person has to look."""

    transient = False


class PartMissing(DevnetError):
    """A program or library was found neither on this machine nor in `.tools/`."""

    def __init__(self, part: str, places: str) -> None:
        super().__init__(f"{part} was not found ({places}): run `make setup`")
        self.part = part


class StartFailed(DevnetError):
    """A part ended while starting, or did not get ready in time; carries the end of its log."""

    def __init__(self, name: str, why: str, log_tail: str) -> None:
        super().__init__(f"{name} did not start: {why}\n--- end of its log ---\n{log_tail}")
        self.name = name
        self.log_tail = log_tail


class DeadlineExceeded(DevnetError):
    """A predicate did not become true in time."""

    def __init__(self, what: str, timeout_seconds: float) -> None:
        super().__init__(f"waited {timeout_seconds:g} s for {what}, in vain")
        self.what = what
        self.timeout_seconds = timeout_seconds
