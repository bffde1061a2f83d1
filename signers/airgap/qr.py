"""QR codes of a file, drawn in a terminal or written as pictures.

In a terminal two modules stand above each other in one character (half blocks), and colours are set for both, so that
dark and light terminals look the same. A standard terminal of 24 lines and 80 columns holds a code of version 5 with
the quiet zone of four modules that readers want: about 90 bytes a code, so longer files are shown as a slow film.

Sources: ISO/IEC 18004; BBQr.md of coinkite/BBQr.
"""

from __future__ import annotations

import io
import os
import select
import shutil
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from chains.errors import InvalidValue, PermanentError

if TYPE_CHECKING:
    import segno

QUIET_MODULES: Final = 4
"""Light modules around a code (ISO/IEC 18004, 5.3.8)."""
FRAME_MILLISECONDS: Final = 250
"""How long each code is shown."""
ROUNDS: Final = 200
"""How often a film is shown when nobody presses a key."""
PICTURE_VERSION: Final = 15
"""Of codes in pictures: 468 bytes each, and easy to photograph."""

_MODULES_OF_VERSION_0: Final = 17
_MODULES_A_VERSION: Final = 4
_LARGEST_VERSION: Final = 27
"""Beyond it a camera has trouble with the modules of a screen."""
_STATUS_LINES: Final = 1
_PIXELS_A_MODULE: Final = 8
_COLOURS: Final = "\x1b[0;1;37;40m"
"""Light modules are drawn in bright white on black; every terminal has these two."""
_PLAIN: Final = "\x1b[0m"
_HOME: Final = "\x1b[H"
_CLEAR: Final = "\x1b[2J"
_HIDE_CURSOR: Final = "\x1b[?25l"
_SHOW_CURSOR: Final = "\x1b[?25h"
_CLEAR_LINE: Final = "\x1b[K"
_MOST_KEYS: Final = 1024
_HALVES: Final = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
"""By the dark modules above and below: what is drawn is light."""


class NoTerminal(PermanentError):
    """No code can be shown here; the message says what to do instead."""


class Screen(Protocol):
    """Where a film of codes is shown."""

    def size(self) -> tuple[int, int]:
        """Lines and columns."""

    def write(self, text: str) -> None:
        """Write at once."""

    def key_within(self, milliseconds: int) -> bool:
        """Wait, at most so long, for a key; whether one was pressed."""


class TerminalScreen:
    """The terminal of this process."""

    def __init__(self, keys: TextIO, out: TextIO) -> None:
        self._keys = keys
        self._out = out

    def size(self) -> tuple[int, int]:
        """Lines and columns."""
        columns, lines = shutil.get_terminal_size()
        return lines, columns

    def write(self, text: str) -> None:
        """Write at once."""
        self._out.write(text)
        self._out.flush()

    def key_within(self, milliseconds: int) -> bool:
        """Wait, at most so long, for a key; whether one was pressed."""
        timeout_seconds = milliseconds / 1000
        ready, _, _ = select.select([self._keys], [], [], timeout_seconds)
        if ready:
            # Not through the text layer, which would keep what else was typed for a later question.
            os.read(self._keys.fileno(), _MOST_KEYS)
        return bool(ready)


@contextmanager
def terminal_screen() -> Iterator[TerminalScreen]:
    """The terminal, which hands on single keys until the end of the block.

    Raises:
        NoTerminal: standard input and output are no terminal, or it cannot show half blocks.
    """
    instead = "write the codes as pictures instead"
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise NoTerminal(f"codes are shown in a terminal only, and this is none: {instead}")
    try:
        "█▀▄".encode(sys.stdout.encoding)
    except (UnicodeEncodeError, LookupError):
        raise NoTerminal(
            f"the terminal's encoding {sys.stdout.encoding} has no half blocks: {instead}"
        ) from None
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield TerminalScreen(sys.stdin, sys.stdout)
    finally:
        termios.tcsetattr(keyboard, termios.TCSAFLUSH, before)


def modules_of(version: int) -> int:
    """Modules along one side of a code of a version, without its quiet zone."""
    return _MODULES_OF_VERSION_0 + _MODULES_A_VERSION * version


def fitting_version(lines: int, columns: int) -> int:
    """The largest version whose codes fit in a terminal, with their quiet zone and one line of words.

    Raises:
        NoTerminal: not even the smallest fits.
    """
    modules = min(2 * (lines - _STATUS_LINES), columns) - 2 * QUIET_MODULES
    version = (modules - _MODULES_OF_VERSION_0) // _MODULES_A_VERSION
    if version < 1:
        raise NoTerminal(f"a terminal of {lines} lines and {columns} columns is too small: make it larger")
    return min(version, _LARGEST_VERSION)


