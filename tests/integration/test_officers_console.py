"""Officers' verbs at the host: every signer is told over its socket, and the online side by its database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner, Result

from custody.console import officers
from custody.console.app import app
from custody.officers import standing
from custody.officers.standing import Standing
from custody.storage.db import Database
from custody.storage.migrate import set_role_password
from signers.config import ListenSection
from tests.fakes.signer import Bench, SignerBench
from tests.fakes.signer_server import served
from tests.fakes.signing import NOW, SoftKeys, World

BELOW = "cap:hot:BTC:payment_below"


class Second(SignerBench):
    """Another signer of the same quorum."""

    def __init__(self, directory: Path, world: World) -> None:
        self.keys = SoftKeys.make()
        Bench.__init__(self, directory, World(self.keys.record, officers=world.officers))


class Office:
    """Two signers on sockets, a database, and the workers' settings that name all of them."""

    def __init__(self, dsn: str, directory: Path, stack: ExitStack) -> None:
        for name in ("first", "second"):
            (directory / name).mkdir()
        self.first = SignerBench(directory / "first")
        self.second = Second(directory / "second", self.first.world)
        self.benches = (self.first, self.second)
        self.world = self.first.world
        self.path, root = directory / "bundle.json", directory / "root.json"
        self.path.write_bytes(self.world.signed(self.world.bundle(1)).encode())
        root.write_bytes(msgspec.json.encode(self.world.root))
        sockets = {name: directory / f"{name}.sock" for name in ("first", "second")}
        for bench, socket in zip(self.benches, sockets.values(), strict=True):
            stack.enter_context(served(bench.service, ListenSection(unix=str(socket)), officers=bench.desk))
        self.key = directory / "olga.pem"
        self.world.officers["olga"].save(self.key)
        set_role_password(dsn, "strongroom_worker", "of-this-test")
        worker = make_conninfo(dsn, user="strongroom_worker", password="of-this-test")
        self.settings = {
            "STRONGROOM_DATABASE_URL": worker,
            "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
            "STRONGROOM_BUNDLE_PATH": str(self.path),
            "STRONGROOM_TRUST_ROOT_PATH": str(root),
            "STRONGROOM_NODES": json.dumps(
                {"btc": {"rpc_url": "http://u:p@127.0.0.1:1", "rest_url": "http://127.0.0.1:1"}}
            ),
            "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
            "STRONGROOM_SIGNERS": json.dumps(
                {name: {"socket": str(socket)} for name, socket in sockets.items()}
            ),
        }
        self.database = stack.enter_context(Database(worker, application="test", pool_size=2))
        self.online = Standing(self.path, self.world.root, lambda: NOW, lambda: self.database)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--json"], env=self.settings)

    def say(self, *arguments: str) -> Result:
        """As olga."""
        who = ["--officer", "olga", "--key", str(self.key), "--reason", "odd"]
        return self.run(*arguments, *who)

    def signed(self, version: int, *names: str, **changes: Any) -> str:
        """The path of a bundle."""
        path = self.path.with_name(f"{version}.json")
        signed = self.world.signed(self.world.bundle(version, **changes), names or ("olga", "felix"))
        path.write_bytes(signed.encode())
        return str(path)


