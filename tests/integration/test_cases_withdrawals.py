"""Cases about withdrawals: a hit waits for a person, whatever happens to lists and workers meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from custody.errors import NotFound
from custody.lifecycle import ImpossibleTransition
from custody.screening import cases, verdicts
from custody.screening.cases import Case
from custody.screening.lifecycle import CaseEvent, CaseState
from custody.signing.build import build
from custody.withdrawals.ending import expire
from custody.withdrawals.screened import screen_again
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.lists import Lists
from tests.fakes.till import Till, open_till


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    with open_till(database, bitcoind, tmp_path) as till:
        yield till


@pytest.fixture
def lists(till: Till, tmp_path: Path) -> Lists:
    lists = Lists(tmp_path)
    till.screening = lists.screening
    return lists


def found(till: Till, state: CaseState | None = None) -> list[Case]:
    with till.admin.snapshot() as tx:
        return list(cases.page(tx, state=state))


def resolve(till: Till, case: UUID, event: CaseEvent, reason: str = "looked at it") -> Case:
    with till.admin.transaction() as tx:
        return cases.resolve(tx, case, event, reason, by="officer")


def stale(till: Till) -> None:
    """An hour passes since the last answer of screening."""
    till.execute("UPDATE withdrawals SET screened_at = screened_at - interval '1 hour'")


def decision(till: Till, withdrawal: UUID) -> dict[str, Any]:
    [row] = till.query("SELECT decision FROM withdrawals WHERE id = %s", withdrawal)
    return dict(row["decision"])


def events(till: Till, like: str) -> list[str]:
    return [row["type"] for row in till.query("SELECT type FROM events WHERE type LIKE %s ORDER BY id", like)]


def test_a_hit_opens_one_case_and_waits_until_it_is_released_whatever_the_list_says(
    till: Till, lists: Lists
) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    lists.write(f"{withdrawal.destination},,sanctioned,OFAC")
    for _ in range(3):
        till.route()
    [case] = found(till)
    assert (case.subject, case.state, case.address) == (withdrawal.id, "open", withdrawal.destination)
    assert [(each.reason, each.source, each.version) for each in case.findings] == [
        ("sanctioned", "OFAC", "2")
    ]
    waiting = till.withdrawal(withdrawal.id)
    assert (waiting.state, waiting.reason.split(":")[0]) == ("screening", "screening-case")
    assert "withdrawal.held" in till.alerts()
    lists.write()
    till.route()
    assert till.withdrawal(withdrawal.id).state == "screening", "a case needs a person"
    resolve(till, case.id, CaseEvent.RELEASE, "the court has lifted it")
    assert "withdrawal.held" not in till.alerts()
    till.route()
    assert till.withdrawal(withdrawal.id).state == "queued"
    assert events(till, "case.%") == ["case.opened", "case.released"]


def test_a_released_hit_is_clear_for_this_withdrawal_alone_and_in_newer_versions_with_the_same_words(
    till: Till, lists: Lists
) -> None:
    alice = till.customer("alice", 5_000_000)
    first = till.request(alice, 1_000_000)
    line = f"{first.destination},,sanctioned,OFAC"
    lists.write(line)
    till.route()
    [case] = found(till)
    resolve(till, case.id, CaseEvent.RELEASE)
    lists.write(line, f"{till.outside.address()},,sanctioned,OFAC")
    till.route()
    assert till.withdrawal(first.id).state == "queued"
    record = decision(till, first.id)
    assert record["facts"]["screening"] == "clear"
    [said] = record["screening"]
    assert (said["verdict"], said["version"]) == ("hit", "listed 3")
    second = till.request(alice, 1_000_000, destination=first.destination)
    till.route()
    assert till.withdrawal(second.id).state == "screening"
    assert [each.subject for each in found(till, CaseState.OPEN)] == [second.id]


def test_a_refused_case_rejects_and_gives_the_money_back(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    lists.write(f"{withdrawal.destination},,sanctioned,OFAC")
    till.route()
    [case] = found(till)
    resolve(till, case.id, CaseEvent.REFUSE)
    lists.path.unlink()  # a person's no needs no list
    till.route()
    rejected = till.withdrawal(withdrawal.id)
    assert (rejected.state, rejected.reason.split(":")[0]) == ("rejected", "destination-blocked")
    assert till.balance(alice) == 5_000_000
    assert decision(till, withdrawal.id)["facts"]["screening"] == "hit"


def test_the_same_decision_again_changes_nothing_and_another_one_is_refused(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    lists.write(f"{till.request(alice, 1_000_000).destination},,sanctioned,")
    till.route()
    [case] = found(till)
    once = resolve(till, case.id, CaseEvent.RELEASE, "first")
    assert resolve(till, case.id, CaseEvent.RELEASE, "second") == once
    with pytest.raises(ImpossibleTransition):
        resolve(till, case.id, CaseEvent.REFUSE)
    with pytest.raises(NotFound):
        resolve(till, UUID(int=0), CaseEvent.REFUSE)
    assert events(till, "case.%") == ["case.opened", "case.released"]


def test_who_waits_in_the_queue_is_screened_again_before_a_transaction_pays(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    assert till.withdrawal(withdrawal.id).state == "queued"
    lists.write(f"{withdrawal.destination},,stolen funds,")
    stale(till)
    assert till.build() is None
    [case] = found(till)
    assert till.withdrawal(withdrawal.id).reason.startswith(f"screening-case: {case.id}")
    stale(till)
    assert till.build() is None
    assert found(till) == [case]
    resolve(till, case.id, CaseEvent.RELEASE)
    assert till.build() is not None


def test_a_case_that_is_refused_while_its_withdrawal_is_queued_rejects_it(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    lists.write(f"{withdrawal.destination},,stolen funds,")
    stale(till)
    assert till.build() is None
    resolve(till, found(till)[0].id, CaseEvent.REFUSE)
    assert till.build() is None
    assert till.withdrawal(withdrawal.id).state == "rejected"
    assert till.balance(alice) == 5_000_000


@pytest.mark.parametrize("event", list(CaseEvent))
def test_a_decision_alone_pays_nothing_before_the_destination_was_screened_again(
    till: Till, lists: Lists, event: CaseEvent
) -> None:
    """A worker that was about to build must not pay what a person has just refused."""
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    lists.write(f"{withdrawal.destination},,stolen funds,")
    till.execute("UPDATE withdrawals SET screened_at = screened_at - interval '2 minutes'")
    screen_again(till.db, till.chain, till.screening)
    resolve(till, found(till)[0].id, event)
    assert build(till.db, till.site, now=int(time.time())) is None


def test_nothing_is_paid_that_was_screened_long_ago_while_the_list_is_away(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    lists.path.unlink()
    till.screening = Lists(till.directory, "other.csv").screening
    (till.directory / "other.csv").write_text("half")
    stale(till)
    assert till.build() is None
    assert till.withdrawal(withdrawal.id).reason.startswith("screening-unavailable: lists: other.csv")
    assert "screening.unavailable" in till.alerts()
    till.screening = Lists(till.directory, "again.csv").screening
    assert till.build() is not None
    assert "screening.unavailable" not in till.alerts()


def test_a_withdrawal_without_an_answer_waits_and_goes_on_when_there_is_one(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    lists.path.unlink()
    till.route()
    waiting = till.withdrawal(withdrawal.id)
    assert (waiting.state, waiting.reason.split(":")[0]) == ("screening", "screening-unavailable")
    assert "screening.unavailable" in till.alerts()
    assert found(till) == []
    lists.write()
    till.route()
    assert till.withdrawal(withdrawal.id).state == "queued"
    assert "screening.unavailable" not in till.alerts()


def test_an_order_expires_while_its_case_is_open_and_the_case_still_waits_for_a_person(
    till: Till, lists: Lists
) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    lists.write(f"{withdrawal.destination},,sanctioned,")
    till.route()
    assert expire(till.db, now=int(time.time()) + 7_200) == 1
    assert till.balance(alice) == 5_000_000
    [case] = found(till, CaseState.OPEN)
    resolve(till, case.id, CaseEvent.RELEASE)
    till.route()
    assert till.withdrawal(withdrawal.id).state == "expired"


def test_two_workers_who_find_the_same_open_one_case(till: Till, lists: Lists) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    lists.write(f"{withdrawal.destination},,sanctioned,")
    stale(till)
    for _ in range(2):
        screen_again(till.db, till.chain, till.screening)
    assert len(found(till)) == 1
    with till.admin.snapshot() as tx:
        told = [
            (each["version"], each["verdict"])
            for one in verdicts.page(tx, withdrawal.id)
            for each in one.verdicts
        ]
    assert told == [("listed 1", "clear"), ("listed 2", "hit")], "what was said before it was to be paid, too"


def test_a_crash_between_the_find_and_its_commit_leaves_nothing_and_the_next_pass_opens_the_case(
    till: Till, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    lists.write(f"{withdrawal.destination},,sanctioned,")

    class Killed(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("custody.withdrawals.screened.alerts.raise_alert", die)
        with pytest.raises(Killed):
            till.route()
    assert found(till) == []
    assert till.withdrawal(withdrawal.id).state == "requested"
    till.route()
    assert [case.subject for case in found(till)] == [withdrawal.id]


def test_a_payment_is_recorded_only_if_no_case_was_opened_since_it_was_chosen(
    till: Till, lists: Lists, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The case comes while the transaction is being built, outside of any lock."""
    alice = till.customer("alice", 5_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    lists.write(f"{withdrawal.destination},,sanctioned,")
    real = type(till.node).mempool_min_feerate

    def meanwhile(node: Any) -> Any:
        stale(till)
        screen_again(till.db, till.chain, till.screening)
        return real(node)

    monkeypatch.setattr(type(till.node), "mempool_min_feerate", meanwhile)
    assert till.build() is None
    assert till.withdrawal(withdrawal.id).state == "queued"
    assert till.query("SELECT 1 FROM transactions") == []
    assert len(found(till, CaseState.OPEN)) == 1
