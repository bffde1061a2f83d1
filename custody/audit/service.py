"""Doing what operators ask for, and recording it in one transaction with the effect; or why it was not done."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from chains.errors import StrongroomError
from custody.audit import repository, seconding
from custody.audit.errors import ActionAsked, ActionRefused, NotDone
from custody.audit.model import Attempt, Outcome, Record
from custody.audit.permission import Permission, permit
from custody.storage.db import Database, Tx
from policies.administration import APPROVE
from policies.bundle import Bundle

_T = TypeVar("_T")


def perform(
    database: Database, attempt: Attempt, bundle: Bundle | None, effect: Callable[[Tx], _T], *, now: int
) -> _T:
    """Do it if it is permitted, and record what became of it.

    Args:
        database: as the workers' role (`Via.HOST`), or the API's (`Via.API`).
        attempt: who wants what.
        bundle: in force; None if none can be believed.
        effect: does it; what it writes commits with the record, or not at all.
        now: UNIX seconds.

    Returns:
        What `effect` returned.

    Raises:
        NotDone: refused, or it waits for others; recorded.
        StrongroomError: what `effect` raised; recorded.
    """
    try:
        with database.transaction() as tx:
            return perform_in(tx, attempt, bundle, effect, now=now)
    except StrongroomError as error:
        raise recorded(database, attempt, bundle, error) from error


def perform_in(
    tx: Tx, attempt: Attempt, bundle: Bundle | None, effect: Callable[[Tx], _T], *, now: int
) -> _T:
    """`perform` in a transaction of the caller's, who calls `recorded` after it was rolled back by an error."""
    permission = permit(attempt, bundle, now=now)
    asked = None if bundle is None else _asked_in(tx, attempt, permission, bundle, now=now)
    result = effect(tx)
    written = repository.insert(
        tx,
        attempt,
        Outcome.DONE,
        reason="" if bundle is not None else "no bundle could be believed: nobody checked who this is",
        decision=permission.record,
        bundle_version=None if bundle is None else bundle.version,
        asked_in=None if asked is None else asked.number,
    )
    if written is None:
        raise ActionRefused(
            "what was signed was used before: sign it anew",
            operator=attempt.operator,
            action=attempt.action,
        )
    return result


def recorded(
    database: Database, attempt: Attempt, bundle: Bundle | None, error: StrongroomError
) -> StrongroomError:
    """Record, in a transaction of its own, why something was not done; returns the error to raise."""
    version = None if bundle is None else bundle.version
    with database.transaction() as tx:
        if isinstance(error, ActionAsked):
            if error.number is not None:
                return error  # asked for before, and waits
            row = repository.insert(
                tx,
                attempt,
                Outcome.ASKED,
                reason=error.lacking,
                decision=error.record,
                bundle_version=version,
            )
            return error if row is None else error.in_row(row.number)
        repository.insert(
            tx,
            attempt,
            Outcome.REFUSED if isinstance(error, NotDone) else Outcome.FAILED,
            reason=f"{type(error).__name__}: {error}",
            decision=error.record if isinstance(error, ActionRefused) else None,
            bundle_version=version,
        )
    return error


def _asked_in(tx: Tx, attempt: Attempt, permission: Permission, bundle: Bundle, *, now: int) -> Record | None:
    """The row that this one answers: what is approved, or where it was asked for. Raises ActionAsked, ActionRefused."""
    if permission.action.name == APPROVE:
        return seconding.approved(tx, attempt, bundle, now=now)
    if not seconding.needed(permission):
        return None
    asked = repository.asked(tx, attempt, bundle.version, valid_seconds=seconding.VALID_SECONDS)
    lacking = seconding.lacking_of(tx, asked, permission, bundle, now=now)
    if lacking:
        raise ActionAsked(
            operator=attempt.operator,
            action=attempt.action,
            number=None if asked is None else asked.number,
            lacking=lacking,
            record=permission.record,
        )
    return asked
