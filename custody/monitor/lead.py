"""One monitor leads each chain: whoever holds the lock, for as long as its session lives.

Every commit is made in the session that holds the lock. A process that is stopped, cut off or killed loses
the session, and with it both the lock and the ability to commit; another monitor takes over from the cursor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from chains.errors import TransientError
from chains.ports import ChainAdapter
from custody.errors import DatabaseUnavailable
from custody.monitor.monitor import Monitor, Options
from custody.monitor.watch import ResourceSet
from custody.screening.ports import Screening
from custody.storage import heartbeats
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database, Session
from policies.bundle import Bundle

_log = structlog.get_logger("monitor")

_TRY_AGAIN_SECONDS: Final = 1.0
_ALERT_AFTER_SECONDS: Final = 30


def lock_name(chain: str) -> str:
    """Name of the lock that the leader of a chain holds."""
    return f"monitor:{chain}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain to follow, and everything that following it takes."""

    adapter: ChainAdapter
    bundle: Callable[[], Bundle]
    screening: Screening
    wait: Callable[[float], object]
    """Waits for an announcement of the node, so many seconds at most. Nothing depends on announcements."""
    options: Options
    resource_set: Callable[[], ResourceSet] = set
    alert_after_seconds: int = _ALERT_AFTER_SECONDS
    """A node that gives no answer for so long is worth an alert."""


def lead(db: Database, chain: Chain, stop: threading.Event) -> None:
    """Follow a chain whenever we are its leader, until `stop` is set. Transient trouble is waited out."""
    name = chain.adapter.chain
    while not stop.is_set():
        try:
            with db.session() as session:
                if not session.try_lock(lock_name(name)):
                    _log.info("another monitor leads", chain=name)
                    while not stop.wait(_TRY_AGAIN_SECONDS) and not session.try_lock(lock_name(name)):
                        pass
                if not stop.is_set():
                    _log.info("leading", chain=name)
                    _follow(session, chain, stop)
        except TransientError as error:
            _log.warning("the lead is lost", chain=name, error=str(error))
            stop.wait(_TRY_AGAIN_SECONDS)


def _follow(session: Session, chain: Chain, stop: threading.Event) -> None:
    monitor = Monitor(
        chain.adapter,
        session,
        chain.bundle,
        chain.screening,
        options=chain.options,
        resource_set=chain.resource_set,
    )
    silence, pulse = _Silence(session, chain), _Pulse(session, chain)
    while not stop.is_set():
        try:
            moved = monitor.step()
        except DatabaseUnavailable:
            raise  # the session is gone, and the lock with it
        except TransientError as error:
            _log.warning("a pass failed", chain=monitor.chain, error=str(error))
            silence.failed(error)
            pulse.failed(error)
            stop.wait(_TRY_AGAIN_SECONDS)
            continue
        silence.ended()
        pulse.ended()
        if not moved:
            chain.wait(_TRY_AGAIN_SECONDS)


class _Silence:
    """Raises an alert when passes keep failing, and resolves it when one succeeds."""

    def __init__(self, session: Session, chain: Chain) -> None:
        self._session, self._chain = session, chain
        self._since: int | None = None
        self._raised = True  # perhaps by a process before this one

    def failed(self, error: TransientError) -> None:
        """A pass failed."""
        now = int(time.monotonic())
        self._since = now if self._since is None else self._since
        if now - self._since < self._chain.alert_after_seconds:
            return
        name = self._chain.adapter.chain
        message = f"{name} is not followed for {now - self._since} s: {error}"
        with self._session.transaction() as tx:
            raise_alert(tx, Severity.CRITICAL, "monitor.stalled", name, message, {})
        self._raised = True

    def ended(self) -> None:
        """A pass succeeded."""
        self._since = None
        if self._raised:
            with self._session.transaction() as tx:
                resolve_alert(tx, "monitor.stalled", self._chain.adapter.chain)
            self._raised = False


class _Pulse:
    """Says from time to time that this chain is followed, and how far its node is: `strongroom status` shows it."""

    def __init__(self, session: Session, chain: Chain) -> None:
        self._session, self._chain = session, chain
        self._said_at: int | None = None

    def failed(self, error: TransientError) -> None:
        """A pass failed."""
        if self._due():
            self._say({"trouble": str(error)[:500]})

    def ended(self) -> None:
        """A pass succeeded."""
        if self._due():
            self._say(self._node())

    def _due(self) -> bool:
        return self._said_at is None or int(time.monotonic()) - self._said_at >= heartbeats.BEAT_SECONDS

    def _node(self) -> Mapping[str, object]:
        try:
            return {"tip": self._chain.adapter.tip().height}
        except TransientError as error:
            return {"trouble": str(error)[:500]}

    def _say(self, detail: Mapping[str, object]) -> None:
        with self._session.transaction() as tx:
            heartbeats.beat(tx, heartbeats.Process.MONITOR, self._chain.adapter.chain, detail)
        self._said_at = int(time.monotonic())
