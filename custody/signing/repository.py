"""SQL of our transactions, their versions, and the resources reserved for them."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chains.errors import InvalidValue
from chains.types import BlockRef
from custody.errors import Conflict
from custody.signing.lifecycle import TRANSACTION, TransactionEvent, TransactionState
from custody.signing.model import (
    ConsumptionFact,
    OurTransaction,
    Version,
    VersionState,
)
from custody.signing.requests import Built
from custody.storage.db import Row, Tx, units


def insert(
    tx: Tx, transaction_id: UUID, chain: str, keyset: str, kind: str, change_index: int | None
) -> None:
    """Add a transaction in its first state."""
    tx.execute(
        "INSERT INTO transactions (id, chain, keyset, kind, state, change_index) VALUES (%s, %s, %s, %s, %s, %s)",
        [transaction_id, chain, keyset, kind, TransactionState.BUILT, change_index],
    )


def insert_version(tx: Tx, transaction_id: UUID, version: int, built: Built) -> bool:
    """Add a version; False if another worker has added this number, or this content."""
    return bool(
        tx.execute(
            "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
            " fee_units, feerate, size) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
            [
                transaction_id,
                version,
                built.request,
                built.unsigned,
                built.content,
                list(built.resources),
                built.fee_units,
                built.feerate,
                built.size,
            ],
        )
    )


def find(tx: Tx, transaction_id: UUID) -> OurTransaction | None:
    """The transaction with its versions, or None."""
    row = tx.optional("SELECT * FROM transactions WHERE id = %s", [transaction_id])
    return None if row is None else _transaction(tx, row)


def lock(tx: Tx, transaction_id: UUID) -> OurTransaction:
    """The transaction, locked until the end of `tx`: one worker at a time moves it.

    Raises:
        InvalidValue: there is none.
    """
    row = tx.optional("SELECT * FROM transactions WHERE id = %s FOR UPDATE", [transaction_id])
    if row is None:
        raise InvalidValue(f"there is no transaction {transaction_id}")
    return _transaction(tx, row)


def in_states(tx: Tx, chain: str, states: Sequence[TransactionState]) -> Sequence[UUID]:
    """Ids of a chain's transactions in some states, oldest first."""
    rows = tx.all(
        "SELECT id FROM transactions WHERE chain = %s AND state = ANY (%s) ORDER BY created_at, id",
        [chain, list(states)],
    )
    return [row["id"] for row in rows]


def moved_since_final(tx: Tx, chain: str) -> Sequence[UUID]:
    """Ids of final transactions whose block is no longer in the best chain, or holds another version of
    them."""
    rows = tx.all(
        "SELECT t.id FROM transactions t WHERE t.chain = %s AND t.state = 'final' AND NOT EXISTS ("
        " SELECT 1 FROM blocks b WHERE b.chain = t.chain AND b.height = t.height AND b.hash = t.block_hash)"
        " ORDER BY t.created_at, t.id",
        [chain],
    )
    return [row["id"] for row in rows]


def to_sign(
    tx: Tx, chain: str, keyset: str, kinds: Sequence[str], *, except_for: Sequence[UUID]
) -> Sequence[Version]:
    """Versions of some kinds that the signer has to be asked about, oldest first; not those of some transactions."""
    rows = tx.all(
        "SELECT v.* FROM transaction_versions v JOIN transactions t ON t.id = v.transaction_id"
        " WHERE t.chain = %s AND t.keyset = %s AND v.state = 'built' AND t.state IN ('built', 'broadcast', 'contested')"
        " AND t.kind = ANY (%s) AND t.id <> ALL (%s) ORDER BY v.created_at, v.transaction_id, v.version",
        [chain, keyset, list(kinds), list(except_for)],
    )
    return [_version(row) for row in rows]


