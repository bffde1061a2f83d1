"""The steps that each family of chains does in its own way. Everything else in this package is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from custody.signing.btc import build as btc_build
from custody.signing.btc import bump as btc_bump
from custody.signing.btc.site import BtcSite
from custody.signing.evm import build as evm_build
from custody.signing.evm import bump as evm_bump
from custody.signing.evm import execute, safe_build, safe_cancel
from custody.signing.evm import fill as evm_fill
from custody.signing.evm.plan import present_price
from custody.signing.evm.safe_site import SafeSite
from custody.signing.evm.site import EvmSite, GasPayerSite
from custody.signing.site import Site
from custody.storage.db import Database


@dataclass(frozen=True, slots=True)
class Steps:
    """One family's own steps; `Any` is its kind of site."""

    build: Callable[[Database, Any, int], UUID | None]
    """Record one transaction that pays what can be paid at a time (UNIX seconds); None if nothing can be."""
    replace: Callable[[Database, Any, UUID, int | None], int]
    """Record a replacement at a feerate, or at the present one; returns its version number."""
    stuck: Callable[[Database, Any], Sequence[tuple[UUID, int | None]]]
    """Transactions that have waited long below the present fees, and at which feerate to replace each (None: the
    present one)."""
    fill: Callable[[Database, Any], UUID | None] | None
    """Record what fills a gap that stops others, if there is one. None: this family has no gaps."""
    price: Callable[[Any], int]
    """What the network asks for now, by its node: sat/kvB, or wei per gas."""


_STEPS: Final[Mapping[type[Site], Steps]] = {
    BtcSite: Steps(btc_build.build, btc_bump.replace, btc_bump.stuck, None, btc_build.price),
    EvmSite: Steps(
        evm_build.build, evm_bump.replace_transaction, evm_bump.stuck, evm_fill.fill, present_price
    ),
    GasPayerSite: Steps(
        execute.build, evm_bump.replace_transaction, evm_bump.stuck, evm_fill.fill, present_price
    ),
    SafeSite: Steps(
        safe_build.build, safe_build.replace_transaction, safe_build.stuck, safe_cancel.fill, present_price
    ),
}


def steps_of(site: Site) -> Steps:
    """The steps of a site's family."""
    return _STEPS[type(site)]
