"""One bitcoind as a `ChainAdapter`, and what else we ask of it: fees, raw transactions, UTXO scans.

Nothing a node says is a decision. Errors are NodeUnavailable where asking again can help, NodeRefused where
it can't, WrongNetwork where nothing may be asked at all.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from chains.btc.address import parse_address
from chains.btc.block import HEADER_BYTES, Block, observe_transaction
from chains.btc.fees import Evicted, FeeRate
from chains.btc.network import BtcNetwork
from chains.btc.node.transport import (
    ALREADY_IN_UTXO_SET,
    INVALID_ADDRESS_OR_KEY,
    INVALID_PARAMETER,
    MISC_ERROR,
    VERIFY_ERROR,
    VERIFY_REJECTED,
    Transport,
)
from chains.btc.script import hash256
from chains.btc.tx import Outpoint, Transaction, TxOut
from chains.errors import InvalidValue, NodeRefused, NodeUnavailable, Reorganised
from chains.eth.network import NativeMode
from chains.ports import BroadcastResult, BroadcastState, Header, Observation, Presence
from chains.types import Address, BlockRef, TxId

MAX_HEADERS: Final = 2_000
"""bitcoind's REST gives at most so many headers at once."""

SCAN_TIMEOUT_SECONDS: Final = 600.0
"""A scan of the whole UTXO set reads gigabytes on main."""

_BATCH: Final = 100
_PAYABLE_OUTPUTS_LOOKED_AT: Final = 4

_KNOWN_REASONS: Final = ("txn-already-known", "txn-already-in-mempool", "txn-same-nonwitness-data-in-mempool")

DEFAULT_MAX_FEERATE: Final = FeeRate(1_000_000)
"""1,000 sat/vB: above it a fee is a mistake."""


@dataclass(frozen=True, slots=True)
class ScanDescriptor:
    """An output descriptor and the last index to try where it has a wildcard."""

    descriptor: str
    last_index: int


@dataclass(frozen=True, slots=True)
class UnspentOutput:
    """An output in the node's UTXO set."""

    resource: str
    units: int
    """Satoshis."""
    script: bytes
    height: int
    coinbase: bool


@dataclass(frozen=True, slots=True)
class UtxoScan:
    """All unspent outputs of some descriptors, exactly at `tip`."""

    tip: BlockRef
    total_sats: int
    unspents: tuple[UnspentOutput, ...]


