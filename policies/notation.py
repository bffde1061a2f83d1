"""How people write amounts, durations, hours, percentages and approvals in a policy, and how they read them again.

Text in, exact integers out; no number is ever a float. Reading raises `InvalidValue` with a sentence that says what to
write; where it stands in a file is for `policies.reading` to add.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from chains.errors import InvalidValue
from chains.types import Amount, Asset
from policies.rules import DAYS, Day, Hours, Need

_DURATION: Final = re.compile(r"([1-9][0-9]{0,8}) ?([smhdw])")
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_WORDS: Final = {"w": "week", "d": "day", "h": "hour", "m": "minute", "s": "second"}
_NUMBER: Final = re.compile(r"([0-9][0-9_]*)(\.[0-9]+)?")
_GROUPED: Final = re.compile(r"[0-9]{1,3}(_[0-9]{3})*|[0-9]+")
_CENTS: Final = "-cents"
_PERCENT: Final = re.compile(r"([0-9]{1,3})(?:\.([0-9]{1,2}))? ?%")
_NEED: Final = re.compile(
    r"([1-9][0-9]?) of ([A-Za-z0-9][A-Za-z0-9._-]{0,63})( from different organisations)?"
)
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|24:00")
_HOURS: Final = re.compile(r"(?:([a-z,-]+) )?(?:([0-9:]+)-([0-9:]+) )?UTC")
MINUTES_A_DAY: Final = 24 * 60
PAYMENTS: Final = "payments"


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean X?)` for a misspelt word, else nothing."""
    found = get_close_matches(word, sorted(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def listed(names: Iterable[str], *, word: str = "or") -> str:
    """`a, b or c`."""
    *firsts, last = names
    return f"{', '.join(firsts)} {word} {last}" if firsts else last


# Durations


def duration(text: str) -> int:
    """Seconds of `90s`, `10m`, `24h`, `30d` or `2w`; `m` are minutes."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidValue(
            f"{text!r} is no duration: write a whole number and s, m, h, d or w, such as 10m, 24h or 30d"
        )
    return int(match[1]) * _SECONDS[match[2]]


def short_duration(seconds: int) -> str:
    """The shortest that `duration` reads as so many seconds, above 0: `24h`, `30d`."""
    # A day is 24h to people, and several are days.
    unit = "h" if seconds == _SECONDS["d"] else _largest(seconds)
    return f"{seconds // _SECONDS[unit]}{unit}"


def told_duration(seconds: int) -> str:
    """For a sentence: `24 hours`, `30 days`, `1 minute`."""
    if seconds == 0:
        return "no time"
    unit = "h" if seconds == _SECONDS["d"] else _largest(seconds)
    count = seconds // _SECONDS[unit]
    return f"{count} {_WORDS[unit]}{'' if count == 1 else 's'}"


def _largest(seconds: int) -> str:
    return next(unit for unit, length in _SECONDS.items() if unit != "w" and seconds % length == 0)


# Amounts and values


@dataclass(frozen=True, slots=True)
class Measured:
    """An amount as it was written: so many base units of an asset, or of the unit of account, or payments."""

    units: int
    asset: str | None
    """None: not in units of an asset."""
    payments: bool = False


@dataclass(frozen=True, slots=True)
class Money:
    """What amounts may be written in.

    Args:
        assets: by id, for their decimals.
        unit: the bundle's unit of account, e.g. `USD-cents`, which people write as dollars.
    """

    assets: dict[str, Asset]
    unit: str

    @property
    def currency(self) -> str:
        """What values are written in: `USD` where the unit of account is `USD-cents`."""
        return self.unit.removesuffix(_CENTS)

    def _account(self) -> Asset:
        return Asset("value", "value", 2 if self.unit.endswith(_CENTS) else 0)

    def measured(self, text: str) -> Measured:
        """`0.1 BTC`, `50_000 USD` or `20 payments`, exactly."""
        number, _, name = text.partition(" ")
        name = name.strip()
        if not _NUMBER.fullmatch(number) or not name:
            raise InvalidValue(
                f"{text!r} is no amount: write a number and its asset, such as {self._example()}"
            )
        plain = self._plain(number, text)
        if name == PAYMENTS or name == "payment":
            if "." in plain:
                raise InvalidValue(f"{text!r}: payments are counted in whole numbers")
            return Measured(int(plain), None, payments=True)
        if name == self.currency:
            return Measured(_parsed(self._account(), plain, text, self.currency), None)
        asset = self.assets.get(name)
        if asset is None:
            known = [*self.assets, self.currency]
            raise InvalidValue(
                f"{text!r}: {name!r} is neither an asset of the bundle nor its unit of account"
                f"{nearest(name, known)}; there are {listed(known, word='and')}"
            )
        return Measured(_parsed(asset, plain, text, name), name)

    def amount(self, text: str) -> Measured:
        """An amount of an asset: `0.1 BTC`."""
        found = self.measured(text)
        if found.asset is None:
            raise InvalidValue(f"{text!r}: write an amount of an asset, such as {self._example()}")
        return found

    def value(self, text: str) -> int:
        """So much in the unit of account: `50_000 USD`."""
        found = self.measured(text)
        if found.asset is not None or found.payments:
            raise InvalidValue(f"{text!r}: write a value in {self.currency}, such as 50_000 {self.currency}")
        return found.units

    def told_amount(self, asset: str, units: int) -> str:
        """What `amount` reads: `0.1 BTC`."""
        return f"{shortened(self.assets[asset].decimal(units))} {asset}"

    def told_value(self, units: int) -> str:
        """What `value` reads: `50000 USD`."""
        return f"{shortened(self._account().decimal(units))} {self.currency}"

    def _example(self) -> str:
        return f"0.1 {next(iter(self.assets), 'BTC')}"

    @staticmethod
    def _plain(number: str, text: str) -> str:
        whole, dot, fraction = number.partition(".")
        if not _GROUPED.fullmatch(whole):
            raise InvalidValue(
                f"{text!r}: `_` stands before every third digit, such as 1_000_000, or nowhere"
            )
        whole = whole.replace("_", "")
        if whole.startswith("0") and whole != "0":
            raise InvalidValue(f"{text!r}: write the number without zeros before it")
        return whole + dot + fraction


def _parsed(asset: Asset, plain: str, text: str, name: str) -> int:
    places = len(plain.partition(".")[2])
    if places > asset.decimals:
        raise InvalidValue(f"{text!r}: {places} decimal places, {name} has {asset.decimals}")
    return Amount.parse(asset, plain).units


def shortened(decimal: str) -> str:
    """A decimal without the zeros that say nothing: `0.10000000` is `0.1`."""
    return decimal.rstrip("0").rstrip(".") if "." in decimal else decimal


# Percentages


def basis_points(text: str) -> int:
    """Ten-thousandths of `1%` or `0.25%`, from 1 to 10,000."""
    match = _PERCENT.fullmatch(text)
    points = int(match[1]) * 100 + int((match[2] or "").ljust(2, "0")) if match else 0
    if not 1 <= points <= 10_000:
        raise InvalidValue(f"{text!r}: write a share from 0.01% to 100%, such as 1%")
    return points


def percent(text: str) -> int:
    """Whole percent of `30%`, from 1 to 100."""
    points = basis_points(text)
    if points % 100:
        raise InvalidValue(f"{text!r}: write whole percent, such as 30%")
    return points // 100


def told_share(points: int) -> str:
    """What `basis_points` reads: `1%`, `0.25%`."""
    return f"{shortened(f'{points // 100}.{points % 100:02d}')}%"


# Hours


def hours(text: str) -> Hours:
    """`mon-fri 08:00-18:00 UTC`; without days all, without times the whole of them."""
    match = _HOURS.fullmatch(text)
    if match is None or (match[1] is None and match[2] is None):
        raise InvalidValue(f"{text!r} are no hours: write such as mon-fri 08:00-18:00 UTC, in UTC")
    days = DAYS if match[1] is None else _days(match[1], text)
    if match[2] is None:
        return Hours(days=days)
    first, end = _minute(match[2], text), _minute(match[3], text)
    if first in (end, MINUTES_A_DAY):
        raise InvalidValue(
            f"{text!r}: the hours begin and end at the same time; leave them out for whole days"
        )
    return Hours(days=days, from_minute=first, to_minute=end)


def _days(text: str, whole: str) -> tuple[Day, ...]:
    found: set[Day] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise InvalidValue(f"{whole!r}: {part!r} are no days; write mon, tue, wed, thu, fri, sat, sun")
        start, end = DAYS.index(first), DAYS.index(last if dash else first)
        found.update(DAYS[(start + step) % 7] for step in range((end - start) % 7 + 1))
    return tuple(day for day in DAYS if day in found)


def _minute(text: str, whole: str) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise InvalidValue(f"{whole!r}: {text!r} is no time of the day; write it such as 08:00")
    return MINUTES_A_DAY if match[1] is None else int(match[1]) * 60 + int(match[2])


def told_hours(given: Hours) -> str:
    """What `hours` reads as the same."""
    days = _told_days(given.days)
    if (given.from_minute, given.to_minute) == (0, MINUTES_A_DAY):
        return f"{days or 'mon-sun'} UTC"
    return f"{days} {_told_minute(given.from_minute)}-{_told_minute(given.to_minute)} UTC".strip()


def _told_days(days: tuple[Day, ...]) -> str:
    if set(days) == set(DAYS):
        return ""
    runs: list[list[int]] = []
    for day in sorted({DAYS.index(day) for day in days}):
        if runs and day == runs[-1][-1] + 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(DAYS[run[0]] if len(run) == 1 else f"{DAYS[run[0]]}-{DAYS[run[-1]]}" for run in runs)


def _told_minute(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"


# Approvals


def need(text: str) -> Need:
    """`2 of operators`, or `2 of operators from different organisations`."""
    match = _NEED.fullmatch(text)
    if match is None or int(match[1]) > 32:
        raise InvalidValue(
            f"{text!r}: write how many of which group, such as 2 of operators, or 2 of operators from different"
            " organisations"
        )
    return Need(group=match[2], count=int(match[1]), distinct="organisations" if match[3] else "people")
