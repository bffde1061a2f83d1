"""The verifier and a Safe: what its nonces were used for on the verifier's own node, computed again from the orders."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from chains.eth.address import checksummed
from custody.approvals import refills as approvals
from custody.ledger import bookings
from custody.ledger.service import post
from custody.treasury import service
from custody.treasury.building import carry_out
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why
from ops.devnet.anvil import Anvil
from policies.intent import Approval
from policies.keys import sign_approval
from signers.service import SignerService
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_KEYSET
from tests.fakes.forger import Forger
from tests.fakes.safe_till import GAS_PAYER, LARGE, VAULT, SafeOutside, SafeTill
from tests.fakes.signing import ROLE
from tests.fakes.verifying import Verifying, verifying

USDX = 10**6


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeOutside]:
    with Anvil(tmp_path_factory.mktemp("verifier-safe")) as node:
        yield SafeOutside(node)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[SafeTill]:
    """Not checked in the end: some of its books are cooked by then."""
    opened = SafeTill(database, outside, tmp_path)
    opened.fund()
    opened.customer("alice", ETH=30 * ETHER, USDX=9_000 * USDX)
    opened.fund_safe(ETH=40 * ETHER, USDX=20_000 * USDX)
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: SafeTill) -> Iterator[Verifying]:
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as opened:
        till.verifier = opened.verifier.verdicts  # type: ignore[assignment]
        yield opened


def approved(till: SafeTill, units: int = LARGE["ETH"], **changes: Any) -> Any:
    desk = Desk(till)  # type: ignore[arg-type]
    withdrawal = desk.request(units, **changes)
    desk.approve(withdrawal, "ada")
    till.route()
    return withdrawal


def executed(till: SafeTill) -> None:
    till.collect()
    till.send_execution()
    till.mine()
    till.settle()


def paid(till: SafeTill, verifier: Verifying, units: int = LARGE["ETH"], **changes: Any) -> Any:
    verifier.follow()
    withdrawal = approved(till, units, **changes)
    assert till.build_safe() is not None, till.withdrawal(withdrawal.id).reason
    executed(till)
    assert till.withdrawal(withdrawal.id).state == "settled"
    return withdrawal


def settled_by_sql(till: SafeTill, withdrawal: Any, n: int = 1) -> None:
    settle = bookings.settle_withdrawal(
        withdrawal.id,
        n,
        customer="alice",
        asset="ETH",
        wallet=VAULT,
        units=withdrawal.units,
        fee_units=withdrawal.fee_units,
    )
    with till.admin.transaction() as tx:
        post(tx, [settle])


def refilled(till: SafeTill, source: str, target: str, units: int) -> Refill:
    """A refill that was carried out; one out of the Safe has its approval."""
    now = int(time.time())
    proposal = Proposal(source, target, "ETH", units, Why.NEED, "the test wants it")
    with till.db.transaction() as tx:
        refill = service.ask(tx, till.bundle, proposal, by="otto", now=now)
    if source == VAULT:
        approval = Approval(
            v=1,
            intent=refill.intent.digest_hex(),
            decision="approve",
            approver="ada",
            group=ROLE,
            policy_version=refill.policy_version,
            expires_at=now + 3_600,
        )
        with till.api.transaction() as tx:
            signed = sign_approval(approval, till.house.approvers["ada"])
            approvals.give(tx, refill.id, signed, till.bundle, now=now)
        approvals.count(till.db, till.bundle, now=now)
    site = till.safe_site if source == VAULT else till.site
    assert carry_out(till.db, site, now=now) == 1
    if source == VAULT:
        executed(till)
    else:
        till.sign()
        till.broadcast()
        till.mine()
        till.settle()
    return refill


def clean(verifier: Verifying) -> None:
    found = verifier.audit()
    assert (found.findings, found.unknowns) == ((), ())


def test_payments_refills_and_their_executions_are_no_findings(till: SafeTill, verifier: Verifying) -> None:
    paid(till, verifier)
    paid(till, verifier, LARGE["USDX"], asset="USDX")
    refilled(till, VAULT, EVM_KEYSET, 10 * ETHER)
    refilled(till, EVM_KEYSET, GAS_PAYER, ETHER // 4)
    clean(verifier)
    clean(verifier)
    assert verifier.verdict(till.order("alice", ETHER)).verdict.outcome == "covered"


def test_a_verifier_that_comes_later_seeks_where_the_nonce_was_used(
    till: SafeTill, verifier: Verifying
) -> None:
    paid(till, verifier)
    till.mine(60)
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as late:
        late.audit()  # what it has to seek is watched from now on
        clean(late)


def test_a_settlement_that_no_nonce_stands_behind(till: SafeTill, verifier: Verifying) -> None:
    real = paid(till, verifier)
    clean(verifier)
    forger = Forger(till.admin)
    for destination, kinds in (
        (checksummed(bytes(range(20))), {"payment-not-on-chain"}),
        (real.destination, {"payment-not-on-chain", "payment-repeated"}),
    ):
        fake = approved(till, destination=destination)
        settled_by_sql(till, fake)
        forger.run(
            "UPDATE withdrawals SET state = 'settled', settlement = 'chain', transaction_id ="
            " (SELECT transaction_id FROM withdrawals WHERE id = %s) WHERE id = %s",
            real.id,
            fake.id,
        )
        assert verifier.kinds() == kinds
    assert "payment-repeated" in verifier.refusal(till.order("alice", ETHER))


def test_an_unused_nonce_is_no_payment(till: SafeTill, verifier: Verifying) -> None:
    verifier.follow()
    withdrawal = approved(till)
    assert till.build_safe() is not None
    till.collect()
    settled_by_sql(till, withdrawal)
    assert verifier.kinds() == {"payment-not-on-chain"}


def test_money_given_back_after_the_safe_has_paid_is_found_whatever_the_rows_say(
    till: SafeTill, verifier: Verifying
) -> None:
    """By the nonce alone: no row and no log tells of the payment any more."""
    withdrawal = paid(till, verifier)
    clean(verifier)
    with till.admin.transaction() as tx:
        post(tx, [bookings.unsettle_withdrawal(withdrawal.id, 1), bookings.release_withdrawal(withdrawal.id)])
    Forger(till.admin).run("UPDATE withdrawals SET transaction_id = NULL WHERE id = %s", withdrawal.id)
    verifier.state.write("DELETE FROM payments")
    assert verifier.kinds() == {"payment-not-debited"}


@pytest.mark.parametrize("source", [VAULT, EVM_KEYSET])
def test_a_refill_that_was_invented(till: SafeTill, verifier: Verifying, source: str) -> None:
    target = EVM_KEYSET if source == VAULT else VAULT
    refill = uuid4()
    with till.admin.transaction() as tx:
        post(tx, [bookings.book_refill(refill, 1, asset="ETH", source=source, target=target, units=ETHER)])
    destination = till.world.record.address if target == EVM_KEYSET else till.safe
    Forger(till.admin).run(
        "INSERT INTO refills (id, chain, asset, source, tier, target, destination, units, why, about, proposed_by,"
        " state, decision, policy_version) VALUES (%s, %s, 'ETH', %s, 'hot', %s, %s, %s, 'asked', '', 'otto',"
        " 'confirmed', '{}', 1)",
        refill,
        till.chain,
        source,
        target,
        destination,
        ETHER,
    )
    assert verifier.kinds() == {"move-unproven"}
