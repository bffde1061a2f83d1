"""Replacing an unconfirmed transaction by the same call with the same nonce at a higher price (EIP-1559).

Only one transaction with a nonce can be in a chain, so a replacement conflicts with every earlier version by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from chains.eth import gas
from chains.eth.gas import FeeOffer
from chains.eth.tx import UnsignedTx
from custody.signing import repository
from custody.signing.errors import BumpRefused, Raced
from custody.signing.evm import nonces
from custody.signing.evm.assemble import version_of
from custody.signing.evm.site import KeySite
from custody.signing.model import OurTransaction, Version, VersionState
from custody.signing.recording import record_next
from custody.signing.replacing import lock_as_it_was, replaceable
from custody.signing.requests import read_request
from custody.storage.db import Database, Tx
from custody.sweeps import repository as sweeps
from policies.intent import Kind
from signers.ports import SignRequest


@dataclass(frozen=True, slots=True)
class _Found:
    """What is to be replaced."""

    transaction: OurTransaction
    tx: UnsignedTx
    """The version that offers most."""
    request: SignRequest

    @property
    def offer(self) -> FeeOffer:
        """What it offers."""
        return FeeOffer(self.tx.max_fee_per_gas_wei, self.tx.max_priority_fee_per_gas_wei)


def replace_transaction(db: Database, site: KeySite, transaction_id: UUID, feerate: int | None) -> int:
    """Record a replacement at a feerate (`maxFeePerGas`, wei), or at the present price; see `custody.signing.bump`."""
    with db.snapshot() as tx:
        found = _find(tx, site, transaction_id)
    offer = _choose(site, found, feerate)
    built = version_of(
        site,
        replace(
            found.tx,
            max_fee_per_gas_wei=offer.max_fee_wei,
            max_priority_fee_per_gas_wei=offer.priority_wei,
        ),
        found.request.intents,
        found.request.evidence.orders,
        safe_nonce=found.request.safe_nonce,
    )
    number = found.transaction.versions[-1].version + 1
    with db.transaction() as tx:
        lock_as_it_was(tx, site, found.transaction)
        if repository.consumptions(tx, site.chain, built.resources):
            raise Raced(f"transaction {transaction_id} was mined meanwhile")
        record_next(tx, site, transaction_id, number, built)
        if found.transaction.kind == Kind.ROTATION:
            sweeps.record_rotated(tx, transaction_id, number, sweeps.rotated(tx, transaction_id))
    return number


def _find(tx: Tx, site: KeySite, transaction_id: UUID) -> _Found:
    transaction = replaceable(tx, site, transaction_id)
    dearest = max(_signed(transaction), key=lambda version: (version.feerate, version.version))
    return _Found(transaction, UnsignedTx.decode(dearest.unsigned), read_request(dearest.request))


def _signed(transaction: OurTransaction) -> list[Version]:
    return [version for version in transaction.versions if version.state is VersionState.SIGNED]


def _choose(site: KeySite, found: _Found, feerate: int | None) -> FeeOffer:
    """The cheapest offer that nodes take as a replacement, within the orders' ceilings and the caps."""
    if feerate is not None and feerate <= found.offer.max_fee_wei:
        raise BumpRefused(
            f"it offers {gas.told(found.offer.max_fee_wei)} already: a replacement must offer more than that, not"
            f" {gas.told(feerate)}"
        )
    cap_wei = _cap(site, found)
    offer = gas.replacement(found.offer, site.node.gas_price(), cap_wei=cap_wei)
    if offer is None or (feerate is not None and feerate > cap_wei):
        raise BumpRefused(
            f"a replacement needs more than the {gas.told(found.offer.max_fee_wei)} that it offers; at most"
            f" {gas.told(cap_wei)} are allowed (the network's cap is {gas.told(site.network.feerate_cap)}, the rest is"
            " what orders allow)"
        )
    return replace(offer, max_fee_wei=max(offer.max_fee_wei, feerate or 0))


def _cap(site: KeySite, found: _Found) -> int:
    """Most that it may offer per gas."""
    most = int(site.network.fee_cap)
    orders = found.request.evidence.orders
    if orders:
        most = min(most, sum(signed.order.fee_ceiling_units for signed in orders))
    return min(site.network.feerate_cap, most // found.tx.gas_limit)


def stuck(db: Database, site: KeySite) -> Sequence[tuple[UUID, int | None]]:
    """The head of the queue, if it has waited for blocks and does not offer what gas costs now.

    All others wait for it: it alone is replaced, and then the next.
    """
    with db.snapshot() as tx:
        head = nonces.head(tx, site.chain, site.wallet.id)
        waiting = repository.unconfirmed_for(tx, site.chain, site.wallet.id, site.pace.bump_after_blocks)
        transaction = None if head is None else repository.find(tx, head)
    if transaction is None or transaction.id not in {each for each, _ in waiting}:
        return ()
    price = site.node.gas_price()
    offers = [UnsignedTx.decode(version.unsigned) for version in _signed(transaction)]
    enough = any(
        tx.max_fee_per_gas_wei >= price.now_wei and tx.max_priority_fee_per_gas_wei >= price.priority_wei
        for tx in offers
    )
    return () if enough else [(transaction.id, None)]
