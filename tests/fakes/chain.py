"""A Bitcoin chain in memory that keeps the same rules towards its callers as a real node.

It knows which outputs exist, refuses to spend missing ones, verifies P2WPKH signatures, lets a higher fee
replace a pending transaction, and puts transactions of disconnected blocks back into its mempool. It passes
`tests/contract/test_chain_adapter.py` together with `BitcoinNode`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field

import coincurve

from chains.btc.address import parse_address
from chains.btc.block import observe_transaction
from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.script import classify, p2wpkh_script
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh
from chains.errors import NodeUnavailable, Reorganised
from chains.eth.network import NativeMode
from chains.ports import BroadcastResult, BroadcastState, Consumption, Header, Observation, Presence
from chains.types import Address, BlockRef, TxId

FAUCET_SCRIPT = b"\x51"
"""Whoever pays from outside spends outputs of this script, which needs no signature."""

COINBASE_SATS = 50 * 10**8


@dataclass(frozen=True)
class _Block:
    header: Header
    transactions: tuple[Transaction, ...]


@dataclass
class FakeChain:
    """A `ChainAdapter` with controls: `pay`, `mine`, `reorg`, `drop`, `go_down`."""

    chain: str = "bitcoin-regtest"
    network: BtcNetwork = NETWORKS["regtest"]
    down: bool = False
    """While True every call raises NodeUnavailable."""
    lose_reply_once: bool = False
    """The next broadcast takes effect, but its caller sees a NodeUnavailable."""
    _blocks: list[_Block] = field(default_factory=list)
    _stale: dict[str, _Block] = field(default_factory=dict)
    _pending: dict[TxId, Transaction] = field(default_factory=dict)
    _serial: int = 0

    def __post_init__(self) -> None:
        genesis = Header(BlockRef(0, self.network.genesis_hash), "0" * 64, 1_296_688_602)
        self._blocks.append(_Block(genesis, ()))

    # The protocol.

    def parse_address(self, text: str) -> Address:
        return parse_address(text, self.network, self.chain)

    def tip(self) -> BlockRef:
        self._check_up()
        return self._blocks[-1].header.ref

    def header_at(self, height: int) -> Header | None:
        self._check_up()
        return self._blocks[height].header if height < len(self._blocks) else None

    def anchor(self, tip: BlockRef) -> int:
        self._check_up()
        return tip.height

    def observe_block(
        self,
        ref: BlockRef,
        scripts: Container[bytes],
        resources: Container[str],
        native_mode: NativeMode | None = None,
    ) -> Observation:
        self._check_up()
        known = {block.header.ref.hash: block for block in self._blocks} | self._stale
        if ref.hash not in known:
            raise Reorganised(f"no block {ref}")
        transactions = known[ref.hash].transactions
        receipts = [r for tx in transactions for r in observe_transaction(tx, scripts, ()).receipts]
        fresh = {receipt.resource for receipt in receipts}
        consumptions = [
            Consumption(resource, tx.txid, content=tx.txid.hex)
            for tx in transactions
            for resource in tx.resources
            if resource in resources or resource in fresh
        ]
        return Observation(tuple(receipts), tuple(consumptions))

    def mempool(self) -> Sequence[TxId]:
        self._check_up()
        return list(self._pending)

    def observe_pending(
        self, txids: Iterable[TxId], scripts: Container[bytes], resources: Container[str]
    ) -> dict[TxId, Observation]:
        self._check_up()
        return {
            txid: observe_transaction(self._pending[txid], scripts, resources)
            for txid in txids
            if txid in self._pending
        }

    def broadcast(self, raw: bytes) -> BroadcastResult:
        tx = Transaction.parse(raw)
        self._check_up()
        if self._where(tx.txid) is not Presence.UNKNOWN:
            result = BroadcastResult(BroadcastState.ALREADY_KNOWN)
        elif reason := self._refusal(tx):
            result = BroadcastResult(BroadcastState.REJECTED, reason)
        else:
            self._accept(tx)
            result = BroadcastResult(BroadcastState.ACCEPTED)
        if self.lose_reply_once:
            self.lose_reply_once = False
            raise NodeUnavailable("the reply was lost")
        return result

    def presence(self, txid: TxId) -> Presence:
        self._check_up()
        return self._where(txid)

    # Controls.

    def pay(self, outputs: Sequence[TxOut], *, replaces: TxId | None = None) -> TxId:
        """Somebody outside sends a transaction; with `replaces`, one that double-spends that pending one."""
        if replaces is None:
            self._serial += 1
            source = Outpoint(TxId(hashlib.sha256(f"faucet {self._serial}".encode()).hexdigest()), 0)
        else:
            source = self._pending[replaces].inputs[0].outpoint
        tx = Transaction(2, (TxIn(source),), tuple(outputs))
        self._accept(tx)
        return tx.txid

    def mine(self, blocks: int = 1, *, only: Container[TxId] | None = None) -> list[BlockRef]:
        """Mine blocks; the first takes what is pending (or `only` those), the others are empty."""
        made = []
        for _ in range(blocks):
            chosen = [txid for txid in self._pending if only is None or txid in only]
            transactions = tuple(self._pending.pop(txid) for txid in chosen)
            made.append(self._append(transactions))
        return made

    def reorg(self, depth: int, *, length: int | None = None) -> list[BlockRef]:
        """Replace the last `depth` blocks by `length` (default one more) empty ones; payments wait again."""
        removed = self._blocks[-depth:]
        del self._blocks[-depth:]
        for block in removed:
            self._stale[block.header.ref.hash] = block
            for tx in block.transactions:
                if not tx.is_coinbase and not self._conflicts(tx):
                    self._pending[tx.txid] = tx
        return [self._append(()) for _ in range(depth + 1 if length is None else length)]

    def drop(self, txid: TxId) -> None:
        """The mempool forgets a transaction."""
        del self._pending[txid]

    # Inside.

    def _check_up(self) -> None:
        if self.down:
            raise NodeUnavailable("the fake node is down")

    def _append(self, transactions: tuple[Transaction, ...]) -> BlockRef:
        self._serial += 1
        height, parent = len(self._blocks), self._blocks[-1].header
        coinbase = Transaction(
            2,
            (TxIn(Outpoint(TxId("0" * 64), 0xFFFF_FFFF), script_sig=self._serial.to_bytes(8, "little")),),
            (TxOut(COINBASE_SATS, FAUCET_SCRIPT),),
        )
        block_hash = hashlib.sha256(f"{parent.ref.hash} {self._serial}".encode()).hexdigest()
        ref = BlockRef(height, block_hash)
        self._blocks.append(
            _Block(Header(ref, parent.ref.hash, parent.time + 600), (coinbase, *transactions))
        )
        return ref

    def _where(self, txid: TxId) -> Presence:
        if txid in self._pending:
            return Presence.MEMPOOL
        mined = any(tx.txid == txid for block in self._blocks for tx in block.transactions)
        return Presence.MINED if mined else Presence.UNKNOWN

    def _spent(self, outpoint: Outpoint) -> bool:
        return any(
            txin.outpoint == outpoint
            for block in self._blocks
            for tx in block.transactions
            for txin in tx.inputs
        )

    def _output(self, outpoint: Outpoint) -> TxOut | None:
        mined = (tx for block in self._blocks for tx in block.transactions)
        for tx in (*mined, *self._pending.values()):
            if tx.txid == outpoint.txid and outpoint.vout < len(tx.outputs):
                return tx.outputs[outpoint.vout]
        return None

    def _conflicts(self, tx: Transaction) -> list[TxId]:
        spent = set(tx.resources)
        return [txid for txid, other in self._pending.items() if spent.intersection(other.resources)]

    def _fee(self, tx: Transaction) -> int:
        """Fee in satoshis; transactions from outside spend outputs we don't know and count as free."""
        sources = [self._output(txin.outpoint) for txin in tx.inputs]
        known = sum(out.units for out in sources if out is not None)
        return known - sum(out.units for out in tx.outputs) if None not in sources else 0

    def _refusal(self, tx: Transaction) -> str:
        for index, txin in enumerate(tx.inputs):
            output = self._output(txin.outpoint)
            if output is None or self._spent(txin.outpoint):
                return "bad-txns-inputs-missingorspent"
            if classify(output.script) == "p2wpkh" and not _signed(tx, index, output):
                return "mandatory-script-verify-flag-failed"
        if self._fee(tx) < tx.vsize:
            return "min relay fee not met"
        if any(self._fee(self._pending[txid]) + tx.vsize > self._fee(tx) for txid in self._conflicts(tx)):
            return "insufficient fee"
        return ""

    def _accept(self, tx: Transaction) -> None:
        for txid in self._conflicts(tx):
            self._forget(txid)
        self._pending[tx.txid] = tx

    def _forget(self, txid: TxId) -> None:
        """Remove a pending transaction and everything that spends it."""
        self._pending.pop(txid, None)
        for other, tx in list(self._pending.items()):
            if any(txin.outpoint.txid == txid for txin in tx.inputs):
                self._forget(other)


def _signed(tx: Transaction, index: int, output: TxOut) -> bool:
    witness = tx.inputs[index].witness
    if len(witness) != 2 or witness[0][-1:] != b"\x01" or p2wpkh_script(witness[1]) != output.script:
        return False
    digest = sighash_p2wpkh(tx, index, witness[1], output.units)
    return coincurve.PublicKey(witness[1]).verify(witness[0][:-1], digest, hasher=None)
