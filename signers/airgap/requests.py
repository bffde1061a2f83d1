"""What there is to sign, whichever way it came: a file, text of one, or pictures of QR codes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from chains.bbqr import FileType, join
from chains.btc.psbt import MAX_PSBT_BYTES
from chains.errors import InvalidValue
from signers.airgap.btc_file import MAGIC

Kind = Literal["payment", "safe"]

_PICTURES: Final = frozenset({".png", ".jpg", ".jpeg"})
_BASE64_MAGIC: Final = base64.b64encode(MAGIC)[:6]
_HEX_MAGIC: Final = MAGIC.hex().encode()
_TYPES: Final = {FileType.PSBT: "payment", FileType.JSON: "safe"}


@dataclass(frozen=True, slots=True)
class Request:
    """What there is to sign."""

    kind: Kind
    """`payment`: a PSBT. `safe`: JSON."""
    data: bytes
    base64: Literal["base64", "binary"]
    """How it was written: what is signed is written likewise."""
    name: str
    """Of its file, without the ending."""
    folder: Path
    """Where it lies."""


def read_request(paths: Sequence[Path], tell: Callable[[str], None]) -> Request:
    """Read a request: one file, or pictures and folders of pictures.

    Args:
        paths: of it.
        tell: takes words for the holder.

    Raises:
        InvalidValue: it can't be read, or is neither a PSBT nor JSON.
    """
    first = paths[0]
    if len(paths) > 1 or first.is_dir() or first.suffix.lower() in _PICTURES:
        from chains.pictures import read_series

        received = read_series(paths, tell)
        return _of_bytes(received.data, "request", Path())
    try:
        if first.stat().st_size > 2 * MAX_PSBT_BYTES:
            raise InvalidValue(f"{first}: too large for a request")
        raw = first.read_bytes()
    except OSError as error:
        raise InvalidValue(f"{first}: {error.strerror}") from None
    return _of_bytes(raw, first.stem, first.parent)


def _of_bytes(raw: bytes, name: str, folder: Path) -> Request:
    text = raw.strip()
    if raw.startswith(MAGIC):
        return Request("payment", raw, "binary", name, folder)
    if text.startswith(b"{"):
        return Request("safe", raw, "binary", name, folder)
    try:
        if text.startswith(_BASE64_MAGIC):
            data = base64.b64decode(b"".join(text.split()), validate=True)
            return Request("payment", data, "base64", name, folder)
        if text.lower().startswith(_HEX_MAGIC):
            return Request("payment", bytes.fromhex(text.decode("ascii")), "binary", name, folder)
    except (binascii.Error, ValueError):
        raise InvalidValue(f"{name}: damaged; copy it again") from None
    if text.startswith(b"B$"):
        received = join(text.decode("ascii", errors="replace").split())
        if received.file_type in _TYPES:
            return _of_bytes(received.data, name, folder)
    raise InvalidValue(f"{name}: neither a Bitcoin payment (PSBT) nor a Safe request (JSON)")
