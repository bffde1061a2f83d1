"""The database's own refusals, by plain SQL as each role: they hold whatever the code above them does."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any, Final
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors as pg
from psycopg.sql import SQL, Identifier

from custody.ledger.model import LineType
from custody.storage.db import Database
from custody.storage.migrate import LIFECYCLES, ROLES, edges
from tests.support.ledger import booked, credit, customers, write_lines

WRITERS: Final = ("strongroom_api", "strongroom_monitor", "strongroom_worker")
Connections = Mapping[str, psycopg.Connection[Any]]


@pytest.fixture
def people(database: str) -> str:
    """A database with two customers, of whom alice has 1000 units and bob 500."""
    with Database(database, application="test") as db:
        customers(db, "alice", "bob")
        booked(db, credit("alice", 1000), credit("bob", 500))
    return database


@pytest.fixture
def roles(people: str) -> Iterator[Connections]:
    """A connection for each role, and the superuser's as `owner`."""
    with ExitStack() as stack:
        found = {"owner": stack.enter_context(psycopg.connect(people, autocommit=True))}
        for role in ROLES:
            found[role] = stack.enter_context(psycopg.connect(people, autocommit=True))
            # As after a login, without its cost: session_user is the role, and its rights are all there are.
            found[role].execute(SQL("SET SESSION AUTHORIZATION {}").format(Identifier(role)))
        yield found


def account(connection: psycopg.Connection[Any], customer: str | None, kind: str) -> tuple[int, int, int]:
    """(id, balance, last_seq) of an account."""
    row = connection.execute(
        "SELECT id, balance, last_seq FROM ledger_accounts"
        " WHERE customer_id IS NOT DISTINCT FROM %s AND kind = %s",
        [customer, kind],
    ).fetchone()
    assert row is not None
    return row[0], int(row[1]), row[2]


def insert_lines(
    connection: psycopg.Connection[Any], *lines: tuple[UUID, int, int, int, int], first_leg: int = 1
) -> None:
    """One statement that adds lines (transfer, account, seq, amount, balance before)."""
    typed = [(t, a, seq, LineType.TRANSFER, amount, before) for t, a, seq, amount, before in lines]
    with connection.transaction():
        write_lines(connection, typed, first_leg=first_leg)


def make(connection: psycopg.Connection[Any], transfer: UUID, *, legs: int = 2) -> None:
    connection.execute(
        "INSERT INTO ledger_transfers (id, kind, content_hash, legs) VALUES (%s, 'immediate', %s, %s)",
        [transfer, secrets.token_bytes(32), legs],
    )


def book(connection: psycopg.Connection[Any], *lines: tuple[UUID, int, int, int, int]) -> None:
    """A transfer with these lines, in one transaction."""
    with connection.transaction():
        make(connection, lines[0][0], legs=max(2, len(lines)))
        insert_lines(connection, *lines)


def transfer_lines(
    connection: psycopg.Connection[Any], units: int, *, source: str = "alice", target: str = "bob"
) -> list[tuple[UUID, int, int, int, int]]:
    """Correct lines of a transfer between two customers."""
    a, b, id = account(connection, source, "available"), account(connection, target, "available"), uuid4()
    return [(id, a[0], a[2] + 1, -units, a[1]), (id, b[0], b[2] + 1, units, b[1])]


# ------------------------------------------------------------------------------------------------- balances


