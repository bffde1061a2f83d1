"""SQL of withdrawals. Every change of state goes through `apply`: guarded by the state it starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.errors import Conflict
from custody.storage import events, halts
from custody.storage.db import Row, Tx, units
from custody.withdrawals.lifecycle import WITHDRAWAL, WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal

_COLUMNS = (
    "w.id, w.caller, w.customer_id, w.chain, w.asset, w.destination, w.units, w.fee_units, w.order_json, "
    "w.order_signature, w.order_hash, w.state, w.reason, w.tier, w.policy_version, w.settlement, w.transaction_id, "
    "w.settlements, w.not_before, w.expires_at, w.created_at, w.updated_at"
)

_NO_CASE = (
    "NOT EXISTS (SELECT 1 FROM cases k WHERE k.kind = 'withdrawal' AND k.subject = w.id AND k.state = 'open')"
)
_TO_PAY = (
    "w.chain = %s AND w.settlement = 'chain' AND w.state = 'queued' AND c.state = 'active'"
    " AND w.not_before <= now() AND NOT EXISTS (SELECT 1 FROM halts h WHERE h.scope = 'asset:' || w.asset)"
    f" AND {halts.NOT_FROZEN}"
    f" AND {_NO_CASE}"
)
_PAYABLE = f"{_TO_PAY} AND w.tier = %s AND w.screened_at > now() - interval '5 minutes'"
"""An answer of screening is asked for anew long before it is so old (`screened.FRESH_SECONDS`)."""

_NOT_HALTED = halts.NOT_HALTED


def insert(tx: Tx, withdrawal: Withdrawal) -> bool:
    """Add it; False if its id or its order's hash is taken (waits for a concurrent insert to end)."""
    return bool(
        tx.execute(
            "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
            " order_json, order_signature, order_hash, state, expires_at)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                withdrawal.id,
                withdrawal.caller,
                withdrawal.customer,
                withdrawal.chain,
                withdrawal.asset,
                withdrawal.destination,
                withdrawal.units,
                withdrawal.fee_units,
                withdrawal.order_json,
                withdrawal.order_signature,
                withdrawal.order_hash,
                withdrawal.state,
                withdrawal.expires_at,
            ],
        )
    )


def find(tx: Tx, withdrawal_id: UUID) -> Withdrawal | None:
    """The withdrawal, or None."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM withdrawals w WHERE id = %s", [withdrawal_id])
    return None if row is None else _withdrawal(row)


def page(
    tx: Tx,
    *,
    customer: str | None = None,
    state: WithdrawalState | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> Sequence[Withdrawal]:
    """At most `limit` withdrawals in the order of their ids, beginning after `after`."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM withdrawals w WHERE (%(customer)s::text IS NULL OR customer_id = %(customer)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"customer": customer, "state": state, "after": after, "limit": limit},
    )
    return [_withdrawal(row) for row in rows]


def due(tx: Tx, states: Sequence[WithdrawalState], *, limit: int) -> Sequence[UUID]:
    """Ids of withdrawals in `states` whose `not_before` has come, oldest first: so many of each chain, and none of a
    halted one, or that waits for a person. So a chain that is stuck takes no other's turn."""
    rows = tx.all(
        "SELECT id FROM (SELECT w.id, w.created_at,"
        "  row_number() OVER (PARTITION BY w.chain ORDER BY w.created_at, w.id) AS place FROM withdrawals w"
        f" WHERE w.state = ANY (%s) AND w.not_before <= now() AND {_NOT_HALTED} AND {_NO_CASE}) found"
        " WHERE place <= %s ORDER BY created_at, id",
        [list(states), limit],
    )
    return [row["id"] for row in rows]


def overdue(tx: Tx, states: Sequence[WithdrawalState], now: int, *, limit: int) -> Sequence[UUID]:
    """Ids of withdrawals in `states` whose order ended at or before `now` (UNIX seconds); none of a halted chain."""
    rows = tx.all(
        f"SELECT w.id FROM withdrawals w WHERE w.state = ANY (%s) AND w.expires_at <= to_timestamp(%s)"
        f" AND {_NOT_HALTED} ORDER BY w.expires_at LIMIT %s",
        [list(states), now, limit],
    )
    return [row["id"] for row in rows]


