"""Reading one block: two requests, and a few more where much of it concerns us.

The first asks for the block, its token events and its traces; the second, only if something was found, for receipts,
transactions and balances before and after. Whatever comes must name the block that was asked for.

Traces repeat the input of every call, so that for little gas anybody makes a block whose traces are too long for any
node. Such a block is read by balances.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue, NodeRefused, NodeUnavailable, Reorganised
from chains.eth.abi import WORD_BYTES
from chains.eth.address import raw_address
from chains.eth.block import (
    Transfer,
    arriving,
    balance_receipts,
    check_traces,
    consumption,
    flushed,
    native_receipts,
    paid_by_us,
    resource_of,
    sent_by,
    silent,
    silent_execution,
    token_receipts,
    transfers,
    unpaid,
    used_nonces,
)
from chains.eth.erc20 import TRANSFER_TOPIC, balance_of_calldata
from chains.eth.forwarder import ETHER_FLUSHED_TOPIC
from chains.eth.network import NativeMode
from chains.eth.node.safes import SafeReader
from chains.eth.node.transport import METHOD_NOT_FOUND, AnswerTooLong, Call, Limits, Reply, Transport
from chains.eth.watch import WatchedSenders
from chains.eth.wire import Block, Log, MinedTx, Trace, TxReceipt, octets, quantity
from chains.ports import Consumption, Observation, Receipt
from chains.types import BlockRef

_BLOCK: Final[msgspec.json.Decoder[Block | None]] = msgspec.json.Decoder(Block | None)
_LOGS: Final = msgspec.json.Decoder(list[Log])
_TRACES: Final = msgspec.json.Decoder(list[Trace])
_RECEIPT: Final[msgspec.json.Decoder[TxReceipt | None]] = msgspec.json.Decoder(TxReceipt | None)
_TX: Final[msgspec.json.Decoder[MinedTx | None]] = msgspec.json.Decoder(MinedTx | None)
_TEXT: Final = msgspec.json.Decoder(str)

GAS_OF_BALANCE: Final = 500_000
"""What a token may use to tell one balance: far more than those in use do. Nodes allow some 50 million, with which a
single contract could make each block take minutes, or answer with megabytes."""

TRACE_LIMITS: Final = Limits(64 * 1024 * 1024, 10.0)  # float: seconds to wait, no amount
"""Of the answer with a block's traces. Those of ordinary blocks have a few MB and take a second; whoever fills every
block with longer ones must not make us fall behind."""

_TRIES_AT_ONCE: Final = 2
_MOST_TRIES: Final = 6
"""In all, wherever each ended: a node that runs out of memory by tracing a block must be spared it some day."""
_MOST_REMEMBERED: Final = 1_000

Holding = tuple[bytes, str | None]
"""An address, and the contract of a token; None for the native asset."""

_Use = tuple[MinedTx, TxReceipt]


class Questions:
    """Calls that go to the node together; each has a number by which its reply is found."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._replies: list[Reply] = []

    def ask(self, method: str, *params: Any) -> int:
        """Add a call; returns its number."""
        self.calls.append((method, list(params)))
        return len(self.calls) - 1

    def send(self, transport: Transport, limits: Limits | None = None) -> None:
        """Ask the node, unless there is nothing to ask. Arguments and errors as `Transport.batch` has them."""
        self._replies = transport.batch(self.calls, limits) if self.calls else []

    def __getitem__(self, number: int) -> Reply:
        return self._replies[number]


@dataclass(frozen=True, slots=True)
class _Read:
    """Answers to the first request."""

    block: Block
    claims: list[Transfer]
    traces: list[Trace] | None
    """None where balances are compared."""
    flushes: list[Log]
    """Only where balances are compared."""


