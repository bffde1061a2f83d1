"""The bytes of an EVM transaction don't name their sender: the keys of two signers can be asked for the same ones.

What became of one says nothing of the other. Else a thief has an old key's transaction replaced, has the key that
follows sign the same bytes later, and a verifier calls those dead: they count no more, and their order's money is free
again, while he waits with a good signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest

from policies.intent import Order
from signers.ports import OpenRequest, OpenTransaction, ResolveRequest
from signers.verifier.bundles import Bundles
from signers.verifier.examine import Examiner
from signers.verifier.follow import Follower
from signers.verifier.logs import LogKeeper, MemberLogs
from signers.verifier.model import History
from signers.verifier.payouts import Payouts
from signers.verifier.resolve import Resolver
from signers.verifier.source import Snapshot
from signers.verifier.state import State
from tests.fakes.evm_signing import EVM_CHAIN, EvmDraft
from tests.fakes.signer import EvmBench
from tests.fakes.signing import VERIFIER
from tests.unit.signers.verifier.test_follow import Scripted


class Twins:
    """Two signers with a key each, which have signed the same bytes for an order each; and a verifier of both."""

    def __init__(self, directory: Path) -> None:
        self.signers = []
        for name in ("old", "new"):
            (directory / name).mkdir()
            self.signers.append(EvmBench(directory / name))
        old, new = self.signers
        new.world.verifier = old.world.verifier
        new.adopt(2)
        self.orders: list[Order] = []
        for bench in self.signers:
            draft = EvmDraft([bench.world.order()])
            version = bench.trust.present.version
            draft.intents = [bench.world.intent(order, policy_version=version) for order in draft.orders]
            bench.signatures(bench.world.request(draft))
            self.orders += draft.orders
        self.state = State(directory / "state.sqlite")
        self.chain = Scripted(EVM_CHAIN)
        self.chain.mine()
        follower = Follower(self.state, self.chain)
        follower.catch_up()
        self.follower, self.logs = follower, LogKeeper(self.state)
        self.resolver = Resolver(
            VERIFIER,
            old.world.verifier,
            self.state,
            {EVM_CHAIN: follower},
            self.logs,
            lambda: old.trust.present,
        )

    def open(self, bench: EvmBench) -> list[OpenTransaction]:
        return list(bench.witness.open(OpenRequest()).transactions)

    def told(self) -> list[int]:
        self.follower.catch_up()
        return [self.resolver.serve(bench.witness) for bench in self.signers]

    def close(self) -> None:
        self.state.close()
        for bench in self.signers:
            bench.journal.close()


@pytest.fixture
def twins(tmp_path: Path) -> Iterator[Twins]:
    made = Twins(tmp_path)
    yield made
    made.close()


def test_what_became_of_one_is_not_told_of_the_other(twins: Twins) -> None:
    (old,), (new,) = map(twins.open, twins.signers)
    assert old.content == new.content
    assert old.resources != new.resources
    assert twins.told() == [0, 0]
    twins.chain.mine({old.resources[0]: "ff" * 32})
    assert twins.told() == [1, 0]
    assert twins.open(twins.signers[1]) == [new]
    twins.chain.mine({new.resources[0]: new.content})
    assert twins.told() == [0, 1]
    outcomes = [
        bench.journal.write(lambda book: book.outcome(EVM_CHAIN, old.content)) for bench in twins.signers
    ]
    assert outcomes == ["dead", "confirmed"]


def test_a_word_about_one_that_is_carried_to_the_others_signer_is_passed_over(twins: Twins) -> None:
    (old,), (new,) = map(twins.open, twins.signers)
    bench = twins.signers[1]
    word = bench.resolution(EVM_CHAIN, old.content, "dead", resource=old.resources[0])
    assert bench.witness.resolve(ResolveRequest(resolutions=(word,))).accepted == 0
    assert twins.open(bench) == [new]


def test_an_order_is_not_free_again_because_the_other_ones_payment_is_dead(twins: Twins) -> None:
    old, new = twins.signers
    (first,) = twins.open(old)
    twins.told()
    twins.chain.mine({first.resources[0]: "ff" * 32})
    assert twins.told() == [1, 0]
    twins.logs.read("old", old.witness, old.trust.present)
    twins.logs.read("new", new.witness, new.trust.present)
    bundles = Bundles(
        twins.state, old.directory / "pinned.json", old.directory / "bundle.json", lambda: old.time
    )
    payouts, members = Payouts(twins.state, bundles, {}), MemberLogs(twins.state, twins.logs, {})
    examiner = Examiner(twins.state, bundles, {}, payouts, members)
    examined = examiner.examine(cast(Snapshot, NoLedger()), "alice")
    undebited = {UUID(each.subject) for each in examined.findings if each.kind == "payment-not-debited"}
    assert UUID(twins.orders[1].id) in undebited


class NoLedger:
    """A ledger in which a customer has nothing, not even holds."""

    def history(self, customer: str) -> History:
        empty: dict[Any, Any] = {}
        return History(customer, empty, (), empty, empty, empty, empty, empty)
