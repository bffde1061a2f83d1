"""Attacks by somebody who has a role's SQL rights, or a customer with patience; each must come to nothing."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chains.btc.address import parse_address
from chains.btc.network import NETWORKS
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.types import TxId
from custody.signing.bump import bump, bump_stuck
from custody.signing.errors import Raced
from custody.signing.sign import sign
from custody.withdrawals import service
from custody.withdrawals.ending import settle_internal
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Confirmations
from signers.client import SignerClient, UnixAddress
from signers.config import ListenSection
from signers.ports import (
    AttestRequest,
    Reason,
    Refused,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.process.calls import Desk, handlers
from signers.process.server import Server
from tests.fakes.signing import CHAIN
from tests.fakes.till import Till


@pytest.fixture
def broken(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    """A till whose books a test breaks: it is not checked in the end."""
    opened = Till(database, bitcoind, tmp_path)
    yield opened
    opened.close()


# ------------------------------------------------------------------------- an address row that nobody attested


def claim_address(till: Till, address: str, customer: str) -> None:
    """What a role with INSERT on addresses can do: call an address of the outside a customer's own."""
    script = parse_address(address, NETWORKS["regtest"], CHAIN).script
    with till.api.transaction() as tx:
        tx.execute(
            "INSERT INTO addresses (chain, keyset, asset, customer_id, purpose, branch, index, address, script,"
            " attestation) VALUES (%s, %s, 'BTC', %s, 'deposit', 0, 777777, %s, %s, '{}')",
            [CHAIN, till.keys.record.id, customer, address, script],
        )


@pytest.mark.parametrize("moment", ["before it was requested", "after it was queued"])
def test_a_row_that_calls_a_strangers_address_mallorys_does_not_turn_a_payment_into_her_credit(
    till: Till, moment: str
) -> None:
    alice, mallory = till.customer("alice", 5_000_000), till.customer("mallory")
    destination = till.outside.address()
    if moment == "before it was requested":
        claim_address(till, destination, mallory)
        withdrawal = till.request(alice, 1_000_000, destination=destination)
        till.route()
    else:
        withdrawal = till.request(alice, 1_000_000, destination=till.address(till.customer("bob")))
        till.route()
        till.execute(
            "UPDATE addresses SET customer_id = 'mallory' WHERE address = %s", withdrawal.destination
        )
    settle_internal(till.db, till.bundle)
    assert till.balance(mallory) == 0
    assert till.withdrawal(withdrawal.id).state in ("queued", "rejected")
    assert till.alerts() & {"withdrawal.tampered", "address.unproven", "address.not_ours"}


# ------------------------------------------------------------------------------------ what sticks for ever


