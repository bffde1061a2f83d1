"""Entropy of host, token and dice, combined so that any one good source suffices.

Each source gives 64 bytes, twice what is made of them. HKDF extracts from all of them together, each with its label
and length in front, so that none can stand for another; whoever knows or steers all but one of them learns nothing
of what comes out.

Sources: RFC 5869 (HKDF), NIST SP 800-133r2 section 6.3 (combining independent sources by extraction), PKCS#11 v3.0
(C_GenerateRandom, C_SeedRandom).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue
from signers.ceremony.hsm import token_random
from signers.errors import SelfCheckFailed
from signers.hsm.pkcs11 import Token

SOURCE_BYTES: Final = 64
_SALT: Final = b"strongroom:ceremony-entropy:v1"
_FEWEST_VALUES: Final = 20
"""64 random bytes have 56 different values on average; below 20 once in 10**38 draws."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """What the sources gave."""

    host: bytes
    token: bytes
    typed: bytes

    def __repr__(self) -> str:
        return "[secret]"

    def derive(self, purpose: str, length: int) -> bytes:
        """`length` bytes (HKDF-SHA256) of all sources together, other ones for each purpose.

        Raises:
            InvalidValue: host and token together gave nothing.
        """
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        if not self.host and not self.token:
            raise InvalidValue("there is no entropy of host or token")
        sources = ((b"host", self.host), (b"token", self.token), (b"typed", self.typed))
        material = b"".join(_framed(label) + _framed(value) for label, value in sources)
        return HKDF(SHA256(), length, salt=_SALT, info=purpose.encode()).derive(material)


def gather(
    token: Token, typed: str, *, host: Callable[[int], bytes] = os.urandom, count: int = SOURCE_BYTES
) -> Entropy:
    """Draw `count` bytes each from the host and the token, and take what people typed (dice, coins, keys).

    Raises:
        SelfCheckFailed: a source repeats itself or is far from random: it must not make keys.
        TokenRefused: the token gives no random bytes.
        TokenLost: the token does not answer.
    """
    return Entropy(
        _checked("the host", host, count),
        _checked(f"token {token.label!r}", lambda size: token_random(token, size), count),
        typed.encode(),
    )


def _checked(name: str, draw: Callable[[int], bytes], count: int) -> bytes:
    probe, drawn = draw(SOURCE_BYTES), draw(count)
    if len(drawn) != count or probe == drawn[:SOURCE_BYTES] or len(set(probe)) < _FEWEST_VALUES:
        raise SelfCheckFailed(f"the random numbers of {name} are not random: it must not make keys")
    return drawn


def _framed(value: bytes) -> bytes:
    return len(value).to_bytes(8, "big") + value
