"""Building: queued withdrawals become one recorded, unsigned transaction. See `custody.signing.paying`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from custody.signing import paying, repository
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import assemble
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import WOULD_REVERT, Fitted, Sharing, plan, too_high
from custody.signing.evm.site import AccountSite, EvmSite
from custody.signing.requests import Payee, payment_intents
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database
from custody.withdrawals import reverts
from policies.decision import Reason


def build(db: Database, site: EvmSite, now: int) -> UUID | None:
    """Record one transaction that pays what can be paid; see `custody.signing.build`."""
    with db.snapshot() as tx:
        ready = paying.ready(tx, site, now=now)
        held = reverts.stopped(tx, ready, now=now)
        found = funds.committed(tx, site)
        in_flight = nonces.unconfirmed(tx, site.chain, site.wallet.id)
        spoilt = repository.batch_failed(tx, site.chain, site.wallet.id, seconds=site.pace.alone_seconds)
    if not ready or found is None:
        return None
    if held:
        with db.transaction() as tx:
            reverts.hold_back(tx, held, seconds=site.pace.wait_seconds)
    stopped = {withdrawal.id for withdrawal, _ in held}
    payees = paying.payees(db, site, [each for each in ready if each.id not in stopped])
    if not payees:
        return None
    price = site.node.gas_price()
    reason = queue_full(site, in_flight) or too_high(site, price)
    if reason is not None:
        paying.wait(db, site, [(payee, reason) for payee in payees])
        return None
    used = site.node.nonce(site.sender, site.node.tip())
    available = funds.available(site, found, {payee.signed.order.asset for payee in payees})
    chosen = plan(site, payees, price, available, Sharing.ENDED if spoilt else Sharing.ALLOWED)
    paying.wait(db, site, chosen.waiting)
    warn_of_reverts(db, chosen.waiting)
    if chosen.fitted is None:
        return None
    try:
        return _record(db, site, chosen.fitted, found, used)
    except Raced:
        return None


def _record(db: Database, site: EvmSite, fitted: Fitted, seen: Committed, used: int) -> UUID:
    """The one transaction in which withdrawals are claimed and the transaction that pays them is recorded."""
    with db.transaction() as tx:
        claimed = paying.claim(tx, site, fitted.payees)
        nonce = nonces.take(tx, site.chain, site.account, used=used)
        # Whoever takes a nonce waits for the one before, so money that is on its way is counted by everybody.
        if funds.committed(tx, site) != seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        built = assemble(
            site,
            fitted.draft,
            payment_intents(fitted.payees, site),
            [payee.signed for payee in fitted.payees],
            nonce=nonce,
            gas_limit=fitted.gas_limit,
            offer=fitted.offer,
        )
        for withdrawal in claimed:
            alerts.resolve_alert(tx, "withdrawal.would_revert", str(withdrawal.id))
        return paying.record(tx, site, claimed, built)


def queue_full(site: AccountSite, in_flight: int) -> Reason | None:
    """Why nothing more is built now, if so many transactions wait for a block."""
    if in_flight < site.pace.unconfirmed_at_most:
        return None
    return Reason("queue-full", f"{in_flight} transactions of {site.wallet.id} are in no block yet")


def warn_of_reverts(db: Database, waiting: Sequence[tuple[Payee, Reason]]) -> None:
    """Tell a person of the payments that are not signed because they would fail."""
    failing = [(payee, reason) for payee, reason in waiting if reason.code == WOULD_REVERT]
    if not failing:
        return
    with db.transaction() as tx:
        for payee, reason in failing:
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "withdrawal.would_revert",
                payee.signed.order.id,
                f"it is not signed as long as its payment would fail: {reason.detail}",
                {},
            )