def still_to_sign(tx: Tx, version: Version) -> bool:
    """Whether the signer still has to be asked about a version; another worker may have brought its answer."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM transaction_versions v JOIN transactions t ON t.id = v.transaction_id"
        " WHERE v.transaction_id = %s AND v.version = %s AND v.state = 'built'"
        "  AND t.state IN ('built', 'broadcast', 'contested')) AS found",
        [version.transaction_id, version.version],
    )
    return bool(row["found"])


def contenders(tx: Tx, chain: str, resources: Sequence[str]) -> Sequence[OurTransaction]:
    """Our transactions that use one of `resources` in any version, are in no block, and may still be: by their ids."""
    rows = tx.all(
        "SELECT t.* FROM transactions t WHERE t.chain = %s AND t.state IN ('built', 'broadcast', 'contested')"
        " AND t.id IN (SELECT v.transaction_id FROM transaction_versions v"
        "  WHERE v.resources && %s::text[] AND v.state <> 'refused') ORDER BY t.id",
        [chain, list(resources)],
    )
    return [_transaction(tx, row) for row in rows]


def are_ours(tx: Tx, contents: Sequence[str]) -> bool:
    """Whether all of these are versions of transactions of ours."""
    row = tx.one(
        "SELECT count(DISTINCT content) AS n FROM transaction_versions WHERE content = ANY (%s)",
        [list(contents)],
    )
    return int(row["n"]) == len(set(contents))


def may_be_signed(tx: Tx, content: str) -> bool:
    """Whether this is a version of a transaction of ours that somebody may have signed: refused ones nobody has."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM transaction_versions WHERE content = %s AND state <> 'refused') AS found",
        [content],
    )
    return bool(row["found"])


def sent(tx: Tx, chain: str, keyset: str) -> Sequence[UUID]:
    """Ids of a key-set's transactions that are built or broadcast, and that nothing contests."""
    rows = tx.all(
        "SELECT id FROM transactions WHERE chain = %s AND keyset = %s AND state IN ('built', 'broadcast') ORDER BY id",
        [chain, keyset],
    )
    return [row["id"] for row in rows]


def record_signed(tx: Tx, version: Version, signed: bytes, txid: str) -> bool:
    """Store the signed bytes, once; False if this version is no longer waiting for them."""
    return bool(
        tx.execute(
            "UPDATE transaction_versions SET state = 'signed', signed = %s, txid = %s, signed_at = now()"
            " WHERE transaction_id = %s AND version = %s AND state = 'built'",
            [signed, txid, version.transaction_id, version.version],
        )
    )


def record_refused(tx: Tx, version: Version) -> bool:
    """Note that the signer refused a version; False if it is no longer waiting."""
    return bool(
        tx.execute(
            "UPDATE transaction_versions SET state = 'refused'"
            " WHERE transaction_id = %s AND version = %s AND state = 'built'",
            [version.transaction_id, version.version],
        )
    )


def apply(
    tx: Tx,
    transaction: OurTransaction,
    event: TransactionEvent,
    *,
    confirmed_txid: str | None = None,
    block: BlockRef | None = None,
) -> TransactionState:
    """Move it by `event`; the place in the chain becomes what is given, or none.

    Raises:
        ImpossibleTransition: the event cannot happen in this state.
        Conflict: it has left the state that the caller saw.
    """
    target = TRANSACTION.next(transaction.state, event)
    moved = tx.execute(
        "UPDATE transactions SET state = %s, confirmed_txid = %s, height = %s, block_hash = %s, updated_at = now()"
        " WHERE id = %s AND state = %s",
        [
            target,
            confirmed_txid,
            None if block is None else block.height,
            None if block is None else block.hash,
            transaction.id,
            transaction.state,
        ],
    )
    if not moved:
        raise Conflict(f"transaction {transaction.id} is no longer {transaction.state}")
    return target


