"""Addresses made to look like a known one: the same head and tail, and something else between (FAULTS row 43). Pure.

People compare the ends of an address. Whoever poisons a history makes one with the same ends, and hopes to be copied.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Ends:
    """How many characters people look at.

    Raises:
        InvalidValue: fewer than 2 at either end, or more than 16.
    """

    head: int = 4
    """First characters, after what all addresses of a kind begin with."""
    tail: int = 4

    def __post_init__(self) -> None:
        if not all(2 <= length <= 16 for length in (self.head, self.tail)):
            raise InvalidValue(f"ends of {self.head} and {self.tail} characters: expected 2 to 16 of each")


ENDS: Final = Ends()


def lookalikes(address: str, known: Iterable[str], ends: Ends = ENDS) -> tuple[str, ...]:
    """Those of the known addresses that a hasty eye takes for this one, sorted; never the address itself."""
    look = _look(address, ends)
    return tuple(sorted({each for each in known if each != address and _look(each, ends) == look}))


def _look(address: str, ends: Ends) -> tuple[str, str]:
    # Upper and lower case are alike to the eye; EIP-55 gives two addresses with the same ends different ones.
    text = address.lower()
    body = text.removeprefix("0x") if text.startswith("0x") else _without_hrp(text)
    return body[: ends.head], body[-ends.tail :]


def _without_hrp(text: str) -> str:
    """Of bech32: what follows prefix, separator and witness version."""
    for prefix in ("bc1", "tb1", "bcrt1"):
        if text.startswith(prefix):
            return text[len(prefix) + 1 :]
    return text
