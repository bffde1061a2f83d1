"""Approvals: whose count, for what, until when; and whether those that count are enough."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from policies.approvals import (
    MAX_APPROVAL_SECONDS,
    Given,
    belongs,
    initiated,
    lacking,
    lasts_until,
    met,
    objections,
    verify,
)
from policies.bundle import Approver, Bundle, Caller
from policies.canonical import BadSignature
from policies.intent import Approval, Intent, Kind, Order, payment_intent
from policies.keys import SigningKey, sign_approval
from policies.rules import NOBODY, AllOf, AnyOf, Approvals, Group, Need, Policy
from tests.fakes.passkey import SoftPasskey, approve_by_passkey

NOW = 1_000_000
KEYS = {name: SigningKey.generate() for name in ("ada", "ben", "cyd", "dan", "eve")}
GROUPS = (Group(id="ops", roles=("operator",)), Group(id="risk", people=("cyd", "dan")), Group(id="empty"))


def person(
    name: str, organisation: str = "house", roles: tuple[str, ...] = ("operator",), **changes: Any
) -> Approver:
    fields: dict[str, Any] = {
        "id": name,
        "key": KEYS[name].public_hex,
        "organisation": organisation,
        "roles": roles,
        "not_after": NOW + 1_000_000,
    }
    return Approver(**(fields | changes))


ADA, BEN = person("ada"), person("ben")
CYD, DAN, EVE = person("cyd", "risk"), person("dan", "risk", roles=()), person("eve", "other", roles=())


CALLER = Caller(
    id="exchange",
    key=SigningKey.generate().public_hex,
    organisation="house",
    scopes=("withdrawals:sign",),
    not_after=NOW + 1_000_000,
)


def bundle(**changes: Any) -> Bundle:
    fields: dict[str, Any] = {
        "callers": (CALLER,),
        "approvers": (ADA, BEN, CYD, DAN, EVE),
        "policy": Policy(groups=GROUPS),
    }
    return Bundle(
        v=1, version=1, issued_at=0, expires_at=NOW + 1000, networks=(), assets=(), keysets=(), caps=(),
        officers=(), longest_order_seconds=1000, **(fields | changes),
    )  # fmt: skip


ORDER = Order(
    v=1,
    id="0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e",
    caller="exchange",
    customer="alice",
    chain="bitcoin-regtest",
    asset="BTC",
    destination="bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
    amount="1000",
    fee_ceiling="1000",
    expires_at=NOW + 5_000,
)
INTENT = Intent(
    v=1,
    kind=Kind.PAYMENT,
    id=ORDER.id,
    chain=ORDER.chain,
    keyset="btc-hot",
    tier="hot",
    asset="BTC",
    destination=ORDER.destination,
    amount=ORDER.amount,
    order=ORDER.digest_hex(),
    policy_version=1,
)


def approval(name: str = "ada", group: str = "ops", **changes: Any) -> Approval:
    fields: dict[str, Any] = {
        "v": 1,
        "intent": INTENT.digest_hex(),
        "decision": "approve",
        "approver": name,
        "group": group,
        "policy_version": 1,
        "expires_at": NOW + 3_600,
    }
    return Approval(**(fields | changes))


def codes(given: Approval, present: Bundle | None = None, order: Order = ORDER, now: int = NOW) -> list[str]:
    return [reason.code for reason in objections(given, INTENT, order, present or bundle(), now=now)]


def test_an_approval_of_somebody_of_the_group_counts_and_so_does_a_rejection() -> None:
    assert codes(approval()) == []
    assert codes(approval("dan", "risk")) == []
    assert codes(approval(decision="reject")) == []


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (approval(intent="ab" * 32), "approval-stray"),
        (approval("zoe"), "approval-unknown"),
        (approval("eve"), "approval-group"),
        (approval("ada", "risk"), "approval-group"),
        (approval("ada", "empty"), "approval-group"),
        (approval("ada", "nowhere"), "approval-group"),
        (approval(policy_version=2), "approval-version"),
        (approval(expires_at=NOW), "approval-expired"),
        (approval(expires_at=NOW + MAX_APPROVAL_SECONDS + 1), "approval-too-long"),
    ],
)
def test_an_approval_that_is_wrong_in_one_thing_does_not_count(given: Approval, code: str) -> None:
    assert codes(given) == [code]


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "1001"},
        {"destination": "bcrt1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3qzf4jry"},
        {"fee_ceiling": "1001"},
        {"expires_at": ORDER.expires_at + 1},
        {"customer": "bob"},
    ],
)
def test_an_approval_is_of_no_use_for_an_order_that_differs_in_anything(change: dict[str, Any]) -> None:
    order = msgspec.structs.replace(ORDER, **change)
    assert codes(approval()) == []
    other = payment_intent(order, INTENT.keyset, INTENT.tier, INTENT.policy_version)
    found = objections(approval(), other, order, bundle(), now=NOW)
    assert [reason.code for reason in found] == ["approval-stray"]


def test_the_longest_and_the_shortest_approvals_count() -> None:
    assert codes(approval(expires_at=NOW + MAX_APPROVAL_SECONDS)) == []
    assert codes(approval(expires_at=NOW + 1)) == []


def test_an_approver_whose_time_is_over_or_who_was_removed_does_not_count() -> None:
    ended = bundle(approvers=(person("ada", not_after=NOW), BEN))
    assert codes(approval(), ended) == ["approval-ended"]
    assert codes(approval(), bundle(approvers=(BEN,))) == ["approval-unknown"]


def test_the_initiator_never_counts_under_whatever_name() -> None:
    assert codes(approval(), order=msgspec.structs.replace(ORDER, caller="ada")) == ["approval-own"]
    same_key = bundle(approvers=(person("ada", key=CALLER.key),))
    assert codes(approval(), same_key) == ["approval-own"]
    secret = Ed25519PrivateKey.generate()
    soft = SoftPasskey(secret)
    behind = bundle(
        approvers=(person("ada", key=soft.entry()),),
        callers=(msgspec.structs.replace(CALLER, key=secret.public_key().public_bytes_raw().hex()),),
    )
    assert initiated(ORDER, behind.approver("ada"), behind)
    other = bundle(approvers=(person("ada", key=SoftPasskey().entry()),))
    assert not initiated(ORDER, other.approver("ada"), other)


def test_a_group_has_those_it_names_and_those_with_one_of_its_roles() -> None:
    policy = Policy(groups=GROUPS)
    members = {g.id: [a.id for a in (ADA, BEN, CYD, DAN, EVE) if belongs(a, g.id, policy)] for g in GROUPS}
    assert members == {"ops": ["ada", "ben", "cyd"], "risk": ["cyd", "dan"], "empty": []}


def test_who_signed_is_checked_by_the_kind_of_key_that_the_bundle_names() -> None:
    soft = SoftPasskey()
    by_key, by_passkey = sign_approval(approval(), KEYS["ada"]), approve_by_passkey(approval(), soft)
    verify(by_key, ADA)
    verify(by_passkey, person("ada", key=soft.entry()))
    for signed, whose in (
        (by_key, BEN),
        (by_key, person("ada", key=soft.entry())),
        (by_passkey, ADA),
        (by_passkey, person("ada", key=SoftPasskey().entry())),
        (sign_approval(approval(), KEYS["ben"]), ADA),
        (msgspec.structs.replace(by_key, approval=approval(decision="reject")), ADA),
        (
            msgspec.structs.replace(by_passkey, approval=approval(group="risk")),
            person("ada", key=soft.entry()),
        ),
    ):
        with pytest.raises(BadSignature):
            verify(signed, whose)


def test_enough_are_enough_and_what_is_missing_is_said() -> None:
    two, risk = Need(group="ops", count=2), Need(group="risk", count=1)
    assert met(NOBODY, [])
    assert lacking(NOBODY, []) == ""
    assert not met(two, [(ADA, "ops")])
    assert lacking(two, [(ADA, "ops")]) == "1 of 2 of ops"
    assert met(two, [(ADA, "ops"), (BEN, "ops")])
    both = AllOf(needs=(two, risk))
    assert lacking(both, [(ADA, "ops")]) == "1 of 2 of ops and 0 of 1 of risk"
    assert lacking(both, [(ADA, "ops"), (BEN, "ops")]) == "0 of 1 of risk"
    assert met(both, [(ADA, "ops"), (BEN, "ops"), (DAN, "risk")])
    either = AnyOf(needs=(two, risk))
    assert lacking(either, []) == "(0 of 2 of ops) or (0 of 1 of risk)"
    assert met(either, [(DAN, "risk")])
    assert not met(AnyOf(needs=(Need(group="empty", count=1),)), [(ADA, "ops")])


def test_nobody_counts_twice_nor_for_two_groups() -> None:
    two, risk = Need(group="ops", count=2), Need(group="risk", count=1)
    assert not met(two, [(ADA, "ops"), (ADA, "ops")])
    assert not met(AllOf(needs=(Need(group="ops", count=1), risk)), [(CYD, "ops"), (CYD, "risk")])


def test_an_organisation_counts_once_where_the_rule_says_so() -> None:
    people, organisations = Need(group="ops", count=2), Need(group="ops", count=2, distinct="organisations")
    assert met(people, [(ADA, "ops"), (BEN, "ops")])
    assert not met(organisations, [(ADA, "ops"), (BEN, "ops")])
    assert (
        lacking(organisations, [(ADA, "ops"), (BEN, "ops")]) == "1 of 2 of ops from different organisations"
    )
    assert met(organisations, [(ADA, "ops"), (CYD, "ops")])


needs = st.builds(
    Need,
    group=st.sampled_from(["ops", "risk"]),
    count=st.integers(1, 4),
    distinct=st.sampled_from(["people", "organisations"]),
)
asked_for: st.SearchStrategy[Approvals] = st.recursive(
    needs,
    lambda inner: (
        st.builds(AllOf, needs=st.lists(inner, max_size=3).map(tuple))
        | st.builds(AnyOf, needs=st.lists(inner, min_size=1, max_size=3).map(tuple))
    ),
    max_leaves=5,
)
givens: st.SearchStrategy[list[Given]] = st.lists(
    st.tuples(st.sampled_from([ADA, BEN, CYD, DAN, EVE]), st.sampled_from(["ops", "risk"])), max_size=6
)


@given(asked_for, givens, givens)
def test_more_approvals_never_make_it_less_and_words_say_when_some_are_missing(
    asked: Approvals, some: list[Given], more: list[Given]
) -> None:
    assert met(asked, some) is (lacking(asked, some) == "")
    if met(asked, some):
        assert met(asked, some + more)


@given(asked_for, givens, st.randoms())
def test_the_order_in_which_different_people_approve_does_not_matter(
    asked: Approvals, some: list[Given], random: Any
) -> None:
    once = list({approver.id: (approver, group) for approver, group in some}.values())
    shuffled = random.sample(once, len(once))
    assert met(asked, once) is met(asked, shuffled)


@given(
    asked_for,
    st.lists(st.tuples(givens.filter(bool).map(lambda found: found[0]), st.integers(1, 5)), max_size=5),
)
def test_approvals_last_until_the_first_end_after_which_they_are_too_few(
    asked: Approvals, some: list[tuple[Given, int]]
) -> None:
    some = list({approver.id: ((approver, group), end) for (approver, group), end in some}.values())
    until = lasts_until(asked, some)
    good_at = [now for now in range(7) if met(asked, [each for each, end in some if end > now])]
    if not good_at or len(good_at) == 7:
        assert until is None
    else:
        assert until == good_at[-1] + 1
