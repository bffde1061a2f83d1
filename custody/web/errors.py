"""What can be wrong with a request before any part of the service sees it. Their HTTP form is in `problems.py`.

```
PermanentError
└── RequestError
    ├── MalformedBody         not one JSON object: syntax, duplicate keys, fractions, too deep
    ├── BodyTooLarge
    ├── HeadTooLarge
    ├── MalformedRequest      no HTTP, or a header that is there twice
    ├── InvalidRequest        fields missing, unknown or of the wrong form
    ├── MissingScope
    ├── IdempotencyKeyMissing
    ├── IdempotencyKeyReused
    ├── InvalidCursor
    ├── RouteNotFound
    └── MethodNotAllowed
TransientError
├── TooManyRequests           429
├── RequestTooSlow            408
└── Overloaded                503
    ├── TooManyConnections
    └── AnswerTooLate
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chains.errors import PermanentError, TransientError


class RequestError(PermanentError):
    """Base of what is wrong with a request."""


class MalformedBody(RequestError):
    """The body is not one JSON object as this API reads it."""


class BodyTooLarge(RequestError):
    """The body is longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is longer than {limit} bytes")
        self.limit = limit


class HeadTooLarge(RequestError):
    """The request's line and headers are longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the request's line and headers are longer than {limit} bytes")
        self.limit = limit


class MalformedRequest(RequestError):
    """What came is no HTTP/1.1 request that can be read in one way only."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field that is wrong."""

    field: str
    """Where: `order.amount`, `query.limit`."""
    message: str
    """What is wrong and what is expected; the value itself is not repeated."""


class InvalidRequest(RequestError):
    """Fields are missing, unknown, or of the wrong form."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = tuple(errors)


class MissingScope(RequestError):
    """The caller may not do this."""

    def __init__(self, caller: str, scope: str) -> None:
        super().__init__(f"caller {caller!r} has no scope {str(scope)!r} in the bundle")
        self.caller, self.scope = caller, scope


class IdempotencyKeyMissing(RequestError):
    """A POST without a usable `Idempotency-Key`."""


class IdempotencyKeyReused(RequestError):
    """The same key came before with another method, path, query or body."""


class InvalidCursor(RequestError):
    """A cursor that this API did not hand out for this list."""


class RouteNotFound(RequestError):
    """No such path."""


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""


class TooManyRequests(TransientError):
    """A caller, or an address that shows no good token, is above its rate."""

    def __init__(self, per_second: int) -> None:
        super().__init__(f"more than {per_second} requests a second; wait a second and send fewer")
        self.per_second = per_second


class RequestTooSlow(TransientError):
    """A head or a body did not arrive in time."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"the request did not arrive within {seconds} s")
        self.seconds = seconds


class Overloaded(TransientError):
    """So many requests are worked on that one more would only wait."""

    def __init__(self, requests: int) -> None:
        super().__init__(f"{requests} requests are worked on already; nothing of this one was done")


class TooManyConnections(Overloaded):
    """So many connections have a request under way that there is no room for another one."""

    def __init__(self, connections: int) -> None:
        TransientError.__init__(self, f"{connections} connections are at work already")


class AnswerTooLate(Overloaded):
    """A request that was begun has no answer yet; it may still take effect."""

    def __init__(self, seconds: int) -> None:
        TransientError.__init__(
            self, f"there is no answer after {seconds} s; whether the request took effect is not known"
        )
