"""Reads the ledger's rows with the role `strongroom_read`: one snapshot each time, claims and nothing more."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import tuple_row

from chains.errors import InvalidValue, TransientError
from signers.verifier.ids import referred, traded
from signers.verifier.model import (
    Account,
    AddressRow,
    Claim,
    Deposit,
    History,
    Hold,
    Line,
    Move,
    OperatorAction,
    Refill,
    Settlement,
    Transfer,
    Withdrawal,
)

CONNECT_SECONDS: Final = 10
STATEMENT_MS: Final = 120_000
MAX_LINES: Final = 500_000
"""Of one customer's history. More cannot be replayed in one go."""

_ACCOUNT: Final = "id, customer_id, kind, asset, wallet, balance, last_seq"
_LINE: Final = "id, transfer_id, account_id, seq, type, amount, balance_before, balance_after"


class LedgerUnavailable(TransientError):
    """The database does not answer now."""


class TooLong(TransientError):
    """A history of more lines than are replayed in one go."""


class Ledger:
    """The database. Each `snapshot` is a connection of its own, read-only, and sees one moment.

    Args:
        dsn: connection address of the role `strongroom_read`. Never printed.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn

    def __repr__(self) -> str:
        return "Ledger([secret])"

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """The database as it is at this moment.

        Raises:
            LedgerUnavailable: no connection, or it was lost.
        """
        try:
            with psycopg.connect(
                self._dsn,
                connect_timeout=CONNECT_SECONDS,
                autocommit=False,
                application_name="strongroom verifier",
                options=f"-c timezone=UTC -c search_path=public -c statement_timeout={STATEMENT_MS}",
            ) as connection:
                connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                connection.read_only = True
                yield Snapshot(connection)
        except psycopg.Error as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LedgerUnavailable(f"database: {first}") from error


class Snapshot:
    """One moment of the database."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._cursor = connection.cursor(row_factory=tuple_row)

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._cursor.execute(query.encode(), values).fetchall()

    # ---------------------------------------------------------------------------------------------- a customer

    def history(self, customer: str) -> History:
        """Everything in the ledger that touches one customer.

        Raises:
            TooLong: more than MAX_LINES.
            InvalidValue: a row that cannot be.
        """
        own = self._rows(
            f"SELECT {_ACCOUNT} FROM ledger_accounts WHERE customer_id = %s ORDER BY id", customer
        )
        touched = self._rows(
            "SELECT DISTINCT transfer_id FROM ledger_lines WHERE account_id = ANY (%s) LIMIT %s",
            [row[0] for row in own],
            MAX_LINES + 1,
        )
        if len(touched) > MAX_LINES:
            raise TooLong(f"{customer} has more than {MAX_LINES} transfers")
        transfers = self._transfers([row[0] for row in touched])
        # A credit may be undone without a line in the customer's accounts, and one deposit credited to another.
        references = sorted(
            {
                each.reference
                for each in transfers.values()
                if referred(each.reference, "deposit") or referred(each.reference, "withdrawal")
            }
        )
        for row in self._rows(
            "SELECT id, kind, parent_id, reference FROM ledger_transfers WHERE reference = ANY (%s) LIMIT %s",
            references,
            MAX_LINES,
        ):
            transfers[row[0]] = Transfer(*row)
        lines = self._lines(list(transfers))
        holds = self._holds(customer, list(transfers))
        missing = [hold for hold in holds if hold not in transfers]
        transfers |= self._transfers(missing)
        lines += self._lines(missing)
        return self._completed(customer, own, transfers, lines, holds)

    def _completed(
        self,
        customer: str,
        own: Sequence[tuple[Any, ...]],
        transfers: dict[UUID, Transfer],
        lines: list[Line],
        holds: dict[UUID, Hold],
    ) -> History:
        accounts = {row[0]: _account(row) for row in own}
        others = sorted({line.account for line in lines} - accounts.keys())
        for row in self._rows(f"SELECT {_ACCOUNT} FROM ledger_accounts WHERE id = ANY (%s)", others):
            accounts[row[0]] = _account(row)
        deposits = {
            row[0]: Deposit(row[0], row[1], row[2], row[3], row[4], row[5], units(row[6]), row[7], row[8])
            for row in self._rows(
                "SELECT id, chain, resource, address_id, customer_id, asset, units, height, block_hash FROM deposits"
                " WHERE id = ANY (%s)",
                _named(transfers.values(), "deposit"),
            )
        }
        addresses = self._addresses("WHERE id = ANY (%s)", [each.address for each in deposits.values()])
        withdrawals = {
            each.id: each
            for each in self._withdrawals("WHERE id = ANY (%s)", _named(transfers.values(), "withdrawal"))
        }
        return History(
            customer,
            accounts,
            sorted(lines, key=lambda line: line.id),
            transfers,
            holds,
            deposits,
            {each.id: each for each in addresses},
            withdrawals,
            self._settlements(transfers.values()),
            self._actions(_named(transfers.values(), "adjustment")),
        )

    def _actions(self, adjustments: Sequence[UUID]) -> list[OperatorAction]:
        """What operators have asked for and approved about these adjustments."""
        if not adjustments:
            return []
        rows = self._rows(
            "WITH asked AS (SELECT number FROM operator_actions WHERE action = 'adjust' AND outcome = 'asked'"
            "  AND parameters LIKE ANY (%s))"
            " SELECT number, (extract(epoch FROM at) * 1000000)::bigint, writer, operator, key, via, origin, action,"
            " parameters, outcome, reason, decision, bundle_version, asked_in, document, signature, previous"
            " FROM operator_actions WHERE number IN (SELECT number FROM asked)"
            " OR action = 'approve' AND outcome = 'done' AND asked_in IN (SELECT number FROM asked)"
            " ORDER BY number LIMIT %s",
            [f'%"id":"{each}"%' for each in adjustments],
            MAX_LINES,
        )
        return [OperatorAction(*row) for row in rows]

    def _settlements(self, transfers: Iterable[Transfer]) -> list[Settlement]:
        """The batches that trades are said to be of."""
        places = sorted({place[:2] for each in transfers if (place := traded(each.reference)) is not None})
        rows = self._rows(
            "SELECT DISTINCT ON (s.core, s.number) s.core, s.number, s.first, s.last, s.complete, s.fills, s.caller,"
            " s.document, s.token, s.signature FROM unnest(%s::uuid[], %s::bigint[]) AS k (core, sequence)"
            " JOIN trading_settlements s ON s.core = k.core AND s.first <= k.sequence AND s.last >= k.sequence"
            " ORDER BY s.core, s.number",
            [core for core, _ in places],
            [sequence for _, sequence in places],
        )
        return [Settlement(*row) for row in rows]

    def _transfers(self, ids: Sequence[UUID]) -> dict[UUID, Transfer]:
        rows = self._rows(
            "SELECT id, kind, parent_id, reference FROM ledger_transfers WHERE id = ANY (%s)", ids
        )
        return {row[0]: Transfer(*row) for row in rows}

    def _lines(self, transfers: Sequence[UUID]) -> list[Line]:
        rows = self._rows(
            f"SELECT {_LINE} FROM ledger_lines WHERE transfer_id = ANY (%s) LIMIT %s",
            transfers,
            MAX_LINES + 1,
        )
        if len(rows) > MAX_LINES:
            raise TooLong(f"a history has more than {MAX_LINES} lines")
        return [_line(row) for row in rows]

    def _holds(self, customer: str, transfers: Sequence[UUID]) -> dict[UUID, Hold]:
        rows = self._rows(
            "SELECT id, customer_id, asset, units, state FROM ledger_holds WHERE customer_id = %s OR id = ANY (%s)",
            customer,
            transfers,
        )
        return {row[0]: Hold(row[0], row[1], row[2], units(row[3]), row[4]) for row in rows}

    def _addresses(self, where: str, *values: Any) -> list[AddressRow]:
        rows = self._rows(
            "SELECT id, chain, keyset, asset, customer_id, purpose, address, script, attestation FROM addresses "
            + where,
            *values,
        )
        return [
            AddressRow(id, chain, keyset, asset, customer, purpose, address, bytes(script), attestation)
            for id, chain, keyset, asset, customer, purpose, address, script, attestation in rows
        ]

    def _withdrawals(self, where: str, *values: Any) -> list[Withdrawal]:
        rows = self._rows(
            "SELECT id, customer_id, chain, asset, destination, units, fee_units, order_json, order_signature"
            " FROM withdrawals " + where,
            *values,
        )
        return [
            Withdrawal(id, customer, chain, asset, destination, units(amount), units(fee), order, signature)
            for id, customer, chain, asset, destination, amount, fee, order, signature in rows
        ]

    # --------------------------------------------------------------------------------- transactions and wallets

    def claims(self, withdrawals: Sequence[UUID]) -> dict[UUID, Claim]:
        """By withdrawal, where the transaction that serves it is said to be."""
        return self._claims(
            "JOIN withdrawals o ON o.transaction_id = t.id WHERE o.id = ANY (%s)", withdrawals
        )

    def refill_claims(self, refills: Sequence[UUID]) -> dict[UUID, Claim]:
        """By refill, where its transaction is said to be."""
        return self._claims("JOIN refills o ON o.transaction_id = t.id WHERE o.id = ANY (%s)", refills)

    def transactions(self, ids: Sequence[UUID]) -> dict[UUID, Claim]:
        """By its own id, where a transaction is said to be."""
        return self._claims("JOIN transactions o ON o.id = t.id WHERE o.id = ANY (%s)", ids)

    def _claims(self, of: str, ids: Sequence[UUID]) -> dict[UUID, Claim]:
        rows = self._rows(
            "SELECT o.id, t.keyset, t.confirmed_txid, t.height, t.block_hash, ARRAY(SELECT DISTINCT unnest(resources)"
            " FROM transaction_versions v WHERE v.transaction_id = t.id ORDER BY 1 LIMIT 10000) FROM transactions t "
            + of,
            list(ids),
        )
        return {row[0]: Claim(row[1], row[2], row[3], row[4], tuple(row[5])) for row in rows}

    def place(self, wallet: str, script: bytes) -> tuple[int, int] | None:
        """Branch and index at which a wallet is said to have a script; None if nowhere."""
        rows = self._rows(
            "SELECT branch, index FROM addresses WHERE keyset = %s AND script = %s", wallet, script
        )
        return (rows[0][0], rows[0][1]) if rows else None

    def refills(self, ids: Sequence[UUID]) -> list[Refill]:
        """These refills, and all that are said to be confirmed."""
        rows = self._rows(
            "SELECT id, chain, asset, source, target, destination, units FROM refills"
            " WHERE state = 'confirmed' OR id = ANY (%s) ORDER BY id",
            list(ids),
        )
        return [
            Refill(id, chain, asset, source, target, destination, units(amount))
            for id, chain, asset, source, target, destination, amount in rows
        ]

    def moves(self) -> list[Move]:
        """Transfers with lines in the chain's money of more than one wallet, in the order of their lines."""
        rows = self._rows(
            "SELECT t.id, t.kind, t.parent_id, t.reference, a.kind, a.asset, a.wallet, l.amount FROM ledger_lines l"
            " JOIN ledger_accounts a ON a.id = l.account_id JOIN ledger_transfers t ON t.id = l.transfer_id"
            " WHERE l.transfer_id IN (SELECT m.transfer_id FROM ledger_lines m JOIN ledger_accounts b"
            " ON b.id = m.account_id WHERE b.kind = 'chain_assets' GROUP BY m.transfer_id"
            " HAVING count(DISTINCT b.wallet) > 1) ORDER BY l.id"
        )
        found: dict[Transfer, list[tuple[str, str, str, int]]] = {}
        for row in rows:
            found.setdefault(Transfer(*row[:4]), []).append((row[4], row[5], row[6], units(row[7])))
        return [Move(transfer, tuple(legs)) for transfer, legs in found.items()]

    # ---------------------------------------------------------------------------------------------- everything

    def address_of(self, chain: str, address: str) -> AddressRow | None:
        """The row of an address text; None where there is none."""
        found = self._addresses("WHERE chain = %s AND address = %s", chain, address)
        return found[0] if found else None

    def customers(self, after: str, limit: int) -> list[str]:
        """Ids of customers after one, in order; those of accounts too, whatever the table of customers says."""
        rows = self._rows(
            "SELECT id FROM (SELECT id FROM customers UNION SELECT customer_id FROM ledger_accounts"
            ' WHERE customer_id IS NOT NULL) c WHERE id > %s COLLATE "C" ORDER BY id COLLATE "C" LIMIT %s',
            after,
            limit,
        )
        return [row[0] for row in rows]

    def addresses(self, after: int, limit: int) -> list[AddressRow]:
        """Deposit addresses after one, by id. An address that is no house's is a deposit address, whatever it says."""
        return self._addresses(
            "WHERE id > %s AND (purpose = 'deposit' OR customer_id IS NOT NULL OR attestation IS NOT NULL)"
            " ORDER BY id LIMIT %s",
            after,
            limit,
        )

    def withdrawals(self, after: UUID | None, limit: int) -> list[Withdrawal]:
        """Withdrawals after one, by id."""
        return self._withdrawals(
            "WHERE id > %s ORDER BY id LIMIT %s", UUID(int=0) if after is None else after, limit
        )

    def house_accounts(self) -> list[Account]:
        """The house's accounts."""
        rows = self._rows(f"SELECT {_ACCOUNT} FROM ledger_accounts WHERE customer_id IS NULL ORDER BY id")
        return [_account(row) for row in rows]

    def lines_of(self, account: int) -> Iterator[Line]:
        """An account's lines in the order of their numbers."""
        after = 0
        while True:
            rows = self._rows(
                f"SELECT {_LINE} FROM ledger_lines WHERE account_id = %s AND seq > %s ORDER BY seq LIMIT 10000",
                account,
                after,
            )
            yield from map(_line, rows)
            if len(rows) < 10_000:
                return
            after = rows[-1][3]

    def broken_settlements(self) -> list[tuple[str, str]]:
        """Batches that do not follow the one before them, and cores of whose fills the ledger has more or fewer."""
        gaps = self._rows(
            "SELECT core || ':' || number, 'it covers ' || first || ' to ' || last || ' after ' || before FROM ("
            "SELECT *, coalesce(lag(last) OVER w, 0) AS before, coalesce(lag(complete) OVER w, true) AS whole,"
            " row_number() OVER w AS position FROM trading_settlements"
            " WINDOW w AS (PARTITION BY core ORDER BY number)) s"
            " WHERE number <> position OR first <> before + CASE WHEN whole THEN 1 ELSE 0 END"
            " ORDER BY core, number LIMIT 1000"
        )
        counts = self._rows(
            "SELECT coalesce(s.core, t.core)::text, coalesce(s.fills, 0) || ' fills were settled, the ledger has '"
            " || coalesce(t.trades, 0) FROM (SELECT core::text AS core, sum(fills) AS fills FROM trading_settlements"
            " GROUP BY 1) s FULL JOIN (SELECT split_part(reference, ':', 2) AS core, count(*) AS trades"
            " FROM ledger_transfers WHERE reference LIKE 'trade:%%' GROUP BY 1) t ON t.core = s.core"
            " WHERE coalesce(s.fills, 0) <> coalesce(t.trades, 0) ORDER BY 1 LIMIT 1000"
        )
        return [(row[0], row[1]) for row in (*gaps, *counts)]

    def unbalanced(self) -> list[tuple[str, int]]:
        """Transfers and assets whose lines do not sum to zero, lines without account or transfer among them."""
        rows = self._rows(
            "SELECT l.transfer_id || ' ' || coalesce(a.asset, 'of no account'), sum(l.amount) FROM ledger_lines l"
            " LEFT JOIN ledger_accounts a ON a.id = l.account_id LEFT JOIN ledger_transfers t ON t.id = l.transfer_id"
            " GROUP BY l.transfer_id, a.asset"
            " HAVING sum(l.amount) <> 0 OR a.asset IS NULL OR bool_or(t.id IS NULL) ORDER BY 1 LIMIT 1000"
        )
        return [(row[0], units(row[1])) for row in rows]

    def sums(self) -> list[tuple[str, int]]:
        """What the balances of each asset sum to, where that is not zero."""
        rows = self._rows(
            "SELECT asset, sum(balance) FROM ledger_accounts GROUP BY asset HAVING sum(balance) <> 0 ORDER BY asset"
        )
        return [(row[0], units(row[1])) for row in rows]


def units(value: Decimal | int) -> int:
    """A NUMERIC(78,0) column as int. Raises InvalidValue: it has a fraction, or is no number."""
    if type(value) is int:
        return value
    if not isinstance(value, Decimal) or not value.is_finite() or value != value.to_integral_value():
        raise InvalidValue(f"{value!r}: expected an integer number of base units")
    return int(value)


def _account(row: tuple[Any, ...]) -> Account:
    id, customer, kind, asset, wallet, balance, last_seq = row
    return Account(id, customer, kind, asset, wallet, units(balance), last_seq)


def _line(row: tuple[Any, ...]) -> Line:
    id, transfer, account, seq, type, amount, before, after = row
    return Line(id, transfer, account, seq, type, units(amount), units(before), units(after))


def _named(transfers: Iterable[Transfer], what: str) -> list[UUID]:
    found = {referred(each.reference, what) for each in transfers}
    return sorted(id for id in found if id is not None)
