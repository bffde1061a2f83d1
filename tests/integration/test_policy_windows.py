"""Windows of the policy outlive a change of its rules; recorded decisions can be decided again."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from chains.errors import InvalidValue
from custody.console.policy import policy_app
from custody.console.policy_proofs import prove_app
from custody.errors import Conflict
from custody.officers.repository import note_adoption, note_bundle
from custody.storage.db import Tx
from custody.withdrawals import history as histories
from custody.withdrawals import service, windows
from custody.withdrawals.ending import settle_internal
from custody.withdrawals.history import history
from policies import decision as decisions
from policies import records
from policies.backtest import Backtest, Change
from policies.bundle import Bundle
from policies.deciding import decide
from policies.decision import LimitKey
from policies.rules import Limit, Operation, Policy, Rule, When
from tests.fakes.console import worker_environment
from tests.fakes.signing import DAY
from tests.fakes.till import Till

assert prove_app in [group.typer_instance for group in policy_app.registered_groups]
WITHDRAWALS = When(operations=(Operation.WITHDRAWAL,))


def rows(till: Till) -> list[tuple[str, str, int, bool]]:
    found = till.query("SELECT rule, bucket, amount, settled_at IS NULL AS unpaid FROM policy_counts")
    return sorted((row["rule"], row["bucket"], int(row["amount"]), row["unpaid"]) for row in found)


def rebuild(till: Till) -> bool:
    return windows.rebuild(till.db, till.bundle, now=int(time.time()))


def renamed(policy: Policy, old: str, new: str) -> Policy:
    rules = tuple(msgspec.structs.replace(r, id=new) if r.id == old else r for r in policy.rules)
    return msgspec.structs.replace(policy, rules=rules)


def limited(name: str, seconds: int, at_most: int, **changes: Any) -> Rule:
    fields: dict[str, Any] = {"window_seconds": seconds, "per": "customer", "measure": "payments"}
    return Rule(id=name, when=WITHDRAWALS, limit=Limit(**(fields | changes), at_most=str(at_most)))


def with_rules(policy: Policy, *rules: Rule) -> Policy:
    return msgspec.structs.replace(policy, rules=(*policy.rules, *rules))


def test_a_limit_that_got_another_name_forgets_nothing(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 2)))
    for _ in range(2):
        till.request(alice, 1_000_000)
    till.route()
    before = rows(till)
    till.adopt(3, policy=renamed(till.bundle.policy, "few", "seldom"))
    refused = till.request(alice, 1_000_000)
    till.route()
    assert till.withdrawal(refused.id).state == "rejected"
    assert "(rule seldom)" in till.withdrawal(refused.id).reason
    assert sorted((rule.replace("seldom", "few"), *rest) for rule, *rest in rows(till)) == before


def test_a_new_limit_knows_what_was_let_through_before_it(till: Till) -> None:
    alice, bob = till.customer("alice", 3_000_000), till.customer("bob", 3_000_000)
    for _ in range(2):
        till.request(alice, 1_000_000)
    till.request(bob, 1_000_000, expires_at=int(time.time()) + 3000)
    till.route()
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 2)))
    third, second = till.request(alice, 500_000), till.request(bob, 500_000)
    till.route()
    assert till.withdrawal(third.id).state == "rejected"
    assert "(rule few)" in till.withdrawal(third.id).reason
    assert till.withdrawal(second.id).state == "queued"


def test_the_same_rules_again_change_nothing(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    till.request(alice, 1_000_000)
    till.route()
    before = till.contents()
    assert not rebuild(till)
    till.adopt(2, policy=renamed(till.bundle.policy, "BTC-customer-window", "BTC-customer-window"))
    assert not rebuild(till)
    assert till.contents() == before
    till.adopt(3, policy=renamed(till.bundle.policy, "BTC-hot-window", "hot-window"))
    assert rebuild(till)
    changed = rows(till)
    assert not rebuild(till)
    assert rows(till) == changed


def test_who_has_an_older_bundle_than_one_that_has_decided_decides_nothing(till: Till) -> None:
    alice = till.customer("alice", 9_000_000)
    older = till.bundle
    till.adopt(2)
    rebuild(till)
    waiting = till.request(alice, 1_000_000)
    before = till.contents()
    with pytest.raises(Conflict, match="version 2 of the bundle has decided already"):
        windows.rebuild(till.db, older, now=int(time.time()))
    with till.db.transaction() as tx, pytest.raises(Conflict):
        windows.Spent(tx, older, now=int(time.time()))
    assert till.contents() == before
    till.route()
    assert till.withdrawal(waiting.id).state == "queued"


def test_another_amount_of_a_limit_counts_nothing_anew(till: Till) -> None:
    loosened = [
        msgspec.structs.replace(rule, limit=msgspec.structs.replace(rule.limit, at_most="7"))
        if rule.limit is not None
        else rule
        for rule in till.bundle.policy.rules
    ]
    changed = msgspec.structs.replace(till.bundle.policy, rules=tuple(loosened))
    assert windows.rules_hash(changed) == windows.rules_hash(till.bundle.policy)
    assert windows.rules_hash(renamed(till.bundle.policy, "BTC-hot-window", "x")) != windows.rules_hash(
        till.bundle.policy
    )


def test_what_ended_does_not_count_and_what_was_settled_counts_from_then_on(till: Till) -> None:
    alice, bob = till.customer("alice", 9_000_000), till.customer("bob", 1_000)
    cancelled = till.request(alice, 1_000_000)
    till.request(alice, 2_000_000, destination=till.address(bob))
    till.request(alice, 3_000_000)
    till.route()
    with till.api.transaction() as tx:
        service.cancel(tx, cancelled.id, till.caller)
    assert settle_internal(till.db, till.bundle) == 1
    settled_at = "SELECT settled_at FROM policy_counts WHERE settled_at IS NOT NULL"
    before = (rows(till), till.query(settled_at))
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 9)))
    assert rebuild(till)
    assert [row for row in rows(till) if row[0] != "few"] == before[0]
    assert [row for row in rows(till) if row[0] == "few"] == [
        ("few", alice, 1, False),
        ("few", alice, 1, True),
    ]
    assert {row["settled_at"] for row in till.query(settled_at)} == {row["settled_at"] for row in before[1]}


def test_what_was_settled_before_the_longest_window_is_not_counted_anew(till: Till) -> None:
    alice, bob = till.customer("alice", 9_000_000), till.customer("bob", 1_000)
    till.request(alice, 2_000_000, destination=till.address(bob))
    till.route()
    assert settle_internal(till.db, till.bundle) == 1
    till.adopt(2, policy=renamed(till.bundle.policy, "BTC-customer-window", "daily"))
    assert windows.rebuild(till.db, till.bundle, now=int(time.time()) + DAY + 60)
    assert rows(till) == []


def test_after_a_crash_in_between_the_rows_are_those_of_the_old_rules_and_nothing_is_decided_by_them(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = till.customer("alice", 9_000_000)
    till.request(alice, 1_000_000)
    till.route()
    before = rows(till)
    till.adopt(2, policy=renamed(till.bundle.policy, "BTC-customer-window", "daily"))
    count_anew = windows._count_anew

    def dies(tx: Tx, bundle: Bundle, *, now: int) -> None:
        count_anew(tx, bundle, now=now)
        raise KeyboardInterrupt

    waiting = till.request(alice, 1_000_000)
    with monkeypatch.context() as patched:
        patched.setattr(windows, "_count_anew", dies)
        with pytest.raises(KeyboardInterrupt):
            rebuild(till)
    assert rows(till) == before
    assert till.withdrawal(waiting.id).state == "requested"
    with till.db.transaction() as tx, pytest.raises(Conflict):
        windows.Spent(tx, till.bundle, now=int(time.time()))
    till.route()
    assert till.withdrawal(waiting.id).state == "queued"
    assert {rule for rule, *_ in rows(till)} == {"BTC-hot-window", "daily"}


def test_what_ends_while_rows_are_counted_anew_ends_in_the_new_rows_too(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = till.customer("alice", 9_000_000)
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    till.adopt(2, policy=renamed(till.bundle.policy, "BTC-customer-window", "daily"))
    count_anew = windows._count_anew
    cancelling = threading.Thread(target=lambda: cancel(till, withdrawal.id))

    def slowly(tx: Tx, bundle: Bundle, *, now: int) -> None:
        count_anew(tx, bundle, now=now)
        cancelling.start()
        waits = (
            "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND relation = 'policy_counts'::regclass"
        )
        deadline = time.monotonic() + 20
        while till.query(waits)[0]["n"] == 0 and time.monotonic() < deadline:
            pass

    monkeypatch.setattr(windows, "_count_anew", slowly)
    assert rebuild(till)
    cancelling.join()
    assert till.withdrawal(withdrawal.id).state == "cancelled"
    assert rows(till) == []


def cancel(till: Till, withdrawal_id: Any) -> None:
    with till.api.transaction() as tx:
        service.cancel(tx, withdrawal_id, till.caller)


def test_every_recorded_decision_is_decided_again_byte_for_byte(till: Till) -> None:
    alice, bob = till.customer("alice", 50_000_000), till.customer("bob", 1_000)
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 4)))
    till.request(alice, 3_000_000, destination=till.address(bob))
    for units in (10_000_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000):
        till.request(alice, units)
    till.route()
    found = till.query("SELECT decision FROM withdrawals ORDER BY id")
    outcomes, denied = set(), set()
    for row in found:
        record = records.read(row["decision"])
        decision = records.replay(record, till.bundle)
        assert records.same(record, decision)
        assert record.decided["reasons"] == decisions.describe(decision)["reasons"]
        outcomes.add(record.outcome)
        denied |= {reason.code for reason in decision.reasons if record.outcome == "deny"}
    assert len(found) == 7
    assert outcomes == {"deny", "hot", "ledger"}
    assert denied == {"limit", "tier-not-available"}


def decided_again(till: Till, bundle: Bundle) -> tuple[Backtest, list[Change]]:
    run = Backtest(bundle.policy, lambda facts, spent: decide(bundle, facts, spent))
    with till.db.transaction() as tx:
        return run, list(run.run(history(tx)))


def test_the_databases_history_under_the_same_policy_changes_nothing_and_under_another_what_it_says(
    till: Till,
) -> None:
    alice, bob = till.customer("alice", 50_000_000), till.customer("bob", 1_000)
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 3)))
    till.request(alice, 1_000_000, destination=till.address(bob))
    cancelled = till.request(alice, 2_000_000)
    till.route()
    assert settle_internal(till.db, till.bundle) == 1
    cancel(till, cancelled.id)
    for units in (3_000_000, 4_000_000, 5_000_000, 10_000_000):
        till.request(alice, units)
    till.route()
    assert sorted(till.states()) == ["cancelled", "queued", "queued", "rejected", "rejected", "settled"]
    run, changes = decided_again(till, till.bundle)
    assert changes == []
    assert dict(run.tally.becomes) == {"deny": 2, "hot": 3, "ledger": 1}

    till.adopt(3, policy=renamed(till.bundle.policy, "few", "seldom"))
    _, changes = decided_again(till, till.bundle)
    assert changes == []

    tighter = with_rules(till.bundle.policy, limited("two", 3600, 2))
    _, [change] = decided_again(till, msgspec.structs.replace(till.bundle, policy=tighter))
    assert (change.was, change.becomes) == ("hot", "deny")
    assert change.facts.units == 4_000_000

    refusing = with_rules(till.bundle.policy, Rule(id="closed", when=WITHDRAWALS, deny="closed"))
    run, changes = decided_again(till, msgspec.structs.replace(till.bundle, policy=refusing))
    assert dict(run.tally.moves) == {"hot -> deny": 3, "ledger -> deny": 1}


def test_a_withdrawal_that_was_decided_twice_is_in_the_history_once(till: Till) -> None:
    alice = till.customer("alice", 50_000_000)
    till.request(alice, 1_000_000)
    till.route()
    till.adopt(2, policy=with_rules(till.bundle.policy, limited("few", 3600, 3)))
    till.request(alice, 2_000_000)
    till.route()
    with till.db.transaction() as tx:
        found = [each for each in history(tx) if isinstance(each, records.Record)]
    assert {each.bundle_version for each in found} == {2}
    assert sorted(each.facts.units or 0 for each in found) == [1_000_000, 2_000_000]
    assert decided_again(till, till.bundle)[1] == []


def test_a_history_goes_on_where_a_page_ends(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = till.customer("alice", 50_000_000)
    for _ in range(5):
        till.request(alice, 1_000_000)
    till.route()
    with till.db.transaction() as tx:
        whole = list(history(tx))
        monkeypatch.setattr(histories, "_BATCH", 2)
        assert list(history(tx)) == whole
        assert list(history(tx, since=int(time.time()) + 60)) == []
    assert len(whole) == 5


def test_the_console_replays_the_database_by_the_bundles_that_were_in_force_and_tries_a_draft_on_it(
    till: Till, database: str, tmp_path: Path
) -> None:
    alice = till.customer("alice", 50_000_000)
    settings = worker_environment(database, till.bundle_path, till.house.root, tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(policy_app, [*arguments], env=settings)
        return done.exit_code, done.output

    for version, more in ((1, 0), (2, 9)):
        if more:
            till.adopt(version, policy=with_rules(till.bundle.policy, limited("few", 3600, more)))
        raw = till.house.signed(till.bundle).encode()
        with till.admin.transaction() as tx:
            note_bundle(tx, till.bundle, raw, seen_at=1)
            note_adoption(tx, raw, adopted_at=1)
        cancelled = till.request(alice, 1_000_000)
        till.route()
        cancel(till, cancelled.id)
    code, text = run("replay")
    assert (code, text) == (0, "2 records decided again, 0 differ\n")
    code, text = run("replay", "--bundle", str(till.bundle_path))
    assert (code, text) == (0, "1 records decided again, 0 differ; 1 of other versions\n")
    code, text = run("backtest", "--unchanged")
    assert (code, text) == (0, "2 decisions, 0 would change\n")
    draft = tmp_path / "draft.yaml"
    draft.write_text("rules:\n  - {id: closed, when: {operation: withdrawal}, deny: closed}\n")
    code, text = run("backtest", "--file", str(draft), "--unchanged")
    assert code == 1
    assert text.endswith("2 decisions, 2 would change: 2 hot -> deny\n")
    with till.admin.transaction() as tx:
        tx.execute("UPDATE withdrawals SET decision = jsonb_set(decision, '{tier}', '\"cold\"')")
    code, text = run("replay")
    assert code == 1
    assert "recorded cold, again hot" in text


def test_a_record_that_was_altered_or_belongs_to_another_bundle_is_not_confirmed(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    till.request(alice, 1_000_000)
    till.route()
    [row] = till.query("SELECT decision FROM withdrawals")
    stored = row["decision"]
    altered = records.read({**stored, "delay_seconds": 1})
    assert not records.same(altered, records.replay(altered, till.bundle))
    more = records.read({**stored, "spent": [[r, b, "10000000000"] for r, b, _ in stored["spent"]]})
    assert not records.same(more, records.replay(more, till.bundle))
    assert set(more.spent) == {LimitKey("BTC-hot-window", ""), LimitKey("BTC-customer-window", alice)}
    with pytest.raises(InvalidValue, match="version 1"):
        records.replay(records.read(stored), till.house.bundle(2))
    with pytest.raises(InvalidValue):
        records.read({"bundle_version": 1})
