"""Ids: time-ordered ones for what is new, derived ones for what must get the same id at every try."""

from __future__ import annotations

import secrets
import time
from typing import Final
from uuid import UUID, uuid5

_NAMESPACE: Final = UUID("6d1f2c1e-8a3b-5c57-9b0e-7d4d0f5a9e21")
_NS_PER_MS: Final = 1_000_000


def new_id() -> UUID:
    """A UUIDv7 (RFC 9562 section 5.7): 48 bits of milliseconds, 12 of the fraction (method 3), 62 random.

    Ids made later sort later, up to the clock's own steps.
    """
    milliseconds, rest = divmod(time.time_ns(), _NS_PER_MS)
    fraction = (rest << 12) // _NS_PER_MS
    high = (milliseconds & (2**48 - 1)) << 16 | 0x7 << 12 | fraction
    return UUID(int=high << 64 | 0b10 << 62 | secrets.randbits(62))


def derived_id(*parts: str | int | UUID) -> UUID:
    """The id that these parts always give (UUIDv5, RFC 9562 section 5.5), e.g. `("credit", deposit_id, 1)`.

    Each part is written with its length, so that no two lists of parts give the same text.
    """
    texts = [str(part) for part in parts]
    return uuid5(_NAMESPACE, "".join(f"{len(text)}:{text}" for text in texts))
