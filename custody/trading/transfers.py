"""Ids of deposits and withdrawals: each is applied once, and remembered only as long as it could come again.

An id is a UUIDv7 (RFC 9562 section 5.7), so it tells its own age. Ids older than the engine remembers are refused:
forgetting never lets money in twice.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from custody.trading.accounts import DAY_MICROS
from custody.trading.errors import Refused

REMEMBERED_DAYS: Final = 7
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")

Kind = Literal["deposit", "withdraw"]
Content = tuple[str, str, int]
"""Customer, asset, units."""


class Transfers:
    """Ids of the last days with their content; those of deposits and of withdrawals are apart."""

    __slots__ = ("days",)

    def __init__(self) -> None:
        self.days: dict[int, dict[tuple[Kind, str], Content]] = {}
        """By the day since 1970 that the id itself tells."""

    def seen(self, kind: Kind, transfer_id: str, content: Content, at: int) -> bool:
        """Whether exactly this has been applied before.

        Raises:
            Refused: the id is malformed, too old, too new, or was used for something else.
        """
        day = _day(transfer_id)
        today = at // DAY_MICROS
        if day < today - REMEMBERED_DAYS:
            raise Refused("id_too_old", day=day, today=today)
        if day > today + 1:
            raise Refused("id_from_the_future", day=day, today=today)
        known = self.days.get(day, {}).get((kind, transfer_id))
        if known is not None and known != content:
            raise Refused("id_reused", units=known[2])
        return known is not None

    def remember(self, kind: Kind, transfer_id: str, content: Content) -> None:
        """Notes that this has been applied."""
        self.days.setdefault(_day(transfer_id), {})[kind, transfer_id] = content

    def forget(self, today: int) -> None:
        """Drops ids that would be refused for their age anyway."""
        for day in [known for known in self.days if known < today - REMEMBERED_DAYS]:
            del self.days[day]


def _day(transfer_id: str) -> int:
    if _ID.fullmatch(transfer_id) is None:
        raise Refused("bad_id")
    return int(transfer_id[:8] + transfer_id[9:13], 16) * 1_000 // DAY_MICROS
