"""Whatever approvals and verdicts are put together, only what an independent reading finds sufficient is signed."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import event, given, settings
from hypothesis import strategies as st

from policies.bundle import Bundle, TierCap
from policies.intent import Evidence, Intent, SignedApproval, SignedVerdict
from policies.keys import SigningKey, sign_order
from policies.rules import Need, Rule
from signers.guard.btc import BitcoinRules
from signers.guard.guard import examine
from signers.guard.policy import judge
from signers.ports import Reason, SignRequest
from tests.fakes.signing import APPROVERS, DAY, NOW, ROLE, VERIFIER, Draft, SoftKeys, World
from tests.fakes.views import NothingSigned

KEYS = SoftKeys.make()
WORLD = World(KEYS.record)
RULES = BitcoinRules(KEYS.record, KEYS.account)
STRANGER = SigningKey.generate()
ROLES = {"ada": (ROLE, "risk"), "ben": (ROLE,), "cem": ("risk",), "exchange": (ROLE, "risk")}
"""The caller is an approver too; of the others ben and cem are of one organisation."""
KEY_OF = WORLD.approvers | {"exchange": WORLD.caller, "stranger": STRANGER}
CAP = TierCap(
    tier="warm", asset="BTC", payment_below="1000000000", window_cap="10000000000", window_seconds=DAY
)


def bundle_of(requirements: tuple[Rule, ...]) -> Bundle:
    caller = WORLD.approver_entry("ada", id="exchange", key=WORLD.caller.public_hex, roles=ROLES["exchange"])
    approvers = (*(WORLD.approver_entry(name, roles=ROLES[name]) for name in APPROVERS), caller)
    return WORLD.bundle(
        keysets=(WORLD.keyset_entry(tier="warm"),),
        caps=(CAP,),
        requirements=requirements,
        approvers=approvers,
        breakers=(),
    )


def made(*units: int) -> SignRequest:
    """A request of the warm tier."""
    orders = [WORLD.order(n) for n in units]
    draft = Draft([WORLD.coin(50_000_000)], orders)
    draft.intents = [WORLD.intent(order, tier="warm") for order in orders]
    return WORLD.request(draft)


REQUEST = made(1_000_000, 2_000_000)
OTHER = made(1_000_000)
INTENTS = (*REQUEST.intents, *OTHER.intents)
TIMES = (NOW - 1, NOW, NOW + 1, NOW + 600, NOW + 601, NOW + DAY, NOW + DAY + 1)


def approval_of(intent: Intent, name: str, key: str, **changes: Any) -> SignedApproval:
    return WORLD.approval(intent, key=KEY_OF[key], approver=name, **changes)


def verdict_of(intent: Intent, verifier: str, key: SigningKey, **changes: Any) -> SignedVerdict:
    return WORLD.verdict(intent, key=key, verifier=verifier, **changes)


@st.composite
def evidence(draw: st.DrawFn) -> tuple[tuple[Rule, ...], list[SignedApproval], list[SignedVerdict]]:
    """Rules, and what may meet them: most of what the right people say in time, and seldom something else."""
    asked = draw(requirements)
    groups = sorted({need.group for rule in asked if (need := needed(rule))}) or [ROLE]
    seldom = st.sampled_from([True] * 9 + [False])
    approvals = [
        approval_of(intent, name, name, group=own[draw(st.integers(0, len(own) - 1))])
        for intent in REQUEST.intents
        for name in APPROVERS
        if draw(seldom) and (own := [group for group in groups if group in ROLES[name]])
    ]
    verdicts = [WORLD.verdict(intent) for intent in REQUEST.intents if draw(seldom)]
    if not draw(seldom):
        approvals.insert(draw(st.integers(0, len(approvals))), draw(bad_approvals))
    if not draw(seldom):
        verdicts.insert(draw(st.integers(0, len(verdicts))), draw(bad_verdicts))
    return asked, approvals, verdicts


bad_approvals = st.builds(
    lambda intent, name, key, group, decision, version, expires: approval_of(
        intent, name, key, group=group, decision=decision, policy_version=version, expires_at=expires
    ),
    st.sampled_from(INTENTS),
    st.sampled_from(sorted(ROLES)),
    st.sampled_from(sorted(KEY_OF)),
    st.sampled_from([ROLE, "risk", "clerk"]),
    st.sampled_from(["approve", "reject"]),
    st.sampled_from([1, 2]),
    st.sampled_from(TIMES),
)
bad_verdicts = st.builds(
    lambda intent, name, key, outcome, expires: verdict_of(
        intent, name, key, outcome=outcome, expires_at=expires
    ),
    st.sampled_from(INTENTS),
    st.sampled_from([VERIFIER, "ada"]),
    st.sampled_from([WORLD.verifier, WORLD.approvers["ada"], STRANGER]),
    st.sampled_from(["covered", "not_covered"]),
    st.sampled_from(TIMES),
)
requirements = st.lists(
    st.builds(
        lambda approvals, group, count, verdict, tier: WORLD.requirement(
            approvals=approvals, group=group, count=count, verdict=verdict, tier=tier
        ),
        st.sampled_from([0, 1, 1, 2, 2, 3]),
        st.sampled_from([ROLE, "risk"]),
        st.sampled_from(["people", "organisations"]),
        st.sampled_from(["required", None]),
        st.sampled_from(["warm", "warm", "warm", "cold"]),
    ),
    max_size=2,
    unique_by=lambda rule: rule.id,
).map(tuple)


def genuine(key: SigningKey, digest: bytes, signature: str) -> bool:
    try:
        public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public_hex))
        public.verify(base64.b64decode(signature), digest)
    except InvalidSignature:
        return False
    return True


def suffices(
    asked: Sequence[Rule], approvals: Sequence[SignedApproval], verdicts: Sequence[SignedVerdict]
) -> bool:
    """The rule of DESIGN section 1, read once more: by sets of who has said yes to what."""
    fitting = [need for rule in asked if rule.when.tiers == ("warm",) and (need := needed(rule))]
    wanted = {intent.digest_hex() for intent in REQUEST.intents}
    for signed in approvals:
        told = signed.approval
        if not (
            told.intent in wanted
            and told.decision == "approve"
            and told.approver in APPROVERS
            and told.group in ROLES[told.approver]
            and told.policy_version == 1
            and NOW < told.expires_at <= NOW + 86_400
            and isinstance(signed.signature, str)
            and genuine(KEY_OF[told.approver], told.digest(), signed.signature)
        ):
            return False
    for given_verdict in verdicts:
        word = given_verdict.verdict
        if not (
            word.intent in wanted
            and word.outcome == "covered"
            and word.verifier == VERIFIER
            and NOW < word.expires_at <= NOW + 600
            and genuine(WORLD.verifier, word.digest(), given_verdict.signature)
        ):
            return False
    yes = [(s.approval.intent, s.approval.approver, s.approval.group) for s in approvals]
    covered = [v.verdict.intent for v in verdicts]
    if (
        len({(intent, name) for intent, name, _ in yes}) != len(yes)
        or len(set(covered)) != len(covered)
        or set(covered) != wanted
        or not fitting
    ):
        return False
    for digest in wanted:
        for need in fitting:
            people = {name for whose, name, group in yes if (whose, group) == (digest, need.group)}
            counted = people if need.distinct == "people" else {APPROVERS[name] for name in people}
            if len(counted) < need.count:
                return False
    return True


def needed(rule: Rule) -> Need | None:
    return rule.approvals if isinstance(rule.approvals, Need) else None


def refused(request: SignRequest, bundle: Bundle) -> tuple[Reason, ...]:
    """Objections of a signer that has signed nothing yet."""
    examination = examine(request, bundle, RULES, held=(), now=NOW)
    if examination.examined is None:
        return examination.reasons
    return examination.reasons + judge(examination.examined, NothingSigned(), now=NOW).reasons


def signed_with(
    bundle: Bundle, approvals: Sequence[SignedApproval], verdicts: Sequence[SignedVerdict]
) -> bool:
    """Whether the guard has no objection to the request with this evidence."""
    request = WORLD.evidence(REQUEST, approvals=tuple(approvals), verdicts=tuple(verdicts))
    return not refused(request, bundle)


@settings(max_examples=400)
@given(put_together=evidence())
def test_the_guard_agrees_with_an_independent_reading_of_any_evidence(
    put_together: tuple[tuple[Rule, ...], list[SignedApproval], list[SignedVerdict]],
) -> None:
    asked, approvals, verdicts = put_together
    expected = suffices(asked, approvals, verdicts)
    event("sufficient" if expected else "not sufficient")
    assert signed_with(bundle_of(asked), approvals, verdicts) == expected


ALL_GOOD = [WORLD.approval(intent, name) for intent in REQUEST.intents for name in ("ada", "ben")]
ALL_COVERED = [WORLD.verdict(intent) for intent in REQUEST.intents]
TWO = bundle_of((WORLD.requirement(),))


def test_the_evidence_that_the_next_tests_spoil_is_sufficient() -> None:
    assert signed_with(TWO, ALL_GOOD, ALL_COVERED)
    assert signed_with(TWO, ALL_GOOD[::-1], ALL_COVERED[::-1])


@given(kept=st.sets(st.integers(0, 3)), covered=st.sets(st.integers(0, 1)))
def test_no_part_of_just_sufficient_evidence_is_sufficient(kept: set[int], covered: set[int]) -> None:
    approvals = [ALL_GOOD[index] for index in sorted(kept)]
    verdicts = [ALL_COVERED[index] for index in sorted(covered)]
    assert signed_with(TWO, approvals, verdicts) == (len(kept) == 4 and len(covered) == 2)


@given(
    which=st.integers(0, 3),
    field=st.sampled_from(["intent", "approver", "group", "expires_at", "policy_version", "decision"]),
    index=st.integers(0, 63),
)
def test_fault_44_a_stored_approval_with_any_field_edited_is_refused(
    which: int,
    field: Literal["intent", "approver", "group", "expires_at", "policy_version", "decision"],
    index: int,
) -> None:
    genuine_one = ALL_GOOD[which]
    value: Any = getattr(genuine_one.approval, field)
    if field == "decision":
        edited: Any = "reject"
    elif isinstance(value, int):
        edited = value + 1 + index
    else:
        place = index % len(value)
        edited = value[:place] + ("b" if value[place] == "a" else "a") + value[place + 1 :]
    approval = msgspec.structs.replace(genuine_one.approval, **{field: edited})
    forged = SignedApproval(approval=approval, signature=genuine_one.signature)
    approvals = [forged if number == which else one for number, one in enumerate(ALL_GOOD)]
    assert not signed_with(TWO, approvals, ALL_COVERED)


@given(data=st.data())
def test_signatures_exchanged_between_pieces_of_evidence_are_refused(data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(4)))
    approvals = [
        SignedApproval(approval=one.approval, signature=ALL_GOOD[other].signature)
        for one, other in zip(ALL_GOOD, order, strict=True)
    ]
    assert signed_with(TWO, approvals, ALL_COVERED) == (list(order) == [0, 1, 2, 3])


def test_an_order_that_another_caller_takes_over_loses_its_approvals() -> None:
    """The approvals are for an intent, the intent names the order's digest, and the order its caller."""
    order = REQUEST.evidence.orders[0].order
    taken = msgspec.structs.replace(order, caller="reader")
    intents = (WORLD.intent(taken, tier="warm"), REQUEST.intents[1])
    orders = (sign_order(taken, WORLD.stranger), REQUEST.evidence.orders[1])
    evidence = msgspec.structs.replace(
        REQUEST.evidence, orders=orders, approvals=tuple(ALL_GOOD), verdicts=tuple(ALL_COVERED)
    )
    request = msgspec.structs.replace(REQUEST, intents=intents, evidence=evidence)
    codes = {reason.code for reason in refused(request, TWO)}
    assert codes == {"caller-scope", "stray-approval", "stray-verdict", "approvals-missing", "no-verdict"}


def test_a_flipped_bit_anywhere_in_the_evidence_is_noticed() -> None:
    """One bit of every byte of orders, approvals and verdicts: what can still be read is refused."""
    request = WORLD.evidence(REQUEST, approvals=tuple(ALL_GOOD), verdicts=tuple(ALL_COVERED))
    raw = msgspec.json.encode(request.evidence)
    read = 0
    for place in range(len(raw)):
        flipped = raw[:place] + bytes([raw[place] ^ (1 << place % 7)]) + raw[place + 1 :]
        try:
            spoilt = msgspec.json.decode(flipped, type=Evidence)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        if spoilt == request.evidence:
            continue  # a letter's case in an escape, say
        read += 1
        changed = msgspec.structs.replace(request, evidence=spoilt)
        assert refused(changed, TWO), (
            place,
            flipped[place - 20 : place + 20],
        )
    assert read > len(raw) // 4
