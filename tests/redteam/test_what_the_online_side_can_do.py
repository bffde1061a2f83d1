"""Attacks by somebody who has a role's SQL rights, or a customer with patience; each must come to nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL

from chains.btc.address import parse_address
from chains.btc.network import NETWORKS
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.types import TxId
from custody.signing.bump import bump_stuck
from custody.signing.sign import sign
from custody.storage.db import Tx
from custody.withdrawals import service
from custody.withdrawals.ending import settle_internal
from ops.devnet.bitcoind import Bitcoind
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
from signers.server import Server
from tests.fakes.signing import CHAIN
from tests.fakes.till import Till, open_till


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[Till]:
    with open_till(database, bitcoind, tmp_path) as opened:
        yield opened


class Answering:
    """The till's signer, which answers to signing as the test says."""

    def __init__(self, till: Till, error: Exception, txid: str | None = None) -> None:
        self.inner, self.error, self.asked = till.service, error, 0

    def status(self) -> SignerStatus:
        return self.inner.status()

    def attest(self, request: AttestRequest) -> SignedAttestation:
        return self.inner.attest(request)

    def sign(self, request: SignRequest) -> SignResponse:
        self.asked += 1
        raise self.error


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
