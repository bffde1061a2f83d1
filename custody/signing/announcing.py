"""Showing signers early what they will have to know for a while: orders, and entries of whitelists.

A signer counts ages and delays by its own clock, from when it saw an order or a destination itself. It is shown them as
soon as they are known here, so that both clocks run at the same time: shown only when it is to sign, a payment would
wait a second time, and what people have approved would be over meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue
from custody.signing import announcing_repository as repository
from custody.signing.site import Site
from custody.storage.db import Database, Row
from policies.intent import Order, SignedOrder
from policies.rules import Policy
from policies.statements import SignedWhitelistEntry, WhitelistEntry
from signers.ports import AnnounceRequest, Announcing, Refused, Signer

MAX_ANNOUNCED: Final = 500
"""Most orders, and most entries, in one announcement."""
_LATER: Final = frozenset({"too-many-sightings", "bundle-expired", "bundle-changed"})
"""Codes of refusals that say nothing about what was shown."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """One thing to be shown."""

    id: UUID
    told: SignedOrder | SignedWhitelistEntry


def announce_waiting(db: Database, site: Site, signer: Signer, *, now: int, member: str = "") -> int:
    """Show a wallet's signer what is new; returns how much. Nothing is shown where the policy asks for no age or delay.

    Args:
        db: as the workers' role.
        site: the wallet.
        now: UNIX seconds.
        member: of a vault, whose signer it is.

    Raises:
        SignerUnavailable: what was not recorded as shown is shown again; that changes nothing.
    """
    if not isinstance(signer, Announcing) or not asks_for_time(site.bundle.policy):
        return 0
    wallet = f"{site.wallet.id}/{member}" if member else site.wallet.id
    with db.snapshot() as tx:
        orders = repository.orders(tx, site.chain, wallet, site.wallet.tier, now=now, limit=MAX_ANNOUNCED)
        entries = repository.entries(tx, site.chain, wallet, limit=MAX_ANNOUNCED)
    unreadable: list[UUID] = []
    shown = _read_all(orders, entries, unreadable)
    done = _show(signer, shown)
    with db.transaction() as tx:
        repository.mark_shown(tx, wallet, [*done, *unreadable])
    return len(done)


def announce(signer: Announcing, orders: Sequence[SignedOrder]) -> None:
    """Show orders to a signer, as many as it takes.

    Raises:
        SignerUnavailable: no answer.
    """
    for start in range(0, len(orders), MAX_ANNOUNCED):
        _show(signer, [_Shown(UUID(each.order.id), each) for each in orders[start : start + MAX_ANNOUNCED]])


def asks_for_time(policy: Policy) -> bool:
    """Whether any rule asks for the age of a destination, or for a delay."""
    return any(
        rule.delay_seconds > 0
        or any(
            when is not None and when.destination_younger_than is not None
            for when in (rule.when, rule.unless)
        )
        for rule in policy.rules
    )


def _read_all(orders: Sequence[Row], entries: Sequence[Row], unreadable: list[UUID]) -> list[_Shown]:
    found = []
    for row in (*orders, *entries):
        try:
            told: SignedOrder | SignedWhitelistEntry
            if "order_json" in row:
                order = Order.from_canonical(row["order_json"].encode())
                told = SignedOrder(order=order, signature=row["order_signature"])
            else:
                entry = WhitelistEntry.from_canonical(row["document"].encode())
                told = SignedWhitelistEntry(entry=entry, signature=row["signature"])
        except InvalidValue:
            unreadable.append(row["id"])
        else:
            found.append(_Shown(row["id"], told))
    return found


def _show(signer: Announcing, shown: Sequence[_Shown]) -> list[UUID]:
    """Ids of what need not be shown again. What is refused together is shown by halves, so that one stops no other."""
    if not shown:
        return []
    try:
        signer.announce(
            AnnounceRequest(
                orders=tuple(each.told for each in shown if isinstance(each.told, SignedOrder)),
                entries=tuple(each.told for each in shown if isinstance(each.told, SignedWhitelistEntry)),
            )
        )
    except Refused as refusal:
        if {reason.code for reason in refusal.reasons} & _LATER:
            return []
        if len(shown) == 1:
            return [shown[0].id]
        half = len(shown) // 2
        return [*_show(signer, shown[:half]), *_show(signer, shown[half:])]
    return [each.id for each in shown]
