"""What a node has beyond, or below, what blocks explain of an EVM wallet: what is booked, what waits, what alarms."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.types import BlockRef
from custody.reconcile.core import compare, unexplained
from custody.reconcile.model import (
    Facts,
    Foreign,
    NodeBalance,
    Records,
    Report,
    StaleVariance,
    VarianceKind,
    WalletFacts,
    WalletKey,
)

KEY = WalletKey("ethereum", "eth-hot", "ETH", 18)
TIP = BlockRef(50, "ab" * 32)
ANCHOR = BlockRef(40, "cd" * 32)
RECORDS = Records(
    units=1_000,
    final_units=700,
    anchor=ANCHOR,
    keeps_fees=False,
    foreign=(),
    explained_to=-1,
    stale=(),
    variances=2,
)


def report(records: Records, node: NodeBalance, *, ledger: int | None = None) -> Report:
    found = WalletFacts(KEY, records.units if ledger is None else ledger, {}, (), (), (), records)
    return compare(Facts({"ethereum": TIP}, (found,), (), ()), {KEY: node})


def broken(found: Report) -> set[int]:
    return {check.number for check in found.checks if not check.ok}


def test_what_blocks_explain_is_no_difference() -> None:
    found = report(RECORDS, NodeBalance(TIP, 1_000, None))
    assert found.ok
    assert found.bookings == ()


def test_more_than_we_know_waits_until_it_is_final_and_is_then_booked() -> None:
    found = report(RECORDS, NodeBalance(TIP, 1_005, 700))
    assert found.ok
    assert found.statements[0].pending_units == 5
    assert found.bookings == ()
    found = report(RECORDS, NodeBalance(TIP, 1_005, 705))
    assert found.ok
    [booking] = found.bookings
    assert (booking.kind, booking.units, booking.block, booking.number) == (
        VarianceKind.SURPLUS,
        5,
        ANCHOR,
        3,
    )


def test_one_wei_less_than_we_know_is_a_difference_at_once() -> None:
    found = report(RECORDS, NodeBalance(TIP, 999, 700))
    assert broken(found) == {3}
    assert ": -0.000000000000000001 ETH" in found.differences()[0]
    assert found.bookings == ()


def test_a_final_loss_does_not_hide_behind_a_gift_that_is_not_final() -> None:
    found = report(RECORDS, NodeBalance(TIP, 1_000 + 5, 700 - 5))
    assert broken(found) == {3}
    assert found.bookings == ()


def test_what_a_token_is_known_to_keep_is_no_difference_and_is_booked_when_final() -> None:
    keeps = replace(RECORDS, keeps_fees=True)
    found = report(keeps, NodeBalance(TIP, 990, 700))
    assert found.ok
    assert found.statements[0].pending_units == -10
    [booking] = report(keeps, NodeBalance(TIP, 990, 690)).bookings
    assert (booking.kind, booking.units) == (VarianceKind.TOKEN_FEE, -10)


@pytest.mark.parametrize(("height", "booked"), [(41, False), (40, True), (31, True), (30, False)])
def test_a_loss_is_booked_only_by_a_final_foreign_use_that_no_earlier_loss_explains(
    height: int, booked: bool
) -> None:
    records = replace(RECORDS, foreign=(Foreign("0x00:7", "ee" * 32, height),), explained_to=30)
    found = report(records, NodeBalance(TIP, 900, 600))
    assert 3 in broken(found), "paying halts however it is explained"
    kinds = [(each.kind, each.units) for each in found.bookings]
    assert kinds == ([(VarianceKind.LOSS, -100)] if booked else [])


def test_a_foreign_use_is_a_difference_until_it_is_final_even_if_it_took_nothing() -> None:
    use = Foreign("0x00:7", "ee" * 32, 45)
    assert broken(report(replace(RECORDS, foreign=(use,)), NodeBalance(TIP, 1_000, None))) == {7}
    final = replace(RECORDS, foreign=(replace(use, height=40),))
    assert report(final, NodeBalance(TIP, 1_000, None)).ok


def test_nothing_is_booked_before_any_block_is_final() -> None:
    found = report(replace(RECORDS, anchor=None, final_units=0), NodeBalance(TIP, 1_005, None))
    assert found.ok
    assert found.bookings == ()


def test_a_booking_whose_block_is_gone_is_in_the_ledger_and_not_in_what_blocks_explain() -> None:
    stale = StaleVariance(UUID(int=1), 5)
    found = report(replace(RECORDS, stale=(stale,)), NodeBalance(TIP, 1_000, None), ledger=1_005)
    assert found.ok, found.differences()
    assert found.stale == (stale,)
    assert not report(RECORDS, NodeBalance(TIP, 1_000, None), ledger=1_005).ok


@given(
    st.integers(-20, 20),
    st.integers(-20, 20),
    st.booleans(),
    st.lists(st.integers(30, 50), max_size=3),
)
def test_what_is_missing_and_not_a_tokens_fee_is_never_silent(
    now: int, final: int, keeps_fees: bool, uses: list[int]
) -> None:
    foreign = tuple(Foreign("0x00:7", "ee" * 32, height) for height in sorted(uses))
    records = replace(RECORDS, keeps_fees=keeps_fees, foreign=foreign)
    judged = unexplained(KEY, records, NodeBalance(TIP, 1_000 + now, 700 + final))
    assert bool(judged.differences) == ((now < 0 or final < 0) and not keeps_fees)
    if judged.kind is not None:
        assert judged.units == final != 0
        assert (judged.kind is VarianceKind.SURPLUS) == (final > 0)
    # After the booking the same node is explained as far as that goes, and nothing is booked again.
    again = replace(
        records,
        units=records.units + judged.units,
        final_units=records.final_units + judged.units,
        explained_to=ANCHOR.height if judged.kind is VarianceKind.LOSS else records.explained_to,
    )
    after = unexplained(KEY, again, NodeBalance(TIP, 1_000 + now, 700 + final))
    if judged.kind is not None:
        assert after.kind is None


NEXT = replace(KEY, wallet="eth-hot-2")


def two(
    lacks: tuple[int, int], has: tuple[int, int], *, flushes: bool = True, **old: object
) -> tuple[Report, dict[str, list[tuple[VarianceKind, int]]]]:
    """A report on two wallets, what the node has beyond our records of each (at its tip, at the anchor); and what is
    booked."""
    records = replace(RECORDS, **old)  # type: ignore[arg-type]
    wallets = tuple(
        WalletFacts(key, each.units, {}, (), (), (), each) for key, each in ((KEY, records), (NEXT, RECORDS))
    )
    nodes = {
        KEY: NodeBalance(TIP, 1_000 + lacks[0], 700 + lacks[1]),
        NEXT: NodeBalance(TIP, 1_000 + has[0], 700 + has[1]),
    }
    paying = {KEY.wallet: NEXT.wallet} if flushes else {}
    found = compare(Facts({"ethereum": TIP}, wallets, (), (), paying), nodes)
    booked: dict[str, list[tuple[VarianceKind, int]]] = {}
    for each in found.bookings:
        booked.setdefault(each.key.wallet, []).append((each.kind, each.units))
    return found, booked


def test_what_forwarders_paid_into_another_wallet_is_no_difference_and_is_booked_there_when_final() -> None:
    found, booked = two((-100, 0), (100, 0))
    assert found.ok
    assert [each.pending_units for each in found.statements] == [-100, 100]
    assert booked == {}
    found, booked = two((-100, -100), (100, 100))
    assert found.ok
    flushed = VarianceKind.FLUSHED
    assert booked == {"eth-hot": [(flushed, -100)], "eth-hot-2": [(flushed, 100)]}
    assert [each.units for each in found.bookings] == [-100, 100], "what was lost first"


def test_what_did_not_arrive_or_flows_elsewhere_is_missing() -> None:
    found, booked = two((-100, -100), (99, 99))
    assert broken(found) == {3}
    flushed = VarianceKind.FLUSHED
    assert booked == {"eth-hot": [(flushed, -99)], "eth-hot-2": [(flushed, 99)]}, (
        "one wei is missing, not all"
    )
    found, booked = two((-100, -100), (100, 100), flushes=False)
    assert broken(found) == {3}
    assert booked == {"eth-hot-2": [(VarianceKind.SURPLUS, 100)]}
    found, _ = two((100, 100), (-100, -100))
    assert broken(found) == {3}, "nothing flows back"


def test_what_the_next_wallet_has_beyond_that_is_a_surplus_as_ever() -> None:
    found, booked = two((-100, -100), (130, 130))
    assert found.ok
    assert booked["eth-hot-2"] == [(VarianceKind.FLUSHED, 100)], "the rest next time"
    assert found.statements[1].pending_units == 130


def test_a_token_that_keeps_a_part_of_what_is_flushed_is_booked_in_two_steps() -> None:
    found, booked = two((-100, -100), (99, 99), keeps_fees=True)
    assert found.ok
    assert booked["eth-hot"] == [(VarianceKind.FLUSHED, -99)], "and what it kept next time"
    assert found.statements[0].pending_units == -100


@given(st.integers(-200, 200), st.integers(-200, 200))
def test_flushes_make_nothing_of_nothing(lacks: int, has: int) -> None:
    found, _ = two((lacks, lacks), (has, has))
    assert found.ok is (has >= 0 and (lacks >= 0 or has >= -lacks))
