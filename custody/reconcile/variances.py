"""Booking what a node has of an EVM wallet beyond or below what blocks say, once it is final.

A variance is found at a finalised block. Should that block leave the best chain after all, its booking is reversed;
what is still there is found again at the next finalised block.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from custody.errors import Conflict
from custody.ledger import bookings
from custody.ledger import service as ledger
from custody.ledger.model import AccountKind
from custody.reconcile import records
from custody.reconcile.model import Booking, StaleVariance, VarianceKind
from custody.storage.alerts import Severity, raise_alert
from custody.storage.db import Database, Isolation
from custody.storage.events import emit

_ACCOUNT: Final[Mapping[VarianceKind, AccountKind]] = {
    VarianceKind.SURPLUS: AccountKind.SUSPENSE,
    VarianceKind.TOKEN_FEE: AccountKind.NETWORK_FEES,
    VarianceKind.LOSS: AccountKind.SUSPENSE,
    VarianceKind.FLUSHED: AccountKind.SUSPENSE,
}
_SEVERITY: Final[Mapping[VarianceKind, Severity]] = {
    VarianceKind.SURPLUS: Severity.INFO,
    VarianceKind.TOKEN_FEE: Severity.WARNING,
    VarianceKind.LOSS: Severity.CRITICAL,
    VarianceKind.FLUSHED: Severity.INFO,
}
_SAYS: Final[Mapping[VarianceKind, str]] = {
    VarianceKind.SURPLUS: "came by no way that we watch, and are in suspense",
    VarianceKind.TOKEN_FEE: "were kept by the token while it was swept, and are the house's network fees",
    VarianceKind.LOSS: "left by a transaction that is not ours and is final: the loss is in suspense",
    VarianceKind.FLUSHED: "moved between wallets of ours: forwarders of one pay the key of the other",
}


def book(db: Database, booking: Booking) -> bool:
    """Book a variance, unless another worker has, or its block has left the best chain; True if it was booked here.

    Raises:
        DatabaseUnavailable: nothing was booked; the next reconciliation finds it again.
    """
    try:
        with db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:
            if not records.in_chain(tx, booking.key.chain, booking.block) or not records.insert_variance(
                tx, booking
            ):
                return False
            id_ = records.variance_id(booking)
            key = booking.key
            command = bookings.book_variance(
                id_, asset=key.asset, wallet=key.wallet, units=booking.units, account=_ACCOUNT[booking.kind]
            )
            ledger.post_all(tx, [command])
            data = {
                "id": str(id_),
                "chain": key.chain,
                "keyset": key.wallet,
                "asset": key.asset,
                "units": str(booking.units),
                "block": str(booking.block),
            }
            message = f"{key.told(abs(booking.units))} in {key.wallet} {_SAYS[booking.kind]}"
            kind = f"variance.{booking.kind}"
            raise_alert(tx, _SEVERITY[booking.kind], kind, f"{key.wallet}:{key.asset}", message, data)
            emit(tx, kind, str(id_), data)
            return True
    except Conflict:
        return False  # another worker books it at this moment


def reverse(db: Database, stale: StaleVariance) -> bool:
    """Reverse the booking of a variance whose block has left the best chain; False if it was reversed before.

    Raises:
        DatabaseUnavailable: nothing was reversed; the next reconciliation finds it again.
    """
    try:
        with db.transaction(isolation=Isolation.REPEATABLE_READ) as tx:
            if not records.undo_variance(tx, stale.id):
                return False
            ledger.post_all(tx, [bookings.unbook_variance(stale.id)])
            emit(tx, "variance.undone", str(stale.id), {"id": str(stale.id), "units": str(stale.units)})
            return True
    except Conflict:
        return False
