"""Coins of ours that transactions of strangers spent: somebody else signs with our key, or we have forgotten a payment.

At first sight the monitor halts all paying, until an operator lifts that; not where the bundle says that the keys are
compromised: whoever has them must not stop everybody by spending dust. Once the foreign transaction is final the
loss is the house's: it is booked to suspense, so that ledger and chain agree again. If a reorg undoes it, so is the
booking.

A coin that a reorg took away is none that was stolen: it exists no longer, nobody spent it, and its deposit was
clawed back.
"""

from __future__ import annotations

from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.signing import loss_repository, repository
from custody.signing.model import ForeignSpend, Loss
from custody.signing.site import Site
from custody.storage import alerts, events
from custody.storage.alerts import Severity
from custody.storage.db import Database, Isolation, Tx
from policies.bundle import Bundle

ALERT = "coin.lost"


def book_losses(db: Database, site: Site) -> int:
    """Book and reverse as the chain's facts ask for; returns how many bookings were made or reversed.

    Facts, cursor and bookings are of one moment (REPEATABLE READ); of two workers one wins.

    Raises:
        Conflict, DatabaseUnavailable: nothing was booked; the next call does it.
    """
    with db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:
        anchor = repository.anchor(tx, site.chain)
        if anchor is None:
            return 0
        undone = loss_repository.undone(tx, site.chain)
        spends = loss_repository.foreign_spends(tx, site.chain)
        for loss in undone:
            _reverse(tx, loss)
        final = [spend for spend in spends if anchor - spend.height + 1 >= site.network.settle_blocks]
        for spend in final:
            _book(tx, site.bundle, spend)
        return len(undone) + len(final)


def _book(tx: Tx, bundle: Bundle, spend: ForeignSpend) -> None:
    n = loss_repository.record(tx, spend)
    ledger.post_all(
        tx,
        [
            bookings.book_loss(
                spend.chain,
                spend.resource,
                n,
                asset=spend.asset,
                wallet=spend.keyset,
                units=spend.units,
            )
        ],
    )
    data = _data(spend)
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        ALERT,
        spend.resource,
        f"{spend.txid}, which is not ours, spent {bundle.told(spend.asset, spend.units)} of {spend.keyset} and is"
        " final: the loss is in suspense. Paying was halted at first sight, unless the keys were known to be"
        " compromised",
        data,
    )
    events.emit(tx, ALERT, spend.resource, data)


def _reverse(tx: Tx, loss: Loss) -> None:
    loss_repository.record_undone(tx, loss)
    ledger.post_all(tx, [bookings.unbook_loss(loss.spend.chain, loss.spend.resource, loss.bookings)])
    alerts.resolve_alert(tx, ALERT, loss.spend.resource)
    events.emit(tx, "coin.loss_undone", loss.spend.resource, _data(loss.spend))


def _data(spend: ForeignSpend) -> dict[str, str]:
    return {
        "chain": spend.chain,
        "resource": spend.resource,
        "keyset": spend.keyset,
        "asset": spend.asset,
        "units": str(spend.units),
        "txid": spend.txid,
    }