@pytest.mark.parametrize("role", ROLES)
def test_no_role_can_update_a_balance_or_lock_and_edit_an_account(roles: Connections, role: str) -> None:
    for statement in (
        "UPDATE ledger_accounts SET balance = 10 WHERE customer_id = 'alice'",
        "UPDATE ledger_accounts SET last_seq = 0",
        "DELETE FROM ledger_accounts",
        "TRUNCATE ledger_accounts CASCADE",
        "ALTER TABLE ledger_accounts DISABLE TRIGGER ALL",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute(statement)


def test_not_even_the_owner_changes_a_balance_except_through_lines(roles: Connections) -> None:
    for statement in ("UPDATE ledger_accounts SET balance = 0", "DELETE FROM ledger_accounts"):
        with pytest.raises(pg.InsufficientPrivilege, match="through lines only"):
            roles["owner"].execute(statement)


_FULL: Final = (
    "INSERT INTO ledger_accounts (customer_id, kind, asset, balance) VALUES ('bob', 'trading', 'BTC', 5)"
)


@pytest.mark.parametrize("role", WRITERS)
def test_an_account_starts_empty(roles: Connections, role: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        roles[role].execute(_FULL)
    with pytest.raises(pg.CheckViolation, match="starts empty"):
        roles["owner"].execute(_FULL)


def test_an_account_is_either_a_customers_or_the_houses(roles: Connections) -> None:
    for customer, kind in (("alice", "suspense"), (None, "available")):
        with pytest.raises(pg.CheckViolation):
            roles["strongroom_worker"].execute(
                "INSERT INTO ledger_accounts (customer_id, kind, asset) VALUES (%s, %s, 'ETH')",
                [customer, kind],
            )


# ---------------------------------------------------------------------------------------------------- lines


@pytest.mark.parametrize(
    "table", ["ledger_lines", "ledger_transfers", "events", "deposit_events", "withdrawal_events"]
)
@pytest.mark.parametrize("role", ["owner", *ROLES])
def test_nobody_edits_or_deletes_history(roles: Connections, role: str, table: str) -> None:
    columns = {"ledger_lines": "amount = 1", "ledger_transfers": "reference = ''"}
    for statement in (
        f"UPDATE {table} SET {columns.get(table, 'at = now()')}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute(statement)


@pytest.mark.parametrize("role", ["owner", "strongroom_monitor", "strongroom_worker"])
def test_a_correct_transfer_is_taken_and_moves_both_balances(roles: Connections, role: str) -> None:
    lines = transfer_lines(roles[role], 400)
    book(roles[role], *lines)
    assert account(roles[role], "alice", "available")[1:] == (600, 2)
    assert account(roles[role], "bob", "available")[1:] == (900, 2)


@pytest.mark.parametrize("role", ["owner", "strongroom_worker"])
def test_a_transfer_out_of_balance_is_refused(roles: Connections, role: str) -> None:
    (id, a, seq, amount, before), other = transfer_lines(roles[role], 400)
    with pytest.raises(pg.CheckViolation, match="out of balance by 1 BTC"):
        book(roles[role], (id, a, seq, amount + 1, before), other)
    with pytest.raises(pg.CheckViolation, match="another number of lines"):
        book(roles[role], other)


def test_a_transfer_that_balances_only_across_assets_is_refused(roles: Connections) -> None:
    worker = roles["strongroom_worker"]
    worker.execute(
        "INSERT INTO ledger_accounts (customer_id, kind, asset) VALUES ('bob', 'available', 'ETH')"
    )
    (id, a, seq, amount, before), _ = transfer_lines(worker, 400)
    row = worker.execute("SELECT id FROM ledger_accounts WHERE asset = 'ETH'").fetchone()
    assert row is not None
    with pytest.raises(pg.CheckViolation, match="out of balance"):
        book(worker, (id, a, seq, amount, before), (id, row[0], 1, 400, 0))


@pytest.mark.parametrize("role", ["owner", "strongroom_worker"])
def test_a_gap_in_seq_or_a_wrong_balance_before_is_refused(roles: Connections, role: str) -> None:
    (id, a, seq, amount, before), other = transfer_lines(roles[role], 400)
    for bad in (
        (id, a, seq + 1, amount, before),
        (id, a, seq - 1, amount, before),
        (id, a, seq, amount, before + 1),
    ):
        with pytest.raises(psycopg.IntegrityError):
            book(roles[role], bad, other)


@pytest.mark.parametrize("role", ["owner", "strongroom_worker"])
def test_a_customers_balance_cannot_become_negative(roles: Connections, role: str) -> None:
    with pytest.raises(pg.CheckViolation, match="below zero"):
        book(roles[role], *transfer_lines(roles[role], 1001))


def test_a_customers_balance_cannot_dip_below_zero_within_a_transfer_either(roles: Connections) -> None:
    worker = roles["strongroom_worker"]
    id, (a, balance, seq) = uuid4(), account(worker, "alice", "available")
    with pytest.raises(pg.CheckViolation, match="below zero"):
        book(worker, (id, a, seq + 1, -1001, balance), (id, a, seq + 2, 1001, balance - 1001))


@pytest.mark.parametrize("role", ["owner", "strongroom_worker"])
def test_lines_added_later_to_an_old_transfer_are_refused(roles: Connections, role: str) -> None:
    row = roles[role].execute("SELECT id FROM ledger_transfers LIMIT 1").fetchone()
    assert row is not None
    later = [(row[0], *rest) for _, *rest in transfer_lines(roles[role], 1)]
    with pytest.raises(pg.UniqueViolation):
        insert_lines(roles[role], *later)
    with pytest.raises(pg.CheckViolation, match="was not made in this transaction"):
        insert_lines(roles[role], *later, first_leg=3)


@pytest.mark.parametrize("role", ["owner", "strongroom_worker"])
def test_a_second_statement_adds_no_lines_in_the_same_transaction_either(
    roles: Connections, role: str
) -> None:
    def twice(first_leg: int) -> None:
        with roles[role].transaction():
            first = transfer_lines(roles[role], 1)
            make(roles[role], first[0][0])
            insert_lines(roles[role], *first)
            more = transfer_lines(roles[role], 1)
            again = ((first[0][0], a, seq, amount, b) for _, a, seq, amount, b in more)
            insert_lines(roles[role], *again, first_leg=first_leg)

    with pytest.raises(pg.UniqueViolation):
        twice(1)
    with pytest.raises(pg.CheckViolation, match="has another number of lines"):
        twice(3)
    assert account(roles[role], "alice", "available")[1] == 1000


def test_lines_without_a_transfer_or_without_an_account_are_refused(roles: Connections) -> None:
    worker = roles["strongroom_worker"]
    with (
        pytest.raises(pg.CheckViolation, match="was not made in this transaction"),
        worker.transaction(),
    ):
        insert_lines(worker, *transfer_lines(worker, 1))
    id = uuid4()
    with pytest.raises(pg.CheckViolation, match="of an account that does not exist"):
        book(worker, (id, 10**9, 1, -1, 0), (id, 10**9 + 1, 1, 1, 0))
    assert account(worker, "alice", "available")[1] == 1000


@pytest.mark.parametrize("role", WRITERS)
def test_nobody_chooses_times_line_ids_or_places_in_the_feed(roles: Connections, role: str) -> None:
    for statement in (
        "INSERT INTO events (type, subject, data, xid) VALUES ('a', 'b', '{}', '1')",
        "INSERT INTO events (type, subject, data, at) VALUES ('a', 'b', '{}', now())",
        "INSERT INTO ledger_transfers (xid) VALUES ('1')",
        "INSERT INTO ledger_holds (state) VALUES ('posted')",
    ):
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute(statement)


# ------------------------------------------------------------------------------------------------------ api


def test_the_api_may_freeze_a_customers_money(roles: Connections) -> None:
    api = roles["strongroom_api"]
    api.execute("INSERT INTO ledger_accounts (customer_id, kind, asset) VALUES ('alice', 'frozen', 'BTC')")
    a, f, id = account(api, "alice", "available"), account(api, "alice", "frozen"), uuid4()
    book(api, (id, a[0], a[2] + 1, -300, a[1]), (id, f[0], 1, 300, 0))
    assert account(api, "alice", "frozen")[1] == 300


def test_the_api_may_not_credit_or_move_money_between_customers(roles: Connections) -> None:
    api = roles["strongroom_api"]
    with pytest.raises(pg.InsufficientPrivilege, match="only freeze and unfreeze"):
        book(api, *transfer_lines(api, 1))
    a, wallet, id = account(api, "alice", "available"), account(api, None, "chain_assets"), uuid4()
    with pytest.raises(pg.InsufficientPrivilege, match="only freeze and unfreeze"):
        book(api, (id, wallet[0], wallet[2] + 1, -5, wallet[1]), (id, a[0], a[2] + 1, 5, a[1]))


@pytest.mark.parametrize("role", WRITERS)
def test_a_roles_own_temporary_tables_do_not_stand_in_for_the_real_ones(
    roles: Connections, role: str
) -> None:
    connection = roles[role]
    connection.execute("CREATE TEMP TABLE ledger_accounts AS SELECT * FROM public.ledger_accounts")
    connection.execute("UPDATE pg_temp.ledger_accounts SET balance = 10^9")
    row = (
        roles["owner"]
        .execute("SELECT id, last_seq FROM ledger_accounts WHERE customer_id = 'alice'")
        .fetchone()
    )
    other = (
        roles["owner"]
        .execute("SELECT id, last_seq FROM ledger_accounts WHERE customer_id = 'bob'")
        .fetchone()
    )
    assert row is not None
    assert other is not None
    id = uuid4()
    with pytest.raises(pg.Error, match=r"do not continue its history|only freeze"):
        book(connection, (id, row[0], row[1] + 1, -5000, 10**9), (id, other[0], other[1] + 1, 5000, 10**9))
    assert account(roles["owner"], "alice", "available")[1] == 1000


# ----------------------------------------------------------------------------------------------- lifecycles


def test_the_database_holds_the_edges_of_the_code_and_nobody_edits_them(roles: Connections) -> None:
    found = {tuple(row) for row in roles["owner"].execute("SELECT * FROM lifecycle_edges")}
    assert found == edges()
    for role in ROLES:
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute("DELETE FROM lifecycle_edges")


def _rows(connection: psycopg.Connection[Any]) -> dict[str, tuple[str, UUID]]:
    """One row of each lifecycle's table, with the table's name."""
    ids = {cycle.name: uuid4() for cycle in LIFECYCLES}
    connection.execute(
        "INSERT INTO addresses (chain, keyset, asset, customer_id, purpose, branch, index, address, script,"
        " attestation) VALUES ('c', 'k', 'BTC', 'alice', 'deposit', 0, 0, 'a', '\\x00', '{}')"
    )
    connection.execute(
        "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state,"
        " height, block_hash, confirmations)"
        " SELECT %s, 'c', 'r', 't', id, 'alice', 'BTC', 5, 'seen', 1, 'h', 6 FROM addresses",
        [ids["deposit"]],
    )
    connection.execute(
        "INSERT INTO transactions (id, chain, keyset, kind, state) VALUES (%s, 'c', 'k', 'payment', 'built')",
        [ids["transaction"]],
    )
    connection.execute(
        "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
        " order_json, order_signature, order_hash, state, screened_at, expires_at)"
        " VALUES (%s, 'x', 'alice', 'c', 'BTC', 'd', 5, 1, '{}', 's', 'h', 'requested', now(), now())",
        [ids["withdrawal"]],
    )
    connection.execute(
        "INSERT INTO cases (id, kind, subject, chain, address, findings, resolution, resolved_by, resolved_at)"
        " VALUES (%s, 'deposit', %s, 'c', 'a', '[{}]', 'why', 'somebody', now())",
        [ids["case"], ids["deposit"]],
    )
    connection.execute(
        "INSERT INTO sweeps (id, chain, keyset, kind, state) VALUES (%s, 'c', 'k', 'sweep', 'planned')",
        [ids["sweep"]],
    )
    connection.execute(
        "INSERT INTO whitelist (id, owner, chain, address, provenance, requested_by, document, signature, listed_at,"
        " removed_by) VALUES (%s, 'alice', 'c', 'd', 'the customer', 'x', '{}', 's', now(), 'x')",
        [ids["whitelist"]],
    )
    connection.execute(
        "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources, fee_units,"
        " feerate, size) VALUES (%s, 1, '{}', '\\x00', 'content', '{r}', 1, 1, 1)",
        [ids["transaction"]],
    )
    connection.execute(
        "INSERT INTO signing_sessions (id, transaction_id, version, wallet, threshold, members, state, expires_at)"
        " VALUES (%s, %s, 1, 'v', 2, 3, 'open', now())",
        [ids["signing"], ids["transaction"]],
    )
    connection.execute(
        "INSERT INTO refills (id, chain, asset, source, tier, target, destination, units, why, about, proposed_by,"
        " state, decision, policy_version)"
        " VALUES (%s, 'c', 'BTC', 'k', 'hot', 'v', 'd', 5, 'excess', 'why', 'house', 'proposed', '{}', 1)",
        [ids["refill"]],
    )
    row = connection.execute("SELECT id FROM ledger_transfers LIMIT 1").fetchone()
    assert row is not None
    ids["hold"] = row[0]
    connection.execute(
        "INSERT INTO ledger_holds (id, customer_id, asset, units) VALUES (%s, 'alice', 'BTC', 5)",
        [ids["hold"]],
    )
    tables = {
        "deposit": "deposits",
        "transaction": "transactions",
        "withdrawal": "withdrawals",
        "sweep": "sweeps",
        "refill": "refills",
        "signing": "signing_sessions",
        "case": "cases",
        "hold": "ledger_holds",
        "whitelist": "whitelist",
    }
    return {name: (tables[name], id) for name, id in ids.items()}


def test_every_pair_of_states_is_taken_or_refused_as_the_code_says(roles: Connections) -> None:
    owner = roles["owner"]
    rows = _rows(owner)
    tried = 0
    for cycle in LIFECYCLES:
        table, id = rows[cycle.name]
        states = sorted({state for edge in cycle.edges() for state in edge})
        for before in states:
            for after in states:
                owner.execute("SET session_replication_role = replica")  # no triggers, to get to `before`
                owner.execute(f"UPDATE {table} SET state = %s WHERE id = %s", [before, id])
                owner.execute("SET session_replication_role = origin")
                change = f"UPDATE {table} SET state = %s WHERE id = %s"
                tried += 1
                if before == after or (before, after) in cycle.edges():
                    owner.execute(change, [after, id])
                else:
                    with pytest.raises(pg.CheckViolation, match=re.escape(f"{before} cannot become {after}")):
                        owner.execute(change, [after, id])
    assert tried > 300


def test_a_workers_own_temporary_table_of_edges_allows_nothing(roles: Connections) -> None:
    _rows(roles["owner"])
    worker = roles["strongroom_worker"]
    worker.execute("CREATE TEMP TABLE lifecycle_edges (lifecycle text, from_state text, to_state text)")
    worker.execute("INSERT INTO pg_temp.lifecycle_edges VALUES ('withdrawal', 'requested', 'settled')")
    with pytest.raises(pg.CheckViolation, match="requested cannot become settled"):
        worker.execute("UPDATE withdrawals SET state = 'settled'")


def test_a_worker_cannot_settle_a_withdrawal_that_was_never_broadcast(roles: Connections) -> None:
    _rows(roles["owner"])
    with pytest.raises(pg.CheckViolation, match="requested cannot become settled"):
        roles["strongroom_worker"].execute("UPDATE withdrawals SET state = 'settled'")


# --------------------------------------------------------------------------------------------- transactions


def test_signed_bytes_and_what_was_asked_for_never_change(roles: Connections) -> None:
    worker, owner = roles["strongroom_worker"], roles["owner"]
    _rows(owner)
    worker.execute("UPDATE transaction_versions SET signed = '\\x02', txid = 'ab', state = 'signed'")
    for change in (
        "signed = '\\x03'",
        "signed = NULL, txid = NULL, state = 'built'",
        "txid = 'cd'",
        "unsigned = '\\x03'",
        "request = '{\"v\":2}'",
    ):
        for connection in (worker, owner):
            with pytest.raises(pg.CheckViolation):
                connection.execute(f"UPDATE transaction_versions SET {change}")
    with pytest.raises(pg.InsufficientPrivilege):
        worker.execute("DELETE FROM transaction_versions")


def test_one_utxo_is_reserved_for_one_transaction_only(roles: Connections) -> None:
    worker, owner = roles["strongroom_worker"], roles["owner"]
    first, second = _rows(owner)["transaction"][1], uuid4()
    worker.execute(
        "INSERT INTO transactions (id, chain, keyset, kind, state) VALUES (%s, 'c', 'k', 'payment', 'built')",
        [second],
    )
    reserve = "INSERT INTO reservations (chain, resource, transaction_id) VALUES ('c', 'aa:0', %s)"
    worker.execute(reserve, [first])
    with pytest.raises(pg.UniqueViolation):
        worker.execute(reserve, [second])
    with pytest.raises(pg.InsufficientPrivilege):
        worker.execute("UPDATE reservations SET transaction_id = %s", [second])


def test_one_output_is_one_deposit_only(roles: Connections) -> None:
    owner = roles["owner"]
    _rows(owner)
    with pytest.raises(pg.UniqueViolation):
        owner.execute(
            "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state,"
            " confirmations) SELECT gen_random_uuid(), 'c', 'r', 't', id, 'bob', 'BTC', 5, 'seen', 6"
            " FROM addresses"
        )


# -------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("role", ["strongroom_monitor", "strongroom_worker", "strongroom_read"])
def test_answers_kept_for_callers_and_their_nonces_are_the_apis_alone(roles: Connections, role: str) -> None:
    for table in ("idempotency_keys", "token_nonces"):
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute(f"SELECT * FROM {table}")
        roles["strongroom_api"].execute(f"SELECT * FROM {table}")


def test_the_reading_role_writes_nothing_at_all(roles: Connections) -> None:
    reader = roles["strongroom_read"]
    tables = [row[0] for row in reader.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
    assert len(tables) > 20
    for table in tables:
        for right in ("INSERT", "UPDATE", "DELETE", "TRUNCATE"):
            row = reader.execute("SELECT has_table_privilege(%s, %s)", [f"public.{table}", right]).fetchone()
            assert row == (False,), (table, right)
    with pytest.raises(pg.InsufficientPrivilege):
        reader.execute("SELECT * FROM ledger_lock('{1}')")


@pytest.mark.parametrize("role", ROLES)
def test_no_role_makes_tables_in_the_schema_or_other_roles(roles: Connections, role: str) -> None:
    for statement in ("CREATE TABLE public.mine (x int)", "CREATE ROLE mine", "CREATE SCHEMA mine"):
        with pytest.raises(pg.InsufficientPrivilege):
            roles[role].execute(statement)


def test_the_api_requests_and_cancels_withdrawals_and_decides_nothing(roles: Connections) -> None:
    api, id = roles["strongroom_api"], uuid4()
    insert = (
        "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
        " order_json, order_signature, order_hash, state, expires_at)"
        " VALUES (%s, 'x', 'alice', 'c', 'BTC', 'd', 5, 1, '{}', 's', %s, %s, now())"
    )
    with pytest.raises(pg.InsufficientPrivilege, match="request and cancel"):
        api.execute(insert, [id, str(id), "queued"])
    with api.transaction():
        api.execute(insert, [id, str(id), "requested"])
        with pytest.raises(pg.InsufficientPrivilege, match="request and cancel"), api.transaction():
            api.execute("UPDATE withdrawals SET state = 'screening' WHERE id = %s", [id])
        with pytest.raises(pg.InsufficientPrivilege), api.transaction():
            api.execute("UPDATE withdrawals SET decision = '{}' WHERE id = %s", [id])
        api.execute("UPDATE withdrawals SET state = 'cancelled' WHERE id = %s", [id])
