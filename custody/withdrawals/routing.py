"""Routing: gather the facts about a requested withdrawal, let the policy decide, and record both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from chains.errors import InvalidValue, PermanentError
from custody.pricing import Prices, worth
from custody.screening.ports import Screening
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.storage.sealing import Keys
from custody.travelrule import service as travelrule
from custody.whitelist import service as whitelist
from custody.whitelist.lookalikes import ENDS, Ends
from custody.whitelist.model import Destination
from custody.withdrawals import repository, reverts, screened, service, windows
from custody.withdrawals.code import NO_NODES, CodeSeen, look
from custody.withdrawals.destinations import destination_of
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import SIGNING_SCOPE, check_row
from custody.withdrawals.ownership import owner_of
from policies import records
from policies.bundle import Bundle
from policies.deciding import TRAVEL_RULE, decide
from policies.decision import Decision, Deny, Routed, Wait
from policies.engine import PAYMENTS_REVERTED, nobody_asked
from policies.facts import GENUINE, AccountState, Facts, Operation, Ownership
from policies.facts import Screening as Verdict
from policies.notation import told_duration
from policies.ordered import facts_of
from policies.words import needed

BATCH = 200
_WAIT_SECONDS: Final = 60
"""How long a withdrawal is left alone for which a window of the house has no room."""
_DATA_SECONDS: Final = 5
"""The same while its caller has not attached its travel-rule data."""
_UNDECIDED = (WithdrawalState.REQUESTED, WithdrawalState.SCREENING)


def route(
    db: Database,
    bundle: Bundle,
    screening: Screening,
    *,
    now: int,
    keys: Keys | None = None,
    nodes: Mapping[str, object] = NO_NODES,
    ends: Ends = ENDS,
    prices: Prices | None = None,
) -> int:
    """Decide about every requested withdrawal; returns about how many.

    While paying is halted, while screening does not answer, and while a case is open, withdrawals wait and say so.

    Args:
        now: UNIX seconds.
        keys: open travel-rule data; without them none counts as attached.
        nodes: our own, by chain: tell whether a destination has code.
        ends: how much of an address people look at.
        prices: present ones, for rules about values.

    Raises:
        DatabaseUnavailable, Conflict: the withdrawal at hand is undecided; the others are done.
    """
    windows.rebuild(db, bundle, now=now)
    with db.transaction() as tx:
        repository.explain_waiting(tx)
        ids = repository.due(tx, _UNDECIDED, limit=BATCH)
    return sum(
        _route_one(db, withdrawal_id, bundle, screening, keys, nodes, ends, prices, now=now)
        for withdrawal_id in ids
    )


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


def _route_one(
    db: Database,
    withdrawal_id: UUID,
    bundle: Bundle,
    screening: Screening,
    keys: Keys | None,
    nodes: Mapping[str, object],
    ends: Ends,
    prices: Prices | None,
    *,
    now: int,
) -> int:
    with db.snapshot() as tx:
        seen = repository.find(tx, withdrawal_id)
    if seen is None:
        return 0
    answer = screened.ask(screening, seen)
    code = look(bundle, nodes, seen.chain, seen.destination)
    with db.transaction() as tx:
        # One decision at a time, so that a window counts what another is just letting through.
        repository.serialise_decisions(tx)
        withdrawal = repository.claim(tx, withdrawal_id, _UNDECIDED)
        if withdrawal is None or repository.stopped(tx, withdrawal) is not None:
            return 0
        if withdrawal.state is WithdrawalState.REQUESTED:
            withdrawal = repository.apply(tx, withdrawal, WithdrawalEvent.SCREEN)
        verdict = screened.take(tx, withdrawal, answer)
        if verdict is None:
            return 0
        destination = _destination(tx, withdrawal, bundle, ends, now=now)
        facts = gather(tx, withdrawal, bundle, verdict, keys, destination, code, prices, now=now)
        spent = windows.Spent(tx, bundle, now=now)
        decision = decide(bundle, facts, spent)
        record = records.record(bundle, facts, spent.asked, decision) | {"screening": answer.describe()}
        if code is not None:
            record["code"] = code.describe()
        if destination is not None and destination.lookalikes:
            record["lookalikes"] = list(destination.lookalikes)
        _carry_out(tx, withdrawal, decision, record)
    return 1


def _destination(
    tx: Tx, withdrawal: Withdrawal, bundle: Bundle, ends: Ends, *, now: int
) -> Destination | None:
    """What is known of the destination; None for an order that is not genuine, which makes none known."""
    if _examine(withdrawal, bundle, now=now) != GENUINE:
        return None
    place = (withdrawal.customer, withdrawal.chain, withdrawal.destination)
    whitelist.note_destination(tx, *place, now=now)
    found = whitelist.look_up(tx, bundle, *place, now=now, ends=ends)
    if found.lookalikes:
        whitelist.warn(tx, str(withdrawal.id), withdrawal.destination, found.lookalikes)
    return found


def gather(
    tx: Tx,
    withdrawal: Withdrawal,
    bundle: Bundle,
    screening: Verdict,
    keys: Keys | None,
    destination: Destination | None,
    code: CodeSeen | None,
    prices: Prices | None,
    *,
    now: int,
) -> Facts:
    """Everything the policy is told. What cannot be found out is None, which denies where it is asked for."""
    account = repository.customer_state(tx, withdrawal.customer)
    since = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
    return replace(
        _told(withdrawal, now),
        value=worth(bundle, prices, withdrawal.asset, withdrawal.units),
        ownership=_ownership(tx, withdrawal, bundle),
        whitelist=None if destination is None else destination.whitelist,
        destination_age_seconds=None if destination is None else destination.age_seconds,
        ownership_proof=None if destination is None else destination.ownership_proof,
        lookalike=None if destination is None else bool(destination.lookalikes),
        contract=None if code is None else code.there,
        screening=screening,
        travel_rule=travelrule.is_attached(tx, keys, withdrawal),
        account=None if account is None else AccountState(account),
        order=_examine(withdrawal, bundle, now=now),
        halts=(),  # looked at before; nothing is decided under a halt
        reverts=repository.reverts_in_window(tx, withdrawal.chain, since).get(withdrawal.customer, 0),
    )


def _told(withdrawal: Withdrawal, now: int) -> Facts:
    """What the order says; of one that cannot be read nothing, which denies."""
    try:
        return facts_of(withdrawal.signed_order.order, now=now)
    except InvalidValue:
        return Facts(operation=Operation.WITHDRAWAL, now=now, id=str(withdrawal.id))


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


def _examine(withdrawal: Withdrawal, bundle: Bundle, *, now: int) -> str:
    """`genuine` if the stored row is what a caller signed who may still sign, to an address; else what is wrong."""
    try:
        order = check_row(withdrawal)
        caller = bundle.caller(order.caller)
        withdrawal.signed_order.verify(caller.key)
        if SIGNING_SCOPE not in caller.scopes or now >= caller.not_after:
            return f"caller {caller.id} may no longer sign orders"
        charged = int(bundle.asset(order.asset).withdrawal_fee)
        if withdrawal.fee_units < charged:
            return f"it was stored with a fee of {withdrawal.fee_units}, the bundle asks for {charged}"
        destination_of(bundle, order.chain, order.destination)
        return GENUINE
    except PermanentError as error:
        return str(error) or type(error).__name__


def _carry_out(tx: Tx, withdrawal: Withdrawal, decision: Decision, record: dict[str, Any]) -> None:
    if isinstance(decision, Wait):
        why = "; ".join(map(str, decision.reasons))[:1000]
        repository.record_decision(tx, withdrawal.id, record, tier=None, settlement=None)
        wanted = all(reason.code == TRAVEL_RULE for reason in decision.reasons)
        if wanted:
            repository.explain(
                tx, withdrawal.id, why
            )  # its caller has to do something: the feed says so, once
        repository.wait(tx, withdrawal.id, why, seconds=_DATA_SECONDS if wanted else _WAIT_SECONDS)
        return
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
    windows.count(tx, withdrawal.id, decision.counts)
    repository.set_delay(tx, withdrawal.id, decision.delay_seconds)
    repository.apply(tx, withdrawal, _event(decision), reason=_waits_for(decision))


def _event(route: Routed) -> WithdrawalEvent:
    if not nobody_asked(route.approvals):
        return WithdrawalEvent.ROUTE_TO_APPROVAL
    return WithdrawalEvent.ROUTE_TO_COOLING if route.delay_seconds else WithdrawalEvent.ROUTE_TO_QUEUE


def _waits_for(route: Routed) -> str:
    if not nobody_asked(route.approvals):
        return f"approval: {needed(route.approvals)}"
    if route.delay_seconds:
        return f"cooling: for {told_duration(route.delay_seconds)}"
    return "queued: for the next transaction" if route.tier != "ledger" else "queued: for the ledger"
