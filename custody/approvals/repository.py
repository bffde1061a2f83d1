"""SQL of approvals. Rows are written once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from custody.approvals.model import MAX_ANSWERS, Said
from custody.storage import halts
from custody.storage.db import Row, Tx
from custody.treasury.model import Refill
from custody.withdrawals.lifecycle import WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.intent import SignedApproval

OPEN: Final = (WithdrawalState.AWAITING_APPROVAL, WithdrawalState.COOLING, WithdrawalState.QUEUED)
"""States in which an answer can still change something: no transaction pays the withdrawal."""


def insert(tx: Tx, subject: Withdrawal | Refill, signed: SignedApproval) -> bool:
    """Keep an answer; False if this one is there already."""
    return bool(
        tx.execute(
            "INSERT INTO approvals (digest, withdrawal_id, refill_id, intent_hash, document, signature)"
            " VALUES (%(digest)s, %(withdrawal)s, %(refill)s, %(intent)s, %(document)s, %(signature)s)"
            " ON CONFLICT (content) DO NOTHING",
            _row(subject, signed),
        )
    )


def known(tx: Tx, subject: Withdrawal | Refill, signed: SignedApproval) -> bool:
    """Whether this very answer was given about it. A row that only looks like it is another."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM approvals WHERE digest = %(digest)s AND intent_hash = %(intent)s"
        " AND withdrawal_id IS NOT DISTINCT FROM %(withdrawal)s AND refill_id IS NOT DISTINCT FROM %(refill)s"
        " AND document = %(document)s AND signature = %(signature)s) AS found",
        _row(subject, signed),
    )
    return bool(row["found"])


def _row(subject: Withdrawal | Refill, signed: SignedApproval) -> dict[str, object]:
    return {
        "digest": signed.approval.digest_hex(),
        "withdrawal": subject.id if isinstance(subject, Withdrawal) else None,
        "refill": subject.id if isinstance(subject, Refill) else None,
        "intent": signed.approval.intent,
        "document": signed.approval.canonical().decode(),
        "signature": msgspec.json.encode(signed.signature).decode(),
    }


def about(tx: Tx, intents: Sequence[str]) -> dict[str, list[Said]]:
    """The answers about intents (digests, 64 hex digits), oldest first: so many of each as people could ever give."""
    found: dict[str, list[Said]] = {intent: [] for intent in intents}
    for row in tx.all(
        "SELECT * FROM (SELECT id, intent_hash, document, signature, at,"
        "  row_number() OVER (PARTITION BY intent_hash ORDER BY id) AS place"
        "  FROM approvals WHERE intent_hash = ANY (%s)) said WHERE place <= %s ORDER BY id",
        [list(intents), MAX_ANSWERS],
    ):
        found[row["intent_hash"]].append(_said(row))
    return found


def unheard(tx: Tx, *, limit: int) -> Sequence[UUID]:
    """Withdrawals about which something was said that nobody has counted yet, oldest first."""
    rows = tx.all(
        "SELECT w.id FROM withdrawals w WHERE w.unheard AND w.state = ANY (%s)"
        f" AND {halts.NOT_HALTED}"
        " ORDER BY w.created_at, w.id LIMIT %s",
        [list(OPEN), limit],
    )
    return [row["id"] for row in rows]


def mark_heard(tx: Tx, withdrawal_id: UUID, *, until: int | None) -> None:
    """All that was said about it so far is counted; it was locked before that was read.

    Args:
        until: UNIX seconds, when its approvals are no longer enough; None: they are not, or nobody is asked.
    """
    tx.execute(
        "UPDATE withdrawals SET unheard = false, approved_until = to_timestamp(%s) WHERE id = %s",
        [until, withdrawal_id],
    )


def count_again(tx: Tx, withdrawal_id: UUID) -> None:
    """What was said about it is no longer enough, or not looked at yet: it is counted once more."""
    tx.execute("UPDATE withdrawals SET unheard = true, approved_until = NULL WHERE id = %s", [withdrawal_id])


def lapsed(tx: Tx, *, now: int, limit: int) -> Sequence[UUID]:
    """Approved withdrawals that no transaction pays, and whose approvals have ended (`now`: UNIX seconds)."""
    rows = tx.all(
        "SELECT id FROM withdrawals WHERE state IN ('cooling', 'queued') AND approved_until <= to_timestamp(%s)"
        " ORDER BY approved_until, id LIMIT %s",
        [now, limit],
    )
    return [row["id"] for row in rows]


def approved_by(tx: Tx, approvers: Sequence[str]) -> Sequence[UUID]:
    """Approved withdrawals that no transaction pays, about which one of these people has said something."""
    rows = tx.all(
        "SELECT w.id FROM withdrawals w WHERE w.state IN ('cooling', 'queued') AND w.approved_until IS NOT NULL"
        " AND EXISTS (SELECT 1 FROM approvals a, unnest(%s::text[]) who WHERE a.withdrawal_id = w.id"
        "  AND position('\"approver\":\"' || who || '\"' IN a.document) > 0) ORDER BY w.created_at, w.id",
        [list(approvers)],
    )
    return [row["id"] for row in rows]


def outdated(tx: Tx, version: int, *, limit: int) -> Sequence[UUID]:
    """Withdrawals that an older bundle has let through, and no transaction pays, oldest first."""
    rows = tx.all(
        "SELECT w.id FROM withdrawals w WHERE w.state = ANY (%s) AND w.policy_version < %s"
        f" AND {halts.NOT_HALTED}"
        " ORDER BY w.created_at, w.id LIMIT %s",
        [list(OPEN), version, limit],
    )
    return [row["id"] for row in rows]


def decisions(tx: Tx, ids: Sequence[UUID]) -> dict[UUID, object]:
    """The records of the last decisions about withdrawals."""
    rows = tx.all("SELECT id, decision FROM withdrawals WHERE id = ANY (%s)", [list(ids)])
    return {row["id"]: row["decision"] for row in rows}


def _said(row: Row) -> Said:
    return Said(row["id"], row["document"], row["signature"], row["at"])


def unheard_refills(tx: Tx, version: int, *, limit: int) -> Sequence[UUID]:
    """Refills under a version of the bundle about which something was said that nobody has counted, oldest first."""
    rows = tx.all(
        "SELECT id FROM refills WHERE unheard AND state IN ('proposed', 'approved') AND policy_version = %s"
        " ORDER BY id LIMIT %s",
        [version, limit],
    )
    return [row["id"] for row in rows]


def mark_refill_heard(tx: Tx, refill_id: UUID, *, until: int | None) -> None:
    """All that was said about it so far is counted; `until` as for `mark_heard`."""
    tx.execute(
        "UPDATE refills SET unheard = false, approved_until = to_timestamp(%s) WHERE id = %s",
        [until, refill_id],
    )


def lapsed_refills(tx: Tx, *, now: int, limit: int) -> Sequence[UUID]:
    """Approved refills that no transaction carries out, and whose approvals have ended (`now`: UNIX seconds)."""
    rows = tx.all(
        "SELECT id FROM refills WHERE state = 'approved' AND approved_until <= to_timestamp(%s) ORDER BY id LIMIT %s",
        [now, limit],
    )
    return [row["id"] for row in rows]
