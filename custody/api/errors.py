"""What can be wrong with a request to this API, beside what can be wrong with any (`custody.web.errors`).

```
RequestError (custody.web.errors)
├── OperatorsOnly
├── AddressNotAllowed
├── NotBumpable
└── BumpPending
```
"""

from __future__ import annotations

from custody.web.errors import RequestError


class OperatorsOnly(RequestError):
    """Only people of the bundle's operators do this, whatever scopes a caller has."""

    def __init__(self, caller: str) -> None:
        super().__init__(f"{caller!r} is a caller of the bundle, and this is for its operators")
        self.caller = caller


class AddressNotAllowed(RequestError):
    """An operator who comes from an address that is in none of the networks of operators."""

    def __init__(self, operator: str, address: str) -> None:
        super().__init__(
            f"operator {operator!r} comes from {address or 'nowhere'}, which is no network of operators"
        )
        self.operator, self.address = operator, address


class NotBumpable(RequestError):
    """The withdrawal has no unconfirmed transaction of ours to replace."""

    def __init__(self, withdrawal: str, state: str) -> None:
        super().__init__(
            f"withdrawal {withdrawal} is {state}: only a broadcast, unconfirmed one can be bumped"
        )
        self.withdrawal, self.state = withdrawal, state


class BumpPending(RequestError):
    """An earlier request to bump the same transaction is not done yet."""