def relocate(tx: Tx, transaction_id: UUID, block: BlockRef) -> None:
    """Note that the confirmed version is in another block now."""
    tx.execute(
        "UPDATE transactions SET height = %s, block_hash = %s, updated_at = now() WHERE id = %s",
        [block.height, block.hash, transaction_id],
    )


def count_finalisation(tx: Tx, transaction_id: UUID) -> int:
    """Number the next time it is final: 1, 2, ..."""
    row = tx.one(
        "UPDATE transactions SET finalisations = finalisations + 1 WHERE id = %s RETURNING finalisations",
        [transaction_id],
    )
    return int(row["finalisations"])


def set_change_index(tx: Tx, transaction_id: UUID, change_index: int) -> None:
    """Note the change address that a replacement needs and its first version did without."""
    tx.execute("UPDATE transactions SET change_index = %s WHERE id = %s", [change_index, transaction_id])


def due_broadcasts(
    tx: Tx,
    chain: str,
    keyset: str,
    kinds: Sequence[str],
    *,
    except_for: Sequence[UUID],
    lease_seconds: int,
    limit: int,
) -> Sequence[UUID]:
    """Claim transactions of some kinds that are due to be sent, but for some: for `lease_seconds` no other worker takes
    them."""
    rows = tx.all(
        "UPDATE transactions SET rebroadcast_at = now() + make_interval(secs => %s) WHERE id IN ("
        " SELECT id FROM transactions WHERE chain = %s AND keyset = %s AND kind = ANY (%s)"
        "  AND id <> ALL (%s) AND state = 'broadcast' AND rebroadcast_at <= now()"
        " ORDER BY created_at, id LIMIT %s FOR UPDATE SKIP LOCKED) RETURNING id",
        [lease_seconds, chain, keyset, list(kinds), list(except_for), limit],
    )
    return [row["id"] for row in rows]


def schedule_broadcast(tx: Tx, transaction_id: UUID, seconds: int, error: str) -> None:
    """Say when to look at it again, and what went wrong (empty: nothing)."""
    tx.execute(
        "UPDATE transactions SET rebroadcast_at = now() + make_interval(secs => %s), last_error = %s,"
        " updated_at = now() WHERE id = %s",
        [seconds, error[:500], transaction_id],
    )


def note_error(tx: Tx, transaction_id: UUID, error: str) -> None:
    """Keep the last trouble where operators look."""
    tx.execute("UPDATE transactions SET last_error = %s WHERE id = %s", [error[:500], transaction_id])


def cursor(tx: Tx, chain: str) -> BlockRef | None:
    """The last block the monitor has committed, None before its first."""
    row = tx.optional("SELECT height, hash FROM cursors WHERE chain = %s", [chain])
    return None if row is None else BlockRef(row["height"], row["hash"])


def anchor(tx: Tx, chain: str) -> int | None:
    """The height from which confirmations count, as the monitor has committed it; None before its first block."""
    row = tx.optional("SELECT anchor FROM cursors WHERE chain = %s", [chain])
    return None if row is None else int(row["anchor"])


def consumptions(tx: Tx, chain: str, resources: Sequence[str]) -> Sequence[ConsumptionFact]:
    """What mined transactions have used of `resources`."""
    rows = tx.all(
        "SELECT resource, txid, content, succeeded, fee_units, height, block_hash FROM consumptions"
        " WHERE chain = %s AND resource = ANY (%s)",
        [chain, list(resources)],
    )
    return [
        ConsumptionFact(
            resource=row["resource"],
            txid=row["txid"],
            content=row["content"],
            succeeded=row["succeeded"],
            fee_units=None if row["fee_units"] is None else units(row["fee_units"]),
            height=row["height"],
            block_hash=row["block_hash"],
        )
        for row in rows
    ]


