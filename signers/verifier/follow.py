"""Follows a chain on the own node, and remembers what used the resources of open transactions. A reorg is a case here.

Blocks are read forward from where the chain stood at the first start. A resource that is heard of later, and that the
node says is used, is sought backwards from there. So nothing depends on having watched from the beginning.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from chains.errors import InvalidValue, NodeUnavailable, Reorganised
from chains.eth.network import NativeMode
from chains.ports import Consumption, Header
from chains.types import BlockRef
from policies.canonical import decoder_for
from signers.verifier.chains import OwnChain, Spending
from signers.verifier.state import State

AT_ONCE_BLOCKS: Final = 50
"""Read in one step."""
KEPT_BLOCKS: Final = 5_000
"""Hashes that are remembered below the cursor: the deepest reorg whose fork is found."""
CLOCKS_APART_SECONDS: Final = 4 * 3600
"""How far a block's own time may be from the time at which a signer signed what is in it."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a chain was read."""

    block: BlockRef
    anchor: int
    """Height from which confirmations count."""

    def depth(self, height: int) -> int:
        """Confirmations of a block at a height."""
        return max(0, self.anchor - height + 1)


@dataclass(frozen=True, slots=True)
class Use:
    """What used a resource, in the best chain."""

    content: str
    succeeded: bool
    block: BlockRef


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """What a block of the best chain brought to a script under one name."""

    units: str
    """Base units, decimal."""
    contract: str | None
    """Of a token (EIP-55); None: the native asset."""
    also: tuple[str, ...] = ()
    """Other names for the same money, where a block can be read in two ways."""


