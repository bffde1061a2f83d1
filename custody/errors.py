"""Errors of the online service. Public attributes carry the numbers; `transient` says if a retry can help.

```
StrongroomError (chains.errors)
├── TransientError
│   ├── DatabaseUnavailable    no answer, or not one to rely on: what was sent may have been committed
│   └── Conflict               another transaction won a race; nothing was committed
└── PermanentError
    ├── InvalidConfiguration   the process must not start
    ├── NotFound
    │   └── UnknownCustomer
    ├── Halted                 paying is stopped until somebody lifts the halt
    ├── InsufficientFunds
    ├── LedgerRejected         the ledger refused at least one command of a batch that must be complete
    ├── OrderMismatch          a signed order does not say what it is used for
    ├── ExpiredOrder
    └── DuplicateOrder         the order's id is taken by another content
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from chains.errors import PermanentError, TransientError


class DatabaseUnavailable(TransientError):
    """The database did not answer, or cannot be written. A commit that was under way may have succeeded."""


class Conflict(TransientError):
    """Another transaction won (deadlock, serialization, lock timeout): nothing of ours was committed."""


class InvalidConfiguration(PermanentError):
    """Unusable configuration; `problems` has a sentence for each wrong value that says what to write."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class NotFound(PermanentError):
    """There is no such thing: `what` it should be (e.g. `withdrawal`) and the `id` that was asked for."""

    def __init__(self, what: str, id: str) -> None:
        super().__init__(f"there is no {what} {id}")
        self.what, self.id = what, id


class UnknownCustomer(NotFound):
    """There is no such customer."""

    def __init__(self, id: str) -> None:
        super().__init__("customer", id)


class Halted(PermanentError):
    """Paying on `scope` (`all` or a chain) is stopped for `reason`; an operator has to lift it."""

    def __init__(self, scope: str, reason: str) -> None:
        super().__init__(f"paying is halted ({scope}): {reason}")
        self.scope, self.reason = scope, reason


class InsufficientFunds(PermanentError):
    """An account has `available` base units of `asset`, the command needs `needed`."""

    def __init__(self, asset: str, available: int, needed: int) -> None:
        super().__init__(f"{needed} base units of {asset} are needed, {available} are available")
        self.asset, self.available, self.needed = asset, available, needed


class RejectedCommand(Protocol):
    """One refused command, as `custody.ledger.model.Rejected` is (which this module must not import)."""

    @property
    def id(self) -> UUID:
        """The command's id."""

    @property
    def code(self) -> str:
        """Why, as one of `custody.ledger.model.Code`."""

    @property
    def detail(self) -> str:
        """Why, for people, with names and numbers."""

    @property
    def available(self) -> int | None:
        """Base units that are there, where the code is about money."""

    @property
    def needed(self) -> int | None:
        """Base units that the command needs."""


class LedgerRejected(PermanentError):
    """The ledger refused some commands of a batch that must be complete; each carries code and numbers."""

    def __init__(self, rejected: Sequence[RejectedCommand]) -> None:
        super().__init__("; ".join(f"{one.id}: {one.code}: {one.detail}" for one in rejected))
        self.rejected = tuple(rejected)


class OrderMismatch(PermanentError):
    """A field of a signed order is not what it must be here; `why` where that is not plain."""

    def __init__(self, field: str, expected: str, found: str, why: str = "") -> None:
        super().__init__(f"order: {field} is {found!r}, expected {expected!r}{f' ({why})' if why else ''}")
        self.field, self.expected, self.found = field, expected, found


class ExpiredOrder(PermanentError):
    """The order ended at `expires_at`; it is `now` (UNIX seconds)."""

    def __init__(self, expires_at: int, now: int) -> None:
        super().__init__(f"the order expired at {expires_at}, it is {now}")
        self.expires_at, self.now = expires_at, now


class DuplicateOrder(PermanentError):
    """The order's `id` was used before for an order of other content."""

    def __init__(self, id: str) -> None:
        super().__init__(f"order {id} exists with other content: sign a new order with a new id")
        self.id = id
