"""How two ways of doing the same work are compared: by turns, so that both meet the same weather; medians."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: two rates of the same unit, and how many times the peer's rate ours is."""

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str

    @property
    def ratio(self) -> float:
        """Ours over the peer's: above 1 we are faster (for costs: dearer)."""
        return self.ours / self.peer

    def to_object(self) -> dict[str, object]:
        """The row as JSON values, rounded to four significant digits."""
        return {
            "name": self.name,
            "ours": _short(self.ours),
            "peer": _short(self.peer),
            "peer_name": self.peer_name,
            "unit": self.unit,
            "ratio": _short(self.ratio),
        }


def _short(value: float) -> float:
    return float(f"{value:.4g}")


@dataclass(frozen=True, slots=True)
class Side:
    """One of two ways: `run` does `units` of work; several runs of a quick one make one measurement."""

    run: Callable[[], object]
    units: float
    runs: int = 1


def interleave(ours: Side, peer: Side, *, repeats: int) -> tuple[float, float]:
    """Median units a second of both sides, measured `repeats` times by turns after one run to warm up."""
    ours.run()
    peer.run()
    rates: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for side, found in zip((ours, peer), rates, strict=True):
            gc.collect()
            started = time.perf_counter()
            for _ in range(side.runs):
                side.run()
            found.append(side.units * side.runs / (time.perf_counter() - started))
    return statistics.median(rates[0]), statistics.median(rates[1])
