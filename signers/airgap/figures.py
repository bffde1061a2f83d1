"""Amounts as people read them, in letters of three lines too. Integers throughout. Pure."""

from __future__ import annotations

from typing import Final

SEGMENTS: Final = {
    "0": (" _ ", "| |", "|_|"),
    "1": ("   ", "  |", "  |"),
    "2": (" _ ", " _|", "|_ "),
    "3": (" _ ", " _|", " _|"),
    "4": ("   ", "|_|", "  |"),
    "5": (" _ ", "|_ ", " _|"),
    "6": (" _ ", "|_ ", "|_|"),
    "7": (" _ ", "  |", "  |"),
    "8": (" _ ", "|_|", "|_|"),
    "9": (" _ ", "|_|", " _|"),
    ".": (" ", " ", "."),
    " ": (" ", " ", " "),
}
_SATS: Final = 10**8


def btc(units_sats: int) -> str:
    """All digits: `12.34567890`."""
    return f"{units_sats // _SATS}.{units_sats % _SATS:08d}"


def grouped(number: int) -> str:
    """An integer in groups of three: `1 234 567 890`."""
    return f"{number:,}".replace(",", " ")


def big(decimal: str) -> tuple[str, str, str]:
    """A decimal number in three lines, as on a pocket calculator; the places after the point in groups of three.

    Raises:
        KeyError: something that is neither a digit nor a point.
    """
    whole, point, places = decimal.partition(".")
    parts = [places[at : at + 3] for at in range(0, len(places), 3)]
    text = grouped(int(whole)) + point + " ".join(parts)
    rows = zip(*(SEGMENTS[character] for character in text), strict=True)
    first, second, third = (" ".join(row).rstrip() for row in rows)
    return first, second, third


def percent(part: int, whole: int) -> str:
    """A part in hundredths of a percent, rounded up: `0.02 %`; of nothing, `-`."""
    if whole <= 0:
        return "-"
    hundredths = -(-part * 10_000 // whole)
    return f"{hundredths // 100}.{hundredths % 100:02d} %"


def feerate(fee_sats: int, size_vb: int) -> str:
    """In tenths of a satoshi per virtual byte: `12.3 sat/vB`."""
    tenths = fee_sats * 10 // size_vb
    return f"{tenths // 10}.{tenths % 10} sat/vB"
