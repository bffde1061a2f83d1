"""What the journal counts: for each key (an intent, a fee group) its largest amount, until it is proven over.

A key is open while one of its versions has no resolution. A confirmed version ends it, for all versions of it conflict;
else the death of the last one does. From then on it counts for one more window: after a confirmation from the later of
the latest signature and of the confirmation's arrival here, after deaths from the latest signature. So a verifier that
lies about deaths can't raise what is signed within a window, only what is hoarded beyond it.

Fees of rotations count for one window after the latest signature, whatever anybody says.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from signers.guard.examined import Exposure
from signers.journal.counter import Counter

MOST_KNOWN: Final = 4096
"""Keys whose amounts are kept in memory: each is asked for several times while one transaction is looked at."""
_Place = tuple[str, str]
"""Kind and scope."""


class Exposures:
    """The table `exposures` and the counters over it. Belongs to the journal's single writer."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._sql = connection
        self._counters: defaultdict[_Place, dict[int, Counter]] = defaultdict(dict)
        self._known: dict[str, dict[_Place, int]] = {}

    def window(self, kind: Exposure, scope: str, seconds: int, *, latest: int) -> Counter:
        """The counter of a kind and scope, read from the table when it is first asked for.

        Args:
            kind: what is counted.
            scope: of which tier, chain or breaker.
            seconds: how long a closed key still counts.
            latest: what ended earlier than `seconds` before that counts no more, and is not read.
        """
        place = (kind.value, scope)
        counter = self._counters[place].get(seconds)
        if counter is None:
            counter = Counter(seconds, lambda key: self._largest(key).get(place, 0))
            where = "SELECT key, units, since FROM exposures WHERE kind = ? AND scope = ? AND since"
            for key, units, _ in self._sql.execute(f"{where} IS NULL", place):
                counter.open(key, int(units))
            for key, units, since in self._sql.execute(f"{where} > ?", (*place, latest - seconds)):
                counter.close(key, int(units), since)
            self._counters[place][seconds] = counter
        return counter

    def put(self, versions: Iterable[tuple[Exposure, str, str, int]], *, now: int) -> None:
        """Count what is being signed. It is in the other tables already.

        Args:
            versions: kind, scope, key and units; each place and key once.
            now: UNIX seconds.
        """
        rows = []
        for kind, scope, key, units in versions:
            place, known = (kind.value, scope), self._largest(key)
            if kind is Exposure.ROTATION_FEES:
                since: int | None = now
            else:
                since = self._since(key, now) if place in known else None
            known[place] = max(units, known.get(place, 0))
            # Text, for SQLite's integers end at 2**63.
            rows.append((key, *place, str(known[place]), now, since))
            self._tell(place, key, known[place], since)
        self._sql.executemany("INSERT OR REPLACE INTO exposures VALUES (?, ?, ?, ?, ?, ?)", rows)

    def settle(self, key: str) -> None:
        """Look again whether a key is open, after one of its versions was resolved."""
        rows = self._sql.execute(
            "SELECT kind, scope, units, signed_at FROM exposures WHERE key = ?", (key,)
        ).fetchall()
        for kind, scope, units, signed_at in rows:
            if kind == Exposure.ROTATION_FEES:
                continue
            since = self._since(key, signed_at)
            self._sql.execute(
                "UPDATE exposures SET since = ? WHERE key = ? AND kind = ? AND scope = ?",
                (since, key, kind, scope),
            )
            self._tell((kind, scope), key, int(units), since)

    def _since(self, key: str, signed_at: int) -> int | None:
        """From when on a key counts down; None while it is open."""
        versions = self._sql.execute(
            "SELECT t.outcome, t.resolved_at FROM transaction_intents i"
            " JOIN transactions t ON t.chain = i.chain AND t.content = i.content WHERE i.intent = ?"
            " UNION ALL SELECT outcome, resolved_at FROM transactions WHERE fee_group = ?",
            (key, key),
        ).fetchall()
        confirmed = [int(at) for outcome, at in versions if outcome == "confirmed"]
        if confirmed:
            return max(signed_at, *confirmed)
        return None if any(outcome is None for outcome, _ in versions) else signed_at

    def _tell(self, place: _Place, key: str, units: int, since: int | None) -> None:
        for counter in self._counters[place].values():
            if since is None:
                counter.open(key, units)
            else:
                counter.close(key, units, since)

    def _largest(self, key: str) -> dict[_Place, int]:
        """The largest units ever signed for a key, by place; empty for a new one."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            rows = self._sql.execute("SELECT kind, scope, units FROM exposures WHERE key = ?", (key,))
            known = self._known[key] = {(kind, scope): int(units) for kind, scope, units in rows}
        return known
