"""Filling gaps: a nonce that nothing uses, below ones that are broadcast, stops all of them until something uses it.

It happens where a signer refused what was built, while what was built after it is signed. The next payment takes the
lowest free nonce; if there is none for a while, a transaction to oneself does (DESIGN section 6).
"""

from __future__ import annotations

from uuid import UUID

from chains.eth.gas import TRANSFER_GAS
from custody.ids import new_id
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.plan import offer_for
from custody.signing.evm.site import KeySite
from custody.signing.recording import record_first
from custody.signing.requests import house_intent
from custody.storage.db import Database
from policies.decision import Reason
from policies.intent import Kind


def fill(db: Database, site: KeySite) -> UUID | None:
    """Record a transaction to oneself with the lowest unused nonce, if others have waited for it; None otherwise.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        halted = site.halted(tx)
        gap = nonces.hole(
            tx,
            site.chain,
            site.wallet.id,
            site.account,
            older_than_seconds=site.pace.fill_after_seconds,
        )
        found = funds.committed(tx, site)
    if halted is not None or gap is None or found is None:
        return None
    offer = offer_for(site, site.node.gas_price(), TRANSFER_GAS, int(site.network.fee_cap))
    if isinstance(offer, Reason):
        return None
    if TRANSFER_GAS * offer.max_fee_wei > funds.available(site, found, ())[site.asset.id]:
        return None
    used = site.node.nonce(site.sender, site.node.tip())
    transaction_id = new_id()
    try:
        with db.transaction() as tx:
            if nonces.take(tx, site.chain, site.account, used=used) != gap:
                raise Raced("another transaction has taken the nonce meanwhile")
            intent = house_intent(site, Kind.NONCE_FILL, str(transaction_id), site.address)
            built = assemble(
                site, Draft.nothing(site), (intent,), (), nonce=gap, gas_limit=TRANSFER_GAS, offer=offer
            )
            record_first(tx, site, transaction_id, Kind.NONCE_FILL, built)
    except Raced:
        return None
    return transaction_id
