"""The one way to write to the ledger: commands in, results out, within the caller's transaction.

Two postings of one id wait for each other on the accounts they share; the second finds the first's transfer
and answers `Exists`. Accounts are locked in the order of their ids, so that batches never deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import psycopg

from chains.errors import InvalidValue
from custody.errors import Conflict, LedgerRejected
from custody.ids import derived_id
from custody.ledger import posting, repository
from custody.ledger.model import (
    AccountKey,
    Command,
    Hold,
    Leg,
    PostHold,
    Rejected,
    Result,
    Reverse,
    Transfer,
    VoidHold,
    available,
    frozen,
)
from custody.ledger.posting import Book, HoldRecord
from custody.storage.db import Tx

MAX_BATCH: Final = 10_000


def post(tx: Tx, commands: Iterable[Command]) -> list[Result]:
    """Carry out commands in order; a rejected one changes nothing, and the others go on.

    Call it once per transaction with all there is to book: batches are fast, and one call locks in one order.

    Returns:
        One result for each command, in their order.

    Raises:
        InvalidValue: more than 10,000 commands.
        Conflict: another transaction posted one of the ids, on other accounts, at this moment.
        DatabaseUnavailable: no answer.
    """
    batch = list(commands)
    if len(batch) > MAX_BATCH:
        raise InvalidValue(f"{len(batch)} commands in one batch, at most {MAX_BATCH}")
    if not batch:
        return []
    book = _load(tx, batch)
    outcome = posting.post(book, batch)
    try:
        repository.write(tx, outcome, book.accounts.values())
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(f"ledger: {error.diag.constraint_name}: posted by another at this moment") from error
    return outcome.results


def post_all(tx: Tx, commands: Iterable[Command]) -> list[Result]:
    """As `post`, for commands that must all hold: the caller's transaction must not be committed otherwise.

    Raises:
        LedgerRejected: at least one was rejected. Nothing of the batch may be kept: let it roll back.
    """
    results = post(tx, commands)
    rejected = [result for result in results if isinstance(result, Rejected)]
    if rejected:
        raise LedgerRejected(rejected)
    return results


def void_expired(tx: Tx, *, limit: int = 1000) -> list[UUID]:
    """Release pending holds whose `expires_at` has passed, by the database's clock.

    Returns:
        The ids of the holds released; one that was posted at the same moment is not among them.
    """
    over = repository.expired_holds(tx, limit)
    results = post(tx, [VoidHold(derived_id("expire", held.id), held.id, "expired") for held in over])
    return [held.id for held, result in zip(over, results, strict=True) if not isinstance(result, Rejected)]


def shortfall(tx: Tx, reference: str, asset: str) -> int:
    """The loss that claw-backs with this reference left in suspense and no credit has repaid yet; >= 0."""
    return max(0, -repository.suspense_of(tx, reference, asset))


def posted(tx: Tx, transfer_id: UUID) -> bool:
    """Whether a transfer with this id has been posted, reversed or not."""
    return transfer_id in repository.transfers(tx, {transfer_id})


def _load(tx: Tx, batch: Sequence[Command]) -> Book:
    hold_ids = {c.hold_id for c in batch if isinstance(c, PostHold | VoidHold)}
    target_ids = {c.transfer_id for c in batch if isinstance(c, Reverse)}
    # What never changes is read before the lock, to know what to lock; what may change, after it.
    targets = repository.transfers(tx, target_ids) if target_ids else {}
    legs = repository.legs_of(tx, targets.keys()) if targets else {}
    hold_ids |= {t.parent for t in targets.values() if t.parent is not None}
    facts = repository.holds(tx, hold_ids) if hold_ids else {}
    keys = _touched(batch, facts, legs)
    accounts = repository.lock_accounts(tx, repository.ensure_accounts(tx, keys))
    return Book(
        accounts=accounts,
        transfers=targets | repository.transfers(tx, {c.id for c in batch}),
        holds=repository.holds(tx, facts.keys()) if facts else {},
        legs=legs,
        reversed=repository.reversed_among(tx, targets.keys()) if targets else frozenset(),
    )


def _touched(
    batch: Sequence[Command], holds: Mapping[UUID, HoldRecord], legs: Mapping[UUID, Collection[Leg]]
) -> set[AccountKey]:
    """Every account that a command of the batch may touch."""
    keys: set[AccountKey] = set()
    for command in batch:
        match command:
            case Transfer() | PostHold():
                for leg in command.legs:
                    keys.add(leg.account)
                    if leg.overflow is not None:
                        keys.add(leg.overflow)
            case Hold():
                keys |= _customers(command.customer, command.asset)
            case Reverse() if command.transfer_id in legs:
                keys.update(leg.account for leg in legs[command.transfer_id])
        # A hold or target of this same batch has its accounts among the keys already.
        if isinstance(command, PostHold | VoidHold) and command.hold_id in holds:
            held = holds[command.hold_id]
            keys |= _customers(held.customer, held.asset)
    return keys


def _customers(customer: str, asset: str) -> set[AccountKey]:
    return {available(customer, asset), frozen(customer, asset)}
