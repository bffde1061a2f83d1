"""What the ledger is told and what it answers. Pure values; every one is checked when it is made.

Balances are credits minus debits: what we owe is positive, what we own (`chain_assets`) is negative, and per
asset the sum over all accounts is always zero.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple
from uuid import UUID

from chains.errors import InvalidValue
from chains.types import MAX_UNITS

MAX_LEGS: Final = 1000
MAX_REFERENCE: Final = 200
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode
_text: Final = json.encoder.encode_basestring_ascii
_DOMAIN: Final = b"strongroom:ledger-command:v1\n"


class AccountKind(StrEnum):
    """What an account is for."""

    AVAILABLE = "available"
    """A customer's money that the customer may use."""
    FROZEN = "frozen"
    """A customer's money under pending holds: always their sum."""
    TRADING = "trading"
    """A customer's money that the matching engine owns."""
    CHAIN_ASSETS = "chain_assets"
    """What a wallet of ours holds on its chain; negative, as we own it."""
    IN_TRANSIT = "in_transit"
    """Between two wallets of ours."""
    FEES_EARNED = "fees_earned"
    NETWORK_FEES = "network_fees"
    """What miners got; negative."""
    SUSPENSE = "suspense"
    """Money whose owner is not known (positive), or losses to be recovered (negative)."""


CUSTOMER_KINDS: Final = frozenset({AccountKind.AVAILABLE, AccountKind.FROZEN, AccountKind.TRADING})
WALLET_KINDS: Final = frozenset({AccountKind.CHAIN_ASSETS, AccountKind.IN_TRANSIT})
NEVER_NEGATIVE: Final = CUSTOMER_KINDS | {AccountKind.FEES_EARNED}


class LineType(StrEnum):
    """What a statement line says that happened."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRADE_BUY = "trade_buy"
    TRADE_SELL = "trade_sell"
    FEE = "fee"
    TRANSFER = "transfer"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    CLAW_BACK = "claw_back"
    NETWORK_FEE = "network_fee"
    ADJUSTMENT = "adjustment"
    """By hand: two operators have approved it, and said why."""


class TransferKind(StrEnum):
    """How a transfer came about; names of the column `ledger_transfers.kind`."""

    IMMEDIATE = "immediate"
    HOLD = "hold"
    POST = "post"
    VOID = "void"
    REVERSE = "reverse"


@dataclass(frozen=True, slots=True)
class AccountKey:
    """Names one account. Accounts come into being, empty, when they are first used.

    Raises:
        InvalidValue: a customer's account without a customer, a house account with one, a wallet missing or
            where none belongs.
    """

    customer: str | None
    """Null: the house's."""
    kind: AccountKind
    asset: str
    wallet: str = ""
    """Key-set, for `chain_assets` and `in_transit` only."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if (self.kind in CUSTOMER_KINDS) != (self.customer is not None) or self.customer == "":
            raise InvalidValue(f"account {self.kind} with customer {self.customer!r}")
        if (self.kind in WALLET_KINDS) != (self.wallet != ""):
            raise InvalidValue(f"account {self.kind} with wallet {self.wallet!r}")
        if not self.asset:
            raise InvalidValue("account without an asset")
        # Once, and without the kind, for an enum's hash is computed in Python: a batch looks accounts up very often.
        object.__setattr__(self, "_hash", hash((self.customer, self.asset, self.wallet)))

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        return ":".join(filter(None, (self.customer or "house", self.kind.value, self.wallet, self.asset)))


def available(customer: str, asset: str) -> AccountKey:
    """The customer's account of usable money."""
    return AccountKey(customer, AccountKind.AVAILABLE, asset)


def frozen(customer: str, asset: str) -> AccountKey:
    """The customer's account of money under holds."""
    return AccountKey(customer, AccountKind.FROZEN, asset)


def trading(customer: str, asset: str) -> AccountKey:
    """The customer's account of money that the matching engine owns."""
    return AccountKey(customer, AccountKind.TRADING, asset)


