"""The engine of a bundle's policy."""

from __future__ import annotations

import threading
from typing import Final

from policies.bundle import Bundle
from policies.engine import Engine

_lock: Final = threading.Lock()
_last: list[tuple[Bundle, Engine]] = []


def engine_of(bundle: Bundle) -> Engine:
    """The bundle's policy, compiled; the last one is kept, as each process has one bundle at a time."""
    with _lock:
        if not _last or _last[0][0] is not bundle:
            _last[:] = [(bundle, Engine(bundle.policy, bundle.told))]
        return _last[0][1]
