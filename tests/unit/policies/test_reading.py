"""Policy files: what they say exactly, and every mistake with its line, its column and what to write instead."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import notation
from policies.nodes import MAX_TEXT, Unreadable
from policies.notation import Money
from policies.reading import read_policy
from policies.rules import DAYS, AllOf, AnyOf, Hours, Limit, Need, Operation, Policy, Rule, When
from tests.fakes.house import ONE, bundle

HOUSE = bundle()
MONEY = Money({entry.id: entry.asset() for entry in HOUSE.assets}, HOUSE.unit)


def read(text: str) -> Policy:
    return read_policy(text, HOUSE, file="policy.yaml")


def rules(text: str) -> tuple[Rule, ...]:
    return read(f"rules:\n{text}").rules


def mistakes(text: str) -> list[str]:
    with pytest.raises(Unreadable) as raised:
        read(text)
    return str(raised.value).splitlines()


def test_a_rule_says_all_that_it_can() -> None:
    [rule] = read(
        """
groups: {operators: {roles: [operator]}, holders: {people: [kim, lee]}}
addresses: {partners: [bitcoin:bc1q]}
rules:
  - id: everything
    about: All at once.
    when:
      operation: [withdrawal, refill]
      chain: bitcoin
      asset: BTC
      source: [deposits, btc-hot]
      destination: [external, group:partners, address:bitcoin:bc1p]
      destination_younger_than: 24h
      customer: [alice, "007"]
      kyc_below: 2
      initiator: exchange
      amount_from: 0.1 BTC
      amount_below: 1_000 BTC
      value_from: 50_000 USD
      value_below: 0.01 USD
      hours: sat-mon 22:00-06:30 UTC
      screening: clear
      new_device: no
      new_ip: yes
      password_younger_than: 90s
      mfa_younger_than: 2w
      mfa_fewer_than: 2
      mfa_without: [totp]
    unless: {customer: bob}
    approvals:
      all:
        - 2 of operators from different organisations
        - any: [1 of holders, 3 of operators]
    delay: 30d
    checks: [screening, travel-rule, ownership-proof]
    verdict: required
    limit: {at_most: 5 BTC, within: 10m, per: customer, beyond: wait}
""".replace("value_below: 0.01 USD", "value_below: 50_000.01 USD")
    ).rules
    assert rule == Rule(
        id="everything",
        about="All at once.",
        when=When(
            operations=(Operation.WITHDRAWAL, Operation.REFILL),
            chains=("bitcoin",),
            assets=("BTC",),
            sources=("deposits", "btc-hot"),
            destinations=("external", "group:partners", "address:bitcoin:bc1p"),
            destination_younger_than=86_400,
            customers=("alice", "007"),
            kyc_below=2,
            initiators=("exchange",),
            amount_from="10000000",
            amount_below="100000000000",
            value_from="5000000",
            value_below="5000001",
            hours=Hours(days=("mon", "sat", "sun"), from_minute=22 * 60, to_minute=6 * 60 + 30),
            screening="clear",
            new_device=False,
            new_ip=True,
            password_younger_than=90,
            mfa_younger_than=14 * 86_400,
            mfa_fewer_than=2,
            mfa_without=("totp",),
        ),
        unless=When(customers=("bob",)),
        approvals=AllOf(
            needs=(
                Need(group="operators", count=2, distinct="organisations"),
                AnyOf(needs=(Need(group="holders", count=1), Need(group="operators", count=3))),
            )
        ),
        delay_seconds=30 * 86_400,
        checks=("screening", "travel-rule", "ownership-proof"),
        verdict="required",
        limit=Limit(window_seconds=600, per="customer", measure="units", at_most="500000000", beyond="wait"),
    )


def test_words_stay_words_whatever_yaml_makes_of_them() -> None:
    [rule] = rules(
        "  - {id: 010, when: {customer: [no, 2026-01-01, 0x10, 1e3, null, 12:30:45]}, route: hot}".replace(
            "12:30:45", "'1.5'"
        )
    )
    assert rule.id == "010"
    assert rule.when.customers == ("no", "2026-01-01", "0x10", "1e3", "null", "1.5")


def test_a_sentence_may_be_folded_over_lines() -> None:
    [rule] = rules("  - id: a\n    about: >\n      Small payments,\n      paid   at once.\n    route: hot\n")
    assert rule.about == "Small payments, paid at once."


def test_an_amount_says_which_asset_is_meant() -> None:
    band, window = rules(
        """
  - {id: band, when: {amount_below: 2 ETH}, route: hot}
  - {id: window, limit: {at_most: 100 USDC, within: 24h, per: all}}
