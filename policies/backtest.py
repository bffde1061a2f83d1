"""History under a draft: each recorded decision made once more by another policy, and what would have changed.

Windows are those of the draft, filled by what it lets through itself: a payment that it lets through and that was
paid counts until it was, and for the window's length from then on; one that the old policy had refused is taken to be
paid at once. So the same policy again changes nothing, and a stricter one shows what follows from its first refusal.

A withdrawal is decided once here. One for which the draft has no room now would be asked again later in life.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from chains.errors import InvalidValue
from policies.decision import Decision, Reason, Routed, Wait
from policies.decision import describe as describe_decision
from policies.engine import Spent
from policies.facts import Facts
from policies.records import Record, read
from policies.rules import Approvals, Policy
from policies.windows import Windows
from policies.words import needed

Decide = Callable[[Facts, Spent], Decision]


@dataclass(frozen=True, slots=True)
class Ended:
    """A withdrawal was paid, or will never be."""

    payment: str
    at: int
    """UNIX seconds."""
    how: Literal["settled", "released"]


Event = Record | Ended


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that would have been another."""

    payment: str
    at: int
    """UNIX seconds."""
    was: str
    """`deny`, `wait` or the tier, with approvals, delay and verdict where there are any."""
    becomes: str
    reasons_then: tuple[str, ...]
    reasons_now: tuple[str, ...]
    facts: Facts

    def to_object(self) -> dict[str, Any]:
        """The change as plain JSON values."""
        return {
            "id": self.payment,
            "at": self.at,
            "customer": self.facts.customer,
            "asset": self.facts.asset,
            "units": None if self.facts.units is None else str(self.facts.units),
            "was": self.was,
            "becomes": self.becomes,
            "reasons_then": list(self.reasons_then),
            "reasons_now": list(self.reasons_now),
        }


@dataclass
class Tally:
    """Counts of what was and of what becomes."""

    decisions: int = 0
    changed: int = 0
    was: Counter[str] = field(default_factory=Counter)
    becomes: Counter[str] = field(default_factory=Counter)
    moves: Counter[str] = field(default_factory=Counter)
    """Of changed ones: `hot -> deny` and so on."""

    def to_object(self) -> dict[str, Any]:
        """The counts as plain JSON values, in one order."""
        return {
            "decisions": self.decisions,
            "changed": self.changed,
            "was": dict(sorted(self.was.items())),
            "becomes": dict(sorted(self.becomes.items())),
            "moves": dict(sorted(self.moves.items())),
        }


class Backtest:
    """One run over a history, in its order.

    Args:
        policy: the draft; for the lengths of its windows.
        decide: asks the draft.
        paid: `as-recorded` with the history's own `Ended`, or each `at-once` where a history has none.
    """

    def __init__(
        self, policy: Policy, decide: Decide, *, paid: Literal["as-recorded", "at-once"] = "as-recorded"
    ) -> None:
        self._decide = decide
        self._at_once = paid == "at-once"
        self._windows = Windows(policy)
        self._now = 0
        self.tally = Tally()

    def run(self, history: Iterable[Event]) -> Iterator[Change]:
        """The changes, as they are found; `tally` counts all."""
        for event in history:
            change = self.take(event)
            if change is not None:
                yield change

    def take(self, event: Event) -> Change | None:
        """Go one event further."""
        if isinstance(event, Ended):
            self._move_to(event.at)
            if event.how == "settled":
                self._windows.settled(event.payment)
            else:
                self._windows.released(event.payment)
            return None
        facts, then = event.facts, event.decided
        self._move_to(facts.now)
        decision = self._decide(facts, self._windows)
        if isinstance(decision, Routed):
            self._windows.let_through(facts.id, decision.counts)
            if self._at_once or then["outcome"] != "route":
                self._windows.settled(facts.id)
        return self._compare(event, decision)

    def _move_to(self, now: int) -> None:
        # Decisions have the service's time, what ended has the database's: they may differ by a moment.
        self._now = max(self._now, now)
        self._windows.move_to(self._now)

    def _compare(self, record: Record, decision: Decision) -> Change | None:
        tally, was, becomes = self.tally, record.outcome, outcome_of(decision)
        tally.decisions += 1
        tally.was[was] += 1
        tally.becomes[becomes] += 1
        if was == becomes and (becomes in ("deny", "wait") or _terms(record.decided, decision)):
            return None
        tally.changed += 1
        tally.moves[f"{was} -> {becomes}"] += 1
        shown = describe_decision(decision)
        return Change(
            payment=record.facts.id,
            at=record.facts.now,
            was=_told(record.decided),
            becomes=_told(shown),
            reasons_then=tuple(str(Reason(**reason)) for reason in record.decided["reasons"]),
            reasons_now=tuple(map(str, decision.reasons)),
            facts=record.facts,
        )


def outcome_of(decision: Decision) -> str:
    """`deny`, `wait`, or the tier."""
    return decision.tier if isinstance(decision, Routed) else "wait" if isinstance(decision, Wait) else "deny"


def _terms(then: Mapping[str, Any], decision: Decision) -> bool:
    """Whether approvals, delay and verdict are as they were."""
    assert isinstance(decision, Routed)
    return (
        then["delay_seconds"] == decision.delay_seconds
        and then["verdict"] == decision.verdict
        and _approvals(then) == decision.approvals
    )


def _approvals(described: Mapping[str, Any]) -> Approvals:
    try:
        asked: Approvals = msgspec.convert(described["approvals"], Approvals)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"approvals of a record: {error}") from None
    return asked


def _told(described: Mapping[str, Any]) -> str:
    """An outcome in words, with all that was asked for."""
    if described["outcome"] != "route":
        return str(described["outcome"])
    told = needed(_approvals(described))
    parts = [str(described["tier"])]
    parts += [f"approved by {told}"] if told != "nobody" else []
    parts += [f"after {described['delay_seconds']} s"] if described["delay_seconds"] else []
    parts += ["with a verdict"] if described["verdict"] else []
    return ", ".join(parts)


def read_history(lines: Iterable[bytes | str]) -> Iterator[Event]:
    """A history as a file has it, one JSON object a line, in the order in which it happened.

    A decision is a line with its record as it is stored; `{"settled": ID, "at": TIME}` and `{"released": ID, "at":
    TIME}` say what became of a withdrawal. Empty lines are no matter.

    Raises:
        InvalidValue: names the line.
    """
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield _event(msgspec.json.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidValue) as error:
            raise InvalidValue(f"line {number}: {error}") from None


def _event(told: Any) -> Event:
    if not isinstance(told, dict):
        raise InvalidValue("expected a JSON object")
    for how in ("settled", "released"):
        if how in told:
            at = told.get("at")
            if type(at) is not int or not isinstance(told[how], str):
                raise InvalidValue(
                    f"expected the id of a withdrawal under {how}, and UNIX seconds under `at`"
                )
            return Ended(told[how], at, "settled" if how == "settled" else "released")
    return read(told)


def describe(event: Event) -> dict[str, Any]:
    """The event as a line of such a file says it."""
    if isinstance(event, Ended):
        return {event.how: event.payment, "at": event.at}
    return event.to_object()
