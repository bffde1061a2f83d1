"""Reading blocks again from a height, to add what is missing, e.g. after an address was repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue, Reorganised
from chains.ports import ChainAdapter, Header
from custody.deposits import service as deposits
from custody.deposits.attestation import Prover
from custody.monitor import repository
from custody.monitor.observe import Attributed, attribute, read_blocks
from custody.monitor.repository import Known
from custody.monitor.watch import ResourceSet, Watch
from custody.screening.ports import Screening
from custody.storage.db import Session, Tx
from custody.storage.events import emit
from policies.bundle import Bundle

_BLOCKS_AT_ONCE: Final = 50


@dataclass(frozen=True, slots=True)
class Added:
    """What a rescan found missing."""

    blocks: int = 0
    receipts: int = 0
    consumptions: int = 0
    deposits: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(
            self.blocks + other.blocks,
            self.receipts + other.receipts,
            self.consumptions + other.consumptions,
            self.deposits + other.deposits,
        )


def rescan(
    adapter: ChainAdapter,
    session: Session,
    bundle: Bundle,
    screening: Screening,
    height: int,
    *,
    resource_set: Callable[[], ResourceSet] = set,
    progress: Callable[[int], None] = lambda height: None,
) -> Added:
    """Read the blocks from `height` to the cursor again and add what is missing. Again adds nothing.

    Only by the leader: `session` holds its lock. Following continues from the cursor afterwards as before.
    Nothing is removed here and nothing is credited twice: rows that exist are kept, credits have the
    deposit's identity, and a block is read in the native mode in which it was read before.

    Args:
        adapter: the chain.
        session: holds the leader's lock.
        bundle: in force now.
        screening: asked before a credit.
        height: first block to read, from 0.
        resource_set: makes the set of resources that the adapter scans fastest.
        progress: called with the height reached after each commit.

    Raises:
        InvalidValue: the height is above the cursor, or the chain was never followed.
        Reorganised: our blocks are not the node's best chain: let the monitor follow first.
        NodeUnavailable: also where the node has no traces (any more) of a block that was read by them.
    """
    prover = Prover(bundle)
    with session.transaction() as tx:
        cursor = repository.cursor(tx, adapter.chain)
    if cursor is None or not 0 <= height <= cursor.block.height:
        raise InvalidValue(
            f"rescan from {height}: the monitor of {adapter.chain} is at {cursor and cursor.block}"
        )
    added = Added()
    # From the top down, so that our blocks never have a gap, wherever this ends.
    for top in range(cursor.block.height, height - 1, -_BLOCKS_AT_ONCE):
        bottom = max(height, top - _BLOCKS_AT_ONCE + 1)
        added += _chunk(adapter, session, prover, Watch(adapter.chain, resource_set), bottom, top)
        progress(bottom)
    with session.transaction() as tx:
        facts = deposits.due(tx, adapter.chain, cursor.anchor)
    verdicts = deposits.screen(screening, facts)
    with session.transaction() as tx:
        repository.advance(tx, adapter.chain, cursor, cursor)
        deposits.settle_due(tx, prover, adapter.chain, cursor.anchor, verdicts)
        emit(
            tx, "chain.rescanned", adapter.chain, {"from": height, "to": cursor.block.height, **_data(added)}
        )
    return added


def _chunk(
    adapter: ChainAdapter, session: Session, prover: Prover, watch: Watch, bottom: int, top: int
) -> Added:
    headers: list[Header] = []
    for height in range(bottom, top + 2):  # one more, which must be the child of our last
        header = adapter.header_at(height)
        if header is None and height > top:
            break
        if header is None or (headers and header.previous != headers[-1].ref.hash):
            raise Reorganised(f"the best chain changed at height {height} while it was read")
        headers.append(header)
    chain = adapter.chain
    with session.transaction() as tx:
        _check_ours(tx, chain, headers)
        headers = headers[: top - bottom + 1]
        modes = repository.native_modes(tx, chain, bottom, top)
        watch.refresh(tx)
        watch.resources.update(repository.all_resources(tx, chain))
    sightings = read_blocks(adapter, headers, watch, modes)
    with session.transaction() as tx:
        found = attribute(tx, prover, chain, sightings)
        return _add(tx, prover.bundle, chain, headers, found)


def _check_ours(tx: Tx, chain: str, headers: list[Header]) -> None:
    """Blocks that we have must be these."""
    ours = repository.hashes(tx, chain, headers[0].ref.height, headers[-1].ref.height)
    for header in headers:
        if ours.get(header.ref.height, header.ref.hash) != header.ref.hash:
            raise Reorganised(f"block {header.ref} is not what we have committed: follow first")


def _add(tx: Tx, bundle: Bundle, chain: str, headers: list[Header], found: Attributed) -> Added:
    cursor = repository.cursor(tx, chain)
    assert cursor is not None, "read before"
    before = deposits.count(tx, chain)
    blocks = repository.connect(tx, chain, headers, found.native_modes, known=Known.KEEP)
    repository.pin_native_modes(tx, chain, found.native_modes)
    receipts = repository.insert_receipts(tx, chain, found.receipts, known=Known.KEEP)
    consumptions = repository.insert_consumptions(tx, chain, found.consumptions, known=Known.KEEP)
    deposits.mined(tx, bundle, chain, found.deposits, undone_above=None, anchor=cursor.anchor)
    if not consumptions:
        found.foreign.clear()  # told before, and perhaps explained since
        found.expected.clear()
    found.raise_in(tx)
    return Added(blocks, receipts, consumptions, deposits.count(tx, chain) - before)


def _data(added: Added) -> dict[str, int]:
    return {
        "blocks": added.blocks,
        "receipts": added.receipts,
        "consumptions": added.consumptions,
        "deposits": added.deposits,
    }
