"""Ids: new ones sort by time, derived ones are the same each time."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.ids import derived_id, new_id


def test_new_ids_are_version_7_of_the_rfc_variant_and_all_different() -> None:
    made = [new_id() for _ in range(2000)]
    assert len(set(made)) == len(made)
    assert {id.version for id in made} == {7}
    assert {id.variant for id in made} == {"specified in RFC 4122"}


def test_new_ids_carry_the_time_and_sort_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1_645_557_742_000_000_000  # the example of RFC 9562, appendix A.6
    times = [moment, moment + 1_000, moment + 999_999, moment + 1_000_000, moment + 10**12]
    made = []
    for now in times:
        monkeypatch.setattr("custody.ids.time.time_ns", lambda now=now: now)
        made.append(new_id())
    assert str(made[0]).startswith("017f22e2-79b0-7000-")
    assert made == sorted(made)
    assert [id.int >> 80 for id in made] == [now // 1_000_000 for now in times]


def test_a_derived_id_never_changes_between_versions_of_this_code() -> None:
    # Ledger transfers of running systems are named by these: a change would book them twice.
    deposit = UUID("0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b")
    assert str(derived_id("credit", deposit, 1)) == "19d00c89-8954-57fa-aca4-d842adb4de22"


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_derived_ids_are_equal_exactly_when_their_parts_are(a: list[str], b: list[str]) -> None:
    assert (derived_id(*a) == derived_id(*b)) == (a == b)
