"""The paying side of a small world on BTC: customers with money, orders, the payment steps, and a signer with a real
guard.

Database, node, monitor, guard and journal are real; by default the signer's keys are in this process. Each
till has a key-set of its own, so tills can share one regtest node. Tests drive it step by step, and can look
in between.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import UUID

from chains.btc.fees import Evicted, FeeRate
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh, with_witnesses
from chains.ports import BroadcastResult, Presence
from chains.types import TxId
from custody.deposits.addresses import allocate
from custody.monitor.monitor import Options
from custody.signing.btc.site import BtcSite, btc_site
from ops.devnet.bitcoind import Bitcoind
from policies.intent import Order, SignedOrder
from policies.keys import sign_order
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signing import CHAIN, SoftKeys, World
from tests.fakes.teller import EAGER, Teller, opened

__all__ = ["ASSET", "EAGER", "PricedNode", "Till", "open_till"]

ASSET = "BTC"


class PricedNode:
    """A node whose fee estimate is the test's: on a shared regtest node, others' payments make the real
    one."""

    def __init__(self, node: BitcoinNode) -> None:
        self.node = node
        self.estimate, self.lowest = FeeRate(1_000), FeeRate(1_000)

    def broadcast(self, raw: bytes) -> BroadcastResult:
        return self.node.broadcast(raw)

    def test_accept(self, raw: bytes) -> BroadcastResult:
        return self.node.test_accept(raw)

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

    def evicted(self, txid: TxId) -> Evicted | None:
        return self.node.evicted(txid)


class Till(Teller):
    """One installation, driven by the test.

    Args:
        dsn: superuser's address of a migrated database.
        node: the chain.
        directory: for the signer's files.
        changes: of the bundle, as `World.bundle` takes them.
    """

    def __init__(self, dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> None:
        self.bitcoind, self.directory = node, directory
        self.outside = node.wallet("outside")
        if self.outside.balance_sats() < 10**9:
            self.outside.fund()
        self.world = self._make_world()
        adapter = BitcoinNode(CHAIN, NETWORKS["regtest"], node.rpc_url, node.rest_url)
        self.adapter: BitcoinNode
        self.node = PricedNode(adapter)
        quick = Options(held_again_seconds=0, heartbeat_seconds=0)
        super().__init__(dsn, directory, adapter, self.world, self.world.bundle(**changes), quick)

    def _make_world(self) -> World:
        self.keys = SoftKeys.make(os.urandom(32))
        return World(self.keys.record, now=int(time.time()))

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {self.keys.record.id: BitcoinWallet(self.keys)}

    def close(self) -> None:
        super().close()
        self.adapter.close()

    @property
    def site(self) -> BtcSite:
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace)

    # What customers, callers and the chain do.

    def customer(self, name: str, *deposits_sats: int) -> str:
        """A customer with these credited deposits, one coin each."""
        self.enrol(name)
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

    def settle(self) -> None:
        """Six blocks, and what follows from them."""
        self.mine(6)
        self.track()

    # What there is.

    def bytes_of(self, transaction_id: UUID, version: int = 1) -> Transaction:
        signed = self.transaction(transaction_id).versions[version - 1].signed
        assert signed is not None
        return Transaction.parse(signed)

    def mempool(self) -> set[str]:
        return set(self.bitcoind.rpc("getrawmempool"))

    def paid_to(self, address: str) -> int:
        """Satoshis that the best chain has for an address outside, by the node's own word."""
        [found] = self.bitcoind.rpc("scantxoutset", "start", [f"addr({address})"])["unspents"] or [None]
        return 0 if found is None else int(found["amount"] * 10**8)


def open_till(dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> AbstractContextManager[Till]:
    """A till that is closed in the end, and checked before."""
    return opened(Till(dsn, node, directory, **changes))
