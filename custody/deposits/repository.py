"""SQL of the deposits slice: addresses, deposits and their events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb

from custody.deposits.lifecycle import DepositEvent, DepositState
from custody.deposits.model import AddressRow, Deposit, Purpose
from custody.errors import Conflict
from custody.storage.db import Row, Tx, units

_ADDRESS: Final = (
    "id, chain, keyset, asset, customer_id, purpose, branch, index, address, script, attestation, created_at"
)
_DEPOSIT: Final = (
    "id, chain, resource, txid, address_id, customer_id, asset, units, state, height, block_hash,"
    " confirmations, credits, source, created_at, updated_at"
)


# ------------------------------------------------------------------------------------------------ addresses


def customer_exists(tx: Tx, customer: str) -> bool:
    """Whether there is such a customer."""
    return tx.optional("SELECT 1 FROM customers WHERE id = %s", [customer]) is not None


def take_index(tx: Tx, keyset: str, branch: int) -> int:
    """The next unused index of a branch. It is used up when `tx` commits, whatever happens afterwards."""
    row = tx.one(
        "INSERT INTO address_indexes (keyset, branch, next) VALUES (%s, %s, 1) "
        "ON CONFLICT (keyset, branch) DO UPDATE SET next = address_indexes.next + 1 RETURNING next",
        [keyset, branch],
    )
    return int(row["next"]) - 1


def insert_address(
    tx: Tx,
    *,
    chain: str,
    keyset: str,
    asset: str,
    customer: str | None,
    purpose: Purpose,
    branch: int,
    index: int,
    address: str,
    script: bytes,
    attestation: str | None,
) -> AddressRow:
    """Store an address for ever."""
    row = tx.one(
        "INSERT INTO addresses (chain, keyset, asset, customer_id, purpose, branch, index, address, script,"
        " attestation) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"
        f" RETURNING {_ADDRESS}",
        [chain, keyset, asset, customer, purpose, branch, index, address, script, attestation],
    )
    return _address(row)


def ensure_house_address(
    tx: Tx, *, chain: str, keyset: str, asset: str, branch: int, address: str, script: bytes
) -> None:
    """Store the address of a key itself, which has index 0, unless it is there."""
    tx.execute(
        "INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
        " VALUES (%s, %s, %s, %s, %s, 0, %s, %s) ON CONFLICT DO NOTHING",
        [chain, keyset, asset, Purpose.CHANGE, branch, address, script],
    )


def addresses_by_script(tx: Tx, chain: str, scripts: Iterable[bytes]) -> dict[bytes, AddressRow]:
    """Our addresses of `chain` among `scripts`."""
    rows = tx.all(
        f"SELECT {_ADDRESS} FROM addresses WHERE chain = %s AND script = ANY (%s)", [chain, list(scripts)]
    )
    return {row.script: row for row in map(_address, rows)}


def addresses_by_id(tx: Tx, ids: Iterable[int]) -> dict[int, AddressRow]:
    """Addresses by id."""
    rows = tx.all(f"SELECT {_ADDRESS} FROM addresses WHERE id = ANY (%s)", [list(ids)])
    return {row.id: row for row in map(_address, rows)}


def address_of_text(tx: Tx, chain: str, address: str) -> AddressRow | None:
    """The row that says this address is ours, if there is one; it may lie, see `attestation.verify_row`."""
    row = tx.optional(f"SELECT {_ADDRESS} FROM addresses WHERE chain = %s AND address = %s", [chain, address])
    return None if row is None else _address(row)


def addresses_after(tx: Tx, chain: str, after: int, limit: int) -> list[AddressRow]:
    """The next addresses of `chain` in the order of their ids."""
    rows = tx.all(
        f"SELECT {_ADDRESS} FROM addresses WHERE chain = %s AND id > %s ORDER BY id LIMIT %s",
        [chain, after, limit],
    )
    return [_address(row) for row in rows]


def addresses_of(tx: Tx, customer: str, *, asset: str | None = None) -> list[AddressRow]:
    """A customer's addresses, oldest first."""
    rows = tx.all(
        f"SELECT {_ADDRESS} FROM addresses WHERE customer_id = %s AND (%s::text IS NULL OR asset = %s)"
        " ORDER BY id",
        [customer, asset, asset],
    )
    return [_address(row) for row in rows]