def house(kind: AccountKind, asset: str, *, wallet: str = "") -> AccountKey:
    """An account of the house."""
    return AccountKey(None, kind, asset, wallet)


@dataclass(frozen=True, slots=True)
class Leg:
    """One change of one account: `amount` base units, positive credits it, negative debits it.

    Raises:
        InvalidValue: zero, not an int, too many digits, or an `overflow` that cannot take the rest.
    """

    account: AccountKey
    amount: int
    type: LineType
    overflow: AccountKey | None = None
    """Where a debit goes as far as it exceeds the account's balance; a house account that may be negative."""

    def __post_init__(self) -> None:
        if type(self.amount) is not int or self.amount == 0 or abs(self.amount) > MAX_UNITS:
            raise InvalidValue(f"leg of {self.account}: amount {self.amount!r}, expected a non-zero integer")
        rest = self.overflow
        if rest is not None and (
            self.amount > 0 or rest.kind in NEVER_NEGATIVE or rest.asset != self.account.asset
        ):
            raise InvalidValue(
                f"leg of {self.account}: {rest} cannot take what a debit exceeds the balance by"
            )


def _checked_reference(reference: str) -> None:
    if len(reference) > MAX_REFERENCE:
        raise InvalidValue(f"reference of {len(reference)} characters, at most {MAX_REFERENCE}")


def _checked_legs(legs: tuple[Leg, ...]) -> None:
    if not 2 <= len(legs) <= MAX_LEGS:
        raise InvalidValue(f"{len(legs)} legs, expected 2 to {MAX_LEGS}")


def _hash(kind: str, id: UUID, *content: object) -> bytes:
    # Nested lists of strings and nulls have one JSON form only, so this needs no canonicaliser.
    text = _encode([kind, str(id), *content])
    return hashlib.sha256(_DOMAIN + text.encode()).digest()


@lru_cache(maxsize=10_000)
def _key_content(key: AccountKey) -> str:
    return _encode([key.customer, key.kind.value, key.asset, key.wallet])


