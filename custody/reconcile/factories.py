"""Whom the forwarders pay, and who may change that. A change takes 48 hours: time to act, if anybody is told.

What the chain says of each factory is held against the bundle. A treasury that is no hot key of ours stops our sweeps
of that chain; an admin other than the one that the bundle names, and a proposal that is not of the active hot key, are
told of at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.factory import (
    ADMIN,
    PROPOSED_ADMIN,
    PROPOSED_TREASURY,
    TREASURY,
    FactoryState,
    Proposal,
    read_address,
    read_proposal,
)
from custody.reconcile.model import Waiting
from custody.storage.alerts import Severity, resolve_alert
from custody.storage.db import Tx
from policies.bundle import Bundle, EvmKeyset, EvmVault

CHANGED: Final = "factory.pays_another"
"""Alert: forwarders pay an address that is no hot key of ours. It stops sweeps."""
PROPOSED: Final = "factory.change_proposed"
"""Alert: a change was announced that is not to the active hot key."""
UNDER_WAY: Final = "factory.change_under_way"
"""Alert: a change to the active hot key was announced, and is to be accepted in time."""
ADMIN_DIFFERS: Final = "factory.admin_differs"
"""Alert: somebody else than the Safe of the bundle may change whom forwarders pay."""
STALE: Final = "factory.pays_retired_key"
"""Alert: forwarders pay a hot key that is not active any more, and their admin is a Safe of ours."""
SEVERITY: Final[Mapping[str, Severity]] = {
    CHANGED: Severity.CRITICAL,
    PROPOSED: Severity.CRITICAL,
    ADMIN_DIFFERS: Severity.CRITICAL,
    UNDER_WAY: Severity.WARNING,
    STALE: Severity.WARNING,
}
_NOBODY: Final = bytes(20)
_ALLOWED: Final = frozenset({"active", "deactivated"})


@runtime_checkable
class CallSource(Protocol):
    """A node that says what a call would return."""

    def simulate(self, call: Call) -> bytes | Reverted:
        """What a call would return on top of the tip, or why it would fail. Raises NodeUnavailable."""


def read_factory(factory: bytes, node: CallSource) -> FactoryState | None:
    """What a factory (20 bytes) says of itself now; None: there is none. Raises NodeUnavailable."""

    def view(selector: bytes) -> bytes:
        answer = node.simulate(Call(_NOBODY, factory, 0, selector))
        if isinstance(answer, Reverted):
            raise InvalidValue(answer.reason)
        return answer

    try:
        return FactoryState(
            treasury=read_address(view(TREASURY)),
            admin=read_address(view(ADMIN)),
            proposed_treasury=read_proposal(view(PROPOSED_TREASURY)),
            proposed_admin=read_proposal(view(PROPOSED_ADMIN)),
        )
    except InvalidValue:
        return None


def _treasury_at(factory: bytes, node: CallSource) -> bytes | None:
    answer = node.simulate(Call(_NOBODY, factory, 0, TREASURY))
    try:
        return None if isinstance(answer, Reverted) else read_address(answer)
    except InvalidValue:
        return None


def active_hot_key(bundle: Bundle, chain: str) -> EvmKeyset | None:
    """The key-set whose key forwarders of a chain are to pay; None: there is none now."""
    place = (chain, "hot", "active")
    for keyset in bundle.keysets:
        if isinstance(keyset, EvmKeyset) and (keyset.chain, keyset.tier, keyset.state) == place:
            return keyset
    return None


def keyset_paid(bundle: Bundle, chain: str, treasury: bytes) -> EvmKeyset | None:
    """The hot key-set whose key is at an address (20 bytes) that forwarders of a chain pay; None: no key of ours is, or
    one that somebody else may have."""
    for keyset in bundle.keysets:
        if not isinstance(keyset, EvmKeyset) or keyset.state not in _ALLOWED:
            continue
        if (keyset.chain, keyset.tier, raw_address(keyset.address)) == (chain, "hot", treasury):
            return keyset
    return None


def flushing(bundle: Bundle, chain: str, node: object) -> Mapping[str, str]:
    """Key-sets of a chain whose forwarders pay the key of another one, and which, by what the chain says now.

    Raises:
        NodeUnavailable: no answer.
    """
    if not isinstance(node, CallSource):
        return {}
    found = {}
    for keyset in bundle.keysets:
        if isinstance(keyset, EvmKeyset) and keyset.chain == chain:
            treasury = _treasury_at(raw_address(keyset.factory), node)
            target = None if treasury is None else keyset_paid(bundle, chain, treasury)
            if target is not None and target.id != keyset.id:
                found[keyset.id] = target.id
    return found


def diverting(bundle: Bundle, chain: str, node: CallSource) -> tuple[str, ...]:
    """Why no forwarder of a chain may be flushed now, a sentence for each factory; none: each pays a hot key of ours.

    Raises:
        NodeUnavailable: no answer.
    """
    return tuple(each.detail for each in factories(bundle, chain, node) if each.type == CHANGED)


def factories(bundle: Bundle, chain: str, node: object) -> tuple[Waiting, ...]:
    """What somebody must know of the factories of a chain's key-sets; nothing where all is as it should be.

    Raises:
        NodeUnavailable: no answer.
    """
    if not isinstance(node, CallSource):
        return ()
    keysets = [entry for entry in bundle.keysets if isinstance(entry, EvmKeyset) and entry.chain == chain]
    return tuple(
        each
        for keyset in keysets
        if keyset.state not in ("pre-active", "destroyed")
        for each in _of(bundle, keyset, read_factory(raw_address(keyset.factory), node))
    )


def resolve_others(tx: Tx, standing: Collection[Waiting]) -> None:
    """Close the alerts about factories whose reason is gone: what a complete look has not found any more."""
    found = {(each.type, each.subject) for each in standing}
    rows = tx.all(
        "SELECT type, subject FROM alerts WHERE resolved_at IS NULL AND type = ANY (%s)", [list(SEVERITY)]
    )
    for row in rows:
        if (row["type"], row["subject"]) not in found:
            resolve_alert(tx, row["type"], row["subject"])


def _of(bundle: Bundle, keyset: EvmKeyset, found: FactoryState | None) -> Iterator[Waiting]:
    place = f"{keyset.id}'s factory {keyset.factory}"
    if found is None:
        yield Waiting(
            CHANGED, keyset.id, f"nobody answers at {place}: stop showing addresses, nothing is swept"
        )
        return
    yield from _treasury(bundle, keyset, found)
    yield from _admin(bundle, keyset, found)
    if found.proposed_treasury is not None:
        yield _proposed(bundle, keyset, found.proposed_treasury)
    if found.proposed_admin is not None:
        who = checksummed(found.proposed_admin.candidate)
        detail = f"{who} is proposed as the admin of {place}; {_when(found.proposed_admin)}: the admin can cancel it"
        yield Waiting(PROPOSED, f"{keyset.id}:admin:{who}", detail)


def _treasury(bundle: Bundle, keyset: EvmKeyset, found: FactoryState) -> Iterator[Waiting]:
    paid = checksummed(found.treasury)
    place = f"the forwarders of {keyset.id} pay {paid}, by their factory {keyset.factory}"
    target, active = keyset_paid(bundle, keyset.chain, found.treasury), active_hot_key(bundle, keyset.chain)
    if target is None and not (keyset.state == "compromised" and paid == keyset.address):
        yield Waiting(
            CHANGED, keyset.id, f"{place}, no hot key of ours: stop showing addresses, nothing is swept"
        )
    elif active is not None and paid != active.address and keyset.admin and not found.proposed_treasury:
        told = f"{place}, and the active hot key is {active.address}: strongroom factory propose {keyset.id}"
        yield Waiting(STALE, keyset.id, told)


def _admin(bundle: Bundle, keyset: EvmKeyset, found: FactoryState) -> Iterator[Waiting]:
    if keyset.admin is None:
        return
    vault = bundle.wallet(keyset.admin)
    assert isinstance(vault, EvmVault), "or the bundle is refused"
    if found.admin != raw_address(vault.address):
        told = f"the admin of {keyset.id}'s factory {keyset.factory} is {checksummed(found.admin)}"
        yield Waiting(ADMIN_DIFFERS, keyset.id, f"{told}, and the bundle names {vault.id} ({vault.address})")


def _proposed(bundle: Bundle, keyset: EvmKeyset, proposal: Proposal) -> Waiting:
    who, active = checksummed(proposal.candidate), active_hot_key(bundle, keyset.chain)
    place = f"{who} is proposed as the treasury of {keyset.id}'s factory {keyset.factory}; {_when(proposal)}"
    subject = f"{keyset.id}:treasury:{who}"
    if active is None or active.address != who or keyset.admin is None:
        return Waiting(PROPOSED, subject, f"{place}: it is not the active hot key, its admin can cancel it")
    return Waiting(
        UNDER_WAY, subject, f"{place}, by strongroom factory accept {keyset.id}: it is {active.id}'s key"
    )


def _when(proposal: Proposal) -> str:
    return f"it can be accepted from {_utc(proposal.not_before)} to {_utc(proposal.not_after)}"


def _utc(seconds: int) -> str:
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return f"{seconds} s (UNIX)"
