"""What the chain's facts mean for a transaction: every combination has one verdict, and verdicts come to rest."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.signing.lifecycle import TRANSACTION, TransactionEvent, TransactionState
from custody.signing.model import ConsumptionFact, Version, VersionState
from custody.signing.tracking import (
    Dead,
    Failed,
    Final,
    Mined,
    Moved,
    Stay,
    Undone,
    Verdict,
    judge,
)

S, E = TransactionState, TransactionEvent
A, B = "aa:0", "bb:1"
Place = tuple[str, int, str] | None


def version(number: int, *resources: str) -> Version:
    return Version(
        transaction_id=uuid.UUID(int=1),
        version=number,
        request="",
        unsigned=b"",
        content=f"v{number}",
        resources=frozenset(resources),
        signed=None,
        txid=None,
        fee_units=1,
        feerate=1,
        size=1,
        state=VersionState.BUILT,
        created_at=datetime.fromtimestamp(0, UTC),
    )


V1, V2 = version(1, A), version(2, A, B)


def fact(
    resource: str, content: str, height: int = 100, block: str = "block", *, succeeded: bool = True
) -> ConsumptionFact:
    return ConsumptionFact(
        resource=resource,
        txid=content,
        content=content,
        succeeded=succeeded,
        fee_units=None,
        height=height,
        block_hash=block,
    )


def verdict(
    state: TransactionState,
    *facts: ConsumptionFact,
    place: Place = None,
    tip: int = 100,
    versions: tuple[Version, ...] = (V1, V2),
) -> Verdict:
    consumed = {each.resource: each for each in facts}
    return judge(state, place, versions, consumed, anchor=tip, settle_blocks=6)


def test_without_facts_nothing_happens_to_what_is_unconfirmed() -> None:
    for state in (S.BUILT, S.BROADCAST, S.CONTESTED, S.REFUSED, S.DEAD):
        assert verdict(state) == Stay()


@pytest.mark.parametrize("txid", ["v1", "v2"])
@pytest.mark.parametrize("state", [S.BROADCAST, S.CONTESTED])
def test_any_version_in_a_block_confirms_the_transaction(state: TransactionState, txid: str) -> None:
    mined = fact(A, txid)
    assert verdict(state, mined) == Mined(mined)


def test_a_version_that_is_mined_before_we_have_the_signature_waits_for_it_until_nobody_needs_it() -> None:
    assert verdict(S.BUILT, fact(A, "v1"), tip=104) == Stay()
    assert verdict(S.BUILT, fact(A, "v1"), tip=105) == Mined(fact(A, "v1"))


@pytest.mark.parametrize(("tip", "expected"), [(104, Stay), (105, Final), (200, Final)])
def test_it_is_final_at_the_sixth_confirmation(tip: int, expected: type[Verdict]) -> None:
    assert isinstance(verdict(S.CONFIRMING, fact(A, "v1"), place=("v1", 100, "block"), tip=tip), expected)


def test_a_confirmation_in_another_block_or_of_another_version_is_taken_over() -> None:
    for there in (("v1", 99, "block"), ("v1", 100, "other"), ("v2", 100, "block")):
        assert isinstance(verdict(S.CONFIRMING, fact(A, "v1"), place=there, tip=200), Mined)


@pytest.mark.parametrize("state", [S.CONFIRMING, S.FINAL])
def test_what_is_no_longer_in_a_block_is_undone(state: TransactionState) -> None:
    assert verdict(state, place=("v1", 100, "block")) == Undone()
    assert verdict(state, fact(A, "thief"), place=("v1", 100, "block"), tip=200) == Undone()


def test_a_final_version_that_only_moved_stays_final_if_it_is_deep_enough() -> None:
    moved = fact(A, "v1", 101, "other")
    assert verdict(S.FINAL, moved, place=("v1", 100, "block"), tip=106) == Moved(moved)
    assert verdict(S.FINAL, moved, place=("v1", 100, "block"), tip=105) == Undone()
    assert verdict(S.FINAL, fact(A, "v2"), place=("v1", 100, "block"), tip=200) == Undone()
    assert verdict(S.FINAL, fact(A, "v1"), place=("v1", 100, "block"), tip=100) == Stay()


def test_a_version_whose_receipt_says_that_it_failed_is_dead_when_it_is_final_and_not_before() -> None:
    failed = fact(A, "v1", succeeded=False)
    assert verdict(S.BROADCAST, failed) == Mined(failed)
    assert verdict(S.CONFIRMING, failed, place=("v1", 100, "block"), tip=104) == Stay()
    assert verdict(S.CONFIRMING, failed, place=("v1", 100, "block"), tip=105) == Failed(failed)
    assert verdict(S.FINAL, failed, place=("v1", 99, "block"), tip=200) == Undone()


@pytest.mark.parametrize("state", [S.BUILT, S.BROADCAST, S.CONTESTED])
def test_a_foreign_use_of_a_common_input_is_death_only_when_it_is_final(state: TransactionState) -> None:
    assert verdict(state, fact(A, "thief"), tip=104) == Stay()
    assert isinstance(verdict(state, fact(A, "thief"), tip=105), Dead)


def test_a_foreign_use_of_an_input_that_only_one_version_has_kills_nothing() -> None:
    assert verdict(S.BROADCAST, fact(B, "thief"), tip=200) == Stay()
    assert isinstance(verdict(S.BROADCAST, fact(B, "thief"), tip=200, versions=(V2,)), Dead)


facts = st.dictionaries(
    st.sampled_from([A, B]),
    st.tuples(
        st.sampled_from(["v1", "v2", "thief"]), st.integers(90, 110), st.sampled_from("xy"), st.booleans()
    ),
).map(
    lambda found: {
        r: fact(r, content, height, block, succeeded=succeeded)
        for r, (content, height, block, succeeded) in found.items()
    }
)
places = st.one_of(
    st.none(), st.tuples(st.sampled_from(["v1", "v2"]), st.integers(90, 110), st.sampled_from("xy"))
)


@given(st.sampled_from(S), places, facts, st.integers(90, 130))
def test_verdicts_are_possible_transitions_and_come_to_rest(
    state: TransactionState, place: Place, consumed: dict[str, ConsumptionFact], tip: int
) -> None:
    if state not in (S.CONFIRMING, S.FINAL):
        place = None
    elif place is None:
        place = ("v1", 95, "x")
    for _ in range(6):
        found = judge(state, place, (V1, V2), consumed, anchor=tip, settle_blocks=6)
        match found:
            case Stay():
                return
            case Moved(fact=there):
                assert place is not None
                assert there.txid == place[0]
            case Undone():
                state, place = TRANSACTION.next(state, E.UNDO), None
                continue
            case Dead():
                assert all(each.txid == "thief" for each in found.facts)
                state = TRANSACTION.next(state, E.DIE)
                continue
            case Failed():
                assert not found.fact.succeeded
                state = TRANSACTION.next(state, E.DIE)
                continue
            case Mined(fact=there) | Final(fact=there):
                assert there.txid in ("v1", "v2")
                state = TRANSACTION.next(state, E.MINE if isinstance(found, Mined) else E.FINALISE)
        if isinstance(found, Moved | Mined | Final):
            place = (found.fact.txid, found.fact.height, found.fact.block_hash)
    raise AssertionError("the verdicts do not come to rest")


@given(st.sampled_from([S.BUILT, S.BROADCAST, S.CONTESTED]), facts, st.integers(90, 130))
def test_nothing_is_ever_dead_while_a_version_can_still_confirm(
    state: TransactionState, consumed: dict[str, ConsumptionFact], tip: int
) -> None:
    found = judge(state, None, (V1, V2), consumed, anchor=tip, settle_blocks=6)
    if isinstance(found, Dead):
        for version in (V1, V2):
            lost = [consumed[r] for r in version.resources if r in consumed]
            assert any(each.txid == "thief" and tip - each.height + 1 >= 6 for each in lost)
