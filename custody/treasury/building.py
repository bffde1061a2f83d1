"""Carrying out: approved refills become recorded, unsigned transactions, out of whatever wallet."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from chains.errors import PermanentError
from custody.approvals import refills as approvals
from custody.reconcile.safes import SafeSource, differences
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.evm.safe_site import SafeSite
from custody.signing.evm.site import EvmSite
from custody.signing.site import Site
from custody.storage.db import Database
from custody.treasury import btc, evm, observing, repository, safe
from custody.treasury.carrying import Unready
from custody.treasury.lifecycle import RefillState
from custody.treasury.model import Refill
from custody.treasury.timing import why_later
from policies.bundle import EvmKeyset, EvmVault

_WAIT_SECONDS: Final = 30
"""Until a refill that cannot be built is looked at again."""


def carry_out(db: Database, site: Site, *, now: int) -> int:
    """Record what can be built of the approved refills out of a wallet; returns how many transactions.

    Payments come first: coins and balances that they wait for are not moved. What can wait does so for low fees. What
    is not built says why.

    Args:
        db: the database, as the worker's role.
        site: an active wallet.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; what was recorded before stays.
    """
    with db.snapshot() as tx:
        waiting = repository.buildable(tx, site.wallet.id, now=now)
        if not waiting or site.halted(tx) is not None:
            return 0
        states = {each.asset: each for each in observing.states(tx, site.bundle)}
        queued = {asset: observing.queued(tx, site.bundle, site.wallet.tier, asset)
                  for asset in {site.asset.id, *(each.asset for each in waiting)}}  # fmt: skip
    done = 0
    for refill in waiting:
        if refill.policy_version != site.bundle.version:
            continue
        try:
            if not _is_approved(db, site, refill, now):
                continue
            later = why_later(refill, states[refill.asset], now=now)
            if later is not None:
                raise Unready(later)
            _build(db, site, refill, queued, now)
            done += 1
        except Raced:
            continue
        except PermanentError as error:
            with db.transaction() as tx:
                repository.wait(tx, refill.id, str(error), seconds=_WAIT_SECONDS)
    return done


def _is_approved(db: Database, site: Site, refill: Refill, now: int) -> bool:
    """Whether its approvals count still. Else it waits for people again, or ends, whatever becomes of this step."""
    with db.transaction() as tx:
        claimed = repository.claim(tx, refill.id, [RefillState.APPROVED])
        return claimed is not None and approvals.is_approved(tx, claimed, site.bundle, now=now)


def _build(db: Database, site: Site, refill: Refill, queued: dict[str, int], now: int) -> UUID:
    _check_target(site, refill)
    if isinstance(site, BtcSite):
        return btc.build(db, site, refill, keep_sats=queued[refill.asset], now=now)
    if isinstance(site, EvmSite) and isinstance(site.wallet, EvmKeyset):
        keep, keep_wei = queued[refill.asset], queued[site.asset.id]
        return evm.build(db, site, refill, keep=keep, keep_wei=keep_wei, now=now)
    if isinstance(site, SafeSite):
        return safe.build(db, site, refill, keep=queued[refill.asset], now=now)
    raise Unready(f"nobody builds refills out of {site.wallet.id}")


def _check_target(site: Site, refill: Refill) -> None:
    """A Safe gets nothing that is not, on the chain, the vault of the bundle. Raises Unready."""
    target = site.bundle.wallet(refill.target)
    if not isinstance(target, EvmVault):
        return
    if not isinstance(site.node, SafeSource):
        raise Unready(f"{target.id}: the node of {site.chain} cannot say what it is")
    found = differences(target, site.node)
    if found:
        raise Unready(f"safe-differs: {target.id} is not what the bundle says: {'; '.join(found)}"[:900])
