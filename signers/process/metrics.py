"""What a signer counts and measures, in Prometheus' text format (version 0.0.4). Served by the call `metrics`.

Rendered here, for the client library would bring an HTTP server into this process. Names of instruments are in
`signers/README.md`. No label ever holds what a request says: only calls, codes and the bundle's own names.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from signers.ports import Metrics, Signer, SignerStatus, SignRequest, SignResponse
from signers.wire import Reply

PREFIX: Final = "strongroom_signer_"
BUCKETS_MICROSECONDS: Final = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
)  # fmt: skip
"""Upper bounds of the histograms' buckets; beyond the last is `+Inf`."""
_MICRO: Final = 1_000_000

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One value."""

    value: int | str
    labels: Labels = ()


class Family(NamedTuple):
    """All values of one instrument."""

    name: str
    """Without the prefix."""
    kind: str
    """`counter` or `gauge`."""
    text: str
    samples: tuple[Sample, ...]


class Histogram:
    """Durations in buckets. Safe to use from many threads."""

    def __init__(self, name: str, text: str) -> None:
        self._name, self._text = name, text
        self._lock = threading.Lock()
        self._counts: dict[Labels, list[int]] = {}
        self._sums: Counter[Labels] = Counter()

    def observe(self, nanoseconds: int, labels: Labels = ()) -> None:
        """Count one duration."""
        microseconds = -(-nanoseconds // 1_000)
        with self._lock:
            counts = self._counts.setdefault(labels, [0] * (len(BUCKETS_MICROSECONDS) + 1))
            counts[bisect_left(BUCKETS_MICROSECONDS, microseconds)] += 1
            self._sums[labels] += microseconds

    def lines(self) -> Iterator[str]:
        """The histogram as text."""
        with self._lock:
            counted = {labels: tuple(counts) for labels, counts in self._counts.items()}
            sums = dict(self._sums)
        name = PREFIX + self._name
        yield from _head(name, "histogram", self._text)
        for labels, counts in sorted(counted.items()):
            total = 0
            for bound, count in zip((*BUCKETS_MICROSECONDS, None), counts, strict=True):
                total += count
                within = "+Inf" if bound is None else _seconds(bound)
                yield f"{name}_bucket{_labelled((*labels, ('le', within)))} {total}"
            yield f"{name}_sum{_labelled(labels)} {_seconds(sums[labels])}"
            yield f"{name}_count{_labelled(labels)} {total}"


class Instruments:
    """Everything that this process counts by itself. Implements `calls.Meter`. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._refusals: Counter[str] = Counter()
        self._signed: Counter[tuple[str, str]] = Counter()
        self._asked_ns = time.monotonic_ns()
        self._took = Histogram("call_seconds", "Time from a call's last byte to its answer.")
        self.commits = Histogram(
            "journal_commit_seconds", "Time of a commit of the journal, its mark included."
        )

    def answered(self, call: str, reply: Reply, nanoseconds: int) -> None:
        """A call was answered after so long."""
        reasons = reply.refused or ()
        outcome = "refused" if reasons else "ok"
        if reply.error is not None:
            outcome = "error" if reply.retry_ms is None else "busy"
        with self._lock:
            if call == "open" and outcome == "ok":
                self._asked_ns = time.monotonic_ns()
            self._calls[call, outcome] += 1
            self._refusals.update({reason.code for reason in reasons})
        self._took.observe(nanoseconds, (("call", call),))

    def signed(self, chain: str, keyset: str, signatures: int) -> None:
        """So many signatures of a key-set were released, also if they had been before."""
        with self._lock:
            self._signed[chain, keyset] += signatures

    def unasked_seconds(self) -> int:
        """How long nobody has asked what is `open`; at most since the process began."""
        with self._lock:
            return (time.monotonic_ns() - self._asked_ns) // 1_000_000_000

    def families(self) -> list[Family]:
        """Calls, refusals and signatures since the process began."""
        with self._lock:
            calls, refusals, signed = dict(self._calls), dict(self._refusals), dict(self._signed)
        return [
            Family(
                "signatures_total",
                "counter",
                "Signatures released, again ones included.",
                tuple(Sample(n, (("chain", c), ("keyset", k))) for (c, k), n in sorted(signed.items())),
            ),
            Family(
                "calls_total",
                "counter",
                "Calls answered.",
                tuple(Sample(n, (("call", c), ("outcome", o))) for (c, o), n in sorted(calls.items())),
            ),
            Family(
                "refusals_total",
                "counter",
                "Calls refused, by each code among their reasons.",
                tuple(Sample(n, (("code", code),)) for code, n in sorted(refusals.items())),
            ),
        ]

    def render(self, families: Iterable[Family]) -> Metrics:
        """These families and the process's own, as text."""
        lines = [line for family in (*self.families(), *families) for line in _lines(family)]
        lines += [*self._took.lines(), *self.commits.lines()]
        return Metrics(text="\n".join(lines) + "\n")


class Measured:
    """A signer as its daemon serves it: signatures are counted, and its status has notes. Implements `ports.Signer`.

    Args:
        signer: does the work.
        instruments: count.
        notes: what weakens this signer.
    """

    def __init__(self, signer: Signer, instruments: Instruments, notes: Sequence[str] = ()) -> None:
        self._signer, self._instruments, self._notes = signer, instruments, notes
        self.attest = signer.attest

    def status(self) -> SignerStatus:
        """As the signer says, with the notes, and how long no verifier came. Raises SignerUnavailable."""
        unasked = self._instruments.unasked_seconds()
        return msgspec.structs.replace(
            self._signer.status(), notes=tuple(self._notes), unasked_seconds=unasked
        )

    def sign(self, request: SignRequest) -> SignResponse:
        """As the signer does. Raises Refused, SignerUnavailable."""
        response = self._signer.sign(request)
        self._instruments.signed(request.chain, request.keyset, len(response.signatures))
        return response


def gauge(name: str, text: str, values: int | Mapping[Labels, int | str]) -> Family:
    """A value that goes up and down, or one for each set of labels."""
    found = values if isinstance(values, Mapping) else {(): values}
    return Family(
        name, "gauge", text, tuple(Sample(value, labels) for labels, value in sorted(found.items()))
    )


def serving(instruments: Instruments, *sources: Callable[[], Iterable[Family]]) -> Callable[[], Metrics]:
    """What answers the call `metrics`: the instruments, and what these sources say at that moment."""

    def metrics() -> Metrics:
        return instruments.render(family for source in sources for family in source())

    return metrics


def _lines(family: Family) -> Iterator[str]:
    name = PREFIX + family.name
    yield from _head(name, family.kind, family.text)
    for sample in family.samples:
        yield f"{name}{_labelled(sample.labels)} {sample.value}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _labelled(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _seconds(microseconds: int) -> str:
    whole, rest = divmod(microseconds, _MICRO)
    return f"{whole}.{rest:06}".rstrip("0").rstrip(".")
