"""SQL of what answers show beside a slice's own rows: joins over several slices, for reading only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from custody.storage.alerts import Alert, Severity
from custody.storage.db import Tx, units


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One version of a transaction, for showing."""

    version: int
    txid: str | None
    state: str
    fee_units: int
    """Network fee of the whole transaction, base units of the chain's native asset."""
    feerate: int
    """BTC: sat/kvB; EVM: wei per gas at most."""


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """A transaction of ours with its versions, oldest first."""

    id: UUID
    state: str
    confirmed_txid: str | None
    height: int | None
    paid_units: int | None
    """Its network fee, base units of the native asset; None while it is in no block."""
    versions: Sequence[VersionRow]


def transactions(tx: Tx, ids: Sequence[UUID]) -> Mapping[UUID, TransactionRow]:
    """Transactions by id."""
    if not ids:
        return {}
    versions: dict[UUID, list[VersionRow]] = {}
    # What owners of a Safe sign is no transaction of the chain: the one that carries it out has an id there.
    for row in tx.all(
        "SELECT v.transaction_id, v.version, CASE WHEN v.resources[1] LIKE 'safe:%%' THEN ("
        "  SELECT x.txid FROM executions e JOIN transaction_versions x ON x.transaction_id = e.transaction_id"
        "  WHERE e.serves = v.transaction_id AND x.txid IS NOT NULL ORDER BY e.attempt DESC, x.version DESC LIMIT 1)"
        "  ELSE v.txid END AS txid, v.state, v.fee_units, v.feerate FROM transaction_versions v"
        " WHERE v.transaction_id = ANY (%s) ORDER BY v.transaction_id, v.version",
        (list(ids),),
    ):
        versions.setdefault(row["transaction_id"], []).append(
            VersionRow(row["version"], row["txid"], row["state"], units(row["fee_units"]), row["feerate"])
        )
    # An EVM block says what was paid; on BTC it is what the version says.
    rows = tx.all(
        "SELECT t.id, t.state, t.confirmed_txid, t.height, coalesce("
        "  (SELECT max(c.fee_units) FROM consumptions c WHERE c.chain = t.chain AND c.txid = t.confirmed_txid),"
        "  (SELECT v.fee_units FROM transaction_versions v WHERE v.txid = t.confirmed_txid)) AS paid"
        " FROM transactions t WHERE t.id = ANY (%s)",
        (list(ids),),
    )
    return {
        row["id"]: TransactionRow(
            row["id"],
            row["state"],
            row["confirmed_txid"],
            row["height"],
            None if row["height"] is None or row["paid"] is None else units(row["paid"]),
            versions.get(row["id"], []),
        )
        for row in rows
    }


def anchors(tx: Tx) -> Mapping[str, int]:
    """Height from which confirmations count, by chain: the last block committed, or the newest finalised one."""
    return {row["chain"]: row["anchor"] for row in tx.all("SELECT chain, anchor FROM cursors")}


def alerts(tx: Tx, *, which: str, after: int, limit: int) -> Sequence[Alert]:
    """At most `limit` alerts in the order of their ids, beginning after `after`; `which`: `open` or `all`."""
    rows = tx.all(
        "SELECT id, severity, type, subject, message, data, at, resolved_at FROM alerts"
        " WHERE id > %s AND (%s = 'all' OR resolved_at IS NULL) ORDER BY id LIMIT %s",
        (after, which, limit),
    )
    return [Alert(**{**row, "severity": Severity(row["severity"])}) for row in rows]
