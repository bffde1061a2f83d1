"""Pages: a bounded limit, and a cursor that only this API reads."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query

from custody.web.errors import InvalidCursor

MAX_LIMIT: Final = 500

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items of one page.")]
After = Annotated[
    str | None,
    Query(
        max_length=256,
        description="`next` of the page before; opaque; omit for the first page.",
        json_schema_extra={"minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"},
    ),
]


def encode(kind: str, position: str) -> str:
    """The cursor after `position` in the list `kind`."""
    return base64.urlsafe_b64encode(f"{kind}:{position}".encode()).rstrip(b"=").decode("ascii")


def decode(kind: str, cursor: str | None) -> str | None:
    """The position in a cursor of the list `kind`; None for the first page.

    Raises:
        InvalidCursor: not one of ours, or of another list.
    """
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode(
            "utf-8"
        )
    except (ValueError, binascii.Error):
        raw = ""
    found, _, position = raw.partition(":")
    if found != kind or not position:
        raise InvalidCursor(f"not a cursor of {kind}: pass `next` of the page before, unchanged")
    return position


def decode_uuid(kind: str, cursor: str | None) -> UUID | None:
    """`decode` for lists in the order of UUIDs. Raises InvalidCursor."""
    position = decode(kind, cursor)
    try:
        return None if position is None else UUID(position)
    except ValueError:
        raise InvalidCursor(f"not a cursor of {kind}") from None


def decode_int(kind: str, cursor: str | None) -> int | None:
    """`decode` for lists in the order of numbers below 2**63. Raises InvalidCursor."""
    position = decode(kind, cursor)
    if position is None:
        return None
    if not position.isascii() or not position.isdigit() or len(position) > 18:
        raise InvalidCursor(f"not a cursor of {kind}")
    return int(position)
