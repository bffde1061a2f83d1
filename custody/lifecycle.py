"""Lifecycles: one enum of states, one of events, one table; every pair that is not in the table raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from chains.errors import PermanentError

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class ImpossibleTransition(PermanentError):
    """An event that cannot happen in this state: the caller's picture of the state is stale, or there is a bug."""

    def __init__(self, lifecycle: str, state: str, event: str) -> None:
        super().__init__(f"{lifecycle}: '{event}' cannot happen in state '{state}'")
        self.lifecycle, self.state, self.event = lifecycle, state, event


@dataclass(frozen=True, slots=True)
class Lifecycle(Generic[S, E]):
    """A table from (state, event) to the next state."""

    name: str
    table: Mapping[tuple[S, E], S]

    def next(self, state: S, event: E) -> S:
        """The state after `event`. Raises ImpossibleTransition if the table has no such pair."""
        try:
            return self.table[state, event]
        except KeyError:
            raise ImpossibleTransition(self.name, state, event) from None

    def sources(self, event: E) -> frozenset[S]:
        """States in which `event` can happen: what `UPDATE ... WHERE state IN (...)` guards with."""
        return frozenset(state for state, happened in self.table if happened is event)

    def edges(self) -> frozenset[tuple[str, str]]:
        """All (from, to) pairs of different states, as the database holds them in `lifecycle_edges`."""
        return frozenset((a.value, b.value) for (a, _), b in self.table.items() if a is not b)
