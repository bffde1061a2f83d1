"""Rotation: what a key-set that is no longer active holds is moved to the active one of its chain and tier.

Deposits still come to its addresses for years; each is credited as ever, and then moved. Those of a compromised key-set
are moved even while paying is halted, for whoever has its keys does not wait, and are credited only afterwards: who can
take his own deposit back would be paid for nothing (`custody.deposits.service`). Nor does such a rescue wait for
payments of those keys that are on their way: it takes their coins and nonces (`custody.sweeps.rescue`).
"""

from __future__ import annotations

from chains.errors import InvalidValue, Reorganised
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.evm.site import EvmSite
from custody.signing.site import Site
from custody.storage.db import Database
from custody.sweeps import repository
from custody.sweeps.model import SweepPace
from custody.sweeps.planner import must_wait
from custody.sweeps.rescue import give_way
from custody.sweeps.rotation_btc import rotate_coins
from custody.sweeps.rotation_evm import rotate_account
from policies.bundle import BitcoinKeyset, EvmKeyset
from policies.intent import Kind


def rotate(db: Database, site: Site, pace: SweepPace, now: int) -> int:
    """Record what can be moved now; returns how many transactions. Again changes nothing more.

    Args:
        db: the database, as the worker's role.
        site: the wallet of the key-set that is no longer active.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; what was recorded before stays.
    """
    if site.rescuing:
        give_way(db, site)
    with db.snapshot() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            return 0
        times, last = repository.last_trouble(tx, site.chain, site.wallet.id, Kind.ROTATION)
        # A thief who spoils a rescue, or a bundle that changes under it, must not make the next one wait ever longer.
        if must_wait(min(times, 1) if site.rescuing else times, last, pace, now):
            return 0
    try:
        target = site.bundle.keyset_for(site.chain, site.wallet.tier)
    except InvalidValue:
        return 0  # the quorum has not named the next one yet
    try:
        if isinstance(site, BtcSite) and isinstance(target, BitcoinKeyset):
            return rotate_coins(db, site, target, pace)
        if isinstance(site, EvmSite) and isinstance(target, EvmKeyset):
            return rotate_account(db, site, target)
    except (Raced, Reorganised):
        pass  # another worker was quicker, or the chain moves: the next call looks again
    return 0
