"""Whatever a bundle says later, a signer never denies what it has signed: somebody would pay again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from custody.signing.requests import read_request
from ops.devnet.bitcoind import Bitcoind
from policies.keys import sign_freeze
from policies.rules import Policy
from policies.statements import Freeze
from signers.ports import SignerUnavailable
from signers.trust.desk import JournalDesk
from tests.fakes.signer import SignerBench
from tests.fakes.till import open_till


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def after(bench: SignerBench, what: str) -> dict[str, Any]:
    """Fields of a bundle after which nothing new can be signed."""
    bundle = bench.world.bundle()
    match what:
        case "the cap is gone":
            return {"caps": ()}
        case "the key-set is gone":
            return {"keysets": ()}
        case "the key-set is of another tier":
            return {"keysets": (bench.world.keyset_entry(tier="warm"),)}
        case "the attestation key is another":
            return {"keysets": (bench.world.keyset_entry(attestation_key="ab" * 32),)}
        case "the network is gone":
            other = msgspec.structs.replace(bundle.networks[0], chain="bitcoin-other")
            return {
                "networks": (other,),
                "keysets": (),
                "caps": (),
                "policy": Policy(),
                "assets": (msgspec.structs.replace(bundle.assets[0], chain="bitcoin-other"),),
            }
    raise AssertionError(what)


@pytest.mark.parametrize(
    "what",
    [
        "the cap is gone",
        "the key-set is gone",
        "the key-set is of another tier",
        "the attestation key is another",
        "the network is gone",
    ],
)
def test_what_was_signed_is_not_refused_later_and_nothing_else_gets_signed(
    bench: SignerBench, what: str
) -> None:
    request, other = bench.request(), bench.request()
    before = bench.signatures(request)
    bench.adopt(2, **after(bench, what))
    assert bench.signatures(request) == before
    assert bench.codes(other) & {"no-cap", "not-in-bundle", "wrong-keyset"}
    assert bench.codes(msgspec.structs.replace(request, intents=other.intents, evidence=other.evidence))
    bench.restart()
    assert bench.signatures(request) == before


def test_a_frozen_tier_does_not_free_a_withdrawal_whose_signature_was_lost_on_the_way(
    database: str, bitcoind: Bitcoind, tmp_path: Path
) -> None:
    with open_till(database, bitcoind, tmp_path) as till:
        alice = till.customer("alice", 5_000_000)
        withdrawal = till.request(alice, 1_000_000)
        till.route()
        transaction_id = till.build()
        assert transaction_id is not None
        [version] = till.transaction(transaction_id).versions
        # The worker dies with the answer in its hands.
        signed, txid = till.site.finish(version, till.service.sign(read_request(version.request)))
        till.adopt(2, caps=())
        till.sign()
        assert till.withdrawal(withdrawal.id).state == "broadcast"
        assert till.balance(alice, "frozen") == 1_050_000
        till.bitcoind.rpc("sendrawtransaction", signed.hex())
        till.settle()
        assert till.transaction(transaction_id).confirmed_txid == txid
        assert till.states() == ["settled"]


def test_a_freeze_or_stolen_keys_do_not_free_a_withdrawal_whose_signature_may_be_out(
    database: str, bitcoind: Bitcoind, tmp_path: Path
) -> None:
    """A refusal would release the hold, while whoever has the signature sends it: the signer only says nothing."""
    with open_till(database, bitcoind, tmp_path) as till:
        alice = till.customer("alice", 5_000_000)
        withdrawal = till.request(alice, 1_000_000)
        till.route()
        transaction_id = till.build()
        assert transaction_id is not None
        [version] = till.transaction(transaction_id).versions
        signed, txid = till.site.finish(version, till.service.sign(read_request(version.request)))
        keysets = till.bundle.keysets
        # Officers hand their signer a bundle that the online side does not know.
        for number, state in enumerate(("suspended", "compromised"), start=2):
            stopped = tuple(msgspec.structs.replace(keyset, state=state) for keyset in keysets)
            bundle = till.house.bundle(number, keysets=stopped)
            till.trust.adopt(till.house.signed(bundle).encode())
            with pytest.raises(SignerUnavailable, match=state):
                till.sign()
            assert till.balance(alice, "frozen") == 1_050_000
        till.adopt(4)
        told = Freeze(
            v=1, officer="olga", scope="all", bundle_version=4, reason="odd", issued_at=int(time.time())
        )
        desk = JournalDesk(till.trust, till.journal, till.clock, till.service.status)
        desk.freeze(sign_freeze(told, till.house.officers["olga"]))
        with pytest.raises(SignerUnavailable, match="olga has frozen all"):
            till.sign()
        assert till.balance(alice, "frozen") == 1_050_000
        # He sends it. It is found in the chain, and nothing was paid twice.
        till.bitcoind.rpc("sendrawtransaction", signed.hex())
        till.adopt(5)
        till.sign()
        assert till.withdrawal(withdrawal.id).state == "broadcast"
        till.settle()
        assert till.transaction(transaction_id).confirmed_txid == txid
        assert till.states() == ["settled"]
