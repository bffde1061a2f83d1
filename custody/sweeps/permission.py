"""The policy's word on the house's own operations: what moves within our wallets is asked for like what leaves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from chains.errors import PermanentError
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx
from custody.sweeps.model import Item
from custody.withdrawals import windows
from policies import records
from policies.deciding import engine_of
from policies.decision import Decision, LimitKey, Reason, Routed
from policies.engine import Spent, nobody_asked
from policies.facts import Facts, Operation, Ownership
from policies.rules import HOUSE
from policies.values import value_of

DENIED: Final = "sweep.denied"
DEPOSITS: Final = "deposits"
"""The source of sweeps; everything else comes from a wallet of the bundle."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """What the policy has let through."""

    record: dict[str, Any]
    """Of what it was told, and what it answered."""
    counts: tuple[tuple[LimitKey, int], ...]
    """What that adds to which windows."""


class NotPermitted(PermanentError):
    """The policy does not let it happen now; its reasons are the text."""


def permitted(
    tx: Tx, site: Site, operation: Operation, source: str, amounts: Mapping[str, int], *, now: int
) -> Permitted:
    """Ask the policy about moving money to the wallet of `site`.

    Args:
        tx: in which it is recorded; its halts were looked at.
        site: whose key signs, and where it goes.
        operation: `sweep` or `consolidation`.
        source: where it comes from: `DEPOSITS`, or a wallet of the bundle.
        amounts: base units by asset; each is decided by itself, and all must be let through at once.
        now: UNIX seconds.

    Raises:
        Conflict: the policy's windows are counted for another bundle: try again.
        NotPermitted: denied, or only with approvals or after a delay, which nobody could give here.
    """
    engine = engine_of(site.bundle)
    facts = [
        Facts(
            operation=operation,
            now=now,
            chain=site.chain,
            asset=asset,
            units=units,
            value=value_of(site.bundle, asset, units),
            source=source,
            destination=site.wallet.id,
            ownership=Ownership.HOUSE,
            customer=HOUSE,
            initiator=HOUSE,
            halts=(),
        )
        for asset, units in sorted(amounts.items())
    ]
    before: Counter[LimitKey] = Counter()

    def decide(told: Facts, spent: Spent) -> Decision:
        """What goes together is counted together."""
        return engine.decide(told, lambda key, limit: _plus(spent(key, limit), before[key]))

    decided = []
    for told in facts:
        decision, spent = windows.decide_now(tx, site.bundle, told, decide)
        decided.append((told, decision, {key: held + before[key] for key, held in spent.items()}))
        before += windows.added(decision.counts if isinstance(decision, Routed) else ())
    refused = [reason for _, each, _ in decided for reason in _objections(each, site.wallet.tier)]
    if refused:
        raise NotPermitted("; ".join(map(str, dict.fromkeys(refused)))[:1000])
    alerts.resolve_alert(tx, DENIED, f"{site.wallet.id}:{operation}")
    return Permitted(
        {
            "bundle_version": site.bundle.version,
            "decisions": [
                records.record(site.bundle, told, spent, decision) for told, decision, spent in decided
            ],
        },
        tuple(before.items()),
    )


def moved_by(items: Iterable[Item]) -> dict[str, int]:
    """Base units by asset that a sweep's items come to; what has nothing is left out."""
    amounts: Counter[str] = Counter()
    for item in items:
        amounts[item.asset] += item.units
    return {asset: units for asset, units in amounts.items() if units}


def _plus(held: int | None, more: int) -> int | None:
    return None if held is None else held + more


def _objections(decision: Decision, tier: str) -> tuple[Reason, ...]:
    if not isinstance(decision, Routed):
        return decision.reasons
    if decision.tier != tier:
        return (Reason("wrong-tier", f"the policy has the {decision.tier} tier do it, not {tier}"),)
    if not nobody_asked(decision.approvals) or decision.delay_seconds or decision.verdict:
        return (Reason("not-automatic", "the policy asks for people or a delay, and this runs by itself"),)
    return ()


def tell(tx: Tx, site: Site, operation: Operation, why: NotPermitted) -> None:
    """An alert, once for as long as it lasts: what is not swept cannot be paid out."""
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        DENIED,
        f"{site.wallet.id}:{operation}",
        f"{operation} to {site.wallet.id} waits: {why}. Change the rules in the next bundle if it should not",
        {"keyset": site.wallet.id, "operation": operation},
    )
