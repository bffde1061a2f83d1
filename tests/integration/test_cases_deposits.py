"""Cases about deposits: held before credit until a person decides, through reorgs, changed lists and crashes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from chains.btc.tx import TxOut
from custody.console.app import app
from custody.console.case import case_app
from custody.deposits import repository
from custody.deposits.lifecycle import DepositState
from custody.deposits.model import AddressRow
from custody.monitor.monitor import Options
from custody.screening import cases, verdicts
from custody.screening.cases import Case, CaseKind
from custody.screening.lifecycle import CaseEvent, CaseState
from custody.signing.btc.coins import spendable
from tests.fakes.chain import FakeChain
from tests.fakes.desk import CHAIN, KEYSET, Desk, open_desk
from tests.fakes.lists import Lists
from tests.fakes.operators import Office

START = Options(start_height=0, held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0)
UNITS = 1_234_567


@pytest.fixture
def chain() -> FakeChain:
    chain = FakeChain()
    chain.mine(3)
    return chain


@pytest.fixture
def lists(tmp_path: Path) -> Lists:
    return Lists(tmp_path)


@pytest.fixture
def desk(database: str, chain: FakeChain, lists: Lists) -> Iterator[Desk]:
    with open_desk(database, chain, options=START, screening=lists.screening) as desk:
        desk.customer("alice")
        yield desk


def found(desk: Desk, state: CaseState | None = None) -> list[Case]:
    with desk.admin.snapshot() as tx:
        return list(cases.page(tx, state=state))


def resolve(desk: Desk, event: CaseEvent) -> Case:
    """The oldest open case is decided."""
    with desk.admin.transaction() as tx:
        return cases.resolve(tx, found(desk, CaseState.OPEN)[0].id, event, "looked at it", by="officer")


def held(desk: Desk, chain: FakeChain, lists: Lists) -> AddressRow:
    """A deposit to a listed address, six blocks deep."""
    address = desk.address("alice")
    lists.write(f"{address.address},,a court's order,")
    chain.pay([TxOut(UNITS, address.script)])
    chain.mine(6)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice"), desk.alerts()) == (["held"], 0, ["deposit.held"])
    return address


def test_a_listed_deposit_is_held_and_taking_the_line_away_does_not_release_it(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    address = held(desk, chain, lists)
    [case] = found(desk)
    assert (case.address, case.findings[0].reason, case.findings[0].version) == (
        address.address, "a court's order", "2",
    )  # fmt: skip
    with desk.admin.snapshot() as tx:
        assert spendable(tx, CHAIN, KEYSET, "BTC", 6) == []
    desk.check()
    lists.write()
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["held"], 0)
    resolve(desk, CaseEvent.RELEASE)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice"), desk.alerts()) == (["credited"], UNITS, [])
    desk.check()


def test_a_released_deposit_is_credited_though_the_list_still_says_the_same(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    held(desk, chain, lists)
    resolve(desk, CaseEvent.RELEASE)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["credited"], UNITS)


def test_a_list_that_says_something_else_by_now_opens_a_new_case(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    address = held(desk, chain, lists)
    lists.write(f"{address.address},,stolen,")
    resolve(desk, CaseEvent.RELEASE)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["held"], 0)
    assert [case.findings[0].reason for case in found(desk)] == ["a court's order", "stolen"]


def test_a_refused_deposit_is_quarantined_and_a_reorg_does_not_bring_it_back(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    held(desk, chain, lists)
    resolve(desk, CaseEvent.REFUSE)
    lists.write()
    desk.catch_up()
    assert (desk.states(), desk.balance("alice"), desk.alerts()) == (["quarantined"], 0, [])
    chain.reorg(6)
    desk.catch_up()
    chain.mine(6)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["held"], 0)
    desk.check()


def test_an_open_case_outlives_a_reorg_and_is_not_opened_twice(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    held(desk, chain, lists)
    chain.reorg(6)
    desk.catch_up()
    lists.write()
    chain.mine(6)
    desk.catch_up()
    assert (desk.states(), len(found(desk))) == (["held"], 1)
    resolve(desk, CaseEvent.RELEASE)
    desk.catch_up()
    assert desk.balance("alice") == UNITS


def test_a_deposit_that_nobody_could_screen_opens_its_case_once_there_is_an_answer(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    address = desk.address("alice")
    chain.pay([TxOut(UNITS, address.script)])
    lists.path.unlink()
    chain.mine(6)
    desk.catch_up()
    assert (desk.states(), found(desk)) == (["held"], [])
    lists.write(f"{address.address},,late,")
    desk.catch_up()
    assert (desk.states(), [case.findings[0].reason for case in found(desk)]) == (["held"], ["late"])


def test_verdicts_are_recorded_with_the_version_of_the_list_whenever_they_are_others(
    desk: Desk, chain: FakeChain, lists: Lists
) -> None:
    def said(state: DepositState) -> list[tuple[str, str]]:
        with desk.admin.snapshot() as tx:
            [row] = repository.deposits(tx, state=state, limit=10)
            told = verdicts.page(tx, row.id)
        assert {(each.kind, each.subject) for each in told} == {(CaseKind.DEPOSIT, row.id)}
        return [(one["version"], one["verdict"]) for each in told for one in each.verdicts]

    address = held(desk, chain, lists)
    desk.catch_up()
    assert said(DepositState.HELD) == [("listed 2", "hit")], "asked twice, and recorded once"
    lists.write(f"{address.address},,another court's order,")
    resolve(desk, CaseEvent.RELEASE)
    desk.catch_up()
    assert said(DepositState.HELD) == [("listed 2", "hit"), ("listed 3", "hit")]
    chain.pay([TxOut(UNITS, desk.address("alice").script)])
    chain.mine(6)
    desk.catch_up()
    assert said(DepositState.CREDITED) == [("listed 3", "clear")]


def test_an_operator_lists_shows_and_decides_cases_and_must_say_why(
    desk: Desk, chain: FakeChain, lists: Lists, tmp_path: Path
) -> None:
    assert case_app in [group.typer_instance for group in app.registered_groups]
    held(desk, chain, lists)
    office = Office(desk.dsn, tmp_path)

    def run(*arguments: str) -> Result:
        return office.run("case", *arguments)

    [listed] = json.loads(run("list", "--json").stdout)
    assert (listed["kind"], listed["state"]) == ("deposit", "open")
    assert run("release", listed["id"], "--reason", "  ").exit_code == 2
    assert run("release", "no-uuid", "--reason", "x").exit_code == 2
    released = json.loads(run("release", listed["id"], "--reason", "settled", "--json").stdout)
    assert (released["state"], released["resolution"]) == ("released", "settled")
    assert run("release", listed["id"], "--reason", "again changes nothing").exit_code == 0
    assert run("refuse", listed["id"], "--reason", "other").exit_code == 1
    assert json.loads(run("list", "--json").stdout) == []
    assert [case["resolution"] for case in json.loads(run("list", "--all", "--json").stdout)] == ["settled"]
    assert "a court's order" in run("show", listed["id"]).stdout
    [said] = json.loads(run("verdicts", listed["subject"], "--json").stdout)
    assert (said["provider"], said["version"], said["verdict"]) == ("lists", "listed 2", "hit")
    desk.catch_up()
    assert desk.balance("alice") == UNITS
    with desk.admin.snapshot() as tx:
        [event] = tx.all("SELECT data FROM events WHERE type = 'case.released'")
    assert event["data"]["by"] == "otto"
    assert event["data"]["reason"] == "settled"
