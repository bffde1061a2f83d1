"""The policy's word on the house's own operations: what moves within our wallets is asked for like what leaves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from chains.errors import PermanentError
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Tx
from custody.sweeps.model import Item
from policies.deciding import engine_of
from policies.decision import Decision, LimitKey, Reason, Routed
from policies.decision import describe as describe_decision
from policies.engine import nobody_asked
from policies.facts import Facts, Operation, Ownership
from policies.facts import describe as describe_facts
from policies.rules import HOUSE, Limit
from policies.values import value_of

DENIED: Final = "sweep.denied"
DEPOSITS: Final = "deposits"
"""The source of sweeps; everything else comes from a wallet of the bundle."""


class NotPermitted(PermanentError):
    """The policy does not let it happen now; its reasons are the text."""


def permitted(
    tx: Tx, site: Site, operation: Operation, source: str, amounts: Mapping[str, int], *, now: int
) -> dict[str, Any]:
    """Ask the policy about moving money to the wallet of `site`; returns the record of what it answered.

    Args:
        tx: in which it is recorded; its halts were looked at.
        site: whose key signs, and where it goes.
        operation: `sweep` or `consolidation`.
        source: where it comes from: `DEPOSITS`, or a wallet of the bundle.
        amounts: base units by asset; each is decided by itself, and all must be let through at once.
        now: UNIX seconds.

    Raises:
        NotPermitted: denied, or only with approvals or after a delay, which nobody could give here.
    """
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
    decisions = [_decide(site, each) for each in facts]
    refused = [reason for each in decisions for reason in _objections(each, site.wallet.tier)]
    if refused:
        raise NotPermitted("; ".join(map(str, dict.fromkeys(refused)))[:1000])
    alerts.resolve_alert(tx, DENIED, f"{site.wallet.id}:{operation}")
    return {
        "bundle_version": site.bundle.version,
        "decisions": [
            {"facts": describe_facts(told), **describe_decision(decision)}
            for told, decision in zip(facts, decisions, strict=True)
        ],
    }


def moved_by(items: Iterable[Item]) -> dict[str, int]:
    """Base units by asset that a sweep's items come to; what has nothing is left out."""
    amounts: Counter[str] = Counter()
    for item in items:
        amounts[item.asset] += item.units
    return {asset: units for asset, units in amounts.items() if units}


def _decide(site: Site, facts: Facts) -> Decision:
    return engine_of(site.bundle).decide(facts, _no_window)


def _no_window(key: LimitKey, limit: Limit) -> None:
    """The house's own operations are in no window yet: a rule that limits them denies, as nobody knows the sum."""


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
