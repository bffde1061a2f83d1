"""Which transaction of a gas payer carries out which one of a Safe: SQL, and what follows for the Safe's.

What officers freeze, or a halt stops, for a Safe or for what one of its transactions moves is carried out by nobody of
ours: an execution of it is neither recorded nor signed nor sent. It may have been sent already, or be sent by others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, LiteralString
from uuid import UUID

from custody.signing import repository
from custody.signing.effects import Ended, NoEffects
from custody.signing.errors import Raced
from custody.signing.model import OurTransaction
from custody.storage import halts
from custody.storage.db import Tx
from policies.bundle import Bundle, EvmVault

AGAIN_SECONDS: Final = 30
"""After an execution that failed: until the next is tried. Twice as long each time, as whoever is paid can make his own
payment fail after it was tried on the node, and each failure burns gas."""
LONGEST_SECONDS: Final = 6 * 3600
"""Between two tries of what fails again and again."""
_OPEN: Final[LiteralString] = (
    "EXISTS (SELECT 1 FROM executions e JOIN transactions x ON x.id = e.transaction_id"
    " WHERE e.serves = t.id AND x.state NOT IN ('refused', 'dead'))"
)
_WAITS: Final[LiteralString] = (
    " FROM transactions t JOIN transaction_versions v ON v.transaction_id = t.id AND v.state = 'signed'"
    " WHERE t.chain = %(chain)s AND t.keyset = %(vault)s AND t.state = 'broadcast' AND t.rebroadcast_at <= now()"
    f" AND NOT {_OPEN}"
    " AND NOT EXISTS (SELECT 1 FROM consumptions c WHERE c.chain = t.chain AND c.resource = ANY (v.resources))"
)


def wait(tx: Tx, chain: str, vault: str) -> bool:
    """Whether any transaction of a Safe waits to be carried out."""
    row = tx.one(f"SELECT EXISTS (SELECT 1{_WAITS}) AS found".encode(), {"chain": chain, "vault": vault})
    return bool(row["found"])


def due(tx: Tx, chain: str, vault: str, resource: str) -> OurTransaction | None:
    """The complete transaction of a Safe that uses a nonce, if it is due and nothing carries it out; None without."""
    row = tx.optional(
        f"SELECT t.id{_WAITS} AND v.resources = ARRAY[%(resource)s]".encode(),
        {"chain": chain, "vault": vault, "resource": resource},
    )
    return None if row is None else repository.find(tx, row["id"])


def insert(tx: Tx, transaction_id: UUID, serves: UUID) -> None:
    """Note what an execution carries out; the caller has locked that.

    Raises:
        Raced: something carries it out already.
    """
    row = tx.one(
        f"SELECT {_OPEN} AS open, (SELECT count(*) FROM executions e WHERE e.serves = t.id) AS n"
        " FROM transactions t WHERE t.id = %s".encode(),
        [serves],
    )
    if row["open"]:
        raise Raced(f"{serves} is being carried out already")
    tx.execute(
        "INSERT INTO executions (transaction_id, serves, attempt) VALUES (%s, %s, %s)",
        [transaction_id, serves, row["n"] + 1],
    )


def served(tx: Tx, transaction_id: UUID) -> UUID | None:
    """The Safe's transaction that an execution carries out; None: it is no execution."""
    row = tx.optional("SELECT serves FROM executions WHERE transaction_id = %s", [transaction_id])
    return None if row is None else row["serves"]


def stopped(tx: Tx, vault: EvmVault, serves: UUID) -> str | None:
    """Why a Safe's transaction is carried out by nobody now; None if it may be."""
    moved = tx.all(
        "SELECT asset, customer_id FROM withdrawals WHERE transaction_id = %(id)s"
        " UNION SELECT asset, NULL FROM refills WHERE transaction_id = %(id)s",
        {"id": serves},
    )
    what = [(row["asset"], row["customer_id"]) for row in moved] or [(None, None)]
    found = (
        halts.halted(tx, vault.chain, asset, customer=customer, tier=vault.tier, wallet=vault.id)
        for asset, customer in what
    )
    return next((reason for reason in found if reason is not None), None)


def held(tx: Tx, bundle: Bundle, chain: str) -> Sequence[UUID]:
    """Recorded executions, in no block, of what may not be carried out now."""
    rows = tx.all(
        "SELECT e.transaction_id, e.serves, s.keyset FROM executions e"
        " JOIN transactions x ON x.id = e.transaction_id JOIN transactions s ON s.id = e.serves"
        " WHERE x.chain = %s AND x.state IN ('built', 'broadcast', 'contested') ORDER BY e.transaction_id",
        [chain],
    )
    vaults = {vault.id: vault for vault in bundle.vaults if isinstance(vault, EvmVault)}
    return [
        row["transaction_id"]
        for row in rows
        if row["keyset"] not in vaults or stopped(tx, vaults[row["keyset"]], row["serves"]) is not None
    ]


def failed(tx: Tx, serves: UUID) -> int:
    """How many executions of a Safe's transaction are final, and did nothing."""
    row = tx.one(
        "SELECT count(*) AS n FROM executions e JOIN transactions x ON x.id = e.transaction_id"
        " WHERE e.serves = %s AND x.state = 'dead'",
        [serves],
    )
    return int(row["n"])


def failing(tx: Tx, serves: UUID, *, seconds: int) -> int:
    """How many executions of a Safe's transaction are final and did nothing; 0 unless the first was recorded so many
    seconds ago."""
    row = tx.one(
        "SELECT count(*) FILTER (WHERE x.state = 'dead') AS n,"
        " coalesce(min(x.created_at) <= now() - make_interval(secs => %s), false) AS long"
        " FROM executions e JOIN transactions x ON x.id = e.transaction_id WHERE e.serves = %s",
        [seconds, serves],
    )
    return int(row["n"]) if row["long"] else 0


class ExecutionEffects(NoEffects):
    """What the Safe's own transaction needs is done when its nonce is used. Here, only the next attempt is timed."""

    def refused(self, tx: Tx, transaction: OurTransaction, reason: str, *, seconds: int) -> None:
        """It is tried again after a while."""
        self._again(tx, transaction, reason, seconds)

    def dead(self, tx: Tx, transaction: OurTransaction, reason: str) -> Ended:
        """It is tried again, unless somebody else has carried it out."""
        serves = served(tx, transaction.id)
        failures = 0 if serves is None else failed(tx, serves)
        seconds = min(LONGEST_SECONDS, AGAIN_SECONDS * 2 ** min(failures, 12))
        self._again(tx, transaction, reason, seconds)
        return Ended(
            note="What owners of the Safe have signed is sent again, if it still waits",
            data={} if serves is None else {"serves": str(serves)},
        )

    def _again(self, tx: Tx, transaction: OurTransaction, reason: str, seconds: int) -> None:
        serves = served(tx, transaction.id)
        if serves is not None:
            repository.schedule_broadcast(tx, serves, seconds, f"execution {transaction.id}: {reason}")
