"""Operators of the bundle: least privilege by role, and ids and keys that are nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.administration import ACTIONS, OPERATORS_ONLY, Act, Effect, scopes_of
from policies.bundle import Operator, check_consistent
from tests.fakes.house import bundle

KEY = "ab" * 32
ASKING = {"withdrawals:write", "withdrawals:sign", "customers:write", "addresses:write", "whitelist:write"}


def operator(roles: Sequence[str] = ("support",), **changes: Any) -> Operator:
    fields = {"id": "otto", "key": KEY, "organisation": "house", "roles": list(roles), "not_after": 2**40}
    return msgspec.convert(fields | changes, Operator)


def may(role: str) -> set[str]:
    return {name for name, action in ACTIONS.items() if action.open_to(operator([role]))}


def test_each_role_may_what_it_needs_and_no_more() -> None:
    assert may("auditor") == set()
    assert may("support") == {"freeze-customer", "close-alert", "approve"}
    cold = {
        f"cold-{verb}" for verb in ("export", "import", "unsigned", "abandon", "rebuild", "cancel", "prove")
    }
    paying = {"halt", "lift", "sweep", "bump", "adjust", "close-alert", "accept-entry", "approve"}
    paying |= {"propose-refill", "decline-refill", "propose-treasury", "accept-treasury", "cancel-treasury"}
    assert may("treasury") == paying | cold
    assert may("compliance") == {
        "freeze-customer",
        "unfreeze-customer",
        "close-alert",
        "release-case",
        "refuse-case",
        "read-travel-rule",
        "approve",
    }
    stopping = {name for name, action in ACTIONS.items() if action.effect is Effect.STOPS}
    assert stopping <= may("security")


def test_nobody_who_stops_things_for_support_or_security_can_start_them_again() -> None:
    for role in ("support", "security"):
        assert not may(role) & {"lift", "unfreeze-customer", "release-case"}


@pytest.mark.parametrize("role", ["support", "treasury", "compliance", "security", "auditor"])
def test_no_role_asks_for_payments_through_the_api(role: str) -> None:
    assert not set(scopes_of(operator([role]))) & ASKING


def test_what_operators_did_is_read_by_those_who_watch_them() -> None:
    readers = {
        role
        for role in ("support", "treasury", "compliance", "security", "auditor")
        if "actions:read" in scopes_of(operator([role]))
    }
    assert readers == {"security", "auditor"}
    assert "actions:read" in OPERATORS_ONLY


@pytest.mark.parametrize("roles", [[], ["root"]])
def test_an_operator_has_roles_that_exist(roles: list[str]) -> None:
    with pytest.raises(msgspec.ValidationError):
        operator(roles)


def test_an_operator_is_no_caller_by_id_or_key() -> None:
    house = bundle()
    caller = house.callers[0]
    check_consistent(msgspec.structs.replace(house, operators=(operator(),)))
    for changes in ({"id": caller.id}, {"key": caller.key}):
        with pytest.raises(InvalidValue, match="caller or operator"):
            check_consistent(msgspec.structs.replace(house, operators=(operator(**changes),)))


def test_an_operator_who_approves_is_one_person_of_one_organisation() -> None:
    house = bundle()
    approver = house.approvers[0]
    same = operator(id=approver.id, organisation=approver.organisation)
    check_consistent(msgspec.structs.replace(house, operators=(same,)))
    with pytest.raises(InvalidValue, match="one person has one organisation"):
        check_consistent(
            msgspec.structs.replace(house, operators=(operator(id=approver.id, organisation="elsewhere"),))
        )


def test_another_parameter_is_another_act() -> None:
    act = Act(
        v=1,
        operator="otto",
        action="lift",
        parameters={"scope": "all"},
        seen="0" * 64,
        issued_at=1,
        nonce="ab" * 16,
    )
    assert Act.from_canonical(act.canonical()) == act
    assert msgspec.structs.replace(act, parameters={"scope": "btc"}).digest() != act.digest()
