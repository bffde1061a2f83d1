"""How the chain that we have committed relates to the node's best chain. Pure but for the two lookups given.

A reorg is a case here, not an error. Blocks that we have and blocks of the best chain agree up to the fork
and differ above it, so the fork is found by galloping down and bisecting: a few lookups, however deep it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from chains.errors import Reorganised
from chains.ports import Header
from chains.types import BlockRef

KnownHash = Callable[[int], str | None]
"""Hash of the block that we have committed at a height, None where we have none."""
HeaderAt = Callable[[int], Header | None]
"""Header of the node's best chain at a height, None above its tip."""


@dataclass(frozen=True, slots=True)
class Same:
    """The node's best block is the last one that we have committed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The best chain goes on from our last block."""

    connect: tuple[Header, ...]
    """The next blocks, lowest first; at least one."""


@dataclass(frozen=True, slots=True)
class Reorged:
    """Blocks that we have committed are no longer in the best chain."""

    fork: int
    """Height of the last block that both chains have; one below our first block if there is none."""
    undo: tuple[BlockRef, ...]
    """What we have above the fork, highest first; at least one."""
    connect: tuple[Header, ...]
    """Blocks of the new branch, lowest first; empty if the node only lost its last few blocks."""


@dataclass(frozen=True, slots=True)
class Behind:
    """The node has only a lower part of what we have: it lost blocks, and has no others instead. Wait."""

    tip: BlockRef


Update = Same | Progress | Reorged | Behind


def follow(
    cursor: BlockRef,
    lowest: int,
    known: KnownHash,
    header_at: HeaderAt,
    tip: BlockRef,
    *,
    limit: int,
    max_shrink: int,
) -> Update:
    """Compare what we have with the node's best chain.

    Args:
        cursor: the last block that we have committed.
        lowest: height of the first block that we have committed.
        known: our hash at each height from `lowest` to `cursor.height`.
        header_at: the node's header at a height.
        tip: the node's best block.
        limit: most blocks to connect at once, at least 1. A reorg also connects up to our old height,
            so that a deposit that both branches hold deep enough never loses its credit.
        max_shrink: most blocks that a node may lose without having others instead. A reorg has others: a node that
            has none was restarted, restored or is being rebuilt, and will have them again. Up to this many are
            followed down, which must be too few to undo anything that was credited or settled.

    Raises:
        Reorganised: the node changed its mind while it was asked; ask again.
    """
    if tip == cursor:
        return Same()
    fork = _fork(cursor, lowest, known, header_at)
    if fork == cursor.height:
        connect = _branch(fork, cursor.hash, header_at, min(tip.height, fork + limit))
        return Progress(connect) if connect else Same()
    if tip.height <= fork and cursor.height - fork > max_shrink:
        return Behind(tip)
    undo = []
    for height in range(cursor.height, fork, -1):
        block = known(height)
        assert block is not None, "blocks are committed without gaps"
        undo.append(BlockRef(height, block))
    parent = known(fork) if fork >= lowest else None
    connect = _branch(fork, parent, header_at, min(tip.height, cursor.height + limit))
    if fork < lowest and not connect:
        return Behind(tip)  # nothing of ours is left and nothing has come instead
    return Reorged(fork, tuple(undo), connect)


def _fork(cursor: BlockRef, lowest: int, known: KnownHash, header_at: HeaderAt) -> int:
    """Height of the highest block that both have, or `lowest - 1`."""

    def shared(height: int) -> bool:
        header = header_at(height)
        return header is not None and header.ref.hash == known(height)

    if shared(cursor.height):
        return cursor.height
    differs, step = cursor.height, 1
    while (below := max(lowest, differs - step)) < differs:
        if shared(below):
            break
        differs, step = below, step * 2
    else:
        return lowest - 1
    agrees = below
    while differs - agrees > 1:
        middle = (agrees + differs) // 2
        if shared(middle):
            agrees = middle
        else:
            differs = middle
    return agrees


def _branch(fork: int, parent: str | None, header_at: HeaderAt, top: int) -> tuple[Header, ...]:
    """Headers above the fork up to `top`, each the child of the one before."""
    headers: list[Header] = []
    for height in range(fork + 1, top + 1):
        header = header_at(height)
        if header is None or (parent is not None and header.previous != parent):
            raise Reorganised(f"the best chain changed at height {height} while it was read")
        headers.append(header)
        parent = header.ref.hash
    return tuple(headers)
