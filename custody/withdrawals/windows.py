"""The policy's rolling windows, kept as rows: what each operation that was let through adds to which window.

Operations are withdrawals, and the house's own: sweeps, consolidations, refills.

Rows are for the limits of one policy. When a bundle changes them, what was let through is counted anew by the present
rules, from the recorded facts, before anything is decided: a limit that got another name forgets nothing, and a new
one knows what came before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from policies.decision import Decision, LimitKey
from policies.engine import Spent as Asking
from policies.facts import Facts, read
from policies.rules import Limit, Policy
from policies.values import value_of

_BATCH: Final = 2_000
"""Operations a step: between two statements the database must not think that the session has died."""


class Spent:
    """What windows hold, for one decision; `asked` remembers all that was looked up, for its record.

    An operation counts while it is unpaid, and for the length of the window after it was settled.

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


def decide_now(
    tx: Tx, bundle: Bundle, facts: Facts, decide: Callable[[Facts, Asking], Decision]
) -> tuple[Decision, Mapping[LimitKey, int]]:
    """Decide about an operation of the house, with its windows; returns what they held, too.

    One decision at a time, as for withdrawals: from here to the end of `tx` nobody else decides about what windows
    count. Where no window is asked for, nobody waits.

    Raises:
        Conflict: the windows are counted for another bundle: try again.
    """
    asked: list[LimitKey] = []

    def nothing(key: LimitKey, limit: Limit) -> int:
        asked.append(key)
        return 0

    decision = decide(facts, nothing)
    if not asked:
        return decision, {}
    repository.serialise_decisions(tx)
    spent = Spent(tx, bundle, now=facts.now)
    return decide(facts, spent), spent.asked


def count(tx: Tx, operation_id: UUID, counts: Iterable[tuple[LimitKey, int]]) -> None:
    """Count an operation that is let through. The database closes or removes the rows when it ends.

    Args:
        operation_id: of the withdrawal, sweep or refill.
        counts: what it adds; more for one window are added up.
    """
    for key, amount in added(counts).items():
        tx.execute(
            "INSERT INTO policy_counts (operation_id, rule, bucket, amount) VALUES (%s, %s, %s, %s)",
            [operation_id, key.rule, key.bucket, amount],
        )


def added(counts: Iterable[tuple[LimitKey, int]]) -> Counter[LimitKey]:
    """What comes to each window."""
    total: Counter[LimitKey] = Counter()
    for key, amount in counts:
        total[key] += amount
    return total


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
        found: dict[tuple[UUID, datetime | None], list[tuple[LimitKey, int]]] = {}
        for row in rows:
            counted = engine.counted(_facts(bundle, row["facts"]), row["tier"])
            found.setdefault((row["id"], row["settled_at"]), []).extend(counted)
        tx.executemany(
            "INSERT INTO policy_counts (operation_id, rule, bucket, amount, settled_at)"
            " VALUES (%s, %s, %s, %s, %s)",
            [
                (operation_id, key.rule, key.bucket, amount, settled_at)
                for (operation_id, settled_at), counts in found.items()
                for key, amount in added(counts).items()
            ],
        )


_WITHDRAWALS: Final = (
    "SELECT w.id, w.tier, w.decision -> 'facts' AS facts, s.at AS settled_at FROM withdrawals w"
    " LEFT JOIN LATERAL (SELECT max(e.at) AS at FROM withdrawal_events e"
    "   WHERE e.withdrawal_id = w.id AND e.to_state = 'settled') s ON w.state = 'settled'"
    " WHERE w.id > %s AND w.tier IS NOT NULL AND w.decision ->> 'outcome' = 'route'"
    " AND w.state NOT IN ('rejected', 'cancelled', 'expired', 'failed', 'requested', 'screening')"
    " AND (w.state <> 'settled' OR s.at > %s) ORDER BY w.id LIMIT %s"
)
_REFILLS: Final = (
    "SELECT r.id, r.tier, r.decision -> 'facts' AS facts, s.at AS settled_at FROM refills r"
    " LEFT JOIN LATERAL (SELECT max(e.at) AS at FROM refill_events e"
    "   WHERE e.refill_id = r.id AND e.to_state = 'confirmed') s ON r.state = 'confirmed'"
    " WHERE r.id > %s AND r.state <> 'declined' AND (r.state <> 'confirmed' OR s.at > %s) ORDER BY r.id LIMIT %s"
)
_SWEEPS: Final = (
    "SELECT p.id, d.each ->> 'tier' AS tier, d.each -> 'facts' AS facts, p.settled_at FROM ("
    "  SELECT p.id, p.decision, s.at AS settled_at FROM sweeps p"
    "  LEFT JOIN LATERAL (SELECT max(e.at) AS at FROM sweep_events e"
    "    WHERE e.sweep_id = p.id AND e.to_state = 'confirmed') s ON p.state = 'confirmed'"
    "  WHERE p.id > %s AND p.decision IS NOT NULL AND p.state <> 'abandoned'"
    "  AND (p.state <> 'confirmed' OR s.at > %s) ORDER BY p.id LIMIT %s) p"
    " CROSS JOIN LATERAL jsonb_array_elements(p.decision -> 'decisions') AS d (each) ORDER BY p.id"
)


def _let_through(tx: Tx, since: datetime) -> Iterator[list[dict[str, Any]]]:
    for query in (_WITHDRAWALS, _REFILLS, _SWEEPS):
        after = UUID(int=0)
        while rows := tx.all(query, [after, since, _BATCH]):
            yield rows
            after = rows[-1]["id"]


def _facts(bundle: Bundle, described: dict[str, Any]) -> Facts:
    """As they were recorded; worth what it is worth now if nobody asked then."""
    facts = read(described)
    if facts.value is None and facts.asset is not None and facts.units is not None:
        return replace(facts, value=value_of(bundle, facts.asset, facts.units))
    return facts
