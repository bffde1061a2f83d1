"""Prometheus metrics: counted per process for requests, read from the database for everything else."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from chains.errors import StrongroomError
from custody.api import gauges
from custody.storage.db import Database
from custody.storage.heartbeats import Process

_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class ApiMetrics:
    """One registry for one application (not the process-wide default: tests make many applications)."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "strongroom_api_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "strongroom_api_request_seconds",
            "Time from the request's head to the end of the answer.",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(_DatabaseCollector(database))

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the template, never the path: paths have ids in them."""
        if method not in _METHODS:  # a client may write anything there, and each would be a series for ever
            method = "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(method, route).observe(seconds)


class _DatabaseCollector(Collector):
    """Reads gauges when scraped, so that they are true at that moment whichever process is asked."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not touch the database."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """One value for each series; without a database only `strongroom_database_up`, which is 0."""
        up = GaugeMetricFamily("strongroom_database_up", "1 if the database answered this scrape.")
        try:
            with self._database.snapshot() as tx:
                found = gauges.read(tx)
        except StrongroomError:
            up.add_metric((), 0)
            yield up
            return
        up.add_metric((), 1)
        yield up
        yield from _families(found)


def _processes(found: gauges.Gauges) -> Iterable[Metric]:
    """A process that was not heard of for an hour has no series."""
    age = GaugeMetricFamily(
        "strongroom_process_age_seconds",
        "Since a process was last heard of.",
        labels=("process", "instance"),
    )
    node = GaugeMetricFamily("strongroom_node_tip_height", "The node's best block.", labels=("chain",))
    for beat in found.heartbeats:
        age.add_metric((beat.process.value, beat.instance), beat.age_seconds)
        if beat.process is Process.MONITOR and isinstance(beat.detail.get("tip"), int):
            node.add_metric((beat.instance,), beat.detail["tip"])
    yield from (age, node)


def _families(found: gauges.Gauges) -> Iterable[Metric]:
    tip = GaugeMetricFamily("strongroom_chain_tip_height", "Last block committed.", labels=("chain",))
    lag = GaugeMetricFamily(
        "strongroom_chain_monitor_age_seconds", "Since the monitor was last heard of.", labels=("chain",)
    )
    final = GaugeMetricFamily(
        "strongroom_chain_final_height", "From where confirmations count.", labels=("chain",)
    )
    for chain in found.chains:
        tip.add_metric((chain.chain,), chain.height)
        final.add_metric((chain.chain,), chain.final_height)
        lag.add_metric((chain.chain,), chain.age_seconds)
    yield from (tip, final, lag)
    yield from _processes(found)
    for name, text, counts in (
        ("strongroom_deposits", "Deposits by state.", found.deposits),
        ("strongroom_withdrawals", "Withdrawals by state.", found.withdrawals),
    ):
        family = GaugeMetricFamily(name, text, labels=("asset", "state"))
        for count in counts:
            family.add_metric((count.asset, count.state), count.number)
        yield family
    alerts = GaugeMetricFamily("strongroom_open_alerts", "Alerts not resolved.", labels=("severity",))
    for severity, number in found.open_alerts.items():
        alerts.add_metric((severity,), number)
    yield alerts
    halts = GaugeMetricFamily("strongroom_halted", "1 while paying is stopped.", labels=("scope",))
    for scope in found.halts:
        halts.add_metric((scope,), 1)
    yield halts
