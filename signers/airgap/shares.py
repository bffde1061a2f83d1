"""A key's entropy in SLIP-39 shares, by Trezor's own library: one group, any m of n give it back.

The shares are of the BIP39 entropy, not of the BIP32 seed: any implementation of SLIP-39 gives 32 bytes back, which are
24 BIP39 words. (A hardware wallet that makes a wallet of SLIP-39 shares directly makes another one.) No passphrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from chains.errors import InvalidValue
from signers.airgap.entropy import ENTROPY_BYTES
from signers.airgap.errors import Unsafe
from signers.airgap.secret import Secret

MOST_SHARES: Final = 16


def split(entropy: Secret, threshold: int, count: int) -> tuple[str, ...]:
    """`count` shares of 33 words, any `threshold` of which give 32 bytes back; each was tried once.

    Raises:
        InvalidValue: not 2 <= threshold <= count <= 16, or not 32 bytes (a key of 24 words).
        Unsafe: the shares do not give the entropy back.
    """
    from shamir_mnemonic import generate_mnemonics

    if len(entropy) != ENTROPY_BYTES:
        raise InvalidValue("shares are made of keys of 24 words only")
    if not 2 <= threshold <= count <= MOST_SHARES:
        raise InvalidValue(
            f"{threshold} of {count} shares: expected 2 to {MOST_SHARES}, no more needed than made"
        )
    ((*shares,),) = generate_mnemonics(1, [(threshold, count)], entropy.reveal())
    for start in range(count):
        with join([shares[(start + step) % count] for step in range(threshold)]) as again:
            if again.reveal() != entropy.reveal():
                raise Unsafe("the shares do not give back what was split: use another machine")
    return tuple(shares)


def shares_needed(share: str) -> int:
    """How many shares are needed, by what one of them says.

    Raises:
        InvalidValue: these words are no share of ours. They are not repeated.
    """
    from shamir_mnemonic import MnemonicError
    from shamir_mnemonic.share import Share

    try:
        parsed = Share.from_mnemonic(" ".join(share.lower().split()))
    except (MnemonicError, ValueError, KeyError):
        raise InvalidValue("these words are no SLIP-39 share: a word is wrong or missing") from None
    if parsed.group_count != 1 or len(parsed.value) != ENTROPY_BYTES:
        raise InvalidValue("this is a SLIP-39 share of something else: of groups, or of another length")
    return int(parsed.member_threshold)


def join(shares: Sequence[str]) -> Secret:
    """The 32 bytes that exactly as many shares as are needed give.

    Raises:
        InvalidValue: too few or too many, of different keys, one twice, or damaged.
    """
    from shamir_mnemonic import MnemonicError, combine_mnemonics

    try:
        return Secret(combine_mnemonics([" ".join(share.lower().split()) for share in shares]))
    except (MnemonicError, ValueError, KeyError):
        raise InvalidValue("these shares do not belong together, or one of them came twice") from None
