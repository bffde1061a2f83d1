"""Whether an operator may do something now: by the bundle, by roles, and by the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from chains.errors import InvalidValue
from custody.audit.errors import ActionRefused, NotAnOperator
from custody.audit.model import Attempt, Record, as_json, signed_by
from policies.administration import ACTIONS, APPROVE, Act, Action, Effect
from policies.bundle import Bundle, Operator
from policies.canonical import BadSignature
from policies.deciding import engine_of
from policies.decision import Decision, LimitKey, Routed
from policies.decision import describe as describe_decision
from policies.facts import Facts, Operation
from policies.facts import describe as describe_facts
from policies.rules import NOBODY, Approvals, Limit


@dataclass(frozen=True, slots=True)
class Permission:
    """What the policy asks for before it is done; the attempt itself is in order."""

    action: Action
    operator: Operator | None
    """None: no bundle could be believed, and the action only stops things."""
    record: Mapping[str, Any] | None = None
    """Facts and decision, to be kept; None: the policy was not asked."""
    approvals: Approvals = field(default=NOBODY)
    delay_seconds: int = 0


def action_of(name: str) -> Action:
    """The action. Raises InvalidValue if there is none of this name."""
    action = ACTIONS.get(name)
    if action is None:
        raise InvalidValue(f"action {name!r}: write one of {', '.join(ACTIONS)}")
    return action


def permit(attempt: Attempt | Record, bundle: Bundle | None, *, now: int) -> Permission:
    """Find out whether an attempt may go on, and what it needs; or whether, and with what, a recorded one might. Pure.

    Args:
        attempt: with its signature, which is checked.
        bundle: in force; None if none can be believed: then only what stops things may be done, by anybody who has the
            workers' settings.
        now: UNIX seconds.

    Raises:
        NotAnOperator: the bundle names no such operator, or he did not sign it.
        ActionRefused: no role of his may do it, or the policy denies it.
        InvalidValue: there is no such action.
    """
    action = action_of(attempt.action)
    if bundle is None:
        if action.effect is not Effect.STOPS:
            raise NotAnOperator(
                "no bundle can be believed, so nobody is known to be an operator: only what stops things is done",
                operator=attempt.operator,
                action=attempt.action,
            )
        return Permission(action, None)
    operator = authentic(attempt, bundle, now=now)
    if not action.open_to(operator):
        raise ActionRefused(
            f"{operator.id} is {_listed(operator.roles)}; {action.name} is for {_listed(action.roles)}",
            operator=operator.id,
            action=action.name,
        )
    if action.name == APPROVE:
        return Permission(action, operator)
    told: dict[str, str] = msgspec.json.decode(attempt.parameters_json)
    facts = Facts(
        operation=Operation.ADMINISTRATION,
        now=now,
        action=action.name,
        initiator=operator.id,
        customer=told.get("customer"),
        asset=told.get("asset"),
        chain=told.get("chain"),
        halts=(),
    )
    decision = engine_of(bundle).decide(facts, _no_window)
    record = {
        "bundle_version": bundle.version,
        "facts": describe_facts(facts),
        **describe_decision(decision),
    }
    if action.effect is Effect.STOPS:
        return Permission(action, operator, record)
    return _asked(action, operator, decision, record)


def authentic(attempt: Attempt | Record, bundle: Bundle, *, now: int) -> Operator:
    """The operator who has signed it.

    Raises:
        NotAnOperator: nobody who is one now has.
    """
    operator = next((each for each in bundle.operators if each.id == attempt.operator), None)
    trouble = None
    if operator is None:
        trouble = f"the bundle names no operator {attempt.operator!r}"
    elif now >= operator.not_after:
        trouble = f"the time of operator {operator.id} ended at {operator.not_after}"
    elif attempt.key != operator.key:
        trouble = f"this is not the key that the bundle has for {operator.id}"
    else:
        trouble = misrepresented(attempt)
    if trouble is not None or operator is None:
        raise NotAnOperator(str(trouble), operator=attempt.operator, action=attempt.action)
    return operator


def misrepresented(attempt: Attempt | Record) -> str | None:
    """Why a row or an attempt is not what its key has signed; None if it is. Pure."""
    try:
        signed = signed_by(attempt)
    except (BadSignature, InvalidValue) as error:
        return f"it is not signed by the key that it names: {error}"
    if not isinstance(signed, Act):
        return None if signed.caller == attempt.operator else f"its token is of {signed.caller}"
    said, told = as_json(signed.parameters), attempt.parameters_json
    if (signed.operator, signed.action, said) != (attempt.operator, attempt.action, told):
        return f"what was signed is {signed.action} {said} by {signed.operator}"
    return None


def _asked(action: Action, operator: Operator, decision: Decision, record: Mapping[str, Any]) -> Permission:
    reasons = [str(reason) for reason in decision.reasons]
    if isinstance(decision, Routed):
        if decision.tier == "ledger" and not decision.verdict:
            return Permission(action, operator, record, decision.approvals, decision.delay_seconds)
        reasons = [f"the policy sends it to {decision.tier}; what operators do needs `route: ledger`"]
        if decision.tier == "ledger":
            reasons = ["the policy asks for a verifier's verdict, and there is none about what operators do"]
    raise ActionRefused("; ".join(reasons)[:1000], operator=operator.id, action=action.name, record=record)


def _no_window(key: LimitKey, limit: Limit) -> None:
    """What operators do is in no window yet: a rule that limits it denies, as nobody knows the sum."""


def _listed(names: Sequence[str]) -> str:
    return " or ".join(names)
