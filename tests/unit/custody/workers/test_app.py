"""The workers' shell: what Celery is told, and that whatever a step meets, the next beat goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from chains.errors import NodeUnavailable, PermanentError
from custody.bell import QUEUE
from custody.config import Secret
from custody.ports import Step, wake_nobody
from custody.workers import steps
from custody.workers.app import BEAT_SECONDS, HEARTBEAT_TASK, make_app, perform, worker_arguments
from custody.workers.main import main

URL = Secret("redis://:pw@127.0.0.1:1/0")


class Rung:
    """Services of which only the bell is looked at."""

    def __init__(self) -> None:
        self.rung: list[Step] = []

    def wake(self, step: Step) -> None:
        self.rung.append(step)


def test_every_step_has_a_task_a_beat_and_a_body() -> None:
    app = make_app(URL, lambda: Rung())  # type: ignore[arg-type, return-value]
    ours = {name for name in app.tasks if name.startswith("strongroom.")}
    assert ours == {f"strongroom.{step}" for step in Step} | {HEARTBEAT_TASK}
    assert set(BEAT_SECONDS) == set(Step) == set(steps._STEPS)
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in ours
        assert entry["options"]["queue"] == QUEUE
        assert entry["options"]["expires"] > entry["schedule"]


def test_tasks_are_acknowledged_late_and_carry_neither_results_nor_pickles() -> None:
    conf = make_app(URL).conf
    assert conf.task_acks_late is True
    assert conf.task_reject_on_worker_lost is True
    assert conf.result_backend is None
    assert conf.accept_content == ["json"]
    assert conf.worker_prefetch_multiplier == 1
    assert conf.broker_connection_retry_on_startup is True


def test_a_step_that_did_something_rings_for_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    services: Any = Rung()
    monkeypatch.setattr(steps, "run", lambda step, _: 1)
    assert perform(Step.ROUTE, services) == 1
    assert services.rung == [Step.ANNOUNCE, Step.BUILD, Step.SETTLE_INTERNAL]


def test_a_step_that_found_nothing_rings_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    services: Any = Rung()
    monkeypatch.setattr(steps, "run", lambda step, _: 0)
    assert perform(Step.ROUTE, services) == 0
    assert services.rung == []


def test_what_does_not_answer_is_left_to_the_next_beat_and_a_bug_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services: Any = Rung()

    def fail(error: Exception) -> None:
        def run(step: Step, _: object) -> int:
            raise error

        monkeypatch.setattr(steps, "run", run)

    fail(NodeUnavailable("no answer"))
    assert perform(Step.BROADCAST, services) == 0
    fail(PermanentError("a bug"))
    with pytest.raises(PermanentError):
        perform(Step.BROADCAST, services)


def test_a_worker_runs_threads_and_takes_from_our_queue_alone() -> None:
    arguments = worker_arguments(4)
    assert arguments[0] == "worker"
    assert {"--pool=threads", "--concurrency=4", f"--queues={QUEUE}"} <= set(arguments)


@pytest.mark.parametrize("argv", [[], ["both"], ["worker", "now"]])
def test_other_words_than_worker_and_beat_are_answered_with_the_usage(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    assert "worker|beat" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["worker", "beat"])
def test_who_asks_for_help_gets_the_usage_and_no_error(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    assert "worker|beat" in capsys.readouterr().out


def test_the_secret_of_the_broker_is_not_in_what_can_be_printed() -> None:
    assert "pw" not in repr(URL)
    assert "pw" not in json.dumps([str(URL)])
    assert wake_nobody(Step.SIGN) is None  # type: ignore[func-returns-value]
