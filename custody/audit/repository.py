"""SQL of operators' actions. Rows are what somebody wrote: whoever goes by one checks its signature."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from custody.audit.model import BEGINNING, Attempt, Outcome, Record
from custody.storage.db import Row, Tx

_COLUMNS = (
    "number, at, writer, operator, key, via, origin, action, parameters, outcome, reason, decision, bundle_version,"
    " asked_in, document, signature, previous, hash"
)


def insert(
    tx: Tx,
    attempt: Attempt,
    outcome: Outcome,
    *,
    reason: str = "",
    decision: Mapping[str, Any] | None = None,
    bundle_version: int | None = None,
    asked_in: int | None = None,
) -> Record | None:
    """Add a row to the end of the chain; None if what was signed is recorded already."""
    row = tx.optional(
        "INSERT INTO operator_actions (operator, key, via, origin, action, parameters, outcome, reason, decision,"
        " bundle_version, asked_in, document, signature)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        f" ON CONFLICT (signature) WHERE signature <> '' DO NOTHING RETURNING {_COLUMNS}",
        [
            attempt.operator,
            attempt.key,
            attempt.via,
            attempt.origin[:200],
            attempt.action,
            attempt.parameters_json,
            outcome,
            reason[:1000],
            None if decision is None else json.dumps(decision, sort_keys=True),
            bundle_version,
            asked_in,
            attempt.document,
            attempt.signature,
        ],
    )
    return None if row is None else _record(row)


def head(tx: Tx) -> tuple[int, str]:
    """Number and hash of the last row; 0 and zeros if there is none."""
    row = tx.optional("SELECT number, hash FROM operator_actions ORDER BY number DESC LIMIT 1")
    return (0, BEGINNING) if row is None else (int(row["number"]), str(row["hash"]))


def find(tx: Tx, number: int) -> Record | None:
    """One row."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM operator_actions WHERE number = %s", [number])
    return None if row is None else _record(row)


def page(tx: Tx, *, after: int, limit: int, operator: str | None = None) -> Sequence[Record]:
    """At most `limit` rows in their order, beginning after `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM operator_actions WHERE number > %(after)s"
        " AND (%(operator)s::text IS NULL OR operator = %(operator)s) ORDER BY number LIMIT %(limit)s",
        {"after": after, "limit": limit, "operator": operator},
    )
    return [_record(row) for row in rows]


def asked(tx: Tx, attempt: Attempt, bundle_version: int, *, valid_seconds: int) -> Record | None:
    """The newest row in which the same operator asked for the same by the same way, under the same bundle, if it is not
    done yet."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM operator_actions a WHERE outcome = 'asked' AND operator = %s AND key = %s"
        " AND via = %s AND action = %s AND parameters = %s AND bundle_version = %s"
        " AND at > now() - make_interval(secs => %s)"
        " AND NOT EXISTS (SELECT 1 FROM operator_actions d WHERE d.asked_in = a.number AND d.via = a.via"
        "  AND d.outcome = 'done' AND d.action <> 'approve') ORDER BY number DESC LIMIT 1",
        [
            attempt.operator,
            attempt.key,
            attempt.via,
            attempt.action,
            attempt.parameters_json,
            bundle_version,
            valid_seconds,
        ],
    )
    return None if row is None else _record(row)


def waiting(tx: Tx, *, valid_seconds: int) -> Sequence[Record]:
    """Rows in which something was asked for that is not done, and not too old."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM operator_actions a WHERE outcome = 'asked'"
        " AND at > now() - make_interval(secs => %s)"
        " AND NOT EXISTS (SELECT 1 FROM operator_actions d WHERE d.asked_in = a.number AND d.via = a.via"
        "  AND d.outcome = 'done' AND d.action <> 'approve') ORDER BY number",
        [valid_seconds],
    )
    return [_record(row) for row in rows]


def approvals(tx: Tx, number: int) -> Sequence[Record]:
    """What others have approved of a row."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM operator_actions WHERE asked_in = %s AND action = 'approve' AND outcome = 'done'"
        " ORDER BY number",
        [number],
    )
    return [_record(row) for row in rows]


def _record(row: Row) -> Record:
    return Record(**row)