def draw(text: str, version: int) -> tuple[str, ...]:
    """A code as lines of half blocks, without colours.

    Args:
        text: alphanumeric, at most `bbqr.capacity(version)` characters.
        version: 1 to 40.

    Raises:
        InvalidValue: it does not fit.
    """
    side = modules_of(version) + 2 * QUIET_MODULES
    light = bytes(side)
    margin = bytes(QUIET_MODULES)
    rows = [light] * QUIET_MODULES
    rows += [margin + bytes(row) + margin for row in _code(text, version).matrix]
    rows += [light] * QUIET_MODULES
    # The last line has a lower half that belongs to no module where their number is odd: it is light too.
    pairs = zip_longest(rows[::2], rows[1::2], fillvalue=light)
    return tuple("".join(map(_HALVES.__getitem__, zip(above, below, strict=True))) for above, below in pairs)


def film(parts: Sequence[str], version: int, screen: Screen, rounds: int = ROUNDS) -> None:
    """Show codes one after the other, over and over, until a key is pressed or after so many rounds.

    Args:
        parts: texts of the codes.
        version: of all of them.
        screen: where.
        rounds: how often each is shown at most.

    Raises:
        InvalidValue: no parts, or one that does not fit in its version.
        NoTerminal: the terminal is too small for that version.
    """
    if not parts:
        raise InvalidValue("no codes to show")
    lines, columns = screen.size()
    if version > fitting_version(lines, columns):
        raise NoTerminal(f"codes of version {version} are too large for {lines} lines and {columns} columns")
    # Drawn as they are first shown: to draw a thousand takes a while.
    frames: dict[str, str] = {}
    screen.write(_HIDE_CURSOR + _CLEAR)
    try:
        for _ in range(rounds):
            for number, part in enumerate(parts, start=1):
                if part not in frames:
                    frames[part] = f"{_COLOURS}" + f"{_PLAIN}\n{_COLOURS}".join(draw(part, version)) + _PLAIN
                words = f"part {number} of {len(parts)} · any key ends"[:columns]
                screen.write(f"{_HOME}{frames[part]}\n{words}{_CLEAR_LINE}")
                if screen.key_within(FRAME_MILLISECONDS):
                    return
    finally:
        screen.write(f"{_PLAIN}{_HOME}{_CLEAR}{_SHOW_CURSOR}")


def write_pictures(parts: Sequence[str], version: int, folder: Path, name: str) -> tuple[Path, ...]:
    """Write each code as `NAME-01-of-07.png`; several also as one film, `NAME.png` (an animated PNG).

    Args:
        parts: texts of the codes.
        version: of all of them.
        folder: exists.
        name: of the files.

    Raises:
        InvalidValue: no parts, one that does not fit, or a name that is none.
        FileExistsError: one of the files is there already; it was not touched.
    """
    if not parts or not name or {"/", "\0"} & {*name}:
        raise InvalidValue(f"codes named {name!r}: expected at least one code, and a file's name")
    pictures = [_picture(part, version) for part in parts]
    width = len(str(len(parts)))
    contents = {
        folder / f"{name}-{number:0{width}}-of-{len(parts)}.png": picture
        for number, picture in enumerate(pictures, start=1)
    }
    if len(pictures) > 1:
        contents[folder / f"{name}.png"] = _film_picture(pictures)
    for path, picture in contents.items():
        with path.open("xb") as file:
            file.write(picture)
    return tuple(contents)


def _code(text: str, version: int) -> segno.QRCode:
    """The code itself. Raises InvalidValue: it does not fit, or is not alphanumeric."""
    import segno

    try:
        return segno.make(
            text, error="L", version=version, mode="alphanumeric", micro=False, boost_error=False
        )
    except ValueError as error:
        raise InvalidValue(
            f"{len(text)} characters do not fit in a QR code of version {version}: {error}"
        ) from None


def _picture(text: str, version: int) -> bytes:
    """A code as a PNG."""
    out = io.BytesIO()
    _code(text, version).save(out, kind="png", scale=_PIXELS_A_MODULE, border=QUIET_MODULES)
    return out.getvalue()


def _film_picture(pictures: Sequence[bytes]) -> bytes:
    """Several PNGs as one that shows them in turn, for ever."""
    from PIL import Image

    frames: list[Any] = [Image.open(io.BytesIO(picture)) for picture in pictures]
    out = io.BytesIO()
    frames[0].save(
        out, format="PNG", save_all=True, append_images=frames[1:], duration=FRAME_MILLISECONDS, loop=0
    )
    return out.getvalue()
