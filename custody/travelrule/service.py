"""Attaching travel-rule data to withdrawals, reading it, and delivering it. It is in no log, event or alert."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from chains.errors import PermanentError, TransientError
from custody.errors import OrderMismatch
from custody.lifecycle import ImpossibleTransition
from custody.storage import alerts, events
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.storage.sealing import CannotOpen, Keys
from custody.travelrule import ivms101, repository
from custody.travelrule.ivms101 import TravelRuleData
from custody.travelrule.ports import Transfer, TravelRuleExchange
from custody.travelrule.repository import Attached, place_of
from custody.withdrawals import service as withdrawals
from custody.withdrawals.lifecycle import WithdrawalState
from custody.withdrawals.model import Withdrawal
from policies.bundle import Caller

BATCH: Final = 50
ALERT_AFTER: Final = 3
"""Failed deliveries of one withdrawal's data before somebody must look."""
_BACK_OFF_SECONDS: Final = (5, 15, 60, 300, 900, 3600)
_ENDED: Final = frozenset(
    {
        WithdrawalState.SETTLED,
        WithdrawalState.REJECTED,
        WithdrawalState.CANCELLED,
        WithdrawalState.EXPIRED,
        WithdrawalState.FAILED,
    }
)


class DifferentData(PermanentError):
    """Other data is attached to this withdrawal already; what a caller said stays."""

    def __init__(self, withdrawal: str) -> None:
        super().__init__(f"withdrawal {withdrawal} has other travel-rule data")
        self.withdrawal = withdrawal


def attach(tx: Tx, keys: Keys, withdrawal_id: UUID, data: TravelRuleData, caller: Caller) -> Attached:
    """Attach data to a withdrawal of the caller's. The same again changes nothing.

    Raises:
        NotFound: there is no such withdrawal.
        OrderMismatch: another caller's, or the beneficiary's account is not the destination.
        ImpossibleTransition: it has ended.
        DifferentData: other data is attached.
    """
    withdrawal = withdrawals.get(tx, withdrawal_id)
    if withdrawal.caller != caller.id:
        raise OrderMismatch("caller", withdrawal.caller, caller.id)
    if withdrawal.destination not in data.beneficiary.account_number:
        raise OrderMismatch(
            "destination", withdrawal.destination, "another", "the beneficiary's accountNumber must name it"
        )
    place, canonical = place_of(withdrawal_id), data.canonical()
    found = repository.find(tx, withdrawal_id)
    if found is None:
        if withdrawal.state in _ENDED:
            raise ImpossibleTransition("withdrawal", withdrawal.state, "attach")
        state = "kept" if data.other_vasp is None else "pending"
        fingerprint = keys.fingerprint(place, canonical)
        if repository.insert(tx, withdrawal_id, keys.seal(place, canonical), fingerprint, caller.id, state):
            events.emit(tx, "withdrawal.travel_rule_attached", str(withdrawal_id), {"by": caller.id})
        found = repository.find(tx, withdrawal_id)
        assert found is not None
    if keys.fingerprint(place, canonical, found.fingerprint_key)[1] != found.fingerprint:
        raise DifferentData(str(withdrawal_id))
    return found


def data_of(tx: Tx, keys: Keys, withdrawal: Withdrawal) -> TravelRuleData | None:
    """What is attached to a withdrawal; None if nothing is. As the workers' role.

    Raises:
        CannotOpen: it was changed, or belongs to another withdrawal.
        InvalidValue: it is not in the form in which it is stored.
        OrderMismatch: it is about another destination.
    """
    sealed = repository.sealed(tx, withdrawal.id)
    return None if sealed is None else _opened(keys, withdrawal, sealed)


def _opened(keys: Keys, withdrawal: Withdrawal, sealed: bytes) -> TravelRuleData:
    data = ivms101.read(keys.open(place_of(withdrawal.id), sealed))
    if withdrawal.destination not in data.beneficiary.account_number:
        raise OrderMismatch("destination", withdrawal.destination, "another")
    return data


def is_attached(tx: Tx, keys: Keys | None, withdrawal: Withdrawal) -> bool:
    """The fact for the policy: whole and readable data is attached. What was tampered with counts as none, with an
    alert; so does everything in an installation without keys."""
    if keys is None:
        return False
    try:
        return data_of(tx, keys, withdrawal) is not None
    except PermanentError as error:
        _tampered(tx, withdrawal.id, error)
        return False


def deliver(db: Database, exchange: TravelRuleExchange, keys: Keys) -> int:
    """Hand over what is due; returns how much was. It is handed over again if a crash comes before it is recorded.

    Raises:
        DatabaseUnavailable, Conflict: what was handed over is recorded at the next pass.
    """
    with db.snapshot() as tx:
        due = repository.due(tx, BATCH)
    return sum(_deliver_one(db, exchange, keys, withdrawal_id) for withdrawal_id in due)


def _deliver_one(db: Database, exchange: TravelRuleExchange, keys: Keys, withdrawal_id: UUID) -> int:
    with db.snapshot() as tx:
        withdrawal = withdrawals.get(tx, withdrawal_id)
        sealed = repository.sealed(tx, withdrawal_id)
    if sealed is None:
        return 0
    try:
        transfer = Transfer(
            str(withdrawal.id),
            withdrawal.chain,
            withdrawal.asset,
            str(withdrawal.units),
            withdrawal.destination,
            _opened(keys, withdrawal, sealed),
        )
        reference = exchange.deliver(transfer)
    except TransientError as error:
        _later(db, withdrawal_id, error)
        return 0
    except PermanentError as error:
        _give_up(db, withdrawal_id, error)
        return 0
    with db.transaction() as tx:
        if repository.delivered(tx, withdrawal_id, reference):
            events.emit(tx, "withdrawal.travel_rule_delivered", str(withdrawal_id), {})
        alerts.resolve_alert(tx, "travel_rule.undelivered", str(withdrawal_id))
    return 1


def _later(db: Database, withdrawal_id: UUID, error: TransientError) -> None:
    with db.transaction() as tx:
        before = repository.find(tx, withdrawal_id)
        attempts = 0 if before is None else before.attempts
        seconds = _BACK_OFF_SECONDS[min(attempts, len(_BACK_OFF_SECONDS) - 1)]
        if repository.failed(tx, withdrawal_id, _told(error), seconds=seconds) >= ALERT_AFTER:
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "travel_rule.undelivered",
                str(withdrawal_id),
                f"travel-rule data of withdrawal {withdrawal_id} could not be delivered {attempts + 1} times:"
                f" {_told(error)}",
                {},
            )


def _give_up(db: Database, withdrawal_id: UUID, error: PermanentError) -> None:
    with db.transaction() as tx:
        repository.refused(tx, withdrawal_id, _told(error))
        if isinstance(error, CannotOpen):
            _tampered(tx, withdrawal_id, error)
        alerts.resolve_alert(tx, "travel_rule.undelivered", str(withdrawal_id))
        alerts.raise_alert(
            tx,
            Severity.CRITICAL,
            "travel_rule.refused",
            str(withdrawal_id),
            f"travel-rule data of withdrawal {withdrawal_id} is not delivered: {_told(error)}",
            {},
        )


def _tampered(tx: Tx, withdrawal_id: UUID, error: PermanentError) -> None:
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        "travel_rule.tampered",
        str(withdrawal_id),
        f"the travel-rule data of withdrawal {withdrawal_id} cannot be used: {_told(error)}",
        {},
    )


def _told(error: Exception) -> str:
    # Only sentences of our own: they quote nothing of what was sent.
    return f"{type(error).__name__}: {error}"[:200]
