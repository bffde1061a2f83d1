"""Outside payees, and whoever wrote their contracts: a Safe's nonces go one after the other, so what owners have signed
and nobody can carry out would stop all that follows; and what fails only when it is mined would burn gas for ever."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import checksummed
from custody.signing.build import build
from custody.signing.executions import AGAIN_SECONDS
from ops.devnet.anvil import Anvil
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER
from tests.fakes.safe_till import LARGE, SafeOutside, SafeTill
from tests.fakes.teller import opened

GREEDY = checksummed(bytes.fromhex("c0ffee") + bytes(16) + b"\x01")
"""Takes 570,000 gas whenever it is paid, and then says that all is well."""
GREEDY_CODE = "0x6207ffff515000"
"""PUSH3 0x07ffff MLOAD POP STOP: memory is paid for by the square."""
TRIES = 3


@pytest.fixture
def till(database: str, tmp_path: Path) -> Iterator[SafeTill]:
    with Anvil(tmp_path / "node") as node, opened(SafeTill(database, SafeOutside(node), tmp_path)) as till:
        till.customer("alice", ETH=20 * ETHER, PAUX=20 * ETHER)
        till.fund_safe(ETH=40 * ETHER, PAUX=20 * ETHER)
        yield till


def _approved(till: SafeTill, units: int, **changes: Any) -> Any:
    desk = Desk(till)  # type: ignore[arg-type]
    withdrawal = desk.request(units, **changes)
    desk.approve(withdrawal, "ada")
    till.route()
    return withdrawal


def test_a_payee_who_takes_more_gas_than_an_execution_may_have_is_not_asked_for_and_others_are_paid(
    till: SafeTill,
) -> None:
    till.outside.node.rpc("anvil_setCode", GREEDY, GREEDY_CODE)
    greedy = _approved(till, LARGE["ETH"], destination=GREEDY)
    other = _approved(till, LARGE["ETH"])
    transaction = till.build_safe()
    assert till.withdrawal(greedy.id).reason.startswith("gas-cap")
    assert transaction is not None
    assert till.withdrawal(other.id).state == "signing"
    assert till.collect() == [transaction]
    till.send_execution()
    till.settle()
    assert till.withdrawal(other.id).state == "settled"


def test_what_fails_each_time_that_it_is_mined_is_tried_ever_later(till: SafeTill) -> None:
    """The payee sees our transaction wait, and closes the door before it: each try burns the gas payer's money."""
    _approved(till, LARGE["PAUX"], asset="PAUX")
    transaction = till.build_safe()
    assert transaction is not None
    assert till.collect() == [transaction]
    waits = []
    for _ in range(TRIES):
        till.try_again_now()
        execution = till.build_execution()
        assert execution is not None
        assert till.sign_execution() == [execution]
        till.outside.paux.do(till.outside.payer, "setPaused", True)
        till.broadcast_execution()
        till.mine()
        till.track()
        till.settle()
        assert till.transaction(execution).state == "dead"
        till.outside.paux.do(till.outside.payer, "setPaused", False)
        [row] = till.query(
            "SELECT extract(epoch FROM rebroadcast_at - now())::int AS left FROM transactions WHERE id = %s",
            transaction,
        )
        waits.append(row["left"])
    for earlier, later in pairwise(waits):
        assert later > earlier + AGAIN_SECONDS // 2, waits


REVERTS_CODE = "0x60006000fd"
"""PUSH1 0 PUSH1 0 REVERT: takes nothing from anybody."""
TURNS = checksummed(bytes.fromhex("bad0") + bytes(17) + b"\x01")


def _later(till: SafeTill, seconds: int) -> None:
    """Time passes for all that waits."""
    till.execute("UPDATE alerts SET at = at - make_interval(secs => %s)", seconds)
    till.execute("UPDATE transactions SET created_at = created_at - make_interval(secs => %s)", seconds)
    till.try_again_now()


def _waiting(till: SafeTill) -> list[tuple[str, str]]:
    rows = till.query(
        "SELECT severity, message FROM alerts WHERE type = 'execution.waits' AND resolved_at IS NULL"
    )
    return [(row["severity"], row["message"]) for row in rows]


def _jammed(till: SafeTill) -> tuple[Any, Any]:
    """A payment that its owners have signed, and whose payee takes nothing from then on; the next one waits behind."""
    stuck = _approved(till, LARGE["ETH"], destination=TURNS)
    transaction = till.build_safe()
    assert transaction is not None
    assert till.collect() == [transaction]
    till.outside.node.rpc("anvil_setCode", TURNS, REVERTS_CODE)
    return stuck, transaction


