"""What the holder sees and types: plain lines, a page at a time, in a terminal of 24 lines and 80 columns or more."""

from __future__ import annotations

import os
import sys
import termios
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol, TextIO

from signers.airgap.errors import Declined, Unsafe
from signers.airgap.secret import Secret

WIDTH: Final = 79
LINES: Final = 24
MOST_TYPED: Final = 4096
_CLEAR: Final = "\x1b[2J\x1b[3J\x1b[H"
"""The screen, what was scrolled out of it, and the cursor to its corner (ECMA-48, xterm)."""


class Screen(Protocol):
    """Where the holder reads and types."""

    def show(self, lines: Iterable[str]) -> None:
        """Show lines, a page at a time."""

    def ask(self, question: str) -> str:
        """Ask; the answer without blanks around it. Raises Declined: the holder has gone."""

    def ask_secret(self, question: str) -> Secret:
        """Ask for what must not be seen. Raises Declined like `ask`."""

    def clear(self) -> None:
        """Take from the screen what was on it."""


class Terminal:
    """The process's own terminal. Raises Unsafe: input or output is not a terminal."""

    def __init__(self, typed: TextIO | None = None, shown: TextIO | None = None) -> None:
        self._typed, self._shown = typed or sys.stdin, shown or sys.stdout
        self._used = 0
        if not (self._typed.isatty() and self._shown.isatty()):
            raise Unsafe("this verb needs a terminal: it asks you, and shows what no file should keep")

    def show(self, lines: Iterable[str]) -> None:
        """Show lines; where the holder has not been asked for a whole screen, wait for Enter first."""
        room = self._height() - 1
        for line in wrapped(lines):
            if self._used == room:
                self.ask("-- Enter for more --")
            print(line, file=self._shown)
            self._used += 1
        self._shown.flush()

    def ask(self, question: str) -> str:
        """Ask on a line of its own."""
        self._used = 0
        print(f"{question} ", end="", file=self._shown, flush=True)
        answer = self._typed.readline(MOST_TYPED)
        if not answer:
            raise Declined("the input ended")
        return answer.strip()

    def ask_secret(self, question: str) -> Secret:
        """Ask with the echo turned off."""
        self._used = 0
        with self._silent():
            print(f"{question} ", end="", file=self._shown, flush=True)
            answer = self._typed.readline(MOST_TYPED)
        print(file=self._shown, flush=True)
        if not answer:
            raise Declined("the input ended")
        return Secret(answer.strip().encode())

    def clear(self) -> None:
        """Clear the screen and what was scrolled out of it."""
        self._used = 0
        print(_CLEAR, end="", file=self._shown, flush=True)

    def _height(self) -> int:
        try:
            return max(10, os.get_terminal_size(self._shown.fileno()).lines or LINES)
        except OSError:
            return LINES

    @contextmanager
    def _silent(self) -> Iterator[None]:
        descriptor = self._typed.fileno()
        before = termios.tcgetattr(descriptor)
        silent = [*before]
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
        try:
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Lines of at most 79 characters; nothing in them moves the cursor or turns the direction of writing."""
    for line in lines:
        clean = "".join(character if character.isprintable() else "?" for character in line)
        marked = clean.startswith(("! ", "X "))
        indent = " " * (2 if marked else len(clean) - len(clean.lstrip()))
        rest = clean
        while len(rest) > WIDTH:
            cut = rest.rfind(" ", len(indent) + WIDTH // 2, WIDTH)
            cut = cut if cut > 0 else WIDTH
            yield rest[:cut].rstrip()
            rest = indent + rest[cut:].lstrip()
        yield rest


def require(screen: Screen, question: str, expected: str) -> None:
    """Go on only if the holder types `expected`. Raises Declined: anything else."""
    if screen.ask(question) != expected:
        raise Declined("not confirmed; nothing was done")
