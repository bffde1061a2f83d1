"""Records of decisions: everything that decided, so that the same again gives the same answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue
from policies import decision as decisions
from policies import facts as known
from policies.bundle import Bundle
from policies.deciding import decide
from policies.decision import Decision, LimitKey
from policies.engine import SpentTable
from policies.facts import Facts
from policies.overlays import with_limits

_DECISION: Final = frozenset(
    {"outcome", "tier", "approvals", "delay_seconds", "verdict", "counts", "reasons"}
)
"""What of a record is the decision; callers may keep more beside it."""


@dataclass(frozen=True, slots=True)
class Record:
    """One decision with what it was made from."""

    bundle_version: int
    facts: Facts
    spent: dict[LimitKey, int]
    """What the windows held that were asked for."""
    decided: dict[str, Any]
    """The decision as `policies.decision.describe` gives it."""
    lowered: tuple[tuple[str, str], ...] = ()
    """Rules whose limits officers had lowered, and to what."""

    @property
    def outcome(self) -> str:
        """`deny`, `wait`, or the tier."""
        return str(self.decided["tier"] if self.decided["outcome"] == "route" else self.decided["outcome"])

    def to_object(self) -> dict[str, Any]:
        """The record as plain JSON values, as it is stored."""
        return {
            "bundle_version": self.bundle_version,
            "facts": known.describe(self.facts),
            "spent": _listed(self.spent),
            **({"lowered": [list(each) for each in self.lowered]} if self.lowered else {}),
            **self.decided,
        }


def _listed(spent: Mapping[LimitKey, int]) -> list[list[str]]:
    return [[key.rule, key.bucket, str(amount)] for key, amount in spent.items()]


def record(bundle: Bundle, facts: Facts, spent: Mapping[LimitKey, int], decision: Decision) -> dict[str, Any]:
    """A record as plain JSON values, as it is stored."""
    lowered = () if bundle.overlay is None else bundle.overlay.limits
    return {
        "bundle_version": bundle.version,
        "facts": known.describe(facts),
        "spent": _listed(spent),
        **({"lowered": [list(each) for each in lowered]} if lowered else {}),
        **decisions.describe(decision),
    }


def read(stored: Mapping[str, Any]) -> Record:
    """A stored record.

    Raises:
        InvalidValue: not such a record.
    """
    told = dict(stored)
    try:
        version, facts, spent = told.pop("bundle_version"), told.pop("facts"), told.pop("spent")
        told.pop(
            "screening", None
        )  # who said what of the destination: evidence of the fact, not part of the decision
        lowered = tuple((str(rule), str(int(most))) for rule, most in told.pop("lowered", ()))
        told["tier" if told["outcome"] == "route" else "reasons"]
        told = {name: value for name, value in told.items() if name in _DECISION}
        table = {LimitKey(str(rule), str(bucket)): int(amount) for rule, bucket, amount in spent}
        return Record(int(version), known.read(facts), table, told, lowered)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidValue(f"record of a decision: {error!r}") from None


def replay(stored: Record, bundle: Bundle) -> Decision:
    """Decide once more, by the bundle that it names.

    Raises:
        InvalidValue: it was made under another version of the bundle.
    """
    if stored.bundle_version != bundle.version:
        raise InvalidValue(
            f"decided under version {stored.bundle_version} of the bundle, not {bundle.version}"
        )
    return decide(with_limits(bundle, stored.lowered), stored.facts, SpentTable(stored.spent))


def same(stored: Record, decision: Decision) -> bool:
    """Whether the decision is the recorded one, byte for byte as canonical JSON."""
    return _canonical(stored.decided) == _canonical(decisions.describe(decision))


def _canonical(described: dict[str, Any]) -> bytes:
    return msgspec.json.encode(described, order="sorted")
