"""SQL of bundles and officers' statements. Rows are what somebody wrote: whoever reads them checks signatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from custody.storage.db import Row, Tx
from policies.bundle import Bundle

StatementKind = Literal["freeze", "lowering", "veto"]


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """One row of `bundles`."""

    id: bytes
    version: int
    digest: str
    document: bytes
    """JSON of what should be a `SignedBundle`."""
    seen_at: int
    """UNIX seconds: when the bundle of this digest was first seen."""


def note_bundle(tx: Tx, bundle: Bundle, document: bytes, *, seen_at: int) -> None:
    """Keep a bundle that the quorum has signed; again changes nothing."""
    tx.execute(
        "INSERT INTO bundles (version, digest, document, seen_at)"
        " SELECT %(version)s, %(digest)s, %(document)s, to_timestamp(%(seen_at)s)"
        " WHERE NOT EXISTS (SELECT 1 FROM bundles WHERE id = sha256(%(document)s::bytea) AND version = %(version)s"
        "  AND digest = %(digest)s AND seen_at <= to_timestamp(%(seen_at)s))",
        {"version": bundle.version, "digest": bundle.digest_hex(), "document": document, "seen_at": seen_at},
    )


def note_adoption(tx: Tx, document: bytes, *, adopted_at: int) -> None:
    """Note since when a kept bundle is in force; again changes nothing.

    Only workers may. Others find the same by the same rows, and wait for a worker to write it down.
    """
    if not tx.one("SELECT has_table_privilege('bundle_adoptions', 'INSERT') AS may")["may"]:
        return
    tx.execute(
        "INSERT INTO bundle_adoptions (bundle, adopted_at) VALUES (sha256(%s::bytea), to_timestamp(%s))"
        " ON CONFLICT DO NOTHING",
        [document, adopted_at],
    )


def adopted(tx: Tx, *, above: int) -> Sequence[StoredBundle]:
    """Bundles above a version that came into force, highest first."""
    rows = tx.all(
        f"{_BUNDLES} JOIN bundle_adoptions a ON a.bundle = b.id WHERE b.version > %s ORDER BY b.version DESC",
        [above],
    )
    return [_bundle(row) for row in rows]


def of_version(tx: Tx, version: int) -> Sequence[StoredBundle]:
    """Bundles of a version that came into force; a genuine one is the only one."""
    rows = tx.all(f"{_BUNDLES} JOIN bundle_adoptions a ON a.bundle = b.id WHERE b.version = %s", [version])
    return [_bundle(row) for row in rows]


def seen(tx: Tx, *, above: int) -> Sequence[StoredBundle]:
    """Bundles above a version, the one that came last first."""
    rows = tx.all(f"{_BUNDLES} WHERE b.version > %s ORDER BY b.seen_at DESC, b.number DESC", [above])
    return [_bundle(row) for row in rows]


_BUNDLES = (
    "SELECT b.id, b.version, b.digest, b.document, floor(extract(epoch FROM"
    " (SELECT min(seen_at) FROM bundles f WHERE f.digest = b.digest)))::bigint AS seen_at FROM bundles b"
)


def _bundle(row: Row) -> StoredBundle:
    return StoredBundle(
        bytes(row["id"]), int(row["version"]), row["digest"], bytes(row["document"]), int(row["seen_at"])
    )


def add_statement(tx: Tx, kind: StatementKind, bundle_version: int | None, document: bytes) -> bool:
    """Keep a statement; False if it was there."""
    added = tx.execute(
        "INSERT INTO statements (kind, bundle_version, document)"
        " SELECT %(kind)s, %(version)s::bigint, %(document)s"
        " WHERE NOT EXISTS (SELECT 1 FROM statements WHERE id = sha256(%(document)s::bytea) AND kind = %(kind)s"
        "  AND bundle_version IS NOT DISTINCT FROM %(version)s::bigint)",
        {"kind": kind, "version": bundle_version, "document": document},
    )
    return added > 0


def statements(tx: Tx, kind: StatementKind, *, since: int) -> list[bytes]:
    """Statements of a kind for bundles from a version on (vetoes: all), in the order in which they came."""
    rows = tx.all(
        "SELECT document FROM statements WHERE kind = %s AND (bundle_version IS NULL OR bundle_version >= %s)"
        " ORDER BY number",
        [kind, since],
    )
    return [bytes(row["document"]) for row in rows]