def _legs_content(legs: tuple[Leg, ...]) -> str:
    """JSON of what legs do, in the one form that a list of strings and nulls has."""
    return ",".join(
        [
            f'[{_key_content(leg.account)},"{leg.amount}","{leg.type.value}",'
            f"{'null' if leg.overflow is None else _key_content(leg.overflow)}]"
            for leg in legs
        ]
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """Moves money at once. Frozen accounts are not for it: they move by holds only.

    Raises:
        InvalidValue: too few or many legs, or one of a frozen account.
    """

    id: UUID
    legs: tuple[Leg, ...]
    reference: str = ""
    """What it is for, e.g. `deposit:ID`; shown on the statement."""

    def __post_init__(self) -> None:
        _checked_reference(self.reference)
        _checked_legs(self.legs)
        for leg in self.legs:
            if leg.account.kind is AccountKind.FROZEN:
                raise InvalidValue(f"{leg.account} moves by holds only")

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        text = f'["immediate","{self.id}",[{_legs_content(self.legs)}],{_text(self.reference)}]'
        return hashlib.sha256(_DOMAIN + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Hold:
    """Moves `units` (> 0) from a customer's available to the frozen account until posted or voided.

    Raises:
        InvalidValue: `units` is no positive integer, or `expires_at` has no time zone.
    """

    id: UUID
    customer: str
    asset: str
    units: int
    reference: str = ""
    expires_at: datetime | None = None
    """From then on `void_expired` releases it, if it is still pending."""

    def __post_init__(self) -> None:
        _checked_reference(self.reference)
        if type(self.units) is not int or not 0 < self.units <= MAX_UNITS:
            raise InvalidValue(f"hold of {self.units!r} units, expected a positive integer")
        if self.expires_at is not None and self.expires_at.tzinfo is None:
            raise InvalidValue("expires_at has no time zone")

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        until = None if self.expires_at is None else self.expires_at.astimezone(UTC).isoformat()
        return _hash("hold", self.id, self.customer, self.asset, str(self.units), until, self.reference)


@dataclass(frozen=True, slots=True)
class PostHold:
    """Pays out of a hold: the legs debit the frozen account by at most the hold; the rest is unfrozen.

    Raises:
        InvalidValue: too few or many legs, none debits a frozen account, one credits it, or two are debited.
    """

    id: UUID
    hold_id: UUID
    legs: tuple[Leg, ...]
    reference: str = ""

    def __post_init__(self) -> None:
        _checked_reference(self.reference)
        _checked_legs(self.legs)
        held = [leg for leg in self.legs if leg.account.kind is AccountKind.FROZEN]
        if len({leg.account for leg in held}) != 1 or any(leg.amount > 0 or leg.overflow for leg in held):
            raise InvalidValue("the legs of a post must debit one frozen account, and never credit it")

    @property
    def frozen_account(self) -> AccountKey:
        """The frozen account that the legs debit."""
        return next(leg.account for leg in self.legs if leg.account.kind is AccountKind.FROZEN)

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        legs = _legs_content(self.legs)
        text = f'["post","{self.id}","{self.hold_id}",[{legs}],{_text(self.reference)}]'
        return hashlib.sha256(_DOMAIN + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class VoidHold:
    """Releases a hold: all of it goes back to the available account."""

    id: UUID
    hold_id: UUID
    reference: str = ""

    def __post_init__(self) -> None:
        _checked_reference(self.reference)

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        return _hash("void", self.id, str(self.hold_id), self.reference)


@dataclass(frozen=True, slots=True)
class Reverse:
    """The exact mirror of a `Transfer` or `PostHold`, once; reversing a post makes its hold pending again."""

    id: UUID
    transfer_id: UUID
    reference: str = ""

    def __post_init__(self) -> None:
        _checked_reference(self.reference)

    def content_hash(self) -> bytes:
        """32 bytes that are equal for equal content."""
        return _hash("reverse", self.id, str(self.transfer_id), self.reference)


Command = Transfer | Hold | PostHold | VoidHold | Reverse


class Code(StrEnum):
    """Why a command was rejected."""

    EXISTS_WITH_DIFFERENT_CONTENT = "exists_with_different_content"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    OUT_OF_BALANCE = "out_of_balance"
    UNKNOWN_CUSTOMER = "unknown_customer"
    UNKNOWN_HOLD = "unknown_hold"
    HOLD_NOT_PENDING = "hold_not_pending"
    EXCEEDS_HOLD = "exceeds_hold"
    NOT_OF_HOLD = "not_of_hold"
    """The legs debit another frozen account than the hold's."""
    UNKNOWN_TRANSFER = "unknown_transfer"
    NOT_REVERSIBLE = "not_reversible"
    """Only transfers and posts are reversed; a hold is voided."""
    ALREADY_REVERSED = "already_reversed"


@dataclass(frozen=True, slots=True)
class Created:
    """The command was carried out, now."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Exists:
    """The same command was carried out before; nothing changed now."""

    id: UUID


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command was refused and changed nothing."""

    id: UUID
    code: Code
    detail: str
    """For people, with names and numbers."""
    available: int | None = None
    """For `insufficient_funds` and `exceeds_hold`: base units that are there."""
    needed: int | None = None
    """Base units that the command needs."""


Result = Created | Exists | Rejected


class Line(NamedTuple):
    """One line of an account's history: `balance_after = balance_before + amount`.

    A tuple, because a batch makes thousands: a frozen dataclass takes four times as long to make.
    """

    transfer_id: UUID
    account_id: int
    seq: int
    """1, 2, 3 ... within the account, no gaps."""
    type: LineType
    amount: int
    balance_before: int
    balance_after: int


def debits_of(legs: Iterable[Leg], account: AccountKey) -> int:
    """Base units by which the legs debit `account` in all, credits not counted."""
    return -sum(leg.amount for leg in legs if leg.account == account and leg.amount < 0)
