"""Single words of a policy file: names, choices, destinations, sentences, yes and no."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from chains.errors import InvalidValue
from policies.notation import listed, nearest

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEVEL: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_KINDS: Final = ("internal", "house", "external", "whitelisted", "one-time", "contract")
_DESTINATION: Final = re.compile(
    rf"({'|'.join(_KINDS)}|group:[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}"
    r"|address:[A-Za-z0-9][A-Za-z0-9._-]{0,63}:[!-~]{1,128})"
)
_ADDRESS: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}:[!-~]{1,128}")
_LONGEST: Final = 300
_ANSWERS: Final = {"yes": True, "true": True, "no": False, "false": False}


def name(text: str) -> str:
    """An id: 1 to 64 of `A-Za-z0-9._-`."""
    if not _NAME.fullmatch(text):
        raise InvalidValue(
            f"{text!r} is no name: write 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit"
        )
    return text


def is_level(text: str) -> bool:
    """Whether it may name an amount: unlike an amount it begins with a letter."""
    return _LEVEL.fullmatch(text) is not None


def level(text: str) -> str:
    """A name for amounts."""
    if not is_level(text):
        raise InvalidValue(
            f"{text!r} can't name an amount: begin with a letter, and use letters, digits, - and _"
        )
    return text


def sentence(text: str) -> str:
    """One line of at most 300 characters that show what they are; blanks and line breaks are one blank each."""
    found = " ".join(text.split())
    if not found:
        raise InvalidValue("this is empty: write a sentence, or remove the key")
    if len(found) > _LONGEST:
        raise InvalidValue(
            f"this has {len(found)} characters, at most {_LONGEST} are kept: put the rest in a comment"
        )
    if not found.isprintable():
        hidden = next(character for character in found if not character.isprintable())
        raise InvalidValue(
            f"remove the character U+{ord(hidden):04X}: it doesn't show, and could hide what does"
        )
    return found


def choice(what: str, allowed: Sequence[str]) -> Callable[[str], str]:
    """Reads one of some words."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise InvalidValue(f"`{what}` is {text!r}{nearest(text, allowed)}: write {listed(allowed)}")
        return text

    return parse


def destination(text: str) -> str:
    """A kind of destination, `group:NAME` or `address:CHAIN:ADDRESS`."""
    if not _DESTINATION.fullmatch(text):
        raise InvalidValue(
            f"`destination` is {text!r}{nearest(text, _KINDS)}: write {listed(_KINDS, word='or')}, group:NAME, or"
            " address:CHAIN:ADDRESS"
        )
    return text


def address(text: str) -> str:
    """`CHAIN:ADDRESS`."""
    if not _ADDRESS.fullmatch(text):
        raise InvalidValue(f"{text!r}: write the chain before the address, such as bitcoin:bc1q...")
    return text


def yes_or_no(text: str) -> bool:
    """`yes` or `no`."""
    if text not in _ANSWERS:
        raise InvalidValue(f"{text!r}: write yes or no")
    return _ANSWERS[text]


def small(what: str, low: int, high: int) -> Callable[[str], int]:
    """Reads a whole number between bounds."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"0|[1-9][0-9]{0,8}", text) or not low <= int(text) <= high:
            raise InvalidValue(f"`{what}` is {text!r}: write a whole number from {low} to {high}")
        return int(text)

    return parse
