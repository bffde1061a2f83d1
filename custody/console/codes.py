"""Files as QR codes for machines without a network: BBQr codes in the terminal one after the other, or as pictures.

Sources: BBQr.md of coinkite/BBQr; ISO/IEC 18004.
"""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chains.bbqr import FileType, split
from chains.errors import InvalidValue

if TYPE_CHECKING:
    import segno

PICTURE_VERSION: Final = 15
"""Of codes in pictures: easy to photograph."""
QUIET_MODULES: Final = 4
_PIXELS_A_MODULE: Final = 8
_LARGEST_VERSION: Final = 27
"""Beyond it a camera has trouble with a screen."""
_MODULES_OF_VERSION_0: Final = 17
_MODULES_A_VERSION: Final = 4
_FRAME_SECONDS: Final = 0.25  # float: of time, not of money
_ROUNDS: Final = 200
_CLEAR: Final = "\x1b[H\x1b[2J"


def fitting_version(lines: int, columns: int) -> int:
    """The largest version of codes that fit in a terminal, two modules to a line, with quiet zone and a line of words.

    Raises:
        InvalidValue: not even the smallest fits.
    """
    modules = min(2 * (lines - 2), columns) - 2 * QUIET_MODULES
    version = (modules - _MODULES_OF_VERSION_0) // _MODULES_A_VERSION
    if version < 1:
        raise InvalidValue(
            f"a terminal of {lines} lines and {columns} columns is too small for codes: --png instead"
        )
    return min(version, _LARGEST_VERSION)


def frames(kind: FileType, data: bytes, version: int) -> tuple[str, ...]:
    """The codes of a file as terminals show them, each with a line that says which it is.

    Raises:
        InvalidValue: too long for codes.
    """
    parts = split(kind, data, version)
    drawn = []
    for number, part in enumerate(parts, start=1):
        out = io.StringIO()
        _code(part, version).terminal(out, border=QUIET_MODULES, compact=True)
        drawn.append(f"{out.getvalue()}part {number} of {len(parts)} · Ctrl-C ends")
    return tuple(drawn)


def show(kind: FileType, data: bytes) -> None:
    """Show the codes of a file in this terminal, over and over, until Ctrl-C. Raises InvalidValue."""
    columns, lines = shutil.get_terminal_size()
    film(frames(kind, data, fitting_version(lines, columns)), _ROUNDS, _FRAME_SECONDS)


def film(shown: Sequence[str], rounds: int, frame_seconds: float) -> None:
    """Print frames one after the other, so often and each so long, or until Ctrl-C."""
    try:
        for _ in range(rounds):
            for frame in shown:
                print(_CLEAR + frame, flush=True)
                time.sleep(frame_seconds)
    except KeyboardInterrupt:
        pass


def write_pictures(kind: FileType, data: bytes, folder: Path, name: str) -> tuple[Path, ...]:
    """Write the codes of a file as `NAME-01-of-07.png`.

    Raises:
        InvalidValue: too long for codes, no such folder, or one of the pictures is there already.
    """
    parts = split(kind, data, PICTURE_VERSION)
    width = len(str(len(parts)))
    written = []
    try:
        for number, part in enumerate(parts, start=1):
            path = folder / f"{name}-{number:0{width}}-of-{len(parts)}.png"
            with path.open("xb") as file:
                _code(part, PICTURE_VERSION).save(
                    file, kind="png", scale=_PIXELS_A_MODULE, border=QUIET_MODULES
                )
            written.append(path)
    except OSError as error:
        raise InvalidValue(f"{folder}: {error.strerror}") from None
    return tuple(written)


def _code(text: str, version: int) -> segno.QRCode:
    import segno

    return segno.make(text, error="L", version=version, mode="alphanumeric", micro=False, boost_error=False)
