"""The forwarders' factory under a cold Safe: only its owners, together, change the treasury, and only after 48 hours.

What is shown is what the chain allows. No signer of ours signs such a call: all of them refuse what is no payment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coincurve
import pytest

from chains.eth.address import checksummed, raw_address
from chains.eth.contracts import artifact
from chains.eth.safe import SafeMessage, SafeTx, join_signatures
from chains.eth.tx import address_text_of_key
from ops.devnet.anvil import Anvil
from ops.stack.safes import deploy_contracts, deploy_safe, safe_artifact
from tests.fakes.safe_signing import OwnerBench, SafeWorld, owner_keys
from tests.support.evm import Contract, deploy, mined, succeeded

DELAY = 48 * 3600
OLD, NEW = checksummed(b"\x01" * 20), checksummed(b"\x02" * 20)


class Cold:
    """A 3-of-5 Safe whose owners' keys are here, as the admin of a factory."""

    def __init__(self, node: Anvil) -> None:
        self.node = node
        self.payer = node.accounts()[0]
        self.owners = [coincurve.PrivateKey() for _ in range(5)]
        names = [address_text_of_key(key.public_key.format()) for key in self.owners]
        safe = deploy_safe(node, self.payer, deploy_contracts(node, self.payer), names, 3)
        self.safe = Contract(node, safe, safe_artifact("Safe").abi)
        self.factory = deploy(node, self.payer, artifact("ForwarderFactory"), OLD, safe)

    def call(self, function: str, *arguments: object, owners: int = 3) -> bool:
        """Have the Safe call the factory; whether it did."""
        nonce = int(self.safe.call("nonce"))
        tx = SafeTx(raw_address(self.factory.address), 0, self.factory.data(function, *arguments), nonce)
        digest = SafeMessage(self.node.chain_id, raw_address(self.safe.address), tx).signing_hash
        made = [key.sign_recoverable(digest, hasher=None) for key in self.owners[:owners]]
        blob = join_signatures(digest, [each[:64] + bytes([27 + each[64]]) for each in made])
        data = tx.execution(blob)
        return succeeded(
            mined(self.node, self.node.transact(self.payer, self.safe.address, data, gas=600_000))
        )

    @property
    def treasury(self) -> str:
        found: Any = self.factory.call("treasury")
        return checksummed(bytes.fromhex(str(found)[2:]))


@pytest.fixture
def cold(fresh_anvil: Any) -> Cold:
    return Cold(fresh_anvil())


def test_three_owners_change_the_treasury_after_48_hours_and_not_before(cold: Cold) -> None:
    assert cold.treasury == OLD
    assert cold.call("proposeTreasury", NEW)
    assert not cold.call("acceptTreasury"), "too early"
    cold.node.rpc("evm_increaseTime", DELAY + 1)
    cold.node.mine()
    assert cold.call("acceptTreasury")
    assert cold.treasury == NEW


def test_fewer_owners_a_stranger_and_a_change_that_was_cancelled_move_nothing(cold: Cold) -> None:
    assert not cold.call("proposeTreasury", NEW, owners=2)
    assert not succeeded(cold.factory.attempt(cold.payer, "proposeTreasury", NEW))
    assert cold.call("proposeTreasury", NEW)
    assert cold.call("cancelTreasury")
    cold.node.rpc("evm_increaseTime", DELAY + 1)
    cold.node.mine()
    assert not cold.call("acceptTreasury")
    assert cold.treasury == OLD


@pytest.mark.parametrize("function", ["proposeTreasury", "acceptTreasury", "proposeAdmin", "acceptAdmin"])
def test_fault_45_no_signer_of_ours_signs_a_change_of_the_factory(
    cold: Cold, tmp_path: Path, function: str
) -> None:
    world = SafeWorld.make(cold.safe.address, owner_keys())
    bench = OwnerBench(tmp_path, world)
    arguments = [NEW] if function.startswith("propose") else []
    fields = {
        "to": raw_address(cold.factory.address),
        "value_wei": 0,
        "data": cold.factory.data(function, *arguments),
    }
    draft = world.safe_draft(safe=cold.safe.address, tx=fields)
    assert "contract-administration" in bench.codes(world.safe_request(draft))
    bench.journal.close()
