"""How a ceremony talks with the people in the room: at a terminal, or by a file of answers in rehearsals."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from policies.canonical import Name
from signers.ceremony.handout import words_in
from signers.config import Environment
from signers.errors import BadConfiguration, CeremonyStopped
from signers.process.files import read_toml

Step = Literal["plan", "entropy", "keys", "shares", "record", "proof", "activation", "restore", "remove"]
"""What both operators confirm before it is done."""
_CLEAR: Final = "\x1b[2J\x1b[3J\x1b[H"


class People(Protocol):
    """Those who take part."""

    def say(self, text: str) -> None:
        """Tell all. Never a secret."""

    def confirm(self, operator: str, step: Step, summary: str) -> None:
        """Have an operator confirm a step after reading what it will do. Raises CeremonyStopped: he does not."""

    def passphrase(self, operator: str) -> str:
        """The passphrase of an operator's key."""

    def pin(self, token: str) -> str:
        """The user PIN of a token that has no PIN file."""

    def typed(self) -> str:
        """What people throw or type as entropy of their own; may be empty."""

    def show_share(self, holder: str, words: str) -> None:
        """Show a share to its holder alone, who writes it down. Raises CeremonyStopped: he did not."""

    def share_of(self, holder: str) -> str | None:
        """A holder's share, None if he is not here. Raises CeremonyStopped: no share is in what he gave."""


class Terminal:
    """People at the terminal of the ceremony's machine."""

    def __init__(self) -> None:
        """Takes the terminal. Raises BadConfiguration: there is none."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise BadConfiguration(
                "people confirm at a terminal; a rehearsal without one needs --answers FILE"
            )

    def say(self, text: str) -> None:
        """See `People`."""
        print(text, flush=True)

    def confirm(self, operator: str, step: Step, summary: str) -> None:
        """See `People`: the operator types the step's name and a code that depends on the summary."""
        wanted = f"{step} {code_of(summary)}"
        print(f"\n== {step} ==\n{summary}\n")
        if self._ask(f'{operator}: type "{wanted}" to confirm, anything else to stop: ') != wanted:
            raise CeremonyStopped(f"{operator} did not confirm the step {step!r}")

    def passphrase(self, operator: str) -> str:
        """See `People`."""
        return getpass(f"{operator}: the passphrase of your key (not shown): ")

    def pin(self, token: str) -> str:
        """See `People`."""
        return getpass(f"user PIN of token {token!r} (not shown): ")

    def typed(self) -> str:
        """See `People`."""
        print("Throw dice or type at random: 100 throws are 256 bits. Empty to go without.")
        return getpass("typed entropy (not shown): ")

    def show_share(self, holder: str, words: str) -> None:
        """See `People`: the screen is cleared afterwards, and the last word asked for."""
        print(_CLEAR + f"Everybody but {holder} looks away.")
        self._ask(f"{holder}: press Enter when you alone see the screen. ")
        listed = words.split()
        for number, word in enumerate(listed, 1):
            print(f"{number:>4}. {word}")
        self._ask(f"{holder}: press Enter when you have written down all {len(listed)} words. ")
        print(_CLEAR)
        if getpass(f"{holder}: the last word, from your paper (not shown): ").strip().lower() != listed[-1]:
            raise CeremonyStopped(f"{holder} has not written down the share")

    def share_of(self, holder: str) -> str | None:
        """See `People`: the words, or the path of the file that they are in."""
        print(f"{holder}: your share, or the path of its file; empty if you are not here.")
        given = getpass("share (not shown): ").strip()
        if not given:
            return None
        return given if " " in given else words_in(_read(Path(given)))

    def _ask(self, prompt: str) -> str:
        try:
            return input(prompt).strip()
        except EOFError:
            return ""


class Answers(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file (TOML, 0600) that speaks for the people in a rehearsal."""

    confirm: dict[Name, tuple[Step, ...]]
    """Which steps each operator confirms."""
    passphrases: dict[Name, str]
    """By operator."""
    pins: dict[str, str] = {}
    """By token label, where the plan names no PIN file."""
    typed: str = ""
    shares: dict[Name, str] = {}
    """The holders who come to proof or restore: the files with their shares."""

    def __repr__(self) -> str:
        return "[secret]"


class Rehearsed:
    """People whose answers are known."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    @classmethod
    def read(cls, path: Path) -> Rehearsed:
        """Read a file of answers. Raises BadConfiguration: malformed, or open to other users."""
        return cls(read_toml(path, Answers, "file of answers", readers="owner"))

    def say(self, text: str) -> None:
        """See `People`."""
        print(text, flush=True)

    def confirm(self, operator: str, step: Step, summary: str) -> None:
        """See `People`."""
        print(f"\n== {step} ==\n{summary}", flush=True)
        if step not in self._answers.confirm.get(operator, ()):
            raise CeremonyStopped(f"{operator} did not confirm the step {step!r}")
        print(f"{operator}: confirmed", flush=True)

    def passphrase(self, operator: str) -> str:
        """See `People`."""
        return self._answers.passphrases.get(operator, "")

    def pin(self, token: str) -> str:
        """See `People`."""
        return self._answers.pins.get(token, "")

    def typed(self) -> str:
        """See `People`."""
        return self._answers.typed

    def show_share(self, holder: str, words: str) -> None:
        """See `People`: nobody is there to see it."""
        raise CeremonyStopped(f"a rehearsal shows no shares: name a file for {holder}")

    def share_of(self, holder: str) -> str | None:
        """See `People`."""
        path = self._answers.shares.get(holder)
        return None if path is None else words_in(_read(Path(path)))


def people_of(environment: Environment, answers: Path | None) -> People:
    """Who answers: people at the terminal, or a file for them in a rehearsal.

    Raises:
        BadConfiguration: a file of answers in production, no terminal, or a malformed file.
    """
    if answers is None:
        return Terminal()
    if environment == "production":
        raise BadConfiguration("in production people answer for themselves; --answers is for rehearsals")
    return Rehearsed.read(answers)


@contextmanager
def unless_interrupted() -> Iterator[None]:
    """Ctrl-C and the end of the input are people's wish to stop. What was begun has been undone by then.

    Raises:
        CeremonyStopped: instead of KeyboardInterrupt and EOFError.
    """
    try:
        yield
    except (KeyboardInterrupt, EOFError):
        raise CeremonyStopped("somebody stopped it at the terminal") from None


def code_of(summary: str) -> str:
    """Four hex digits that differ when the summary differs: who types them has this very text before him."""
    return hashlib.sha256(summary.encode()).hexdigest()[:4]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "not a text"
        raise CeremonyStopped(f"share file {path}: {reason}") from None