"""
    )
    assert band.when.assets == ("ETH",)
    assert window.when.assets == ("USDC",)
    assert window.limit is not None
    assert (window.limit.at_most, window.limit.measure) == ("100000000", "units")


@pytest.mark.parametrize(
    ("at_most", "measure", "units"),
    [("1.5 BTC", "units", "150000000"), ("0.5 USD", "value", "50"), ("20 payments", "payments", "20")],
)
def test_a_limit_counts_units_value_or_payments(at_most: str, measure: str, units: str) -> None:
    [rule] = rules(f"  - {{id: it, limit: {{at_most: {at_most}, within: 24h, per: customer}}}}")
    assert rule.limit is not None
    assert (rule.limit.measure, rule.limit.at_most) == (measure, units)


def test_named_amounts_write_a_rule_out_for_each_asset() -> None:
    policy = read(
        """
amounts: {small: [0.1 BTC, 2 ETH], much: [5 BTC, 100 ETH]}
rules:
  - {id: hot, when: {operation: withdrawal, amount_below: small}, route: hot}
  - {id: window, when: {tier: hot}, limit: {at_most: much, within: 24h, per: all}}
  - {id: ether, when: {asset: ETH, amount_from: small, amount_below: much}, route: warm}
  - {id: except, unless: {amount_below: small}, delay: 1h}
holdings:
  - {tiers: hot, at_most: much}
"""
    )
    assert [rule.id for rule in policy.rules] == [
        "hot.BTC", "hot.ETH", "window.BTC", "window.ETH", "ether.ETH", "except.BTC", "except.ETH",
    ]  # fmt: skip
    assert [rule.when.assets for rule in policy.rules] == [
        ("BTC",), ("ETH",), ("BTC",), ("ETH",), ("ETH",), ("BTC",), ("ETH",),
    ]  # fmt: skip
    ether = policy.rules[4].when
    assert (ether.amount_from, ether.amount_below) == (str(2 * ONE["ETH"]), str(100 * ONE["ETH"]))
    exception = policy.rules[6]
    assert exception.unless == When(assets=("ETH",), amount_below=str(2 * ONE["ETH"]))
    assert [(h.asset, h.at_most) for h in policy.holdings] == [
        ("BTC", str(5 * ONE["BTC"])),
        ("ETH", str(100 * ONE["ETH"])),
    ]


def test_a_case_says_facts_as_people_do() -> None:
    [case] = read(
        """
groups: {operators: {roles: [operator]}}
rules:
  - {id: window, limit: {at_most: 5 BTC, within: 24h, per: all}}
cases:
  - id: one
    given: {amount: 0.5 BTC, value: 10 USD to 20 USD, destination: one-time, destination_age: new, kyc_level: 3,
            travel_rule: no, screening: unknown, mfa_methods: none, password_age: 2d, at: "sat 03:00 UTC"}
    spent: {window: 4.5 BTC}
    expect: warm
    because: [window]
    approvals: 2 of operators
    delay: 12h
