"""What owners of a Safe have signed, and its payee keeps from being carried out: it holds up all that follows, as a
Safe's nonces go one after the other. Members of a warm Safe are daemons, so it is cancelled by itself; holders of a
cold one are asked by people.
"""

from __future__ import annotations

from typing import Final, Literal

from custody.signing.errors import BumpRefused, Raced
from custody.signing.evm import safe_cancel
from custody.signing.evm.safe_site import safe_site
from custody.signing.evm.site import GasPayerSite
from custody.signing.model import OurTransaction
from custody.signing.sessions import repository as sessions
from custody.storage.db import Database, Tx
from policies.bundle import EvmVault
from policies.decision import Reason
from policies.intent import Kind

WAITS: Final = "execution.waits"
"""Alert: a Safe's complete transaction cannot be carried out now. Its subject is that transaction."""
_ITS_PAYEES: Final = frozenset({"would-revert", "gas-cap"})
"""Reasons that are up to whom it calls. Others (fees, the gas payer's money) would keep a cancellation, too."""


def give_up(
    db: Database, site: GasPayerSite, vault: EvmVault, serves: OurTransaction, reason: Reason
) -> None:
    """Cancel what has been stuck for long, if its Safe's members do that by themselves: a transaction of nothing takes
    its nonce. What it serves fails, and its hold is released, once that is final; not before. Again changes nothing.
    """
    safe = safe_site(site.bundle, vault, site.node, pace=site.pace)
    if not _cancels_by_itself(vault, serves, reason) or not safe.signs(Kind.CANCELLATION):
        return
    with db.snapshot() as tx:
        if Kind.CANCELLATION not in safe.allowed(tx):
            return
    try:
        safe_cancel.cancel(db, safe, serves.id, f"it could not be carried out for long: {reason}"[:500])
    except (BumpRefused, Raced):
        return  # it was carried out or given up meanwhile


def kept_by(reason: Reason) -> Literal["payee", "us"]:
    """Who keeps it from being carried out: time counts for each by itself."""
    return "payee" if reason.code in _ITS_PAYEES else "us"


def what_to_do(tx: Tx, vault: EvmVault, serves: OurTransaction, reason: Reason) -> str:
    """The end of a sentence for operators."""
    if reason.code not in _ITS_PAYEES or serves.kind == Kind.CANCELLATION:
        return ""
    if _cancels_by_itself(vault, serves, reason):
        return ", so it is cancelled now; its money stays held until that is final"
    asked = sessions.of_transaction(tx, serves.id)
    request = asked[-1].id if asked else serves.id
    return f". If its payee does not mend it: strongroom cold cancel {request} --reason '...'"


def _cancels_by_itself(vault: EvmVault, serves: OurTransaction, reason: Reason) -> bool:
    stuck = reason.code in _ITS_PAYEES and serves.kind in (Kind.PAYMENT, Kind.REFILL)
    return stuck and vault.tier == "warm"
