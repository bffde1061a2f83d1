"""Chains of both families as the contract suite sees them: an adapter, and the powers of payers and miners."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import coincurve

from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.script import p2wpkh_script
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh, with_witnesses
from chains.eth.address import checksummed
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.tx import UnsignedTx, address_of_key, nonce_resource
from chains.ports import ChainAdapter
from chains.types import TxId
from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.chain import FakeChain

KEY = coincurve.PrivateKey(bytes(range(1, 33)))
PUBKEY = KEY.public_key.format()
GWEI = 10**9


@dataclass(frozen=True)
class Signed:
    """A transaction of our key, ready to be broadcast."""

    raw: bytes
    txid: TxId
    content: str


@dataclass(frozen=True)
class Spendable:
    """Something that our key can use once, and how it signs the use: with a fee (see `World.fees`), to a script."""

    resource: str
    signed: Callable[[int, bytes], Signed]


class World(Protocol):
    """An adapter, and the powers of payers and miners over its chain."""

    adapter: ChainAdapter
    script: bytes
    """Our key's, to be watched."""
    elsewhere: bytes
    written: tuple[str, str]
    """An address of this network in a form that people use, and its kind."""
    misread: str
    """A text that is no address here, though it looks like one."""
    fees: tuple[int, int]
    """A low fee, and one that replaces it."""

    @abstractmethod
    def pay(self, script: bytes, units: int) -> TxId:
        """Somebody outside pays; it waits for a block."""

    @abstractmethod
    def mine(self, blocks: int) -> None:
        """Blocks with what waits."""

    @abstractmethod
    def reorg(self, depth: int) -> None:
        """Replaces blocks by one more, all empty; what was in the old ones waits again."""

    @abstractmethod
    def bury(self) -> None:
        """Makes the tip as final as it gets."""

    @abstractmethod
    def spendable(self) -> Spendable:
        """Something mined that our key can use."""

    @abstractmethod
    def without_money(self) -> bytes:
        """A well-formed, well-signed transaction that nobody can pay for."""

    @abstractmethod
    def signed_wrongly(self) -> bytes:
        """A transaction whose signature is not that of whose money it spends."""


class BtcWorld(World):
    """What both chains of the Bitcoin family have in common."""

    script = p2wpkh_script(PUBKEY)
    elsewhere = b"\x51\x20" + bytes(range(32))
    written = ("BCRT1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KYGT080", "p2wpkh")
    misread = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    fees = (2_000, 10_000)
    coin_sats = 90_000

    @abstractmethod
    def pay_elsewhere_instead(self, txid: TxId) -> TxId:
        """The payer of a pending payment double-spends it."""

    def bury(self) -> None:
        """On BTC each block counts from the tip."""

    def own_coin(self) -> Outpoint:
        """An output of our key, pending."""
        txid = self.pay(self.script, self.coin_sats)
        [receipt] = self.adapter.observe_pending([txid], {self.script}, set())[txid].receipts
        return Outpoint.parse(receipt.resource)

    def spend(self, coin: Outpoint, fee: int, to: bytes, *, value: int = coin_sats) -> Signed:
        tx = Transaction(2, (TxIn(coin),), (TxOut(self.coin_sats - fee, to),))
        signature = KEY.sign(sighash_p2wpkh(tx, 0, PUBKEY, value), hasher=None) + b"\x01"
        raw = with_witnesses(tx, [[signature, PUBKEY]]).serialize()
        return Signed(raw, tx.txid, tx.txid.hex)

    def spendable(self) -> Spendable:
        coin = self.own_coin()
        self.mine(1)
        return Spendable(coin.resource, lambda fee, to: self.spend(coin, fee, to))

    def without_money(self) -> bytes:
        return self.spend(Outpoint(TxId("ab" * 32), 0), 2_000, self.elsewhere).raw

    def signed_wrongly(self) -> bytes:
        return self.spend(self.own_coin(), 2_000, self.elsewhere, value=self.coin_sats - 1).raw


