"""When an approved move is built: what can wait does so for low fees, and not for ever. Pure.

A move is proposed by what fees were then; people may answer hours later.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from custody.treasury.model import Refill
from custody.treasury.planner import LEAD_SECONDS, URGENT_PERCENT, AssetState, TierState, Why, bound, forecast

PATIENCE_SECONDS: Final[Mapping[str, int]] = {Why.EXCESS: 24 * 3600, Why.LOW: 2 * 3600}
"""By what a move is for: so long after it was proposed it waits for low fees at most. Nothing else waits for them."""


def why_later(refill: Refill, state: AssetState, *, now: int) -> str | None:
    """Why a move should not be built yet; None: it should be, as far as fees go.

    Args:
        refill: approved, and counted in `state` as on its way.
        state: of its asset, at present.
        now: UNIX seconds.
    """
    patience, fees = PATIENCE_SECONDS.get(refill.why), state.fees
    if patience is None or fees is None or fees.low or _pressing(refill, state):
        return None
    until = refill.created_at + timedelta(seconds=patience)
    if now >= until.timestamp():
        return None
    percent = fees.now * 100 // fees.long_term
    return f"fees: they are {percent} % of what counts as low; it waits for less, until {until:%Y-%m-%d %H:%M} UTC"


def _pressing(refill: Refill, state: AssetState) -> bool:
    """Whether somebody would miss the money, or far too much is where it may be stolen."""
    source, target = (_at(state, wallet) for wallet in (refill.source, refill.target))
    if refill.why == Why.EXCESS:
        return source is not None and _far_too_much(refill, state, source)
    if target is None:
        return False
    level = target.level_units - refill.units
    left = forecast(level, state.outflow).seconds_left if target.tier == "hot" else None
    return level < 0 or (left is not None and left < LEAD_SECONDS)


def _far_too_much(refill: Refill, state: AssetState, source: TierState) -> bool:
    most = bound(state, source.tier)
    levels = [] if most is None else [(most, source.level_units)]
    both = bound(state, "hot", "warm")
    if both is not None and _at(state, refill.target) == state.tiers.get("cold"):
        held = [state.tiers[tier].level_units for tier in ("hot", "warm") if tier in state.tiers]
        levels.append((both, sum(max(0, level) for level in held)))
    return any(
        (level + refill.units - each.most_units) * 100 >= each.most_units * URGENT_PERCENT
        for each, level in levels
    )


def _at(state: AssetState, wallet: str) -> TierState | None:
    return next((tier for tier in state.tiers.values() if tier.wallet == wallet), None)