"""
    ).cases
    assert json.loads(case.given) == {
        "asset": "BTC",
        "chain": "bitcoin",
        "units": "50000000",
        "value": ["1000", "2000"],
        "ownership": "external",
        "whitelist": "absent",
        "destination_age_seconds": 0,
        "kyc_level": 3,
        "travel_rule": False,
        "screening": None,
        "mfa_methods": [],
        "password_age_seconds": 2 * 86_400,
        "now": 1_767_571_200 + 5 * 86_400 + 3 * 3600,
    }
    assert (case.expect, case.because, case.delay_seconds) == ("warm", ("window",), 12 * 3600)
    assert case.approvals == Need(group="operators", count=2)
    assert [(filled.rule, filled.amount) for filled in case.spent] == [("window", "450000000")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["policy.yaml:1:1: write a mapping, such as `rules:` and a list"]),
        ("- a", ["policy.yaml:1:1: write a mapping, such as `rules:` and a list"]),
        ("rules: []\nrulez: []", ["policy.yaml:2:1: a policy has no `rulez` (did you mean rules?)"]),
        ("groups: {}", ["policy.yaml:1:1: `rules` is missing: write a list of rules"]),
        ("rules: &a []", ["policy.yaml:1:8: remove the anchor `&`: what is meant is written where it counts"]),
        (
            "rules: [*a]",
            ["policy.yaml:1:9: write out what `*` stands for: aliases are not read"],
        ),
        ("rules: !!python/tuple []", [
            "policy.yaml:1:8: remove the tag tag:yaml.org,2002:python/tuple: everything is read as text"]),
        ("rules: []\n---\nrules: []", [
            "policy.yaml:2:1: only one document is read: remove `---` and what follows"]),
        ("rules: []\nrules: []", ["policy.yaml:2:1: `rules` is given twice: first on line 1"]),
        ("rules: {<<: {id: a}}", ["policy.yaml:1:8: `rules` is a list: write each item behind a `-`"]),
        ("rules: [\n  - a", [
            "policy.yaml:2:3: this is no YAML: while parsing a flow node: expected the node content, but found '-'"]),
        ("rules: " + "[" * 25 + "]" * 25, ["policy.yaml:1:27: this is nested more than 20 deep"]),
        (
            "rules: [{id: a, route: hot}]\nx: about: b",
            [
                ('policy.yaml:2:9: this is no YAML: mapping values are not allowed here; put a text that has a `:` and'
                ' a blank in it between quotes "..."')
            ],
        ),
        (
            "rules:\n\t- a",
            [
                ("policy.yaml:2:1: this is no YAML: while scanning for the next token: found character '\\t' that"
                " cannot start any token; write blanks, no tabs")
            ],
        ),
        ("a: \x07", [("policy.yaml:1:1: this is no YAML: unacceptable character #x0007: special characters are not"
                     ' allowed   in "<unicode string>", position 3')]),
    ],
)  # fmt: skip
def test_what_is_no_policy_at_all_is_told(text: str, told: list[str]) -> None:
    assert mistakes(text) == told


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{route: hot}", "2:5: `id` is missing: write `id:` and a name"),
        ("{id: a b, route: hot}", ("2:10: 'a b' is no name: write 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter"
         " or digit")),
        ("{id: a, roote: hot}", "2:13: a rule has no `roote` (did you mean route?)"),
        ("{id: a, route: lukewarm}",
         "2:20: `route` is 'lukewarm' (did you mean warm?): write ledger, hot, warm or cold"),
        ("{id: a, route: [hot]}", "2:20: `route` is one word or sentence, no list or mapping"),
        ("{id: a, route: }", "2:19: `route` is empty: write it, or remove the key"),
        ("{id: a, when: {asset: BCT}, route: hot}", "2:27: the bundle has no asset BCT (did you mean BTC?)"),
        ("{id: a, when: {chain: dogecoin}, route: hot}",
         "2:27: the bundle has no chain dogecoin; there are bitcoin and ethereum"),
        ("{id: a, when: {amont_below: 1 BTC}, route: hot}",
         "2:20: `when` has no `amont_below` (did you mean amount_below?)"),
        ("{id: a, when: {amount_below: 0.1}, route: hot}",
         "2:34: '0.1' is no amount: write a number and its asset, such as 0.1 BTC"),
        ("{id: a, when: {amount_below: 0.123456789 BTC}, route: hot}",
         "2:34: '0.123456789 BTC': 9 decimal places, BTC has 8"),
        ("{id: a, when: {amount_below: 1e3 BTC}, route: hot}",
         "2:34: '1e3 BTC' is no amount: write a number and its asset, such as 0.1 BTC"),
        ("{id: a, when: {amount_below: 10_00 BTC}, route: hot}",
         "2:34: '10_00 BTC': `_` stands before every third digit, such as 1_000_000, or nowhere"),
        ("{id: a, when: {amount_below: 01 BTC}, route: hot}",
         "2:34: '01 BTC': write the number without zeros before it"),
        ("{id: a, when: {amount_below: 100 USD}, route: hot}",
         "2:34: '100 USD': write an amount of an asset, such as 0.1 BTC"),
        ("{id: a, when: {amount_below: 100 EUR}, route: hot}",
         ("2:34: '100 EUR': 'EUR' is neither an asset of the bundle nor its unit of account; there are BTC, ETH, USDC,"
         " USDT and USD")),
        ("{id: a, when: {amount_below: smal}, route: hot}",
         "2:34: there is no amount named smal (did you mean small?)"),
        ("{id: a, when: {value_below: 1 BTC}, route: hot}",
         "2:33: '1 BTC': write a value in USD, such as 50_000 USD"),
        ("{id: a, when: {asset: ETH, amount_below: 1 BTC}, route: hot}",
         "2:46: `amount_below` is an amount of BTC, and `asset` says ETH"),
        ("{id: a, when: {asset: USDC, amount_below: small}, route: hot}",
         "2:47: `small` says no amount of USDC: add what is missing to `amounts`, or name `asset`"),
        ("{id: a, when: {amount_from: small, amount_below: other}, route: hot}",
         "2:54: `other` says no amount of ETH: add what is missing to `amounts`, or name `asset`"),
        ("{id: a, when: {amount_from: 1 BTC, amount_below: 1 BTC}, route: hot}",
         "2:54: nothing lies between: what it is below must be more than what it is from"),
        ("{id: a, delay: 24}", ("2:20: '24' is no duration: write a whole number and s, m, h, d or w, such as 10m, 24h"
         " or 30d")),
        ("{id: a, delay: 1.5h}", ("2:20: '1.5h' is no duration: write a whole number and s, m, h, d or w, such as 10m,"
         " 24h or 30d")),
        ("{id: a, when: {hours: mon-fri 08:00-18:00}, delay: 1h}",
         "2:27: 'mon-fri 08:00-18:00' are no hours: write such as mon-fri 08:00-18:00 UTC, in UTC"),
        ("{id: a, when: {hours: mon-fir UTC}, delay: 1h}",
         "2:27: 'mon-fir UTC': 'mon-fir' are no days; write mon, tue, wed, thu, fri, sat, sun"),
        ("{id: a, when: {hours: 8:00-18:00 UTC}, delay: 1h}",
         "2:27: '8:00-18:00 UTC': '8:00' is no time of the day; write it such as 08:00"),
        ("{id: a, when: {new_device: perhaps}, delay: 1h}", "2:32: 'perhaps': write yes or no"),
        ("{id: a, when: {kyc_below: 1000}, delay: 1h}",
         "2:31: `kyc_below` is '1000': write a whole number from 0 to 100"),
        ("{id: a, when: {kyc_below: 0}, delay: 1h}", "2:31: nothing is below 0: the rule would never fit"),
        ("{id: a, when: {destination: abroad}, delay: 1h}",
         ("2:33: `destination` is 'abroad': write internal, house, external, whitelisted, one-time or contract,"
         " group:NAME, or address:CHAIN:ADDRESS")),
        ("{id: a, when: {destination: group:friends}, delay: 1h}",
         "2:33: there is no address group friends; there are none"),
        ("{id: a, when: {destination: 'address:ethereum:0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359'}, delay: 1h}",
         ("2:33: 0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359 is no address with its checksum (EIP-55): write it as"
         " wallets show it")),
        ("{id: a, approvals: two of operators}",
         ("2:24: 'two of operators': write how many of which group, such as 2 of operators, or 2 of operators from"
         " different organisations")),
        ("{id: a, approvals: 2 of operator}", "2:24: there is no group operator (did you mean operators?)"),
        ("{id: a, approvals: {all: []}}", "2:24: `all` is empty: say who must approve"),
        ("{id: a, approvals: {all: [1 of operators], any: [1 of operators]}}",
         "2:24: write one of `2 of GROUP`, `all:` with a list, `any:` with a list"),
        ("{id: a, when: {tier: hot}, route: hot}",
         "2:26: a rule that routes can't depend on where it is routed: remove `tier` or `route`"),
        ("{id: a}", "2:5: the rule does nothing: write deny, route, approvals, delay, checks, verdict or limit"),
        ("{id: a, deny: Never., delay: 1h}", "2:19: a rule that denies does nothing else: move delay to another rule"),
        ("{id: a, unless: {}, delay: 1h}",
         "2:21: an exception without conditions holds always, so the rule never would: remove it"),
        ("{id: a, limit: {at_most: 5 BTC, within: 24h}}",
         "2:20: `per` is missing: write `per:` and customer, destination, initiator, tier, asset, chain or all"),
        ("{id: a, limit: {at_most: 5 BTC, within: 400d, per: all}}", "2:45: a window is at most 366d long"),
        ("{id: a, limit: {at_most: 1.5 payments, within: 24h, per: all}}",
         "2:30: '1.5 payments': payments are counted in whole numbers"),
        ("{id: a, when: {asset: [BTC, ETH]}, limit: {at_most: 5 BTC, within: 24h, per: all}}",
         "2:57: `at_most` is an amount of BTC, and `asset` says BTC and ETH"),
        ("{id: a, when: {action: lift}, route: ledger}",
         "2:28: only administration has actions: add `operation: administration`"),
        ("{id: a, when: {asset: ETH, chain: bitcoin}, route: hot}",
         "2:39: ETH is on no such chain: nothing would ever fit"),
        ("{id: a, when: {asset: []}, route: hot}",
         "2:27: `asset` is an empty list: name at least one, or remove it"),
        ("{id: a, when: all, route: hot}",
         ("2:19: `when` is a mapping: write its keys, of operation, action, chain, asset, source, tier, destination,"
         " customer, initiator, mfa_without, amount_from, amount_below, value_from, value_below,"
         " destination_younger_than, password_younger_than, mfa_younger_than, kyc_below, mfa_fewer_than, hours,"
         " screening, lookalike, new_device or new_ip")),
        (
            '{id: a, about: "all \\u202E is well", route: hot}',
            "2:20: remove the character U+202E: it doesn't show, and could hide what does",
        ),
        (
            '{id: a, deny: "\\e[2KNo.", route: hot}',
            "2:19: remove the character U+001B: it doesn't show, and could hide what does",
        ),
        ("{id: a, about: ' ', route: hot}", "2:20: this is empty: write a sentence, or remove the key"),
        ("{id: a, about: " + "x" * 301 + ", route: hot}",
         "2:20: this has 301 characters, at most 300 are kept: put the rest in a comment"),
    ],
)  # fmt: skip
def test_every_mistake_in_a_rule_says_where_and_what_to_write(rule: str, told: str) -> None:
    text = (
        f"rules:\n  - {rule}\n"
        "amounts: {small: [0.1 BTC, 2 ETH], other: [5 BTC]}\ngroups: {operators: {roles: [operator]}}"
    )
    assert mistakes(text) == [f"policy.yaml:{told}"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("groups: {a: {roles: [boss]}}", "2:21: no approver has the role boss; there are key-holder and operator"),
        ("groups: {a: {people: [ana]}}", "2:22: the bundle has no approver ana (did you mean anna?)"),
        ("groups: {a: {}}", "2:10: nobody is in it: write `roles` or `people`"),
        ("addresses: {a: [bc1q]}", "2:17: 'bc1q': write the chain before the address, such as bitcoin:bc1q..."),
        ("holdings: [{tiers: cold, at_most: 1 BTC}]", "2:20: `tiers` is 'cold': write hot or warm"),
        ("holdings: [{tiers: hot, at_most: 1 BTC, share: 0%}]",
         "2:48: '0%': write a share from 0.01% to 100%, such as 1%"),
        ("holdings: [{tiers: hot, at_most: 1 BTC, refill_below: 0.5%}]",
         "2:55: '0.5%': write whole percent, such as 30%"),
        ("holdings: [{tiers: hot, at_most: 1 BTC}, {tiers: hot, at_most: 2 BTC}]",
         "2:42: hot/BTC is there twice: give each a name of its own"),
        ("amounts: {1a: [1 BTC]}",
         "2:11: '1a' can't name an amount: begin with a letter, and use letters, digits, - and _"),
        ("amounts: {a: [1 BTC, 2 BTC]}", "2:22: `a` has two amounts of BTC"),
        ("cases: [{id: a, expect: maybe}]", "2:25: `expect` is 'maybe': write deny, wait, ledger, hot, warm or cold"),
        ("cases: [{id: a, expect: hot, given: {amount: 1 BTC, at: noon}}]",
         "2:57: `at` is 'noon': write a day and a time, such as sat 03:00 UTC"),
        ("cases: [{id: a, expect: hot, given: {asset: BCT}}]", "2:37: the bundle has no asset BCT (did you mean BTC?)"),
        ("cases: [{id: a, expect: hot, spent: {b: 1 BTC}}]", "2:37: no rule b has a limit; there are none"),
        ("cases: [{id: a, expect: deny, delay: 1h}]", "2:25: what is not routed has neither approvals nor a delay"),
    ],
)  # fmt: skip
def test_every_mistake_elsewhere_too(text: str, told: str) -> None:
    assert mistakes(f"rules: [{{id: r, route: hot}}]\n{text}") == [f"policy.yaml:{told}"]


def test_all_mistakes_of_a_file_are_told_at_once_in_their_order() -> None:
    assert mistakes(
        """
