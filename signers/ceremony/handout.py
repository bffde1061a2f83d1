"""The text that a recovery holder gets with the share: on what it is, and how it comes back without us."""

from __future__ import annotations

from typing import Final

from signers.ceremony.shares import Share
from signers.errors import CeremonyStopped

_MARK: Final = "SHARE:"


def share_text(keyset: str, ceremony: str, holder: str, share: Share, count: int) -> str:
    """What goes into a holder's file. Secret.

    Args:
        keyset: id of the key-set.
        ceremony: id of the ceremony.
        holder: name.
        share: this holder's.
        count: of all shares.
    """
    return f"""STRONGROOM RECOVERY SHARE. Secret: keep it apart from the others, show it to nobody, do not copy it.

key-set:      {keyset}
ceremony:     {ceremony}
holder:       {holder}
share:        {share.index} of {count}; any {share.threshold} restore the keys
identifier:   {share.identifier} (the same in all shares of this key-set)
fingerprint:  {share.fingerprint} (of this share, as in the ceremony's record)

{_MARK} {share.words}

These are {len(share.words.split())} words of SLIP-39, without passphrase. Any implementation of SLIP-39 reads them, for
example `pip install shamir-mnemonic[cli]` and `shamir recover`. What it gives is said in the ceremony's record.
"""


def words_in(text: str) -> str:
    """The words of the share in a holder's file, or in a text of nothing else. Raises CeremonyStopped: no share."""
    found = [line[len(_MARK) :].strip() for line in text.splitlines() if line.startswith(_MARK)]
    if len(found) == 1:
        return found[0]
    if found or not text.strip() or not text.replace(" ", "").replace("\n", "").isalpha():
        raise CeremonyStopped("this file holds no recovery share")
    return " ".join(text.split())