def claim(tx: Tx, withdrawal_id: UUID, states: Sequence[WithdrawalState]) -> Withdrawal | None:
    """Lock it until this transaction ends; None if it has left `states`, or another worker has it."""
    row = tx.optional(
        f"SELECT {_COLUMNS} FROM withdrawals w WHERE id = %s AND state = ANY (%s) FOR UPDATE SKIP LOCKED",
        [withdrawal_id, list(states)],
    )
    return None if row is None else _withdrawal(row)


def stopped(tx: Tx, withdrawal: Withdrawal) -> str | None:
    """What stops it: a halt, or an officer's freeze of what it touches; None if nothing does."""
    return halts.halted(
        tx,
        withdrawal.chain,
        withdrawal.asset,
        customer=withdrawal.customer,
        tier=withdrawal.tier,
    )


def payable(tx: Tx, chain: str, tier: str, *, limit: int) -> Sequence[Withdrawal]:
    """Withdrawals that wait for a transaction on `chain` from `tier`, oldest first; customers not frozen, assets not
    halted, destinations screened of late."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM withdrawals w JOIN customers c ON c.id = w.customer_id"
        f" WHERE {_PAYABLE} ORDER BY w.created_at, w.id LIMIT %s",
        [chain, tier, limit],
    )
    return [_withdrawal(row) for row in rows]


def gathered(tx: Tx, chain: str, tier: str, *, seconds: int) -> bool:
    """Whether one of the `payable` ones has waited for so long, by the database's clock."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM withdrawals w JOIN customers c ON c.id = w.customer_id"
        f" WHERE {_PAYABLE} AND w.updated_at <= now() - make_interval(secs => %s)) AS found",
        [chain, tier, seconds],
    )
    return bool(row["found"])


def unscreened(tx: Tx, chain: str, *, seconds: int, limit: int) -> Sequence[Withdrawal]:
    """Withdrawals that wait for a transaction on `chain`, and were screened longer ago than so many seconds."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM withdrawals w JOIN customers c ON c.id = w.customer_id WHERE {_TO_PAY}"
        f" AND {_NOT_HALTED} AND (w.screened_at IS NULL OR w.screened_at <= now() - make_interval(secs => %s))"
        " ORDER BY w.created_at, w.id LIMIT %s",
        [chain, seconds, limit],
    )
    return [_withdrawal(row) for row in rows]


def mark_screened(tx: Tx, withdrawal_id: UUID) -> None:
    """Nothing speaks against its destination now. It says nothing to callers: `updated_at` stays."""
    tx.execute("UPDATE withdrawals SET screened_at = now() WHERE id = %s", [withdrawal_id])


def forget_screening(tx: Tx, withdrawal_id: UUID) -> None:
    """Something speaks against its destination: it is screened anew before anything pays it, whatever is decided."""
    tx.execute("UPDATE withdrawals SET screened_at = NULL WHERE id = %s", [withdrawal_id])


def settleable(tx: Tx, *, limit: int) -> Sequence[UUID]:
    """Ids of queued withdrawals to addresses of ours, oldest first; customers not frozen, chains not halted."""
    rows = tx.all(
        "SELECT w.id FROM withdrawals w JOIN customers c ON c.id = w.customer_id"
        " WHERE w.settlement = 'internal' AND w.state = 'queued' AND c.state = 'active'"
        f" AND w.not_before <= now() AND {_NOT_HALTED} ORDER BY w.created_at, w.id LIMIT %s",
        [limit],
    )
    return [row["id"] for row in rows]


def of_transaction(tx: Tx, transaction_id: UUID) -> Sequence[Withdrawal]:
    """The withdrawals that a transaction serves."""
    rows = tx.all(
        f"SELECT {_COLUMNS} FROM withdrawals w WHERE transaction_id = %s ORDER BY id FOR UPDATE",
        [transaction_id],
    )
    return [_withdrawal(row) for row in rows]


def apply(
    tx: Tx,
    withdrawal: Withdrawal,
    event: WithdrawalEvent,
    *,
    reason: str = "",
    detail: Mapping[str, Any] | None = None,
) -> Withdrawal:
    """Move it by `event`, write the event down, and tell the feed.

    Raises:
        ImpossibleTransition: the event cannot happen in this state.
        Conflict: it has left the state that the caller saw; roll back and look again.
    """
    target = WITHDRAWAL.next(withdrawal.state, event)
    row = tx.optional(
        "UPDATE withdrawals w SET state = %s, reason = %s, updated_at = now() WHERE id = %s AND state = %s"
        f" RETURNING {_COLUMNS}",
        [target, reason, withdrawal.id, withdrawal.state],
    )
    if row is None:
        raise Conflict(f"withdrawal {withdrawal.id} is no longer {withdrawal.state}")
    tx.execute(
        "INSERT INTO withdrawal_events (withdrawal_id, event, from_state, to_state, detail)"
        " VALUES (%s, %s, %s, %s, %s)",
        [withdrawal.id, event, withdrawal.state, target, Jsonb({"reason": reason, **(detail or {})})],
    )
    moved = _withdrawal(row)
    if target is not withdrawal.state:
        tell(tx, moved)
    return moved


def tell(tx: Tx, withdrawal: Withdrawal) -> None:
    """Write the withdrawal's present state to the feed."""
    events.emit(
        tx,
        f"withdrawal.{withdrawal.state}",
        str(withdrawal.id),
        {
            "customer": withdrawal.customer,
            "asset": withdrawal.asset,
            "units": str(withdrawal.units),
            "state": str(withdrawal.state),
            "reason": withdrawal.reason,
        },
    )


