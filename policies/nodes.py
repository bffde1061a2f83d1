"""YAML as text with positions: every scalar is a string, every mistake has a line and a column.

Nothing is guessed from how a word looks (`no`, `010` and `2026-01-01` are the words that were written), nothing stands
for something else (anchors, aliases, tags), and no key is given twice. Only for people's files; what is signed is JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from chains.errors import InvalidValue
from policies.notation import listed, nearest

MAX_TEXT: Final = 1024 * 1024
"""Characters of a file."""
_MAX_NESTING: Final = 20
_HINTS: Final = {
    "mapping values are not allowed here": '; put a text that has a `:` and a blank in it between quotes "..."',
    "found character '\\t' that cannot start any token": "; write blanks, no tabs",
}
"""What to do about mistakes that YAML tells in words of its own."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """What is wrong in a file, where, and what to write."""

    line: int
    """From 1."""
    column: int
    """From 1."""
    says: str


class Unreadable(InvalidValue):
    """A file with mistakes: one line for each, `FILE:LINE:COLUMN: what to do`."""

    def __init__(self, file: str, mistakes: Iterable[Mistake]) -> None:
        self.file = file
        self.mistakes = tuple(sorted(set(mistakes)))
        super().__init__("\n".join(f"{file}:{m.line}:{m.column}: {m.says}" for m in self.mistakes))


class Findings:
    """Collects mistakes, so that people see all of a file at once."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[Mistake] = []

    def add(self, node: yaml.Node, says: str) -> None:
        """One more, at a node's beginning."""
        self._found.append(Mistake(node.start_mark.line + 1, node.start_mark.column + 1, says))

    def add_at(self, mark: Any, says: str) -> None:
        """One more, at a mark of PyYAML's; without one at the beginning of the file."""
        self._found.append(
            Mistake(1, 1, says) if mark is None else Mistake(mark.line + 1, mark.column + 1, says)
        )

    def raise_any(self) -> None:
        """Raises Unreadable if there are any."""
        if self._found:
            raise Unreadable(self._file, self._found)


def compose(text: str, findings: Findings) -> yaml.MappingNode:
    """The one mapping that a file is.

    Raises:
        Unreadable: not YAML, not one mapping, too large, or it uses anchors, aliases, tags or keys twice.
    """
    if len(text) > MAX_TEXT:
        findings.add_at(None, f"the file has {len(text)} characters, at most {MAX_TEXT} are read")
        findings.raise_any()
    try:
        _check_events(text, findings)
        findings.raise_any()
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        said = f"{error.context}: {error.problem}" if error.context else str(error.problem)
        hint = _HINTS.get(str(error.problem), "")
        findings.add_at(error.problem_mark or error.context_mark, f"this is no YAML: {said}{hint}")
        findings.raise_any()
        raise AssertionError("unreachable") from None
    except yaml.YAMLError as error:
        findings.add_at(None, f"this is no YAML: {error}".replace("\n", " "))
        findings.raise_any()
        raise AssertionError("unreachable") from None
    if not isinstance(node, yaml.MappingNode):
        findings.add_at(
            None if node is None else node.start_mark, "write a mapping, such as `rules:` and a list"
        )
        findings.raise_any()
        raise AssertionError("unreachable")
    return node


def _check_events(text: str, findings: Findings) -> None:
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                findings.add_at(event.start_mark, "only one document is read: remove `---` and what follows")
        if isinstance(event, yaml.AliasEvent):
            findings.add_at(event.start_mark, "write out what `*` stands for: aliases are not read")
        elif isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            findings.add_at(
                event.start_mark, "remove the anchor `&`: what is meant is written where it counts"
            )
        tag = getattr(event, "tag", None)
        # A plain `!` only says that the text is a text.
        if tag is not None and tag != "!":
            findings.add_at(event.start_mark, f"remove the tag {tag}: everything is read as text")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_NESTING:
                findings.add_at(event.start_mark, f"this is nested more than {_MAX_NESTING} deep")
                return
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class Table:
    """A mapping whose keys are known words; each is asked for once, and what is left over is a mistake."""

    def __init__(self, node: yaml.Node, findings: Findings, what: str, known: Iterable[str]) -> None:
        self.node = node
        self._findings = findings
        self._known = tuple(known)
        self._values: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            findings.add(node, f"{what} is a mapping: write its keys, of {listed(self._known)}")
            return
        for key, value in entries(node, findings):
            if key.value not in self._known:
                hint = nearest(key.value, self._known)
                findings.add(
                    key,
                    f"{what} has no `{key.value}`{hint}" + ("" if hint else f"; write {listed(self._known)}"),
                )
            else:
                self._values[key.value] = value

    def get(self, key: str) -> yaml.Node | None:
        """The value of a key that was given."""
        assert key in self._known, key
        return self._values.get(key)

    def given(self) -> list[tuple[str, yaml.Node]]:
        """All keys that were given, with their values."""
        return list(self._values.items())

    def need(self, key: str, example: str) -> yaml.Node | None:
        """The value of a key that must be given; a mistake if it is not."""
        found = self.get(key)
        if found is None and isinstance(self.node, yaml.MappingNode):
            self._findings.add(self.node, f"`{key}` is missing: write {example}")
        return found


def entries(node: yaml.MappingNode, findings: Findings) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
    """Keys and values of a mapping; a key that is no word, or stands there twice, is a mistake."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            findings.add(key, "a key is one word")
        elif key.value in seen:
            findings.add(key, f"`{key.value}` is given twice: first on line {seen[key.value]}")
        else:
            seen[key.value] = key.start_mark.line + 1
            yield key, value


def items(node: yaml.Node, findings: Findings, what: str) -> list[yaml.Node]:
    """The items of a list."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    findings.add(node, f"{what} is a list: write each item behind a `-`")
    return []


def one_or_more(node: yaml.Node) -> list[yaml.Node]:
    """The items of a list, or the one thing that stands there."""
    return list(node.value) if isinstance(node, yaml.SequenceNode) else [node]


def text_of(node: yaml.Node, findings: Findings, what: str) -> str | None:
    """A word or sentence; None, and a mistake, if there is none."""
    if not isinstance(node, yaml.ScalarNode):
        findings.add(node, f"{what} is one word or sentence, no list or mapping")
        return None
    if not node.value:
        findings.add(node, f"{what} is empty: write it, or remove the key")
        return None
    return str(node.value)
