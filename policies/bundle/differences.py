"""What differs between two bundles, in sentences that officers read before they sign the second one. Pure.

Complete: every field that differs is told, whether it has a sentence of its own or not, each number exactly, and each
text in one line with whatever would not print written out. So nothing hides behind anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue
from policies import words
from policies.bundle.document import Bundle
from policies.notation import told_duration
from policies.rules import NOBODY, Limit, Rule, When

_TIMES: Final = frozenset({"issued_at", "expires_at", "not_after", "active_from", "in_force_from"})
"""Fields that are UNIX seconds, which people read as dates."""
_YEAR_10000: Final = 253_402_300_800
"""From then on the calendar has no dates."""
_MONEY: Final = frozenset(
    {
        "payment_below", "payment_from", "window_cap", "minimum_deposit", "withdrawal_fee",
        "sweep_above", "fee_cap", "fee_window_cap", "from_units", "holding_cap",
    }
)  # fmt: skip
"""Base units of an asset: the entry's own, or its network's native one."""
_VALUES: Final = frozenset({"value_cap", "low", "high"})
"""In the bundle's unit of account."""

_ENTRIES: Final[Mapping[str, tuple[str, Callable[[dict[str, Any]], str]]]] = {
    "networks": ("network {}", lambda e: e["chain"]),
    "assets": ("asset {}", lambda e: e["id"]),
    "keysets": ("key-set {}", lambda e: e["id"]),
    "vaults": ("vault {}", lambda e: e["id"]),
    "gas_payers": ("gas payer {}", lambda e: e["id"]),
    "caps": ("{}", lambda e: f"{e['asset']} {e['tier']}"),
    "callers": ("caller {}", lambda e: e["id"]),
    "operators": ("operator {}", lambda e: e["id"]),
    "officers": ("officer {}", lambda e: e["id"]),
    "approvers": ("approver {}", lambda e: e["id"]),
    "verifiers": ("verifier {}", lambda e: e["id"]),
    "breakers": ("breaker {}", lambda e: e["id"]),
    "prices": ("price of {}", lambda e: e["asset"]),
    "rules": ("rule {}", lambda e: e["id"]),
    "groups": ("group {}", lambda e: e["id"]),
    "addresses": ("address group {}", lambda e: e["id"]),
    "holdings": ("holding of {}", lambda e: f"{'+'.join(e['tiers'])} {e['asset']}"),
    "cases": ("case {}", lambda e: e["id"]),
}
"""Lists whose entries have names of their own: what an entry is called, and its name."""

_PEOPLE: Final = ("callers", "operators", "officers", "approvers", "verifiers")
_SENTENCES: Final[Mapping[tuple[str, str], str]] = {
    ("", "version"): "version {} (was {})",
    ("", "issued_at"): "issued at {} (was {})",
    ("", "expires_at"): "expires at {} (was {})",
    ("", "in_force_from"): "in force from {} on (was {})",
    ("", "veto_seconds"): "the next bundle waits {} for vetoes (was {})",
    ("", "longest_order_seconds"): "an order may last {} (was {})",
    ("caps", "payment_below"): "a payment must stay below {} (was {})",
    ("caps", "payment_from"): "a payment must be at least {} (was {})",
    ("caps", "window_cap"): "all payments within the window must stay within {} (was {})",
    ("caps", "window_seconds"): "the window is {} (was {})",
    ("breakers", "value_cap"): "all payments and fees within the window must stay within {} (was {})",
    ("breakers", "window_seconds"): "the window is {} (was {})",
    ("networks", "fee_cap"): "one transaction may cost at most {} in fees (was {})",
    ("networks", "fee_window_cap"): "all fees within the window must stay within {} (was {})",
    ("networks", "feerate_cap"): "the highest feerate that is signed is {} (was {})",
    ("networks", "feerate_floor"): "the lowest feerate that is paid is {} (was {})",
    ("networks", "settle_blocks"): "a payment is settled after {} blocks (was {})",
    ("keysets", "state"): "is now {} (was {})",
    ("vaults", "state"): "is now {} (was {})",
    ("vaults", "threshold"): "now needs {} signatures (was {})",
    ("gas_payers", "state"): "is now {} (was {})",
    ("gas_payers", "holding_cap"): "should hold at most {}, and is topped up with no more (was {})",
    ("prices", "low"): "is at least {} (was {})",
    ("prices", "high"): "is at most {} (was {})",
    **{(who, "not_after"): "may act until {} (was {})" for who in _PEOPLE},
    **{(who, "key"): "has another key: {} (was {})" for who in _PEOPLE},
    ("rules", "route"): "is now paid from {} (was {})",
    ("rules", "deny"): "now denies, saying {} (was {})",
    ("rules", "delay_seconds"): "now waits {} (was {})",
    ("rules", "approvals"): "now needs {} (was {})",
    ("rules", "checks"): "now checks {} (was {})",
    ("rules", "verdict"): "a verifier's verdict is now {} (was {})",
}  # fmt: skip