class FakeBtcWorld(BtcWorld):
    """The chain in memory."""

    def __init__(self) -> None:
        self.chain = FakeChain()
        self.adapter = self.chain

    def pay(self, script: bytes, units: int) -> TxId:
        return self.chain.pay([TxOut(units, script)])

    def pay_elsewhere_instead(self, txid: TxId) -> TxId:
        return self.chain.pay([TxOut(1_000, self.elsewhere)], replaces=txid)

    def mine(self, blocks: int) -> None:
        self.chain.mine(blocks)

    def reorg(self, depth: int) -> None:
        self.chain.reorg(depth)


class BitcoindWorld(BtcWorld):
    """A regtest node."""

    def __init__(self, bitcoind: Bitcoind) -> None:
        self.bitcoind = bitcoind
        self.miner = bitcoind.wallet("miner")
        self.wallet = bitcoind.wallet("payer")
        # The payer has no coinbase outputs: a reorg makes young ones immature, and drops what spends them.
        self.miner.fund()
        self.miner.send_many({self.wallet.address(): 10**7 for _ in range(40)})
        self.miner.mine(10)
        self.node = BitcoinNode("bitcoin-regtest", NETWORKS["regtest"], bitcoind.rpc_url, bitcoind.rest_url)
        self.adapter = self.node

    def pay(self, script: bytes, units: int) -> TxId:
        address = self.bitcoind.rpc("decodescript", script.hex())["address"]
        return TxId(self.wallet.send(address, units))

    def pay_elsewhere_instead(self, txid: TxId) -> TxId:
        address = self.bitcoind.rpc("decodescript", self.elsewhere.hex())["address"]
        options = {"outputs": [{address: "0.00001000"}], "fee_rate": 50}
        return TxId(self.wallet.rpc("bumpfee", txid.hex, options)["txid"])

    def mine(self, blocks: int) -> None:
        self.miner.mine(blocks)

    def reorg(self, depth: int) -> None:
        height = self.bitcoind.rpc("getblockcount")
        self.bitcoind.rpc("invalidateblock", self.bitcoind.rpc("getblockhash", height - depth + 1))
        for _ in range(depth + 1):
            self.bitcoind.rpc("generateblock", self.miner.address(), [])


class AnvilWorld(World):
    """An Ethereum node, read in one of the native modes."""

    script = address_of_key(PUBKEY)
    elsewhere = b"\xee" * 20
    written = ("0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed", "evm")
    misread = "0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
    fees = (20 * GWEI, 40 * GWEI)

    def __init__(self, anvil: Anvil, mode: NativeMode) -> None:
        self.anvil = anvil
        self.payer = anvil.accounts()[0]
        network = EthNetwork(anvil.chain_id, anvil.block_hash(0)[2:], mode)
        self.node = EvmNode("ethereum-devnet", network, anvil.rpc_url, tokens=tuple)
        self.adapter = self.node
        anvil.fund(checksummed(self.script), 10**20)

    def pay(self, script: bytes, units: int) -> TxId:
        return TxId(self.anvil.send_eth(self.payer, checksummed(script), units)[2:])

    def mine(self, blocks: int) -> None:
        self.anvil.mine(blocks)

    def reorg(self, depth: int) -> None:
        removed = self.anvil.reorg(depth)
        self.anvil.mine()
        for raw in removed:
            self.anvil.send_raw(raw)

    def bury(self) -> None:
        self.anvil.finalize()

    def _signed(self, key: coincurve.PrivateKey, nonce: int, fee: int, to: bytes) -> Signed:
        tx = UnsignedTx(self.anvil.chain_id, nonce, fee // 2, fee, 21_000, to, 1_000)
        signed = tx.signed(key.sign_recoverable(tx.signing_hash, hasher=None))
        return Signed(signed.encode(), signed.txid, tx.content)

    def spendable(self) -> Spendable:
        nonce = self.node.nonce(self.script, self.node.tip())
        return Spendable(
            nonce_resource(self.script, nonce), lambda fee, to: self._signed(KEY, nonce, fee, to)
        )

    def without_money(self) -> bytes:
        return self._signed(coincurve.PrivateKey(b"\x07" * 32), 0, 20 * GWEI, self.elsewhere).raw

    def signed_wrongly(self) -> bytes:
        # Of another content: whom the signature belongs to then has no money.
        tx = UnsignedTx(self.anvil.chain_id, 0, GWEI, 20 * GWEI, 21_000, self.elsewhere, 1)
        return tx.signed(KEY.sign_recoverable(bytes(32), hasher=None)).encode()
