"""Keeping processes up: one that ends without being asked is started again, more slowly each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from ops.devnet.errors import DevnetError
from ops.devnet.process import ManagedProcess

_LOOK_SECONDS: Final = 0.5
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
_STABLE_SECONDS: Final = 60.0


class Supervisor:
    """Watches processes from a thread until it is stopped; tells of every restart."""

    def __init__(self, processes: Mapping[str, ManagedProcess], tell: Callable[[str], None]) -> None:
        """Prepares the watch; `start` begins it."""
        self._processes = processes
        self._tell = tell
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; call it before stopping the processes. Again changes nothing."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        pauses = dict.fromkeys(self._processes, _FIRST_PAUSE_SECONDS)
        started = dict.fromkeys(self._processes, time.monotonic())
        due: dict[str, float] = {}
        while not self._stop.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for name, process in self._processes.items():
                if process.running:
                    if now - started[name] > _STABLE_SECONDS:
                        pauses[name] = _FIRST_PAUSE_SECONDS
                elif name not in due:
                    due[name] = now + pauses[name]
                    self._tell(f"{name} {_how(process.exit_code)}; it is started again in {pauses[name]:g} s")
                    pauses[name] = min(2 * pauses[name], _LONGEST_PAUSE_SECONDS)
                elif now >= due[name]:
                    del due[name]
                    started[name] = now
                    self._restart(name, process)

    def _restart(self, name: str, process: ManagedProcess) -> None:
        try:
            process.start()
        except DevnetError as error:
            self._tell(str(error))
        else:
            self._tell(f"{name} is running again (pid {process.pid})")


def _how(exit_code: int | None) -> str:
    """How a process ended; a negative code is the signal that ended it."""
    if exit_code is not None and exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"ended with {exit_code}"
