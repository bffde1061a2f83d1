"""Why a step of paying did not do what it was asked."""

from __future__ import annotations

from chains.errors import PermanentError, TransientError


class Raced(TransientError):
    """Another worker was quicker, or the chain has moved: nothing was recorded. The next call looks again."""


class BumpRefused(PermanentError):
    """No replacement is made, and why; the versions that exist stay as they are."""


class DecodersDisagree(PermanentError):
    """Two decoders read different things from the same signed bytes: nothing is sent."""


class WrongSignature(PermanentError):
    """What a signer answered is no signature of what it was asked for: never recorded, never sent."""


class NotHandedOut(PermanentError):
    """A request is not given to holders, and why; nobody has got it."""


class NotOurs(PermanentError):
    """What was brought is about nothing that we have asked for."""


class NotAMember(PermanentError):
    """Somebody signs for a vault of which they are no member."""
