"""What officers read before they sign: a sentence for everything that differs, and nothing hides behind another."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.bundle import Approver, Bundle, Confirmations
from policies.bundle.changes import retired, successor_of
from policies.bundle.differences import differences
from policies.rules import (
    AllOf,
    AnyOf,
    Case,
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
from tests.fakes.evm_signing import EvmWorld, SoftEvmKeys
from tests.fakes.signing import DAY, NOW, SoftKeys, World

WORLD = World(SoftKeys.make().record)
NEW = World(SoftKeys.make(b"\x01" * 32, "btc-hot-2").record).keyset_entry()
RULES = (
    Rule(id="hot", when=When(assets=("BTC",), amount_below="20000000"), route="hot"),
    Rule(
        id="large-payments",
        about="two people look at large ones",
        when=When(
            operations=(Operation.WITHDRAWAL,),
            chains=("bitcoin-regtest",),
            assets=("BTC",),
            sources=("btc-hot",),
            destinations=("external", "group:friends"),
            customers=("alice",),
            initiators=("exchange",),
            tiers=("warm",),
            amount_from="5",
            value_from="7",
            value_below="9000",
            kyc_below=2,
            hours=Hours(from_minute=60),
            screening="clear",
            new_device=True,
            new_ip=False,
            password_younger_than=DAY,
            mfa_younger_than=DAY,
            mfa_fewer_than=2,
            mfa_without=("sms",),
            destination_younger_than=DAY,
        ),
        unless=When(customers=("bob",)),
        approvals=Need(group="operators", count=2),
        delay_seconds=DAY,
        checks=("screening",),
        verdict="required",
        limit=Limit(window_seconds=DAY, per="customer", measure="units", at_most="100000000"),
    ),
    Rule(
        id="nested",
        approvals=AllOf(
            needs=(
                Need(group="operators", count=1),
                AnyOf(needs=(Need(group="risk", count=1, distinct="people"),)),
            )
        ),
        deny="not on Sundays",
    ),
)
POLICY = Policy(
    rules=RULES,
    groups=(Group(id="operators", roles=("operator",)), Group(id="risk", people=("ada", "ben"))),
    holdings=(
        Holding(tiers=("hot", "warm"), asset="BTC", at_most="10000000000", share=500, refill_below=30),
    ),
    cases=(Case(id="c1", given="{}", expect="deny"),),
)
PRESENT = msgspec.structs.replace(WORLD.bundle(7), policy=POLICY)
EVM = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", 31338).record).bundle(7)


def plain_of(bundle: Bundle) -> Any:
    """The bundle as dicts and lists."""
    return msgspec.json.decode(bundle.canonical())


def replaced(**changes: Any) -> list[str]:
    return differences(PRESENT, msgspec.structs.replace(PRESENT, **changes))


def with_rule(**changes: Any) -> list[str]:
    rule = msgspec.structs.replace(RULES[1], **changes)
    policy = msgspec.structs.replace(POLICY, rules=(RULES[0], rule, RULES[2]))
    return replaced(policy=policy)


def test_nothing_is_said_where_nothing_differs() -> None:
    assert differences(PRESENT, PRESENT) == []
    assert differences(EVM, EVM) == []


def test_sentences_that_an_officer_understands() -> None:
    cap = msgspec.structs.replace(PRESENT.caps[0], payment_below="5000000")
    assert replaced(caps=(cap,)) == ["BTC hot: a payment must stay below 0.05 BTC (was 0.1 BTC)"]
    assert with_rule(approvals=Need(group="operators", count=3)) == [
        "rule large-payments: now needs 3 of operators (was 2 of operators)"
    ]
    assert with_rule(approvals=None) == ["rule large-payments: now needs nothing (was 2 of operators)"]
    assert with_rule(delay_seconds=3600) == ["rule large-payments: now waits 1 hour (was 24 hours)"]
    gone = tuple(each for each in PRESENT.approvers if each.id != "ada")
    assert replaced(approvers=gone) == ["approver ada: removed"]
    network = msgspec.structs.replace(PRESENT.networks[0], fee_cap="200000")
    assert replaced(networks=(network,)) == [
        "network bitcoin-regtest: one transaction may cost at most 0.002 BTC in fees (was 0.001 BTC)"
    ]
    assert replaced(veto_seconds=DAY) == ["the next bundle waits 24 hours for vetoes (was no time)"]
    [line] = with_rule(limit=msgspec.structs.replace(RULES[1].limit, at_most="200000000"))  # type: ignore[type-var]
    more = "within 24 hours for each customer, what is more is denied"
    assert line == (
        f"rule large-payments: now may come to at most 2 BTC {more} (was may come to at most 1 BTC {more})"
    )


def test_people_who_come_are_shown_whole_and_lists_by_what_joins_and_leaves() -> None:
    mallory = Approver(
        id="mallory", key="ab" * 32, organisation="nobody", roles=("operator",), not_after=NOW + DAY
    )
    [line] = replaced(approvers=(*PRESENT.approvers, mallory))
    assert line.startswith("approver mallory: added, ")
    for told in ("ab" * 32, "nobody", "operator", "2027-01-16 08:00:00 UTC"):
        assert told in line
    ada = msgspec.structs.replace(PRESENT.approver("ada"), roles=("director",))
    others = tuple(each for each in PRESENT.approvers if each.id != "ada")
    assert (
        f"approver ada: roles: now also director; no longer {PRESENT.approver('ada').roles[0]}"
        in replaced(approvers=(ada, *others))
    )


def test_a_new_rule_is_told_in_words_and_whole() -> None:
    rule = Rule(id="open", when=When(assets=("BTC",)), route="hot")
    [line] = replaced(policy=msgspec.structs.replace(POLICY, rules=(*RULES, rule)))
    assert line.startswith("rule open: added, All operations of BTC are paid from hot. Whole: {")


@pytest.mark.parametrize(
    ("changes", "empty"),
    [
        ({"id": "large-renamed"}, True),
        ({"measure": "payments", "at_most": "3"}, True),
        ({"per": "customer"}, True),
        ({"window_seconds": 2 * DAY}, False),
        ({"at_most": "4"}, False),
        ({}, False),
    ],
)
def test_a_window_that_begins_empty_at_the_signers_is_told(changes: dict[str, Any], empty: bool) -> None:
    limit = Limit(window_seconds=DAY, per="all", measure="units", at_most="5")
    rule = Rule(id="large", when=When(assets=("BTC",)), limit=limit)
    changed = msgspec.structs.replace(
        rule,
        id=changes.get("id", rule.id),
        limit=msgspec.structs.replace(limit, **{k: v for k, v in changes.items() if k != "id"}),
    )
    before, after = (
        msgspec.structs.replace(PRESENT, policy=msgspec.structs.replace(POLICY, rules=(*RULES, each)))
        for each in (rule, changed)
    )
    told = f"rule {changed.id}: its window begins empty at the signers: "
    assert any(line.startswith(told) for line in differences(before, after)) is empty


def test_the_end_of_a_key_set_and_the_one_that_follows() -> None:
    present = WORLD.bundle(7)
    lines = differences(present, retired(present, "btc-hot", "compromised", NEW, now=NOW, lasts=DAY))
    assert "key-set btc-hot: is now compromised (was active)" in lines
    assert any(line.startswith("key-set btc-hot-2: added, ") and NEW.account in line for line in lines)  # type: ignore[union-attr]
    assert "breaker all-btc-hot: keysets: now also btc-hot-2" in lines
    assert "version 8 (was 7)" in lines


def test_times_are_told_as_dates() -> None:
    present = WORLD.bundle(7)
    draft = successor_of(present, now=NOW, lasts=DAY, in_force_from=NOW + 60)
    assert differences(present, draft) == [
        "expires at 2027-01-16 08:00:00 UTC (was 2027-02-14 08:00:00 UTC)",
        "in force from 2027-01-15 08:01:00 UTC on (was 0)",
        "issued at 2027-01-15 08:00:00 UTC (was 2027-01-15 07:59:50 UTC)",
        "version 8 (was 7)",
    ]


def test_two_entries_that_swap_their_content_are_seen() -> None:
    one, other = PRESENT.approvers[:2]
    swapped = (
        msgspec.structs.replace(one, key=other.key),
        msgspec.structs.replace(other, key=one.key),
        *PRESENT.approvers[2:],
    )
    lines = replaced(approvers=swapped)
    assert len(lines) == 2
    assert all("has another key" in line for line in lines)


def test_entries_of_one_name_and_without_names_are_shown_whole() -> None:
    """Two of one name would hide each other."""
    twice = replaced(callers=(*PRESENT.callers, msgspec.structs.replace(PRESENT.callers[0], key="cd" * 32)))
    assert len(twice) == 1
    assert "cd" * 32 in twice[0]
    asset = PRESENT.assets[0]
    more = (*asset.confirmations, Confirmations(from_units="5", blocks=9))
    [line] = replaced(assets=(msgspec.structs.replace(asset, confirmations=more),))
    assert line.startswith("asset BTC: confirmations: ")
    assert '"blocks":9' in line


def test_another_order_is_told() -> None:
    assert replaced(approvers=PRESENT.approvers[::-1]) == [
        f"approvers: the same entries in another order, {', '.join(e.id for e in PRESENT.approvers[::-1])}"
    ]


def test_texts_break_no_line_and_turn_nothing_round() -> None:
    told = with_rule(deny="fine\n  approver ann: removed\u202e\x1b[2K")
    assert len(told) == 1
    assert told[0].isprintable()
    told = with_rule(about="x\u2028y\u200b")
    assert told[0].isprintable()


# Complete.


def paths(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a document is, lists and objects too."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*at, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*at, index))


WORDS = (
    "warm", "cold", "hot", "active", "suspended", "wait", "deny", "people", "organisations", "clear", "hit", "value",
    "units", "payments", "all", "asset", "internal", "sweep", "refill", "mon", "tue", "pausable", "trace", "balance",
    "screening", "travel-rule", "test", "main", "p2tr", "ledger", "required", "withdrawals:read",
)  # fmt: skip


def others(value: Any, chance: random.Random) -> Iterator[Any]:
    """Values that could stand there instead."""
    match value:
        case bool():
            yield not value
        case int():
            yield from (value + 1, value + 60, value - 1, value * 2)
        case str():
            if value.isdecimal():
                yield str(int(value) + 1)
            yield from (
                value + "1",
                value[:-1] + ("0" if value[-1:] != "0" else "1"),
                *chance.sample(WORDS, len(WORDS)),
            )
        case None:
            yield from ("1", 1, True, "clear", "required", "hot", {"customers": ["carol"]}, [])
        case list():
            yield from (value[1:], value[::-1], [*value, *value[:1]], value[:-1])
        case _:
            yield None


def changed(bundle: Bundle, path: tuple[Any, ...], chance: random.Random) -> Bundle | None:
    """The bundle with another value at a place, None if none of ours can stand there."""
    found: Any = plain_of(bundle)
    for step in path:
        found = found[step]
    for other in others(found, chance):
        plain: Any = plain_of(bundle)
        inner = plain
        for step in path[:-1]:
            inner = inner[step]
        if inner[path[-1]] == other:
            continue
        inner[path[-1]] = other
        try:
            made = msgspec.convert(plain, Bundle)
        except msgspec.ValidationError:
            continue
        if made != bundle:
            return made
    return None


SEEN = {"btc": PRESENT, "evm": EVM}
PLACES = {name: list(paths(plain_of(bundle))) for name, bundle in SEEN.items()}


@pytest.mark.parametrize("which", sorted(SEEN))
def test_whatever_single_value_differs_is_told(which: str) -> None:
    bundle, chance, tried = SEEN[which], random.Random(5), 0
    for path in PLACES[which]:
        other = changed(bundle, path, chance)
        if other is None:
            continue
        tried += 1
        assert differences(bundle, other), path
        assert differences(other, bundle), path
    assert tried > len(PLACES[which]) * 0.7


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(SEEN)), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_change_hides_behind_another(which: str, first: int, second: int, seed: int) -> None:
    """With both changes people read something else than with either of them alone."""
    bundle, places, chance = SEEN[which], PLACES[which], random.Random(seed)
    one = changed(bundle, places[first % len(places)], chance)
    path = places[second % len(places)]
    if one is None:
        return
    try:
        both = changed(one, path, chance)
        other = changed(bundle, path, random.Random(seed))
    except (KeyError, IndexError, TypeError):
        return  # the place has gone with the first change
    if both is None or both == bundle:
        return
    lines = differences(bundle, both)
    assert lines
    assert lines != differences(bundle, one)
    if other is not None and other != both:
        assert lines != differences(bundle, other)