class BitcoinNode:
    """A bitcoind seen as a `ChainAdapter`. Threads may share it: each gets connections of its own.

    Args:
        chain: id of the network in the bundle.
        network: what the node must follow; checked by genesis on every new connection.
        rpc_url: `http://user:password@host:port`. Never printed.
        rest_url: `http://host:port`, without `/rest`.
        timeout_s: for one answer.
        max_feerate: a transaction above it is not handed on; a last guard against fee mistakes.
    """

    def __init__(
        self,
        chain: str,
        network: BtcNetwork,
        rpc_url: str,
        rest_url: str,
        *,
        timeout_s: float = 30.0,
        max_feerate: FeeRate = DEFAULT_MAX_FEERATE,
    ) -> None:
        self._chain = chain
        self._network = network
        self._transport = Transport(network, rpc_url, rest_url, timeout_s)
        self._max_feerate = max_feerate

    def __repr__(self) -> str:
        return f"BitcoinNode({self._chain!r}, {self._network.name}, rpc_url=[secret])"

    @property
    def chain(self) -> str:
        """Id of the network in the bundle."""
        return self._chain

    @property
    def network(self) -> BtcNetwork:
        """The network whose addresses it reads."""
        return self._network

    def parse_address(self, text: str) -> Address:
        """Read an address of this network. Raises InvalidAddress."""
        return parse_address(text, self._network, self._chain)

    # What follows reads the best chain.

    def tip(self) -> BlockRef:
        """The node's best block now."""
        info = self._transport.call("getblockchaininfo")
        return BlockRef(info["blocks"], info["bestblockhash"])

    def is_synced(self) -> bool:
        """Whether the node has every block it has heard of and isn't in its initial download."""
        info = self._transport.call("getblockchaininfo")
        # A regtest node says "initial download" whenever its last block is a day old.
        downloading = info["initialblockdownload"] and self._network.name != "regtest"
        return bool(info["blocks"] == info["headers"] and not downloading)

    def header_at(self, height: int) -> Header | None:
        """Header of the best chain at `height`, or None above the tip."""
        found = self.headers(height, 1)
        return found[0] if found else None

    def anchor(self, tip: BlockRef) -> int:
        """Confirmations count from the tip: only work upon a block makes it final."""
        return tip.height

    def headers(self, start: int, count: int) -> tuple[Header, ...]:
        """Up to `count` (at most 2,000) headers of the best chain from height `start` on; fewer at the tip.

        Each names the one before as its parent, whatever happens to the chain meanwhile.
        """
        if not 1 <= count <= MAX_HEADERS or start < 0:
            raise InvalidValue(f"{count} headers from {start}: expected 1 to {MAX_HEADERS}, from 0")
        try:
            first = self._transport.call("getblockhash", start)
        except NodeRefused as error:
            if error.code == INVALID_PARAMETER:
                return ()
            raise
        raw = self._transport.get(f"/rest/headers/{first}.bin?count={count}")
        if raw is None or len(raw) % HEADER_BYTES:
            raise NodeUnavailable(f"node {self._chain}: headers from {start} are not readable")
        found = []
        for number, at in enumerate(range(0, len(raw), HEADER_BYTES)):
            header = raw[at : at + HEADER_BYTES]
            ref = BlockRef(start + number, hash256(header)[::-1].hex())
            found.append(Header(ref, header[35:3:-1].hex(), int.from_bytes(header[68:72], "little")))
        return tuple(found)

    def observe_block(
        self,
        ref: BlockRef,
        scripts: Container[bytes],
        resources: Container[str],
        native_mode: NativeMode | None = None,
    ) -> Observation:
        """Read one block by hash; see `chains.btc.block` for what makes it fast. There are no native modes here.

        Raises:
            Reorganised: the node does not have this block (any more, or not yet).
            NodeUnavailable: what came isn't that block.
        """
        return self.block(ref).observe(scripts, resources)

    def block(self, ref: BlockRef) -> Block:
        """One block by hash, its hash and merkle root checked. Raises like `observe_block`."""
        raw = self._transport.get(f"/rest/block/{ref.hash}.bin")
        if raw is None:
            best = self.header_at(ref.height)
            if best is not None and best.ref == ref:
                raise NodeUnavailable(f"node {self._chain} has only the header of block {ref}: is it pruned?")
            raise Reorganised(f"node {self._chain} does not have block {ref}")
        try:
            block = Block.parse(raw)
            if block.hash != ref.hash:
                raise InvalidValue(f"block {block.hash} instead of {ref.hash}")
            block.check_merkle_root()
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}: {error}") from error
        return block

    # What follows concerns the mempool.

    def mempool(self) -> Sequence[TxId]:
        """Ids of the transactions waiting in the node's mempool."""
        return [TxId(txid) for txid in self._transport.call("getrawmempool")]

    def observe_pending(
        self, txids: Iterable[TxId], scripts: Container[bytes], resources: Container[str]
    ) -> dict[TxId, Observation]:
        """Observations of pending transactions; those that left the mempool meanwhile are missing."""
        wanted = list(txids)
        found: dict[TxId, Observation] = {}
        for at in range(0, len(wanted), _BATCH):
            chunk = wanted[at : at + _BATCH]
            answers = self._transport.batch([("getrawtransaction", [txid.hex]) for txid in chunk])
            for txid, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, str):
                    tx = Transaction.parse(bytes.fromhex(answer))
                    found[txid] = observe_transaction(tx, scripts, resources)
        # A node with a transaction index also answers for mined ones; those are not pending.
        waiting = set(self.mempool()) if found else set()
        return {txid: observation for txid, observation in found.items() if txid in waiting}

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand a signed transaction to the node. A failure or timeout proves nothing: record before calling.

        Raises:
            InvalidValue: the bytes aren't a transaction.
        """
        txid = Transaction.parse(raw).txid
        if self._mempool_entry(txid) is not None:
            return BroadcastResult(BroadcastState.ALREADY_KNOWN, "in the mempool")
        try:
            self._transport.call("sendrawtransaction", raw.hex(), _btc_text(self._max_feerate))
        except NodeRefused as error:
            if error.code not in (VERIFY_ERROR, VERIFY_REJECTED, ALREADY_IN_UTXO_SET):
                raise
            known = error.code == ALREADY_IN_UTXO_SET or error.reason.startswith(_KNOWN_REASONS)
            if known or self.presence(txid) is not Presence.UNKNOWN:
                return BroadcastResult(BroadcastState.ALREADY_KNOWN, error.reason)
            return BroadcastResult(BroadcastState.REJECTED, error.reason)
        return BroadcastResult(BroadcastState.ACCEPTED)

    def test_accept(self, raw: bytes) -> BroadcastResult:
        """What the node would say to a broadcast now. Raises InvalidValue like `broadcast`."""
        Transaction.parse(raw)
        [answer] = self._transport.call("testmempoolaccept", [raw.hex()], _btc_text(self._max_feerate))
        if answer["allowed"]:
            return BroadcastResult(BroadcastState.ACCEPTED)
        reason = answer.get("reject-reason", "no reason given")
        known = reason.startswith(_KNOWN_REASONS)
        return BroadcastResult(BroadcastState.ALREADY_KNOWN if known else BroadcastState.REJECTED, reason)

    def presence(self, txid: TxId) -> Presence:
        """Where this node sees a transaction.

        Without a transaction index a node can tell that it was mined only while one of its first outputs
        is unspent; otherwise the answer is UNKNOWN.
        """
        if self._mempool_entry(txid) is not None:
            return Presence.MEMPOOL
        queries: list[tuple[str, list[object]]] = [("getrawtransaction", [txid.hex, 1])]
        queries += [("gettxout", [txid.hex, vout, False]) for vout in range(_PAYABLE_OUTPUTS_LOOKED_AT)]
        indexed, *outputs = self._transport.batch(queries)
        if isinstance(indexed, dict):
            return Presence.MINED if indexed.get("blockhash") else Presence.MEMPOOL
        return Presence.MINED if any(isinstance(output, dict) for output in outputs) else Presence.UNKNOWN

    def raw_transaction(self, txid: TxId, block_hash: str | None = None) -> bytes:
        """A transaction's bytes, from the mempool, or from the block named (or with a transaction index).

        Raises:
            NodeRefused: not found there.
        """
        params: list[object] = [txid.hex, 0] + ([block_hash] if block_hash else [])
        raw = bytes.fromhex(self._transport.call("getrawtransaction", *params))
        if Transaction.parse(raw).txid != txid:
            raise NodeUnavailable(f"node {self._chain}: another transaction instead of {txid}")
        return raw

    def mined(self, txid: TxId, block_hash: str) -> tuple[Transaction, tuple[TxOut, ...]]:
        """A transaction of a block, and the outputs that its inputs spend, in their order, by the node's undo data.

        Raises:
            NodeRefused: it is not in this block, or spends nothing as it is a coinbase.
            NodeUnavailable: the node has not kept the block or its undo data (is it pruned?), or contradicts itself.
        """
        try:
            answer = self._transport.call("getrawtransaction", txid.hex, 2, block_hash)
        except NodeRefused as error:
            if error.code == MISC_ERROR:
                told = f"node {self._chain} has only the header of block {block_hash}: is it pruned?"
                raise NodeUnavailable(told) from error
            raise
        try:
            tx = Transaction.parse(bytes.fromhex(answer["hex"]))
            if any("coinbase" in each for each in answer["vin"]):
                raise NodeRefused(INVALID_ADDRESS_OR_KEY, f"{txid} is a coinbase")
            before = [each["prevout"] for each in answer["vin"]]
            spent = tuple(
                TxOut(_sats(each["value"]), bytes.fromhex(each["scriptPubKey"]["hex"])) for each in before
            )
        except (LookupError, ValueError) as error:
            raise NodeUnavailable(f"node {self._chain}: what {txid} spends is not told: {error!r}") from error
        if tx.txid != txid or len(spent) != len(tx.inputs):
            raise NodeUnavailable(f"node {self._chain}: another transaction instead of {txid}")
        return tx, spent

    # What follows concerns fees and the UTXO set.

    def derive_addresses(self, descriptor: str, count: int) -> tuple[str, ...]:
        """The first addresses of one branch, as the node's own code derives them: a second opinion on ours.

        Args:
            descriptor: with its checksum, of one branch (BIP380).
            count: how many.

        Raises:
            NodeRefused: it cannot read the descriptor.
        """
        return tuple(map(str, self._transport.call("deriveaddresses", descriptor, [0, count - 1])))

    def fee_estimate(self, target_blocks: int) -> FeeRate | None:
        """Feerate at which a transaction is expected to confirm within `target_blocks`; None without data."""
        feerate = self._transport.call("estimatesmartfee", target_blocks).get("feerate")
        return None if feerate is None else _feerate(feerate)

    def mempool_min_feerate(self) -> FeeRate:
        """Lowest feerate that the node takes in now: its relay minimum, or more while its mempool is full."""
        info = self._transport.call("getmempoolinfo")
        return max(_feerate(info["mempoolminfee"]), _feerate(info["minrelaytxfee"]))

    def incremental_feerate(self) -> FeeRate:
        """What each replacement pays beyond the one before, for its relay (rule 4 of BIP125)."""
        return _feerate(self._transport.call("getmempoolinfo")["incrementalrelayfee"])

    def evicted(self, txid: TxId) -> Evicted | None:
        """What a replacement of a transaction pushes out of this node's mempool; None if it is not there."""
        entry = self._mempool_entry(txid)
        if entry is None:
            return None
        return Evicted(int(entry["descendantcount"]), _sats(entry["fees"]["descendant"]))

    def is_unspent(self, resource: str) -> bool:
        """Whether an outpoint (`txid:vout`) is in the node's UTXO set at its tip, whatever waits in the mempool.

        False of one that was spent, and of one that no block has made.

        Raises:
            InvalidValue: no outpoint.
        """
        outpoint = Outpoint.parse(resource)
        return self._transport.call("gettxout", outpoint.txid.hex, outpoint.vout, False) is not None

    def utxo_scan(self, descriptors: Sequence[ScanDescriptor]) -> UtxoScan:
        """Every unspent output of the descriptors, found by the node in its own UTXO set; needs no wallet.

        Raises:
            NodeUnavailable: another scan is running.
        """
        objects = [{"desc": item.descriptor, "range": [0, item.last_index]} for item in descriptors]
        try:
            answer = self._transport.call_slow(
                "scantxoutset", "start", objects, timeout_s=SCAN_TIMEOUT_SECONDS
            )
        except NodeRefused as error:
            if error.code == INVALID_PARAMETER:
                raise NodeUnavailable(f"node {self._chain}: {error.reason}") from error
            raise
        unspents = tuple(
            UnspentOutput(
                Outpoint(TxId(item["txid"]), item["vout"]).resource,
                _sats(item["amount"]),
                bytes.fromhex(item["scriptPubKey"]),
                item["height"],
                item["coinbase"],
            )
            for item in answer["unspents"]
        )
        return UtxoScan(
            BlockRef(answer["height"], answer["bestblock"]), _sats(answer["total_amount"]), unspents
        )

    def close(self) -> None:
        """Closes the calling thread's connections; the next call opens new ones."""
        self._transport.close()

    def _mempool_entry(self, txid: TxId) -> dict[str, Any] | None:
        try:
            entry: dict[str, Any] = self._transport.call("getmempoolentry", txid.hex)
        except NodeRefused as error:
            if error.code == INVALID_ADDRESS_OR_KEY:
                return None
            raise
        return entry


def _sats(amount: Decimal | int) -> int:
    """Satoshis of an amount in BTC as bitcoind gives it, exactly."""
    sats = Decimal(amount).scaleb(8)
    if sats != int(sats):
        raise NodeUnavailable(f"amount {amount} BTC is no whole number of satoshis")
    return int(sats)


def _feerate(btc_per_kvb: Decimal | int) -> FeeRate:
    """A feerate from BTC/kvB, rounded up to whole sat/kvB."""
    return FeeRate(int(Decimal(btc_per_kvb).scaleb(8).to_integral_value(ROUND_CEILING)))


def _btc_text(rate: FeeRate) -> str:
    """A feerate as bitcoind takes it: BTC/kvB with eight decimals."""
    whole, rest = divmod(rate.sat_per_kvb, 100_000_000)
    return f"{whole}.{rest:08d}"
