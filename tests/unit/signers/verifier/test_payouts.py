"""What a vault's transaction has paid, whatever rows say: each output for one withdrawal, and none for nobody's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chains.types import BlockRef
from signers.verifier.bundles import Bundles
from signers.verifier.chains import Spending, script_of
from signers.verifier.follow import Follower
from signers.verifier.model import Claim, Unknown
from signers.verifier.payouts import Payout, Payouts, Unproven
from signers.verifier.state import State
from tests.fakes.signing import CHAIN, SoftKeys
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultWorld
from tests.unit.signers.verifier.test_follow import Scripted

TXID = "ab" * 32
UNITS = 20_000_000


class World:
    """A chain with one transaction of the vault, which pays one address twice."""

    def __init__(self, directory: Path) -> None:
        world = VaultWorld(SoftKeys.make().record, cosigners=[SoftCosigner.make(n).record for n in range(3)])
        bundle = world.bundle()
        self.vault = world.wallet
        self.destination = world.wallet.address(0, 7)
        self.chain = Scripted(CHAIN)
        self.block = self.chain.mine()
        for _ in range(8):
            self.chain.mine()
        script = script_of(bundle, CHAIN, self.destination).hex()
        self.spending = Spending(
            (self.vault.script(1, 0).hex(), self.vault.script(1, 1).hex()),
            ((script, str(UNITS)), (self.vault.script(1, 2).hex(), "5"), (script, str(UNITS))),
        )
        self.chain.moved = {TXID: self.spending}
        self.state = State(directory / "state.sqlite")
        follower = Follower(self.state, self.chain)
        follower.catch_up()
        wallets: Any = SimpleNamespace(
            present=lambda: bundle, wallets=lambda name: [w for w in bundle.wallets if w.id == name]
        )
        self.payouts = Payouts(self.state, cast(Bundles, wallets), {CHAIN: follower})
        self.places = {self.vault.script(1, n): (1, n) for n in range(3)}

    def payout(self, owner: str, units: int = UNITS, customer: str = "alice") -> Payout:
        return Payout(owner, customer, CHAIN, VAULT, "BTC", units, self.destination)

    def prove(self, payout: Payout, *, block: BlockRef | None = None) -> Unproven | Unknown | None:
        at = block or self.block
        claim = Claim(VAULT, TXID, at.height, at.hash, ())
        return self.payouts.prove(payout, claim, lambda wallet, script: self.places.get(script))

    def kind(self, payout: Payout) -> str:
        found = self.prove(payout)
        assert isinstance(found, Unproven), found
        return found.kind


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.state.close()


def test_two_outputs_pay_two_and_no_third_and_again_changes_nothing(world: World) -> None:
    for _ in range(2):
        assert [world.prove(world.payout(owner)) for owner in ("a", "b")] == [None, None]
        assert world.kind(world.payout("c")) == "payment-repeated"
    assert len(world.state.rows("SELECT * FROM paid")) == 2


def test_whoever_took_it_without_right_gives_it_back_when_he_stands_no_longer(world: World) -> None:
    world.prove(world.payout("false-1", customer="mallory"))
    world.prove(world.payout("false-2", customer="mallory"))
    assert world.kind(world.payout("a")) == "payment-repeated"
    world.payouts.release("mallory", {"false-1"})
    assert world.prove(world.payout("a")) is None
    assert world.kind(world.payout("b")) == "payment-repeated"
    world.payouts.release_strangers({"alice"})
    assert world.prove(world.payout("b")) is None


@pytest.mark.parametrize("units", [UNITS - 1, UNITS + 1, 2 * UNITS])
def test_another_amount_is_no_payment(world: World, units: int) -> None:
    assert world.kind(world.payout("a", units)) == "payment-not-on-chain"


def test_an_input_of_anybody_else_makes_it_no_payment_of_the_vault(world: World) -> None:
    strange = bytes.fromhex("0020" + "cd" * 32)
    world.chain.moved = {TXID: Spending((*world.spending.spent, strange.hex()), world.spending.paid)}
    assert world.kind(world.payout("a")) == "payment-not-on-chain"
    world.places[strange] = (1, 5)  # a row that says it is the vault's
    assert world.kind(world.payout("a")) == "payment-not-on-chain"


def test_without_a_claim_or_by_one_of_another_wallet_or_block_it_is_none(world: World) -> None:
    other = BlockRef(world.block.height, "ef" * 32)
    assert isinstance(world.prove(world.payout("a"), block=other), Unproven)
    for claim in (None, Claim("btc-hot", TXID, 0, world.block.hash, ()), Claim(VAULT, None, None, None, ())):
        assert isinstance(world.payouts.prove(world.payout("a"), claim, lambda *_: (1, 0)), Unproven)
    assert world.state.rows("SELECT * FROM paid") == []


def test_a_block_that_is_not_deep_or_not_there_yet_is_not_known(world: World) -> None:
    tip = world.chain.tip()
    assert isinstance(world.prove(world.payout("a"), block=tip), Unknown)
    assert isinstance(world.prove(world.payout("a"), block=BlockRef(tip.height + 1, "aa" * 32)), Unknown)