def test_a_stuck_payment_whose_bumps_are_refused_does_not_get_a_version_with_every_beat(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    transaction_id = till.send()
    ended = till.world.caller_entry("exchange", till.world.caller, not_after=int(time.time()))
    till.adopt(2, callers=(ended,))  # from now on no signer signs for this caller's orders
    for _ in range(till.pace.bump_after_blocks):
        till.mine_with()
    till.price(20_000)
    for _ in range(5):
        bump_stuck(till.db, till.site)
        till.sign()
    assert [version.state for version in till.transaction(transaction_id).versions] == ["signed", "refused"]
    for _ in range(till.pace.bump_after_blocks):
        till.mine_with()
    assert bump_stuck(till.db, till.site) == 1
    till.sign()
    assert len(till.transaction(transaction_id).versions) == 3
    till.settle()
    assert till.states() == ["settled"]


def pay_many(till: Till, address: str, count: int, units: int) -> str:
    """One transaction as large as nodes relay, with `count` deposits to one address among its outputs."""
    ours = parse_address(address, NETWORKS["regtest"], CHAIN).script
    theirs = parse_address(till.outside.address(), NETWORKS["regtest"], CHAIN).script
    outputs = [TxOut(units, ours)] * count + [TxOut(600, theirs)] * 2_900
    total = sum(output.units for output in outputs) + 120_000
    coin = next(
        c for c in till.outside.rpc("listunspent") if c["spendable"] and int(c["amount"] * 10**8) > total
    )
    left = int(coin["amount"] * 10**8) - total
    outputs.append(TxOut(left, theirs))
    tx = Transaction(2, (TxIn(Outpoint(TxId(coin["txid"]), coin["vout"])),), tuple(outputs))
    signed = till.outside.rpc("signrawtransactionwithwallet", tx.serialize().hex())
    return str(till.bitcoind.rpc("sendrawtransaction", signed["hex"]))


def test_deposits_from_huge_transactions_do_not_stop_other_payments(till: Till, tmp_path: Path) -> None:
    mallory, alice = till.customer("mallory"), till.customer("alice", 2_000_000)
    pay_many(till, till.address(mallory), 180, 30_000)
    till.mine(6)
    assert till.balance(mallory) == 180 * 30_000
    server = Server(Desk(handlers(till.service)), ListenSection(unix=str(tmp_path / "signer.sock")))
    serving = threading.Thread(target=server.serve)
    serving.start()
    client = SignerClient(UnixAddress(tmp_path / "signer.sock"))
    try:
        till.signer = client
        big = till.request(mallory, 5_200_000)  # needs nearly all of them
        small = till.request(alice, 1_000_000)
        till.route()
        for _ in range(4):
            till.build()
            till.sign()
            till.broadcast()
        assert till.withdrawal(small.id).state == "broadcast"
        assert till.withdrawal(big.id).state in ("queued", "broadcast")
    finally:
        client.close()
        server.close()
        serving.join()


def test_one_transaction_that_cannot_be_moved_does_not_stop_the_others(broken: Till) -> None:
    till = broken
    alice, bob = till.customer("alice", 5_000_000), till.customer("bob", 5_000_000)
    first = till.request(alice, 1_000_000)
    till.send()
    second = till.request(bob, 1_000_000)
    till.send()
    with till.admin.transaction() as tx:  # somebody released what the first one holds
        service.release(tx, till.withdrawal(first.id))
    till.mine(6)
    till.track()
    assert till.withdrawal(second.id).state == "settled"
    assert "transaction.not_tracked" in till.alerts()


# --------------------------------------------------------------------------- two workers, one slower than the other


class Meanwhile:
    """The till's node; before it gives the first previous transaction of a build or bump, something happens."""

    def __init__(self, till: Till, happens: Callable[[], object]) -> None:
        self.inner, self.happens = till.node, [happens]

    def raw_transaction(self, txid: TxId, block_hash: str | None = None) -> bytes:
        while self.happens:
            self.happens.pop()()
        return self.inner.raw_transaction(txid, block_hash)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_slow_bump_does_not_replace_what_is_mined_and_whose_change_is_spent_already(till: Till) -> None:
    alice = till.customer("alice", 5_000_000)
    till.request(alice, 1_000_000)
    first = till.send()
    till.request(alice, 1_000_000)
    till.route()
    later: list[UUID | None] = []
    site = till.site

    def mined_and_spent() -> None:
        till.mine(1)  # and nobody has tracked it yet
        later.append(till.build())

    slow = replace(site, node=Meanwhile(till, mined_and_spent))
    with pytest.raises(Raced):
        bump(till.db, slow, first, 20_000)
    assert later != [None]
    assert len(till.transaction(first).versions) == 1


def test_a_worker_that_comes_late_does_not_ask_for_what_was_refused_and_freed(till: Till) -> None:
    alice = till.customer("alice", 3_000_000)
    bob = till.customer("bob", 3_000_000)
    till.request(alice, 1_000_000)
    till.route()
    till.build()
    till.request(bob, 1_000_000)
    till.route()
    till.build()

    class Slow:
        """While the first request is under way, another worker gets the second one refused."""

        def __init__(self) -> None:
            self.asked: list[str] = []

        def status(self) -> SignerStatus:
            return till.service.status()

        def attest(self, request: AttestRequest) -> SignedAttestation:
            return till.service.attest(request)

        def sign(self, request: SignRequest) -> SignResponse:
            if not self.asked:
                with contextlib.suppress(SignerUnavailable):
                    sign(till.db, till.site, Refusing(request.intents[0].id))
            self.asked.append(request.intents[0].id)
            return till.service.sign(request)

    class Refusing:
        """Refuses everything but what the slow worker is asking for."""

        def __init__(self, but: str) -> None:
            self.but = but

        def status(self) -> SignerStatus:
            return till.service.status()

        def attest(self, request: AttestRequest) -> SignedAttestation:
            return till.service.attest(request)

        def sign(self, request: SignRequest) -> SignResponse:
            if request.intents[0].id == self.but:
                raise SignerUnavailable("busy")
            raise Refused((Reason("window-cap", "not today"),))

    slow = Slow()
    sign(till.db, till.site, slow)
    assert len(slow.asked) == 1
    assert till.service.status().signed == 1


def test_a_deposit_credited_after_one_block_is_not_put_into_others_payments_before_it_is_final(
    till: Till,
) -> None:
    quick = msgspec.structs.replace(
        till.bundle.assets[0], confirmations=(Confirmations(from_units="0", blocks=1),)
    )
    till.adopt(2, assets=(quick,))
    alice, mallory = till.customer("alice", 5_000_000), till.customer("mallory")
    till.outside.send(till.address(mallory), 4_000_000)
    till.mine(1)
    assert till.balance(mallory) == 4_000_000
    till.request(mallory, 3_900_000)
    till.request(alice, 3_900_000)
    till.route()
    till.build()  # a reorg of one block could take her coin away, and a transaction with it could never confirm
    fresh = {
        row["resource"] for row in till.query("SELECT resource FROM deposits WHERE customer_id = 'mallory'")
    }
    used = {row["resource"] for row in till.query("SELECT resource FROM reservations")}
    assert used
    assert not used & fresh
    till.mine(5)
    till.build()
    assert fresh <= {row["resource"] for row in till.query("SELECT resource FROM reservations")}