class Follower:
    """One chain, followed. Threads may share it.

    Args:
        state: where it is remembered.
        chain: the own node.
        lowest: height below which nothing is sought.
    """

    def __init__(self, state: State, chain: OwnChain, lowest: int = 0) -> None:
        self.chain, self.name = chain, chain.name
        self._state, self._lowest = state, lowest
        self._lock = threading.RLock()

    # ----------------------------------------------------------------------------------------- reading forward

    def position(self) -> Position | None:
        """How far it was read; None before the first step."""
        row = self._state.row("SELECT height, hash, anchor FROM cursors WHERE chain = ?", self.name)
        return None if row is None else Position(BlockRef(row[0], row[1]), row[2])

    def step(self) -> bool:
        """Read what is new, a bounded part of it; returns whether there was anything. Again changes nothing.

        Raises:
            NodeUnavailable: no answer, or the node is behind of what it showed before.
            Reorganised: the chain changed while it was read; nothing was taken over.
        """
        with self._lock:
            tip, known = self.chain.tip(), self.position()
            if known is None:
                self._keep([_header(self.chain, tip.height)], [])
                return True
            best = self.chain.header_at(known.block.height)
            if best is None or best.ref != known.block:
                self._rewind(known, tip)
                return True
            return self._forward(known, tip) or self._anchored(known) or self._seek(known)

    def catch_up(self) -> None:
        """Steps until there is nothing new. Raises like `step`."""
        while self.step():
            pass

    def _forward(self, known: Position, tip: BlockRef) -> bool:
        headers: list[Header] = []
        before = known.block.hash
        for height in range(known.block.height + 1, min(tip.height, known.block.height + AT_ONCE_BLOCKS) + 1):
            header = _header(self.chain, height)
            if header.previous != before:
                raise Reorganised(f"{self.name} changed at {height} while it was read")
            headers.append(header)
            before = header.ref.hash
        if not headers:
            return False
        watched = self._watched()
        found: list[tuple[BlockRef, Consumption]] = []
        if self.chain.needs_reading(watched):
            for header in headers:
                found += [(header.ref, use) for use in self.chain.uses(header.ref, watched)]
        self._keep(headers, found)
        return True

    def _anchored(self, known: Position) -> bool:
        """Finality may move on where the tip does not."""
        anchor = self.chain.anchor(known.block)
        if anchor <= known.anchor:
            return False
        self._state.write("UPDATE cursors SET anchor = ? WHERE chain = ?", anchor, self.name)
        return True

    def _keep(self, headers: Sequence[Header], found: Iterable[tuple[BlockRef, Consumption]]) -> None:
        last = headers[-1].ref
        anchor = self.chain.anchor(last)
        with self._state.change():
            self._state.write_many(
                "INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)",
                [(self.name, header.ref.height, header.ref.hash) for header in headers],
            )
            self._state.write(
                "DELETE FROM blocks WHERE chain = ? AND height < ?", self.name, last.height - KEPT_BLOCKS
            )
            self._record(found)
            self._state.write(
                "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)",
                self.name,
                last.height,
                last.hash,
                anchor,
            )

    def _record(self, found: Iterable[tuple[BlockRef, Consumption]]) -> None:
        for block, use in found:
            self._state.write(
                "INSERT OR REPLACE INTO uses VALUES (?, ?, ?, ?, ?, ?)",
                self.name,
                use.resource,
                use.content,
                use.succeeded,
                block.height,
                block.hash,
            )
            self._state.write(
                "UPDATE watched SET sought = NULL WHERE chain = ? AND resource = ?", self.name, use.resource
            )

    def _rewind(self, known: Position, tip: BlockRef) -> None:
        """Forget what stood above the fork."""
        kept = self._state.rows(
            "SELECT height, hash FROM blocks WHERE chain = ? ORDER BY height DESC", self.name
        )
        fork: tuple[int, str] | None = None
        for height, block in kept:
            header = self.chain.header_at(height)
            if header is not None and header.ref.hash == block:
                fork = (height, block)
                break
        lowest = known.block.height if not kept else kept[-1][0]
        if tip.height <= (lowest if fork is None else fork[0]):
            # A reorg has other blocks. A node that has fewer, and no others, lost them and will have them again.
            raise NodeUnavailable(
                f"node {self.name} is at {tip.height}, and was at {known.block.height} before"
            )
        above = -1 if fork is None else fork[0]
        with self._state.change():
            for table in ("blocks", "uses", "proofs", "spendings"):
                self._state.write(f"DELETE FROM {table} WHERE chain = ? AND height > ?", self.name, above)
            self._state.write(
                "UPDATE watched SET sought = ? WHERE chain = ? AND sought > ?", above, self.name, above
            )
            if fork is None:
                self._state.write("DELETE FROM cursors WHERE chain = ?", self.name)
                self._state.write("DELETE FROM watched WHERE chain = ?", self.name)
            else:
                self._state.write(
                    "UPDATE cursors SET height = ?, hash = ?, anchor = min(anchor, ?) WHERE chain = ?",
                    *fork,
                    fork[0],
                    self.name,
                )

    # ------------------------------------------------------------------------------------------------ resources

    def watch(self, resources: Iterable[str], signed_at: Callable[[str], int | None]) -> None:
        """Look for uses of these resources, in blocks to come and, if they are used already, in older ones.

        Args:
            resources: of open transactions; one that no chain of this family has is left out.
            signed_at: when a transaction of ours with this content was signed, None if it is none of ours: what
                spends its outputs cannot be older.

        Raises:
            NodeUnavailable: some may not be watched yet; again is safe.
        """
        with self._lock:
            if self.position() is None:
                self.step()
            known = self.position()
            assert known is not None, "the first step sets it"
            for resource in resources:
                if self.use_of(resource) is not None or self._state.row(
                    "SELECT 1 FROM watched WHERE chain = ? AND resource = ?", self.name, resource
                ):
                    continue
                try:
                    sought = None if self.chain.unused(resource) else known.block.height
                except InvalidValue:
                    continue
                parent = signed_at(resource.partition(":")[0])
                since = 0 if parent is None else parent - CLOCKS_APART_SECONDS
                self._state.write(
                    "INSERT INTO watched VALUES (?, ?, ?, ?)", self.name, resource, sought, since
                )

    def forget(self, resources: Iterable[str]) -> None:
        """These need not be watched any more; what used them stays known."""
        self._state.write_many(
            "DELETE FROM watched WHERE chain = ? AND resource = ?",
            [(self.name, resource) for resource in resources],
        )

    def use_of(self, resource: str) -> Use | None:
        """What used a resource in the best chain, as far as it was read."""
        row = self._state.row(
            "SELECT content, succeeded, height, hash FROM uses WHERE chain = ? AND resource = ?",
            self.name,
            resource,
        )
        return None if row is None else Use(row[0], bool(row[1]), BlockRef(row[2], row[3]))

    def _watched(self) -> list[str]:
        return [row[0] for row in self._state.rows("SELECT resource FROM watched WHERE chain = ?", self.name)]

    def _seek(self, known: Position) -> bool:
        """Read some older blocks for uses of what was used before we heard of it."""
        row = self._state.row("SELECT max(sought) FROM watched WHERE chain = ?", self.name)
        if row is None or row[0] is None:
            return False
        top: int = row[0]
        wanted = self._state.rows(
            "SELECT resource, since FROM watched WHERE chain = ? AND sought = ?", self.name, top
        )
        left = dict(wanted)
        found: list[tuple[BlockRef, Consumption]] = []
        height = top
        while height > top - AT_ONCE_BLOCKS and height >= self._lowest and left:
            header = _header(self.chain, height)
            left = {resource: since for resource, since in left.items() if header.time >= since}
            for use in self.chain.uses(header.ref, left) if left else ():
                if left.pop(use.resource, None) is not None:
                    found.append((header.ref, use))
            height -= 1
        best = self.chain.header_at(known.block.height)
        if best is None or best.ref != known.block:
            raise Reorganised(f"{self.name} changed while older blocks were read")
        with self._state.change():
            self._record(found)
            lower = height if height >= self._lowest else None
            for resource, _ in wanted:
                # What was not found down to its end stays watched in blocks to come.
                self._state.write(
                    "UPDATE watched SET sought = ? WHERE chain = ? AND resource = ? AND sought IS NOT NULL",
                    lower if resource in left else None,
                    self.name,
                    resource,
                )
        return True

    # ------------------------------------------------------------------------------------------------- receipts

    def receipt(self, resource: str, block: BlockRef, script: bytes) -> Arrival | str:
        """A receipt in a block of the best chain, by its identity; or why there is none.

        Raises:
            NodeUnavailable: the node cannot tell now, or has not come that far.
        """
        with self._lock:
            self._reached(block)
            kept = self._state.row(
                "SELECT arrival FROM proofs WHERE chain = ? AND resource = ? AND script = ? AND hash = ?",
                self.name,
                resource,
                script,
                block.hash,
            )
            if kept is not None:
                return decoder_for(Arrival).decode(kept[0])
            if not self._is_best(block):
                return f"block {block} is not in the best chain"
            found = self._read(resource, block, script)
            if isinstance(found, Arrival):
                self._state.write(
                    "INSERT OR REPLACE INTO proofs VALUES (?, ?, ?, ?, ?, ?)",
                    self.name,
                    resource,
                    script,
                    block.height,
                    block.hash,
                    msgspec.json.encode(found),
                )
            return found

    def spending(self, txid: str, block: BlockRef) -> Spending | str:
        """What a transaction in a block of the best chain moved; or why there is none. Raises like `receipt`."""
        with self._lock:
            self._reached(block)
            kept = self._state.row(
                "SELECT moved FROM spendings WHERE chain = ? AND txid = ? AND hash = ?",
                self.name,
                txid,
                block.hash,
            )
            if kept is not None:
                return decoder_for(Spending).decode(kept[0])
            if not self._is_best(block):
                return f"block {block} is not in the best chain"
            found = self.chain.spending(txid, block)
            if found is None:
                return f"block {block} has no such transaction"
            raw = msgspec.json.encode(found)
            self._state.write(
                "INSERT OR REPLACE INTO spendings VALUES (?, ?, ?, ?, ?)",
                self.name,
                txid,
                block.height,
                block.hash,
                raw,
            )
            return found

    def _reached(self, block: BlockRef) -> None:
        known = self.position()
        if known is None or block.height > known.block.height:
            raise NodeUnavailable(f"the own node of {self.name} has not come to block {block.height}")

    def _is_best(self, block: BlockRef) -> bool:
        best = self.chain.header_at(block.height)
        return best is not None and best.ref == block

    def _read(self, resource: str, block: BlockRef, script: bytes) -> Arrival | str:
        mode, modes = self._mode_of(resource), self.chain.modes()
        if mode is not None and mode not in modes:
            return f"native receipts on {self.name} never have names like {resource}"
        # Of tokens it makes no difference, and traces are slow.
        way = NativeMode.BALANCE if mode is None and modes else mode
        found = [each for each in self.chain.receipts(block, script, way) if each.resource == resource]
        if len(found) != 1:
            return f"block {block} brought nothing of that name to the address"
        others: list[str] = []
        for other in modes if mode is not None else ():
            if other is not mode:
                others += self._native_names(block, script, other)
        return Arrival(units=str(found[0].units), contract=found[0].contract, also=tuple(others))

    def _native_names(self, block: BlockRef, script: bytes, mode: NativeMode) -> list[str]:
        """What receipts are called when a block is read in another way. Where it cannot be, nobody can prove them."""
        try:
            found = self.chain.receipts(block, script, mode)
        except (NodeUnavailable, Reorganised):
            return []
        return [each.resource for each in found if each.contract is None]

    def _mode_of(self, resource: str) -> NativeMode | None:
        """The way of reading that names a receipt so; None where there is one only (BTC, tokens)."""
        if not self.chain.modes() or ":log:" in resource:
            return None
        return NativeMode.TRACE if ":trace:" in resource else NativeMode.BALANCE


def _header(chain: OwnChain, height: int) -> Header:
    header = chain.header_at(height)
    if header is None:
        raise Reorganised(f"{chain.name} has no block {height} any more")
    return header


for _kind in (Arrival, Spending):
    decoder_for(_kind)
