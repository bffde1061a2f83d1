"""The status as JSON: parts, chains, what waits and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from custody.api import gauges, readmodel, schemas, statusmodel, treasuryviews, views
from custody.api.parts import Part
from custody.storage import halts, heartbeats
from custody.storage.alerts import Alert, Severity
from custody.storage.db import Row, Tx
from custody.storage.heartbeats import Heartbeat, Process
from custody.treasury.holdings import holdings
from policies.bundle import Bundle, NetworkEntry

_MOST_ALERTS: Final = 50


def status(tx: Tx, found: Sequence[Part], bundle: Bundle, now: int) -> schemas.StatusOut:
    """Everything from one snapshot, but for the parts, which were asked just before."""
    heard = {each.instance: each for each in heartbeats.heard(tx) if each.process is Process.MONITOR}
    cursors = {each.chain: each for each in gauges.chains(tx)}
    halted: Sequence[Row] = halts.in_force(tx)
    alerts: Sequence[Alert] = readmodel.alerts(tx, which="open", after=0, limit=_MOST_ALERTS)
    return schemas.StatusOut(
        at=datetime.fromtimestamp(now, UTC),
        ready=all(part.ok for part in found),
        attention=bool(halted) or any(alert.severity is Severity.CRITICAL for alert in alerts),
        parts=[
            schemas.PartOut(name="api", ok=True, detail="answers"),
            *(schemas.PartOut(name=part.name, ok=part.ok, detail=part.detail) for part in found),
        ],
        chains=[_chain(network, cursors, heard, halted) for network in bundle.networks],
        deposits=[_waiting(bundle, each) for each in statusmodel.deposits(tx)],
        withdrawals=[_waiting(bundle, each) for each in statusmodel.withdrawals(tx)],
        sweeps=[_under_way(each) for each in statusmodel.sweeps(tx)],
        transactions=[_under_way(each) for each in statusmodel.transactions(tx)],
        tiers=[treasuryviews.tier(bundle, each) for each in holdings(tx, bundle)],
        halts=[schemas.HaltOut(scope=row["scope"], reason=row["reason"], at=row["at"]) for row in halted],
        alerts=[views.alert(bundle, alert) for alert in alerts],
    )


def _chain(
    network: NetworkEntry,
    cursors: Mapping[str, gauges.ChainGauge],
    heard: Mapping[str, Heartbeat],
    halted: Sequence[Row],
) -> schemas.ChainStatusOut:
    chain = network.chain
    cursor, monitor = cursors.get(chain), heard.get(chain)
    said: Mapping[str, Any] = (
        {"trouble": "no monitor is at work"} if monitor is None or not monitor.fresh else monitor.detail
    )
    tip = said.get("tip")
    height = None if cursor is None else cursor.height
    reasons = {row["scope"]: row["reason"] for row in halted}
    return schemas.ChainStatusOut(
        chain=chain,
        family=network.family,
        height=height,
        node_tip=tip,
        behind_blocks=None if tip is None or height is None else max(0, tip - height),
        final_height=None if cursor is None else cursor.final_height,
        heard_seconds=None if cursor is None else int(cursor.age_seconds),
        trouble=said.get("trouble"),
        halted=reasons.get(chain, reasons.get(halts.ALL)),
    )


def _waiting(bundle: Bundle, found: statusmodel.Waiting) -> schemas.WaitingOut:
    return schemas.WaitingOut(
        asset=found.asset,
        state=found.state,
        count=found.count,
        amount=views.decimal(bundle, found.asset, found.units),
        oldest_at=found.oldest_at,
        reasons=[schemas.ReasonOut(reason=reason, count=count) for reason, count in found.reasons],
    )


def _under_way(found: statusmodel.UnderWay) -> schemas.UnderWayOut:
    return schemas.UnderWayOut(
        chain=found.chain, kind=found.kind, state=found.state, count=found.count, oldest_at=found.oldest_at
    )
