"""Following the best chain: what `follow` says for every way in which two chains can relate."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import Reorganised
from chains.ports import Header
from chains.types import BlockRef
from custody.monitor.follow import Behind, Progress, Reorged, Same, Update, follow

SHRINK = 5


def chain(length: int, *, fork: int | None = None, name: str = "a") -> list[Header]:
    """Headers 0 to length-1; above `fork` they belong to the branch `name`."""
    headers: list[Header] = []
    for height in range(length):
        branch = name if fork is not None and height > fork else "trunk"
        block = hashlib.sha256(f"{branch}{height}".encode()).hexdigest()
        headers.append(Header(BlockRef(height, block), headers[-1].ref.hash if headers else "0" * 64, height))
    return headers


def compare(ours: list[Header], theirs: list[Header], *, lowest: int = 0, limit: int = 50) -> Update:
    def known(height: int) -> str | None:
        return ours[height].ref.hash if lowest <= height < len(ours) else None

    def header_at(height: int) -> Header | None:
        return theirs[height] if height < len(theirs) else None

    return follow(ours[-1].ref, lowest, known, header_at, theirs[-1].ref, limit=limit, max_shrink=SHRINK)


def test_the_same_tip_is_the_same() -> None:
    assert compare(chain(5), chain(5)) == Same()


def test_new_blocks_are_progress_bounded_by_the_limit() -> None:
    theirs = chain(20)
    assert compare(chain(5), theirs) == Progress(tuple(theirs[5:]))
    assert compare(chain(5), theirs, limit=3) == Progress(tuple(theirs[5:8]))


def test_a_reorg_connects_at_least_up_to_the_old_height_whatever_the_limit() -> None:
    ours, theirs = chain(30, fork=9, name="a"), chain(40, fork=9, name="b")
    update = compare(ours, theirs, limit=1)
    assert isinstance(update, Reorged)
    assert update.fork == 9
    assert [ref.height for ref in update.undo] == list(range(29, 9, -1))
    assert [header.ref.height for header in update.connect] == list(range(10, 31))


def test_a_node_that_lost_its_last_few_blocks_is_undone_to_what_is_left() -> None:
    ours = chain(10)
    assert compare(ours, chain(10 - SHRINK)) == Reorged(4, tuple(h.ref for h in reversed(ours[5:])), ())


def test_a_node_that_lost_more_blocks_and_has_no_others_is_behind_and_nothing_is_undone() -> None:
    theirs = chain(3)
    assert compare(chain(3 + SHRINK + 1), theirs) == Behind(theirs[-1].ref)
    assert isinstance(compare(chain(9, fork=2, name="a"), chain(4, fork=2, name="b")), Reorged)


def test_a_reorg_below_our_first_block_undoes_all_we_have() -> None:
    ours, theirs = chain(20, fork=3, name="a"), chain(22, fork=3, name="b")
    update = compare(ours, theirs, lowest=10)
    assert isinstance(update, Reorged)
    assert update.fork == 9
    assert [header.ref.height for header in update.connect] == list(range(10, 22))


def test_a_node_below_our_first_block_is_behind() -> None:
    theirs = chain(8, fork=3, name="b")
    assert compare(chain(20, fork=3, name="a"), theirs, lowest=10) == Behind(theirs[-1].ref)


def test_headers_that_do_not_link_are_asked_for_again() -> None:
    mixed = [*chain(7), *chain(10, fork=3, name="b")[7:]]
    with pytest.raises(Reorganised):
        compare(chain(5), mixed)


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 10), st.integers(1, 20))
def test_any_two_chains_meet_again_after_applying_what_follow_says(
    fork: int, mine: int, more: int, lowest: int, limit: int
) -> None:
    ours, theirs = chain(fork + 1 + mine, fork=fork, name="a"), chain(fork + 1 + more, fork=fork, name="b")
    lowest = min(lowest, len(ours) - 1)
    for _ in range(200):
        update = compare(ours, theirs, lowest=lowest, limit=limit)
        match update:
            case Same():
                break
            case Progress(connect):
                assert len(connect) <= limit
                ours = ours + list(connect)
            case Reorged(at, undo, connect):
                assert at == max(fork, lowest - 1)
                assert [h.ref for h in reversed(ours[at + 1 :])] == list(undo)
                ours = theirs[: at + 1] + list(connect)
            case Behind():
                assert len(theirs) <= lowest
                return
    assert ours[lowest:] == theirs[lowest:]
