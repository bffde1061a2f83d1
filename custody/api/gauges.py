"""SQL of what `/metrics` and `/readyz` show: counts and ages, no customer data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from custody.storage.db import Tx
from custody.storage.heartbeats import Heartbeat, heard


@dataclass(frozen=True, slots=True)
class ChainGauge:
    """How far the monitor is on one chain."""

    chain: str
    height: int
    final_height: int
    """From where confirmations count."""
    age_seconds: float
    """Since the monitor last wrote its cursor."""


@dataclass(frozen=True, slots=True)
class Count:
    """How many rows of one asset are in one state."""

    asset: str
    state: str
    number: int


@dataclass(frozen=True, slots=True)
class Gauges:
    """Everything, from one snapshot."""

    chains: Sequence[ChainGauge]
    deposits: Sequence[Count]
    withdrawals: Sequence[Count]
    open_alerts: Mapping[str, int]
    """By severity; all severities are there."""
    halts: Sequence[str]
    """Scopes: `all` or chain ids."""
    heartbeats: Sequence[Heartbeat]


def read(tx: Tx) -> Gauges:
    """All gauges."""
    alerts = {"info": 0, "warning": 0, "critical": 0}
    for row in tx.all(
        "SELECT severity, count(*) AS n FROM alerts WHERE resolved_at IS NULL GROUP BY severity"
    ):
        alerts[row["severity"]] = row["n"]
    deposits = tx.all("SELECT asset, state, count(*) AS n FROM deposits GROUP BY asset, state")
    withdrawals = tx.all("SELECT asset, state, count(*) AS n FROM withdrawals GROUP BY asset, state")
    return Gauges(
        chains(tx),
        [Count(row["asset"], row["state"], row["n"]) for row in deposits],
        [Count(row["asset"], row["state"], row["n"]) for row in withdrawals],
        alerts,
        [row["scope"] for row in tx.all("SELECT scope FROM halts ORDER BY scope")],
        heard(tx),
    )


def chains(tx: Tx) -> Sequence[ChainGauge]:
    """Of every chain that a monitor has begun with."""
    rows = tx.all(
        "SELECT chain, height, anchor, extract(epoch FROM now() - updated_at) AS age FROM cursors ORDER BY chain"
    )
    return [ChainGauge(row["chain"], row["height"], row["anchor"], float(row["age"])) for row in rows]
