"""Cases: questions that are kept in the policy with the answers it must give (`strongroom policy test`).

They are run against the same engine that decides, over facts that a case names itself; whatever it doesn't name has
the value of a plain operation that nothing speaks against.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from chains.errors import InvalidValue
from policies.bundle import Bundle
from policies.deciding import decide
from policies.decision import Decision, Deny, LimitKey, Routed, Wait
from policies.facts import GENUINE, Facts, read
from policies.rules import HOUSE, AllOf, AnyOf, Approvals, Case, Limit, Need, Operation
from policies.words import needed

MONDAY: Final = 1_767_571_200
"""2026-01-05 00:00 UTC, the week of all cases."""
NOON: Final = MONDAY + 12 * 3600
"""The time of cases that name none."""
_YEAR: Final = 365 * 24 * 3600

_PLAIN: Final[dict[str, Any]] = {"operation": "withdrawal", "now": NOON, "halts": []}
_WITHDRAWAL: Final[dict[str, Any]] = {
    "id": "case",
    "destination": "destination",
    "ownership": "external",
    "whitelist": "usable",
    "destination_age_seconds": _YEAR,
    "lookalike": False,
    "contract": False,
    "customer": "customer",
    "kyc_level": 2,
    "initiator": "caller",
    "screening": "clear",
    "travel_rule": True,
    "ownership_proof": True,
    "new_device": False,
    "new_ip": False,
    "password_age_seconds": _YEAR,
    "mfa_age_seconds": _YEAR,
    "mfa_methods": ["totp", "webauthn"],
    "order": GENUINE,
    "account": "active",
    "reverts": 0,
}
_HOUSE: Final[dict[str, Any]] = {"id": "case", "customer": HOUSE, "initiator": HOUSE, "ownership": "house"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case."""

    case: Case
    decision: Decision
    wrong: tuple[str, ...]
    """Sentences on what is not as the case expects; empty: all is."""


def facts_in(given: Mapping[str, Any]) -> Facts:
    """The facts of a case: a plain operation's, with what is given; null is what nobody knows.

    Raises:
        InvalidValue: these are no facts.
    """
    plain = dict(_PLAIN)
    plain |= _WITHDRAWAL if given.get("operation", Operation.WITHDRAWAL) == Operation.WITHDRAWAL else _HOUSE
    told = {**plain, **given}
    if (
        "expires_at" not in told
        and told["operation"] == Operation.WITHDRAWAL
        and isinstance(told["now"], int)
    ):
        told["expires_at"] = told["now"] + 3600
    return read({name: value for name, value in told.items() if value is not None})


def facts_of(case: Case) -> Facts:
    """The facts of a case. Raises InvalidValue if there are none in it."""
    try:
        given = json.loads(case.given)
    except ValueError as error:
        raise InvalidValue(f"case {case.id}: {error}") from None
    if not isinstance(given, dict):
        raise InvalidValue(f"case {case.id}: its facts are no JSON object")
    return facts_in(given)


def judge(case: Case, bundle: Bundle) -> Outcome:
    """Ask the bundle's policy. Raises InvalidValue if the case has no facts."""
    spent = {filled.rule: int(filled.amount) for filled in case.spent}

    def filled(key: LimitKey, limit: Limit) -> int:
        return spent.get(key.rule, 0)

    decision = decide(bundle, facts_of(case), filled)
    return Outcome(case, decision, tuple(_wrong(case, decision)))


def judge_all(bundle: Bundle) -> list[Outcome]:
    """All cases of a bundle's policy, in its own order."""
    return [judge(case, bundle) for case in bundle.policy.cases]


def answer(decision: Decision) -> str:
    """`deny`, `wait`, or the tier."""
    return decision.tier if isinstance(decision, Routed) else "wait" if isinstance(decision, Wait) else "deny"


def _wrong(case: Case, decision: Decision) -> list[str]:
    wrong = []
    found = answer(decision)
    if found != case.expect:
        why = "; ".join(map(str, decision.reasons))
        wrong.append(f"expected {case.expect}, the policy says {found}: {why}")
    given = {reason.code for reason in decision.reasons} | {reason.rule for reason in decision.reasons}
    if isinstance(decision, Routed):
        given |= {key.rule for key, _ in decision.counts}
    missing = [each for each in case.because if each not in given]
    if missing:
        told = ", ".join(sorted(given - {""}))
        wrong.append(f"expected because of {', '.join(missing)}; the reasons are {told}")
    if isinstance(decision, Deny | Wait):
        return wrong
    if case.approvals is not None and settled(case.approvals) != settled(decision.approvals):
        wrong.append(f"expected approval of {needed(case.approvals)}, it is {needed(decision.approvals)}")
    if case.delay_seconds is not None and case.delay_seconds != decision.delay_seconds:
        wrong.append(f"expected a delay of {case.delay_seconds} s, it is {decision.delay_seconds} s")
    return wrong


def settled(approvals: Approvals) -> object:
    """What is asked for, whatever the order and nesting in which it is written: equal if it is the same."""
    if isinstance(approvals, Need):
        return approvals
    kind = type(approvals)
    parts: set[object] = set()
    for need in approvals.needs:
        part = settled(need)
        nested = isinstance(part, tuple) and part[0] is kind
        parts |= part[1] if isinstance(part, tuple) and nested else {part}
    if len(parts) == 1:
        return parts.pop()
    return (AllOf if kind is AllOf else AnyOf, frozenset(parts))
