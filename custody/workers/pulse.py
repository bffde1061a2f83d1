"""Says that a worker is at work, beside its tasks: a worker that waits for one for long is not a dead one."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from chains.errors import TransientError
from custody.storage import heartbeats
from custody.storage.db import Database


def instance() -> str:
    """Name of this process: host and process id."""
    return f"{socket.gethostname()[:100]}:{os.getpid()}"


@contextmanager
def pulse(database: Database) -> Iterator[None]:
    """Say so every few seconds until the block ends, and then that this worker has left."""
    stop = threading.Event()
    thread = threading.Thread(target=_beat, args=(database, stop), name="pulse", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with suppress(TransientError), database.transaction() as tx:
            heartbeats.leave(tx, heartbeats.Process.WORKER, instance())


def _beat(database: Database, stop: threading.Event) -> None:
    while True:
        with suppress(TransientError), database.transaction() as tx:
            heartbeats.beat(tx, heartbeats.Process.WORKER, instance(), {})
        if stop.wait(heartbeats.BEAT_SECONDS):
            return
