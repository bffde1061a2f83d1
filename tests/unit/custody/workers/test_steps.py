"""A step at several chains: trouble with one is told, and stops no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from chains.errors import NodeRefused, NodeUnavailable, StrongroomError
from custody.workers.steps import _at_each_site


@dataclass
class Place:
    """A site of which only the chain is looked at."""

    chain: str


def at_each(troubles: dict[str, StrongroomError], done: int = 1) -> tuple[list[str], Any]:
    visited: list[str] = []
    sites: Any = (Place("first"), Place("second"), Place("third"))

    def do(site: Any) -> int:
        visited.append(site.chain)
        if site.chain in troubles:
            raise troubles[site.chain]
        return done

    try:
        return visited, _at_each_site(sites, do)
    except StrongroomError as error:
        return visited, error


@pytest.mark.parametrize("trouble", [NodeUnavailable("away"), NodeRefused(1, "no")])
def test_every_chain_has_its_turn_whatever_happens_at_another(trouble: StrongroomError) -> None:
    visited, _ = at_each({"first": trouble})
    assert visited == ["first", "second", "third"]


def test_what_was_done_counts_though_a_chain_is_away_and_its_trouble_is_told_if_nothing_was() -> None:
    away = NodeUnavailable("away")
    assert at_each({})[1] == 3
    assert at_each({"second": away})[1] == 2
    assert at_each({"second": away}, done=0)[1] is away


def test_trouble_that_no_repetition_helps_is_told_in_any_case() -> None:
    refused = NodeRefused(1, "no")
    assert at_each({"first": NodeUnavailable("away"), "third": refused})[1] is refused
