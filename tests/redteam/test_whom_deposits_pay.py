"""Somebody wants all deposits to come: he owns everything online, or enough holders' keys, and the factory's admin is a
real cold Safe. Holders' machines and the gas payer refuse by themselves; what the chain does all the same is seen 48
hours before, and stops what we would send after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg.errors import CheckViolation

from chains.eth.address import checksummed, raw_address
from chains.eth.factory import TreasuryCall
from chains.eth.network import NativeMode
from chains.eth.safe import SafeMessage, SafeTx, join_signatures
from chains.eth.safe_files import SafeRequest, decode_signature, encode_request
from custody.reconcile.factories import ADMIN_DIFFERS, CHANGED, PROPOSED, UNDER_WAY
from custody.signing.errors import NotOurs
from custody.signing.evm.administer import NotChanged
from custody.sweeps.evm import DIVERTED
from ops.devnet.anvil import Anvil
from signers.airgap.evm_review import SafeReview, review_request
from signers.airgap.registered import (
    Registered,
    RegisteredFactory,
    RegisteredNetwork,
    RegisteredOwner,
    RegisteredSafe,
    RegisteredTreasury,
)
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.factory_till import COLD, HOLDERS, FactoryTill
from tests.fakes.safe_till import SafeOutside
from tests.fakes.teller import opened
from tests.support.evm import mined, succeeded


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SafeOutside]:
    with Anvil(tmp_path_factory.mktemp("deposits")) as node:
        yield SafeOutside(node, NativeMode.TRACE)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[FactoryTill]:
    with opened(FactoryTill(database, outside, tmp_path)) as till:
        till.fund_safe()
        yield till


@pytest.fixture
def thief(outside: SafeOutside) -> str:
    return checksummed(raw_address(outside.node.accounts()[8]))


def registered(till: FactoryTill) -> Registered:
    """What a holder has registered from the bundle."""
    chain_id = till.anvil.chain_id
    owners = tuple(
        RegisteredOwner(id=name, organisation=f"org-{name}", address=keys.record.address)
        for name, keys in till.holders.items()
    )
    safe = RegisteredSafe(
        id=COLD,
        chain=EVM_CHAIN,
        chain_id=chain_id,
        address=till.cold_safe,
        owners=owners,
        threshold=3,
        tier="cold",
    )
    factory = RegisteredFactory(
        chain_id=chain_id, address=till.world.factory, admin=till.cold_safe, keyset=till.world.record.id
    )
    hot = RegisteredTreasury(
        chain_id=chain_id, address=till.world.record.address, keyset=till.world.record.id
    )
    network = RegisteredNetwork(chain=EVM_CHAIN, chain_id=chain_id, symbol="ETH", decimals=18)
    return Registered(safes=(safe,), networks=(network,), factories=(factory,), treasuries=(hot,))


def looked_at(till: FactoryTill, message: SafeMessage) -> SafeReview:
    """What a holder's machine says of a request that never came from the database."""
    raw = encode_request(SafeRequest(message, till.now() + 3600, "routine"))
    return review_request(raw, registered(till), till.holders["ann"].record.address, till.now())


def message(till: FactoryTill, data: bytes) -> SafeMessage:
    nonce = till.adapter.safes.nonce(raw_address(till.cold_safe), till.adapter.tip())
    tx = SafeTx(to=raw_address(till.world.factory), value_wei=0, data=data, nonce=nonce)
    return SafeMessage(till.anvil.chain_id, raw_address(till.cold_safe), tx)


def by_holders(till: FactoryTill, data: bytes) -> None:
    """Three holders' keys are the thief's: the Safe itself does whatever he wants, and he pays for it."""
    asked = message(till, data)
    raw = encode_request(SafeRequest(asked, till.now() + 3600, ""))
    made = [decode_signature(till.signed_by_hand(raw, name)).signature for name in HOLDERS[:3]]
    call = asked.tx.execution(join_signatures(asked.signing_hash, made))
    sent = till.anvil.transact(till.outside.payer, till.cold_safe, call, gas=600_000)
    assert succeeded(mined(till.anvil, sent))
    till.finalize()


def test_a_request_for_a_foreign_treasury_is_refused_by_holders_machines_and_fits_no_record(
    till: FactoryTill, thief: str
) -> None:
    till.retire(3, "deactivated")
    first = till.ask("propose")
    asked = till.message(first)
    forged = replace(asked, tx=replace(asked.tx, data=TreasuryCall("propose", raw_address(thief)).encode()))
    assert looked_at(till, forged).codes == {"factory-treasury"}
    with pytest.raises(CheckViolation, match="bytes never change"):
        till.execute(
            "UPDATE transaction_versions SET unsigned = %s, content = %s WHERE transaction_id = %s",
            forged.encode(),
            forged.content,
            first,
        )
    # Holders were talked into it all the same, by other machines than these.
    raw = encode_request(SafeRequest(forged, till.now() + 3600, ""))
    for holder in HOLDERS[:3]:
        with pytest.raises(NotOurs):
            till.bring_file(till.signed_by_hand(raw, holder))
    assert till.build_execution() is None
    assert till.factory_state.proposed_treasury is None


def test_a_proposal_that_is_not_ours_is_told_of_at_once_and_its_treasury_stops_our_sweeps(
    till: FactoryTill, thief: str
) -> None:
    till.customer("alice", ETH=3 * ETHER)
    till.fund()
    by_holders(till, TreasuryCall("propose", raw_address(thief)).encode())
    till.enforce()
    assert PROPOSED in till.alerts()
    assert not {CHANGED, UNDER_WAY} & till.alerts()
    with pytest.raises(NotChanged, match="not the active hot key"):
        till.ask("accept")
    till.anvil.increase_time(48 * 3600 + 60)
    by_holders(till, TreasuryCall("accept").encode())
    assert till.treasury == thief
    till.enforce()
    assert {CHANGED, "coin.foreign_spend"} <= till.alerts()
    assert till.sweep_of(till.world.record.id) == 0, "what the Safe did without us halts all"
    till.lift_halt()
    assert till.sweep_of(till.world.record.id) == 0
    assert DIVERTED in till.alerts()
    # The holders turn it back: what the thief has not flushed is ours still.
    till.through("propose")
    till.wait_two_days()
    till.through("accept")
    till.enforce()
    assert not {CHANGED, PROPOSED, UNDER_WAY} & till.alerts()
    assert till.sweep_of(till.world.record.id) == 1
    assert DIVERTED not in till.alerts()


def test_an_admin_who_hands_over_the_office_is_seen_before_and_after(till: FactoryTill, thief: str) -> None:
    by_holders(till, till.factory.data("proposeAdmin", thief))
    till.enforce()
    assert PROPOSED in till.alerts()
    till.anvil.increase_time(48 * 3600 + 60)
    till.factory.do(thief, "acceptAdmin")
    till.finalize()
    till.enforce()
    assert ADMIN_DIFFERS in till.alerts()
    with pytest.raises(NotChanged, match="admin is"):
        till.ask("propose")


def test_a_holders_machine_says_where_an_honest_change_sends_the_deposits(till: FactoryTill) -> None:
    honest = message(till, TreasuryCall("propose", raw_address(till.world.record.address)).encode())
    found = looked_at(till, honest)
    assert found.objections == ()
    assert any("After 48 hours" in line for line in found.lines)
