"""One EVM node as a `ChainAdapter`, and what else we ask of it: balances, nonces, gas and its price.

Nothing a node says is a decision. Errors are NodeUnavailable where asking again can help, NodeRefused where
it can't, WrongNetwork where nothing may be asked at all.

A public mempool is not followed: most of what pays us is never seen there, and nothing is decided by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Sequence
from typing import Final

import msgspec

from chains.errors import InvalidValue, NodeRefused, NodeUnavailable, Reorganised
from chains.eth.address import parse_address
from chains.eth.call import Call, Reverted
from chains.eth.gas import GasPrice
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node.reader import BlockReader, Holding, Questions
from chains.eth.node.safes import SafeReader
from chains.eth.node.transport import METHOD_NOT_FOUND, Transport
from chains.eth.tx import SignedTx
from chains.eth.wire import BlockHeader, FeeHistory, MinedTx, hash_text, octets, quantity
from chains.ports import BroadcastResult, BroadcastState, Header, Observation, Presence
from chains.types import Address, BlockRef, TxId

MAX_HEADERS: Final = 1_000
"""Most headers that are asked for at once."""

DEFAULT_BATCH: Final = 100
"""Calls in one request: the lowest limit among nodes as they come (Erigon)."""

_KNOWN_REASONS: Final = ("already known", "already imported", "known transaction", "alreadyknown")

_HEADER: Final[msgspec.json.Decoder[BlockHeader | None]] = msgspec.json.Decoder(BlockHeader | None)
_TX: Final[msgspec.json.Decoder[MinedTx | None]] = msgspec.json.Decoder(MinedTx | None)
_FEES: Final = msgspec.json.Decoder(FeeHistory)
_TEXT: Final = msgspec.json.Decoder(str)


class EvmNode:
    """An EVM node seen as a `ChainAdapter`. Threads may share it: each gets a connection of its own.

    Args:
        chain: id of the network in the bundle.
        network: what the node must follow; checked on every new connection.
        rpc_url: `http(s)://[user:password@]host[:port][/path]`. Never printed.
        tokens: tells the token contracts that are listed now (EIP-55); no other contract's events are read.
        timeout_s: for one answer.
        batch_size: most calls in one request.
    """

    def __init__(
        self,
        chain: str,
        network: EthNetwork,
        rpc_url: str,
        *,
        tokens: Callable[[], Iterable[str]],
        timeout_s: float = 30.0,
        batch_size: int = DEFAULT_BATCH,
    ) -> None:
        self._chain = chain
        self._network = network
        self._transport = Transport(chain, network, rpc_url, timeout_s=timeout_s, batch_size=batch_size)
        self.safes = SafeReader(self._transport, self)
        """What Safes are, and what became of their transactions."""
        self._reader = BlockReader(self._transport, network.native_mode, tokens, self.safes)

    def __repr__(self) -> str:
        return f"EvmNode({self._chain!r}, chain_id={self._network.chain_id}, rpc_url=[secret])"

    @property
    def chain(self) -> str:
        """Id of the network in the bundle."""
        return self._chain

    @property
    def network(self) -> EthNetwork:
        """The network it follows."""
        return self._network

    def parse_address(self, text: str) -> Address:
        """Read an address. Raises InvalidAddress. EVM addresses do not tell their network."""
        return parse_address(text, self._chain)

    # What follows reads the best chain.

    def tip(self) -> BlockRef:
        """The node's best block now."""
        header = self._header("latest")
        if header is None:
            raise NodeUnavailable(f"node {self._chain} has no latest block")
        return header.ref

    def header_at(self, height: int) -> Header | None:
        """Header of the best chain at `height`, or None above the tip."""
        return self._header(hex(height))

    def headers(self, start: int, count: int) -> tuple[Header, ...]:
        """Up to `count` (at most 1,000) headers of the best chain from height `start` on; fewer at the tip.

        Each names the one before as its parent: where the chain changed meanwhile, they end.
        """
        if not 1 <= count <= MAX_HEADERS or start < 0:
            raise InvalidValue(f"{count} headers from {start}: expected 1 to {MAX_HEADERS}, from 0")
        calls = [("eth_getBlockByNumber", [hex(start + n), False]) for n in range(count)]
        found: list[Header] = []
        for reply in self._transport.batch(calls):
            header = self._read_header(reply.read(_HEADER))
            if header is None or (found and header.previous != found[-1].ref.hash):
                break
            found.append(header)
        return tuple(found)

    def anchor(self, tip: BlockRef) -> int:
        """Height of the newest finalised block, at most the tip's; -1 before the first."""
        try:
            header = self._header("finalized")
        except NodeRefused as error:
            if error.code == METHOD_NOT_FOUND:
                raise
            return -1  # go-ethereum: "finalized block not found"
        return -1 if header is None else min(header.ref.height, tip.height)

    def observe_block(
        self,
        ref: BlockRef,
        scripts: Collection[bytes],
        resources: Container[str],
        native_mode: NativeMode | None = None,
    ) -> Observation:
        """Read one block by hash: two requests or a few; see `chains.eth.block` for what counts.

        Receipts are tokens listed in the bundle, as far as balances show that they arrived, and the native asset, by
        traces or by balances. Not seen are payments without a transaction, such as a validator's withdrawals, where
        traces are read, and arrivals at the keys and Safes of `WatchedSenders`, where balances are compared: both are a
        surplus when books and chain are reconciled.

        Anybody can make a block whose traces no node gives: it is read by balances, whatever the chain's mode is, at
        two questions an address of `scripts`, a hundred in a request. With a `native_mode` there is no such choice.

        Raises:
            Reorganised: the node does not have this block (any more, or not yet).
            NodeUnavailable: what came isn't that block, or contradicts itself.
        """
        try:
            return self._reader.observe(ref, scripts, resources, native_mode)
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}, block {ref}: {error}") from error
        except NodeRefused as error:
            if error.code == METHOD_NOT_FOUND:
                raise
            # Such as "unknown block", after a reorg between two requests.
            raise NodeUnavailable(f"node {self._chain}, block {ref}: {error}") from error

    def balances(self, wanted: Sequence[Holding], at: BlockRef) -> list[int]:
        """What addresses (20 bytes) have after a block: of the native asset, or of a token (EIP-55).

        A token that cannot say counts as nothing.

        Raises:
            Reorganised: the node does not have this block (any more).
            NodeUnavailable: the node cannot tell.
        """
        try:
            return self._reader.balances(wanted, at.hash)
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}: {error}") from error
        except NodeUnavailable as error:
            self._check_in_chain(at, error)
            raise

    def balance(self, address: bytes, contract: str | None, at: BlockRef) -> int:
        """One of `balances`. Raises like it."""
        return self.balances([(address, contract)], at)[0]

    def nonce(self, address: bytes, at: BlockRef) -> int:
        """How many transactions an address (20 bytes) has sent up to a block: its next nonce there.

        Raises:
            Reorganised: the node does not have this block (any more).
            NodeUnavailable: the node cannot tell.
        """
        question = ("eth_getTransactionCount", [f"0x{address.hex()}", {"blockHash": f"0x{at.hash}"}])
        [reply] = self._transport.batch([question])
        if reply.failure is not None:
            # Also "unknown block" and "missing state" have codes that other errors have too.
            error = NodeUnavailable(f"node {self._chain}: {reply.failure.message[:300]}")
            self._check_in_chain(at, error)
            raise error
        return self._number(reply.read(_TEXT))

    def code(self, address: bytes, at: BlockRef | None = None) -> bytes:
        """The code at an address (20 bytes) in a block, the latest if none is named; empty where no contract is.

        Raises:
            Reorganised: the node does not have this block (any more).
            NodeUnavailable: the node cannot tell.
        """
        if at is None:
            return self._octets("eth_getCode", f"0x{address.hex()}", "latest")
        question = ("eth_getCode", [f"0x{address.hex()}", {"blockHash": f"0x{at.hash}"}])
        [reply] = self._transport.batch([question])
        if reply.failure is not None:
            error = NodeUnavailable(f"node {self._chain}: {reply.failure.message[:300]}")
            self._check_in_chain(at, error)
            raise error
        return _octets(reply.read(_TEXT), self._chain)

    def storage(self, address: bytes, slot: bytes) -> bytes:
        """The word (32 bytes) in a contract's storage slot (32 bytes)."""
        return self._octets("eth_getStorageAt", f"0x{address.hex()}", f"0x{slot.hex()}", "latest")

    # What follows concerns transactions.

    def mempool(self) -> Sequence[TxId]:
        """Nothing: a public mempool is not followed."""
        return ()

    def observe_pending(
        self, txids: Iterable[TxId], scripts: Collection[bytes], resources: Container[str]
    ) -> dict[TxId, Observation]:
        """Nothing: a public mempool is not followed."""
        return {}

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand a signed transaction to the node. A failure or timeout proves nothing: record before calling.

        Raises:
            InvalidValue: the bytes aren't an EIP-1559 transaction of this network.
            NodeUnavailable: no answer, or not one about this transaction.
        """
        signed = SignedTx.decode(raw)
        if signed.tx.chain_id != self._network.chain_id:
            raise InvalidValue(f"transaction for chain id {signed.tx.chain_id}, not {self._network.chain_id}")
        reply = self._transport.call("eth_sendRawTransaction", f"0x{raw.hex()}")
        if reply.failure is None:
            told = hash_text(reply.read(_TEXT))
            if told != signed.txid.hex:
                raise NodeUnavailable(f"node {self._chain} took {signed.txid} for {told}")
            return BroadcastResult(BroadcastState.ACCEPTED)
        refusal = reply.error(reply.failure)
        reason = reply.failure.message[:300]
        if any(known in reason.lower() for known in _KNOWN_REASONS):
            return BroadcastResult(BroadcastState.ALREADY_KNOWN, reason)
        if isinstance(refusal, NodeUnavailable):
            raise refusal
        # "nonce too low" is also said of what is mined.
        if self.presence(signed.txid) is not Presence.UNKNOWN:
            return BroadcastResult(BroadcastState.ALREADY_KNOWN, reason)
        return BroadcastResult(BroadcastState.REJECTED, reason)

    def presence(self, txid: TxId) -> Presence:
        """Whether this node has the transaction in its mempool or in a block."""
        tx = self._transport.call("eth_getTransactionByHash", f"0x{txid.hex}").read(_TX)
        if tx is None:
            return Presence.UNKNOWN
        return Presence.MEMPOOL if tx.block is None else Presence.MINED

    # What follows concerns gas.

    def gas_price(self) -> GasPrice:
        """The next block's base fee, and the node's suggestion for the priority fee.

        Raises:
            NodeUnavailable: the node has none to tell, or one that no network has.
        """
        questions = Questions()
        fees_at = questions.ask("eth_feeHistory", "0x1", "latest", [])
        priority_at = questions.ask("eth_maxPriorityFeePerGas")
        questions.send(self._transport)
        fees = questions[fees_at].read(_FEES).base_fees
        try:
            if not fees:
                raise InvalidValue("no base fee")
            return GasPrice(quantity(fees[-1]), quantity(questions[priority_at].read(_TEXT)))
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}: {error}") from error

    def estimate_gas(self, call: Call) -> int | Reverted:
        """Gas that a call would take on top of the latest block, or why it would fail."""
        reply = self._transport.call("eth_estimateGas", _call_object(call), "latest")
        if reply.failure is not None:
            refusal = reply.error(reply.failure)
            unanswered = isinstance(refusal, NodeUnavailable) or refusal.code == METHOD_NOT_FOUND
            if unanswered and not reply.failure.is_revert:
                raise refusal
            return Reverted(reply.failure.message[:300])
        return self._number(reply.read(_TEXT))

    def simulate(self, call: Call) -> bytes | Reverted:
        """What a call would return on top of the latest block, or why it would fail."""
        reply = self._transport.call("eth_call", _call_object(call), "latest")
        if reply.failure is not None:
            if not reply.failure.is_revert:
                raise reply.error(reply.failure)
            return Reverted(reply.failure.message[:300])
        return _octets(reply.read(_TEXT), self._chain)

    def close(self) -> None:
        """Closes the calling thread's connection; the next call opens a new one."""
        self._transport.close()

    def _check_in_chain(self, at: BlockRef, error: NodeUnavailable) -> None:
        best = self.header_at(at.height)
        if best is None or best.ref != at:
            raise Reorganised(f"node {self._chain} does not have block {at}") from error

    def _header(self, block: str) -> Header | None:
        return self._read_header(self._transport.call("eth_getBlockByNumber", block, False).read(_HEADER))

    def _read_header(self, header: BlockHeader | None) -> Header | None:
        if header is None:
            return None
        try:
            ref = BlockRef(quantity(header.number), hash_text(header.hash))
            return Header(ref, hash_text(header.parent), quantity(header.time))
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}: {error}") from error

    def _number(self, text: str) -> int:
        try:
            return quantity(text)
        except InvalidValue as error:
            raise NodeUnavailable(f"node {self._chain}: {error}") from error

    def _octets(self, method: str, *params: object) -> bytes:
        return _octets(self._transport.call(method, *params).read(_TEXT), self._chain)


def _call_object(call: Call) -> dict[str, str]:
    return {
        "from": f"0x{call.sender.hex()}",
        "to": f"0x{call.to.hex()}",
        "value": hex(call.value_wei),
        "data": f"0x{call.data.hex()}",
    }


def _octets(text: str, chain: str) -> bytes:
    try:
        return octets(text)
    except InvalidValue as error:
        raise NodeUnavailable(f"node {chain}: {error}") from error
