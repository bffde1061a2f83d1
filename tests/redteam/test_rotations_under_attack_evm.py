"""Rotations on EVM chains under bad luck and attack: tokens that turn, gaps between nonces, deposits of thieves, and a
verifier that has not heard of the new keys yet. See tests/integration/test_rotation_evm.py for ordinary days.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from chains.eth.network import EthNetwork
from chains.eth.node import EvmNode
from custody.ports import Step, wake_nobody
from custody.screening.ports import Elsewhere, Screening
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.wiring import Services
from custody.workers.steps import run
from ops.devnet.anvil import Anvil
from signers.verifier.chains import EvmChain
from tests.fakes.evm_signing import ETHER, EVM_CHAIN
from tests.fakes.evm_till import TillOutside
from tests.fakes.teller import opened
from tests.fakes.verifying import verifying
from tests.integration.test_rotation_evm import NEW, RotatingTill


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[RotatingTill]:
    with opened(RotatingTill(database, outside, tmp_path)) as till:
        yield till


def test_payments_of_keys_that_the_verifier_had_not_heard_of_are_resolved_all_the_same(
    till: RotatingTill,
) -> None:
    """Officers hand the next bundle to signers first: what new keys pay until it reaches the verifier's mailbox."""
    till.fund()
    network = EthNetwork(till.anvil.chain_id, till.anvil.block_hash(0)[2:], till.outside.mode)
    node = EvmNode(EVM_CHAIN, network, till.anvil.rpc_url, tokens=lambda: till.tokens, timeout_s=5)
    before = msgspec.structs.replace(till.bundle, keysets=())
    with verifying(till, chain=EvmChain(node, lambda: before)) as verifier:
        till.request(till.customer("alice", ETH=3 * ETHER), ETHER)
        till.send()
        assert verifier.look() == 0
        till.settle()
        assert verifier.look() == 1
        assert [row[0] for row in verifier.state.rows("SELECT outcome FROM resolutions")] == ["confirmed"]


@pytest.mark.parametrize("asset", ["FEEX", "NORX"])
def test_odd_tokens_are_moved_and_the_books_stay_exact(till: RotatingTill, asset: str) -> None:
    till.fund()
    till.fund(asset, 50 * ETHER)
    till.retire(2, "compromised")
    for _ in range(3):
        till.rotate()
        till.through()
        till.enforce()
        till.check()
    assert till.held(till.world.record.id, asset) == 0
    assert till.held(NEW, asset) == till.has(till.new_keys.record.address, asset) > 0


def test_a_token_that_says_no_keeps_no_other_asset_from_the_rescue(till: RotatingTill) -> None:
    till.fund()
    till.fund("FALX", 50 * ETHER)
    till.fund("USDX", 50 * 10**6)
    till.retire(2, "compromised")
    till.rotate()
    till.through()
    till.check()
    assert till.held(NEW, "USDX") == 50 * 10**6
    assert till.held(NEW, "ETH") > 90 * ETHER


def test_a_retired_keys_gap_is_filled_although_it_has_too_little_to_rotate(till: RotatingTill) -> None:
    """Else what it has signed above the gap would wait for ever, and its orders could be paid by nobody else."""
    till.fund(units=ETHER * 3 // 100)
    till.customer("alice", ETH=3 * ETHER)
    assert sweep(till.db, till.site, SweepPace(gather_seconds=0), now=int(time.time())) == 1
    till.sign()
    till.broadcast()
    till.settle()
    till.request("alice", ETHER // 200)
    till.route()
    first = till.build()
    assert first is not None
    second = till.request("alice", ETHER * 299 // 100)
    till.route()
    assert till.build() is not None
    till.refuse(first)
    assert len(till.sign()) == 1
    till.broadcast()
    till.retire(2, "deactivated")
    till.settle()
    assert till.withdrawal(second.id).state == "broadcast"
    till.execute(
        "UPDATE transactions SET created_at = created_at - interval '10 minutes', updated_at = created_at"
    )
    services = Services(
        settings=cast(Any, SimpleNamespace(gather_seconds=0)),
        database=till.db,
        root=till.house.root,
        bundle=lambda: till.bundle,
        clock=lambda: int(time.time()),
        nodes={EVM_CHAIN: till.adapter},
        signers={keyset.id: till.signer for keyset in till.bundle.keysets},
        verifiers=(),
        screening=Screening([Elsewhere("tests")]),
        sealing=None,
        exchange=None,
        prices=None,
        wake=wake_nobody,
    )
    for step in (Step.SWEEP, Step.BUILD, Step.SIGN, Step.BROADCAST):
        run(step, services)
    till.settle()
    assert till.withdrawal(second.id).state == "settled"
    till.check()


def test_a_deposit_to_a_forwarder_of_compromised_keys_is_not_credited(till: RotatingTill) -> None:
    till.fund()
    mallory = till.customer("mallory")
    address = till.address(mallory)
    till.retire(2, "compromised")
    till.outside.send("ETH", address, ETHER)
    till.finalize()
    assert till.balance(mallory) == 0
    assert "deposit.held" in till.alerts()
