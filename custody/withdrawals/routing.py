"""Routing: gather the facts about a requested withdrawal, let the policy decide, and record both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from chains.errors import InvalidValue, PermanentError, TransientError
from custody.storage import alerts, halts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.withdrawals import repository, reverts, service
from custody.withdrawals.destinations import destination_of
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import SIGNING_SCOPE, check_row
from custody.withdrawals.ownership import owner_of
from policies import decision as decisions
from policies import facts as known
from policies.bundle import Bundle
from policies.decision import Decision, Deny, Reason, Route
from policies.engine import decide
from policies.facts import GENUINE, AccountState, Facts, Ownership, Screening
from policies.rules import PAYMENTS_REVERTED, rules_of

Screen = Callable[[str, str], Screening]
"""What screening says of a destination, by chain and address. Raises TransientError while it does not
answer."""

BATCH = 200
_UNREADABLE = "unreadable"
_UNDECIDED = (WithdrawalState.REQUESTED, WithdrawalState.SCREENING)


def route(db: Database, bundle: Bundle, screen: Screen, *, now: int) -> int:
    """Decide about every requested withdrawal; returns about how many.

    While paying is halted, and while screening does not answer, withdrawals stay as they are and say so.

    Args:
        now: UNIX seconds.

    Raises:
        DatabaseUnavailable, Conflict: the withdrawal at hand is undecided; the others are done.
    """
    with db.transaction() as tx:
        repository.explain_waiting(tx)
        ids = repository.due(tx, _UNDECIDED, limit=BATCH)
    return sum(_route_one(db, withdrawal_id, bundle, screen, now=now) for withdrawal_id in ids)


def cool(db: Database) -> int:
    """Queue the withdrawals whose delay is over; returns how many."""
    with db.snapshot() as tx:
        ids = repository.due(tx, [WithdrawalState.COOLING], limit=BATCH)
    done = 0
    for withdrawal_id in ids:
        with db.transaction() as tx:
            withdrawal = repository.claim(tx, withdrawal_id, [WithdrawalState.COOLING])
            if withdrawal is not None:
                repository.apply(tx, withdrawal, WithdrawalEvent.COOLED)
                done += 1
    return done


def _route_one(db: Database, withdrawal_id: UUID, bundle: Bundle, screen: Screen, *, now: int) -> int:
    with db.snapshot() as tx:
        seen = repository.find(tx, withdrawal_id)
    if seen is None:
        return 0
    try:
        # Before the transaction: a provider that takes its time must not hold locks.
        screening = screen(seen.chain, seen.destination)
    except TransientError as error:
        with db.transaction() as tx:
            repository.wait(tx, withdrawal_id, f"screening-unavailable: {error}"[:1000], seconds=0)
            alerts.raise_alert(
                tx, Severity.WARNING, "screening.unavailable", seen.chain, f"withdrawals wait: {error}", {}
            )
        return 0
    with db.transaction() as tx:
        alerts.resolve_alert(tx, "screening.unavailable", seen.chain)
        # One decision about an asset at a time, so that a window counts what another is just letting through.
        repository.serialise_decisions(tx, seen.asset)
        withdrawal = repository.claim(tx, withdrawal_id, _UNDECIDED)
        if withdrawal is None or halts.halted(tx, withdrawal.chain, withdrawal.asset) is not None:
            return 0
        if withdrawal.state is WithdrawalState.REQUESTED:
            withdrawal = repository.apply(tx, withdrawal, WithdrawalEvent.SCREEN)
        facts, decision = _decide(tx, withdrawal, bundle, screening, now=now)
        _carry_out(tx, withdrawal, bundle, facts, decision)
    return 1


def _decide(
    tx: Tx, withdrawal: Withdrawal, bundle: Bundle, screening: Screening, *, now: int
) -> tuple[Facts | None, Decision]:
    try:
        rules = rules_of(bundle, withdrawal.asset)
    except InvalidValue as error:
        return None, Deny((Reason("no-rules", str(error)),))
    since = datetime.fromtimestamp(now, UTC) - timedelta(seconds=rules.window_seconds)
    facts = gather(tx, withdrawal, bundle, screening, since=since, now=now)
    return facts, decide(facts, rules)


def gather(
    tx: Tx, withdrawal: Withdrawal, bundle: Bundle, screening: Screening, *, since: datetime, now: int
) -> Facts:
    """Everything the policy is told. What cannot be found out is None, which denies."""
    account = repository.customer_state(tx, withdrawal.customer)
    genuine, kind = _examine(withdrawal, bundle, now=now)
    spent = {
        tier: repository.spent_in_window(
            tx, withdrawal.asset, since, customer=None if tier else withdrawal.customer, tier=tier
        )
        for tier in (None, "hot")
    }
    return Facts(
        asset=withdrawal.asset,
        units=withdrawal.units,
        destination_kind=kind,
        ownership=_ownership(tx, withdrawal, bundle),
        screening=screening,
        customer=withdrawal.customer,
        account=None if account is None else AccountState(account),
        initiator=withdrawal.caller,
        order=genuine,
        halts=(),  # looked at before; nothing is decided under a halt
        now=now,
        expires_at=int(withdrawal.expires_at.timestamp()),
        customer_window_units=spent[None],
        hot_window_units=spent["hot"],
        customer_reverts=repository.reverts_in_window(tx, withdrawal.chain, since).get(
            withdrawal.customer, 0
        ),
    )


def _ownership(tx: Tx, withdrawal: Withdrawal, bundle: Bundle) -> Ownership | None:
    """Whose the destination is; None, which denies, where a row claims it and nothing proves that."""
    try:
        ours, owner = owner_of(tx, bundle, withdrawal.chain, withdrawal.destination)
    except PermanentError as error:
        alerts.raise_alert(
            tx, Severity.CRITICAL, "withdrawal.tampered", str(withdrawal.id), f"its destination: {error}", {}
        )
        return None
    if not ours:
        return Ownership.EXTERNAL
    return Ownership.HOUSE if owner is None else Ownership.CUSTOMER


def _examine(withdrawal: Withdrawal, bundle: Bundle, *, now: int) -> tuple[str, str]:
    """Whether the stored row is what a caller signed who may still sign; and the kind of its destination."""
    try:
        order = check_row(withdrawal)
        caller = bundle.caller(order.caller)
        withdrawal.signed_order.verify(caller.key)
        if SIGNING_SCOPE not in caller.scopes or now >= caller.not_after:
            return f"caller {caller.id} may no longer sign orders", _UNREADABLE
        charged = int(bundle.asset(order.asset).withdrawal_fee)
        if withdrawal.fee_units < charged:
            return (
                f"it was stored with a fee of {withdrawal.fee_units}, the bundle asks for {charged}",
                _UNREADABLE,
            )
        return GENUINE, destination_of(bundle, order.chain, order.destination).kind
    except PermanentError as error:
        return str(error) or type(error).__name__, _UNREADABLE


def _carry_out(
    tx: Tx, withdrawal: Withdrawal, bundle: Bundle, facts: Facts | None, decision: Decision
) -> None:
    record = {
        "bundle_version": bundle.version,
        "facts": None if facts is None else known.describe(facts),
        **decisions.describe(decision),
    }
    if isinstance(decision, Deny):
        repository.record_decision(tx, withdrawal.id, record, tier=None, settlement=None)
        moved = repository.apply(
            tx, withdrawal, WithdrawalEvent.REJECT, reason="; ".join(map(str, decision.reasons))[:1000]
        )
        service.release(tx, moved)
        codes = {reason.code for reason in decision.reasons}
        if "order-not-genuine" in codes:
            alerts.raise_alert(
                tx, Severity.CRITICAL, "withdrawal.tampered", str(withdrawal.id), moved.reason, {}
            )
        if PAYMENTS_REVERTED in codes:
            reverts.warn(tx, withdrawal, moved.reason)
        return
    settlement = "internal" if decision.tier == "ledger" else "chain"
    repository.record_decision(tx, withdrawal.id, record, tier=decision.tier, settlement=settlement)
    repository.set_delay(tx, withdrawal.id, decision.delay_seconds)
    repository.apply(tx, withdrawal, _event(decision), reason=_waits_for(decision))


def _event(route: Route) -> WithdrawalEvent:
    if route.approvals:
        return WithdrawalEvent.ROUTE_TO_APPROVAL
    return WithdrawalEvent.ROUTE_TO_COOLING if route.delay_seconds else WithdrawalEvent.ROUTE_TO_QUEUE


def _waits_for(route: Route) -> str:
    if route.approvals:
        return "approval: " + ", ".join(f"{need.count} of {need.group}" for need in route.approvals)
    if route.delay_seconds:
        return f"cooling: for {route.delay_seconds} s"
    return "queued: for the next transaction" if route.tier != "ledger" else "queued: for the ledger"
