"""The worker and beat processes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Final

import structlog

from chains.errors import StrongroomError
from custody.config import Process, load
from custody.wiring import wire
from custody.workers.app import make_app, worker_arguments

CONCURRENCY: Final = 4
_USAGE: Final = "usage: python -m custody.workers worker|beat"


def main(argv: Sequence[str]) -> int:
    """Run a worker or the beat until it is told to stop. Returns the exit code.

    Args:
        argv: `["worker"]` or `["beat"]`; settings come from the environment (see `custody.config`).
    """
    if list(argv) not in (["worker"], ["beat"]):
        print(_USAGE, file=sys.stderr)
        return 2
    _log_to_stderr()
    try:
        if argv[0] == "beat":
            settings = load(Process.BEAT)
            make_app(settings.redis_url).start(["beat", "--loglevel=WARNING", "--pidfile="])
            return 0
        settings = load(Process.WORKER)
        services = wire(settings, pool_size=CONCURRENCY + 2)
    except StrongroomError as error:
        print(error, file=sys.stderr)
        return 78  # EX_CONFIG of sysexits.h
    with services:
        make_app(settings.redis_url, lambda: services).worker_main(worker_arguments(CONCURRENCY))
    return 0


def _log_to_stderr() -> None:
    """One JSON object a line."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
