"""What rules can ask of a destination on an EVM chain: whether it has code, and whether its key has signed that it is
theirs. Real node, database and guard."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from eth_account.messages import encode_defunct

from custody.whitelist import proofs
from custody.whitelist.errors import ProofRefused
from custody.withdrawals.routing import route
from ops.devnet.anvil import Anvil
from policies.rules import Rule, When
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.evm_till import EvmTill, TillOutside, open_evm_till

NO_CONTRACTS = Rule(id="no-contracts", when=When(destinations=("contract",)), deny="no contracts")
PROVED = Rule(id="proved", checks=("ownership-proof",))


@pytest.fixture
def till(database: str, anvil: Anvil, tmp_path: Path) -> Iterator[EvmTill]:
    with open_evm_till(database, TillOutside(anvil), tmp_path) as opened:
        opened.fund()
        opened.customer("alice", ETH=3 * ETHER)
        yield opened


def decided(till: EvmTill, destination: str) -> tuple[str, str, dict[str, Any]]:
    withdrawal = till.request("alice", ETHER // 10, destination=destination)
    till.route()
    [row] = till.query("SELECT state, reason, decision FROM withdrawals WHERE id = %s", withdrawal.id)
    return row["state"], row["reason"], row["decision"]


def test_rules_learn_whether_a_destination_has_code_and_the_block_is_recorded(till: EvmTill) -> None:
    till.adopt(2, requirements=(NO_CONTRACTS,))
    state, _, decision = decided(till, till.nobody())
    assert (state, decision["facts"]["contract"], decision["code"]["there"]) == ("queued", False, False)
    assert decision["code"]["block"] == till.adapter.tip().hash
    state, reason, decision = decided(till, till.outside.wallet.address)
    assert (state, "no contracts" in reason, decision["facts"]["contract"]) == ("rejected", True, True)


def test_where_no_rule_asks_for_code_the_node_is_not_asked(till: EvmTill) -> None:
    _, _, decision = decided(till, till.nobody())
    assert "contract" not in decision["facts"]
    assert "code" not in decision


def test_a_node_that_does_not_tell_denies(till: EvmTill) -> None:
    till.adopt(2, requirements=(NO_CONTRACTS,))
    withdrawal = till.request("alice", ETHER // 10, destination=till.nobody())
    route(till.db, till.bundle, till.screening, now=int(time.time()))
    found = till.withdrawal(withdrawal.id)
    assert (found.state, "missing-fact" in found.reason) == ("rejected", True)


def test_a_rule_that_asks_for_a_proof_denies_until_the_key_of_the_address_has_signed(till: EvmTill) -> None:
    till.adopt(2, requirements=(PROVED,))
    owner, thief = Account.create(), Account.create()
    assert decided(till, owner.address)[0] == "rejected"
    with till.api.transaction() as tx:
        found = proofs.challenge(
            tx,
            till.bundle,
            owner="alice",
            chain=EVM_CHAIN,
            address=owner.address,
            service="strongroom",
            now=int(time.time()),
        )
    text = encode_defunct(text=found.text)
    forged, good = (each.sign_message(text).signature.hex() for each in (thief, owner))
    with pytest.raises(ProofRefused), till.api.transaction() as tx:
        proofs.prove(tx, till.bundle, found.id, forged, now=int(time.time()))
    with till.api.transaction() as tx:
        proofs.prove(tx, till.bundle, found.id, good, now=int(time.time()))
    state, _, decision = decided(till, owner.address)
    assert (state, decision["facts"]["ownership_proof"]) == ("queued", True)
    assert decided(till, thief.address)[0] == "rejected"
