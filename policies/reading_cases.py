"""Cases of a policy file: facts as people write them, and the answer that the policy must give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import yaml

from chains.errors import InvalidValue
from policies import notation, scalars
from policies.bundle import Bundle
from policies.cases import MONDAY, facts_in
from policies.facts import AccountState, Facts, Ownership, Screening, Whitelist
from policies.nodes import Findings, Table, compose
from policies.notation import Money
from policies.reading_fields import FieldReader
from policies.rules import COLDER, DAYS, NOBODY, Approvals, Case, Filled, Operation

CASE_KEYS: Final = ("id", "given", "spent", "expect", "because", "approvals", "delay")
UNKNOWN: Final = "unknown"
"""What is written for a fact that nobody knows."""
NOBODY_ASKED: Final = "nobody"
"""What is written where no approval is asked for."""

_MINUTE: Final = 60
_Parse = Callable[[str], Any]
BOOLS: Final = ("lookalike", "contract", "travel_rule", "ownership_proof", "new_device", "new_ip")
AGES: Final = {
    "destination_age": "destination_age_seconds",
    "password_age": "password_age_seconds",
    "mfa_age": "mfa_age_seconds",
}
_NAMES: Final = ("action", "chain", "asset", "source", "customer", "initiator", "order")
_ONE_OF: Final[dict[str, tuple[str, ...]]] = {
    "operation": tuple(Operation),
    "ownership": tuple(Ownership),
    "whitelist": tuple(Whitelist),
    "screening": tuple(Screening),
    "account": tuple(AccountState),
}
_LISTS: Final = ("mfa_methods", "halts")
_FIELDS: Final = {**AGES, "amount": "units", "at": "now"}
"""Fields of `Facts` that people know under another name."""
_FIRST: Final = ("amount", "value", "destination", "at")
"""What says more comes first, so that what says it exactly overrides it."""
FACT_KEYS: Final = (
    "operation", "action", "asset", "amount", "value", "chain", "source", "destination", "ownership", "whitelist",
    "destination_age", "lookalike", "contract", "customer", "kyc_level", "initiator", "screening", "travel_rule",
    "ownership_proof", "new_device", "new_ip", "password_age", "mfa_age", "mfa_methods", "order", "account", "halts",
    "reverts", "at",
)  # fmt: skip
_WHOSE: Final[dict[str, dict[str, Any]]] = {
    "internal": {"ownership": "customer"},
    "house": {"ownership": "house"},
    "external": {"ownership": "external"},
    "whitelisted": {"ownership": "external", "whitelist": "usable"},
    "one-time": {"ownership": "external", "whitelist": "absent"},
    "contract": {"ownership": "external", "contract": True},
}


class CaseReader(FieldReader):
    """Reads cases of one file."""

    def __init__(self, bundle: Bundle, money: Money, findings: Findings) -> None:
        super().__init__(money, findings)
        self._chains = {entry.id: entry.chain for entry in bundle.assets}

    def case(self, node: yaml.Node) -> tuple[Case | None, list[tuple[str, Table]]]:
        """One case, None if it has no id or no answer; and its tables, for their places."""
        table = Table(node, self.findings, "a case", CASE_KEYS)
        case_id = self.one(table.need("id", "`id:` and a name"), "id", scalars.name)
        answers = ("deny", "wait", *COLDER)
        expect = self.choice(table.need("expect", "`expect: hot`"), "expect", answers)
        given = self.facts(table.get("given"))
        because = self.many(table.get("because"), "because")
        spent = self.spent(table.get("spent"))
        seconds = self.one(table.get("delay"), "delay", _duration_or_none)
        approvals = self._asked(table.get("approvals"))
        tables = [("", table)]
        if case_id is None or expect is None:
            return None, tables
        case = Case(
            id=case_id,
            given=msgspec.json.encode(given, order="sorted").decode(),
            expect=expect,
            because=because,
            approvals=approvals,
            delay_seconds=seconds,
            spent=spent,
        )
        return case, tables

    def facts(self, node: yaml.Node | None) -> dict[str, Any]:
        """Facts in the form of `policies.facts.describe`; null for what is said to be unknown."""
        if node is None:
            return {}
        table = Table(node, self.findings, "`given`", FACT_KEYS)
        told: dict[str, Any] = {}
        for key in (*_FIRST, *(key for key in FACT_KEYS if key not in _FIRST)):
            stated = table.get(key)
            if stated is None:
                continue
            field = _FIELDS.get(key, key)
            if key in _LISTS and isinstance(stated, yaml.SequenceNode):
                words = [self.one(each, key, str) for each in stated.value]
                told[field] = [word for word in words if word is not None]
            elif isinstance(stated, yaml.ScalarNode) and stated.value == UNKNOWN:
                told[field] = None
            else:
                told |= self.one(stated, key, self._parser(key, field)) or {}
        asset = told.get("asset")
        if asset is not None and asset not in self._chains:
            hint = notation.nearest(asset, self._chains)
            self.findings.add(table.node, f"the bundle has no asset {asset}{hint}")
        if asset is not None and "chain" not in told:
            told["chain"] = self._chains.get(asset)
        return told

    def _parser(self, key: str, field: str) -> _Parse:
        own: dict[str, _Parse] = {
            "amount": self._amount,
            "value": self._value,
            "destination": _destination,
            "at": _at,
        }
        return own[key] if key in own else _plain(key, field)

    def _amount(self, text: str) -> dict[str, Any]:
        found = self.money.amount(text)
        return {"units": str(found.units), "asset": found.asset}

    def _value(self, text: str) -> dict[str, Any]:
        low, _, high = text.partition(" to ")
        return {"value": [str(self.money.value(low)), str(self.money.value(high or low))]}

    def _asked(self, node: yaml.Node | None) -> Approvals | None:
        if isinstance(node, yaml.ScalarNode) and node.value == NOBODY_ASKED:
            return NOBODY
        return self.approvals(node)

    def spent(self, node: yaml.Node | None) -> tuple[Filled, ...]:
        """What windows hold, by the rule whose limit it is."""
        found = []
        for _, name, value in self.named(node, "spent", "hot-window: 4.9 BTC"):
            measured = self.one(value, "spent", self.money.measured)
            if measured is not None:
                found.append(Filled(rule=name, amount=str(measured.units)))
        return tuple(found)


def read_facts(given: str, spent: str, bundle: Bundle) -> tuple[Facts, dict[str, int]]:
    """An operation as people describe it, outside of a file: its facts, and what windows hold by the id of their rule.

    Args:
        given: facts as under `given` of a case, e.g. `amount: 0.1 BTC, destination_age: 2h`.
        spent: as under `spent`; empty: all windows are.
        bundle: whose assets are meant.

    Raises:
        Unreadable: has all mistakes.
        InvalidValue: these are no facts.
    """
    findings = Findings("given")
    reader = CaseReader(
        bundle, Money({entry.id: entry.asset() for entry in bundle.assets}, bundle.unit), findings
    )
    facts = reader.facts(compose(_flow(given), findings))
    filled = reader.spent(compose(_flow(spent), findings))
    findings.raise_any()
    return facts_in(facts), {each.rule: int(each.amount) for each in filled}


def _flow(text: str) -> str:
    return text if text.lstrip().startswith("{") else f"{{{text}}}"


def _destination(text: str) -> dict[str, Any]:
    if text in _WHOSE:
        return _WHOSE[text]
    chain, _, address = scalars.address(text).partition(":")
    return {"chain": chain, "destination": address}


def _at(text: str) -> dict[str, Any]:
    day, _, time = text.removesuffix(" UTC").partition(" ")
    wrong = InvalidValue(f"`at` is {text!r}: write a day and a time, such as sat 03:00 UTC")
    if day not in DAYS:
        raise wrong
    try:
        minute = notation.hours(f"{day} {time}-24:00 UTC").from_minute
    except InvalidValue:
        raise wrong from None
    return {"now": MONDAY + DAYS.index(day) * 86_400 + minute * _MINUTE}


def _plain(key: str, field: str) -> _Parse:
    """Reads a fact that is one word."""
    parse: _Parse
    if key in BOOLS:
        parse = scalars.yes_or_no
    elif key in AGES:
        parse = _age
    elif key in _NAMES:
        parse = str
    elif key in _ONE_OF:
        parse = scalars.choice(key, _ONE_OF[key])
    elif key in _LISTS:
        parse = _listed
    else:
        parse = scalars.small(key, 0, 100)
    return lambda text: {field: parse(text)}


def _age(text: str) -> int:
    return 0 if text == "new" else notation.duration(text)


def _duration_or_none(text: str) -> int:
    return 0 if text == "none" else notation.duration(text)


def _listed(text: str) -> list[str]:
    return [] if text == "none" else [text]