def scripts(tx: Tx, chain: str) -> set[bytes]:
    """Every script that we watch on `chain`."""
    rows = tx.all("SELECT script FROM addresses WHERE chain = %s", [chain])
    return {bytes(row["script"]) for row in rows}


def _address(row: Row) -> AddressRow:
    return AddressRow(
        id=row["id"],
        chain=row["chain"],
        keyset=row["keyset"],
        asset=row["asset"],
        customer=row["customer_id"],
        purpose=Purpose(row["purpose"]),
        branch=row["branch"],
        index=row["index"],
        address=row["address"],
        script=bytes(row["script"]),
        attestation=row["attestation"],
        created_at=row["created_at"],
    )


# ------------------------------------------------------------------------------------------------- deposits


@dataclass(frozen=True, slots=True)
class NewDeposit:
    """What is stored of a deposit at first sight."""

    id: UUID
    chain: str
    resource: str
    txid: str
    address_id: int
    customer: str | None
    asset: str
    units: int
    confirmations: int
    source: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """One applied event of a deposit's life."""

    deposit: Deposit
    event: DepositEvent
    to: DepositState
    height: int | None
    block_hash: str | None
    credits: int
    detail: Mapping[str, Any]


def insert_deposits(tx: Tx, deposits: Sequence[NewDeposit]) -> None:
    """Store deposits as SEEN. The database refuses a second row for one output."""
    tx.executemany(
        "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state,"
        " confirmations, source) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'seen', %s, %s)",
        [
            (
                d.id,
                d.chain,
                d.resource,
                d.txid,
                d.address_id,
                d.customer,
                d.asset,
                d.units,
                d.confirmations,
                d.source,
            )
            for d in deposits
        ],
    )
    _record(tx, [(d.id, DepositEvent.SIGHTED, "seen", "seen", {}) for d in deposits])


def apply(tx: Tx, moves: Sequence[Move]) -> None:
    """Write events that happened, each only if its deposit is still in the state it was read in.

    Raises:
        Conflict: somebody moved one of them meanwhile.
    """
    changed = tx.executemany(
        "UPDATE deposits SET state = %s, height = %s, block_hash = %s, credits = %s, updated_at = now()"
        " WHERE id = %s AND state = %s AND credits = %s",
        [
            (m.to, m.height, m.block_hash, m.credits, m.deposit.id, m.deposit.state, m.deposit.credits)
            for m in moves
        ],
    )
    if changed != len(moves):
        raise Conflict(f"{len(moves) - changed} deposits were changed by somebody else meanwhile")
    _record(tx, [(m.deposit.id, m.event, m.deposit.state, m.to, m.detail) for m in moves])


def _record(tx: Tx, events: Iterable[tuple[UUID, str, str, str, Mapping[str, Any]]]) -> None:
    tx.executemany(
        "INSERT INTO deposit_events (deposit_id, event, from_state, to_state, detail)"
        " VALUES (%s, %s, %s, %s, %s)",
        [(id_, event, before, after, Jsonb(dict(detail))) for id_, event, before, after, detail in events],
    )


def deposit(tx: Tx, id_: UUID) -> Deposit | None:
    """One deposit."""
    row = tx.optional(f"SELECT {_DEPOSIT} FROM deposits WHERE id = %s", [id_])
    return None if row is None else _deposit(row)


