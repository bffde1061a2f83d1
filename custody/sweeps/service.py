"""Sweeping: one call does what can be done now for one wallet, whatever its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from custody.signing.btc.site import BtcSite
from custody.signing.evm.site import EvmSite
from custody.signing.site import Site
from custody.storage.db import Database
from custody.sweeps import btc, evm
from custody.sweeps.model import SweepPace
from custody.sweeps.rotation import rotate

_SWEEP: Final[Mapping[type[Site], Callable[[Database, Any, SweepPace, int], int]]] = {
    BtcSite: btc.consolidate,
    EvmSite: evm.flush,
}


def sweep(db: Database, site: Site, pace: SweepPace, *, now: int) -> int:
    """Look at what final sweeps left, and record new ones; returns how much was done. Again changes nothing more.

    What is recorded goes to the signer and to the node like payments do (`custody.signing`).

    Args:
        db: the database, as the worker's role.
        site: a hot wallet; what one that is no longer active holds is moved to the one that is.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    # The keys that have to go on gathering what still comes to their addresses can do so only while they are trusted.
    gathers = site.wallet.state == "active" or (
        site.wallet.state == "deactivated" and isinstance(site, EvmSite)
    )
    done = _SWEEP[type(site)](db, site, pace, now) if gathers else 0
    if site.wallet.state in ("deactivated", "compromised"):
        done += rotate(db, site, pace, now)
    return done
