"""A body is read in one way only, or not at all."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from custody.web.errors import MalformedBody
from custody.web.strictjson import MAX_INTEGER, read_object

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-MAX_INTEGER, MAX_INTEGER)
    | st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", max_size=3), values, max_size=4))
def test_what_is_written_is_read(value: dict[str, object]) -> None:
    assert read_object(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_parse_or_be_refused(raw: bytes) -> None:
    with contextlib.suppress(MalformedBody):
        assert isinstance(read_object(raw), dict)


@given(st.text('{}[]":,0123456789.eE+-NaInfity \\u', max_size=60))
def test_nothing_that_looks_like_json_does_either(text: str) -> None:
    with contextlib.suppress(MalformedBody):
        assert isinstance(read_object(text.encode()), dict)


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"x":{"a":1,"b":2,"a":3}}',
        '{"a":1.0}',
        '{"a":1e2}',
        '{"a":-0.0}',
        '{"a":NaN}',
        '{"a":-Infinity}',
        f'{{"a":{MAX_INTEGER + 1}}}',
        '{"a":"\\udc00"}',
        '{"\\ud800":1}',
        '{"a":"\\u0000"}',
        "[]",
        "1",
        '"a"',
        "",
        "{" * 100_000,
        '{"a":' * 17 + "1" + "}" * 17,
    ],
)
def test_what_two_parsers_could_read_differently_is_refused(text: str) -> None:
    with pytest.raises(MalformedBody):
        read_object(text.encode())


def test_values_are_not_repeated_in_the_message() -> None:
    with pytest.raises(MalformedBody) as caught:
        read_object(b'{"key": "secretive", }')
    assert "secretive" not in str(caught.value)
