"""The recovery secret (32 bytes) in SLIP-39 shares for its holders, by Trezor's own library.

No passphrase, so that the shares alone are enough: `shamir recover` of the same library, or any other implementation
of SLIP-39, gives the secret as hex.

Source: SLIP-39 (one group, `threshold` of its members).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from signers.errors import CeremonyStopped, SelfCheckFailed

SECRET_BYTES: Final = 32
SHARE_WORDS: Final = 33
"""Of a share of 32 bytes."""
_FINGERPRINT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Share:
    """What one holder gets."""

    index: int
    """Member index, from 1."""
    identifier: int
    """The same in all shares of one secret."""
    threshold: int
    words: str
    """33 words."""

    def __repr__(self) -> str:
        return f"Share({self.index}, [secret])"

    @property
    def fingerprint(self) -> str:
        """First 8 bytes (hex) of a hash of the share: tells shares apart and says nothing about them."""
        text = f"strongroom:share:v1\n{self.words}".encode()
        return hashlib.sha256(text).digest()[:_FINGERPRINT_BYTES].hex()


def read_share(words: str) -> Share:
    """The share that these words are.

    Raises:
        CeremonyStopped: a word is wrong or missing, or the checksum is wrong. The words are not repeated.
    """
    from shamir_mnemonic import MnemonicError
    from shamir_mnemonic.share import Share as Slip39Share

    text = " ".join(words.lower().split())
    try:
        parsed = Slip39Share.from_mnemonic(text)
    except (MnemonicError, ValueError, KeyError):
        count = len(text.split())
        raise CeremonyStopped(
            f"these {count} words are no SLIP-39 share: {SHARE_WORDS} words are expected, and their checksum must hold"
        ) from None
    if parsed.group_count != 1 or len(parsed.value) != SECRET_BYTES:
        raise CeremonyStopped("this is a SLIP-39 share of something else: of groups, or of another length")
    return Share(parsed.index + 1, parsed.identifier, parsed.member_threshold, text)


def split(secret: bytes, threshold: int, count: int, random: Callable[[int], bytes]) -> tuple[Share, ...]:
    """Split a secret into `count` shares, of which any `threshold` give it back; check it once with each share.

    Args:
        secret: 32 bytes.
        threshold: 2 to `count`.
        count: at most 16.
        random: where the shares' randomness comes from; with a bad one, fewer shares would do.

    Raises:
        CeremonyStopped: numbers that SLIP-39 does not know.
        SelfCheckFailed: the shares do not give the secret back.
    """
    from shamir_mnemonic import generate_mnemonics

    if not 2 <= threshold <= count <= 16:
        raise CeremonyStopped(
            f"{threshold} of {count} shares: expected 2 to 16, and no more needed than made"
        )
    with _randomness(random):
        (group,) = generate_mnemonics(1, [(threshold, count)], secret)
    shares = tuple(read_share(words) for words in group)
    for start in range(count):
        chosen = [shares[(start + step) % count] for step in range(threshold)]
        if join(chosen) != secret:
            raise SelfCheckFailed("the shares do not give back what was split")
    return shares


def join(shares: Sequence[Share]) -> bytes:
    """The 32 bytes that these shares are of.

    Raises:
        CeremonyStopped: too few, of several secrets, one of them twice, or damaged.
    """
    from shamir_mnemonic import MnemonicError, combine_mnemonics

    if not shares:
        raise CeremonyStopped("no share was given")
    needed = shares[0].threshold
    if len({share.identifier for share in shares}) != 1:
        raise CeremonyStopped("these shares are of different secrets: their identifiers differ")
    if len({share.index for share in shares}) != len(shares):
        raise CeremonyStopped("one share was given twice")
    if len(shares) != needed:
        raise CeremonyStopped(f"{len(shares)} shares: exactly {needed} are needed")
    try:
        return bytes(combine_mnemonics([share.words for share in shares]))
    except MnemonicError:
        raise CeremonyStopped("these shares do not belong together, or one of them is damaged") from None


@contextmanager
def _randomness(random: Callable[[int], bytes]) -> Iterator[None]:
    """Let the library draw from `random`: its documented place for another source (RANDOM_BYTES)."""
    from shamir_mnemonic import shamir

    before = shamir.RANDOM_BYTES
    shamir.RANDOM_BYTES = random
    try:
        yield
    finally:
        shamir.RANDOM_BYTES = before
