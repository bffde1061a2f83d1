"""Takes what one officer has signed, whoever brings it."""

from __future__ import annotations

from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from custody.officers import repository, statements
from custody.officers.repository import StatementKind
from custody.officers.statements import MAX_FREEZE_AHEAD, Signed
from custody.storage import events
from custody.storage.db import Tx
from policies.bundle import Bundle, SignedBundle, TrustRoot, UntrustedBundle, read_bundle
from policies.canonical import decoder_for
from policies.overlays import check_lowering
from policies.statements import Freeze, Lowering, Veto

MOST_OF_ONE: Final = 1_000
"""Statements of a kind under one bundle: as many as a signer keeps of one officer."""


def take(tx: Tx, signed: Signed, bundle: Bundle, root: TrustRoot) -> bool:
    """Keep a genuine statement: it acts within a second everywhere. False if it was there, which changes nothing.

    Args:
        tx: a transaction.
        signed: the statement.
        bundle: the one in force, as officers have lowered it.
        root: the pinned quorum.

    Raises:
        InvalidValue: no officer's, of another bundle, of a scope or number that there is not, or not lower.
        BadSignature: another's signature.
    """
    statements.check(signed, bundle, root)
    statement, kind = statements.statement_of(signed), statements.kind_of(signed)
    document = msgspec.json.encode(signed)
    before = genuine(tx, kind, bundle, root)
    if signed in before:
        return False
    if sum(statements.statement_of(each).officer == statement.officer for each in before) >= MOST_OF_ONE:
        raise InvalidValue(f"{statement.officer} has left {MOST_OF_ONE} of this kind: no more are taken")
    _check_sensible(tx, statement, bundle, root)
    if not repository.add_statement(tx, kind, statements.version_of(statement), document):
        return False
    events.emit(tx, f"officer.{kind}", _subject(statement), msgspec.to_builtins(statement))
    return True


def genuine(tx: Tx, kind: StatementKind, bundle: Bundle, root: TrustRoot) -> list[Signed]:
    """The statements of a kind that officers of the bundle in force have signed, in the order in which they came.

    Whatever else is in the table, was written there by somebody who is no officer, and counts for nothing.
    """
    found = []
    for document in repository.statements(tx, kind, since=bundle.version):
        try:
            signed = statements.read(kind, document)
            statements.check(signed, bundle, root)
        except PermanentError:
            continue
        found.append(signed)
    return found


def _check_sensible(tx: Tx, statement: statements.Statement, bundle: Bundle, root: TrustRoot) -> None:
    match statement:
        case Freeze():
            check_scope(statement.scope, bundle)
            if not bundle.version <= statement.bundle_version <= bundle.version + MAX_FREEZE_AHEAD:
                raise InvalidValue(
                    f"a freeze of version {statement.bundle_version}: bundle {bundle.version} is in force; name that "
                    f"one, or at most {MAX_FREEZE_AHEAD} above it"
                )
        case Lowering():
            check_lowering(bundle, statement)
        case Veto():
            present = once_in_force(tx, bundle.version, root)
            if present is not None and statement.bundle == present.digest_hex():
                raise InvalidValue("this bundle is in force: it is too late to veto it")


def in_its_time(document: bytes, root: TrustRoot) -> Bundle | None:
    """A bundle that came into force once, whether it has expired or not; None if the quorum has not signed it."""
    try:
        told = decoder_for(SignedBundle).decode(document).bundle
        return read_bundle(document, root, now=min(told.issued_at, told.expires_at - 1))
    except (InvalidValue, UntrustedBundle, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def present(tx: Tx, root: TrustRoot) -> Bundle | None:
    """The highest bundle that came into force here, as the quorum signed it; None if none did."""
    for row in repository.adopted(tx, above=0):
        found = in_its_time(row.document, root)
        if found is not None:
            return found
    return None


def once_in_force(tx: Tx, version: int, root: TrustRoot) -> Bundle | None:
    """The bundle of a version that was in force here, as the quorum signed it; None if none was."""
    for row in repository.of_version(tx, version):
        found = in_its_time(row.document, root)
        if found is not None:
            return found
    return None


def check_scope(scope: str, bundle: Bundle) -> None:
    """Raises InvalidValue if nothing has this scope, so that nobody believes in the freeze."""
    known = {
        "all",
        *(f"tier:{tier}" for tier in ("hot", "warm", "cold")),
        *(f"chain:{network.chain}" for network in bundle.networks),
        *(f"wallet:{wallet.id}" for wallet in bundle.wallets),
        *(f"asset:{asset.id}" for asset in bundle.assets),
    }
    if scope not in known and not scope.startswith("customer:"):
        raise InvalidValue(f"the bundle has no {scope}")


def _subject(statement: statements.Statement) -> str:
    match statement:
        case Freeze():
            return statement.scope
        case Lowering():
            return statement.target
        case Veto():
            return statement.bundle
