"""What the trading core says and what the ledger has: exact, whatever is on its way, to the base unit."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.reconcile.trading import CoreBalance, CoreMove, Difference, Ledger, Settled, compare

ALICE = ("alice", "BTC")
ID = uuid4()


def settled(balances: dict[tuple[str, str], int], *moves: CoreMove) -> Settled:
    told = tuple(CoreBalance(*place, str(units)) for place, units in balances.items())
    return Settled(UUID(int=1), 7, True, 7, 0, told, moves)


def ledger(balances: dict[tuple[str, str], int], **changes: Any) -> Ledger:
    return Ledger(**{"balances": balances, "known": True, "behind": {}, "moved": (), **changes})


def move(to: Any, *, applied: bool) -> CoreMove:
    return CoreMove(ID, "alice", "BTC", "30", to, applied)


def test_what_is_the_same_is_no_difference_and_a_single_unit_is_one() -> None:
    assert compare(settled({ALICE: 100}), ledger({ALICE: 100})) == frozenset()
    assert compare(settled({ALICE: 0}), ledger({})) == frozenset()
    found = compare(settled({ALICE: 100}), ledger({ALICE: 101}))
    assert found == {Difference("BTC", "alice", 101, 100)}
    assert compare(settled({}), ledger({ALICE: 1})) == {Difference("BTC", "alice", 1, 0)}
    assert compare(settled({ALICE: 1}), ledger({})) == {Difference("BTC", "alice", 0, 1)}


def test_what_batches_behind_the_cores_place_have_brought_is_taken_off() -> None:
    behind = {ALICE: 5, ("bob", "BTC"): -5}
    balances = {ALICE: 105, ("bob", "BTC"): 45}
    core = settled({ALICE: 100, ("bob", "BTC"): 50})
    assert compare(core, ledger(balances, behind=behind)) == frozenset()


@pytest.mark.parametrize(
    ("to", "applied", "made", "has"),
    [
        ("trading", False, False, 100),
        ("trading", False, True, 130),  # the ledger has it, the core has not
        ("trading", True, True, 100),
        ("funding", True, False, 130),  # the core has debited it, the ledger has not
        ("funding", True, True, 100),
        ("funding", False, False, 100),
        ("funding", False, True, 70),
    ],
)
def test_a_move_that_is_on_one_side_only_is_known(to: str, applied: bool, made: bool, has: int) -> None:
    core = settled({ALICE: 100}, move(to, applied=applied))
    assert compare(core, ledger({ALICE: has}, moved=[ID] if made else [])) == frozenset()
    wrong = ledger({ALICE: has + 1}, moved=[ID] if made else [])
    assert compare(core, wrong) == {Difference("BTC", "alice", has + 1, has)}


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["BTC", "ETH"])), st.integers(0, 10**30)
    ),
    st.integers(-(10**20), 10**20).filter(bool),
)
def test_any_difference_of_any_size_is_found_where_it_is(
    balances: dict[tuple[str, str], int], by: int
) -> None:
    place = ("a", "BTC")
    changed = {**balances, place: balances.get(place, 0) + by}
    (found,) = compare(settled(balances), ledger(changed))
    assert (found.customer, found.asset, found.ledger_units - found.core_units) == (*place, by)
