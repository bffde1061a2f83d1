"""Refills out of a Safe: what its owners sign is one transfer, of the native asset or of a token. A gas payer pays."""

from __future__ import annotations

from uuid import UUID

from chains.eth.address import raw_address
from custody.ids import new_id
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces, safe_nonce
from custody.signing.evm.safe_build import transfer, would_fail
from custody.signing.evm.safe_nonce import version_of
from custody.signing.evm.safe_site import SafeSite
from custody.signing.recording import record_first
from custody.storage.db import Database
from custody.treasury.carrying import Unready, begin, finish
from custody.treasury.model import Refill
from policies.intent import Kind


def build(db: Database, site: SafeSite, refill: Refill, *, keep: int, now: int) -> UUID:
    """Record the transaction that carries out an approved refill; returns its id.

    Args:
        db: the database, as the worker's role.
        site: the Safe that the money leaves.
        refill: approved.
        keep: what payments that wait in this wallet ask for of the refill's asset: it stays.
        now: UNIX seconds.

    Raises:
        Unready: says why it waits.
        Raced: another worker was quicker, or the chain moves: nothing was recorded.
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        found = funds.committed(tx, site)
        in_flight = nonces.unconfirmed(tx, site.chain, site.wallet.id)
    if found is None:
        raise Unready("monitor: it has read no block yet")
    if in_flight >= site.pace.unconfirmed_at_most:
        raise Unready(f"queue-full: {in_flight} transactions of {site.wallet.id} are in no block yet")
    available = funds.available(site, found, {refill.asset})[refill.asset]
    needed = refill.units + keep
    if needed > available:
        told = site.bundle.asset(refill.asset).told
        raise Unready(
            f"funds: {told(needed)} are needed with what payments wait for, {told(available)} can be moved now"
        )
    to = raw_address(refill.destination)
    reason = would_fail(site, transfer(site, refill.asset, to, refill.units, 0))
    if reason is not None:
        raise Unready(str(reason))
    used = site.node.safes.nonce(site.sender, site.node.tip())
    transaction_id = new_id()
    with db.transaction() as tx:
        begin(tx, site, refill, now=now)
        message = safe_nonce.take(
            tx, site, used=used, say=lambda nonce: transfer(site, refill.asset, to, refill.units, nonce)
        )
        if funds.committed(tx, site) != found:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        record_first(tx, site, transaction_id, Kind.REFILL, version_of(site, message, (refill.intent,), ()))
        finish(tx, refill, transaction_id)
    return transaction_id
