"""Administration: the Safe that is a factory's admin is asked to change whom its forwarders pay.

Holders sign it offline like any other request of the Safe, and the gas payer sends it. One change of a Safe's is under
way at a time, and none is asked for that the factory would refuse now: what owners have signed and cannot be carried
out keeps the Safe's nonce from all that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from chains.errors import PermanentError
from chains.eth.address import checksummed, raw_address
from chains.eth.factory import FactoryState, Proposal, Step, TreasuryCall
from chains.eth.safe import SafeMessage, SafeTx
from custody.ids import new_id
from custody.reconcile.factories import active_hot_key, read_factory
from custody.signing.evm import nonces, safe_nonce
from custody.signing.evm.safe_build import would_fail
from custody.signing.evm.safe_nonce import version_of
from custody.signing.evm.safe_site import SafeSite
from custody.signing.recording import record_first
from custody.signing.requests import house_intent
from custody.storage.db import Tx
from policies.bundle import EvmKeyset
from policies.intent import Intent, Kind, TreasuryChange


class NotChanged(PermanentError):
    """Why nothing is asked of the factory's admin."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A step that the factory would take now."""

    keyset: EvmKeyset
    """Whose factory."""
    call: TreasuryCall
    treasury: str | None
    """Whom forwarders are to pay (EIP-55); None where a proposal is taken back."""
    used: int
    """Nonces of the Safe that the chain has used."""


def plan(site: SafeSite, keyset: EvmKeyset, step: Step, *, now: int) -> Planned:
    """Look at the factory, and find out whether the step can be taken.

    Args:
        site: the Safe.
        keyset: whose factory.
        step: what is to be done.
        now: UNIX seconds.

    Raises:
        NotChanged: says why not.
        NodeUnavailable, Reorganised: no answer.
    """
    if (keyset.chain, keyset.admin) != (site.chain, site.wallet.id) or not site.signs(Kind.ADMINISTRATION):
        raise NotChanged(
            f"{site.wallet.id} ({site.wallet.state}) is not the admin of {keyset.id}'s factory in the bundle"
        )
    found = read_factory(raw_address(keyset.factory), site.node)
    if found is None:
        raise NotChanged(f"there is no factory at {keyset.factory}")
    if found.admin != site.sender:
        raise NotChanged(
            f"the factory's admin is {checksummed(found.admin)} on the chain, not {site.address}"
        )
    treasury = _treasury(site, found, step, now)
    call = TreasuryCall(step, raw_address(treasury) if step == "propose" and treasury else None)
    planned = Planned(keyset, call, treasury, site.node.safes.nonce(site.sender, site.node.tip()))
    reason = would_fail(site, _message(site, planned, 0))
    if reason is not None:
        raise NotChanged(str(reason))
    return planned


def ask(tx: Tx, site: SafeSite, planned: Planned) -> UUID:
    """Record the Safe's transaction in the caller's, for holders to sign; returns its id.

    Raises:
        NotChanged: another one waits, or the Safe is halted.
        Raced: another worker was quicker, or the chain moves: roll back, and try again.
    """
    if Kind.ADMINISTRATION not in site.allowed(tx):
        raise NotChanged(f"it is halted: {site.halted(tx)}")
    nonces.lock(tx, site.chain, site.account, used=planned.used)
    open_one = tx.optional(
        "SELECT id FROM transactions WHERE chain = %s AND keyset = %s AND kind = %s"
        " AND state IN ('built', 'broadcast')",
        [site.chain, site.wallet.id, Kind.ADMINISTRATION],
    )
    if open_one is not None:
        raise NotChanged(
            f"{open_one['id']} of {site.wallet.id} is under way: have it signed, or abandon it first"
        )
    id_ = new_id()
    message = safe_nonce.take(tx, site, used=planned.used, say=lambda nonce: _message(site, planned, nonce))
    record_first(
        tx, site, id_, Kind.ADMINISTRATION, version_of(site, message, (_intent(site, planned, id_),), ())
    )
    return id_


def _treasury(site: SafeSite, found: FactoryState, step: Step, now: int) -> str | None:
    """Whom forwarders are to pay. Raises NotChanged."""
    proposed = found.proposed_treasury
    if step == "cancel":
        if proposed is None:
            raise NotChanged("nobody is proposed: there is nothing to cancel")
        return None
    active = active_hot_key(site.bundle, site.chain)
    if active is None:
        raise NotChanged(f"the bundle has no active hot key on {site.chain}")
    if step == "propose":
        _check_new(found, active.address, now)
    else:
        _check_ripe(proposed, active.address, now)
    return active.address


def _check_new(found: FactoryState, active: str, now: int) -> None:
    proposed = found.proposed_treasury
    if found.treasury == raw_address(active):
        raise NotChanged(f"its forwarders pay the active hot key {active} already")
    if proposed is not None and proposed.candidate == raw_address(active) and now <= proposed.not_after:
        raise NotChanged(f"{active} is proposed already: accept it from {_utc(proposed.not_before)} on")


def _check_ripe(proposed: Proposal | None, active: str, now: int) -> None:
    if proposed is None:
        raise NotChanged("nobody is proposed: propose first")
    who = checksummed(proposed.candidate)
    if who != active:
        raise NotChanged(f"{who} is proposed, which is not the active hot key {active}: cancel it")
    if now < proposed.not_before:
        raise NotChanged(f"{who} can be accepted from {_utc(proposed.not_before)} on")
    if now > proposed.not_after:
        raise NotChanged(f"{who} could be accepted until {_utc(proposed.not_after)}: propose it again")


def _message(site: SafeSite, planned: Planned, nonce: int) -> SafeMessage:
    """All fields that have to do with gas are zero."""
    to = raw_address(planned.keyset.factory)
    tx = SafeTx(to=to, value_wei=0, data=planned.call.encode(), nonce=nonce)
    return SafeMessage(site.network.chain_id, site.sender, tx)


def _intent(site: SafeSite, planned: Planned, id_: UUID) -> Intent:
    plain = house_intent(site, Kind.ADMINISTRATION, str(id_), planned.keyset.factory)
    change = TreasuryChange(step=planned.call.step, treasury=planned.treasury)
    return msgspec.structs.replace(plain, change=change)


def _utc(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
