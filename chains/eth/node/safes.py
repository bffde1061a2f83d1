"""What became of Safes' transactions, which nonce was used by what, and what a Safe is: read from one node.

The event of an execution names the hash that owners have signed, and not the nonce. That is counted back from the
Safe's nonce at the tip, by the events since: old blocks' state, which most nodes forget, is never asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import msgspec

from chains.errors import InvalidValue, NodeUnavailable, Reorganised
from chains.eth.abi import WORD_BYTES, address_word, selector, uint_word, word_address
from chains.eth.address import keccak256
from chains.eth.node.transport import Call, Reply, Transport
from chains.eth.safe import EXECUTED, NONCE, safe_resource
from chains.eth.safe_report import FALLBACK_SLOT, GUARD_SLOT, NOBODY, SINGLETON_SLOT, SafeReport
from chains.eth.wire import Log, hash_text, octets, quantity
from chains.ports import Consumption, Header
from chains.types import BlockRef, TxId

_T = TypeVar("_T")
_LOGS: Final = msgspec.json.Decoder(list[Log])
_TEXT: Final = msgspec.json.Decoder(str)
_VERSION: Final = selector("VERSION()")
_OWNERS: Final = selector("getOwners()")
_THRESHOLD: Final = selector("getThreshold()")
_MODULES: Final = (
    selector("getModulesPaginated(address,uint256)") + address_word(bytes(19) + b"\x01") + uint_word(20)
)
_MAX_OWNERS: Final = 1_000
_BLOCKS_AT_ONCE: Final = 2_000
"""So many blocks are looked through in one question: a limit below those of nodes as they come."""


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

    def inspect(self, safe: bytes, at: BlockRef) -> SafeReport:
        """What is at an address (20 bytes) after a block, as it says of itself; see `safe_report.objections`.

        Raises:
            Reorganised: the node does not have this block (any more).
            NodeUnavailable: the node cannot tell, or contradicts itself.
        """
        block = {"blockHash": f"0x{at.hash}"}
        name = f"0x{safe.hex()}"
        code, *slots = self._answers(
            [
                ("eth_getCode", [name, block]),
                *(
                    ("eth_getStorageAt", [name, f"0x{slot.hex()}", block])
                    for slot in (SINGLETON_SLOT, GUARD_SLOT, FALLBACK_SLOT)
                ),
            ],
            at,
        )
        if any(len(slot) != WORD_BYTES for slot in slots):
            raise NodeUnavailable(f"storage of Safe {name}: expected words of {WORD_BYTES} bytes")
        singleton, guard, fallback = (slot[-20:] for slot in slots)
        [behind] = self._answers([("eth_getCode", [f"0x{singleton.hex()}", block])], at)
        hashes = (keccak256(code), keccak256(behind))
        blank = SafeReport(
            safe, hashes[0], singleton, hashes[1], "", (), 0, (), _some(guard), _some(fallback), 0
        )
        if not blank.official:
            return blank
        views = (_VERSION, _OWNERS, _THRESHOLD, _MODULES, NONCE)
        asked: list[Call] = [("eth_call", [{"to": name, "data": f"0x{view.hex()}"}, block]) for view in views]
        version, owners, threshold, modules, nonce = self._answers(asked, at)
        try:
            return replace(
                blank,
                version=_text(version),
                owners=_addresses(owners, WORD_BYTES),
                threshold=_number(threshold),
                modules=_addresses(modules, 2 * WORD_BYTES),
                nonce=_number(nonce),
            )
        except (InvalidValue, UnicodeDecodeError) as error:
            raise NodeUnavailable(f"Safe {name}: {error}") from error

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

    def _answers(self, calls: Sequence[Call], at: BlockRef) -> list[bytes]:
        """What the node answers about a block, as bytes."""
        return [self._answer(reply, at) for reply in self._transport.batch(calls)]

    def _answer(self, reply: Reply, at: BlockRef) -> bytes:
        if reply.failure is not None:
            self._check(at)
            raise NodeUnavailable(f"{reply.method} of a Safe: {reply.failure.message[:300]}")
        return _read(octets, reply.read(_TEXT))

    def _later(self, safe: bytes, block: BlockRef, tip: BlockRef) -> int:
        """How often a Safe has executed after a block, up to the tip."""
        count = 0
        for first in range(block.height + 1, tip.height + 1, _BLOCKS_AT_ONCE):
            last = min(first + _BLOCKS_AT_ONCE - 1, tip.height)
            count += len(self._logs([safe], {"fromBlock": hex(first), "toBlock": hex(last)}, tip))
        return count

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


def _some(address: bytes) -> bytes | None:
    return None if address == NOBODY else address


def _number(answer: bytes) -> int:
    if len(answer) != WORD_BYTES:
        raise InvalidValue(f"{len(answer)} bytes instead of a number")
    return int.from_bytes(answer, "big")


def _text(answer: bytes) -> str:
    """A string that a view returned: its place, its length, itself."""
    length = _number(answer[WORD_BYTES : 2 * WORD_BYTES])
    if len(answer) < 2 * WORD_BYTES + length:
        raise InvalidValue(f"a text of {length} bytes, and only {len(answer)} came")
    return answer[2 * WORD_BYTES : 2 * WORD_BYTES + length].decode()


def _addresses(answer: bytes, head: int) -> tuple[bytes, ...]:
    """An array of addresses that a view returned, behind `head` bytes."""
    count = _number(answer[head : head + WORD_BYTES])
    items = answer[head + WORD_BYTES :]
    if count > _MAX_OWNERS or len(items) < count * WORD_BYTES:
        raise InvalidValue(f"{count} addresses, and {len(items)} bytes came")
    return tuple(word_address(items[n * WORD_BYTES : (n + 1) * WORD_BYTES]) for n in range(count))


def _hash(text: str) -> TxId:
    return TxId(hash_text(text))


def _use(safe: bytes, nonce: int, log: Log) -> Consumption:
    if len(log.topics) != 2 or log.topics[0] not in EXECUTED:
        raise NodeUnavailable(f"an event of Safe 0x{safe.hex()} is not of version 1.4.1")
    txid, content = _read(_hash, log.txid), _read(_hash, log.topics[1])
    return Consumption(safe_resource(safe, nonce), txid, content.hex, EXECUTED[log.topics[0]])
