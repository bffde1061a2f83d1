"""Why the engine refuses a command: one error, caught in `Engine.apply`, where it becomes a `Rejected` event.

```
PermanentError
└── Refused     a command that may not be; nothing has been changed
```
"""

from __future__ import annotations

from chains.errors import PermanentError
from custody.trading.events import RejectCode


class Refused(PermanentError):
    """Raised before anything is changed; carries the code and the numbers involved."""

    def __init__(self, code: RejectCode, **numbers: int) -> None:
        super().__init__(code)
        self.code: RejectCode = code
        self.numbers = numbers