def deposits(
    tx: Tx,
    *,
    customer: str | None = None,
    state: DepositState | None = None,
    after: UUID | None = None,
    limit: int = 100,
) -> list[Deposit]:
    """A page of deposits in the order of their ids, from the one after `after`."""
    rows = tx.all(
        f"SELECT {_DEPOSIT} FROM deposits WHERE (%(customer)s::text IS NULL OR customer_id = %(customer)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"customer": customer, "state": state, "after": after, "limit": limit},
    )
    return [_deposit(row) for row in rows]


def count(tx: Tx, chain: str) -> int:
    """How many deposits there are on a chain."""
    return int(tx.one("SELECT count(*) AS n FROM deposits WHERE chain = %s", [chain])["n"])


def by_resource(tx: Tx, chain: str, resources: Iterable[str]) -> dict[str, Deposit]:
    """Deposits among `resources`, locked until the end of the transaction."""
    rows = tx.all(
        f"SELECT {_DEPOSIT} FROM deposits WHERE chain = %s AND resource = ANY (%s) ORDER BY id FOR UPDATE",
        [chain, list(resources)],
    )
    return {row.resource: row for row in map(_deposit, rows)}


def in_blocks_above(tx: Tx, chain: str, height: int) -> list[Deposit]:
    """Deposits whose block is higher than `height`, locked until the end of the transaction."""
    rows = tx.all(
        f"SELECT {_DEPOSIT} FROM deposits WHERE chain = %s AND height > %s ORDER BY id FOR UPDATE",
        [chain, height],
    )
    return [_deposit(row) for row in rows]


def due(tx: Tx, chain: str, anchor: int, limit: int) -> list[Deposit]:
    """Confirming deposits that have their confirmations when these count from height `anchor`, oldest first."""
    rows = tx.all(
        f"SELECT {_DEPOSIT} FROM deposits WHERE chain = %s AND state = 'confirming'"
        " AND height + confirmations - 1 <= %s ORDER BY height, id LIMIT %s",
        [chain, anchor, limit],
    )
    return [_deposit(row) for row in rows]


def in_state(tx: Tx, chain: str, state: DepositState) -> list[Deposit]:
    """All deposits of `chain` in a state, oldest first."""
    rows = tx.all(
        f"SELECT {_DEPOSIT} FROM deposits WHERE chain = %s AND state = %s ORDER BY id", [chain, state]
    )
    return [_deposit(row) for row in rows]


def moved_by_us(tx: Tx, chain: str, resources: Iterable[str], up_to: int) -> set[str]:
    """Which of these coins a transaction of ours has spent in a block up to this height."""
    rows = tx.all(
        "SELECT c.resource FROM consumptions c WHERE c.chain = %s AND c.resource = ANY (%s) AND c.height <= %s"
        " AND EXISTS (SELECT 1 FROM transaction_versions v WHERE v.content = c.content)",
        [chain, list(resources), up_to],
    )
    return {row["resource"] for row in rows}


def ever_quarantined(tx: Tx, ids: Iterable[UUID]) -> set[UUID]:
    """Which of these deposits an operator has ever quarantined: a reorg does not undo that."""
    rows = tx.all(
        "SELECT DISTINCT deposit_id FROM deposit_events WHERE deposit_id = ANY (%s) AND event = %s",
        [list(ids), DepositEvent.QUARANTINE],
    )
    return {row["deposit_id"] for row in rows}


def freeze_customer(tx: Tx, customer: str, reason: str) -> None:
    """Stop a customer's withdrawals until an operator decides. Again changes nothing."""
    tx.execute(
        "UPDATE customers SET state = 'frozen', reason = %s WHERE id = %s AND state = 'active'",
        [reason, customer],
    )


def _deposit(row: Row) -> Deposit:
    return Deposit(
        id=row["id"],
        chain=row["chain"],
        resource=row["resource"],
        txid=row["txid"],
        address_id=row["address_id"],
        customer=row["customer_id"],
        asset=row["asset"],
        units=units(row["units"]),
        state=DepositState(row["state"]),
        height=row["height"],
        block_hash=row["block_hash"],
        confirmations=row["confirmations"],
        credits=row["credits"],
        source=row["source"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
