"""Every error that a request can meet has its own form on the wire."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Iterator

import pytest

import chains
import custody
import policies
from chains.errors import PermanentError, StrongroomError, TransientError
from custody.api.problems import RULES, describe, rule_for
from custody.errors import Conflict, DatabaseUnavailable, InsufficientFunds
from custody.web.problems import ROOTS, TYPE_PREFIX, Rule
from signers import ports

NEVER_IN_A_REQUEST = {
    # Of the workers, the monitor and their nodes; the API has no node.
    "chains.btc.coins": "coin selection",
    "chains.btc.psbt": "building and finalising transactions",
    "custody.signing": "building, signing, bumping and tracking transactions",
    "custody.screening.ports": "screening",
    "custody.travelrule.ports": "the exchange of travel-rule data",
    "custody.monitor": "following blocks",
    "custody.reconcile": "reconciliation",
    "custody.workers": "the workers' own",
    "custody.pricing": "prices",
    "custody.sweeps.permission": "sweeping",
    "custody.treasury": "proposing refills and carrying them out",
    "policies.organisations": "proofs about a policy",
    # Of those who call.
    "custody.console": "the client",
    "custody.trading": "the trading core, which has its own table of rules",
    "custody.web.client": "the client",
    "policies.keys": "private keys of callers and officers",
}
"""Modules whose errors stay in other processes, and what they are about."""


def _import_everything() -> None:
    for package in (chains, policies, custody):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "migrations" not in found.name and not found.name.endswith("__main__"):
                importlib.import_module(found.name)


def _subclasses(error: type[StrongroomError]) -> Iterator[type[StrongroomError]]:
    for child in error.__subclasses__():
        yield child
        yield from _subclasses(child)


def _elsewhere(module: str) -> bool:
    return any(module == name or module.startswith(name + ".") for name in NEVER_IN_A_REQUEST)


def test_every_error_type_has_a_rule_nearer_than_a_root() -> None:
    _import_everything()
    ours = ("chains.", "policies.", "custody.", ports.__name__)
    missing = sorted(
        f"{error.__module__}.{error.__qualname__}"
        for error in set(_subclasses(StrongroomError))
        if error.__module__.startswith(ours)
        and error not in ROOTS
        and not _elsewhere(error.__module__)
        and rule_for(error)[0] in ROOTS
    )
    assert missing == [], "give these a rule in custody/api/problems.py"


def test_an_error_type_nobody_mapped_would_be_found() -> None:
    class Fresh(PermanentError):
        pass

    assert rule_for(Fresh)[0] in ROOTS
    assert describe(Fresh("with a private detail")).status == 500
    assert "private" not in describe(Fresh("with a private detail")).body()


def test_slugs_are_unique_but_for_one_meaning_and_statuses_are_errors() -> None:
    by_slug: dict[str, set[Rule]] = {}
    for rule in RULES.values():
        by_slug.setdefault(rule.slug, set()).add(rule)
        assert 400 <= rule.status < 600
        assert rule.slug == rule.slug.lower()
    assert all(len(rules) == 1 for rules in by_slug.values())


@pytest.mark.parametrize("error", [DatabaseUnavailable("at 10.0.0.1"), Conflict("x"), TransientError("x")])
def test_what_can_pass_is_a_503_that_says_so_and_is_never_remembered(error: Exception) -> None:
    problem = describe(error)
    assert (problem.status, problem.retryable, problem.decided) == (503, True, False)
    assert "10.0.0.1" not in problem.body()
    assert problem.response().headers["retry-after"] == "1"


def test_a_problem_without_a_bundle_shows_base_units_as_strings() -> None:
    body = json.loads(describe(InsufficientFunds("BTC", 1, 2**70)).body())
    assert body["type"] == TYPE_PREFIX + "insufficient-funds"
    assert body["needed"] == {"asset": "BTC", "units": str(2**70)}


def test_errors_that_are_none_of_ours_say_nothing() -> None:
    problem = describe(RuntimeError("private"))
    assert (problem.status, problem.slug, problem.retryable) == (500, "internal", False)
    assert "private" not in problem.body()
