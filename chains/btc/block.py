"""Reading a whole block for what concerns us, as fast as Python allows. Pure.

One pass notes where each transaction lies and slices out every outpoint and script; witnesses are stepped
over. Matching is then set intersection, and only transactions that match are decoded in full.

`Block.check_merkle_root` costs as much again; `node` always calls it on a fresh block, so that what is
credited is proven to be in the block that was asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import compress
from typing import Final

from chains.btc.script import hash256
from chains.btc.tx import Outpoint, Transaction
from chains.errors import InvalidValue
from chains.ports import Consumption, Observation, Receipt
from chains.types import TxId

HEADER_BYTES: Final = 80
MAX_BLOCK_BYTES: Final = 4_000_000
"""A block has at most 4,000,000 weight units, and a byte has at least one."""


class WatchedOutpoints:
    """A set of `txid:vout` that blocks can be scanned against without writing each outpoint as text."""

    __slots__ = ("raw",)

    def __init__(self, resources: Iterable[str] = ()) -> None:
        self.raw: set[bytes] = {Outpoint.parse(resource).raw for resource in resources}
        """The outpoints as the 36 bytes that inputs carry."""

    def add(self, resource: str) -> None:
        """Watch `txid:vout`; again changes nothing. Raises InvalidValue for any other form."""
        self.raw.add(Outpoint.parse(resource).raw)

    def update(self, resources: Iterable[str]) -> None:
        """Watch all of these."""
        self.raw.update(Outpoint.parse(resource).raw for resource in resources)

    def discard(self, resource: str) -> None:
        """Stop watching `txid:vout`, if it was."""
        self.raw.discard(Outpoint.parse(resource).raw)

    def __contains__(self, resource: object) -> bool:
        return isinstance(resource, str) and Outpoint.parse(resource).raw in self.raw

    def __iter__(self) -> Iterator[str]:
        return (Outpoint.from_raw(raw).resource for raw in self.raw)

    def __len__(self) -> int:
        return len(self.raw)


def block_hash(raw: bytes) -> str:
    """Hash of the block's header (64 hex digits).

    Raises:
        InvalidValue: shorter than a header.
    """
    if len(raw) < HEADER_BYTES:
        raise InvalidValue(f"block of {len(raw)} bytes: shorter than its header")
    return hash256(raw[:HEADER_BYTES])[::-1].hex()


@dataclass(frozen=True, slots=True)
class Block:
    """A block cut into pieces, not decoded. Made by `parse`."""

    raw: bytes = field(repr=False)
    _starts: list[int] = field(repr=False)
    """First byte of each transaction, and at last the first byte after all of them."""
    _body_ends: list[int] = field(repr=False)
    """Per transaction: first byte after its outputs, where its witnesses begin if it has any."""
    _outpoints: list[bytes] = field(repr=False)
    """36 bytes of every input, in order."""
    _scripts: list[bytes] = field(repr=False)
    """Script of every output, in order."""
    _input_ends: list[int] = field(repr=False)
    """Per transaction: how many outpoints there are up to its end."""
    _output_ends: list[int] = field(repr=False)
    """Per transaction: how many scripts there are up to its end."""

    @classmethod
    def parse(cls, raw: bytes) -> Block:
        """Cut up a serialised block with witnesses.

        Raises:
            InvalidValue: not exactly one well-formed block.
        """
        if not HEADER_BYTES < len(raw) <= MAX_BLOCK_BYTES:
            raise InvalidValue(f"block of {len(raw)} bytes: expected at most {MAX_BLOCK_BYTES}")
        try:
            return cls(raw, *_walk(raw))
        except IndexError:
            raise InvalidValue(f"block of {len(raw)} bytes ends within a transaction") from None

    @property
    def hash(self) -> str:
        """Hash of its header (64 hex digits)."""
        return block_hash(self.raw)

    @property
    def previous(self) -> str:
        """Hash of its parent (64 hex digits)."""
        return self.raw[35:3:-1].hex()

    def observe(self, scripts: Container[bytes], resources: Container[str]) -> Observation:
        """Receipts to `scripts`, and consumptions of `resources` or of those receipts, in block order.

        Fastest if `scripts` is a set and `resources` is `WatchedOutpoints`: the sets are then intersected
        in C, and Python looks at hits only.

        Raises:
            InvalidValue: a transaction that matches is malformed.
        """
        receipts: list[Receipt] = []
        paying = {bisect_right(self._output_ends, at) for at in _hits(self._scripts, scripts)}
        for position in sorted(paying):
            # A second decoder reads what will be credited; it also checks what the quick one steps over.
            receipts += observe_transaction(self.transaction(position), scripts, ()).receipts

        watched = resources.raw if isinstance(resources, WatchedOutpoints) else _AsText(resources)
        spending = set(_hits(self._outpoints, watched))
        if receipts:
            # Coins that arrive and leave within this block can't be in `resources` yet.
            fresh = {Outpoint.parse(receipt.resource).raw for receipt in receipts}
            spending.update(_hits(self._outpoints, fresh))
        consumptions = []
        for at in sorted(spending):
            txid = TxId(self._txid(bisect_right(self._input_ends, at))[::-1].hex())
            resource = Outpoint.from_raw(self._outpoints[at]).resource
            consumptions.append(Consumption(resource, txid, content=txid.hex))
        return Observation(tuple(receipts), tuple(consumptions))

    def transaction(self, position: int) -> Transaction:
        """The transaction at a position in the block, decoded.

        Raises:
            InvalidValue: it is malformed.
        """
        return Transaction.parse(self.raw[self._starts[position] : self._starts[position + 1]])

    def check_merkle_root(self) -> None:
        """Prove that these are the transactions of the header, so of the block with this hash.

        Witnesses are not covered (they have a root of their own); nothing is concluded from them.

        Raises:
            InvalidValue: they aren't.
        """
        level = [self._txid(position) for position in range(len(self._body_ends))]
        while len(level) > 1:
            if len(level) % 2:
                level.append(level[-1])
            elif level[-1] == level[-2]:
                # CVE-2012-2459: the same root then belongs to two lists of transactions.
                raise InvalidValue(f"block {self.hash} repeats its last transactions")
            pairs = zip(level[::2], level[1::2], strict=True)
            level = [sha256(sha256(left + right).digest()).digest() for left, right in pairs]
        if level[0] != self.raw[36:68]:
            raise InvalidValue(f"block {self.hash}: its transactions don't have the header's merkle root")

    def _txid(self, position: int) -> bytes:
        """Transaction id in hash order (32 bytes): double SHA256 of everything but marker, flag and witnesses."""
        raw, start, end = self.raw, self._starts[position], self._starts[position + 1]
        if raw[start + 4]:
            stripped = raw[start:end]
        else:
            stripped = (
                raw[start : start + 4] + raw[start + 6 : self._body_ends[position]] + raw[end - 4 : end]
            )
        return sha256(sha256(stripped).digest()).digest()


def _hits(found: list[bytes], watched: Container[bytes]) -> Iterable[int]:
    """Positions in `found` of what is watched; for a set, in C."""
    return compress(range(len(found)), map(watched.__contains__, found))


def observe_transaction(tx: Transaction, scripts: Container[bytes], resources: Container[str]) -> Observation:
    """What one transaction means: receipts to `scripts`, and which of `resources` it consumes."""
    txid = tx.txid
    receipts = tuple(
        Receipt(f"{txid.hex}:{vout}", txid, out.script, out.units, coinbase=tx.is_coinbase)
        for vout, out in enumerate(tx.outputs)
        if out.script in scripts
    )
    consumptions = tuple(
        Consumption(resource, txid, content=txid.hex) for resource in tx.resources if resource in resources
    )
    return Observation(receipts, consumptions)


@dataclass(frozen=True, slots=True)
class _AsText:
    """Outpoints of 36 bytes, looked up in a container of texts."""

    resources: Container[str]

    def __contains__(self, raw: object) -> bool:
        return isinstance(raw, bytes) and Outpoint.from_raw(raw).resource in self.resources


_TURNS: Final = tuple(range(count) for count in range(0xFD))
"""Ranges made once: making one costs as much as stepping over an output."""


def _walk(raw: bytes) -> tuple[list[int], list[int], list[bytes], list[bytes], list[int], list[int]]:
    """Step over every transaction; the fields of `Block`. Reading past the end raises IndexError.

    One function with local names only, and no call for the usual one-byte sizes: this loop decides how
    fast a block is read, so it is longer than others.
    """
    starts: list[int] = []
    body_ends: list[int] = []
    outpoints: list[bytes] = []
    scripts: list[bytes] = []
    input_ends: list[int] = []
    output_ends: list[int] = []
    add_outpoint, add_script = outpoints.append, scripts.append
    turns = _TURNS
    end = len(raw)
    count, at = _compact_size(raw, HEADER_BYTES)
    for _ in range(count):
        starts.append(at)
        at += 4
        inputs = raw[at]
        segwit = not inputs
        if segwit:
            if raw[at + 1] != 1:
                raise InvalidValue(f"transaction at byte {at - 4}: unknown marker {raw[at + 1]}")
            at += 2
            inputs = raw[at]
        at += 1
        if inputs < 0xFD:
            each_input = turns[inputs]
        else:
            inputs, at = _compact_size(raw, at - 1)
            each_input = range(inputs)
        for _ in each_input:
            add_outpoint(raw[at : at + 36])
            at += 36
            size = raw[at]
            if size < 0xFD:
                at += size + 5
            else:
                size, at = _compact_size(raw, at)
                at += size + 4
        input_ends.append(len(outpoints))
        outputs = raw[at]
        if outputs < 0xFD:
            each_output = turns[outputs]
            at += 9
        else:
            outputs, at = _compact_size(raw, at)
            each_output = range(outputs)
            at += 8
        for _ in each_output:
            size = raw[at]
            at += 1
            if size >= 0xFD:
                size, at = _compact_size(raw, at - 1)
            add_script(raw[at : at + size])
            at += size + 8
        at -= 8
        output_ends.append(len(scripts))
        body_ends.append(at)
        if segwit:
            for _ in each_input:
                if raw[at] == 2:  # by far the most frequent: a signature and a key
                    size = raw[at + 1]
                    if size < 0xFD:
                        after = raw[at + size + 2]
                        if after < 0xFD:
                            at += size + after + 3
                            continue
                items, at = _compact_size(raw, at)
                for _ in range(items):
                    size = raw[at]
                    at += 1
                    if size >= 0xFD:
                        size, at = _compact_size(raw, at - 1)
                    at += size
        at += 4
        if not inputs or at > end:
            raise InvalidValue(f"transaction of {inputs} inputs ends at byte {at} of {end}")
    if at != end or not count:
        raise InvalidValue(f"block of {end} bytes: {count} transactions end at byte {at}")
    starts.append(end)
    return starts, body_ends, outpoints, scripts, input_ends, output_ends


def _compact_size(raw: bytes, at: int) -> tuple[int, int]:
    """A compact size and the position after it; refused unless in its shortest form."""
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    width = 2 << (first - 0xFD)
    value = int.from_bytes(raw[at + 1 : at + 1 + width], "little")
    if value < (0xFD, 0x1_0000, 0x1_0000_0000)[first - 0xFD] or value > len(raw):
        raise InvalidValue(f"compact size {value} at byte {at}: too large, or not in its shortest form")
    return value, at + 1 + width
