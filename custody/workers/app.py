"""The Celery application: one queue on Redis, one task per step, a beat that rings for each of them.

Celery carries no state of ours. A task has no arguments: it looks for its work in PostgreSQL. So a task that
is delivered twice, late or never, and a Redis that loses everything, cost at most the time until the next
beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog
from celery import Celery

from chains.errors import TransientError
from custody.bell import QUEUE, TASK_PREFIX
from custody.config import Secret
from custody.ports import Step
from custody.storage import heartbeats
from custody.wiring import Services
from custody.workers import steps

BEAT_SECONDS: Final[Mapping[Step, float]] = {  # seconds of a timer, no money
    Step.ROUTE: 1.0,
    Step.SETTLE_INTERNAL: 1.0,
    Step.ANNOUNCE: 5.0,
    Step.BUILD: 1.0,
    Step.SIGN: 1.0,
    Step.BROADCAST: 2.0,
    Step.TRACK: 1.0,
    Step.EXPIRE: 5.0,
    Step.BUMP: 5.0,
    Step.BOOK_LOSSES: 5.0,
    Step.SWEEP: 2.0,
    Step.TREASURY: 10.0,
    Step.RECONCILE: 15.0,
    Step.WATCH_SIGNERS: 15.0,
    Step.SEAL: 60.0,
    Step.TELL_OTHERS: 5.0,
}
"""How often each step is rung for."""

HEARTBEAT_TASK: Final = f"{TASK_PREFIX}heartbeat"
"""Only the beat sends it: a worker that hears it notes that the beat is at work."""

_log = structlog.get_logger("strongroom.workers")


def make_app(redis_url: Secret, services: Callable[[], Services] | None = None) -> Celery:
    """The application.

    Args:
        redis_url: the broker.
        services: gives the process's services when a task runs; None for a process that only rings (beat).
    """
    app = Celery("strongroom", broker=redis_url.reveal(), set_as_current=False)
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        # A task that dies with its worker is delivered again; steps are made for that.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={"visibility_timeout": 60, "socket_keepalive": True, "socket_timeout": 10},
        beat_schedule={
            f"{TASK_PREFIX}{step}": {
                "task": f"{TASK_PREFIX}{step}",
                "schedule": seconds,
                # Bells that nobody heard in time are thrown away: the next one says the same.
                "options": {"expires": 3 * seconds, "queue": QUEUE},
            }
            for step, seconds in BEAT_SECONDS.items()
        }
        | {
            HEARTBEAT_TASK: {
                "task": HEARTBEAT_TASK,
                "schedule": heartbeats.BEAT_SECONDS,
                "options": {"expires": 3 * heartbeats.BEAT_SECONDS, "queue": QUEUE},
            }
        },
        beat_scheduler="celery.beat:Scheduler",  # keeps nothing on disk: the schedule is this constant
        beat_max_loop_interval=1,
        timezone="UTC",
    )
    if services is not None:
        for step in Step:
            _register(app, step, services)
        _register_heartbeat(app, services)
    return app


def _register_heartbeat(app: Celery, services: Callable[[], Services]) -> None:
    def task() -> None:
        heard_the_beat(services())

    app.task(name=HEARTBEAT_TASK)(task)


def _register(app: Celery, step: Step, services: Callable[[], Services]) -> None:
    def task() -> None:
        perform(step, services())

    app.task(name=f"{TASK_PREFIX}{step}")(task)


def perform(step: Step, services: Services) -> int:
    """Run one step and ring for what it made possible. What does not answer is left to the next beat."""
    try:
        done = steps.run(step, services)
    except TransientError as error:
        _log.warning("step postponed", step=step.value, reason=str(error))
        return 0
    if done:
        _log.info("step done", step=step.value, count=done)
        for following in steps.FOLLOWED_BY.get(step, ()):
            services.wake(following)
    return done


def heard_the_beat(services: Services) -> None:
    """Note that the beat is at work; a database that does not answer is told of elsewhere."""
    with suppress(TransientError), services.database.transaction() as tx:
        heartbeats.beat(tx, heartbeats.Process.BEAT, "beat", {})


def worker_arguments(concurrency: int) -> list[str]:
    """Command line of a worker. Threads, not children: one kill ends all of it, and nothing is forked."""
    options: dict[str, Any] = {"pool": "threads", "concurrency": concurrency, "loglevel": "WARNING"}
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    return ["worker", *flags, *(f"--{name}={value}" for name, value in options.items()), f"--queues={QUEUE}"]