@pytest.fixture
def office(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(standing, "REFRESH_SECONDS", 0.0)
    monkeypatch.setattr(officers, "system_clock", lambda: NOW)
    with ExitStack() as stack:
        made = Office(database, tmp_path, stack)
        yield made
    for bench in made.benches:
        bench.journal.close()


def outcomes(result: Result) -> list[str]:
    return [row["outcome"] for row in json.loads(result.stdout)]


def test_a_freeze_reaches_all_signers_and_the_online_side_at_once(office: Office) -> None:
    result = office.say("freeze", "customer:alice")
    assert (result.exit_code, outcomes(result)) == (0, ["done", "done", "done"])
    assert [bench.service.status().frozen for bench in office.benches] == [("customer:alice",)] * 2
    office.online()
    assert office.online.frozen() == ("customer:alice",)
    again = office.say("freeze", "customer:alice")
    assert again.exit_code == 0
    assert office.online.frozen() == ("customer:alice",)


def test_a_lower_number_counts_everywhere(office: Office) -> None:
    result = office.say("policy", "lower", BELOW, "1000000")
    assert (result.exit_code, outcomes(result)) == (0, ["done", "done", "done"])
    for bundle in (*(bench.trust.present for bench in office.benches), office.online()):
        assert bundle.cap("hot", "BTC").payment_below == "1000000"
    raised = office.say("policy", "lower", BELOW, "2000000")
    assert (raised.exit_code, outcomes(raised)) == (1, ["refused"] * 3)


def test_a_bundle_is_published_waits_everywhere_and_is_vetoed_everywhere(office: Office) -> None:
    assert office.online().version == 1
    slow = office.signed(2, "olga", "felix", "sanna", veto_seconds=3600)
    assert office.run("policy", "publish", slow).exit_code == 0
    assert {bench.trust.present.version for bench in office.benches} == {2} == {office.online().version}
    draft = office.signed(3)
    result = office.run("policy", "publish", draft)
    assert (result.exit_code, outcomes(result)) == (0, ["done", "done", "done"])
    assert all("3 waits until" in row["detail"] for row in json.loads(result.stdout)[:2])
    assert {bench.trust.present.version for bench in office.benches} == {2} == {office.online().version}
    assert office.online.waiting is not None
    vetoed = office.say("policy", "veto", draft)
    assert (vetoed.exit_code, outcomes(vetoed)) == (0, ["done", "done", "done"])
    office.online()
    assert office.online.waiting is None
    assert [bench.trust.waiting for bench in office.benches] == [None, None]
    again = office.run("policy", "publish", draft)
    assert (again.exit_code, outcomes(again)) == (1, ["refused", "refused", "not told"])


def test_a_bundle_that_a_signer_refuses_is_not_published_online(office: Office) -> None:
    before = office.path.read_bytes()
    office.second.adopt(5)
    result = office.run("policy", "publish", office.signed(2))
    assert (result.exit_code, outcomes(result)) == (1, ["done", "refused", "not told"])
    assert office.path.read_bytes() == before


def test_one_who_does_not_answer_keeps_the_others_from_nothing(office: Office) -> None:
    signers = json.loads(office.settings["STRONGROOM_SIGNERS"])
    signers["first"]["socket"] += ".gone"
    office.settings["STRONGROOM_SIGNERS"] = json.dumps(signers)
    result = office.say("freeze", "all")
    assert (result.exit_code, outcomes(result)) == (3, ["not available", "done", "done"])
    assert office.second.service.status().frozen == ("all",)
    office.settings["STRONGROOM_DATABASE_URL"] = "postgresql://strongroom_worker:x@127.0.0.1:1/none"
    result = office.say("freeze", "tier:hot")
    assert (result.exit_code, outcomes(result)) == (3, ["not available", "done", "not available"])
    assert office.second.service.status().frozen == ("all", "tier:hot")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["freeze", "everything"], "scope"),
        (["policy", "lower", "cap:hot:BTC:payment_from", "1"], "target"),
        (["policy", "lower", BELOW, "0.5"], "value"),
        (["policy", "veto", "no-such-file"], "No such file"),
    ],
)
def test_what_is_no_statement_is_said_before_anybody_is_asked(
    office: Office, arguments: list[str], told: str
) -> None:
    result = office.say(*arguments)
    assert result.exit_code == 2
    assert told in result.stdout
    assert [bench.service.status().frozen for bench in office.benches] == [(), ()]


def test_a_bundle_without_its_quorum_is_handed_to_nobody(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    for bench in office.benches:
        monkeypatch.setattr(bench.desk, "deliver", asked.append)
    result = office.run("policy", "publish", office.signed(2, "olga"))
    assert result.exit_code == 1
    assert asked == []