rules:
  - id: first
    when: {amount_below: 1 BCT}
    rout: hot
  - id: second
    delay: soon
cases:
  - {id: c, expect: hott}
"""
    ) == [
        (
            "policy.yaml:4:26: '1 BCT': 'BCT' is neither an asset of the bundle nor its unit of account (did you"
            " mean BTC?); there are BTC, ETH, USDC, USDT and USD"
        ),
        "policy.yaml:5:5: a rule has no `rout` (did you mean route?)",
        "policy.yaml:7:12: 'soon' is no duration: write a whole number and s, m, h, d or w, such as 10m, 24h or 30d",
        "policy.yaml:9:21: `expect` is 'hott' (did you mean hot?): write deny, wait, ledger, hot, warm or cold",
    ]


def test_a_file_that_is_too_large_is_not_looked_at() -> None:
    assert mistakes("#" * (MAX_TEXT + 1)) == [
        f"policy.yaml:1:1: the file has {MAX_TEXT + 1} characters, at most {MAX_TEXT} are read"
    ]


def test_twice_the_same_id_is_told_where_the_second_stands() -> None:
    assert mistakes("rules:\n  - {id: a, route: hot}\n  - {id: a, route: warm}\n") == [
        "policy.yaml:3:10: a is there twice: give each a name of its own"
    ]


@given(st.text(max_size=300))
def test_whatever_the_text_it_is_read_or_its_mistakes_are_told(text: str) -> None:
    try:
        policy = read(text)
    except Unreadable:
        return
    assert isinstance(policy, Policy)


_WORD = st.sampled_from(
    ["rules", "id", "when", "route", "hot", "a", "amount_below", "0.1 BTC", "limit", "at_most", "within", "24h", "per",
     "all", "unless", "approvals", "1 of g", "groups", "g", "roles", "operator", "amounts", "small", "asset", "BTC",
     "cases", "given", "expect", "amount", "spent", "deny", "any", "holdings", "tiers", "share", "1%", ""]
)  # fmt: skip
_TREE: st.SearchStrategy[Any] = st.recursive(
    _WORD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORD, inner, max_size=4),
    max_leaves=25,
)


@given(
    st.dictionaries(st.sampled_from(["rules", "groups", "amounts", "cases", "holdings", "addresses"]), _TREE)
)
def test_whatever_its_shape_it_is_read_or_its_mistakes_are_told(tree: dict[str, Any]) -> None:
    try:
        policy = read(json.dumps(tree))
    except Unreadable:
        return
    bundle(policy)


@given(st.integers(min_value=1, max_value=999_999_999))
def test_durations_are_read_as_they_are_written(seconds: int) -> None:
    assert notation.duration(notation.short_duration(seconds)) == seconds


@given(st.sampled_from(sorted(ONE)), st.integers(min_value=0, max_value=10**30))
def test_amounts_are_read_as_they_are_written_to_the_base_unit(asset: str, units: int) -> None:
    found = MONEY.amount(MONEY.told_amount(asset, units))
    assert (found.units, found.asset) == (units, asset)
    assert MONEY.value(MONEY.told_value(units)) == units


@given(
    st.sets(st.sampled_from(DAYS), min_size=1),
    st.integers(0, 24 * 60 - 1),
    st.integers(0, 24 * 60),
)
def test_hours_are_read_as_they_are_written(days: set[Any], first: int, end: int) -> None:
    if first == end:
        return
    hours = Hours(days=tuple(day for day in DAYS if day in days), from_minute=first, to_minute=end)
    assert notation.hours(notation.told_hours(hours)) == hours


@given(st.integers(1, 10_000))
def test_shares_are_read_as_they_are_written(points: int) -> None:
    assert notation.basis_points(notation.told_share(points)) == points


def test_whoever_reads_bundles_needs_no_yaml() -> None:
    program = (
        "import sys, signers.guard.guard, policies.bundle, policies.engine; print('yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_was_read_is_what_a_bundle_carries() -> None:
    policy = read("rules:\n  - {id: a, when: {amount_below: 0.1 BTC}, route: hot}\n")
    assert msgspec.json.decode(msgspec.json.encode(policy), type=Policy) == policy
