"""What goes wrong at the air gap.

```
PermanentError
├── Unsafe           this machine or file is not fit for keys; the message says what to do
├── WrongPassphrase  or a damaged file: the two can't be told apart
├── Declined         the holder said no
└── Refused          the request breaks a rule; nothing was signed
```
"""

from __future__ import annotations

from chains.errors import PermanentError


class Unsafe(PermanentError):
    """This machine, or a file on it, is not fit for keys."""


class WrongPassphrase(PermanentError):
    """The passphrase is wrong, or the file is damaged."""


class Declined(PermanentError):
    """The holder said no; nothing was done."""


class Refused(PermanentError):
    """The request breaks a rule. Nothing was signed."""

    def __init__(self, objections: tuple[str, ...]) -> None:
        super().__init__("; ".join(objections))
        self.objections = objections
