"""The policy's rolling windows, kept as rows: what each withdrawal that was let through adds to which window.

Rows are for the limits of one policy. When a bundle changes them, what was let through is counted anew by the present
rules, from the recorded facts, before anything is decided: a limit that got another name forgets nothing, and a new
one knows what came before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from custody.errors import Conflict
from custody.storage.db import Database, Tx, units
from custody.withdrawals import repository
from policies.bundle import Bundle
from policies.canonical import domain_hash
from policies.deciding import engine_of
from policies.decision import LimitKey
from policies.facts import Facts, read
from policies.rules import Limit, Policy
from policies.values import value_of

_BATCH: Final = 2_000
"""Withdrawals a step: between two statements the database must not think that the session has died."""


class Spent:
    """What windows hold, for one decision; `asked` remembers all that was looked up, for its record.

    A withdrawal counts while it is unpaid, and for the length of the window after it was settled.

    Raises:
        Conflict: the rows are for another bundle; `rebuild` first.
    """

    def __init__(self, tx: Tx, bundle: Bundle, *, now: int) -> None:
        if _counted_by(tx) != (rules_hash(bundle.policy), bundle.version):
            raise Conflict("the policy's windows are counted for another version of the bundle")
        self._tx, self._now = tx, datetime.fromtimestamp(now, UTC)
        self.asked: dict[LimitKey, int] = {}

    def __call__(self, key: LimitKey, limit: Limit) -> int:
        """What is let through already under this key."""
        row = self._tx.one(
            "SELECT coalesce(sum(amount), 0) AS total FROM policy_counts"
            " WHERE rule = %s AND bucket = %s AND (settled_at IS NULL OR settled_at > %s)",
            [key.rule, key.bucket, self._now - timedelta(seconds=limit.window_seconds)],
        )
        self.asked[key] = total = units(row["total"])
        return total


def count(tx: Tx, withdrawal_id: UUID, counts: Iterable[tuple[LimitKey, int]]) -> None:
    """Count a withdrawal that is let through. The database closes or removes the rows when it ends."""
    for key, amount in counts:
        tx.execute(
            "INSERT INTO policy_counts (withdrawal_id, rule, bucket, amount) VALUES (%s, %s, %s, %s)",
            [withdrawal_id, key.rule, key.bucket, amount],
        )


def rules_hash(policy: Policy) -> str:
    """SHA-256 (64 hex digits) of all that decides what counts for which window; how much is allowed does not."""
    limits = [
        [rule.id, rule.when, rule.unless, rule.limit.window_seconds, rule.limit.per, rule.limit.measure]
        for rule in sorted(policy.rules, key=lambda rule: rule.id)
        if rule.limit is not None
    ]
    canonical = msgspec.json.encode([limits, policy.addresses], order="sorted")
    return domain_hash("policy-windows", 1, canonical).hex()


def rebuild(db: Database, bundle: Bundle, *, now: int) -> bool:
    """Count everything anew if the rows are for other rules than the bundle's; returns whether it did.

    One transaction: the rows are for the old rules or for the new ones, whatever crashes. Again changes nothing. Who
    has an older bundle than somebody who has decided already decides nothing any more.

    Args:
        now: UNIX seconds.

    Raises:
        DatabaseUnavailable, Conflict: nothing was changed.
    """
    wanted = (rules_hash(bundle.policy), bundle.version)
    with db.snapshot() as tx:
        if _counted_by(tx) == wanted:
            return False
    with db.transaction() as tx:
        repository.serialise_decisions(tx)
        present = _counted_by(tx)
        if present == wanted:
            return False
        if present is not None and present[1] > bundle.version:
            raise Conflict(
                f"version {present[1]} of the bundle has decided already: {bundle.version} is older"
            )
        other_rules = present is None or present[0] != wanted[0]
        if other_rules:
            # What ends meanwhile waits for this, and then closes the new rows: it must not close the old ones only.
            tx.execute("LOCK TABLE policy_counts IN SHARE ROW EXCLUSIVE MODE")
            tx.execute("DELETE FROM policy_counts")
            _count_anew(tx, bundle, now=now)
        tx.execute(
            "INSERT INTO policy_counting (rules, bundle_version) VALUES (%(rules)s, %(version)s)"
            " ON CONFLICT (single) DO UPDATE SET rules = %(rules)s, bundle_version = %(version)s, since = now()",
            {"rules": wanted[0], "version": bundle.version},
        )
    return other_rules


def _counted_by(tx: Tx) -> tuple[str, int] | None:
    row = tx.optional("SELECT rules, bundle_version FROM policy_counting")
    return None if row is None else (str(row["rules"]), int(row["bundle_version"]))


def _count_anew(tx: Tx, bundle: Bundle, *, now: int) -> None:
    limits = [rule.limit.window_seconds for rule in bundle.policy.rules if rule.limit is not None]
    if not limits:
        return
    engine = engine_of(bundle)
    since = datetime.fromtimestamp(now, UTC) - timedelta(seconds=max(limits))
    for rows in _let_through(tx, since):
        tx.executemany(
            "INSERT INTO policy_counts (withdrawal_id, rule, bucket, amount, settled_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            [
                (row["id"], key.rule, key.bucket, amount, row["settled_at"])
                for row in rows
                for key, amount in engine.counted(_facts(bundle, row["facts"]), row["tier"])
            ],
        )


def _let_through(tx: Tx, since: datetime) -> Iterator[list[dict[str, Any]]]:
    after = UUID(int=0)
    while True:
        rows = tx.all(
            "SELECT w.id, w.tier, w.decision -> 'facts' AS facts, s.at AS settled_at FROM withdrawals w"
            " LEFT JOIN LATERAL (SELECT max(e.at) AS at FROM withdrawal_events e"
            "   WHERE e.withdrawal_id = w.id AND e.to_state = 'settled') s ON w.state = 'settled'"
            " WHERE w.id > %s AND w.tier IS NOT NULL AND w.decision ->> 'outcome' = 'route'"
            " AND w.state NOT IN ('rejected', 'cancelled', 'expired', 'failed', 'requested', 'screening')"
            " AND (w.state <> 'settled' OR s.at > %s) ORDER BY w.id LIMIT %s",
            [after, since, _BATCH],
        )
        if not rows:
            return
        yield rows
        after = rows[-1]["id"]


def _facts(bundle: Bundle, described: dict[str, Any]) -> Facts:
    """As they were recorded; worth what it is worth now if nobody asked then."""
    facts = read(described)
    if facts.value is None and facts.asset is not None and facts.units is not None:
        return replace(facts, value=value_of(bundle, facts.asset, facts.units))
    return facts