def test_a_payee_that_turns_after_owners_signed_holds_up_a_warm_safe_for_an_hour_and_no_longer(
    till: SafeTill,
) -> None:
    stuck, transaction = _jammed(till)
    after = _approved(till, LARGE["ETH"])
    behind = till.build_safe()
    assert behind is not None
    assert behind in till.collect()
    assert till.build_execution() is None
    assert [severity for severity, _ in _waiting(till)] == ["warning"]
    _later(till, 1800)
    assert till.build_execution() is None
    assert till.transaction(transaction).state == "broadcast", "not yet"
    _later(till, 1801)
    assert till.build_execution() is None
    assert till.transaction(transaction).state == "contested"
    assert till.withdrawal(stuck.id).state not in ("failed", "settled"), "what was signed may still be sent"
    assert _waiting(till) == []
    [cancellation] = till.query("SELECT id FROM transactions WHERE kind = 'cancellation'")
    assert till.collect() == [cancellation["id"]], "daemons sign it as any other"
    till.try_again_now()
    till.send_execution()
    till.mine()
    till.track()
    assert till.withdrawal(stuck.id).state not in ("failed", "settled"), "a conflict counts once it is final"
    till.settle()
    assert till.withdrawal(stuck.id).state == "failed"
    till.try_again_now()
    till.send_execution()
    till.settle()
    assert till.withdrawal(after.id).state == "settled"
    assert till.in_wallet("eth-warm") == 40 * ETHER - LARGE["ETH"]


def test_a_payee_that_turns_and_turns_back_is_given_up_after_a_few_tries(till: SafeTill) -> None:
    """He passes when it is tried on the node, and fails when it is mined: no alert is old."""
    _, transaction = _jammed(till)
    for _ in range(TRIES):
        till.outside.node.rpc("anvil_setCode", TURNS, "0x")
        till.try_again_now()
        execution = till.build_execution()
        assert execution is not None
        assert till.sign_execution() == [execution]
        till.outside.node.rpc("anvil_setCode", TURNS, REVERTS_CODE)
        till.broadcast_execution()
        till.settle()
        assert till.transaction(execution).state == "dead"
    till.outside.node.rpc("anvil_setCode", TURNS, "0x")
    _later(till, 3601)
    assert till.build_execution() is None
    assert till.transaction(transaction).state == "contested"


def test_an_hour_without_gas_is_no_hour_of_a_payee_who_takes_nothing(till: SafeTill) -> None:
    _, transaction = _jammed(till)
    till.outside.node.rpc("anvil_setCode", TURNS, "0x")
    balance = till.outside.node.rpc("eth_getBalance", till.gas.record.address, "latest")
    till.outside.node.rpc("anvil_setBalance", till.gas.record.address, "0x0")
    till.finalize()
    assert till.build_execution() is None
    _later(till, 3601)
    assert till.build_execution() is None
    [(severity, message)] = _waiting(till)
    assert severity == "critical"
    assert "strongroom cold" not in message
    till.outside.node.rpc("anvil_setBalance", till.gas.record.address, balance)
    till.outside.node.rpc("anvil_setCode", TURNS, REVERTS_CODE)
    till.finalize()
    till.try_again_now()
    assert till.build_execution() is None
    assert [each for each, _ in _waiting(till)] == ["warning"]
    assert till.transaction(transaction).state == "broadcast"


def test_what_holders_of_a_cold_safe_have_signed_is_cancelled_by_people_who_are_told_how(
    till: SafeTill,
) -> None:
    _, transaction = _jammed(till)
    vault = msgspec.structs.replace(till.bundle.wallet("eth-warm"), tier="cold")
    bundle = msgspec.structs.replace(till.bundle, vaults=(vault,))
    assert build(till.db, replace(till.payer_site, bundle=bundle), now=0) is None
    _later(till, 3601)
    for _ in range(2):
        till.try_again_now()
        assert build(till.db, replace(till.payer_site, bundle=bundle), now=0) is None
        [(severity, message)] = _waiting(till)
        [session] = till.query("SELECT id FROM signing_sessions WHERE transaction_id = %s", transaction)
        assert severity == "critical"
        assert f"strongroom cold cancel {session['id']}" in message
        assert till.transaction(transaction).state == "broadcast"
