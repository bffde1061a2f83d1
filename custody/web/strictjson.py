"""Reading a request body: one JSON object, nothing ambiguous.

Two parsers must never read two things out of one body: duplicate keys, NaN, fractions and lone surrogates are
refused. Amounts are strings, so no number here needs a fraction or an exponent.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from custody.web.errors import MalformedBody

MAX_DEPTH: Final = 16
MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 8785)."""


def read_object(raw: bytes) -> dict[str, Any]:
    """Decode a body.

    Raises:
        MalformedBody: says what is wrong; never repeats values.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_pairs,
            parse_constant=_constant,
            parse_float=_fraction,
            parse_int=_integer,
        )
    except UnicodeDecodeError:
        raise MalformedBody("the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise MalformedBody(f"the body is not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise MalformedBody(f"the body is nested deeper than {MAX_DEPTH}") from None
    if not isinstance(value, dict):
        raise MalformedBody("the body must be a JSON object")
    _check(value, MAX_DEPTH)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedBody(f"the key {twice[:64]!r} is there twice in one object")
    return value


def _constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not JSON; amounts are decimal strings")


def _fraction(text: str) -> NoReturn:
    raise MalformedBody("numbers with a fraction or an exponent are not read; amounts are strings")


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise MalformedBody("a number is beyond 2**53; amounts are strings")
    return int(text)


def _check(value: Any, depth: int) -> None:
    if depth == 0:
        raise MalformedBody(f"the body is nested deeper than {MAX_DEPTH}")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check(inner, depth - 1)
    elif isinstance(value, str):
        _check_text(value)


def _check_text(text: str) -> None:
    if "\x00" in text:  # PostgreSQL's text cannot hold it
        raise MalformedBody("a string holds a NUL character")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedBody("a string holds half a surrogate pair") from None
