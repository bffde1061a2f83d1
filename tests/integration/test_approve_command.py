"""`strongroom approve` and `strongroom approver enrol`, against a running API and real workers' steps."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from custody.approvals.counting import count, reconsider
from custody.console.app import app
from custody.console.approve import approvers
from custody.console.reviewing import NotGenuine, review
from custody.screening.ports import Elsewhere, Screening
from custody.storage.db import Database
from custody.withdrawals.routing import cool, route
from ops.devnet.process import free_port, release_port
from policies.bundle import Approver, Bundle
from policies.keys import SigningKey
from policies.passkeys import decode
from policies.rules import Group, Need, Rule
from tests.fakes.api import AUDIENCE, BTC, RunningApi, as_role, running_api
from tests.fakes.passkey import SoftPasskey
from tests.fakes.signing import House

assert approvers is not None
PASSPHRASE = "correct horse battery"
TWO = Rule(id="two", approvals=Need(group="operators", count=2), about="Two operators approve everything.")


@dataclass
class Office:
    """A bundle with approvers, an API, and the command of each of them."""

    api: RunningApi
    house: House
    folder: Path
    keys: dict[str, SigningKey]

    def publish(self, bundle: Bundle) -> None:
        self.api.bundle = bundle
        (self.folder / "bundle.json").write_bytes(self.house.signed(bundle).encode())

    @property
    def environment(self) -> dict[str, str]:
        return {
            "STRONGROOM_API_URL": self.api.url,
            "STRONGROOM_CALLER": "exchange",
            "STRONGROOM_CALLER_KEY": str(self.folder / "exchange.pem"),
            "STRONGROOM_AUDIENCE": AUDIENCE,
            "STRONGROOM_BUNDLE_PATH": str(self.folder / "bundle.json"),
            "STRONGROOM_TRUST_ROOT_PATH": str(self.folder / "root.json"),
        }

    def run(self, *arguments: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), env=self.environment, input=typed)

    def approve(self, *arguments: str, by: str = "ada", typed: str | None = None) -> Result:
        key = ["--key", str(self.folder / f"{by}.pem")]
        return self.run("approve", *arguments, "--approver", by, *key, typed=typed)

    def request(self, **changes: Any) -> str:
        """A withdrawal that waits for approval."""
        found = self.api.client().withdraw(self.api.order(**changes))
        self.route()
        return str(found["id"])

    def route(self) -> None:
        now, bundle = int(time.time()), self.api.bundle
        with Database(as_role(self.api.superuser_dsn, "strongroom_worker"), application="worker") as db:
            reconsider(db, bundle, now=now)
            route(db, bundle, Screening([Elsewhere("tests")]), now=now)
            count(db, bundle, now=now)
            cool(db)

    def state(self, withdrawal: str) -> str:
        return str(self.api.client().withdrawal(withdrawal)["state"])


@pytest.fixture
def office(database: str, tmp_path: Path) -> Iterator[Office]:
    keys = {name: SigningKey.generate() for name in ("ada", "ben", "cem")}
    house = House(now=int(time.time()))

    def extend(bundle: Bundle) -> Bundle:
        policy = msgspec.structs.replace(
            bundle.policy,
            rules=(*bundle.policy.rules, TWO),
            groups=(Group(id="operators", roles=("operator",)), Group(id="risk", people=("cem",))),
        )
        people = tuple(
            Approver(
                id=name,
                key=key.public_hex,
                organisation="house",
                roles=("operator",),
                not_after=int(time.time()) + 86_400,
            )
            for name, key in keys.items()
        )
        return msgspec.structs.replace(bundle, policy=policy, approvers=people)

    with capture_logs(), running_api(database, extend=extend) as api:
        found = Office(api, house, tmp_path, keys)
        (tmp_path / "root.json").write_bytes(msgspec.json.encode(house.root))
        found.publish(api.bundle)
        api.keys["exchange"].save(tmp_path / "exchange.pem")
        for name, key in keys.items():
            key.save(tmp_path / f"{name}.pem")
        api.client().create_customer("alice")
        api.fund("alice", BTC)
        yield found


def as_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_two_people_approve_after_they_have_read_what_it_does(office: Office) -> None:
    withdrawal = office.request()
    [waiting] = as_json(office.run("approve", "--json"))
    assert (waiting["id"], waiting["genuine"]) == (withdrawal, "yes")
    assert waiting["does"] == "pay 0.01000000 BTC"
    assert waiting["lacking"] == "0 of 2 of operators"
    first = office.approve(withdrawal, typed="approve\n")
    assert first.exit_code == 0, first.output
    for told in (
        "0.01000000 BTC on bitcoin-regtest (1000000 base units)",
        "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080: one key (P2WPKH)",
        "signed by exchange of",
        "at most 0.00050000 BTC",
        "the hot wallet",
        "asks 2 of operators",
    ):
        assert told in first.stderr, told
    office.route()
    assert office.state(withdrawal) == "awaiting_approval"
    assert as_json(office.approve(withdrawal, "--yes", "--json", by="ben"))["withdrawal"] == withdrawal
    office.route()
    assert office.state(withdrawal) == "queued"
    assert as_json(office.run("approve", "--json")) == []
    again = office.approve(withdrawal, "--yes")
    assert (again.exit_code, "does not wait" in again.stderr) == (2, True)


def test_who_does_not_type_the_word_signs_nothing(office: Office) -> None:
    withdrawal = office.request()
    for typed in ("\n", "yes\n", "reject\n"):
        left = office.approve(withdrawal, typed=typed)
        assert (left.exit_code, "nothing was signed" in left.stderr) == (1, True)
    assert office.api.query("SELECT count(*) FROM approvals") == [(0,)]


def test_a_rejection_with_its_reason_ends_it(office: Office) -> None:
    withdrawal = office.request()
    assert (
        office.approve(withdrawal, "--reject", "--reason", "unknown to us", typed="reject\n").exit_code == 0
    )
    office.route()
    shown = office.api.client().withdrawal(withdrawal)
    assert (shown["state"], shown["reason"]) == ("rejected", "approval-rejected: by ada (unknown to us)")


def test_a_key_that_is_not_the_approvers_signs_nothing_that_is_handed_in(office: Office) -> None:
    withdrawal = office.request()
    office.keys["ada"], key = office.keys["ben"], office.folder / "ada.pem"
    key.unlink()
    office.keys["ben"].save(key)
    refused = office.approve(withdrawal, "--yes")
    assert refused.exit_code == 1
    assert office.api.query("SELECT count(*) FROM approvals") == [(0,)]


def test_who_is_in_no_group_or_has_given_the_order_is_told_so(office: Office) -> None:
    withdrawal = office.request()
    stranger = office.approve(withdrawal, "--yes", "--group", "risk", by="cem")
    assert (stranger.exit_code, "counts for operators" in stranger.stderr) == (2, True)
    bundle = office.api.bundle
    twin = msgspec.structs.replace(bundle.approvers[0], key=office.api.keys["exchange"].public_hex)
    office.publish(msgspec.structs.replace(bundle, version=2, approvers=(twin, *bundle.approvers[1:])))
    office.route()
    refused = office.approve(withdrawal, "--yes")
    assert (refused.exit_code, "has given this order" in refused.stderr) == (2, True)


def not_genuine(question: dict[str, Any], bundle: Bundle, now: int) -> bool:
    try:
        review(question, bundle, now=now)
    except NotGenuine:
        return True
    return False


def test_fault_44_a_destination_or_amount_that_was_edited_is_shown_as_not_genuine(office: Office) -> None:
    withdrawal = office.request()
    forgeries: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
        (
            "destination",
            lambda q: q["order"].update(destination="bcrt1qcr8te4kr609gcawutmrza0j4xv80jy8zeqchgx"),
        ),
        ("amount", lambda q: q["order"].update(amount="1")),
        ("signature", lambda q: q.update(order_signature="A" * 86 + "==")),
        ("intent's amount", lambda q: q["intent"].update(amount="2000000")),
        ("intent's destination", lambda q: q["intent"].update(destination="elsewhere")),
        ("intent's key-set", lambda q: q["intent"].update(keyset="other")),
        ("intent's tier", lambda q: q["intent"].update(tier="cold")),
        ("intent's version", lambda q: q["intent"].update(policy_version=7)),
        ("digest", lambda q: q.update(intent_digest="00" * 32)),
        ("id", lambda q: q.update(withdrawal="0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e")),
        ("order", lambda q: q.update(order=None)),
        ("intent", lambda q: q.pop("intent")),
    ]
    [question] = office.api.client().items("/v1/approvals")
    bundle, now = office.api.bundle, int(time.time())
    assert review(question, bundle, now=now).order.id == withdrawal
    for what, forge in forgeries:
        forged = json.loads(json.dumps(question))
        forge(forged)
        assert not_genuine(forged, bundle, now), what
    with pytest.raises(NotGenuine, match="ended"):
        review(question, bundle, now=now + 7_200)


def test_who_has_an_old_bundle_is_told_to_get_the_newest(office: Office) -> None:
    office.request()
    [question] = office.api.client().items("/v1/approvals")
    other = msgspec.structs.replace(office.api.bundle, version=office.api.bundle.version + 1)
    with pytest.raises(NotGenuine, match="get the newest bundle"):
        review(question, other, now=int(time.time()))


def test_a_bundle_without_its_quorum_is_not_used(office: Office) -> None:
    withdrawal = office.request()
    raw = json.loads((office.folder / "bundle.json").read_text())
    (office.folder / "bundle.json").write_text(json.dumps({**raw, "signatures": raw["signatures"][:1]}))
    assert office.approve(withdrawal, "--yes").exit_code == 1
    assert office.run("approve").exit_code == 1


def test_a_new_key_is_encrypted_and_its_record_is_what_a_bundle_takes(office: Office) -> None:
    key, word = office.folder / "dan.pem", office.folder / "passphrase"
    word.write_text(PASSPHRASE + "\n")

    def enrol(*more: str) -> Result:
        with word.open("rb") as file:
            return office.run(
                "approver", "enrol", "dan", "--organisation", "house", "--role", "operator", "--role", "risk",
                "--not-after", "2100-01-01", "--key", str(key), "--passphrase-fd", str(file.fileno()), *more,
            )  # fmt: skip

    record = msgspec.convert(as_json(enrol()), Approver)
    assert (record.id, record.roles, record.not_after) == ("dan", ("operator", "risk"), 4_102_444_800)
    assert key.stat().st_mode & 0o777 == 0o600
    assert "ENCRYPTED" in key.read_text()
    assert SigningKey.load(key, lambda: PASSPHRASE).public_hex == record.key
    assert msgspec.convert(as_json(enrol()), Approver) == record
    word.write_text("not the right one\n")
    assert enrol().exit_code == 2
    bundle = office.api.bundle
    office.publish(msgspec.structs.replace(bundle, version=2, approvers=(*bundle.approvers, record)))
    withdrawal = office.request()
    word.write_text(PASSPHRASE + "\n")
    with word.open("rb") as file:
        given = office.approve(withdrawal, "--yes", "--passphrase-fd", str(file.fileno()), by="dan")
    assert given.exit_code == 0, given.output


@pytest.mark.parametrize(
    "wrong", [["--key", "x.pem", "--passkey"], [], ["--key", "x.pem", "--role", "no spaces"]]
)
def test_a_record_that_no_bundle_would_take_makes_no_key(office: Office, wrong: list[str]) -> None:
    common = [
        "approver",
        "enrol",
        "dan",
        "--organisation",
        "house",
        "--role",
        "risk",
        "--not-after",
        "2100-01-01",
    ]
    assert office.run(*common, *wrong).exit_code == 2
    assert not Path("x.pem").exists()


def process(office: Office, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """The command in a process of its own, and the page that it serves."""
    running = subprocess.Popen(
        [sys.executable, "-m", "ops.cli", *arguments],
        env={**os.environ, **office.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if found := re.search(r"http://localhost:\S+", line):
            return running, found[0]
    raise AssertionError(running.communicate())


def post(url: str, content: dict[str, str]) -> httpx.Response:
    """What the page's script sends."""
    origin = "/".join(url.split("/")[:3])
    with httpx.Client(trust_env=False) as client:
        local = url.replace("localhost", "127.0.0.1")
        headers = {"Host": origin.removeprefix("http://"), "Origin": origin}
        return client.post(local, json=content, headers=headers)


