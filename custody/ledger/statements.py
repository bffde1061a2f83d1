"""What a customer reads: balances, and the statement with the balance before and after each line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue
from custody.ledger.model import AccountKind, LineType
from custody.storage.db import Row, Tx, units

MAX_PAGE: Final = 1000
MAX_PERIOD_LINES: Final = 50_000
_KINDS: Final = (AccountKind.AVAILABLE, AccountKind.FROZEN, AccountKind.TRADING)
_CURSOR: Final = re.compile(r"(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})-(0|[1-9][0-9]{0,17})")


@dataclass(frozen=True, slots=True)
class Balances:
    """A customer's money of one asset, in base units."""

    asset: str
    available: int
    frozen: int
    trading: int

    @property
    def total(self) -> int:
        """All that we owe the customer of this asset."""
        return self.available + self.frozen + self.trading


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One line: `balance_after = balance_before + amount`, in base units of the asset."""

    transfer_id: UUID
    account: AccountKind
    seq: int
    """Number of the line within its account, from 1 without gaps."""
    type: LineType
    amount: int
    balance_before: int
    balance_after: int
    at: datetime
    reference: str


@dataclass(frozen=True, slots=True)
class StatementPage:
    """Lines, oldest first, and the cursor from which the next page goes on."""

    lines: tuple[StatementLine, ...]
    cursor: str
    """Opaque. Give it as `after`; it stays valid, and lines booked later appear behind it."""
    more: bool


def balances(tx: Tx, customer: str) -> list[Balances]:
    """The customer's balances of every asset ever held, ordered by asset."""
    rows = tx.all(
        "SELECT kind, asset, balance FROM ledger_accounts WHERE customer_id = %s ORDER BY asset", [customer]
    )
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["asset"], {})[row["kind"]] = units(row["balance"])
    return [Balances(asset, *(kinds.get(kind.value, 0) for kind in _KINDS)) for asset, kinds in found.items()]


def balance(tx: Tx, customer: str, asset: str) -> Balances:
    """The customer's balances of one asset; all zero if there never was any."""
    return next((b for b in balances(tx, customer) if b.asset == asset), Balances(asset, 0, 0, 0))


def statement(
    tx: Tx, customer: str, asset: str, *, after: str | None = None, limit: int = 100
) -> StatementPage:
    """A page of the customer's lines of one asset, oldest first, over all three accounts.

    The cursor holds one position per account: line ids alone would lose a line whose transaction commits
    after a later one's.

    Args:
        tx: a transaction.
        customer: customer id.
        asset: asset id.
        after: cursor of the page before; None: from the beginning.
        limit: 1 to 1000 lines.

    Raises:
        InvalidValue: a cursor that is none of ours, or a limit outside 1 to 1000.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidValue(f"limit {limit}: expected 1 to {MAX_PAGE}")
    seen = _positions(after)
    rows = tx.all(
        """SELECT l.*, a.kind, t.reference
           FROM unnest(%(kinds)s::text[], %(seqs)s::bigint[]) AS k (kind, seq)
           JOIN ledger_accounts a ON a.customer_id = %(customer)s AND a.kind = k.kind AND a.asset = %(asset)s
           CROSS JOIN LATERAL (SELECT * FROM ledger_lines x WHERE x.account_id = a.id AND x.seq > k.seq
                               ORDER BY x.seq LIMIT %(limit)s) l
           JOIN ledger_transfers t ON t.id = l.transfer_id
           ORDER BY l.id LIMIT %(limit)s""",
        {
            "kinds": [kind.value for kind in _KINDS],
            "seqs": [seen[kind] for kind in _KINDS],
            "customer": customer,
            "asset": asset,
            "limit": limit + 1,
        },
    )
    lines = tuple(_line(row) for row in rows[:limit])
    for line in lines:
        seen[line.account] = line.seq
    return StatementPage(lines, "-".join(str(seen[kind]) for kind in _KINDS), more=len(rows) > limit)


@dataclass(frozen=True, slots=True)
class PeriodStatement:
    """A customer's lines of one asset in a period. `closing` is `opening` plus the lines, account by account."""

    opening: Balances
    closing: Balances
    lines: tuple[StatementLine, ...]


def period(tx: Tx, customer: str, asset: str, *, since: datetime, until: datetime) -> PeriodStatement:
    """All of a customer's lines of one asset with `since` <= time < `until`, and the balances at both ends.

    Args:
        tx: a transaction.
        customer: customer id.
        asset: asset id.
        since, until: with time zones.

    Raises:
        InvalidValue: more than 50,000 lines, an empty period, or a time without a zone.
    """
    if since.tzinfo is None or until.tzinfo is None or since >= until:
        raise InvalidValue(f"the period {since} to {until}: expected two times with zones, the earlier first")
    rows = tx.all(
        """SELECT l.*, a.kind, t.reference FROM ledger_accounts a
           JOIN ledger_lines l ON l.account_id = a.id AND l.at >= %(since)s AND l.at < %(until)s
           JOIN ledger_transfers t ON t.id = l.transfer_id
           WHERE a.customer_id = %(customer)s AND a.asset = %(asset)s ORDER BY l.id LIMIT %(limit)s""",
        {"since": since, "until": until, "customer": customer, "asset": asset, "limit": MAX_PERIOD_LINES + 1},
    )
    if len(rows) > MAX_PERIOD_LINES:
        raise InvalidValue(f"the period has more than {MAX_PERIOD_LINES} lines: ask for a shorter one")
    before = {
        AccountKind(row["kind"]): units(row["balance"])
        for row in tx.all(
            """SELECT a.kind, coalesce((SELECT l.balance_after FROM ledger_lines l
                                        WHERE l.account_id = a.id AND l.at < %(since)s
                                        ORDER BY l.seq DESC LIMIT 1), 0) AS balance
               FROM ledger_accounts a WHERE a.customer_id = %(customer)s AND a.asset = %(asset)s""",
            {"since": since, "customer": customer, "asset": asset},
        )
    }
    lines = tuple(_line(row) for row in rows)
    after = before | {line.account: line.balance_after for line in lines}
    return PeriodStatement(_balances(asset, before), _balances(asset, after), lines)


def _balances(asset: str, found: Mapping[AccountKind, int]) -> Balances:
    return Balances(asset, *(found.get(kind, 0) for kind in _KINDS))


def _positions(after: str | None) -> dict[AccountKind, int]:
    match = _CURSOR.fullmatch("0-0-0" if after is None else after)
    if match is None:
        raise InvalidValue(f"cursor {str(after)[:80]!r} is not one that a statement gave")
    return dict(zip(_KINDS, map(int, match.groups()), strict=True))


def _line(row: Row) -> StatementLine:
    return StatementLine(
        row["transfer_id"],
        AccountKind(row["kind"]),
        row["seq"],
        LineType(row["type"]),
        units(row["amount"]),
        units(row["balance_before"]),
        units(row["balance_after"]),
        row["at"],
        row["reference"],
    )
