"""An owner's signer that was away: it signs a nonce only a little beyond the highest it has signed, so that nobody has
it sign all nonces of a Safe in advance. It comes back in steps of that size, by cancelling nonces that the chain has
used already: those signatures are good for nothing, and its guard asks for no other word about them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from signers.ports import Refused, Signer, SignRequest

STEP: Final = 256
"""As `signers.guard.safe.MAX_NONCE_AHEAD`."""
MOST_STEPS: Final = 400
"""Of one call; the next one goes on."""
BEHIND: Final = frozenset({"nonce"})
"""Codes with which a signer refuses what is too far ahead, and nothing else."""
_SIGNED: Final = frozenset({"transaction-reused"})
"""The same for another intent, under a bundle before."""


def catch_up(signer: Signer, used: int, nothing: Callable[[int], SignRequest]) -> bool:
    """Bring an owner's signer up to what the chain has used; whether it is there. Again changes nothing.

    Args:
        signer: the owner's.
        used: how many nonces of the Safe the chain has used: none beyond is signed here.
        nothing: the request for a cancellation of a nonce.

    Raises:
        Refused: it refuses for another reason.
        SignerUnavailable: some steps may be done.
    """
    low, steps = used, 0
    while low > 0 and not _signs(signer, nothing(low - 1)):
        low, steps = max(0, low - STEP), steps + 1
        if steps == MOST_STEPS:
            return False
    while 0 < low < used:
        low = min(used, low + STEP)
        if not _signs(signer, nothing(low - 1)):
            return False
    return low == used


def _signs(signer: Signer, request: SignRequest) -> bool:
    try:
        signer.sign(request)
    except Refused as refusal:
        codes = {reason.code for reason in refusal.reasons}
        if not codes <= BEHIND | _SIGNED:
            raise
        return codes <= _SIGNED
    return True
