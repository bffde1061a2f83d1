"""What can be wrong with a request of the trading core."""

from __future__ import annotations

from uuid import UUID

from chains.errors import PermanentError


class SettlementOutOfOrder(PermanentError):
    """A batch that does not begin where the one before it ended, or was settled with another content."""

    def __init__(self, core: UUID, expected: int, first: int, last: int) -> None:
        super().__init__(
            f"the next batch of core {core} begins with sequence {expected}, this one covers {first} to {last}"
        )
        self.core, self.expected, self.first, self.last = str(core), expected, first, last


class TransferExists(PermanentError):
    """The transfer's id was used before for another one."""

    def __init__(self, id: UUID) -> None:
        super().__init__(f"transfer {id} exists with other content: choose a new id")
        self.id = str(id)


class CustomerFrozen(PermanentError):
    """The customer's money stays where it is, for `reason`."""

    def __init__(self, customer: str, reason: str) -> None:
        super().__init__(f"customer {customer} is frozen: {reason}")
        self.customer, self.reason = customer, reason
