"""A policy that could not mean what its author thought is part of no bundle, however it was made."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from policies import checks
from policies.bundle import BundleSignature, SignedBundle, read_bundle
from policies.bundle.checks import check_consistent, names_of
from policies.checks import check_policy, problems_of
from policies.rules import (
    AddressGroup,
    AllOf,
    AnyOf,
    Approvals,
    Case,
    Filled,
    Group,
    Holding,
    Hours,
    Limit,
    Need,
    Operation,
    Policy,
    Rule,
    When,
)
from tests.fakes.house import bundle
from tests.fakes.signing import NOW, SoftKeys, World

HOUSE = bundle()
NAMES = names_of(HOUSE)
HOT = Rule(id="hot", route="hot")
OPERATORS = Group(id="operators", roles=("operator",))


def problems(**sections: Any) -> list[str]:
    return [str(problem) for problem in problems_of(Policy(**sections), NAMES)]


def of_rule(**fields: Any) -> list[str]:
    return problems(rules=(Rule(**{"id": "it", **fields}),), groups=(OPERATORS,))


def test_a_policy_of_nothing_is_consistent_and_allows_nothing() -> None:
    assert problems() == []


def test_a_bundle_with_an_inconsistent_policy_is_not_believed_even_signed() -> None:
    with pytest.raises(InvalidValue, match=r"policy: rule it: the rule does nothing"):
        check_consistent(msgspec.structs.replace(HOUSE, policy=Policy(rules=(Rule(id="it"),))))
    world = World(SoftKeys.make().record)
    good = world.bundle()
    broken = msgspec.structs.replace(good, policy=Policy(rules=(Rule(id="it"),)))
    assert read_bundle(world.signed(good).encode(), world.root, now=NOW) == good
    signatures = tuple(
        BundleSignature(key=name, signature=key.sign(broken)) for name, key in world.officers.items()
    )
    with pytest.raises(InvalidValue, match="the rule does nothing"):
        read_bundle(SignedBundle(bundle=broken, signatures=signatures).encode(), world.root, now=NOW)


@pytest.mark.parametrize(
    "sections",
    [
        {"rules": (HOT, HOT)},
        {"groups": (OPERATORS, OPERATORS)},
        {"addresses": (AddressGroup(id="a", addresses=("bitcoin:x",)),) * 2},
        {"holdings": (Holding(tiers=("hot",), asset="BTC", at_most="1"),) * 2},
        {"cases": (Case(id="a", given="{}", expect="deny"),) * 2},
    ],
)
def test_every_entry_has_a_name_of_its_own(sections: dict[str, Any]) -> None:
    assert any("is there twice" in problem for problem in problems(**sections))


@pytest.mark.parametrize(
    "other",
    [
        {"route": "hot"},
        {"approvals": Need(group="operators", count=1)},
        {"delay_seconds": 1},
        {"checks": ("screening",)},
        {"verdict": "required"},
        {"limit": Limit(window_seconds=1, per="all", measure="payments", at_most="1")},
    ],
)
def test_a_denial_stands_alone_and_everything_else_is_enough_for_a_rule(other: dict[str, Any]) -> None:
    assert of_rule(**other) == []
    [problem] = of_rule(deny="No.", **other)
    assert "a rule that denies does nothing else" in problem


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ({"amount_below": "5"}, "an amount is of one asset"),
        ({"amount_from": "5", "assets": ("BTC", "ETH")}, "an amount is of one asset"),
        ({"amount_from": "5", "amount_below": "5", "assets": ("BTC",)}, "nothing lies between"),
        ({"amount_below": "0", "assets": ("BTC",)}, "nothing lies between"),
        ({"value_from": "10", "value_below": "9"}, "nothing lies between"),
        ({"destination_younger_than": 0}, "nothing is below 0"),
        ({"kyc_below": 0}, "nothing is below 0"),
        ({"hours": Hours(days=())}, "without a day"),
        ({"hours": Hours(from_minute=60, to_minute=60)}, "at the same time"),
        ({"assets": ("DOGE",)}, "no asset DOGE"),
        ({"chains": ("dogecoin",)}, "no chain dogecoin"),
        ({"chains": ("ethereum",), "assets": ("BTC",)}, "on no such chain"),
        ({"sources": ("btc-luke",)}, "no key-set or vault btc-luke"),
        ({"initiators": ("mallory",)}, "no caller, operator, approver or officer mallory"),
        ({"destinations": ("group:friends",)}, "no address group friends"),
        ({"destinations": ("address:dogecoin:D1",)}, "no chain dogecoin"),
        ({"destinations": ("address:ethereum:0xab",)}, "no address with its checksum"),
        ({"destinations": ("address:bitcoin:BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",)}, "write it in lower case"),
        ({"actions": ("lift",)}, "only administration has actions"),
        ({"actions": ("lift-off",), "operations": (Operation.ADMINISTRATION,)}, "nothing named lift-off"),
        ({"customers": tuple(f"c{n}" for n in range(201))}, "201 names, at most 200"),
    ],
)  # fmt: skip
def test_a_scope_that_nothing_fits_or_that_names_nobody_is_refused(when: dict[str, Any], told: str) -> None:
    for block in ("when", "unless"):
        found = of_rule(route="hot", **{block: When(**when)})
        assert [told in problem for problem in found] == [True]
        assert found[0].startswith(f"rule it, {block}.")


def test_an_exception_may_speak_of_the_rules_own_asset() -> None:
    exception = When(amount_below="5")
    assert of_rule(when=When(assets=("BTC",)), unless=exception, delay_seconds=1) == []
    assert len(of_rule(when=When(assets=("BTC", "ETH")), unless=exception, delay_seconds=1)) == 1


def test_a_limit_in_units_is_of_one_asset() -> None:
    limit = Limit(window_seconds=60, per="all", measure="units", at_most="5")
    assert of_rule(when=When(assets=("BTC",)), limit=limit) == []
    for assets in ((), ("BTC", "ETH")):
        [problem] = of_rule(when=When(assets=assets), limit=limit)
        assert "limits one asset" in problem
    assert of_rule(limit=msgspec.structs.replace(limit, measure="value")) == []


def test_what_routes_does_not_depend_on_the_route() -> None:
    assert of_rule(when=When(tiers=("hot",)), delay_seconds=1) == []
    [problem] = of_rule(when=When(tiers=("hot",)), route="hot")
    assert "can't depend on where it is routed" in problem


def nested(depth: int) -> Approvals:
    found: Approvals = Need(group="operators", count=1)
    for _ in range(depth):
        found = AnyOf(needs=(found,))
    return found


@pytest.mark.parametrize(
    ("approvals", "told"),
    [
        (Need(group="nobody", count=1), "no group nobody"),
        (AllOf(needs=()), "`all` is empty"),
        (AnyOf(needs=(Need(group="operators", count=1), AllOf(needs=()))), "`all` is empty"),
        (nested(5), "nested more than 4 deep"),
        (nested(500), "nested more than 4 deep"),
        (AllOf(needs=(Need(group="operators", count=1),) * 33), "more than 32 groups"),
    ],
)
def test_approvals_name_groups_and_have_an_end(approvals: Approvals, told: str) -> None:
    found = of_rule(approvals=approvals)
    assert [told in problem for problem in found] == [True]
    assert of_rule(approvals=nested(4)) == []


def test_groups_consist_of_approvers_of_the_bundle() -> None:
    assert problems(groups=(Group(id="g", people=("anna",), roles=("key-holder",)),)) == []
    assert problems(groups=(Group(id="g"),)) == ["group g: nobody is in it: write `roles` or `people`"]
    assert "no approver olga" in problems(groups=(Group(id="g", people=("olga",)),))[0]
    assert "role officer" in problems(groups=(Group(id="g", roles=("officer",)),))[0]


def test_sizes_are_bounded() -> None:
    many = tuple(Rule(id=f"r{n}", route="hot") for n in range(checks.MAX_RULES + 1))
    assert problems(rules=many[:-1]) == []
    assert problems(rules=many) == ["rules: there are 1001, at most 1000 are allowed"]
    addresses = tuple(f"bitcoin:{n}" for n in range(checks.MAX_ADDRESSES + 1))
    assert len(problems(addresses=(AddressGroup(id="a", addresses=addresses),))) == 1


@pytest.mark.parametrize(
    "given",
    [
        "",
        "[]",
        "no json",
        json.dumps({"colour": "blue"}),
        json.dumps({"units": "-1"}),
        json.dumps({"now": "noon"}),
    ],
)
def test_a_case_whose_facts_cannot_be_read_is_refused(given: str) -> None:
    assert len(problems(cases=(Case(id="a", given=given, expect="deny"),))) == 1
    assert problems(cases=(Case(id="a", given='{"units": null}', expect="deny"),)) == []


@pytest.mark.parametrize("hidden", ["\x1b[2K", "\n", "\r", "\u202e", "\u200b", "\x00", "\ufeff"])
def test_what_officers_read_before_they_sign_hides_nothing(hidden: str) -> None:
    text = f"Small{hidden}payments"
    for found in (
        of_rule(route="hot", about=text),
        of_rule(deny=text),
        problems(cases=(Case(id="a", given="{}", expect="deny", because=(text,)),)),
        problems(cases=(Case(id="a", given=json.dumps({"id": text}, ensure_ascii=False), expect="deny"),)),
    ):
        assert any("characters that don't show" in problem for problem in found)
    assert of_rule(route="hot", about="Größere Beträge: 小额 ✓") == []


def test_a_case_fills_windows_that_there_are() -> None:
    case = Case(id="a", given="{}", expect="deny", spent=(Filled(rule="hot", amount="1"),))
    assert problems(rules=(HOT,), cases=(case,)) == ["case a, spent: no rule hot has a limit; there are none"]


def test_only_the_first_problems_are_told_where_there_are_many() -> None:
    many = tuple(Rule(id=f"r{n}") for n in range(20))
    with pytest.raises(InvalidValue, match=r"; and 15 more$"):
        check_policy(Policy(rules=many), NAMES)


def test_operations_of_all_kinds_are_known() -> None:
    for operation in Operation:
        assert of_rule(when=When(operations=(operation,)), route="hot") == []
