"""Corrections by hand: one operator asks for it with a reason, two others approve it, and the policy decides.

Each is an action of an operator (`custody.audit`): asked of the policy, signed, recorded, and in the end booked in the
transaction of its record. The database takes it in no other way, and the verifier checks the signatures again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue
from custody.errors import Halted, UnknownCustomer
from custody.ids import derived_id
from custody.ledger import bookings
from custody.ledger.model import Exists
from custody.ledger.service import post_all
from custody.storage import events
from custody.storage.db import Tx, units

ACTION: Final = "adjust"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """What is to be corrected. The same again is the same adjustment: another reason makes another one.

    Raises:
        InvalidValue: no units, or no reason.
    """

    customer: str
    asset: str
    units: int
    """Base units; positive: the customer gets them, negative: they are taken."""
    reason: str

    def __post_init__(self) -> None:
        if type(self.units) is not int or self.units == 0:
            raise InvalidValue(
                f"an adjustment of {self.units!r} base units: expected an integer that is not zero"
            )
        if not self.reason.strip() or len(self.reason) > 500:
            raise InvalidValue("an adjustment has a reason, of at most 500 characters")

    @property
    def id(self) -> UUID:
        """Of the adjustment, and of its ledger transfer."""
        return derived_id("adjustment", self.customer, self.asset, self.units, self.reason)

    def parameters(self) -> dict[str, str]:
        """What operators sign."""
        return {
            "id": str(self.id),
            "customer": self.customer,
            "asset": self.asset,
            "units": str(self.units),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Made:
    """An adjustment that was made."""

    id: UUID
    customer: str
    asset: str
    units: int
    reason: str
    operator: str
    """Who asked for it; `strongroom audit list` says who approved it."""
    at: datetime


def adjust(tx: Tx, wanted: Adjustment, *, by: str) -> None:
    """Book it. The transaction's commit also needs the record of the operator's action, with two approvals.

    Raises:
        UnknownCustomer: no such customer.
        Halted: officers have frozen what it touches.
        AlreadyAdjusted: it was made before.
        LedgerRejected: the customer has less than is to be taken.
    """
    if tx.optional("SELECT 1 FROM customers WHERE id = %s", [wanted.customer]) is None:
        raise UnknownCustomer(wanted.customer)
    for scope in ("all", f"asset:{wanted.asset}", f"customer:{wanted.customer}"):
        if tx.one("SELECT frozen(%s) AS it_is", [scope])["it_is"]:
            raise Halted(scope, "officers have frozen it, so nothing is adjusted there either")
    inserted = tx.execute(
        "INSERT INTO adjustments (id, customer_id, asset, units, reason, operator) VALUES (%s, %s, %s, %s, %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        [wanted.id, wanted.customer, wanted.asset, wanted.units, wanted.reason, by],
    )
    booking = bookings.book_adjustment(
        wanted.id, customer=wanted.customer, asset=wanted.asset, units=wanted.units
    )
    if not inserted or isinstance(post_all(tx, [booking])[0], Exists):
        raise AlreadyAdjusted(wanted.id)
    detail = {
        "customer": wanted.customer,
        "asset": wanted.asset,
        "units": str(wanted.units),
        "reason": wanted.reason,
    }
    events.emit(tx, "ledger.adjusted", str(wanted.id), {**detail, "by": by})


class AlreadyAdjusted(InvalidValue):
    """The very same adjustment was made before."""

    def __init__(self, id: UUID) -> None:
        super().__init__(f"adjustment {id} was made before: if it is another one, say so in its reason")


def page(tx: Tx, *, after: UUID | None, limit: int, customer: str | None = None) -> Sequence[Made]:
    """Adjustments by id, beginning after one."""
    rows = tx.all(
        "SELECT id, customer_id, asset, units, reason, operator, at FROM adjustments"
        " WHERE (%(after)s::uuid IS NULL OR id > %(after)s)"
        " AND (%(customer)s::text IS NULL OR customer_id = %(customer)s) ORDER BY id LIMIT %(limit)s",
        {"after": after, "customer": customer, "limit": limit},
    )
    return [
        Made(
            row["id"],
            row["customer_id"],
            row["asset"],
            units(row["units"]),
            row["reason"],
            row["operator"],
            row["at"],
        )
        for row in rows
    ]
