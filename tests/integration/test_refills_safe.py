"""Refills of an EVM chain: out of a Safe with people's approval, into it, and to the gas payer; exact to the wei.

Database, node, monitor, guards and journals are real.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from chains.eth.network import NativeMode
from custody.approvals import refills as approvals
from custody.treasury import repository, service
from custody.treasury.building import carry_out
from custody.treasury.model import Refill
from custody.treasury.planner import Proposal, Why
from ops.devnet.anvil import Anvil
from policies.intent import Approval
from policies.keys import sign_approval
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_KEYSET
from tests.fakes.safe_till import GAS_PAYER, VAULT, SafeOutside, SafeTill
from tests.fakes.signing import ROLE
from tests.fakes.teller import opened

USDX = 10**6


@pytest.fixture(scope="module", params=[NativeMode.TRACE, NativeMode.BALANCE], ids=["trace", "balance"])
def outside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SafeOutside]:
    with Anvil(tmp_path_factory.mktemp("refills-safe")) as node:
        yield SafeOutside(node, request.param)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[SafeTill]:
    with opened(SafeTill(database, outside, tmp_path)) as till:
        till.fund()
        till.fund_safe(ETH=40 * ETHER, USDX=20_000 * USDX)
        yield till


def asked(till: SafeTill, source: str, target: str, asset: str, units: int, *, approve: bool) -> Refill:
    """A refill that an operator wants, approved if somebody has to."""
    proposal = Proposal(source, target, asset, units, Why.NEED, "the test wants it")
    now = int(time.time())
    with till.db.transaction() as tx:
        refill = service.ask(tx, till.bundle, proposal, by="otto", now=now)
    if approve:
        approval = Approval(
            v=1,
            intent=refill.intent.digest_hex(),
            decision="approve",
            approver="ada",
            group=ROLE,
            policy_version=refill.policy_version,
            expires_at=now + 3_600,
        )
        signed = sign_approval(approval, till.house.approvers["ada"])
        with till.api.transaction() as tx:
            approvals.give(tx, refill.id, signed, till.bundle, now=now)
        approvals.count(till.db, till.bundle, now=now)
    return refill


def state(till: SafeTill, refill: Refill) -> str:
    with till.admin.snapshot() as tx:
        found = repository.find(tx, refill.id)
    assert found is not None
    return f"{found.state} {found.reason}".strip()


def carried(till: SafeTill, refill: Refill) -> UUID:
    """The one transaction that carries a refill out."""
    now = int(time.time())
    assert sum(carry_out(till.db, site, now=now) for site in (till.site, till.safe_site)) == 1, state(
        till, refill
    )
    [row] = till.query("SELECT transaction_id FROM refills WHERE id = %s", refill.id)
    found: UUID = row["transaction_id"]
    return found


@pytest.mark.parametrize(("asset", "units"), [("ETH", 10 * ETHER + 1), ("USDX", 5_000 * USDX)])
def test_money_comes_up_from_the_safe_to_the_hot_key(till: SafeTill, asset: str, units: int) -> None:
    refill = asked(till, VAULT, EVM_KEYSET, asset, units, approve=True)
    hot, warm = till.in_wallet(EVM_KEYSET, asset), till.in_wallet(VAULT, asset)
    transaction = carried(till, refill)
    assert till.collect() == [transaction]
    till.send_execution()
    till.mine()
    till.check()
    till.track()
    till.check()
    till.settle()
    assert state(till, refill).startswith("confirmed")
    assert till.in_wallet(EVM_KEYSET, asset) == hot + units
    assert till.in_wallet(VAULT, asset) == warm - units == till.has(till.safe, asset)
    assert till.has(till.world.record.address, asset) == till.in_wallet(EVM_KEYSET, asset)
    assert carry_out(till.db, till.safe_site, now=int(time.time())) == 0


def test_without_the_approval_that_the_policy_asks_for_nothing_leaves_the_safe(till: SafeTill) -> None:
    refill = asked(till, VAULT, EVM_KEYSET, "ETH", ETHER, approve=False)
    assert carry_out(till.db, till.safe_site, now=int(time.time())) == 0
    assert state(till, refill).startswith("proposed")


@pytest.mark.parametrize("target", [VAULT, GAS_PAYER])
def test_money_goes_from_the_hot_key_to_the_safe_and_to_the_gas_payer(till: SafeTill, target: str) -> None:
    units = ETHER // 4
    before = till.in_wallet(target)
    refill = asked(till, EVM_KEYSET, target, "ETH", units, approve=False)
    transaction = carried(till, refill)
    assert till.sign() == [transaction]
    till.broadcast()
    till.mine()
    till.check()
    till.settle()
    assert state(till, refill).startswith("confirmed")
    assert till.in_wallet(target) == before + units
    till.check()


def test_fault_8_a_refill_whose_final_block_a_reorg_removes_is_taken_back_and_carried_out_again(
    till: SafeTill,
) -> None:
    refill = asked(till, VAULT, EVM_KEYSET, "ETH", 10 * ETHER, approve=True)
    transaction = carried(till, refill)
    till.collect()
    till.send_execution()
    till.settle()
    assert till.in_wallet(VAULT) == 30 * ETHER
    removed = till.reorg(2 * till.anvil.slots_in_an_epoch + 2)
    till.track()
    assert till.transaction(transaction).state == "broadcast"
    assert till.in_wallet(VAULT) == 40 * ETHER
    for raw in removed:
        till.anvil.send_raw(raw)
    till.settle()
    assert state(till, refill).startswith("confirmed")
    assert till.in_wallet(VAULT) == 30 * ETHER


def test_a_refill_leaves_what_payments_wait_for(till: SafeTill) -> None:
    refill = asked(till, VAULT, EVM_KEYSET, "ETH", 40 * ETHER + 1, approve=True)
    assert carry_out(till.db, till.safe_site, now=int(time.time())) == 0
    assert "funds:" in state(till, refill)


def test_nothing_goes_to_a_safe_that_is_not_what_was_agreed_and_somebody_is_told(till: SafeTill) -> None:
    """One-of-one 'multisigs' 2025: threshold and owners are read back from the chain before funding."""
    slot = "0x" + (4).to_bytes(32, "big").hex()
    refill = asked(till, EVM_KEYSET, VAULT, "ETH", ETHER, approve=False)
    honest = till.anvil.rpc("eth_getStorageAt", till.safe, slot, "latest")
    assert int(honest, 16) == 2, "the threshold"
    till.anvil.rpc("anvil_setStorageAt", till.safe, slot, "0x" + (1).to_bytes(32, "big").hex())
    till.mine()
    assert carry_out(till.db, till.site, now=int(time.time())) == 0
    assert "its threshold is 1, not 2" in state(till, refill)
    till.enforce()
    assert "safe.differs" in till.alerts()
    till.anvil.rpc("anvil_setStorageAt", till.safe, slot, honest)
    till.mine()
    till.execute("UPDATE refills SET not_before = now()")
    assert carry_out(till.db, till.site, now=int(time.time())) == 1
