"""The worker and beat processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final

import structlog
from celery.signals import worker_shutting_down

from chains.errors import StrongroomError
from custody.config import Process, Settings, load
from custody.logs import log_to_stderr
from custody.wiring import Services, wire
from custody.workers.app import make_app, worker_arguments
from custody.workers.pulse import pulse

CONCURRENCY: Final = 4
PAUSE_SECONDS: Final = 1
_USAGE: Final = "usage: strongroom worker|beat (no arguments: the settings are in STRONGROOM_CONFIG)"

_log = structlog.get_logger("strongroom.workers")


def main(argv: Sequence[str]) -> int:
    """Run a worker or the beat until it is told to stop.

    Args:
        argv: `["worker"]` or `["beat"]`; settings come from the environment (see `custody.config`).

    Returns:
        The exit code: 0 after a signal, 2 for unusable settings, 3 if what it needs is away.
    """
    if list(argv) not in (["worker"], ["beat"]):
        asked = argv[-1:] in (["-h"], ["--help"])
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    log_to_stderr()
    try:
        if argv[0] == "beat":
            settings = load(Process.BEAT)
            make_app(settings.redis_url).start(["beat", "--loglevel=WARNING", "--pidfile="])
            return 0
        settings = load(Process.WORKER)
        services = wire(settings, pool_size=CONCURRENCY + 2)
    except StrongroomError as error:
        print(f"strongroom {argv[0]}: {error}", file=sys.stderr)
        return 3 if error.transient else 2
    return _work(settings, services)


def _work(settings: Settings, services: Services) -> int:
    told_to_stop = threading.Event()

    def note(**_: object) -> None:
        told_to_stop.set()

    worker_shutting_down.connect(note)
    with services, pulse(services.database):
        try:
            make_app(settings.redis_url, lambda: services).worker_main(worker_arguments(CONCURRENCY))
        except SystemExit as end:
            why = f"exit {end.code}"
        except Exception as error:  # noqa: BLE001 - whatever it was, what follows is the answer to it
            why = repr(error)
        else:
            why = "returned"
    if told_to_stop.is_set():
        return 0
    # Celery gives up when Redis goes away while it acknowledges a task ("Unrecoverable error"). Nothing of ours is in
    # it, so the process begins anew, under the same pid: whoever supervises it need not know Celery.
    _log.warning("worker begins anew", celery=why)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    time.sleep(PAUSE_SECONDS)
    return os.execv(sys.executable, [sys.executable, "-m", "custody.workers", "worker"])
