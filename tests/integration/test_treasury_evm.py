"""The treasury on an EVM chain: a gas payer that runs low is topped up out of hot, and hot out of the warm Safe."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from chains.eth.network import NativeMode
from custody.approvals import refills as approvals
from custody.treasury import fees, observing, repository, service
from custody.treasury.building import carry_out
from custody.treasury.model import Refill
from ops.devnet.anvil import Anvil
from policies.intent import Approval
from policies.keys import sign_approval
from policies.rules import Holding, Policy
from tests.fakes.evm_desk import ETHER, GWEI
from tests.fakes.evm_signing import EVM_KEYSET
from tests.fakes.safe_till import GAS_PAYER, VAULT, SafeOutside, SafeTill
from tests.fakes.signing import ROLE
from tests.fakes.teller import opened


@pytest.fixture
def till(database: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeTill]:
    with Anvil(tmp_path_factory.mktemp("treasury-evm")) as node:
        outside = SafeOutside(node, NativeMode.TRACE)
        with opened(SafeTill(database, outside, tmp_path)) as till:
            till.fund()
            till.fund_safe(ETH=40 * ETHER)
            yield till


def test_a_gas_payer_that_runs_low_is_topped_up_and_gas_for_payments_stays_with_the_hot_key(
    till: SafeTill,
) -> None:
    held = till.in_wallet(GAS_PAYER)
    [payer] = till.bundle.gas_payers
    larger = msgspec.structs.replace(payer, holding_cap=str(10 * held + 10))
    bundle = msgspec.structs.replace(till.bundle, gas_payers=(larger,))
    with till.db.transaction() as tx:
        fees.observe(tx, till.chain, GWEI)
    with till.db.snapshot() as tx:
        [seen] = observing.payers(tx, bundle)
        found = {state.asset: state for state in observing.states(tx, bundle)}
    assert (seen.wallet, seen.held_units) == (GAS_PAYER, held)
    hot, safe = found["ETH"].tiers["hot"], found["ETH"].tiers["warm"]
    assert (hot.wallet, hot.present_units) == (EVM_KEYSET, till.in_wallet(EVM_KEYSET))
    assert (safe.wallet, safe.present_units) == (VAULT, till.in_wallet(VAULT))
    assert hot.reserve_units > 0 == safe.reserve_units
    assert service.propose_due(till.db, bundle, now=int(time.time())) == 1
    assert service.propose_due(till.db, bundle, now=int(time.time())) == 0, "again changes nothing"
    with till.db.snapshot() as tx:
        [refill] = repository.page(tx, limit=9)
    assert (refill.source, refill.target, refill.why) == (EVM_KEYSET, GAS_PAYER, "gas")
    assert refill.units == min(9 * held + 10, hot.free_units)
    assert refill.destination == larger.address


def test_hot_that_is_low_is_filled_from_the_safe_and_the_gas_payer_from_hot_exact_to_the_wei(
    database: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Proposed by the plan, approved for the Safe, signed by two owners, sent by the gas payer, which is filled."""
    with Anvil(tmp_path_factory.mktemp("treasury-eth")) as node:
        outside = SafeOutside(node, NativeMode.TRACE)
        with opened(SafeTill(database, outside, tmp_path)) as till:
            till.fund(units=3 * ETHER)
            outside.send("ETH", till.gas.record.address, ETHER // 5)
            outside.send("ETH", till.safe, 40 * ETHER)
            till.finalize()
            till.enforce()
            filled(till)


def filled(till: SafeTill) -> None:
    holds = Holding(tiers=("hot",), asset="ETH", at_most=str(20 * ETHER), refill_below=30)
    policy: Policy = msgspec.structs.replace(till.bundle.policy, holdings=(holds,))
    bundle = msgspec.structs.replace(till.bundle, policy=policy)
    now = int(time.time())
    with till.db.transaction() as tx:
        fees.observe(tx, till.chain, GWEI)
    assert service.propose_due(till.db, bundle, now=now) == 2
    with till.db.snapshot() as tx:
        gas, up = repository.page(tx, limit=9)
        hot = next(each for each in observing.states(tx, bundle) if each.asset == "ETH").tiers["hot"]
    assert (gas.target, gas.units, gas.state) == (GAS_PAYER, ETHER * 4 // 5, "approved")
    assert (up.source, up.target, up.why, up.state) == (VAULT, EVM_KEYSET, "low", "proposed")
    assert hot.level_units == 18 * ETHER, "nine tenths of what it may hold, beside the gas of its keys"
    approved(till, up, now)
    assert sum(carry_out(till.db, site, now=now) for site in (till.site, till.safe_site)) == 2
    assert len(till.sign()) == 1
    till.broadcast()
    assert len(till.collect()) == 1
    till.send_execution()
    till.settle()
    with till.db.snapshot() as tx:
        assert [each.state for each in repository.page(tx, limit=9)] == ["confirmed", "confirmed"]
    assert till.in_wallet(VAULT) == 40 * ETHER - up.units == till.has(till.safe, "ETH")
    for wallet, address in (
        (EVM_KEYSET, till.world.record.address),
        (GAS_PAYER, till.gas.record.address),
    ):
        assert till.in_wallet(wallet) == till.has(address, "ETH")
    assert ETHER * 99 // 100 < till.in_wallet(GAS_PAYER) < ETHER, "full, but for the gas of one execution"
    assert service.propose_due(till.db, bundle, now=now) == 0, "again changes nothing"
    till.check()


def approved(till: SafeTill, refill: Refill, now: int) -> None:
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
