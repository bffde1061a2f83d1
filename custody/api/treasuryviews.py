"""Tiers and refills as the JSON of `schemas`; base units become decimals here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from custody.api import schemas
from custody.api.views import decimal
from custody.storage.db import Row
from custody.treasury.holdings import Holding, Together
from custody.treasury.model import Refill
from policies.bundle import Bundle


def tiers(
    bundle: Bundle, found: Sequence[Holding], together: Sequence[Together], refills: Sequence[Refill]
) -> schemas.Tiers:
    """What the tiers may pay and hold, and what moves between them."""
    return schemas.Tiers(
        bundle_version=bundle.version,
        items=[tier(bundle, holding) for holding in found],
        together=[
            schemas.TogetherOut(
                tiers=list(each.tiers),
                asset=each.asset,
                holds=decimal(bundle, each.asset, each.units),
                holding_cap=decimal(bundle, each.asset, each.most_units),
            )
            for each in together
        ],
        refills=[refill(bundle, each) for each in refills],
    )


def tier(bundle: Bundle, holding: Holding) -> schemas.TierOut:
    """One tier and asset."""
    asset, bound, ahead = holding.asset, holding.bound, holding.forecast
    cap = next((each for each in bundle.caps if (each.tier, each.asset) == (holding.tier, asset)), None)
    mark = None if bound is None or bound.refill_percent is None else bound.most_units * bound.refill_percent
    share = holding.share_basis_points

    def told(units: int) -> str:
        return decimal(bundle, asset, units)

    return schemas.TierOut(
        tier=holding.tier,
        asset=asset,
        chain=bundle.asset(asset).chain,
        keyset=holding.wallet,
        payment_below=None if cap is None else told(int(cap.payment_below)),
        window_cap=None if cap is None else told(int(cap.window_cap)),
        window_seconds=None if cap is None else cap.window_seconds,
        holds=told(holding.units),
        share=None if share is None else f"{share // 100}.{share % 100:02}",
        holding_cap=None if bound is None else told(bound.most_units),
        target=None if bound is None else told(bound.target_units),
        refill_below=None if mark is None else told(mark // 100),
        excess=told(holding.excess_units),
        waited_for=told(holding.queued_units),
        coming=told(holding.coming_units),
        free=told(holding.free_units),
        outflow_per_hour=None if ahead is None else told(ahead.per_hour_units),
        dry_in_seconds=None if ahead is None else ahead.seconds_left,
        proven=holding.proven,
        history=[schemas.HeldOut(day=day, holds=told(units)) for day, units in holding.history],
    )


def refill(bundle: Bundle, found: Refill) -> schemas.RefillOut:
    """A refill."""
    return schemas.RefillOut(
        id=found.id,
        chain=found.chain,
        asset=found.asset,
        amount=decimal(bundle, found.asset, found.units),
        source=found.source,
        tier=found.tier,
        target=found.target,
        destination=found.destination,
        why=found.why,
        about=found.about,
        proposed_by=found.proposed_by,
        state=found.state,
        reason=found.reason,
        policy_version=found.policy_version,
        transaction=found.transaction_id,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


def refill_with_history(bundle: Bundle, found: Refill, history: Iterable[Row]) -> schemas.RefillDetail:
    """A refill and what happened to it."""
    events = [
        schemas.RefillEventOut(event=row["event"], state=row["to_state"], detail=row["detail"], at=row["at"])
        for row in history
    ]
    return schemas.RefillDetail(**refill(bundle, found).model_dump(), history=events)