def wait(tx: Tx, withdrawal_id: UUID, reason: str, *, seconds: int) -> None:
    """Leave it where it is with the reason, for so long. No event row: it may wait many times.

    `updated_at` says since when it waits for the same thing: so what waits too long is found.
    """
    tx.execute(
        "UPDATE withdrawals SET reason = %(reason)s, not_before = now() + make_interval(secs => %(seconds)s),"
        " updated_at = CASE WHEN split_part(reason, ':', 1) = split_part(%(reason)s, ':', 1) THEN updated_at"
        "  ELSE now() END"
        " WHERE id = %(id)s AND state IN ('requested', 'screening', 'queued')",
        {"id": withdrawal_id, "reason": reason, "seconds": seconds},
    )


def explain(tx: Tx, withdrawal_id: UUID, reason: str) -> None:
    """Say why it is where it is, and tell the feed. Again changes nothing."""
    row = tx.optional(
        "UPDATE withdrawals w SET reason = %(reason)s, updated_at = now() WHERE id = %(id)s AND reason <> %(reason)s"
        f" RETURNING {_COLUMNS}",
        {"id": withdrawal_id, "reason": reason},
    )
    if row is not None:
        tell(tx, _withdrawal(row))


def explain_waiting(tx: Tx) -> None:
    """Say of withdrawals that a halt or their customer's freeze stops that it does. Again changes nothing.

    A requested one of a frozen customer is not meant: the policy rejects it.
    """
    tx.execute(
        "WITH stopped AS ("
        " SELECT w.id, left(CASE WHEN h.reason IS NOT NULL THEN 'halted: ' || h.reason"
        "   ELSE 'customer-frozen: ' || c.reason END, 1000) AS reason"
        " FROM withdrawals w JOIN customers c ON c.id = w.customer_id"
        f" LEFT JOIN LATERAL ({halts.WHY_HALTED}) h ON true"
        " WHERE h.reason IS NOT NULL AND w.state IN ('requested', 'screening', 'queued', 'signing')"
        "   OR c.state = 'frozen' AND w.state = 'queued'),"
        " silent AS (SELECT w.id, s.reason FROM withdrawals w JOIN stopped s ON s.id = w.id"
        "   WHERE w.reason <> s.reason FOR UPDATE OF w SKIP LOCKED)"
        " UPDATE withdrawals w SET reason = s.reason, updated_at = now() FROM silent s WHERE w.id = s.id"
    )


