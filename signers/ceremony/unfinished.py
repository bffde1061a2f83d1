"""What an interrupted ceremony leaves behind, and how it is taken away again.

Before anything lasting is made, `KEYSET.unfinished.json` says what will be. It is removed in the end, when the
key-set's own file is there. So a ceremony that was killed leaves a list of its remains, and no key-set.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from policies.canonical import Name, Uuid
from signers.ceremony.files import remove
from signers.ceremony.hsm import described, remove_keys
from signers.errors import CeremonyStopped
from signers.hsm.pkcs11 import Token
from signers.process.files import read_kept, write_new


class Unfinished(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file `KEYSET.unfinished.json`."""

    verb: Literal["ceremony", "restore"]
    """Of `strongroom key`."""
    ceremony: Uuid
    keyset: Name
    token_serial: str
    key_names: tuple[str, ...]
    """Labels that were free in the token when the ceremony began."""
    share_files: dict[Name, str]
    """By holder."""
    shown_to: tuple[Name, ...]
    """Holders whose shares are shown on the screen."""
    files: tuple[str, ...]
    """All other files that the ceremony makes; none of them was there before."""


def unfinished_path(directory: Path, keyset: str) -> Path:
    """Where it is kept."""
    return directory / f"{keyset}.unfinished.json"


def begin(directory: Path, unfinished: Unfinished) -> None:
    """Note what a ceremony is going to make. Raises CeremonyStopped: an earlier one was interrupted, or files exist."""
    must_be_finished(directory, unfinished.keyset)
    for name in (*unfinished.files, *unfinished.share_files.values()):
        if Path(name).exists():
            raise CeremonyStopped(
                f"{name} exists: nothing is overwritten; move it away, or choose another name"
            )
    path = unfinished_path(directory, unfinished.keyset)
    write_new(path, msgspec.json.encode(unfinished))


def must_be_finished(directory: Path, keyset: str) -> None:
    """Check that no earlier ceremony or restore was interrupted. Raises CeremonyStopped: says what to do."""
    earlier = read_unfinished(directory, keyset)
    if earlier is not None:
        raise CeremonyStopped(
            f"an earlier {earlier.verb} of {keyset!r} was interrupted ({unfinished_path(directory, keyset)}). "
            f"`strongroom key {earlier.verb} remove PLAN` takes away what it left; then begin again"
        )


def finish(directory: Path, keyset: str) -> None:
    """The key-set is there: forget the list."""
    remove(unfinished_path(directory, keyset))


def read_unfinished(directory: Path, keyset: str) -> Unfinished | None:
    """What an interrupted ceremony left, None if there was none. Raises SealBroken: a malformed file."""
    path = unfinished_path(directory, keyset)
    return read_kept(path, Unfinished) if path.exists() else None


def undo(directory: Path, unfinished: Unfinished, token: Token) -> tuple[str, ...]:
    """Take away what an interrupted ceremony left; returns what people have to do themselves. Again changes nothing.

    Raises:
        CeremonyStopped: this is another token, or a file can't be removed.
        TokenRefused: the token refused.
        TokenLost: the token does not answer.
    """
    serial = described(token).serial
    if serial != unfinished.token_serial:
        raise CeremonyStopped(f"this is token {serial}, the ceremony was held with {unfinished.token_serial}")
    remove_keys(token, unfinished.key_names)
    for name in unfinished.files:
        remove(Path(name))
    left = [f"destroy the share that {holder} has written down" for holder in unfinished.shown_to]
    for holder, name in unfinished.share_files.items():
        left += _removed_share(holder, Path(name), unfinished.ceremony)
    remove(unfinished_path(directory, unfinished.keyset))
    return tuple(left)


def _removed_share(holder: str, path: Path, ceremony: str) -> Sequence[str]:
    """Remove a holder's share of this ceremony, whole or cut off; of no other one."""
    if not path.parent.exists():
        return [f"destroy the share of {holder}, if it is on the medium that belongs at {path.parent}"]
    if path.exists():
        text = path.read_text(errors="replace")
        if text and "ceremony:" in text and ceremony not in text:
            return [f"{path} is of another ceremony, so it was left alone"]
        remove(path)
    return []
