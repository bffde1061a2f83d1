"""Queued withdrawals on their way into a transaction: which may be paid now, what they ask for, why others wait.

The same for every family. Everything is first read and chosen without a lock; then one short database transaction
claims the withdrawals and records the transaction that pays them (`record`). So `building` exists only inside it:
there is no claim that a crash could leave behind, and no node is asked while rows are locked. Of two workers that
choose the same, the database lets one commit; the other finds its withdrawals gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chains.errors import PermanentError
from custody.errors import OrderMismatch
from custody.ids import new_id
from custody.screening import cases
from custody.screening.cases import CaseKind
from custody.signing.errors import Raced
from custody.signing.recording import record_first
from custody.signing.requests import Built, Payee
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.treasury import repository as refills
from custody.withdrawals import repository as withdrawals
from custody.withdrawals.destinations import destination_of
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import check_row
from policies.decision import Reason
from policies.intent import Kind

REFUSED_BEFORE = "signer-refused"
"""Reason code of withdrawals that the signer has refused: each is then tried alone, so it stops no other."""


def ready(tx: Tx, site: Site, *, now: int) -> Sequence[Withdrawal]:
    """Withdrawals to pay now, oldest first: none while paying is halted, or while they gather.

    Withdrawals gather for a moment (`Pace.gather_seconds`): those that come together share a transaction.

    Args:
        tx: a snapshot.
        site: the wallet to pay from.
        now: UNIX seconds.
    """
    payable = withdrawals.payable(tx, site.chain, site.wallet.tier, limit=site.pace.batch_payments)
    full = len(payable) >= site.pace.batch_payments
    if not full and not withdrawals.gathered(
        tx, site.chain, site.wallet.tier, seconds=site.pace.gather_seconds
    ):
        return ()
    if site.halted(tx) is not None:
        return ()
    # What an older bundle has let through is decided again first.
    decided = [withdrawal for withdrawal in payable if withdrawal.policy_version == site.bundle.version]
    alive = [withdrawal for withdrawal in decided if withdrawal.expires_at.timestamp() > now]
    fresh = [withdrawal for withdrawal in alive if not withdrawal.reason.startswith(REFUSED_BEFORE)]
    return fresh or alive[:1]


def payee_of(withdrawal: Withdrawal, site: Site) -> Payee:
    """What a stored withdrawal asks to be paid, if it still says what its caller signed.

    Raises:
        PermanentError: a column was changed, the signature or the destination is not right.
    """
    order = check_row(withdrawal)
    asset = site.bundle.asset(order.asset)
    if asset.chain != site.chain:
        raise OrderMismatch("asset", f"one of {site.chain}", order.asset)
    withdrawal.signed_order.verify(site.bundle.caller(order.caller).key)
    return Payee(withdrawal.signed_order, destination_of(site.bundle, order.chain, order.destination))


def payees(db: Database, site: Site, payable: Sequence[Withdrawal]) -> list[Payee]:
    """What they ask to be paid now. Those that are not what their callers signed wait, with an alert; so do those that
    are above what the tier pays since officers have lowered it."""
    genuine, broken = [], []
    for withdrawal in payable:
        try:
            genuine.append(payee_of(withdrawal, site))
        except PermanentError as error:
            broken.append((withdrawal, error))
    if broken:
        _report_broken(db, site, broken)
    return _within_caps(db, site, genuine)


def _within_caps(db: Database, site: Site, genuine: list[Payee]) -> list[Payee]:
    """Without the payments that no signer of this tier would sign: they wait, and belong to no other tier by that."""
    if site.bundle.overlay is None:
        return genuine  # the policy routes nothing above what its quorum lets the tier pay
    below = {cap.asset: int(cap.payment_below) for cap in site.bundle.caps if cap.tier == site.wallet.tier}
    beyond = [each for each in genuine if each.units >= below.get(each.signed.order.asset, 0)]
    if beyond:
        with db.transaction() as tx:
            for payee in beyond:
                asset = payee.signed.order.asset
                told = f"a payment must stay below {site.bundle.told(asset, below.get(asset, 0))} now"
                withdrawals.wait(
                    tx,
                    UUID(payee.signed.order.id),
                    f"payment-cap: {told}",
                    seconds=site.pace.refused_seconds,
                )
    return [payee for payee in genuine if payee not in beyond]


def _report_broken(db: Database, site: Site, broken: Sequence[tuple[Withdrawal, PermanentError]]) -> None:
    with db.transaction() as tx:
        for withdrawal, error in broken:
            withdrawals.wait(
                tx, withdrawal.id, f"order-not-genuine: {error}", seconds=site.pace.refused_seconds
            )
            alerts.raise_alert(
                tx,
                Severity.CRITICAL,
                "withdrawal.tampered",
                str(withdrawal.id),
                f"the stored withdrawal is not what its caller signed: {error}",
                {},
            )


def wait(db: Database, site: Site, waiting: Sequence[tuple[Payee, Reason]]) -> None:
    """Leave withdrawals in the queue with their reason; missing funds raise an alert until there are enough."""
    with db.transaction() as tx:
        for payee, reason in waiting:
            told = f"{reason}{_coming(tx, site, payee, reason)}"
            withdrawals.wait(tx, UUID(payee.signed.order.id), told, seconds=site.pace.wait_seconds)
        short = [
            (payee.signed.order.id, str(reason))
            for payee, reason in waiting
            if reason.code == f"insufficient-{site.wallet.tier}-funds"
        ]
        if short:
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "tier.insufficient_funds",
                site.wallet.id,
                f"{len(short)} {'withdrawal waits' if len(short) == 1 else 'withdrawals wait'} for funds in"
                f" {site.wallet.id}; {short[0][1]}",
                {"withdrawals": [withdrawal for withdrawal, _ in short]},
            )
        else:
            alerts.resolve_alert(tx, "tier.insufficient_funds", site.wallet.id)


def _coming(tx: Tx, site: Site, payee: Payee, reason: Reason) -> str:
    """What is on its way to a tier that lacks it."""
    if reason.code != f"insufficient-{site.wallet.tier}-funds":
        return ""
    refill = refills.coming(tx, site.wallet.id, payee.signed.order.asset)
    if refill is None:
        return ""
    amount = site.bundle.told(refill.asset, refill.units)
    return f"; refill {refill.id} of {amount} from {refill.source} is {refill.state}"


def claim(tx: Tx, site: Site, chosen: Sequence[Payee]) -> list[Withdrawal]:
    """Lock the withdrawals that a transaction is to pay.

    Raises:
        Raced: one of them is taken, or stopped by screening, or paying is halted.
    """
    if site.halted(tx) is not None:
        raise Raced("paying was halted meanwhile")
    claimed = []
    for withdrawal_id in sorted(UUID(payee.signed.order.id) for payee in chosen):
        withdrawal = withdrawals.claim(tx, withdrawal_id, [WithdrawalState.QUEUED])
        if withdrawal is None:
            raise Raced(f"withdrawal {withdrawal_id} was taken or cancelled meanwhile")
        if withdrawal.policy_version != site.bundle.version:
            raise Raced(f"withdrawal {withdrawal_id} was decided again meanwhile")
        if site.halted(tx, withdrawal.asset, withdrawal.customer) is not None:
            raise Raced(f"paying {withdrawal.asset} to {withdrawal.customer} was halted meanwhile")
        claimed.append(withdrawal)
    if cases.stopped(tx, CaseKind.WITHDRAWAL, [withdrawal.id for withdrawal in claimed]):
        raise Raced("screening found something meanwhile")
    return claimed


def record(
    tx: Tx, site: Site, claimed: Sequence[Withdrawal], built: Built, *, change_index: int | None = None
) -> UUID:
    """Record the transaction that pays claimed withdrawals; returns its id. Raises Raced: a resource is taken."""
    transaction_id = new_id()
    record_first(
        tx, site, transaction_id, Kind.PAYMENT, built, change_index=change_index, payments=len(claimed)
    )
    for withdrawal in claimed:
        building = withdrawals.apply(tx, withdrawal, WithdrawalEvent.CLAIM)
        withdrawals.attach(tx, withdrawal.id, transaction_id)
        withdrawals.apply(tx, building, WithdrawalEvent.RECORD, detail={"transaction": str(transaction_id)})
    return transaction_id
