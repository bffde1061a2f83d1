"""A key's entropy: of the operating system and of the holder's dice, so that either alone would do.

Sources: RFC 5869 (HKDF), NIST SP 800-133r2 section 6.3 (combining independent sources by extraction).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chains.errors import InvalidValue
from signers.airgap.errors import Unsafe
from signers.airgap.secret import Secret

ENTROPY_BYTES: Final = 32
"""Of a key: 24 words."""
DICE_NEEDED: Final = 100
"""Rolls of a die with six sides that have 256 bits by themselves (100 times log2 of 6 is 258)."""
FACES: Final = "123456"

_HOST_BYTES: Final = 64
_FEWEST_VALUES: Final = 20
"""64 random bytes have 56 different values on average; below 20 once in 10**38 draws."""
_FEWEST_OF_A_FACE, _MOST_OF_A_FACE = 3, 40
"""Of 100 rolls 17 show each face on average; outside of these once in 50,000 honest series."""
_SALT: Final = b"strongroom:airgap-entropy:v1"


def check_dice(rolls: str) -> None:
    """Check that rolls look like those of a die.

    Raises:
        InvalidValue: says what is missing or looks made up.
    """
    if set(rolls) - set(FACES):
        raise InvalidValue("a die shows 1 to 6: type nothing else")
    if len(rolls) < DICE_NEEDED:
        raise InvalidValue(f"{len(rolls)} rolls: {DICE_NEEDED} are needed")
    counts = Counter(rolls[:DICE_NEEDED])
    if min(counts[face] for face in FACES) < _FEWEST_OF_A_FACE or max(counts.values()) > _MOST_OF_A_FACE:
        raise InvalidValue("these do not look like rolls of a die: one side comes too often, or hardly ever")


def entropy_of(rolls: str, host: Callable[[int], bytes]) -> Secret:
    """32 bytes of the system's random numbers and the dice together.

    Args:
        rolls: at least `DICE_NEEDED` of `1` to `6`.
        host: gives so many random bytes; `os.urandom`.

    Raises:
        InvalidValue: see `check_dice`.
        Unsafe: the system's random numbers repeat themselves or are far from random.
    """
    check_dice(rolls)
    probe, drawn = host(_HOST_BYTES), host(_HOST_BYTES)
    if len(drawn) != _HOST_BYTES or probe == drawn or len(set(probe)) < _FEWEST_VALUES:
        raise Unsafe("the random numbers of this machine are not random: use another one")
    # Lengths first, so that no byte of one source can stand for a byte of the other.
    material = b"".join(len(part).to_bytes(8, "big") + part for part in (drawn, rolls.encode()))
    return Secret(HKDF(SHA256(), ENTROPY_BYTES, salt=_SALT, info=b"entropy").derive(material))
