"""Lint: each finding is shown by a policy that has it and by the one next to it that has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Bundle
from policies.lint import Finding, lint, online_only
from policies.reading import read_policy
from tests.fakes.house import DAY, NOW, bundle

FILE = Path(__file__).resolve().parents[3] / "policies" / "default.yaml"
HOUSE = bundle()
GROUPS = """
groups:
  operators: {roles: [operator]}
  key-holders: {roles: [key-holder]}
"""
SOUND = """
  - {id: hot, when: {operation: withdrawal, destination: external, amount_below: 0.1 BTC}, route: hot}
  - {id: hot-customer, when: {operation: withdrawal, tier: hot}, limit: {at_most: 1 BTC, within: 24h, per: customer}}
  - {id: warm, when: {operation: withdrawal, destination: external, amount_from: 0.1 BTC}, route: warm,
     approvals: 2 of operators}
"""


def policy_of(rules: str, house: Bundle = HOUSE) -> Bundle:
    policy = read_policy(f"{GROUPS}rules:\n{rules}", house, file="policy.yaml")
    return msgspec.structs.replace(house, policy=policy)


def findings(rules: str, house: Bundle = HOUSE) -> list[Finding]:
    return lint(policy_of(rules, house))


def codes(rules: str, house: Bundle = HOUSE, *, about: str | None = None) -> set[str]:
    return {each.code for each in findings(rules, house) if about in (None, each.rule)}


def test_the_shipped_policy_has_neither_errors_nor_warnings() -> None:
    policy = read_policy(FILE.read_text(), HOUSE, file=FILE.name)
    found = lint(bundle(policy))
    assert [str(each) for each in found if each.severity != "note"] == []
    assert {each.rule for each in found if each.code == "online-only"} == {
        "lookalike", "screening", "travel-rule.BTC", "travel-rule.ETH", "travel-rule.USDC", "travel-rule.USDT",
        "house-stays-inside", "house-hot", "house-warm", "house-cold", "administration", "second-person",
    }  # fmt: skip


def test_errors_come_first() -> None:
    severities = [each.severity for each in findings("  - {id: cold, route: cold}\n")]
    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert severities[0] == "error"


def test_a_sound_policy_says_what_it_leaves_out() -> None:
    assert codes(SOUND) == {"unreachable-tier", "no-cases", "unused"}


@pytest.mark.parametrize(
    ("code", "rule", "bad", "good"),
    [
        ("nothing-allowed", "", "  - {id: a, delay: 1h}", SOUND),
        ("unreachable-tier", "", SOUND,
         SOUND + "  - {id: cold, when: {operation: withdrawal, amount_from: 10 BTC}, route:"
         " cold, approvals: 3 of key-holders}"),
        ("routes-everything", "a", "  - {id: a, route: hot}", "  - {id: a, when: {operation: sweep}, route: hot}"),
        ("nobody-asked", "a", "  - {id: a, when: {operation: withdrawal}, route: warm}",
         "  - {id: a, when: {operation: withdrawal}, route: warm}\n  - {id: b, approvals: 1 of operators}"),
        ("nobody-asked", "a",
         ("  - {id: a, when: {operation: withdrawal}, route: warm}\n"
         "  - {id: b, when: {asset: BTC}, approvals: 1 of operators}"),
         ("  - {id: a, when: {operation: withdrawal, asset: BTC}, route: warm}\n"
         "  - {id: b, when: {asset: BTC}, approvals: 1 of operators}")),
        ("never-fits", "a", "  - {id: a, when: {operation: withdrawal, destination: external}, route: ledger}",
         "  - {id: a, when: {operation: withdrawal, destination: internal}, route: ledger}"),
        ("never-fits", "a", "  - {id: a, when: {operation: withdrawal, destination: internal}, route: hot}",
         "  - {id: a, when: {operation: withdrawal, destination: whitelisted}, route: hot}"),
        ("never-fits", "a", "  - {id: a, when: {operation: withdrawal, destination: house}, route: hot}",
         "  - {id: a, when: {operation: sweep, destination: house}, route: hot}"),
        ("never-fits", "a", "  - {id: a, when: {customer: alice}, unless: {customer: [alice, bob]}, delay: 1h}",
         "  - {id: a, when: {customer: [alice, bob]}, unless: {customer: alice}, delay: 1h}"),
        ("never-fits", "a", SOUND + "  - {id: a, when: {operation: withdrawal, tier: cold}, delay: 1h}",
         SOUND + "  - {id: a, when: {operation: withdrawal, tier: warm}, delay: 1h}"),
        ("never-fits", "a", SOUND + "  - {id: a, when: {operation: withdrawal, tier: hot, asset: ETH}, delay: 1h}",
         SOUND + "  - {id: a, when: {operation: withdrawal, tier: hot, asset: BTC}, delay: 1h}"),
        ("never-matters", "a", SOUND + "  - {id: a, when: {operation: withdrawal, asset: ETH}, delay: 1h}",
         SOUND + "  - {id: a, when: {operation: withdrawal, asset: BTC}, delay: 1h}"),
        ("delay-too-long", "a", SOUND + "  - {id: a, when: {operation: withdrawal}, delay: 3d}",
         SOUND + "  - {id: a, when: {operation: withdrawal}, delay: 71h}"),
        ("shadowed", "hot", SOUND + "  - {id: a, when: {operation: withdrawal}, deny: No.}",
         SOUND + "  - {id: a, when: {operation: withdrawal}, unless: {customer: alice}, deny: No.}"),
        ("shadowed", "hot",
         SOUND + "  - {id: a, when: {amount_below: 1 BTC}, route: cold, approvals: 3 of key-holders}",
         SOUND + "  - {id: a, when: {amount_from: 0.05 BTC}, route: cold, approvals: 3 of key-holders}"),
        ("shadowed", "hot-customer",
         SOUND + "  - {id: a, when: {asset: BTC}, limit: {at_most: 0.5 BTC, within: 24h, per: customer}}",
         SOUND + "  - {id: a, when: {asset: BTC}, limit: {at_most: 0.5 BTC, within: 1h, per: customer}}"),
        ("denies-unknown", "a", SOUND + "  - {id: a, when: {new_device: yes}, deny: No.}",
         SOUND + "  - {id: a, when: {operation: withdrawal, new_device: yes}, deny: No.}"),
        ("denies-unknown", "a", SOUND + "  - {id: a, checks: screening}",
         SOUND + "  - {id: a, when: {operation: withdrawal}, checks: screening}"),
        ("uncertain-value", "a", SOUND + "  - {id: a, when: {value_from: 100 USD}, delay: 1h}",
         SOUND + "  - {id: a, limit: {at_most: 100 USD, within: 24h, per: customer}}"),
        ("unbounded", "hot", "  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot}", SOUND),
        ("unbounded", "hot", "  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot}",
         "  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot, approvals: 1 of operators}"),
        ("splitting", "hot",
         ("  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot}\n"
         "  - {id: all, when: {tier: hot}, limit: {at_most: 5 BTC, within: 24h, per: all}}"),
         ("  - {id: hot, when: {operation: withdrawal, amount_below: 0.1 BTC}, route: hot}\n"
         "  - {id: all, when: {tier: hot}, limit: {at_most: 5 BTC, within: 24h, per: destination}}")),
        ("above-cap", "hot", "  - {id: hot, when: {operation: withdrawal, amount_below: 0.2 BTC}, route: hot}", SOUND),
        ("above-cap", "hot", "  - {id: hot, when: {operation: withdrawal, amount_from: 0.1 BTC}, route: hot}", SOUND),
        ("above-cap", "a", SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 6 BTC, within: 24h, per: all}}",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 6 BTC, within: 48h, per: all}}"),
        ("above-breaker", "a",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 3_000_001 USD, within: 24h, per: all}}",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 3_000_000 USD, within: 24h, per: all}}"),
        ("above-breaker", "a",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 16 BTC, within: 24h, per: all}}",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 15 BTC, within: 24h, per: all}}"),
        ("never-within", "hot",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {per: all, at_most: 0.09999998 BTC, within: 1h}}",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {per: all, at_most: 0.09999999 BTC, within: 1h}}"),
        ("limit-zero", "a", SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 0 BTC, within: 1h, per: all}}",
         SOUND + "  - {id: a, when: {tier: hot}, limit: {at_most: 1 BTC, within: 1h, per: all}}"),
        ("group-too-small", "a", SOUND + "  - {id: a, approvals: 4 of operators}",
         SOUND + "  - {id: a, approvals: 3 of operators}"),
        ("group-too-small", "a", SOUND + "  - {id: a, approvals: 2 of operators from different organisations}",
         SOUND + "  - {id: a, approvals: 5 of key-holders from different organisations}"),
        ("group-too-small", "a", SOUND + "  - {id: a, approvals: {all: [2 of operators, 4 of operators]}}",
         SOUND + "  - {id: a, approvals: {any: [2 of operators, 4 of operators]}}"),
        ("no-spare", "a", SOUND + "  - {id: a, approvals: 3 of operators}",
         SOUND + "  - {id: a, approvals: 2 of operators}"),
        ("online-only", "a", SOUND + "  - {id: a, when: {operation: withdrawal, destination: one-time}, delay: 1h}",
         SOUND + "  - {id: a, when: {operation: withdrawal, destination: external}, delay: 1h}"),
        ("online-only", "a", SOUND + "  - {id: a, when: {operation: withdrawal, screening: hit}, deny: No.}",
         SOUND + "  - {id: a, when: {operation: withdrawal, new_device: yes}, deny: No.}"),
        ("online-only", "a", SOUND + "  - {id: a, when: {operation: [refill, sweep]}, approvals: 2 of operators}",
         SOUND + "  - {id: a, when: {operation: refill, destination: house}, route: warm, approvals: 2 of operators}"),
        ("online-only", "a", SOUND + "  - {id: a, when: {operation: refill, destination: contract}, deny: No.}",
         SOUND + "  - {id: a, when: {operation: withdrawal}, delay: 1h}"),
        ("refill-delay", "a", SOUND + "  - {id: a, when: {operation: [withdrawal, refill]}, delay: 1h}",
         SOUND + "  - {id: a, when: {operation: withdrawal}, delay: 1h}"),
        ("no-cases", "", SOUND, SOUND + "cases: [{id: c, expect: deny}]"),
        ("unused", "key-holders", SOUND, SOUND + "  - {id: a, approvals: 1 of key-holders}"),
        ("unused", "friends", SOUND + "addresses: {friends: [bitcoin:bc1q]}",
         SOUND + "  - {id: a, when: {destination: group:friends}, delay: 1h}\naddresses: {friends: [bitcoin:bc1q]}"),
    ],
)  # fmt: skip
def test_each_finding_is_there_where_it_belongs_and_nowhere_else(
    code: str, rule: str, bad: str, good: str
) -> None:
    assert code in codes(bad, about=rule)
    assert code not in codes(good, about=rule)


def changed(**fields: Any) -> Bundle:
    return msgspec.structs.replace(HOUSE, **fields)


def test_a_tier_without_a_wallet_on_a_chain_is_told() -> None:
    without = changed(vaults=tuple(vault for vault in HOUSE.vaults if vault.id != "btc-warm"))
    assert "no-wallet" in codes(SOUND, without, about="warm")
    assert "no-wallet" not in codes(SOUND, about="warm")


def test_an_asset_without_a_price_has_no_value() -> None:
    rules = SOUND + "  - {id: a, limit: {at_most: 100 USD, within: 24h, per: customer}}"
    without = changed(prices=HOUSE.prices[1:])
    assert "no-price" in codes(rules, without, about="a")
    assert "no-price" not in codes(rules, about="a")


def test_a_floor_of_a_cap_is_told_where_a_band_begins_below_it() -> None:
    floor = msgspec.structs.replace(HOUSE.caps[0], payment_from="1000")
    assert "below-cap" in codes(SOUND, changed(caps=(floor, *HOUSE.caps[1:])), about="hot")
    assert "below-cap" not in codes(SOUND, about="hot")


def test_a_group_that_shrinks_before_the_bundle_ends_is_told_with_the_day() -> None:
    leaving = tuple(
        msgspec.structs.replace(each, not_after=NOW + 30 * DAY) if each.id in ("anna", "bert") else each
        for each in HOUSE.approvers
    )
    [found] = [each for each in findings(SOUND, changed(approvers=leaving)) if each.code == "group-ends"]
    assert (found.rule, found.severity) == ("warm", "warning")
    assert "from 2027-02-14 08:00 UTC on, when anna and bert ends" in found.says
    assert "group-ends" not in codes(SOUND)


def test_a_group_whose_member_also_asks_is_too_small_for_what_that_one_asks() -> None:
    caller = msgspec.structs.replace(HOUSE.callers[0], id="anna")
    rules = SOUND + "  - {id: a, approvals: 3 of operators}"
    assert "group-without-initiator" in codes(rules, changed(callers=(caller,)), about="a")
    assert "group-without-initiator" not in codes(rules, changed(callers=(caller,)), about="warm")


def test_a_route_for_whitelisted_destinations_is_one_for_all_to_signers() -> None:
    rules = "  - {id: a, when: {operation: withdrawal, destination: whitelisted, asset: BTC}, route: hot}"
    [told] = online_only(policy_of(rules))
    assert told.says == (
        "checked by the online side only: signers can't know the whitelist, and those of hot sign as if the rule fitted"
    )


def test_what_only_the_online_side_checks_is_listed_with_the_fact() -> None:
    told = online_only(
        policy_of(SOUND + "  - {id: a, when: {operation: withdrawal}, checks: [screening, travel-rule]}")
    )
    assert [each.says for each in told] == [
        "checked by the online side only: signers can't know screening or the travel-rule data"
    ]