def record_decision(
    tx: Tx, withdrawal_id: UUID, decision: Mapping[str, Any], *, tier: str | None, settlement: str | None
) -> None:
    """Store the facts and the outcome of the policy."""
    tx.execute(
        "UPDATE withdrawals SET decision = %s, policy_version = %s, tier = %s, settlement = %s, approved_until = NULL,"
        " updated_at = now() WHERE id = %s",
        [Jsonb(dict(decision)), decision["bundle_version"], tier, settlement, withdrawal_id],
    )


def decision_of(tx: Tx, withdrawal_id: UUID) -> dict[str, Any] | None:
    """The record of the last decision about a withdrawal; None if there is none yet, or no such withdrawal."""
    row = tx.optional("SELECT decision FROM withdrawals WHERE id = %s", [withdrawal_id])
    return None if row is None else row["decision"]


def set_delay(tx: Tx, withdrawal_id: UUID, seconds: int) -> None:
    """Let nobody look at it before so many seconds have passed since it was requested.

    From the request on its customer can cancel it; to be decided again, under another bundle, makes it wait no longer.
    """
    tx.execute(
        "UPDATE withdrawals SET not_before = greatest(now(), created_at + make_interval(secs => %s)) WHERE id = %s",
        [seconds, withdrawal_id],
    )


def attach(tx: Tx, withdrawal_id: UUID, transaction_id: UUID | None) -> None:
    """Name the one transaction that serves it (None: refused, it will get another)."""
    tx.execute("UPDATE withdrawals SET transaction_id = %s WHERE id = %s", [transaction_id, withdrawal_id])


def count_settlement(tx: Tx, withdrawal_id: UUID) -> int:
    """Number the next settlement: 1, 2, ..."""
    row = tx.one(
        "UPDATE withdrawals SET settlements = settlements + 1 WHERE id = %s RETURNING settlements",
        [withdrawal_id],
    )
    return int(row["settlements"])


def reverts_in_window(tx: Tx, chain: str, since: datetime) -> dict[str, int]:
    """By customer: transactions that paid nobody else, and were mined since then but failed (EVM).

    Who shares a transaction with somebody else's failing payment has no part in that.
    """
    rows = tx.all(
        "SELECT customer_id, count(*) AS n FROM ("
        " SELECT t.id, min(w.customer_id) AS customer_id FROM consumptions c"
        " JOIN blocks b ON b.chain = c.chain AND b.height = c.height AND b.observed_at >= %s"
        " JOIN transaction_versions v ON v.content = c.content"
        " JOIN transactions t ON t.id = v.transaction_id AND t.chain = c.chain"
        " JOIN withdrawals w ON w.transaction_id = t.id"
        " WHERE c.chain = %s AND NOT c.succeeded"
        " GROUP BY t.id HAVING count(DISTINCT w.customer_id) = 1) alone GROUP BY customer_id",
        [since, chain],
    )
    return {row["customer_id"]: int(row["n"]) for row in rows}


def customer_state(tx: Tx, customer: str) -> str | None:
    """`active`, `frozen`, or None for an unknown customer."""
    row = tx.optional("SELECT state FROM customers WHERE id = %s", [customer])
    return None if row is None else str(row["state"])


def serialise_decisions(tx: Tx) -> None:
    """Let one transaction decide at a time: windows count what another is about to let through."""
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended('withdrawal decisions', 0))")


def _withdrawal(row: Row) -> Withdrawal:
    return Withdrawal(
        id=row["id"],
        caller=row["caller"],
        customer=row["customer_id"],
        chain=row["chain"],
        asset=row["asset"],
        destination=row["destination"],
        units=units(row["units"]),
        fee_units=units(row["fee_units"]),
        order_json=row["order_json"],
        order_signature=row["order_signature"],
        order_hash=row["order_hash"],
        state=WithdrawalState(row["state"]),
        reason=row["reason"],
        tier=row["tier"],
        policy_version=row["policy_version"],
        settlement=row["settlement"],
        transaction_id=row["transaction_id"],
        settlements=row["settlements"],
        not_before=row["not_before"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