class BlockReader:
    """Observes blocks through a node. Threads may share it."""

    def __init__(
        self, transport: Transport, mode: NativeMode, tokens: Callable[[], Iterable[str]], safes: SafeReader
    ) -> None:
        """Reads nothing yet.

        Args:
            transport: to the node.
            mode: how arrivals of the native asset are found.
            tokens: tells the listed contracts (EIP-55); others are never asked for.
            safes: reads what Safes have carried out.
        """
        self._transport = transport
        self._mode = mode
        self._tokens = tokens
        self._safes = safes
        self._tries: dict[str, int] = {}
        """How often the traces of a block were asked for in vain, by its hash."""
        self._last: tuple[str, Mapping[bytes, int]] = ("", {})
        """Hash of the block that was read last, and the balances after it, where balances are compared."""

    def observe(
        self,
        ref: BlockRef,
        scripts: Collection[bytes],
        resources: Container[str],
        mode: NativeMode | None = None,
    ) -> Observation:
        """What one block means to us; see `ChainAdapter.observe_block`.

        Raises:
            Reorganised: the node does not have it (any more).
            InvalidValue: the answers are malformed, or contradict each other.
            NodeUnavailable, NodeRefused: see `Transport`.
        """
        senders = resources if isinstance(resources, WatchedSenders) else None
        contracts = _by_address(tuple(self._tokens()))

        def read(mode: NativeMode) -> _Read:
            return self._read(ref, scripts, senders, contracts, mode)

        if mode is None and self._mode is NativeMode.TRACE:
            first = self._traced(ref, read) or read(NativeMode.BALANCE)
        else:
            first = read(mode or self._mode)
        block, claims, traces = first.block, first.claims, first.traces
        used = NativeMode.BALANCE if traces is None else NativeMode.TRACE
        if ref.height == 0:
            return Observation((), (), used)
        if traces is not None:
            check_traces(traces, block)
            spent = sent_by(senders, traces) if senders else used_nonces(block, resources)
            tokens, uses = self._details(block, claims, spent, scripts)
            native = native_receipts(traces, scripts)
        else:
            left = flushed(first.flushes, scripts)
            tokens, uses = self._details(block, claims, used_nonces(block, resources), scripts)
            # What leaves a Safe by a call within a transaction shows in no event: as for keys, the books find the rest.
            forwarders = [s for s in scripts if senders is None or s not in senders.senders | senders.safes]
            native = self._by_balances(block, forwarders, left, uses)
        if any(resource_of(tx) not in resources for tx, _ in uses):
            raise InvalidValue(f"block {ref}: another sender or nonce than the block says")
        executed = self._safes.executions(senders.safes, ref) if senders else []
        nothing_left = self._unpaid(block, uses, executed, claims, contracts)
        consumptions = [*(consumption(tx, receipt) for tx, receipt in uses), *executed]
        return Observation(
            (*native, *tokens),
            tuple(
                replace(use, succeeded=False) if use.resource in nothing_left else use for use in consumptions
            ),
            used,
        )

    def _traced(self, ref: BlockRef, read: Callable[[NativeMode], _Read]) -> _Read | None:
        """The block with its traces, or None where these cannot be had.

        Whether the node is at fault, and not the block, shows as soon as it is asked for the block without traces.
        """
        for _ in range(_TRIES_AT_ONCE):
            tried = self._tries.pop(ref.hash, 0)
            if tried < _MOST_TRIES:
                try:
                    return read(NativeMode.TRACE)
                except AnswerTooLong:
                    tried = _MOST_TRIES
                except (NodeUnavailable, NodeRefused) as error:
                    if isinstance(error, NodeRefused) and error.code == METHOD_NOT_FOUND:
                        raise  # a node without traces: of the wrong kind
                    tried += 1
            self._tries[ref.hash] = tried
            while len(self._tries) > _MOST_REMEMBERED:
                self._tries.pop(next(iter(self._tries)), None)
        return None

    def _read(
        self,
        ref: BlockRef,
        scripts: Collection[bytes],
        senders: WatchedSenders | None,
        contracts: Mapping[bytes, str],
        mode: NativeMode,
    ) -> _Read:
        """The first request. Raises like `observe`."""
        traced = mode is NativeMode.TRACE
        by_hash = {"blockHash": f"0x{ref.hash}"}
        questions = Questions()
        # Traces tell who sent what, too; then the transactions themselves can stay where they are.
        block_at = questions.ask("eth_getBlockByHash", f"0x{ref.hash}", not (traced and senders))
        tokens_at: int | None = None
        if contracts:
            wanted = {"address": list(contracts.values()), "topics": [TRANSFER_TOPIC]}
            tokens_at = questions.ask("eth_getLogs", {**by_hash, **wanted})
        if traced:
            native_at = questions.ask("trace_block", hex(ref.height))
        else:
            native_at = questions.ask("eth_getLogs", {**by_hash, "topics": [ETHER_FLUSHED_TOPIC]})
        questions.send(self._transport, TRACE_LIMITS if traced else None)

        block = _the_block(questions[block_at], ref)
        if ref.height == 0:
            return _Read(block, [], [] if traced else None, [])
        logs = [] if tokens_at is None else _logs_of(questions[tokens_at], block)
        claims = transfers(logs, scripts, contracts)
        if traced:
            return _Read(block, claims, questions[native_at].read(_TRACES), [])
        return _Read(block, claims, None, _logs_of(questions[native_at], block))

    def balances(self, holdings: Sequence[Holding], block_hash: str) -> list[int]:
        """What each address has after a block, in base units of the native asset or of the token.

        A token that cannot say counts as nothing: what cannot be shown has not arrived.

        Raises:
            NodeUnavailable: the node cannot tell, for it does not have the block or its state.
        """
        questions = Questions()
        for holding in holdings:
            _ask_balance(questions, holding, block_hash)
        questions.send(self._transport)
        return [_units(questions[number], holding) for number, holding in enumerate(holdings)]

    def _details(
        self, block: Block, claims: Sequence[Transfer], spent: Sequence[str], scripts: Collection[bytes]
    ) -> tuple[list[Receipt], list[_Use]]:
        """Receipts of tokens, and the transactions that used nonces with their receipts."""
        coming = arriving(claims, scripts)
        questions = Questions()
        txids = dict.fromkeys([*(claim.txid for claim in coming), *spent])
        receipts_at = {txid: questions.ask("eth_getTransactionReceipt", txid) for txid in txids}
        spent_at = {txid: questions.ask("eth_getTransactionByHash", txid) for txid in spent}
        holdings = dict.fromkeys((claim.to, claim.contract) for claim in coming)
        before_at = {key: _ask_balance(questions, key, block.parent[2:]) for key in holdings}
        after_at = {key: _ask_balance(questions, key, block.hash[2:]) for key in holdings}
        questions.send(self._transport)

        receipts = {txid: _receipt(questions[at], txid, block) for txid, at in receipts_at.items()}
        places = {log.index: place for receipt in receipts.values() for place, log in enumerate(receipt.logs)}
        if any(claim.index not in places or not receipts[claim.txid].succeeded for claim in coming):
            raise InvalidValue(f"block {block.hash}: an event that no receipt has")
        balances = {
            key: (_units(questions[before_at[key]], key), _units(questions[after_at[key]], key))
            for key in holdings
        }
        uses = [(_transaction(questions[at], txid, block), receipts[txid]) for txid, at in spent_at.items()]
        return token_receipts(claims, scripts, balances, places), uses

    def _unpaid(
        self,
        block: Block,
        uses: Sequence[_Use],
        executed: Sequence[Consumption],
        claims: Sequence[Transfer],
        contracts: Mapping[bytes, str],
    ) -> Collection[str]:
        """What our token transfers that did not fail, and moved nothing, have used up."""
        found = [each for tx, receipt in uses if (each := silent(tx, receipt, contracts)) is not None]
        if executed and contracts:
            questions = Questions()
            for use in executed:
                questions.ask("eth_getTransactionByHash", f"0x{use.txid.hex}")
            questions.send(self._transport)
            for number, use in enumerate(executed):
                tx = _transaction(questions[number], f"0x{use.txid.hex}", block)
                each = silent_execution(use, tx, claims, contracts)
                found += [] if each is None else [each]
        if not found:
            return ()
        holdings = sorted({(each.sender, each.contract) for each in found})
        before = self.balances(holdings, block.parent[2:])
        after = self.balances(holdings, block.hash[2:])
        return unpaid(found, claims, dict(zip(holdings, zip(before, after, strict=True), strict=True)))

    def _by_balances(
        self, block: Block, forwarders: Sequence[bytes], left: Mapping[bytes, int], uses: Sequence[_Use]
    ) -> list[Receipt]:
        known_hash, known = self._last
        if known_hash != block.parent:
            known = {}
        after = self._native_balances(forwarders, block.hash)
        unknown = [address for address in forwarders if address not in known]
        before = {**known, **self._native_balances(unknown, block.parent)}
        self._last = (block.hash, after)
        pairs = {address: (before[address], after[address]) for address in forwarders}
        return balance_receipts(block.hash[2:], pairs, left, paid_by_us(uses))

    def _native_balances(self, addresses: Sequence[bytes], block_hash: str) -> dict[bytes, int]:
        units = self.balances([(address, None) for address in addresses], block_hash[2:])
        return dict(zip(addresses, units, strict=True))


