"""A policy as people write it, YAML with comments, read into the form that the bundle carries (`policies/README.md`).

Every mistake of a file is found at once, each with its line and column, what is wrong and what to write. Signers don't
need this: they read the bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, get_args

import msgspec
import yaml

from chains.errors import InvalidValue
from policies import nodes, notation, scalars
from policies.bundle import Bundle
from policies.bundle.checks import names_of
from policies.checks import problems_of
from policies.nodes import Findings, Table, Unreadable, one_or_more, text_of
from policies.notation import Money, listed, nearest
from policies.reading_cases import CaseReader
from policies.reading_fields import FieldReader
from policies.rules import (
    COLDER,
    AddressGroup,
    Check,
    Group,
    Holding,
    Limit,
    Operation,
    Policy,
    Rule,
    When,
)

__all__ = ["RULE_KEYS", "WHEN_KEYS", "Unreadable", "read_policy"]

LISTS: Final = {
    "operation": "operations",
    "action": "actions",
    "chain": "chains",
    "asset": "assets",
    "source": "sources",
    "tier": "tiers",
    "destination": "destinations",
    "customer": "customers",
    "initiator": "initiators",
    "mfa_without": "mfa_without",
}
_WORDS: Final[dict[str, Callable[[str], str]]] = {
    "operation": scalars.choice("operation", tuple(Operation)),
    "tier": scalars.choice("tier", COLDER),
    "destination": scalars.destination,
}
_DURATIONS: Final = ("destination_younger_than", "password_younger_than", "mfa_younger_than")
_AMOUNTS: Final = ("amount_from", "amount_below")
_VALUES: Final = ("value_from", "value_below")
_SMALL: Final = {"kyc_below": (0, 100), "mfa_fewer_than": (1, 8)}
WHEN_KEYS: Final = (
    *LISTS, *_AMOUNTS, *_VALUES, *_DURATIONS, *_SMALL, "hours", "screening", "lookalike", "new_device", "new_ip",
)  # fmt: skip
RULE_KEYS: Final = (
    "id", "about", "when", "unless", "deny", "route", "approvals", "delay", "checks", "verdict", "limit",
)  # fmt: skip
_LIMIT_KEYS: Final = ("at_most", "within", "per", "beyond")
_PER: Final = ("customer", "destination", "initiator", "tier", "asset", "chain", "all")
_LONGEST_WINDOW: Final = 366 * 24 * 3600


def read_policy(text: str, bundle: Bundle, *, file: str) -> Policy:
    """The policy that a file says, consistent within itself and with the bundle it is for.

    Args:
        text: of the file.
        bundle: whose assets, chains, wallets and people it may name; its own policy is not looked at.
        file: its name, for mistakes.

    Raises:
        Unreadable: has all mistakes, each with its place.
    """
    findings = Findings(file)
    root = nodes.compose(text, findings)
    reader = _Reader(bundle, findings, root)
    policy = reader.policy()
    findings.raise_any()
    for problem in problems_of(policy, names_of(bundle)):
        findings.add(reader.place(problem.section, problem.id, problem.key), problem.says)
    findings.raise_any()
    try:
        return msgspec.convert(msgspec.to_builtins(policy), Policy)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{file}: {error}") from None


@dataclass(frozen=True, slots=True)
class _Stated:
    """An amount that is stated somewhere: base units of an asset, and where."""

    units: int
    asset: str
    node: yaml.Node


class _Reader(FieldReader):
    """Reads one file."""

    def __init__(self, bundle: Bundle, findings: Findings, root: yaml.MappingNode) -> None:
        super().__init__(Money({entry.id: entry.asset() for entry in bundle.assets}, bundle.unit), findings)
        self._root = root
        self._levels: dict[str, dict[str, int]] = {}
        """Amounts that have a name: base units by asset."""
        self._places: dict[tuple[str, str, str], yaml.Node] = {}
        self._cases = CaseReader(bundle, self.money, findings)

    def policy(self) -> Policy:
        """All sections."""
        sections = ("amounts", "groups", "addresses", "rules", "holdings", "cases")
        table = Table(self._root, self.findings, "a policy", sections)
        self._read_levels(table.get("amounts"))
        groups = [
            self._group(*each)
            for each in self.named(table.get("groups"), "groups", "operators: {roles: [operator]}")
        ]
        addresses = [
            self._addresses(*each)
            for each in self.named(table.get("addresses"), "addresses", "partners: [bitcoin:bc1q...]")
        ]
        rules = [
            r
            for node in self.items(table.need("rules", "a list of rules"), "rules")
            for r in self._rules(node)
        ]
        holdings = [h for node in self.items(table.get("holdings"), "holdings") for h in self._holdings(node)]
        cases = []
        for node in self.items(table.get("cases"), "cases"):
            case, tables = self._cases.case(node)
            if case is not None:
                self._note("cases", case.id, node, *tables)
                cases.append(case)
        return Policy(
            rules=tuple(rules),
            groups=tuple(groups),
            addresses=tuple(addresses),
            holdings=tuple(holdings),
            cases=tuple(cases),
        )

    def place(self, section: str, name: str, key: str) -> yaml.Node:
        """Where something stands, as near as it is known."""
        while key and (section, name, key) not in self._places:
            key = key.rpartition(".")[0]
        return self._places.get((section, name, key), self._root)

    def _note(self, section: str, name: str, node: yaml.Node, *tables: tuple[str, Table]) -> None:
        """Remember where an entry stands, and what its keys say. Of two with one name it is the second."""
        self._places[(section, name, "")] = node
        for prefix, table in tables:
            for key, value in table.given():
                self._places[(section, name, prefix + key)] = value

    # Sections

    def _read_levels(self, node: yaml.Node | None) -> None:
        for key, name, value in self.named(node, "amounts", "small: [0.1 BTC, 2 ETH]"):
            if self.one(key, "amounts", scalars.level) is None:
                continue
            units = self._levels[name] = {}
            for each in one_or_more(value):
                measured = self.one(each, name, self.money.amount)
                if measured is not None and measured.asset is not None:
                    if measured.asset in units:
                        self.findings.add(each, f"`{name}` has two amounts of {measured.asset}")
                    units[measured.asset] = measured.units

    def _group(self, key: yaml.Node, name: str, node: yaml.Node) -> Group:
        table = Table(node, self.findings, f"group {name}", ("roles", "people"))
        self._note("groups", name, key, ("", table))
        roles, people = (self.many(table.get(each), each) for each in ("roles", "people"))
        return Group(id=name, roles=roles, people=people)

    def _addresses(self, key: yaml.Node, name: str, node: yaml.Node) -> AddressGroup:
        self._places[("addresses", name, "")] = key
        return AddressGroup(id=name, addresses=self.many(node, name, scalars.address))

    def _holdings(self, node: yaml.Node) -> list[Holding]:
        table = Table(node, self.findings, "a holding", ("tiers", "at_most", "share", "refill_below"))
        tiers = self.many(
            table.need("tiers", "`tiers: hot`"), "tiers", scalars.choice("tiers", ("hot", "warm"))
        )
        stated = table.need("at_most", "`at_most: 100 BTC`")
        share = self.one(table.get("share"), "share", notation.basis_points)
        refill = self.one(table.get("refill_below"), "refill_below", notation.percent)
        found = []
        for asset in self._written_for([] if stated is None else [stated], ()):
            amount = self._amount(stated, "at_most", asset)
            if amount is None:
                continue
            self._note("holdings", f"{'+'.join(tiers)}/{amount.asset}", node, ("", table))
            found.append(
                Holding(
                    tiers=cast(tuple[Literal["hot", "warm"], ...], tiers),
                    asset=amount.asset,
                    at_most=str(amount.units),
                    share=share,
                    refill_below=refill,
                )
            )
        return found

    # Rules

    def _rules(self, node: yaml.Node) -> list[Rule]:
        """The rule; or one for each asset, where it says amounts by their name."""
        table = Table(node, self.findings, "a rule", RULE_KEYS)
        rule_id = self.one(table.need("id", "`id:` and a name"), "id", scalars.name)
        scopes = {
            key: Table(scope, self.findings, f"`{key}`", WHEN_KEYS)
            for key in ("when", "unless")
            if (scope := table.get(key)) is not None
        }
        limit = table.get("limit")
        limits = {} if limit is None else {"limit": Table(limit, self.findings, "a limit", _LIMIT_KEYS)}
        amounts = [
            value
            for block in (*scopes.values(), *limits.values())
            for key, value in block.given()
            if key in (*_AMOUNTS, "at_most")
        ]
        assets = scopes["when"].get("asset") if "when" in scopes else None
        named = tuple(str(each.value) for each in ([] if assets is None else one_or_more(assets)))
        tables = [("", table), *((f"{key}.", inner) for key, inner in {**scopes, **limits}.items())]
        found = []
        for asset in self._written_for(amounts, named):
            name = f"{rule_id or ''}.{asset}" if asset is not None else rule_id or ""
            self._note("rules", name, node, *tables)
            found.append(self._rule(table, scopes, limits.get("limit"), name, asset))
        return found if rule_id is not None else []

    def _rule(
        self, table: Table, scopes: dict[str, Table], limited: Table | None, name: str, asset: str | None
    ) -> Rule:
        when = (
            self._when(scopes["when"], asset)
            if "when" in scopes
            else When(assets=() if asset is None else (asset,))
        )
        limit, at_most = (None, None) if limited is None else self._limit(limited, asset)
        if at_most is not None:
            when = msgspec.structs.replace(when, assets=self._agreed(at_most, "at_most", when.assets))
        return Rule(
            id=name,
            about=self.one(table.get("about"), "about", scalars.sentence) or "",
            when=when,
            unless=self._when(scopes["unless"], asset) if "unless" in scopes else None,
            deny=self.one(table.get("deny"), "deny", scalars.sentence),
            route=self.choice(table.get("route"), "route", COLDER),
            approvals=self.approvals(table.get("approvals")),
            delay_seconds=self.one(table.get("delay"), "delay", notation.duration) or 0,
            checks=self.many(table.get("checks"), "checks", scalars.choice("checks", get_args(Check))),
            verdict=self.choice(table.get("verdict"), "verdict", ("required",)),
            limit=limit,
        )

    def _when(self, table: Table, asset: str | None) -> When:
        told: dict[str, Any] = {
            field: self.many(table.get(key), key, _WORDS.get(key, scalars.name))
            for key, field in LISTS.items()
        }
        told["operations"] = tuple(Operation(each) for each in told["operations"])
        if asset is not None:
            told["assets"] = (asset,)
        for key in _AMOUNTS:
            amount = self._amount(table.get(key), key, asset)
            if amount is not None:
                told[key] = str(amount.units)
                told["assets"] = self._agreed(amount, key, told["assets"])
        for key in _VALUES:
            value = self.one(table.get(key), key, self.money.value)
            told[key] = None if value is None else str(value)
        for key in _DURATIONS:
            told[key] = self.one(table.get(key), key, notation.duration)
        for key, (low, high) in _SMALL.items():
            told[key] = self.one(table.get(key), key, scalars.small(key, low, high))
        for key in ("lookalike", "new_device", "new_ip"):
            told[key] = self.one(table.get(key), key, scalars.yes_or_no)
        told["hours"] = self.one(table.get("hours"), "hours", notation.hours)
        told["screening"] = self.choice(table.get("screening"), "screening", ("clear", "hit"))
        return When(**told)

    def _limit(self, table: Table, asset: str | None) -> tuple[Limit | None, _Stated | None]:
        """The limit, and its amount if it is one of an asset."""
        stated = table.need("at_most", "`at_most: 5 BTC`")
        within = table.need("within", "`within: 24h`")
        per = self.choice(table.need("per", f"`per:` and {listed(_PER)}"), "per", _PER)
        beyond = self.choice(table.get("beyond"), "beyond", ("deny", "wait"))
        seconds = self.one(within, "within", notation.duration)
        amount: _Stated | None = None
        measure: Literal["units", "value", "payments"] = "units"
        units: int | None = None
        text = stated.value if isinstance(stated, yaml.ScalarNode) else ""
        if scalars.is_level(text):
            amount = self._amount(stated, "at_most", asset)
        elif (measured := self.one(stated, "at_most", self.money.measured)) is not None:
            units = measured.units
            if measured.asset is not None and stated is not None:
                amount = _Stated(units, measured.asset, stated)
            else:
                measure = "payments" if measured.payments else "value"
        units = units if amount is None else amount.units
        if within is not None and seconds is not None and seconds > _LONGEST_WINDOW:
            self.findings.add(within, "a window is at most 366d long")
        elif units is not None and seconds is not None and per is not None:
            limit = Limit(
                window_seconds=seconds, per=per, measure=measure, at_most=str(units), beyond=beyond or "deny"
            )
            return limit, amount
        return None, amount

    # Amounts

    def _written_for(self, amounts: list[yaml.Node], named: tuple[str, ...]) -> list[str | None]:
        """For which assets something is written out: for each that its named amounts are of; else once, as it is."""
        used = [
            (node, level)
            for node in amounts
            if isinstance(node, yaml.ScalarNode) and (level := self._levels.get(node.value)) is not None
        ]
        if not used:
            return [None]
        wanted = list(named or used[0][1])
        for node, level in used:
            missing = [asset for asset in wanted if asset not in level]
            more = [asset for asset in level if asset not in wanted and not named]
            if missing or more:
                told = f"no amount of {listed(missing)}" if missing else f"one of {listed(more)} as well"
                self.findings.add(
                    node, f"`{node.value}` says {told}: add what is missing to `amounts`, or name `asset`"
                )
        return [asset for asset in wanted if all(asset in level for _, level in used)]

    def _amount(self, node: yaml.Node | None, key: str, asset: str | None) -> _Stated | None:
        """An amount of an asset, or what its name stands for."""
        text = None if node is None else text_of(node, self.findings, f"`{key}`")
        if node is None or text is None:
            return None
        level = self._levels.get(text)
        if level is not None:
            return _Stated(level[asset], asset, node) if asset in level else None
        if scalars.is_level(text):
            hint = nearest(text, self._levels) or ": write such as 0.1 BTC, or name it under `amounts`"
            self.findings.add(node, f"there is no amount named {text}{hint}")
            return None
        found = self.one(node, key, self.money.amount)
        return None if found is None or found.asset is None else _Stated(found.units, found.asset, node)

    def _agreed(self, amount: _Stated, key: str, named: Iterable[str]) -> tuple[str, ...]:
        """An amount says which asset is meant; one that is named must be the same."""
        assets = tuple(named)
        if assets and assets != (amount.asset,):
            says = f"`{key}` is an amount of {amount.asset}, and `asset` says {listed(assets, word='and')}"
            self.findings.add(amount.node, says)
        return assets or (amount.asset,)
