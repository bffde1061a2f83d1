"""`strongroom policy explain ID`: a withdrawal's record, read with the workers' role, says why it was decided so."""

from __future__ import annotations

import json
import time
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner, Result

from custody.console.app import app
from custody.console.policy import policy_app
from custody.ids import new_id
from custody.officers.repository import note_adoption, note_bundle
from policies.bundle import SignedBundle
from policies.overlays import lowered
from policies.statements import Lowering
from tests.fakes.console import worker_environment
from tests.fakes.till import Till


class Explained:
    """Runs `strongroom policy explain` with a worker's settings, by the bundle of a till."""

    def __init__(self, database: str, directory: Path, till: Till) -> None:
        assert policy_app in [group.typer_instance for group in app.registered_groups]
        self.till, self.path = till, directory / "bundle.json"
        self.settings = worker_environment(database, self.path, till.world.root, directory)

    def __call__(self, *arguments: str, version: int = 1) -> Result:
        bundle = msgspec.structs.replace(self.till.bundle, version=version)
        self.path.write_bytes(SignedBundle(bundle=bundle, signatures=()).encode())
        return CliRunner().invoke(app, ["policy", "explain", *arguments], env=self.settings)


@pytest.fixture
def explained(database: str, tmp_path: Path, till: Till) -> Explained:
    return Explained(database, tmp_path, till)


def test_a_withdrawal_that_was_let_through_is_explained_by_its_record(
    till: Till, explained: Explained
) -> None:
    alice = till.customer("alice", 30_000_000)
    till.request(alice, 4_000_000)
    till.route()
    last = till.request(alice, 1_000_000)
    till.route()
    done = explained(str(last.id))
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Paid from hot, approved by nobody:\n")
    assert (
        f"BTC-customer-window: 0.04 BTC of 2 BTC of {alice} are used, 1.96 BTC are left; 0.01 BTC fits"
        in done.stdout
    )
    told = json.loads(explained(str(last.id), "--json").stdout)
    [row] = till.query("SELECT decision FROM withdrawals WHERE id = %s", last.id)
    assert {name: row["decision"][name] for name in told["decision"]} == told["decision"]
    assert told["recorded"] is None


def test_a_record_that_says_otherwise_is_told(till: Till, explained: Explained) -> None:
    alice = till.customer("alice", 30_000_000)
    paid = till.request(alice, 1_000_000)
    till.route()
    with till.admin.transaction() as tx:
        tx.execute(
            "UPDATE withdrawals SET decision = jsonb_set(decision, '{tier}', '\"cold\"') WHERE id = %s",
            [paid.id],
        )
    done = explained(str(paid.id))
    assert done.stdout.startswith("The record says cold, and not the same as this: ")
    assert json.loads(explained(str(paid.id), "--json").stdout)["recorded"]["tier"] == "cold"


def test_one_that_was_denied_says_which_rule_and_how_it_would_be_under_a_draft(
    till: Till, explained: Explained, tmp_path: Path
) -> None:
    alice = till.customer("alice", 1_100_000_000)
    denied = till.request(alice, 1_000_000_000)
    till.route()
    done = explained(str(denied.id))
    assert done.stdout.startswith("Denied:\n  limit: ")
    assert "10 BTC is too much" in done.stdout
    draft = tmp_path / "policy.yaml"
    draft.write_text("rules: [{id: all, when: {operation: withdrawal, amount_below: 20 BTC}, route: hot}]\n")
    done = explained(str(denied.id), "--file", str(draft))
    assert done.stdout.startswith("Paid from hot, approved by nobody:\n"), done.output


def test_what_was_not_decided_or_decided_under_another_bundle_is_refused(
    till: Till, explained: Explained
) -> None:
    alice = till.customer("alice", 3_000_000)
    waiting = till.request(alice, 1_000_000)
    for unknown in (str(waiting.id), str(new_id())):
        done = explained(unknown)
        assert done.exit_code == 2
        assert "there is none, or nothing was decided about it yet" in done.stderr
    till.route()
    done = explained(str(waiting.id), version=2)
    assert done.exit_code == 2
    assert "it was decided under version 1 of the bundle, which was never in force here" in done.stderr


def test_it_finds_the_bundle_of_the_record_by_itself_as_an_officer_had_lowered_it(
    till: Till, explained: Explained
) -> None:
    alice = till.customer("alice", 3_000_000)
    raw = till.house.signed(till.bundle).encode()
    with till.admin.transaction() as tx:
        note_bundle(tx, till.bundle, raw, seen_at=1)
        note_adoption(tx, raw, adopted_at=1)
    target = "rule:BTC-customer-window:at_most"
    lowering = Lowering(
        v=1,
        issued_at=int(time.time()),
        target=target,
        value="900000",
        reason="odd",
        officer="olga",
        bundle_version=1,
    )
    till.bundle = lowered(till.bundle, [lowering])
    stopped = till.request(alice, 1_000_000)
    till.route()
    # The file has a later bundle meanwhile, in which nothing is lowered.
    done = explained(str(stopped.id), version=2)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("Denied:\n  limit: "), done.stdout
    assert "0 BTC of 0.009 BTC of alice are used" in done.stdout
    assert json.loads(explained(str(stopped.id), "--json", version=2).stdout)["recorded"] is None