@lru_cache(maxsize=8)
def _by_address(tokens: tuple[str, ...]) -> Mapping[bytes, str]:
    return {raw_address(token): token for token in tokens}


def _ask_balance(questions: Questions, holding: Holding, block_hash: str) -> int:
    """By the block's hash (EIP-1898), so that the answer belongs to it whatever happens to the chain."""
    address, contract = holding
    block = {"blockHash": f"0x{block_hash}"}
    if contract is None:
        return questions.ask("eth_getBalance", f"0x{address.hex()}", block)
    call = {
        "to": contract,
        "data": f"0x{balance_of_calldata(address).hex()}",
        "gas": hex(GAS_OF_BALANCE),
    }
    return questions.ask("eth_call", call, block)


def _units(reply: Reply, holding: Holding) -> int:
    """The balance in an answer; 0 where a token's contract fails, is not there (yet), or talks nonsense."""
    contract, failure = holding[1], reply.failure
    if contract is not None and failure is not None and failure.is_revert:
        return 0
    if failure is not None:
        # Also "unknown block" and "missing state" have codes that other errors have too.
        raise NodeUnavailable(f"{reply.method}: {failure.message[:300]} ({failure.code})")
    if contract is None:
        return quantity(reply.read(_TEXT))
    answer = octets(reply.read(_TEXT))
    return int.from_bytes(answer[:WORD_BYTES], "big") if len(answer) >= WORD_BYTES else 0


