"""SQL of customers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from custody.storage.db import Row, Tx

_COLUMNS = "id, state, reason, created_at"


@dataclass(frozen=True, slots=True)
class Customer:
    """A customer as it is stored."""

    id: str
    """Chosen by the caller; 1 to 64 of `A-Za-z0-9._-`."""
    state: str
    """`active` or `frozen` (nothing is paid out)."""
    reason: str
    """Why it is frozen."""
    created_at: datetime


def insert(tx: Tx, customer_id: str) -> Customer | None:
    """Add a customer; None if the id is taken."""
    row = tx.optional(
        f"INSERT INTO customers (id) VALUES (%s) ON CONFLICT DO NOTHING RETURNING {_COLUMNS}", (customer_id,)
    )
    return None if row is None else _customer(row)


def find(tx: Tx, customer_id: str) -> Customer | None:
    """The customer, or None."""
    row = tx.optional(f"SELECT {_COLUMNS} FROM customers WHERE id = %s", (customer_id,))
    return None if row is None else _customer(row)


def page(tx: Tx, after: str, limit: int) -> Sequence[Customer]:
    """At most `limit` customers whose id sorts after `after`."""
    rows = tx.all(f"SELECT {_COLUMNS} FROM customers WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
    return [_customer(row) for row in rows]


def set_state(tx: Tx, customer_id: str, before: str, after: str, reason: str) -> bool:
    """Change the state if it is `before`; whether it was."""
    return bool(
        tx.execute(
            "UPDATE customers SET state = %s, reason = %s WHERE id = %s AND state = %s",
            (after, reason, customer_id, before),
        )
    )


def _customer(row: Row) -> Customer:
    return Customer(row["id"], row["state"], row["reason"], row["created_at"])
