"""What readers of all sections of a policy file share: one value read, or a mistake noted and nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import yaml

from chains.errors import InvalidValue
from policies import nodes, notation, scalars
from policies.nodes import Findings, Table, one_or_more, text_of
from policies.notation import Money
from policies.rules import AllOf, AnyOf, Approvals

_T = TypeVar("_T")


class FieldReader:
    """Reads values of one file. What can't be read is a mistake and left out, so that all the rest is read as well."""

    def __init__(self, money: Money, findings: Findings) -> None:
        self.money = money
        self.findings = findings

    def one(self, node: yaml.Node | None, what: str, parse: Callable[[str], _T]) -> _T | None:
        """What `parse` makes of a word or sentence, if there is one."""
        text = None if node is None else text_of(node, self.findings, f"`{what}`")
        if node is None or text is None:
            return None
        try:
            return parse(text)
        except InvalidValue as error:
            self.findings.add(node, str(error))
            return None

    def choice(self, node: yaml.Node | None, what: str, allowed: Iterable[str]) -> Any:
        """One of some words."""
        return self.one(node, what, scalars.choice(what, tuple(allowed)))

    def many(
        self, node: yaml.Node | None, what: str, parse: Callable[[str], str] = scalars.name
    ) -> tuple[Any, ...]:
        """All of a list, each once; or the one thing that stands there."""
        if node is None:
            return ()
        found = [self.one(each, what, parse) for each in one_or_more(node)]
        if not found:
            self.findings.add(node, f"`{what}` is an empty list: name at least one, or remove it")
        return tuple(dict.fromkeys(each for each in found if each is not None))

    def items(self, node: yaml.Node | None, what: str) -> list[yaml.Node]:
        """The items of a list, if there is one."""
        return [] if node is None else nodes.items(node, self.findings, f"`{what}`")

    def named(
        self, node: yaml.Node | None, what: str, example: str
    ) -> list[tuple[yaml.Node, str, yaml.Node]]:
        """Entries of a mapping from names: where the name stands, the name, its value."""
        if node is None:
            return []
        if not isinstance(node, yaml.MappingNode):
            self.findings.add(node, f"`{what}` is a mapping: write such as {example}")
            return []
        return [
            (key, key.value, value)
            for key, value in nodes.entries(node, self.findings)
            if self.one(key, "a name", scalars.name) is not None
        ]

    def approvals(self, node: yaml.Node | None) -> Approvals | None:
        """`2 of operators`, or `all:` or `any:` with a list of such."""
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode):
            return self.one(node, "approvals", notation.need)
        table = Table(node, self.findings, "`approvals`", ("all", "any"))
        given = [(key, found) for key in ("all", "any") if (found := table.get(key)) is not None]
        if len(given) != 1:
            self.findings.add(node, "write one of `2 of GROUP`, `all:` with a list, `any:` with a list")
            return None
        key, found = given[0]
        needs = tuple(need for each in self.items(found, key) if (need := self.approvals(each)) is not None)
        return AllOf(needs=needs) if key == "all" else AnyOf(needs=needs)