def differences(before: Bundle, after: Bundle) -> list[str]:
    """A sentence for each thing that differs; none if nothing does."""
    return [_printable(line) for line in _Reader(before, after).lines()]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where something differs."""

    list_name: str
    """Of the bundle or its policy; empty for the bundle itself."""
    subject: str
    """What the entry is called."""
    old: Mapping[str, Any]
    new: Mapping[str, Any]
    """The entry on both sides; empty where it is not there."""


class _Reader:
    """Compares two bundles."""

    def __init__(self, before: Bundle, after: Bundle) -> None:
        self._bundles = (before, after)
        self._sides = (before.to_object(), after.to_object())

    def lines(self) -> Iterator[str]:
        old, new = self._sides
        top = _Place("", "", old, new)
        for field in _keys(old, new):
            if field == "policy":
                for part in _keys(old[field], new[field]):
                    yield from self._list(part, old[field].get(part), new[field].get(part), top)
            else:
                yield from self._list(field, old.get(field), new.get(field), top)

    def _list(self, field: str, old: Any, new: Any, top: _Place) -> Iterator[str]:
        if old == new:
            return
        before, after = _by_name(field, old), _by_name(field, new)
        if before is None or after is None:
            yield from self._field(field, old, new, top)
            return
        for name in sorted(before.keys() | after.keys()):
            subject = _ENTRIES[field][0].format(name)
            yield from self._entry(_Place(field, subject, before.get(name, {}), after.get(name, {})))
        common = [[name for name in side if name in before and name in after] for side in (before, after)]
        if common[0] != common[1]:
            yield f"{field}: the same entries in another order, {', '.join(common[1])}"

    def _entry(self, place: _Place) -> Iterator[str]:
        if not place.new:
            yield f"{place.subject}: removed"
            return
        if not place.old:
            yield f"{place.subject}: added, {self._introduced(place)}"
            yield from _emptied(place)
            return
        for field in _keys(place.old, place.new):
            yield from self._field(field, place.old.get(field), place.new.get(field), place)
        yield from _emptied(place)

    def _introduced(self, place: _Place) -> str:
        """All of a new entry; of a rule in words too."""
        whole = "; ".join(
            f"{_label(field)} {self._told(field, value, place, 1)}" for field, value in place.new.items()
        )
        if place.list_name != "rules":
            return whole
        rule = msgspec.convert(place.new, Rule)
        return f"{words.rule(rule, self._bundles[1].told, self._bundles[1].unit)} Whole: {_json(place.new)}"

    def _field(self, field: str, old: Any, new: Any, place: _Place) -> Iterator[str]:
        if old == new:
            return
        head = f"{place.subject}: " if place.subject else ""
        if place.list_name == "rules" and field in ("when", "unless", "limit"):
            for line in self._part_of_rule(field, old, new, place):
                yield f"{head}{line}"
        elif _is_names(old) and _is_names(new) and set(old) != set(new) and len(set(new)) == len(new):
            yield f"{head}{_label(field)}: {_gained(old, new)}"
        else:
            sentence = _SENTENCES.get((place.list_name, field), _label(field) + ": {} (was {})")
            told = (self._told(field, new, place, 1), self._told(field, old, place, 0))
            yield head + sentence.format(*told)

    def _part_of_rule(self, field: str, old: Any, new: Any, place: _Place) -> Iterator[str]:
        """Scope or limit in words; and each field as it is, unless it is one number or word only, which these tell."""
        title = {"when": "is now about", "unless": "now excepts", "limit": "now"}[field]
        before, after = self._in_words(field, old, place, 0), self._in_words(field, new, place, 1)
        if before != after:
            yield f"{title} {after} (was {before})"
        if old is None or new is None:
            yield f"{field}: {_json(new)} (was {_json(old)})"
            return
        differing = [name for name in _keys(old, new) if old.get(name) != new.get(name)]
        plain = all(isinstance(side[name], str | int) for side in (old, new) for name in differing)
        if len(differing) > 1 or before == after or not plain:
            for name in differing:
                yield f"{field}, {_label(name)}: {_json(new.get(name))} (was {_json(old.get(name))})"

    def _in_words(self, field: str, value: Any, place: _Place, side: int) -> str:
        if value is None:
            return "nothing" if field != "limit" else "no limit"
        bundle = self._bundles[side]
        try:
            if field == "limit":
                assets = (place.new or place.old).get("when", {}).get("assets") or [None]
                return words.limit(msgspec.convert(value, Limit), assets[0], bundle.told, bundle.unit)
            return words.scope(msgspec.convert(value, When), bundle.told, bundle.unit)
        except (msgspec.ValidationError, InvalidValue, KeyError, ValueError):
            return _json(value)

    def _told(self, field: str, value: Any, place: _Place, side: int) -> str:
        """A value as people read it, exactly."""
        if value is None:
            return "nothing"
        bundle, entry = self._bundles[side], place.new if side else place.old
        number = isinstance(value, int) and not isinstance(value, bool)
        if field in _TIMES and number:
            return _date(value)
        if field.endswith("_seconds") and number:
            return told_duration(value)
        if field in _MONEY and isinstance(value, str):
            asset = _native(entry, bundle) if place.list_name == "gas_payers" else _asset(entry)
            return words.amount(bundle.told, asset, int(value))
        if field in _VALUES and isinstance(value, str):
            return f"{value} {bundle.unit}"
        if field == "approvals" and place.list_name == "rules":
            return words.needed(msgspec.convert(entry, Rule).approvals or NOBODY)
        return value if isinstance(value, str) and value.isascii() and value.isalnum() else _json(value)


def _emptied(place: _Place) -> Iterator[str]:
    """That a rule's window starts anew: signers count under its id, by its measure (`signers.guard.policy`)."""
    if place.list_name == "rules" and place.new.get("limit") and _counted(place.old) != _counted(place.new):
        yield (
            f"{place.subject}: its window begins empty at the signers: what they have signed until then counts in the"
            " caps of tiers and breakers only"
        )


