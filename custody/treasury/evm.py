"""Refills out of an EVM key-set: one plain transfer, of the native asset or of a token, to the target's address."""

from __future__ import annotations

from uuid import UUID

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from custody.ids import new_id
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.plan import gas_limit_of, offer_for, too_high
from custody.signing.evm.site import EvmSite
from custody.signing.recording import record_first
from custody.storage.db import Database
from custody.treasury.carrying import Unready, begin, finish
from custody.treasury.model import Refill
from policies.decision import Reason
from policies.intent import Kind


def build(db: Database, site: EvmSite, refill: Refill, *, keep: int, keep_wei: int, now: int) -> UUID:
    """Record the transaction that carries out an approved refill; returns its id.

    Args:
        db: the database, as the worker's role.
        site: the wallet that the money leaves.
        refill: approved.
        keep: what payments that wait in this wallet ask for of the refill's asset: it stays.
        keep_wei: the same of the native asset, which pays for gas.
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
    price = site.node.gas_price()
    reason = too_high(site, price)
    if reason is not None:
        raise Unready(str(reason))
    draft = _draft(site, refill)
    limit = gas_limit_of(site, draft)
    if isinstance(limit, Reason):
        raise Unready(str(limit))
    offer = offer_for(site, price, limit, int(site.network.fee_cap))
    if isinstance(offer, Reason):
        raise Unready(str(offer))
    used = site.node.nonce(site.sender, site.node.tip())
    available = funds.available(site, found, {refill.asset})
    gas_wei = limit * offer.max_fee_wei
    needed = {site.asset.id: gas_wei + keep_wei}
    needed[refill.asset] = needed.get(refill.asset, 0) + refill.units
    if refill.asset != site.asset.id:
        needed[refill.asset] += keep
    for asset, amount in needed.items():
        if amount > available[asset]:
            told = site.bundle.asset(asset).told
            raise Unready(
                f"funds: {told(amount)} are needed with gas and what payments wait for, {told(available[asset])} can be"
                " moved now"
            )
    transaction_id = new_id()
    with db.transaction() as tx:
        begin(tx, site, refill, now=now)
        nonce = nonces.take(tx, site.chain, site.account, used=used)
        if funds.committed(tx, site) != found:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        built = assemble(site, draft, (refill.intent,), (), nonce=nonce, gas_limit=limit, offer=offer)
        record_first(tx, site, transaction_id, Kind.REFILL, built)
        finish(tx, refill, transaction_id)
    return transaction_id


def _draft(site: EvmSite, refill: Refill) -> Draft:
    caps, to = site.network.gas_caps, raw_address(refill.destination)
    contract = site.bundle.asset(refill.asset).contract
    if contract is None:
        return Draft(to, refill.units, b"", caps.transfer)
    return Draft(raw_address(contract), 0, transfer_calldata(to, refill.units), caps.token, is_token=True)
