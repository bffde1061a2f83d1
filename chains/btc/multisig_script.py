"""The witness script of `sortedmulti`: so many signatures of keys in the order of their bytes (BIP67). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue

MAX_KEYS: Final = 15
"""As many as P2SH could hold; of `multi` in P2WSH up to 20 would be valid (BIP383)."""
_OP_1: Final = 0x51
_OP_CHECKMULTISIG: Final = 0xAE
_KEY_BYTES: Final = 33


@dataclass(frozen=True, slots=True)
class MultisigScript:
    """`threshold` signatures by `pubkeys`, in the order of their bytes.

    Raises:
        InvalidValue: more signatures than keys, too many keys, one twice, one not compressed, or another order.
    """

    threshold: int
    pubkeys: tuple[bytes, ...]

    def __post_init__(self) -> None:
        count = len(self.pubkeys)
        if not 1 <= self.threshold <= count <= MAX_KEYS:
            raise InvalidValue(f"multisig: {self.threshold} of {count} keys")
        if any(len(key) != _KEY_BYTES or key[0] not in (2, 3) for key in self.pubkeys):
            raise InvalidValue("multisig: keys are 33 bytes, compressed")
        if list(self.pubkeys) != sorted(set(self.pubkeys)):
            raise InvalidValue("multisig: keys come in the order of their bytes, each once (BIP67)")

    def serialize(self) -> bytes:
        """OP_m, each key, OP_n, OP_CHECKMULTISIG: 3 + 34 n bytes."""
        keys = b"".join(bytes([_KEY_BYTES]) + key for key in self.pubkeys)
        return (
            bytes([_OP_1 - 1 + self.threshold])
            + keys
            + bytes([_OP_1 - 1 + len(self.pubkeys), _OP_CHECKMULTISIG])
        )

    @classmethod
    def parse(cls, raw: bytes) -> MultisigScript:
        """Read what `serialize` writes.

        Raises:
            InvalidValue: anything else.
        """
        keys = tuple(raw[at + 1 : at + 1 + _KEY_BYTES] for at in range(1, len(raw) - 2, 1 + _KEY_BYTES))
        found = cls(raw[0] - _OP_1 + 1 if raw else 0, keys)
        if found.serialize() != raw:
            raise InvalidValue("witness script: not a sorted multisig")
        return found
