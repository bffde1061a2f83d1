"""Travel-rule data: attached by callers, sealed at rest, waited for by the policy, and delivered once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from custody.errors import NotFound, OrderMismatch
from custody.lifecycle import ImpossibleTransition
from custody.storage.sealing import Keys
from custody.travelrule import service
from custody.travelrule.ivms101 import TravelRuleData, read
from custody.travelrule.ports import ExchangeRefused, ExchangeUnavailable, FileOutbox, Transfer
from custody.travelrule.repository import Attached
from custody.travelrule.service import DifferentData
from custody.withdrawals import service as withdrawals
from custody.withdrawals.ending import expire
from custody.withdrawals.model import Withdrawal
from ops.devnet.bitcoind import Bitcoind
from policies.rules import Operation, Policy, Rule, When
from tests.fakes.till import Till, open_till
from tests.support.ivms import travel_rule

SECRET = "Kaltenbrunner"
KEYS = Keys({"first": b"\1" * 32})
RULE = Rule(
    id="travel-rule",
    when=When(operations=(Operation.WITHDRAWAL,), assets=("BTC",), amount_from="1000000"),
    checks=("travel-rule",),
)


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    with open_till(database, bitcoind, tmp_path) as till:
        present = till.bundle.policy
        till.adopt(2, policy=Policy(rules=(*present.rules, RULE)))
        till.sealing_keys = KEYS
        yield till


@pytest.fixture
def alice(till: Till) -> str:
    return till.customer("alice", 5_000_000)


def data(withdrawal: Withdrawal, **more: Any) -> TravelRuleData:
    return read(travel_rule(withdrawal.destination, family=SECRET, **more))


def attach(till: Till, withdrawal: UUID, found: TravelRuleData, caller: str = "exchange") -> Attached:
    with till.api.transaction() as tx:
        return service.attach(tx, KEYS, withdrawal, found, till.bundle.caller(caller))


def stored(till: Till, withdrawal: UUID) -> dict[str, Any]:
    [row] = till.query("SELECT * FROM travel_rule WHERE withdrawal_id = %s", withdrawal)
    return row


def now_due(till: Till) -> None:
    """What was to wait for its next attempt or look has waited."""
    till.execute("UPDATE travel_rule SET next_attempt_at = now()")
    till.execute("UPDATE withdrawals SET not_before = now()")


def test_a_withdrawal_that_needs_data_waits_for_it_and_goes_on_once_it_is_there(
    till: Till, alice: str
) -> None:
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    waiting = till.withdrawal(withdrawal.id)
    assert (waiting.state, waiting.reason.split(":")[0]) == ("screening", "travel-rule")
    now_due(till)
    till.route()
    told = till.query("SELECT data FROM events WHERE type = 'withdrawal.screening' ORDER BY id")
    assert [row["data"]["reason"].split(":")[0] for row in told] == ["", "travel-rule"], "once"
    attach(till, withdrawal.id, data(withdrawal))
    now_due(till)
    till.route()
    assert till.withdrawal(withdrawal.id).state == "queued"
    [row] = till.query("SELECT decision FROM withdrawals")
    assert row["decision"]["facts"]["travel_rule"] is True


def test_what_the_rule_does_not_ask_goes_on_without(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 999_999)
    till.route()
    assert till.withdrawal(withdrawal.id).state == "queued"


def test_a_withdrawal_that_never_gets_its_data_expires_with_its_order(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 1_000_000)
    till.route()
    assert expire(till.db, now=int(time.time()) + 7_200) == 1
    ended = till.withdrawal(withdrawal.id)
    assert ended.state == "expired"
    assert "travel-rule" in ended.reason
    assert till.balance(alice) == 5_000_000


def test_the_same_data_again_changes_nothing_and_other_data_is_refused(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 1_000_000)
    once = attach(till, withdrawal.id, data(withdrawal))
    before = stored(till, withdrawal.id)
    assert attach(till, withdrawal.id, data(withdrawal)) == once
    with pytest.raises(DifferentData) as caught:
        attach(till, withdrawal.id, data(withdrawal, to_vasp="Another"))
    assert SECRET not in str(caught.value)
    assert stored(till, withdrawal.id) == before


def test_the_same_data_is_known_again_after_the_keys_were_rotated(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 1_000_000)
    once = attach(till, withdrawal.id, data(withdrawal))
    newer = Keys({"first": b"\1" * 32, "second": b"\2" * 32})
    with till.api.transaction() as tx:
        assert service.attach(tx, newer, withdrawal.id, data(withdrawal), till.caller) == once


def test_data_is_attached_to_a_withdrawal_of_ones_own_about_its_destination_while_it_lives(
    till: Till, alice: str
) -> None:
    withdrawal = till.request(alice, 1_000_000)
    with pytest.raises(NotFound):
        attach(till, uuid4(), data(withdrawal))
    with pytest.raises(OrderMismatch, match="accountNumber"):
        attach(till, withdrawal.id, read(travel_rule(till.outside.address())))
    with till.api.transaction() as tx:
        withdrawals.cancel(tx, withdrawal.id, till.caller)
    with pytest.raises(ImpossibleTransition):
        attach(till, withdrawal.id, data(withdrawal))


def test_personal_data_is_nowhere_in_the_database_in_clear(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 1_000_000)
    attach(till, withdrawal.id, data(withdrawal))
    till.route()
    for table in till.query(
        "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    ):
        text = till.query(f"SELECT coalesce(string_agg(t::text, ' '), '') AS text FROM {table['name']} t")[0][
            "text"
        ]
        assert SECRET not in text, table["name"]
        assert SECRET.encode().hex() not in text, table["name"]


def test_data_that_was_changed_by_sql_counts_as_none_and_raises_an_alert(till: Till, alice: str) -> None:
    withdrawal, other = till.request(alice, 1_000_000), till.request(alice, 1_000_000)
    attach(till, withdrawal.id, data(withdrawal))
    attach(till, other.id, data(other))
    till.execute(
        "UPDATE travel_rule t SET data ="
        " (SELECT data FROM travel_rule o WHERE o.withdrawal_id <> t.withdrawal_id)"
    )
    till.route()
    assert till.states() == ["screening", "screening"]
    assert "travel_rule.tampered" in till.alerts()


# ------------------------------------------------------------------------------------------------------- delivery


class Moody:
    """An exchange that fails as the test says, and remembers what it got."""

    def __init__(self) -> None:
        self.mood: Exception | None = None
        self.got: list[Transfer] = []

    def deliver(self, transfer: Transfer) -> str:
        if self.mood is not None:
            raise self.mood
        self.got.append(transfer)
        return f"ref-{transfer.id}"


@pytest.fixture
def queued(till: Till, alice: str) -> Withdrawal:
    withdrawal = till.request(alice, 1_000_000)
    attach(till, withdrawal.id, data(withdrawal))
    return withdrawal


def test_data_is_delivered_once_when_its_withdrawal_is_to_be_paid_and_not_before(
    till: Till, queued: Withdrawal
) -> None:
    exchange = Moody()
    assert service.deliver(till.db, exchange, KEYS) == 0, "nothing is decided yet"
    till.route()
    assert service.deliver(till.db, exchange, KEYS) == 1
    assert service.deliver(till.db, exchange, KEYS) == 0
    [transfer] = exchange.got
    assert (transfer.units, transfer.destination) == ("1000000", queued.destination)
    assert transfer.data == data(queued)
    row = stored(till, queued.id)
    assert (row["state"], row["reference"]) == ("delivered", f"ref-{queued.id}")
    with pytest.raises(Exception, match="delivered once"):
        till.execute("UPDATE travel_rule SET state = 'pending', delivered_at = NULL")


def test_data_for_somebodys_own_wallet_is_kept_and_told_to_nobody(till: Till, alice: str) -> None:
    withdrawal = till.request(alice, 1_000_000)
    assert attach(till, withdrawal.id, data(withdrawal, to_vasp=None)).state == "kept"
    till.route()
    assert service.deliver(till.db, Moody(), KEYS) == 0


def test_a_delivery_that_keeps_failing_is_tried_again_with_an_alert_that_ends_with_it(
    till: Till, queued: Withdrawal
) -> None:
    till.route()
    exchange = Moody()
    exchange.mood = ExchangeUnavailable("away")
    for attempt in range(1, 4):
        assert service.deliver(till.db, exchange, KEYS) == 0
        assert service.deliver(till.db, exchange, KEYS) == 0, "it waits between attempts"
        assert stored(till, queued.id)["attempts"] == attempt
        assert ("travel_rule.undelivered" in till.alerts()) is (attempt == 3)
        now_due(till)
    exchange.mood = None
    assert service.deliver(till.db, exchange, KEYS) == 1
    assert "travel_rule.undelivered" not in till.alerts()


def test_a_refusal_ends_it_with_an_alert(till: Till, queued: Withdrawal) -> None:
    till.route()
    exchange = Moody()
    exchange.mood = ExchangeRefused("unknown service")
    assert service.deliver(till.db, exchange, KEYS) == 0
    now_due(till)
    exchange.mood = None
    assert service.deliver(till.db, exchange, KEYS) == 0
    assert stored(till, queued.id)["state"] == "refused"
    assert "travel_rule.refused" in till.alerts()


def test_a_crash_between_delivery_and_record_delivers_the_same_again(
    till: Till, queued: Withdrawal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    till.route()
    (tmp_path / "outbox").mkdir()
    outbox = FileOutbox(tmp_path / "outbox", lambda: KEYS)

    class Killed(Exception):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("custody.travelrule.service.repository.delivered", die)
        with pytest.raises(Killed):
            service.deliver(till.db, outbox, KEYS)
    assert stored(till, queued.id)["state"] == "pending"
    assert service.deliver(till.db, outbox, KEYS) == 1
    assert [path.name for path in outbox.directory.iterdir()] == [f"{queued.id}.sealed"]
    assert outbox.read(str(queued.id)).data == data(queued)


def test_data_that_was_moved_to_another_row_is_never_delivered(till: Till, alice: str) -> None:
    first, second = till.request(alice, 1_000_000), till.request(alice, 1_000_000)
    for each in (first, second):
        attach(till, each.id, data(each))
    till.route()
    till.execute(
        "UPDATE travel_rule SET data = (SELECT data FROM travel_rule WHERE withdrawal_id = %s)", first.id
    )
    exchange = Moody()
    assert service.deliver(till.db, exchange, KEYS) == 1
    assert [transfer.id for transfer in exchange.got] == [str(first.id)]
    assert stored(till, second.id)["state"] == "refused"
    assert {"travel_rule.refused", "travel_rule.tampered"} <= till.alerts()
