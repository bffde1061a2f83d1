"""Giving up what a vault's members were asked to sign. What they may have signed cannot be taken back, so it is made
unusable: what takes its place uses the same coin, or the same nonce.

Where fewer members may have signed than it takes, nothing is to be feared, and what it serves is free at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final
from uuid import UUID

from chains.btc.coins import Selection
from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE
from custody.ids import new_id
from custody.signing import repository, reservations
from custody.signing.btc import change, coins
from custody.signing.btc.build import fetch_previous, present_feerate
from custody.signing.btc.consolidate import replaced
from custody.signing.btc.plan import assemble
from custody.signing.btc.rivals import rival
from custody.signing.btc.site import BtcSite
from custody.signing.cold.handing import members_of
from custody.signing.errors import BumpRefused, Raced
from custody.signing.evm import safe_cancel
from custody.signing.evm.safe_site import SafeSite
from custody.signing.kinds import effects_of
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction, SpendableCoin, VersionState
from custody.signing.recorded import refuse
from custody.signing.recording import record_first
from custody.signing.requests import house_intent
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.lifecycle import SessionEvent, SessionState
from custody.signing.sessions.model import Source
from custody.signing.sessions.service import STILL_OUT
from custody.signing.site import Site
from custody.storage.db import Database, Tx
from custody.sweeps.rescue import overtake
from policies.intent import Kind
from signers.ports import Reason, Refused

_LIVE: Final = (SessionState.OPEN, SessionState.COLLECTING)
_OPEN: Final = (TransactionState.BUILT, TransactionState.BROADCAST)


class Outcome(StrEnum):
    """What became of something that was given up."""

    FREE = "free"
    """Too few may have signed it: no block will ever hold it, and what it serves is tried anew."""
    HELD = "held"
    """Enough may have signed: it can confirm until a transaction that conflicts with it is final."""


def abandon(db: Database, site: Site, transaction_id: UUID, reason: str) -> Outcome:
    """Ask nobody any more about a vault's transaction. Again changes nothing.

    On Bitcoin its coins stay its own, for the next version of it (`custody.signing.btc.bump.rebuild`) or for what
    cancels it; the nonce of a Safe's is free for the next.

    Args:
        db: the database, as the workers' role.
        site: the vault.
        transaction_id: not complete, on Bitcoin.
        reason: a sentence for those who look.

    Raises:
        BumpRefused: it is none of this vault's, no longer open, or complete.
        DatabaseUnavailable, Conflict: try again.
    """
    with db.transaction() as tx:
        transaction = _locked(tx, site, transaction_id)
        if isinstance(site, BtcSite) and transaction.newest_signed is not None:
            raise BumpRefused("it is signed by enough of them, and may be out: cancel it instead")
        _end(tx, transaction)
        if free_if_unsigned(tx, site, transaction, reason):
            return Outcome.FREE
        if isinstance(site, BtcSite):
            repository.note_error(tx, transaction.id, f"abandoned: {reason}")
            effects_of(transaction.kind).waits(tx, transaction, f"{STILL_OUT}: abandoned: {reason}")
    if isinstance(site, SafeSite):
        safe_cancel.abandon(db, site, transaction_id, reason)
    return Outcome.HELD


def cancel(db: Database, site: Site, transaction_id: UUID, reason: str) -> UUID:
    """Give a vault's transaction up, and record one that can only confirm in its place and pays nobody; members sign it
    as any other. Holds stay until one of both is final.

    Args:
        db: the database, as the workers' role.
        site: the vault.
        transaction_id: in no block; complete or not.
        reason: a sentence for those who look.

    Returns:
        Id of the transaction that takes its place.

    Raises:
        BumpRefused: it is none of this vault's, no longer open, cancelled already, or no fee within the caps replaces
            it.
        Raced, NodeUnavailable, DatabaseUnavailable, Conflict: nothing was done.
    """
    if isinstance(site, SafeSite):
        return safe_cancel.cancel(db, site, transaction_id, reason)
    if not isinstance(site, BtcSite):
        raise BumpRefused(f"{site.wallet.id} is no vault: give a transaction of it a higher fee instead")
    return _cancel(db, site, transaction_id, reason)


def not_signed(db: Database, site: Site, session_id: UUID, holder: str, reason: str) -> Outcome:
    """A holder's word that he has not signed a request that is out, nor passed it on. Again changes nothing.

    One of those who say so may lie, and a copy may have come to holders who never got it from us: theirs counts, too.

    Args:
        db: the database, as the workers' role.
        site: the vault.
        session_id: of the request.
        holder: by his id in the vault.
        reason: in his words.

    Raises:
        NotFound: there is no such request.
        BumpRefused: nobody got it as a file, he is no holder, or his signature is here.
        DatabaseUnavailable, Conflict: try again.
    """
    with db.transaction() as tx:
        session = sessions.lock(tx, session_id)
        asked = session.asked.get(holder)
        if session.wallet != site.wallet.id or not session.handed_out:
            raise BumpRefused(f"the request {session_id} of {site.wallet.id} was never handed out")
        if holder not in members_of(site.wallet) or (asked is not None and asked.source is not Source.FILE):
            raise BumpRefused(f"{holder!r} is no holder of {site.wallet.id}'s keys who signs offline")
        if asked is not None and asked.response is not None:
            raise BumpRefused(f"{holder} has signed: the signature is here")
        if asked is None:
            sessions.note_asked(tx, session, holder, Source.FILE)
        sessions.note_refused(tx, session, holder, reason)
        transaction = repository.lock(tx, session.transaction_id)
        return Outcome.FREE if free_if_unsigned(tx, site, transaction, reason) else Outcome.HELD


def free_if_unsigned(tx: Tx, site: Site, transaction: OurTransaction, reason: str) -> bool:
    """Free what a transaction serves if, by all that was ever handed out, too few can have signed any of its versions;
    False if that is not so.

    Args:
        tx: the caller's transaction, which has locked the transaction's row.
        site: the vault.
        transaction: built.
        reason: a sentence for those who look.
    """
    found = sessions.of_transaction(tx, transaction.id)
    if transaction.state is not TransactionState.BUILT or transaction.newest_signed is not None:
        return False
    if any(session.may_confirm or session.state in _LIVE for session in found):
        return False
    refusal = Refused((Reason(code="session-abandoned", detail=reason),))
    waiting = [each for each in reversed(transaction.versions) if each.state is VersionState.BUILT]
    # The first one last: it is the one whose refusal frees everything.
    return all(refuse(tx, site, version, refusal) for version in waiting)


def _locked(tx: Tx, site: Site, transaction_id: UUID) -> OurTransaction:
    transaction = repository.lock(tx, transaction_id)
    if (transaction.chain, transaction.keyset) != (site.chain, site.wallet.id):
        raise BumpRefused(f"there is no transaction {transaction_id} of {site.wallet.id}")
    if transaction.state not in _OPEN:
        raise BumpRefused(f"it is {transaction.state}: only one that is in no block is given up")
    return transaction


def _end(tx: Tx, transaction: OurTransaction) -> None:
    """Nobody is asked about any version any more."""
    for session in sessions.of_transaction(tx, transaction.id):
        if session.state in _LIVE:
            sessions.apply(tx, session, SessionEvent.EXPIRE)


def _cancel(db: Database, site: BtcSite, transaction_id: UUID, reason: str) -> UUID:
    with db.snapshot() as tx:
        transaction, rivals = _found(tx, site, transaction_id)
        # Every version spends what the first one does.
        pinned = coins.coins_of(tx, site.chain, sorted(transaction.versions[0].resources))
        if repository.consumptions(tx, site.chain, [coin.resource for coin in pinned]) or not pinned:
            raise BumpRefused("a block has used what it spends: nothing is left to cancel")
    selection = _least(site, pinned, rivals)
    by_resource = {coin.resource: coin for coin in pinned}
    previous = fetch_previous(site, [by_resource[coin.resource] for coin in selection.coins])
    used = frozenset[str]().union(*(version.resources for version in transaction.versions))
    id_ = new_id()
    with db.transaction() as tx:
        overtake(tx, rivals, reason)
        _end(tx, transaction)
        if repository.consumptions(tx, site.chain, sorted(used)):
            raise Raced("a block has used what it spends")
        index = change.allocate(tx, site.wallet, site.asset.id, site.outputs)
        intent = house_intent(site, Kind.CANCELLATION, str(id_), site.outputs.agreed_address(CHANGE, index))
        built = assemble(site, (), (intent,), selection, by_resource, previous, index)
        record_first(tx, site, id_, Kind.CANCELLATION, built, change_index=index)
        # Nothing else may build on coins that what is given up still may take.
        if not reservations.reserve(tx, site.chain, sorted(used - set(built.resources)), id_):
            raise Raced("another transaction has taken a coin of it meanwhile")
    return id_


def _found(tx: Tx, site: BtcSite, transaction_id: UUID) -> tuple[OurTransaction, Sequence[OurTransaction]]:
    """What is to be cancelled, and all of ours that would conflict with what does it, itself included."""
    transaction = repository.find(tx, transaction_id)
    if transaction is None or (transaction.chain, transaction.keyset) != (site.chain, site.wallet.id):
        raise BumpRefused(f"there is no transaction {transaction_id} of {site.wallet.id}")
    if transaction.state not in (*_OPEN, TransactionState.CONTESTED):
        raise BumpRefused(f"it is {transaction.state}: only one that is in no block is cancelled")
    if transaction.kind == Kind.CANCELLATION:
        raise BumpRefused("it is a cancellation: ask for it anew instead")
    if not site.signs(Kind.CANCELLATION):
        raise BumpRefused(f"its keys are {site.wallet.state}: they cancel nothing any more")
    if Kind.CANCELLATION not in site.allowed(tx):
        raise BumpRefused(f"paying is halted: {site.halted(tx)}")
    txids = [version.content for version in transaction.versions]
    if coins.spends_outputs_of(tx, site.chain, txids):
        raise BumpRefused("another transaction of ours spends its change")
    used = sorted(frozenset[str]().union(*(version.resources for version in transaction.versions)))
    rivals = repository.contenders(tx, site.chain, used)
    for each in rivals:
        if each.kind == Kind.CANCELLATION and each.state in _OPEN:
            raise BumpRefused(f"{each.id} cancels it already")
    return transaction, rivals


def _least(site: BtcSite, pinned: Sequence[SpendableCoin], rivals: Sequence[OurTransaction]) -> Selection:
    """As few coins as leave something beyond a fee for which nodes drop what is given up, the largest first."""
    present, too_high = present_feerate(site)
    if too_high is not None:
        raise BumpRefused(str(too_high))
    known = [rival(site, each) for each in rivals]
    trouble = BumpRefused("it spends nothing")
    largest = sorted(pinned, key=lambda coin: (-coin.units, coin.resource))
    for count in range(1, len(largest) + 1):
        try:
            return replaced(
                site,
                largest[:count],
                present,
                site.outputs.lock,
                old_fee_sats=sum(each.fee_sats for each in known),
                old_feerate=max((each.feerate for each in known), default=FeeRate(0)),
                incremental=max(site.node.incremental_feerate(), FeeRate(1_000)),
            )
        except BumpRefused as error:
            trouble = error
    raise trouble
