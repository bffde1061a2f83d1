"""A policy written as a file that people can go on with: what `policies.reading` reads as the same policy.

Comments and names of amounts are not in a bundle, so they don't come back; everything that decides does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from chains.errors import InvalidValue
from policies import notation
from policies.bundle import Bundle
from policies.cases import MONDAY
from policies.notation import Money
from policies.reading import LISTS
from policies.reading_cases import AGES, BOOLS, NOBODY_ASKED, UNKNOWN
from policies.rules import (
    DAYS,
    NOBODY,
    AllOf,
    AnyOf,
    Approvals,
    Case,
    Holding,
    Limit,
    Need,
    Policy,
    Rule,
    When,
)

_DAY: Final = 86_400
_PLAIN: Final = (
    "operation", "action", "chain", "asset", "source", "ownership", "whitelist", "customer", "kyc_level", "initiator",
    "screening", "order", "account", "reverts",
)  # fmt: skip
"""Facts that are written as they are."""


class _Dumper(yaml.SafeDumper):
    """Writes equal parts twice: aliases are not read."""

    def ignore_aliases(self, data: Any) -> bool:
        """All of them."""
        return True


def written(policy: Policy, bundle: Bundle) -> str:
    """The policy as the text of a file.

    Args:
        policy: a consistent one.
        bundle: whose assets and unit of account it is written in.

    Raises:
        InvalidValue: a case has facts that no file can say.
    """
    writer = _Writer(Money({entry.id: entry.asset() for entry in bundle.assets}, bundle.unit))
    limits = {rule.id: rule for rule in policy.rules if rule.limit is not None}
    sections = {
        "groups": {
            group.id: _given(roles=list(group.roles), people=list(group.people)) for group in policy.groups
        },
        "addresses": {group.id: list(group.addresses) for group in policy.addresses},
        "rules": [writer.rule(rule) for rule in policy.rules],
        "holdings": [writer.holding(holding) for holding in policy.holdings],
        "cases": [writer.case(case, limits) for case in policy.cases],
    }
    text = [
        yaml.dump(
            {name: part},
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            width=110,
            default_flow_style=False,
        )
        for name, part in sections.items()
        if part or name == "rules"
    ]
    return "\n".join(text)


class _Writer:
    def __init__(self, money: Money) -> None:
        self._money = money

    def rule(self, rule: Rule) -> dict[str, Any]:
        """One rule; what has no effect is left out."""
        return _given(
            id=rule.id,
            about=rule.about,
            when=self._when(rule.when, rule.when.assets),
            unless=None if rule.unless is None else self._when(rule.unless, rule.when.assets),
            deny=rule.deny,
            route=rule.route,
            approvals=None if rule.approvals is None else _approvals(rule.approvals),
            delay=notation.short_duration(rule.delay_seconds) if rule.delay_seconds else None,
            checks=list(rule.checks),
            verdict=rule.verdict,
            limit=None if rule.limit is None else self._limit(rule.limit, rule.when.assets),
        )

    def _when(self, when: When, assets: tuple[str, ...]) -> dict[str, Any]:
        told: dict[str, Any] = {
            key: [str(each) for each in getattr(when, field)] for key, field in LISTS.items()
        }
        of = when.assets or assets
        for key in ("amount_from", "amount_below"):
            units = getattr(when, key)
            told[key] = None if units is None else self._money.told_amount(of[0], int(units))
        for key in ("value_from", "value_below"):
            units = getattr(when, key)
            told[key] = None if units is None else self._money.told_value(int(units))
        for key in ("destination_younger_than", "password_younger_than", "mfa_younger_than"):
            seconds = getattr(when, key)
            told[key] = None if seconds is None else notation.short_duration(seconds)
        for key in ("kyc_below", "mfa_fewer_than"):
            number = getattr(when, key)
            told[key] = None if number is None else str(number)
        for key in ("lookalike", "new_device", "new_ip"):
            answer = getattr(when, key)
            told[key] = None if answer is None else _yes(answer)
        told["hours"] = None if when.hours is None else notation.told_hours(when.hours)
        told["screening"] = when.screening
        return {key: _words(value) for key, value in _given(**told).items()}

    def _limit(self, limit: Limit, assets: tuple[str, ...]) -> dict[str, Any]:
        return _given(
            at_most=self._measured(limit, assets, int(limit.at_most)),
            within=notation.short_duration(limit.window_seconds),
            per=limit.per,
            beyond=None if limit.beyond == "deny" else limit.beyond,
        )

    def _measured(self, limit: Limit, assets: tuple[str, ...], units: int) -> str:
        if limit.measure == "payments":
            return f"{units} payments"
        return (
            self._money.told_value(units)
            if limit.measure == "value"
            else self._money.told_amount(assets[0], units)
        )

    def holding(self, holding: Holding) -> dict[str, Any]:
        """One holding."""
        return _given(
            tiers=_words(list(holding.tiers)),
            at_most=self._money.told_amount(holding.asset, int(holding.at_most)),
            share=None if holding.share is None else notation.told_share(holding.share),
            refill_below=None if holding.refill_below is None else f"{holding.refill_below}%",
        )

    def case(self, case: Case, limits: Mapping[str, Rule]) -> dict[str, Any]:
        """One case."""
        spent = {}
        for filled in case.spent:
            rule = limits[filled.rule]
            assert rule.limit is not None
            spent[filled.rule] = self._measured(rule.limit, rule.when.assets, int(filled.amount))
        delay = case.delay_seconds
        return _given(
            id=case.id,
            given=self._facts(case.id, json.loads(case.given)),
            spent=spent,
            expect=case.expect,
            because=_words(list(case.because)),
            approvals=None if case.approvals is None else _asked(case.approvals),
            delay=None if delay is None else notation.short_duration(delay) if delay else "none",
        )

    def _facts(self, case: str, given: Mapping[str, Any]) -> dict[str, Any]:
        told: dict[str, Any] = {}
        left = dict(given)
        units, asset = left.pop("units", UNKNOWN), left.get("asset")
        if units is None:
            told["amount"] = UNKNOWN
        elif units != UNKNOWN:
            if asset is None:
                raise InvalidValue(f"case {case}: an amount without an asset can't be written")
            told["amount"] = self._money.told_amount(str(asset), int(units))
        if "destination" in left and left["destination"] is not None:
            told["destination"] = f"{left.get('chain')}:{left.pop('destination')}"
        for key, value in left.items():
            name, word = self._fact(key, value)
            if word is None:
                raise InvalidValue(f"case {case}: {key} {value!r} can't be written")
            told[name] = word
        return told

    def _fact(self, key: str, value: Any) -> tuple[str, Any]:
        """A fact under the name that it has in a file; None for one that can't be written."""
        names = {field: name for name, field in AGES.items()} | {"now": "at"}
        name = names.get(key, key)
        if value is None:
            return name, UNKNOWN
        if key in AGES.values():
            return name, notation.short_duration(value) if value else "new"
        if key in BOOLS:
            return name, _yes(value)
        if key == "value":
            low, high = (self._money.told_value(int(part)) for part in value)
            return name, low if low == high else f"{low} to {high}"
        if key in ("mfa_methods", "halts"):
            return name, list(value) or "none"
        if key == "now":
            return name, _at(value)
        return name, str(value) if key in _PLAIN else None


def _at(now: int) -> str | None:
    day, second = divmod(now - MONDAY, _DAY)
    if not 0 <= day < len(DAYS) or second % 60:
        return None
    return f"{DAYS[day]} {second // 3600:02d}:{second // 60 % 60:02d} UTC"


def _approvals(asked: Approvals) -> Any:
    match asked:
        case Need():
            of = " from different organisations" if asked.distinct == "organisations" else ""
            return f"{asked.count} of {asked.group}{of}"
        case AllOf(needs=needs):
            return {"all": [_approvals(need) for need in needs]}
        case AnyOf(needs=needs):
            return {"any": [_approvals(need) for need in needs]}


def _asked(asked: Approvals) -> Any:
    return NOBODY_ASKED if asked == NOBODY else _approvals(asked)


def _yes(answer: object) -> str:
    return "yes" if answer else "no"


def _words(value: Any) -> Any:
    """A list of one as its only word."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _given(**fields: Any) -> dict[str, Any]:
    """What is there."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {}, ())}
