"""The roots of the error tree. Every error says whether the same call can succeed later.

```
StrongroomError
├── TransientError        the same call may succeed later; nothing is known to have changed
│   └── NodeUnavailable   a chain node did not answer, or answered that it is not ready
└── PermanentError        repeating the call cannot help
    ├── InvalidValue      an input that is not what its type demands
    │   └── InvalidAddress
    ├── AssetMismatch     amounts of two assets were combined
    ├── DerivationDisagreement  two implementations derived different addresses
    ├── NodeRefused       the node understood and refused
    ├── WrongNetwork      the node follows another network than configured
    └── Reorganised       what was read is no longer on the best chain (re-read, then decide again)
```
"""

from __future__ import annotations

from typing import ClassVar


class StrongroomError(Exception):
    """Root of all errors of this project."""

    transient: ClassVar[bool] = False


class TransientError(StrongroomError):
    """The same call may succeed later; the caller must not conclude that nothing happened."""

    transient: ClassVar[bool] = True


class PermanentError(StrongroomError):
    """Repeating the same call cannot help."""


class InvalidValue(PermanentError, ValueError):
    """An input that is not what its type demands. The message says what was wrong and what is expected."""


class InvalidAddress(InvalidValue):
    """A text that is no address of the network it was read for."""


class AssetMismatch(PermanentError, TypeError):
    """Amounts of two different assets were combined."""


class DerivationDisagreement(PermanentError):
    """Two implementations derived different addresses from the same public data: give out neither."""


class NodeUnavailable(TransientError):
    """A chain node did not answer in time, or said that it is not ready."""


class NodeRefused(PermanentError):
    """A chain node understood the request and refused it; `code` is the node's own error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"node refused ({code}): {message}")
        self.code = code
        self.reason = message


class WrongNetwork(PermanentError):
    """The node follows another network than configured; nothing it says may be used."""


class Reorganised(TransientError):
    """What was read is no longer on the best chain: read again from the fork, then decide again."""