def _counted(rule: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What its window counts; None if it has none."""
    limit = rule.get("limit")
    return None if not limit else (limit["per"], limit["measure"], rule["when"].get("assets"))


def _asset(entry: Mapping[str, Any]) -> str:
    """Of an entry: the one that it is about, a network's native one, or itself."""
    return str(entry.get("asset") or entry.get("native_asset") or entry.get("id", ""))


def _native(entry: Mapping[str, Any], bundle: Bundle) -> str:
    """The native asset of an entry's chain; its own id where the bundle has no such chain."""
    listed = {network.chain: network.native_asset for network in bundle.networks}
    return listed.get(entry["chain"], str(entry["id"]))


def _by_name(field: str, value: Any) -> dict[str, dict[str, Any]] | None:
    """Entries by their names, in their order; None where they have none, or share one: then they are shown whole."""
    if field not in _ENTRIES or not isinstance(value, list | tuple):
        return None
    found = {_ENTRIES[field][1](entry): entry for entry in value}
    return found if len(found) == len(value) else None


def _is_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)


def _gained(old: Sequence[str], new: Sequence[str]) -> str:
    gained, lost = [each for each in new if each not in old], [each for each in old if each not in new]
    parts = [f"now also {', '.join(gained)}"] if gained else []
    parts += [f"no longer {', '.join(lost)}"] if lost else []
    return "; ".join(parts)


def _keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return sorted(old.keys() | new.keys())


def _label(field: str) -> str:
    return field.removesuffix("_seconds").replace("_", " ")


def _date(seconds: int) -> str:
    if not 0 < seconds < _YEAR_10000:
        return str(seconds)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _json(value: Any) -> str:
    return "nothing" if value is None else msgspec.json.encode(value, order="sorted").decode()


def _printable(line: str) -> str:
    """One line, whatever the bundle's texts hold: no breaks, no marks that turn or hide what follows."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in line)
