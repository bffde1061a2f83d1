"""Codes in a terminal and in pictures are read by another program's camera eye, and fit where they are shown."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from zxingcpp import BarcodeFormat, BarcodeFormats, TextMode, read_barcodes

from chains.bbqr import FileType, capacity, join, split
from chains.errors import InvalidValue
from chains.pictures import read_codes
from signers.airgap.qr import (
    FRAME_MILLISECONDS,
    NoTerminal,
    draw,
    film,
    fitting_version,
    modules_of,
    terminal_screen,
    write_pictures,
)
from tests.support.terminal import TerminalSession

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
LIGHT = {"█": (255, 255), "▀": (255, 0), "▄": (0, 255), " ": (0, 0)}


@dataclass
class FakeScreen:
    """Remembers what was shown; a key is pressed at the frame `key_at`."""

    lines: int = 24
    columns: int = 80
    key_at: int | None = None
    shown: list[str] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)

    def size(self) -> tuple[int, int]:
        return self.lines, self.columns

    def write(self, text: str) -> None:
        self.shown.append(text)

    def key_within(self, milliseconds: int) -> bool:
        self.waits.append(milliseconds)
        return len(self.waits) == self.key_at

    @property
    def frames(self) -> list[list[str]]:
        """The lines of each frame, as a person sees them."""
        return [ESCAPES.sub("", text).split("\n") for text in self.shown if "part" in text]


def seen(lines: list[str] | tuple[str, ...]) -> str:
    """What a camera reads from lines of half blocks."""
    rows = [[LIGHT[character][half] for character in line] for line in lines for half in (0, 1)]
    image = Image.new("L", (len(rows[0]), len(rows)))
    image.putdata([pixel for row in rows for pixel in row])
    large = image.resize((image.width * 6, image.height * 6))
    (code,) = read_barcodes(large, BarcodeFormats(BarcodeFormat.QRCode), text_mode=TextMode.Plain)
    return code.text


@settings(max_examples=25)
@given(st.binary(max_size=600), st.integers(1, 12))
def test_what_is_drawn_in_half_blocks_is_read_again(data: bytes, version: int) -> None:
    parts = split(FileType.BINARY, data, version)
    for part in parts[:3]:
        assert seen(draw(part, version)) == part


def test_a_code_fits_in_a_terminal_of_24_lines_with_its_quiet_zone_and_a_line_of_words() -> None:
    version = fitting_version(24, 80)
    assert version == 5
    parts = split(FileType.JSON, bytes(range(256)) * 3, version)
    screen = FakeScreen()
    film(parts, version, screen, rounds=1)
    for frame, part in zip(screen.frames, parts, strict=True):
        assert len(frame) == 24
        assert max(map(len, frame)) <= 80
        assert {*frame[0], *frame[1]} == {"█"}, "the quiet zone is light"
        assert all(line.startswith("████") and line.endswith("████") for line in frame[:-1])
        assert seen(frame[:-1]) == part
    assert screen.frames[2][-1] == f"part 3 of {len(parts)} · any key ends"


@given(st.integers(1, 200), st.integers(1, 400))
def test_the_fitting_version_is_the_largest_that_fits(lines: int, columns: int) -> None:
    def fits(version: int) -> bool:
        side = modules_of(version) + 8
        return (side + 1) // 2 + 1 <= lines and side <= columns

    try:
        version = fitting_version(lines, columns)
    except NoTerminal:
        assert not fits(1)
    else:
        assert fits(version)
        assert version == 27 or not fits(version + 1)


def test_a_film_ends_with_a_key_or_after_its_rounds_and_leaves_the_terminal_as_it_was() -> None:
    parts = split(FileType.JSON, bytes(range(256)), 5)
    for screen, frames in ((FakeScreen(key_at=2), 2), (FakeScreen(), 4 * len(parts))):
        film(parts, 5, screen, rounds=4)
        assert len(screen.frames) == frames
        assert {*screen.waits} == {FRAME_MILLISECONDS}
        assert screen.shown[0].startswith("\x1b[?25l")
        assert screen.shown[-1].endswith("\x1b[?25h")


def test_what_does_not_fit_is_not_shown() -> None:
    with pytest.raises(NoTerminal, match="larger"):
        fitting_version(10, 80)
    with pytest.raises(NoTerminal, match="too large"):
        film(("B$2U0100",), 6, FakeScreen())
    with pytest.raises(InvalidValue):
        film((), 5, FakeScreen())
    with pytest.raises(InvalidValue):
        draw("A" * (capacity(5) + 1), 5)
    with pytest.raises(InvalidValue):
        draw("lower case", 5)
    with pytest.raises(NoTerminal, match="pictures"), terminal_screen():
        pass


def test_every_version_holds_what_the_table_says() -> None:
    for version in range(1, 41):
        assert len(draw("A" * capacity(version), version)) == (modules_of(version) + 8 + 1) // 2
        with pytest.raises(InvalidValue):
            draw("A" * (capacity(version) + 1), version)


def test_pictures_are_numbered_one_a_part_with_a_film_of_all(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4
    parts = split(FileType.PSBT, data, 8)
    written = write_pictures(parts, 8, tmp_path, "payment")
    count = len(parts)
    assert [path.name for path in written] == [f"payment-{n}-of-{count}.png" for n in range(1, count + 1)] + [
        "payment.png"
    ]
    assert [tuple(read_codes(path)) for path in written[:-1]] == [(part,) for part in parts]
    assert join([*read_codes(written[-1])]).data == data
    assert [path.name for path in write_pictures(parts[:1], 8, tmp_path, "one")] == ["one-1-of-1.png"]


def test_no_picture_is_overwritten(tmp_path: Path) -> None:
    parts = split(FileType.PSBT, b"first", 8)
    (path,) = write_pictures(parts, 8, tmp_path, "payment")
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write_pictures(split(FileType.PSBT, b"second", 8), 8, tmp_path, "payment")
    assert path.read_bytes() == before
    for name in ("", "../payment", "a\0"):
        with pytest.raises(InvalidValue):
            write_pictures(parts, 8, tmp_path, name)
    with pytest.raises(InvalidValue):
        write_pictures((), 8, tmp_path, "none")


def test_at_a_real_terminal_a_key_ends_the_film_and_the_terminal_is_as_before(tmp_path: Path) -> None:
    program = """
import sys, termios
from chains.bbqr import FileType, split
from signers.airgap.qr import film, fitting_version, terminal_screen
before = termios.tcgetattr(0)
with terminal_screen() as screen:
    version = fitting_version(*screen.size())
    film(split(FileType.BINARY, bytes(range(256)) * 3, version), version, screen)
print("the same:", termios.tcgetattr(0) == before)
print("asked:", repr(sys.stdin.readline()))
"""
    answers = [
        (r"part 3 of \d+ · any key ends", lambda *_: "x and more that nobody asked for"),
        (r"the same: True", lambda *_: "asked later"),
    ]
    session = TerminalSession([sys.executable, "-c", program], {"TERM": "xterm"}, answers)
    assert session.run() == 0
    assert "the same: True" in session.shown
    assert "asked: 'asked later\\n'" in session.shown
    frames = re.findall(r"\x1b\[H(.*?)\r?\npart (\d+) of (\d+)", session.shown, re.DOTALL)
    assert [number for _, number, _ in frames[:3]] == ["1", "2", "3"]
    first = ESCAPES.sub("", frames[0][0]).replace("\r", "").split("\n")
    assert len(first) == 23
    assert seen(first).startswith("B$2B") or seen(first).startswith("B$ZB")
