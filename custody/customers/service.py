"""What callers do with customers."""

from __future__ import annotations

from collections.abc import Sequence

from chains.errors import InvalidValue, PermanentError
from custody.customers import repository
from custody.customers.repository import Customer
from custody.errors import UnknownCustomer
from custody.storage import events
from custody.storage.db import Tx
from policies.rules import HOUSE


class CustomerExists(PermanentError):
    """The id is taken."""

    def __init__(self, id: str) -> None:
        super().__init__(f"customer {id} exists already")
        self.id = id


def create(tx: Tx, customer_id: str) -> Customer:
    """Add a customer and tell the feed.

    Raises:
        CustomerExists: the id is taken; nothing is changed.
        InvalidValue: that id is the house's own.
    """
    if customer_id == HOUSE:
        raise InvalidValue(f"customer id {HOUSE!r}: that is the house itself; choose another one")
    customer = repository.insert(tx, customer_id)
    if customer is None:
        raise CustomerExists(customer_id)
    events.emit(tx, "customer.created", customer_id, {"state": customer.state})
    return customer


def get(tx: Tx, customer_id: str) -> Customer:
    """The customer. Raises UnknownCustomer."""
    customer = repository.find(tx, customer_id)
    if customer is None:
        raise UnknownCustomer(customer_id)
    return customer


def page(tx: Tx, *, after: str | None, limit: int) -> Sequence[Customer]:
    """At most `limit` customers in the order of their ids, beginning after `after`."""
    return repository.page(tx, after or "", limit)


def freeze(tx: Tx, customer_id: str, reason: str, *, by: str) -> None:
    """Stop a customer's withdrawals. Again changes nothing. Raises UnknownCustomer."""
    get(tx, customer_id)
    if repository.set_state(tx, customer_id, "active", "frozen", reason):
        events.emit(tx, "customer.frozen", customer_id, {"reason": reason, "by": by})


def unfreeze(tx: Tx, customer_id: str, reason: str, *, by: str) -> None:
    """Let a frozen customer withdraw again. Again changes nothing. Raises UnknownCustomer."""
    get(tx, customer_id)
    if repository.set_state(tx, customer_id, "frozen", "active", ""):
        events.emit(tx, "customer.unfrozen", customer_id, {"reason": reason, "by": by})