def unconfirmed_for(tx: Tx, chain: str, keyset: str, blocks: int) -> Sequence[tuple[UUID, int]]:
    """Broadcast transactions with no version waiting for the signer whose newest one has seen `blocks` blocks
    go by.

    Returns:
        Their ids, and the feerate that the newest signed version pays.
    """
    rows = tx.all(
        "SELECT t.id, v.feerate FROM transactions t JOIN LATERAL (SELECT feerate FROM transaction_versions"
        "  WHERE transaction_id = t.id AND state = 'signed' ORDER BY version DESC LIMIT 1) v ON true"
        " WHERE t.chain = %s AND t.keyset = %s AND t.state = 'broadcast'"
        " AND NOT EXISTS (SELECT 1 FROM transaction_versions w WHERE w.transaction_id = t.id AND w.state = 'built')"
        " AND (SELECT count(*) FROM blocks b WHERE b.chain = t.chain AND b.observed_at > (SELECT"
        "  max(coalesce(n.signed_at, n.created_at)) FROM transaction_versions n WHERE n.transaction_id = t.id)) >= %s"
        " ORDER BY t.created_at, t.id",
        [chain, keyset, blocks],
    )
    return [(row["id"], row["feerate"]) for row in rows]


def batch_failed(tx: Tx, chain: str, keyset: str, *, seconds: int) -> bool:
    """Whether a transaction of several payments has been mined lately, and did nothing (EVM)."""
    row = tx.one(
        "SELECT EXISTS (SELECT 1 FROM consumptions c"
        " JOIN transaction_versions v ON v.content = c.content JOIN transactions t ON t.id = v.transaction_id"
        " WHERE c.chain = %s AND NOT c.succeeded AND t.keyset = %s"
        " AND t.updated_at > now() - make_interval(secs => %s)"
        " AND (SELECT count(*) FROM withdrawals w WHERE w.transaction_id = t.id) > 1) AS found",
        [chain, keyset, seconds],
    )
    return bool(row["found"])


def open_bump_requests(tx: Tx, chain: str, keyset: str) -> Sequence[tuple[UUID, UUID, int | None]]:
    """Id, transaction and feerate of the operators' requests that have no outcome yet, oldest first."""
    rows = tx.all(
        "SELECT r.id, r.transaction_id, r.feerate FROM bump_requests r JOIN transactions t ON t.id = r.transaction_id"
        " WHERE t.chain = %s AND t.keyset = %s AND r.done_at IS NULL ORDER BY r.at, r.id",
        [chain, keyset],
    )
    return [(row["id"], row["transaction_id"], row["feerate"]) for row in rows]


def close_bump_request(tx: Tx, request_id: UUID, outcome: str) -> None:
    """Note what became of a request; the first outcome stays."""
    tx.execute(
        "UPDATE bump_requests SET done_at = now(), outcome = %s WHERE id = %s AND done_at IS NULL",
        [outcome[:500], request_id],
    )


def _transaction(tx: Tx, row: Row) -> OurTransaction:
    versions = tx.all(
        "SELECT * FROM transaction_versions WHERE transaction_id = %s ORDER BY version", [row["id"]]
    )
    return OurTransaction(
        id=row["id"],
        chain=row["chain"],
        keyset=row["keyset"],
        kind=row["kind"],
        state=TransactionState(row["state"]),
        confirmed_txid=row["confirmed_txid"],
        height=row["height"],
        block_hash=row["block_hash"],
        change_index=row["change_index"],
        finalisations=row["finalisations"],
        last_error=row["last_error"],
        versions=tuple(_version(version) for version in versions),
    )


def _version(row: Row) -> Version:
    return Version(
        transaction_id=row["transaction_id"],
        version=row["version"],
        request=row["request"],
        unsigned=bytes(row["unsigned"]),
        content=row["content"],
        resources=frozenset(row["resources"]),
        signed=None if row["signed"] is None else bytes(row["signed"]),
        txid=row["txid"],
        fee_units=units(row["fee_units"]),
        feerate=row["feerate"],
        size=row["size"],
        state=VersionState(row["state"]),
        created_at=row["created_at"],
    )
