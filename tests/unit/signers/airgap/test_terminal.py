"""A terminal of 24 lines: pages, silence where secrets are typed, and nothing that moves the cursor."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signers.airgap.errors import Declined, Unsafe
from signers.airgap.terminal import WIDTH, Terminal, wrapped

END = "--- end ---"


@contextmanager
def terminal(typed: bytes, lines: int = 24) -> Iterator[tuple[Terminal, Callable[[], str]]]:
    """A terminal of 80 columns into which this was typed, and what gives all that it has shown."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 80, 0, 0))
    os.write(master, typed)
    with open(slave, encoding="utf-8") as keys, open(os.dup(slave), "w", encoding="utf-8") as out:
        screen = Terminal(keys, out)
        yield screen, lambda: seen(master, out)
    os.close(master)


def seen(master: int, out: TextIO) -> str:
    """All that was shown so far."""
    print(END, file=out, flush=True)
    text = b""
    while END.encode() not in text:
        text += os.read(master, 1 << 16)
    return text.decode().replace("\r\n", "\n").partition(END)[0]


def test_a_long_text_stops_after_each_screen_until_enter() -> None:
    with terminal(b"\n\n") as (screen, shown):
        screen.show(f"line {number}" for number in range(50))
        text = shown()
    pages = text.split("-- Enter for more -- ")
    assert len(pages) == 3
    assert [page.count("line") for page in pages] == [23, 23, 4]


def test_what_was_shown_before_counts_until_the_holder_was_asked() -> None:
    with terminal(b"\nyes\n\n") as (screen, shown):
        screen.show(["first"] * 20)
        screen.show(["second"] * 20)
        assert screen.ask("Go on?") == "yes"
        screen.show(["third"] * 23)
        text = shown()
    assert text.count("Enter for more") == 1
    assert text.index("second") < text.index("Enter for more") < text.rindex("second")


def test_a_secret_is_not_shown_and_prints_as_such() -> None:
    master, slave = pty.openpty()
    with open(slave, encoding="utf-8") as keys, open(os.dup(slave), "w", encoding="utf-8") as out:
        screen = Terminal(keys, out)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(screen.ask_secret, "Passphrase:")
            text = b""
            while b"Passphrase:" not in text:
                text += os.read(master, 1 << 16)
            os.write(master, b"correct horse\n")
            secret = asked.result()
        assert (secret.reveal(), repr(secret)) == (b"correct horse", "[secret]")
        assert "correct" not in text.decode() + seen(master, out)
        # Echo is on again.
        assert termios.tcgetattr(slave)[3] & termios.ECHO
    os.close(master)


def test_who_goes_away_has_declined() -> None:
    with terminal(b"\x04") as (screen, _), pytest.raises(Declined):
        screen.ask("Go on?")


def test_files_are_no_terminal() -> None:
    with (
        open(os.devnull) as keys,
        open(os.devnull, "w") as shown,
        pytest.raises(Unsafe, match="needs a terminal"),
    ):
        Terminal(keys, shown)


@given(st.lists(st.text(max_size=300), max_size=8))
def test_lines_fit_and_nothing_in_them_moves_the_cursor(lines: list[str]) -> None:
    shown = list(wrapped(lines))
    assert len(shown) >= len(lines)
    assert all(len(line) <= WIDTH and line.isprintable() for line in shown)


@given(st.text(alphabet="abc ", max_size=400))
def test_wrapping_loses_no_letter(text: str) -> None:
    assert "".join("".join(wrapped([text])).split()) == "".join(text.split())


def test_control_characters_and_marks_of_direction_are_replaced() -> None:
    assert list(wrapped(["a\x1b[2Jb\u202ec\nd"])) == ["a?[2Jb?c?d"]
