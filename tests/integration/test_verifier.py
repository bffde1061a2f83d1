"""The verifier on a real node and a real ledger: what became of what was signed, what is covered, and what is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.errors import NodeUnavailable
from ops.devnet.bitcoind import Bitcoind
from policies.canonical import verify_ed25519
from policies.intent import SignedOrder
from signers.ports import (
    LogPage,
    LogRequest,
    OpenPage,
    OpenRequest,
    Refused,
    Resolved,
    ResolveRequest,
    Witness,
)
from signers.verifier.ports import VERDICT_SECONDS
from tests.fakes.rpc_proxy import Fault, rpc_proxy
from tests.fakes.till import Till
from tests.fakes.verifying import Verifying, own_chain, verifying

BTC = 10**8


@pytest.fixture
def verifier(till: Till) -> Iterator[Verifying]:
    with verifying(till) as opened:
        yield opened


def outcomes(verifier: Verifying) -> dict[str, str]:
    return dict(verifier.state.rows("SELECT content, outcome FROM resolutions"))


def paid(till: Till, units: int = BTC // 100) -> str:
    """A customer's payment in the mempool; its txid."""
    till.request(till.customer("alice", BTC // 10), units)
    return till.bytes_of(till.send()).txid.hex


# ---------------------------------------------------------------------------------------------------- resolutions


def test_a_payment_is_confirmed_at_finality_depth_and_not_a_block_before(
    till: Till, verifier: Verifying
) -> None:
    txid = paid(till)
    assert verifier.look() == 0
    till.mine(5)
    assert verifier.look() == 0
    till.mine(1)
    assert verifier.look() == 1
    assert outcomes(verifier) == {txid: "confirmed"}
    assert verifier.look() == 0
    assert verifier.witness.open(OpenRequest()).transactions == ()
    till.track()
    assert verifier.kinds() == set()


def test_what_was_replaced_is_dead_once_its_replacement_is_final(till: Till, verifier: Verifying) -> None:
    till.request(till.customer("alice", BTC // 10), BTC // 100)
    transaction = till.send()
    assert till.bump(transaction, 5_000) == 2
    till.sign()
    till.broadcast()
    first, second = (till.bytes_of(transaction, version).txid.hex for version in (1, 2))
    till.mine(5)
    assert verifier.look() == 0
    till.mine(1)
    assert verifier.look() == 2
    assert outcomes(verifier) == {first: "dead", second: "confirmed"}
    till.track()
    assert verifier.kinds() == set()


def test_a_reorg_before_finality_changes_nothing_that_was_told(till: Till, verifier: Verifying) -> None:
    txid = paid(till)
    block = till.mine(3)[0]
    assert verifier.look() == 0
    till.reorg(block)
    for _ in range(5):
        till.bitcoind.rpc("generateblock", till.outside.address(), [])
    till.catch_up()
    assert verifier.look() == 0
    assert outcomes(verifier) == {}
    assert verifier.verifier.followers[verifier.chain.name].use_of(f"{txid}:0") is None
    till.settle()
    assert verifier.look() == 1
    assert outcomes(verifier) == {txid: "confirmed"}


def test_what_was_signed_and_mined_before_the_verifier_first_ran_is_found_in_older_blocks(till: Till) -> None:
    txid = paid(till)
    till.settle()
    till.mine(70)
    with verifying(till) as late:
        assert late.look() == 1
        assert outcomes(late) == {txid: "confirmed"}
        assert late.kinds() == set()


def test_a_killed_verifier_goes_on_where_it_was(till: Till, verifier: Verifying) -> None:
    txid = paid(till)
    verifier.look()
    verifier.restart()
    till.mine(3)
    verifier.look()
    verifier.restart()
    till.mine(3)
    verifier.restart()
    assert verifier.look() == 1
    verifier.restart()
    assert verifier.look() == 0
    assert outcomes(verifier) == {txid: "confirmed"}


def test_a_resolution_that_the_signer_never_got_is_told_again(till: Till) -> None:
    paid(till)
    till.settle()
    with verifying(till) as verifier:

        class Deaf:
            """Takes no word, as if the connection broke before the signer had it."""

            def __init__(self, inner: Witness) -> None:
                self.inner = inner

            def open(self, request: OpenRequest) -> OpenPage:
                return self.inner.open(request)

            def log(self, request: LogRequest) -> LogPage:
                return self.inner.log(request)

            def resolve(self, request: ResolveRequest) -> Resolved:
                raise NodeUnavailable("the connection broke")

        real = verifier.witness
        verifier.witness = Deaf(real)
        with pytest.raises(NodeUnavailable):
            verifier.look()
        verifier.witness = real
        assert verifier.look() == 1


def test_while_the_own_node_does_not_answer_or_is_behind_nothing_is_resolved_and_nothing_covered(
    till: Till, tmp_path: Path
) -> None:
    paid(till)
    order = till.order("alice", BTC // 100)
    with rpc_proxy(till.bitcoind) as proxy:
        chain = own_chain(till, proxy.rpc_url, proxy.rest_url)
        with verifying(till, chain=chain) as verifier:
            verifier.look()
            deposit = till.outside.send(till.address("alice"), BTC // 10)
            till.settle()
            assert deposit
            # Not followed since: the ledger is ahead of what the own node was asked for.
            assert verifier.verifier.resolver.serve(verifier.witness) == 0
            assert verifier.refusal(order) == {"not-known"}
            proxy.faults = {"getblockchaininfo": Fault.LOSE_REPLY, "getblockhash": Fault.LOSE_REPLY}
            with pytest.raises(NodeUnavailable):
                verifier.follow()
            assert verifier.verifier.resolver.serve(verifier.witness) == 0


# -------------------------------------------------------------------------------------------------------- verdicts


def test_a_covered_order_gets_a_verdict_that_expires_within_minutes(till: Till, verifier: Verifying) -> None:
    till.customer("alice", BTC // 10)
    signed = till.order("alice", BTC // 100)
    verifier.follow()
    found = verifier.verdict(signed)
    verify_ed25519(till.house.verifier.public_hex, found.verdict.digest(), found.signature)
    assert found.verdict.outcome == "covered"
    assert found.verdict.intent == verifier.intent(signed).digest_hex()
    assert 0 < found.verdict.expires_at - verifier.clock() <= VERDICT_SECONDS
    assert verifier.verdict(signed).verdict.intent == found.verdict.intent


def test_two_orders_are_never_covered_by_the_same_money(till: Till, verifier: Verifying) -> None:
    till.customer("alice", BTC // 10)
    verifier.follow()
    first, second = till.order("alice", BTC // 20), till.order("alice", BTC // 20)
    verifier.verdict(first)
    verifier.restart()
    assert verifier.refusal(second) == {"not-covered"}
    verifier.verdict(first)


def test_a_verdict_is_for_genuine_orders_and_for_the_intent_that_carries_them_out(
    till: Till, verifier: Verifying
) -> None:
    till.customer("alice", BTC // 10)
    verifier.follow()
    signed = till.order("alice", BTC // 100)
    forged = SignedOrder(signed.order, till.house.stranger.sign(signed.order))
    assert verifier.refusal(forged) == {"order-not-genuine"}
    with pytest.raises(Refused, match="intent-mismatch"):
        verifier.verdict(signed, amount="1")
    with pytest.raises(Refused, match="intent-mismatch"):
        verifier.verdict(signed, destination=till.outside.address())
    assert verifier.refusal(till.order("alice", BTC // 5)) == {"not-covered"}


def test_a_customer_who_was_paid_within_the_ledger_is_covered_through_the_payer(
    till: Till, verifier: Verifying
) -> None:
    till.customer("alice", BTC // 10)
    till.customer("bob")
    till.request("alice", BTC // 50, destination=till.address("bob"))
    till.route()
    settle_internally(till)
    verifier.follow()
    assert verifier.kinds() == set()
    assert verifier.verdict(till.order("bob", BTC // 100)).verdict.outcome == "covered"


def settle_internally(till: Till) -> None:
    from custody.withdrawals.ending import settle_internal

    assert settle_internal(till.db, till.bundle) == 1


# ----------------------------------------------------------------------------------------------------------- audit


def test_an_honest_installation_has_no_findings_and_again_has_none(till: Till, verifier: Verifying) -> None:
    till.customer("alice", BTC // 10, BTC // 20)
    till.customer("bob", BTC // 10)
    kept = till.request("alice", BTC // 100)
    till.request("bob", BTC // 200)
    till.send()
    assert verifier.audit().findings == ()
    till.settle()
    found = verifier.audit()
    assert (found.findings, found.unknowns) == ((), ())
    assert till.withdrawal(kept.id).state == "settled"
    assert verifier.audit() == found
    assert verifier.state.rows("SELECT * FROM findings") == []


def test_a_deposit_on_a_block_that_the_own_chain_does_not_have_is_found(
    till: Till, verifier: Verifying, bitcoind: Bitcoind
) -> None:
    till.customer("alice", BTC // 10)
    verifier.follow()
    assert verifier.kinds() == set()
    stale = till.mine(1)[0]
    till.reorg(stale)
    till.mine(2)
    till.execute("UPDATE deposits SET block_hash = %s, height = %s", stale, bitcoind.rpc("getblockcount") - 1)
    assert "deposit-not-on-chain" in verifier.kinds()
    till.execute("UPDATE deposits SET height = 1, block_hash = %s", bitcoind.rpc("getblockhash", 1))
    assert "deposit-not-on-chain" in verifier.kinds()
    row = till.query("SELECT height, block_hash FROM receipts")[0]
    till.execute("UPDATE deposits SET height = %s, block_hash = %s", row["height"], row["block_hash"])
    assert verifier.kinds() == set()
    states = [row[0] for row in verifier.state.rows("SELECT state FROM findings ORDER BY number")]
    assert states[0] == "found"
    assert states[-1] == "gone"
