"""The rules of the ledger, pure: a picture of the accounts and commands in, results and lines out.

Commands are carried out in order, each on the balances that the ones before it left. A rejected command
changes nothing, and the others go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from chains.types import MAX_UNITS
from custody.ledger.lifecycle import HOLD, HoldEvent, HoldState
from custody.ledger.model import (
    NEVER_NEGATIVE,
    AccountKey,
    Code,
    Command,
    Created,
    Exists,
    Hold,
    Leg,
    Line,
    LineType,
    PostHold,
    Rejected,
    Result,
    Reverse,
    Transfer,
    TransferKind,
    VoidHold,
    available,
    debits_of,
    frozen,
)

_REVERSIBLE: Final = frozenset({TransferKind.IMMEDIATE, TransferKind.POST})


class Account(NamedTuple):
    """An account's row: database id, balance, and number of its last line."""

    id: int
    balance: int
    last_seq: int
    hash: bytes = b""
    """Of the last line, 32 bytes, as it was when the account was read; what is decided here does not change it."""


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """A transfer that was carried out before."""

    id: UUID
    kind: TransferKind
    content_hash: bytes
    parent: UUID | None
    """The hold of a post or void; what a reverse undoes."""
    reference: str


@dataclass(frozen=True, slots=True)
class HoldRecord:
    """A hold and its state."""

    id: UUID
    customer: str
    asset: str
    units: int
    state: HoldState
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Book:
    """What must be known of the ledger to carry out some commands."""

    accounts: Mapping[AccountKey, Account]
    """Every account that the commands touch; one that is missing belongs to an unknown customer."""
    transfers: Mapping[UUID, TransferRecord] = field(default_factory=dict)
    """Existing transfers among the commands' ids and among what they reverse."""
    holds: Mapping[UUID, HoldRecord] = field(default_factory=dict)
    """Existing holds that the commands post, void or reopen."""
    legs: Mapping[UUID, tuple[Leg, ...]] = field(default_factory=dict)
    """What existing transfers that are to be reversed did, in order."""
    reversed: frozenset[UUID] = frozenset()
    """Existing transfers that were reversed before."""


@dataclass(slots=True)
class Outcome:
    """What to answer and what to write."""

    results: list[Result] = field(default_factory=list)
    transfers: list[TransferRecord] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    new_holds: list[HoldRecord] = field(default_factory=list)
    """In the state they were made in: pending."""
    hold_changes: list[tuple[UUID, HoldState, HoldState]] = field(default_factory=list)
    """(hold, from, to), in order."""


@dataclass(frozen=True, slots=True)
class _Plan:
    kind: TransferKind
    legs: tuple[Leg, ...]
    parent: UUID | None = None
    new_hold: HoldRecord | None = None
    hold_event: tuple[UUID, HoldEvent] | None = None


def post(book: Book, commands: Sequence[Command]) -> Outcome:
    """Carry out `commands` in order on the accounts of `book`, which itself is not changed.

    Returns:
        One result for each command, in their order, and the rows to write.
    """
    working = _Working(book)
    for command in commands:
        working.outcome.results.append(working.apply(command))
    return working.outcome


