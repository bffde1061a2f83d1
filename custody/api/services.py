"""What the API is given: everything with an effect, behind few names."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from custody.storage.db import Database
from policies.bundle import Bundle
from signers.ports import Signer


def unix_now() -> int:
    """This machine's clock, whole UNIX seconds."""
    return int(time.time())


def nothing() -> None:
    """A wake-up that wakes nobody: the workers' own beat finds all work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServices:
    """Made by `custody.api.__main__` from the process's configuration, or by a test."""

    database: Database
    """With the role `strongroom_api`."""
    bundle: Callable[[], Bundle]
    """The bundle in force now. Raises UntrustedBundle when there is none that may be believed."""
    signer: Callable[[str], Signer]
    """The signer of a key-set id. Raises InvalidValue if none is configured."""
    audience: str
    """Our name: tokens made for another are refused."""
    wake_workers: Callable[[], None] = nothing
    """Called after something was committed that a worker should look at; must return fast and not raise."""
    clock: Callable[[], int] = unix_now
    requests_per_second: int = 2000
    """Most requests of one caller; twice as many in a burst."""
    monitor_lag_seconds: int = 60
    """`/readyz` says no when a chain's monitor has not been heard of for longer."""