def challenge_of(url: str) -> bytes:
    origin = "/".join(url.split("/")[:3])
    with httpx.Client(trust_env=False) as client:
        page = client.get(
            url.replace("localhost", "127.0.0.1"), headers={"Host": origin.removeprefix("http://")}
        )
    found = re.search(r'"challenge": "([^"]+)"', page.text)
    assert found is not None, page.text
    return decode(found[1])


@pytest.fixture
def port() -> Iterator[int]:
    found = free_port()
    yield found
    release_port(found)


def test_somebody_enrols_a_passkey_and_approves_with_it(office: Office, port: int) -> None:
    soft = SoftPasskey(origin=f"http://localhost:{port}")
    running, url = process(
        office, "approver", "enrol", "ada", "--organisation", "house", "--role", "operator", "--not-after",
        "2100-01-01", "--passkey", "--port", str(port),
    )  # fmt: skip
    assert post(url, soft.create(challenge_of(url))).status_code == 200
    out, _ = running.communicate(timeout=30)
    record = msgspec.convert(json.loads(out), Approver)
    assert (running.returncode, record.key) == (0, soft.entry())
    bundle = office.api.bundle
    office.publish(msgspec.structs.replace(bundle, version=2, approvers=(record, *bundle.approvers[1:])))
    withdrawal = office.request()
    running, url = process(office, "approve", withdrawal, "--approver", "ada", "--passkey")
    signed = soft.get(challenge_of(url))
    answer = {name: getattr(signed, name) for name in signed.__struct_fields__}
    assert post(url, answer).status_code == 200
    running.communicate(timeout=30)
    assert running.returncode == 0
    assert office.approve(withdrawal, "--yes", by="ben").exit_code == 0
    office.route()
    assert office.state(withdrawal) == "queued"
