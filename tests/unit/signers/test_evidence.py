"""Approvals and verdicts: no warm payment is signed unless the bundle's people and its verifier have said yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.approvals import MAX_APPROVAL_SECONDS
from policies.bundle import Approver, Attestor, TierCap
from policies.intent import Intent, Kind, SignedApproval, SignedVerdict
from policies.keys import SigningKey
from policies.rules import Rule
from signers.guard.policy import MAX_VERDICT_SECONDS
from signers.ports import SignRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY, NOW, ROLE, Draft

WARM_CAP = TierCap(
    tier="warm", asset="BTC", payment_below="1000000000", window_cap="10000000000", window_seconds=DAY
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    warm(made)
    yield made
    made.journal.close()


def warm(bench: SignerBench, version: int = 2, **changes: Any) -> None:
    """Adopt a bundle in which the key-set is of the warm tier."""
    fields = {
        "keysets": (bench.world.keyset_entry(tier="warm"),),
        "caps": (WARM_CAP,),
        "requirements": (bench.world.requirement(),),
    }
    bench.adopt(version, **(fields | changes))


def request_of(bench: SignerBench, *units: int, version: int = 2, tier: str = "warm") -> SignRequest:
    """An honest request without approvals and verdicts."""
    draft = bench.draft(*units)
    draft.intents = [bench.world.intent(order, tier=tier, policy_version=version) for order in draft.orders]
    return bench.world.request(draft)


def only(request: SignRequest) -> Intent:
    (intent,) = request.intents
    return intent


def requiring(bench: SignerBench, *requirements: Rule) -> None:
    """Adopt version 3, in which only these are asked for."""
    warm(bench, 3, requirements=requirements)


# The honest ways.


def test_a_payment_that_two_people_and_the_verifier_agree_to_is_signed(bench: SignerBench) -> None:
    request = bench.world.evidence(request_of(bench))
    before = bench.signatures(request)
    assert bench.signatures(request) == before
    assert bench.service.status().signed == 1


def test_more_approvals_than_asked_for_are_welcome(bench: SignerBench) -> None:
    assert bench.signatures(bench.world.evidence(request_of(bench), ("ada", "ben", "cem")))


def test_each_payment_of_a_batch_has_approvals_of_its_own(bench: SignerBench) -> None:
    request = bench.world.evidence(request_of(bench, 100_000, 200_000))
    for left_out in range(4):
        kept = tuple(a for number, a in enumerate(request.evidence.approvals) if number != left_out)
        assert bench.codes(bench.world.evidence(request, approvals=kept)) == {"approvals-missing"}
    assert bench.codes(bench.world.evidence(request, verdicts=request.evidence.verdicts[:1])) == {
        "no-verdict"
    }
    assert bench.signatures(request)


# What is missing.


@pytest.mark.parametrize("names", [(), ("ada",), ("cem",)])
def test_too_few_approvals_are_not_enough(bench: SignerBench, names: tuple[str, ...]) -> None:
    assert bench.codes(bench.world.evidence(request_of(bench), names)) == {"approvals-missing"}


def test_without_a_verdict_nothing_warm_is_paid_even_if_the_bundle_forgets_to_ask(bench: SignerBench) -> None:
    assert bench.codes(bench.world.evidence(request_of(bench), verdicts=())) == {"no-verdict"}
    requiring(bench, bench.world.requirement(verdict=None))
    request = bench.world.evidence(request_of(bench, version=3), verdicts=())
    assert bench.codes(request) == {"no-verdict"}


def test_a_tier_for_which_the_policy_asks_nobody_pays_nothing(bench: SignerBench) -> None:
    requiring(bench)
    bare = request_of(bench, version=3)
    assert bench.codes(bare) == {"no-requirement", "no-verdict"}
    intent = only(bare)
    assert bench.codes(bench.world.evidence(bare, approvals=(), verdicts=(bench.world.verdict(intent),))) == {
        "no-requirement"
    }


def test_two_people_of_one_organisation_count_once_where_organisations_count(bench: SignerBench) -> None:
    requiring(bench, bench.world.requirement(count="organisations"))
    request = request_of(bench, version=3)
    assert bench.codes(bench.world.evidence(request, ("ben", "cem"))) == {"approvals-missing"}
    assert bench.signatures(bench.world.evidence(request, ("ada", "cem")))


def test_every_rule_must_be_met_each_by_people_of_its_own_group_and_nobody_twice(bench: SignerBench) -> None:
    world = bench.world
    approvers = tuple(
        world.approver_entry(name, roles=roles)
        for name, roles in {"ada": (ROLE,), "ben": (ROLE, "risk"), "cem": ("risk",)}.items()
    )
    asked = (world.requirement(approvals=1), world.requirement(approvals=2, group="risk"))
    warm(bench, 3, requirements=asked, approvers=approvers)
    request = request_of(bench, version=3)
    intent = only(request)

    def given(*whose: tuple[str, str]) -> SignRequest:
        approvals = tuple(world.approval(intent, name, group=group) for name, group in whose)
        return world.evidence(request, approvals=approvals)

    assert bench.codes(given(("ada", ROLE), ("cem", "risk"))) == {"approvals-missing"}
    assert bench.codes(given(("ben", "risk"), ("cem", "risk"))) == {"approvals-missing"}
    assert bench.codes(given(("ada", "risk"), ("ben", ROLE), ("cem", "risk"))) == {
        "approval-group",
        "approvals-missing",
    }
    assert bench.codes(given(("ada", ROLE), ("ben", "risk"), ("ben", ROLE), ("cem", "risk"))) == {
        "approval-repeated"
    }
    assert bench.signatures(given(("ada", ROLE), ("ben", "risk"), ("cem", "risk")))


def test_the_hot_tier_asks_for_what_the_bundle_asks_there(bench: SignerBench) -> None:
    world = bench.world
    bench.adopt(3, requirements=(world.requirement(tier="hot", approvals=1, verdict=None),))
    request = request_of(bench, version=3, tier="hot")
    assert bench.codes(request) == {"approvals-missing"}
    assert bench.codes(world.evidence(request, (), verdicts=())) == {"approvals-missing"}
    assert bench.signatures(world.evidence(request, ("cem",), verdicts=()))


def test_what_the_hot_tier_may_pay_is_not_paid_by_another_tier_too(bench: SignerBench) -> None:
    """Signers of two tiers have two journals: an order that fits both could be paid by both."""
    hot = bench.world.bundle().caps[0]
    floor = msgspec.structs.replace(WARM_CAP, payment_from=hot.payment_below)
    warm(bench, 3, caps=(hot, floor))
    below, above = int(hot.payment_below) - 1, int(hot.payment_below)
    assert bench.codes(bench.world.evidence(request_of(bench, below, version=3))) == {"payment-floor"}
    assert bench.signatures(bench.world.evidence(request_of(bench, above, version=3)))


# What is wrong.

Change = Callable[[SignerBench, Intent], SignedApproval]
APPROVALS: dict[str, tuple[Change, set[str]]] = {
    "by a stranger's key": (
        lambda b, i: b.world.approval(i, key=SigningKey.generate()),
        {"approval-signature"},
    ),
    "by another approver's key": (
        lambda b, i: b.world.approval(i, key=b.world.approvers["cem"]),
        {"approval-signature"},
    ),
    "edited afterwards": (
        lambda b, i: SignedApproval(
            approval=b.world.approval(i, expires_at=NOW + 60).approval,
            signature=b.world.approval(i).signature,
        ),
        {"approval-signature"},
    ),
    "of somebody whom the bundle does not name": (
        lambda b, i: b.world.approval(i, approver="dan"),
        {"approval-unknown", "approvals-missing"},
    ),
    "for a group that there is not": (
        lambda b, i: b.world.approval(i, group="clerk"),
        {"approval-group", "approvals-missing"},
    ),
    "for another intent": (
        lambda b, i: b.world.approval(msgspec.structs.replace(i, amount="1")),
        {"stray-approval", "approvals-missing"},
    ),
    "expired": (lambda b, i: b.world.approval(i, expires_at=NOW), {"approval-expired", "approvals-missing"}),
    "good for too long": (
        lambda b, i: b.world.approval(i, expires_at=NOW + MAX_APPROVAL_SECONDS + 1),
        {"approval-too-long", "approvals-missing"},
    ),
    "of another policy version": (
        lambda b, i: b.world.approval(i, policy_version=1),
        {"approval-version", "approvals-missing"},
    ),
    "a rejection": (
        lambda b, i: b.world.approval(i, decision="reject"),
        {"approval-rejected", "approvals-missing"},
    ),
    "ben's once more": (
        lambda b, i: b.world.approval(i, "ben"),
        {"approval-repeated", "approvals-missing"},
    ),
    "ben's once more, for longer": (
        lambda b, i: b.world.approval(i, "ben", expires_at=NOW + 7200),
        {"approval-repeated", "approvals-missing"},
    ),
}


@pytest.mark.parametrize("which", APPROVALS)
def test_an_approval_that_is_not_right_in_every_respect_refuses_the_payment(
    bench: SignerBench, which: str
) -> None:
    request = request_of(bench)
    intent, (change, codes) = only(request), APPROVALS[which]
    approvals = (bench.world.approval(intent, "ben"), change(bench, intent))
    assert bench.codes(bench.world.evidence(request, approvals=approvals)) == codes
    # Nor is it overlooked where others would suffice.
    enough = (bench.world.approval(intent, "ben"), bench.world.approval(intent, "cem"))
    assert bench.codes(bench.world.evidence(request, approvals=(*enough, change(bench, intent)))) == codes - {
        "approvals-missing"
    }


def test_a_rejection_counts_for_more_than_any_number_of_approvals(bench: SignerBench) -> None:
    request = request_of(bench)
    rejection = bench.world.approval(only(request), "cem", decision="reject")
    approvals = (*bench.world.evidence(request).evidence.approvals, rejection)
    assert bench.codes(bench.world.evidence(request, approvals=approvals)) == {"approval-rejected"}


def test_what_nobody_asked_for_must_be_good_all_the_same(bench: SignerBench) -> None:
    bench.adopt(3)
    request = request_of(bench, version=3, tier="hot")
    late = bench.world.approval(only(request), expires_at=NOW)
    assert bench.codes(bench.world.evidence(request, approvals=(late,), verdicts=())) == {"approval-expired"}
    other = bench.world.verdict(only(request_of(bench)))
    assert bench.codes(bench.world.evidence(request, (), verdicts=(other,))) == {"stray-verdict"}
    assert bench.signatures(bench.world.evidence(request))


Told = Callable[[SignerBench, Intent], SignedVerdict]
VERDICTS: dict[str, tuple[Told, set[str]]] = {
    "by a stranger's key": (
        lambda b, i: b.world.verdict(i, key=SigningKey.generate()),
        {"verdict-signature"},
    ),
    "by an approver's key": (
        lambda b, i: b.world.verdict(i, key=b.world.approvers["ada"]),
        {"verdict-signature"},
    ),
    "edited afterwards": (
        lambda b, i: SignedVerdict(
            verdict=b.world.verdict(i).verdict,
            signature=b.world.verdict(i, outcome="not_covered").signature,
        ),
        {"verdict-signature"},
    ),
    "of a verifier whom the bundle does not name": (
        lambda b, i: b.world.verdict(i, verifier="ada"),
        {"verdict-unknown", "no-verdict"},
    ),
    "that it is not covered": (
        lambda b, i: b.world.verdict(i, outcome="not_covered"),
        {"verdict-outcome", "no-verdict"},
    ),
    "for another intent": (
        lambda b, i: b.world.verdict(msgspec.structs.replace(i, amount="1")),
        {"stray-verdict", "no-verdict"},
    ),
    "expired": (lambda b, i: b.world.verdict(i, expires_at=NOW), {"verdict-expired", "no-verdict"}),
    "good for too long": (
        lambda b, i: b.world.verdict(i, expires_at=NOW + MAX_VERDICT_SECONDS + 1),
        {"verdict-too-long", "no-verdict"},
    ),
}


@pytest.mark.parametrize("which", VERDICTS)
def test_a_verdict_that_is_not_right_in_every_respect_refuses_the_payment(
    bench: SignerBench, which: str
) -> None:
    request = request_of(bench)
    change, codes = VERDICTS[which]
    bad = change(bench, only(request))
    assert bench.codes(bench.world.evidence(request, verdicts=(bad,))) == codes
    both = (bench.world.verdict(only(request)), bad)
    assert bench.codes(bench.world.evidence(request, verdicts=both))


def test_a_verdict_twice_is_refused(bench: SignerBench) -> None:
    request = request_of(bench)
    verdict = bench.world.verdict(only(request))
    assert bench.codes(bench.world.evidence(request, verdicts=(verdict, verdict))) == {"verdict-repeated"}


def test_there_is_nothing_to_approve_in_the_houses_own_transactions(bench: SignerBench) -> None:
    world = bench.world
    intent = world.house_intent(Kind.CONSOLIDATION, tier="warm", policy_version=2)
    request = world.request(Draft([world.coin(100_000)], [], intents=[intent]))
    assert bench.codes(world.evidence(request, approvals=(world.approval(intent),))) == {"stray-approval"}
    assert bench.codes(world.evidence(request, verdicts=(world.verdict(intent),))) == {"stray-verdict"}
    assert bench.signatures(request)


# People come and go.


def test_the_end_date_of_an_approver_and_of_a_verifier_is_the_end(bench: SignerBench) -> None:
    world = bench.world
    over: tuple[Approver, ...] = (world.approver_entry("ada", not_after=NOW), world.approver_entry("ben"))
    warm(bench, 3, approvers=over)
    request = world.evidence(request_of(bench, version=3))
    assert bench.codes(request) == {"approval-ended", "approvals-missing"}
    gone: Attestor = world.verifier_entry(not_after=NOW)
    warm(bench, 4, verifiers=(gone,))
    request = world.evidence(request_of(bench, version=4))
    assert bench.codes(request) == {"verdict-ended", "no-verdict"}


def test_who_has_given_the_order_never_approves_it_under_whatever_name(bench: SignerBench) -> None:
    world = bench.world
    # As a caller and an approver of one name, and under another name with the same key.
    same_name = world.approver_entry("ada", id="exchange")
    same_key = world.approver_entry("ada", key=world.caller.public_hex)
    for version, (entry, name, key) in enumerate(
        [(same_name, "exchange", world.approvers["ada"]), (same_key, "ada", world.caller)], start=3
    ):
        warm(bench, version, approvers=(entry, world.approver_entry("ben")))
        request = request_of(bench, version=version)
        intent = only(request)
        own = world.approval(intent, approver=name, key=key)
        asked = world.evidence(request, approvals=(own, world.approval(intent, "ben")))
        assert bench.codes(asked) == {"approval-own", "approvals-missing"}


# Rows of FAULTS.


def test_fault_47_when_the_policy_changes_while_approvals_are_collected_they_are_asked_again(
    bench: SignerBench,
) -> None:
    world = bench.world
    draft = bench.draft()
    (order,) = draft.orders
    draft.intents = [world.intent(order, tier="warm", policy_version=2)]
    early = world.evidence(world.request(draft), ("ada",))
    warm(bench, 3)
    late = world.evidence(world.request(draft), ("ada", "ben"))
    assert bench.codes(late) == {"policy-version"}
    # The new version makes another intent of it, which none of the old approvals is for.
    draft.intents = [world.intent(order, tier="warm", policy_version=3)]
    again = world.request(draft)
    fresh = world.approval(draft.intents[0], "ben")
    assert bench.codes(world.evidence(again, approvals=(*early.evidence.approvals, fresh))) == {
        "stray-approval",
        "approvals-missing",
    }
    relabelled = world.approval(draft.intents[0], "ada", policy_version=2)
    assert bench.codes(world.evidence(again, approvals=(relabelled, fresh))) == {
        "approval-version",
        "approvals-missing",
    }
    assert bench.signatures(world.evidence(again))


def test_fault_47_a_replacement_keeps_the_approvals_of_the_version_it_was_decided_under(
    bench: SignerBench,
) -> None:
    world = bench.world
    draft = bench.draft()
    draft.intents = [world.intent(draft.orders[0], tier="warm", policy_version=2)]
    bench.signatures(world.evidence(world.request(draft)))
    warm(bench, 3)
    draft.fee_sats += 2_000
    assert bench.signatures(world.evidence(world.request(draft)))


def test_fault_48_an_approval_is_of_no_use_for_another_payment_of_the_same_size_to_the_same_place(
    bench: SignerBench,
) -> None:
    first, second = bench.world.evidence(request_of(bench)), request_of(bench)
    assert bench.signatures(first)
    replayed = bench.world.evidence(
        second, approvals=first.evidence.approvals, verdicts=first.evidence.verdicts
    )
    assert bench.codes(replayed) == {"stray-approval", "stray-verdict", "approvals-missing", "no-verdict"}


def test_fault_48_an_approval_that_expires_while_it_travels_is_refused(bench: SignerBench) -> None:
    request = bench.world.evidence(request_of(bench))
    bench.time += 301
    assert bench.codes(request) == {"verdict-expired", "no-verdict"}
    bench.time += 3300
    assert {"approval-expired", "approvals-missing", "verdict-expired"} <= bench.codes(request)


def test_fault_48_an_approver_who_was_removed_approves_nothing_any_more(bench: SignerBench) -> None:
    request = bench.world.evidence(request_of(bench))
    warm(bench, 3, approvers=(bench.world.approver_entry("ben"), bench.world.approver_entry("cem")))
    assert "approval-unknown" in bench.codes(request)
    assert bench.codes(bench.world.evidence(request_of(bench, version=3))) == {
        "approval-unknown",
        "approvals-missing",
    }
