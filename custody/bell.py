"""The bell over Celery's broker: wakes workers, best effort. Redis may be down, slow, or empty: nothing
depends on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from custody.config import Secret
from custody.ports import Step

QUEUE: Final = "strongroom"
"""Name of the one queue."""
TASK_PREFIX: Final = "strongroom."
_EXPIRES_SECONDS: Final = 30
_PAUSE_SECONDS: Final = 5.0
BROKER_OPTIONS: Final[dict[str, Any]] = {
    "socket_connect_timeout": 0.3,
    "socket_timeout": 0.3,
    "retry_on_timeout": False,
    "max_retries": 0,
}
"""For whoever only rings: a request must not wait for Redis."""


class CeleryBell:
    """Rings by sending a task's name. After a failure it keeps quiet for some seconds, so that callers stay
    fast.

    Args:
        redis_url: the broker.
        now: monotonic seconds.
    """

    def __init__(self, redis_url: Secret, *, now: Callable[[], float] = time.monotonic) -> None:
        self._redis_url = redis_url
        self._now = now
        self._quiet_until = 0.0
        self._lock = threading.Lock()
        self._celery: Any = None

    def __call__(self, step: Step) -> None:
        """Ring for `step`; never raises."""
        if self._now() < self._quiet_until:
            return
        try:
            self._app().send_task(
                TASK_PREFIX + step, queue=QUEUE, expires=_EXPIRES_SECONDS, ignore_result=True, retry=False
            )
        except Exception:  # noqa: BLE001 - a bell that cannot ring must not fail what was committed before
            self._quiet_until = self._now() + _PAUSE_SECONDS

    def _app(self) -> Any:
        with self._lock:
            if self._celery is None:
                from celery import Celery  # 0.3 s: not for processes that never ring

                app = Celery("strongroom-bell", broker=self._redis_url.reveal(), set_as_current=False)
                app.conf.update(broker_transport_options=BROKER_OPTIONS, task_serializer="json")
                self._celery = app
            return self._celery


def answers(redis_url: Secret) -> bool:
    """Whether the broker answers at once."""
    from redis import Redis, RedisError

    connection = Redis.from_url(redis_url.reveal(), socket_connect_timeout=0.3, socket_timeout=0.3)  # seconds
    try:
        return bool(connection.ping())
    except RedisError:
        return False
    finally:
        connection.close()