class _Working:
    """The book as it changes from command to command."""

    def __init__(self, book: Book) -> None:
        self.accounts = dict(book.accounts)
        self.transfers = dict(book.transfers)
        self.holds = dict(book.holds)
        self.legs = dict(book.legs)
        self.reversed = set(book.reversed)
        self.outcome = Outcome()

    def apply(self, command: Command) -> Result:
        content_hash = command.content_hash()
        known = self.transfers.get(command.id)
        if known is not None:
            if known.content_hash == content_hash:
                return Exists(command.id)
            return Rejected(command.id, Code.EXISTS_WITH_DIFFERENT_CONTENT, f"{known.kind} {known.reference}")
        plan = self._plan(command)
        if isinstance(plan, Rejected):
            return plan
        booked = self._book(command.id, plan.legs)
        if isinstance(booked, Rejected):
            return booked
        accounts, lines, legs = booked
        self.accounts.update(accounts)
        self.legs[command.id] = legs
        self.outcome.lines += lines
        record = TransferRecord(command.id, plan.kind, content_hash, plan.parent, command.reference)
        self.transfers[command.id] = record
        self.outcome.transfers.append(record)
        self._change_hold(plan)
        if plan.kind is TransferKind.REVERSE and plan.parent is not None:
            self.reversed.add(plan.parent)
        return Created(command.id)

    def _plan(self, command: Command) -> _Plan | Rejected:
        match command:
            case Transfer(legs=legs):
                return _Plan(TransferKind.IMMEDIATE, legs)
            case Hold():
                record = HoldRecord(
                    command.id,
                    command.customer,
                    command.asset,
                    command.units,
                    HoldState.PENDING,
                    command.expires_at,
                )
                return _Plan(TransferKind.HOLD, _freeze(record), new_hold=record)
            case PostHold():
                return self._plan_post(command)
            case VoidHold():
                held = self._pending(command)
                if isinstance(held, Rejected):
                    return held
                event = (held.id, HoldEvent.VOID)
                return _Plan(TransferKind.VOID, _unfreeze(held, held.units), held.id, hold_event=event)
            case Reverse():
                return self._plan_reverse(command)

    def _plan_post(self, command: PostHold) -> _Plan | Rejected:
        held = self._pending(command)
        if isinstance(held, Rejected):
            return held
        account = frozen(held.customer, held.asset)
        if command.frozen_account != account:
            detail = f"the hold is of {account}, the legs debit {command.frozen_account}"
            return Rejected(command.id, Code.NOT_OF_HOLD, detail)
        paid = debits_of(command.legs, account)
        if paid > held.units:
            detail = f"{paid} base units are to be posted, {held.units} are held"
            return Rejected(command.id, Code.EXCEEDS_HOLD, detail, available=held.units, needed=paid)
        rest = _unfreeze(held, held.units - paid) if paid < held.units else ()
        return _Plan(TransferKind.POST, command.legs + rest, held.id, hold_event=(held.id, HoldEvent.POST))

    def _plan_reverse(self, command: Reverse) -> _Plan | Rejected:
        target = self.transfers.get(command.transfer_id)
        if target is None:
            return Rejected(command.id, Code.UNKNOWN_TRANSFER, f"there is no transfer {command.transfer_id}")
        if target.kind not in _REVERSIBLE:
            return Rejected(command.id, Code.NOT_REVERSIBLE, f"{target.id} is of kind {target.kind}")
        if target.id in self.reversed:
            return Rejected(command.id, Code.ALREADY_REVERSED, f"{target.id} was reversed before")
        # Backwards, so that each account passes through the balances it had, and none dips below zero midway.
        mirror = tuple(Leg(leg.account, -leg.amount, leg.type) for leg in reversed(self.legs[target.id]))
        event = None
        if target.kind is TransferKind.POST and target.parent is not None:
            event = (target.parent, HoldEvent.REVERSE)
        return _Plan(TransferKind.REVERSE, mirror, target.id, hold_event=event)

    def _pending(self, command: PostHold | VoidHold) -> HoldRecord | Rejected:
        held = self.holds.get(command.hold_id)
        if held is None:
            return Rejected(command.id, Code.UNKNOWN_HOLD, f"there is no hold {command.hold_id}")
        if held.state is not HoldState.PENDING:
            return Rejected(command.id, Code.HOLD_NOT_PENDING, f"hold {held.id} is {held.state}")
        return held

    def _change_hold(self, plan: _Plan) -> None:
        if plan.new_hold is not None:
            self.holds[plan.new_hold.id] = plan.new_hold
            self.outcome.new_holds.append(plan.new_hold)
        if plan.hold_event is not None:
            held = self.holds[plan.hold_event[0]]
            after = HOLD.next(held.state, plan.hold_event[1])
            self.holds[held.id] = replace(held, state=after)
            self.outcome.hold_changes.append((held.id, held.state, after))

    def _book(
        self, id: UUID, planned: tuple[Leg, ...]
    ) -> tuple[dict[AccountKey, Account], list[Line], tuple[Leg, ...]] | Rejected:
        """The accounts as the legs leave them, the lines, and the legs as booked; nothing is kept yet."""
        sums: dict[str, int] = {}
        for leg in planned:
            sums[leg.account.asset] = sums.get(leg.account.asset, 0) + leg.amount
        for asset, total in sums.items():
            if total != 0:
                return Rejected(id, Code.OUT_OF_BALANCE, f"the legs sum to {total} {asset}, expected zero")
        changed: dict[AccountKey, Account] = {}
        lines: list[Line] = []
        booked: list[Leg] = []
        for leg in planned:
            for part in (leg,) if leg.overflow is None else self._parts(leg, changed):
                before = changed.get(part.account) or self.accounts.get(part.account)
                if before is None:
                    return Rejected(
                        id, Code.UNKNOWN_CUSTOMER, f"there is no customer {part.account.customer}"
                    )
                balance = before.balance + part.amount
                if balance < 0 and part.account.kind in NEVER_NEGATIVE:
                    return self._insufficient(id, part.account, planned)
                if abs(balance) > MAX_UNITS:
                    return Rejected(id, Code.OUT_OF_BALANCE, f"{part.account} would have more than 78 digits")
                after = Account(before.id, balance, before.last_seq + 1, before.hash)
                lines.append(
                    Line(id, after.id, after.last_seq, part.type, part.amount, before.balance, balance)
                )
                changed[part.account] = after
                booked.append(part)
        return changed, lines, tuple(booked)

    def _parts(self, leg: Leg, changed: Mapping[AccountKey, Account]) -> tuple[Leg, ...]:
        """A debit with an overflow in two: what its account covers, and the rest."""
        account = changed.get(leg.account) or self.accounts.get(leg.account)
        covered = min(max(account.balance if account else 0, 0), -leg.amount)
        parts = ((leg.account, -covered), (leg.overflow, leg.amount + covered))
        return tuple(Leg(key, amount, leg.type) for key, amount in parts if key is not None and amount != 0)

    def _insufficient(self, id: UUID, account: AccountKey, legs: tuple[Leg, ...]) -> Rejected:
        there, needed = self.accounts[account].balance, debits_of(legs, account)
        detail = f"{account} has {there} base units, {needed} are needed"
        return Rejected(id, Code.INSUFFICIENT_FUNDS, detail, available=there, needed=needed)


def _freeze(held: HoldRecord) -> tuple[Leg, ...]:
    return (
        Leg(available(held.customer, held.asset), -held.units, LineType.FREEZE),
        Leg(frozen(held.customer, held.asset), held.units, LineType.FREEZE),
    )


def _unfreeze(held: HoldRecord, units: int) -> tuple[Leg, ...]:
    return (
        Leg(frozen(held.customer, held.asset), -units, LineType.UNFREEZE),
        Leg(available(held.customer, held.asset), units, LineType.UNFREEZE),
    )
