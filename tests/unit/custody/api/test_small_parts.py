"""Cursors, rates, and amounts in events."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.api.views import event_data
from custody.web import paging
from custody.web.errors import InvalidCursor, TooManyRequests
from custody.web.limits import RateLimit
from tests.fakes.api import make_bundle
from tests.fakes.attesting_signer import AttestingSigner

BUNDLE = make_bundle({}, AttestingSigner())


@given(st.text(min_size=1, max_size=60).filter(str.isprintable))
def test_a_cursor_gives_its_position_back_to_its_own_list_only(position: str) -> None:
    cursor = paging.encode("things", position)
    assert paging.decode("things", cursor) == position
    with pytest.raises(InvalidCursor):
        paging.decode("others", cursor)


@given(st.text(max_size=40))
def test_no_text_does_anything_but_decode_or_be_refused(text: str) -> None:
    for decode in (paging.decode, paging.decode_int, paging.decode_uuid):
        with pytest.raises(InvalidCursor):
            decode("things", text)


def test_positions_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(InvalidCursor):
        paging.decode_int("things", paging.encode("things", "9" * 19))
    with pytest.raises(InvalidCursor):
        paging.decode_uuid("things", paging.encode("things", "7"))
    assert paging.decode_int("things", paging.encode("things", "7")) == 7
    assert paging.decode_int("things", None) is None


def test_a_bucket_empties_and_fills_for_each_caller_alone() -> None:
    now = [0.0]
    limit = RateLimit(2, clock=lambda: now[0])
    for _ in range(4):
        limit.take("a")
    with pytest.raises(TooManyRequests):
        limit.take("a")
    limit.take("b")
    now[0] = 0.4
    with pytest.raises(TooManyRequests):
        limit.take("a")
    now[0] = 0.6
    limit.take("a")
    now[0] = 1000.0
    for _ in range(4):
        limit.take("a")
    with pytest.raises(TooManyRequests):
        limit.take("a")


def test_units_in_events_become_decimals_where_the_asset_is_known() -> None:
    assert event_data(BUNDLE, {"asset": "BTC", "units": "-1", "fee_units": "50000", "n": 3}) == {
        "asset": "BTC",
        "amount": "-0.00000001",
        "fee": "0.00050000",
        "n": 3,
    }
    for data in ({"asset": "DOGE", "units": "1"}, {"units": "1"}, {"asset": "BTC", "units": "many"}):
        assert event_data(BUNDLE, data) == data
