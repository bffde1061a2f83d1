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

_SWEEP: Final[Mapping[type[Site], Callable[[Database, Any, SweepPace, int], int]]] = {
    BtcSite: btc.consolidate,
    EvmSite: evm.flush,
}


def sweep(db: Database, site: Site, pace: SweepPace, *, now: int) -> int:
    """Look at what final sweeps left, and record new ones; returns how much was done. Again changes nothing more.

    What is recorded goes to the signer and to the node like payments do (`custody.signing`).

    Args:
        db: the database, as the worker's role.
        site: the hot wallet.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    return _SWEEP[type(site)](db, site, pace, now)
