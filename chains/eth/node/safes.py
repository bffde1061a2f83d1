"""What became of Safes' transactions: which nonce was used by what, read from one node.

The event of an execution names the hash that owners have signed, and not the nonce. That is counted back from the
Safe's nonce at the tip, by the events since: old blocks' state, which most nodes forget, is never asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeVar

import msgspec

from chains.errors import InvalidValue, NodeUnavailable, Reorganised
from chains.eth.abi import WORD_BYTES
from chains.eth.node.transport import Transport
from chains.eth.safe import EXECUTED, NONCE, safe_resource
from chains.eth.wire import Log, hash_text, octets, quantity
from chains.ports import Consumption, Header
from chains.types import BlockRef, TxId

_T = TypeVar("_T")
_LOGS: Final = msgspec.json.Decoder(list[Log])
_TEXT: Final = msgspec.json.Decoder(str)


class Headers(Protocol):
    """What is asked of the node's best chain."""

    def tip(self) -> BlockRef:
        """Its newest block."""

    def header_at(self, height: int) -> Header | None:
        """The header at a height; None above the tip."""


class SafeReader:
    """Reads Safes on one node.

    Args:
        transport: reaches the node.
        headers: the same node's best chain.
    """

    def __init__(self, transport: Transport, headers: Headers) -> None:
        self._transport, self._headers = transport, headers

    def nonce(self, safe: bytes, at: BlockRef) -> int:
        """The next nonce of a Safe (20 bytes) after a block; 0 where no contract is.

        Raises:
            Reorganised: the node does not have this block (any more).
            NodeUnavailable: the node cannot tell, or what is there is no Safe.
        """
        question = {"to": f"0x{safe.hex()}", "data": f"0x{NONCE.hex()}"}
        [reply] = self._transport.batch([("eth_call", [question, {"blockHash": f"0x{at.hash}"}])])
        if reply.failure is not None:
            self._check(at)
            raise NodeUnavailable(f"nonce of Safe 0x{safe.hex()}: {reply.failure.message[:300]}")
        word = _read(octets, reply.read(_TEXT))
        if len(word) not in (0, WORD_BYTES):
            raise NodeUnavailable(f"nonce of Safe 0x{safe.hex()}: {len(word)} bytes")
        return int.from_bytes(word, "big")

    def executions(self, safes: Collection[bytes], block: BlockRef) -> list[Consumption]:
        """Uses of the nonces of Safes (20 bytes each) in a block; `content` is the hash that owners have signed.

        Raises:
            Reorganised: the node does not have this block (any more), or the chain changed meanwhile.
            NodeUnavailable: the node cannot tell, or contradicts itself.
        """
        if not safes:
            return []
        found: dict[bytes, list[Log]] = defaultdict(list)
        for log in self._logs(safes, {"blockHash": f"0x{block.hash}"}, block):
            if log.block != f"0x{block.hash}":
                raise NodeUnavailable(f"events of another block than {block}")
            found[_read(octets, log.address)].append(log)
        if not found:
            return []
        tip = self._headers.tip()
        uses = []
        for safe, logs in found.items():
            first = self.nonce(safe, tip) - self._later(safe, block, tip) - len(logs)
            if first < 0:
                raise NodeUnavailable(f"Safe 0x{safe.hex()} has fewer nonces than executions")
            ordered = sorted(logs, key=lambda log: _read(quantity, log.index))
            uses += [_use(safe, nonce, log) for nonce, log in enumerate(ordered, start=first)]
        self._check(tip)
        self._check(block)
        return uses

    def _later(self, safe: bytes, block: BlockRef, tip: BlockRef) -> int:
        """How often a Safe has executed after a block, up to the tip."""
        if tip.height <= block.height:
            return 0
        after = {"fromBlock": hex(block.height + 1), "toBlock": hex(tip.height)}
        return len(self._logs([safe], after, tip))

    def _logs(self, safes: Collection[bytes], where: dict[str, str], block: BlockRef) -> Sequence[Log]:
        wanted = {"address": [f"0x{safe.hex()}" for safe in safes], "topics": [list(EXECUTED)]}
        [reply] = self._transport.batch([("eth_getLogs", [{**where, **wanted}])])
        if reply.failure is not None:
            self._check(block)
            raise NodeUnavailable(f"events of Safes: {reply.failure.message[:300]}")
        return reply.read(_LOGS)

    def _check(self, block: BlockRef) -> None:
        best = self._headers.header_at(block.height)
        if best is None or best.ref != block:
            raise Reorganised(f"the node does not have block {block}")


def _read(decode: Callable[[str], _T], text: str) -> _T:
    try:
        return decode(text)
    except InvalidValue as error:
        raise NodeUnavailable(f"events of Safes: {error}") from error


def _hash(text: str) -> TxId:
    return TxId(hash_text(text))


def _use(safe: bytes, nonce: int, log: Log) -> Consumption:
    if len(log.topics) != 2 or log.topics[0] not in EXECUTED:
        raise NodeUnavailable(f"an event of Safe 0x{safe.hex()} is not of version 1.4.1")
    txid, content = _read(_hash, log.txid), _read(_hash, log.topics[1])
    return Consumption(safe_resource(safe, nonce), txid, content.hex, EXECUTED[log.topics[0]])
