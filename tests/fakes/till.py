"""The paying side of a small world: customers with money, orders, the payment steps, and a signer with a real
guard.

Database, node, monitor, guard and journal are real; by default the signer's keys are in this process. Each
till has a key-set of its own, so tills can share one regtest node. Tests drive it step by step, and can look
in between.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from chains.btc.fees import FeeRate
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh, with_witnesses
from chains.ports import BroadcastResult, Presence
from chains.types import TxId
from custody.deposits.addresses import allocate
from custody.deposits.screening import NoScreening
from custody.ledger.audit import audit
from custody.monitor.monitor import Monitor, Options
from custody.reconcile.model import Report
from custody.reconcile.service import reconcile
from custody.signing import repository as transactions
from custody.signing.broadcast import broadcast
from custody.signing.btc.site import BtcSite, btc_site
from custody.signing.build import build
from custody.signing.losses import book_losses
from custody.signing.model import OurTransaction
from custody.signing.sign import sign
from custody.signing.site import Pace
from custody.signing.track import track
from custody.storage import halts
from custody.storage.db import Database
from custody.withdrawals import service
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.routing import route
from custody.withdrawals.screening import clear
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle, Caller
from policies.intent import Order, SignedOrder
from policies.keys import sign_order
from signers.clock import SteadyClock
from signers.journal import Journal
from signers.ports import Signer
from signers.service import SignerService
from signers.trust import PinnedBundle, pin
from signers.wallets import BitcoinWallet
from tests.fakes.api import as_role
from tests.fakes.signing import CHAIN, SoftKeys, World

ASSET = "BTC"
EAGER = Pace(gather_seconds=0, wait_seconds=0, refused_seconds=0, resend_seconds=0, retry_seconds=0)
"""Looks at everything again at once."""


class PricedNode:
    """A node whose fee estimate is the test's: on a shared regtest node, others' payments make the real
    one."""

    def __init__(self, node: BitcoinNode) -> None:
        self.node = node
        self.estimate, self.lowest = FeeRate(1_000), FeeRate(1_000)

    def broadcast(self, raw: bytes) -> BroadcastResult:
        return self.node.broadcast(raw)

    def presence(self, txid: TxId) -> Presence:
        return self.node.presence(txid)

    def raw_transaction(self, txid: TxId, block_hash: str | None = None) -> bytes:
        return self.node.raw_transaction(txid, block_hash)

    def fee_estimate(self, target_blocks: int) -> FeeRate | None:
        return self.estimate

    def mempool_min_feerate(self) -> FeeRate:
        return self.lowest

    def incremental_feerate(self) -> FeeRate:
        return self.node.incremental_feerate()


class Till:
    """One installation, driven by the test.

    Args:
        dsn: superuser's address of a migrated database.
        node: the chain.
        directory: for the signer's files.
        changes: of the bundle, as `World.bundle` takes them.
    """

    def __init__(self, dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> None:
        self.dsn, self.bitcoind, self.directory = dsn, node, directory
        self.outside = node.wallet("outside")
        if self.outside.balance_sats() < 10**9:
            self.outside.fund()
        self.world = self._make_world()
        self.bundle: Bundle = self.world.bundle(**changes)
        self.adapter = BitcoinNode(CHAIN, NETWORKS["regtest"], node.rpc_url, node.rest_url)
        self.node = PricedNode(self.adapter)
        self.pace = EAGER
        self.admin = Database(dsn, application="test", pool_size=2)
        self.db = Database(as_role(dsn, "strongroom_worker"), application="worker", pool_size=4)
        self.api = Database(as_role(dsn, "strongroom_api"), application="api", pool_size=2)
        self._monitor_db = Database(as_role(dsn, "strongroom_monitor"), application="monitor", pool_size=2)
        self._stack = ExitStack()
        session = self._stack.enter_context(self._monitor_db.session())
        self.monitor = Monitor(
            self.adapter,
            session,
            lambda: self.bundle,
            NoScreening(),
            options=Options(held_again_seconds=0, heartbeat_seconds=0),
        )
        self.signer: Signer = self._make_signer()
        self.catch_up()

    def _make_world(self) -> World:
        self.keys = SoftKeys.make(os.urandom(32))
        return World(self.keys.record, now=int(time.time()))

    def _make_signer(self) -> Signer:
        (self.directory / "mark").mkdir(parents=True)
        Journal.create(self.directory / "journal.sqlite", self.directory / "mark" / "journal.mark")
        pin(self.world.root, self.directory / "pinned.json")
        self.bundle_path = self.directory / "bundle.json"
        self.bundle_path.write_bytes(self.world.signed(self.bundle).encode())
        self.journal = Journal.open(
            self.directory / "journal.sqlite", self.directory / "mark" / "journal.mark"
        )
        self.clock = SteadyClock(self.journal.write(lambda book: book.latest))
        self.trust = PinnedBundle(self.bundle_path, self.directory / "pinned.json", self.journal, self.clock)
        wallets = {self.keys.record.id: BitcoinWallet(self.keys)}
        self.service = SignerService(wallets, self.trust, self.journal, self.clock)
        self._stack.callback(self.journal.close)
        return self.service

    def adopt(self, version: int, **changes: Any) -> None:
        """A new bundle for everybody."""
        self.bundle = self.world.bundle(version, **changes)
        self.bundle_path.write_bytes(self.world.signed(self.bundle).encode())
        troubles: list[str] = []
        self.trust.refresh(troubles.append)
        assert troubles == []

    def close(self) -> None:
        self._stack.close()
        for database in (self._monitor_db, self.api, self.db, self.admin):
            database.close()
        self.adapter.close()

    @property
    def site(self) -> BtcSite:
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace)

    @property
    def caller(self) -> Caller:
        return self.bundle.caller("exchange")

    # What customers, callers and the chain do.

    def customer(self, name: str, *deposits_sats: int) -> str:
        """A customer with these credited deposits, one coin each."""
        with self.admin.transaction() as tx:
            tx.execute("INSERT INTO customers (id) VALUES (%s)", [name])
        for units in deposits_sats:
            self.outside.send(self.address(name), units)
        if deposits_sats:
            self.mine(6)
        return name

    def address(self, customer: str) -> str:
        return allocate(self.admin, self.signer, self.bundle, customer, ASSET).address

    def order(self, customer: str, units: int, /, **changes: Any) -> SignedOrder:
        """A signed order to a fresh address outside, unless `changes` say otherwise."""
        fields: dict[str, Any] = {
            "customer": customer,
            "destination": changes.get("destination") or self.outside.address(),
            "fee_ceiling": "100000",
            "expires_at": int(time.time()) + 3600,
        }
        order: Order = self.world.order(units, **(fields | changes))
        return sign_order(order, self.world.caller)

    def request(self, customer: str, units: int, /, **changes: Any) -> Withdrawal:
        """A withdrawal, as the API takes it in."""
        signed = self.order(customer, units, **changes)
        with self.api.transaction() as tx:
            return service.request(tx, signed, self.caller, self.bundle, now=int(time.time()))

    def mine(self, blocks: int) -> list[str]:
        hashes = self.outside.mine(blocks)
        self.catch_up()
        return hashes

    def mine_with(self, *transactions: str) -> str:
        """A block with just these transactions (txids of the mempool, or raw hex), in spite of what else
        waits."""
        address = self.outside.address()
        block = str(self.bitcoind.rpc("generateblock", address, list(transactions))["hash"])
        self.catch_up()
        return block

    def reorg(self, block_hash: str) -> None:
        """Take a block and all after it out of the best chain, until longer ones are mined."""
        self.bitcoind.rpc("invalidateblock", block_hash)

    def catch_up(self) -> None:
        """The monitor reads all there is."""
        for _ in range(1_000):
            if not self.monitor.step():
                return
        raise AssertionError("the monitor does not come to rest")

    def price(self, sat_per_kvb: int, *, mempool_sat_per_kvb: int = 1_000) -> None:
        """What the node estimates from now on, and what its mempool takes at least."""
        self.node.estimate, self.node.lowest = FeeRate(sat_per_kvb), FeeRate(mempool_sat_per_kvb)

    def spend_with_the_key(self, resource: str) -> str:
        """A transaction (hex) that is no version of ours and spends a coin of ours: as if its key had leaked."""
        [coin] = self.query(
            "SELECT r.units, a.branch, a.index FROM receipts r JOIN addresses a ON a.id = r.address_id"
            " WHERE resource = %s",
            resource,
        )
        units = int(coin["units"])
        script = bytes.fromhex(self.bitcoind.rpc("validateaddress", self.outside.address())["scriptPubKey"])
        tx = Transaction(
            2, (TxIn(Outpoint.parse(resource)),), (TxOut(units - min(20_000, units // 2), script),)
        )
        pubkey = self.keys.account.pubkey(coin["branch"], coin["index"])
        _, der = self.keys.sign(coin["branch"], coin["index"], sighash_p2wpkh(tx, 0, pubkey, units))
        return with_witnesses(tx, [[der + b"\x01", pubkey]]).serialize().hex()

    # The payment steps.

    def route(self) -> int:
        return route(self.db, self.bundle, clear, now=int(time.time()))

    def build(self) -> UUID | None:
        return build(self.db, self.site, now=int(time.time()))

    def sign(self) -> list[UUID]:
        return sign(self.db, self.site, self.signer)

    def broadcast(self) -> int:
        return broadcast(self.db, self.site)

    def track(self) -> int:
        return track(self.db, self.site)

    def book_losses(self) -> int:
        return book_losses(self.db, self.site)

    def send(self) -> UUID:
        """Everything up to the mempool, for one transaction."""
        self.route()
        transaction_id = self.build()
        assert transaction_id is not None, [
            row["reason"] for row in self.query("SELECT reason FROM withdrawals")
        ]
        assert self.sign() == [transaction_id]
        self.broadcast()
        return transaction_id

    def settle(self) -> None:
        """Six blocks, and what follows from them."""
        self.mine(6)
        self.track()

    # What there is.

    def query(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        with self.admin.transaction() as tx:
            return tx.all(sql.encode(), params)

    def execute(self, sql: str, *params: Any) -> int:
        with self.admin.transaction() as tx:
            return tx.execute(sql.encode(), params)

    def withdrawal(self, withdrawal_id: UUID) -> Withdrawal:
        with self.admin.transaction() as tx:
            return service.get(tx, withdrawal_id)

    def states(self) -> list[str]:
        return [row["state"] for row in self.query("SELECT state FROM withdrawals ORDER BY created_at, id")]

    def transaction(self, transaction_id: UUID) -> OurTransaction:
        with self.admin.transaction() as tx:
            found = transactions.find(tx, transaction_id)
        assert found is not None
        return found

    def bytes_of(self, transaction_id: UUID, version: int = 1) -> Transaction:
        signed = self.transaction(transaction_id).versions[version - 1].signed
        assert signed is not None
        return Transaction.parse(signed)

    def mempool(self) -> set[str]:
        return set(self.bitcoind.rpc("getrawmempool"))

    def balance(self, customer: str | None, kind: str = "available") -> int:
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE customer_id IS NOT DISTINCT FROM %s AND kind = %s",
            customer,
            kind,
        )
        return sum(int(row["balance"]) for row in rows)

    def alerts(self) -> set[str]:
        return {row["type"] for row in self.query("SELECT type FROM alerts WHERE resolved_at IS NULL")}

    def paid_to(self, address: str) -> int:
        """Satoshis that the best chain has for an address outside, by the node's own word."""
        [found] = self.bitcoind.rpc("scantxoutset", "start", [f"addr({address})"])["unspents"] or [None]
        return 0 if found is None else int(found["amount"] * 10**8)

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that money depends on, to compare before and after what must change nothing."""
        tables = ("withdrawals", "withdrawal_events", "transactions", "transaction_versions", "reservations")
        more = ("ledger_accounts", "ledger_lines", "ledger_holds", "deposits")
        return {table: self.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in (*tables, *more)}

    def reconcile(self) -> Report:
        return reconcile(self.admin, self.bundle, {CHAIN: self.adapter})

    def broken_rules(self) -> set[int]:
        """Which rules of reconciliation do not hold; the identity itself is exact to the satoshi all the time."""
        report = self.reconcile()
        assert [statement.difference_units for statement in report.statements] == [0]
        return {check.number for check in report.checks if not check.ok}

    def halted(self) -> str | None:
        with self.admin.snapshot() as tx:
            return halts.halted(tx, CHAIN)

    def check(self) -> None:
        """What holds at any time, to the satoshi: the ledger is sound, and equals the chain and what is in
        flight."""
        self.catch_up()
        with self.admin.snapshot() as tx:
            assert audit(tx) == []
        report = self.reconcile()
        assert report.ok, report.differences()
        for row in self.query("SELECT id, state, transaction_id FROM withdrawals"):
            if row["state"] == "settled" and row["transaction_id"] is not None:
                assert self.transaction(row["transaction_id"]).state == "final"


@contextmanager
def open_till(dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> Iterator[Till]:
    """A till that is closed in the end, and checked before."""
    till = Till(dsn, node, directory, **changes)
    try:
        yield till
        till.catch_up()
        till.track()
        till.check()
    finally:
        till.close()