def _the_block(reply: Reply, ref: BlockRef) -> Block:
    block = reply.read(_BLOCK)
    if block is None:
        raise Reorganised(f"the node does not have block {ref}")
    if block.hash != f"0x{ref.hash}" or quantity(block.number) != ref.height:
        raise InvalidValue(f"block {block.number} {block.hash} instead of {ref}")
    return block


def _logs_of(reply: Reply, block: Block) -> list[Log]:
    logs = reply.read(_LOGS)
    if any(log.block != block.hash for log in logs):
        raise InvalidValue(f"events of another block than {block.hash}")
    return logs


def _receipt(reply: Reply, txid: str, block: Block) -> TxReceipt:
    receipt = reply.read(_RECEIPT)
    if receipt is None or receipt.block != block.hash:
        raise Reorganised(f"transaction {txid} is no longer in block {block.hash}")
    if receipt.txid != txid:
        raise InvalidValue(f"receipt of {receipt.txid} instead of {txid}")
    return receipt


def _transaction(reply: Reply, txid: str, block: Block) -> MinedTx:
    tx = reply.read(_TX)
    if tx is None or tx.block != block.hash:
        raise Reorganised(f"transaction {txid} is no longer in block {block.hash}")
    if tx.hash != txid:
        raise InvalidValue(f"transaction {tx.hash} instead of {txid}")
    return tx
