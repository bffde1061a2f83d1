"""Recording what was built, before anybody is asked to sign it: a first version with its reservations, and later ones.

Each function runs in its caller's database transaction, and raises Raced where another worker was quicker: roll back.
"""

from __future__ import annotations

from uuid import UUID

from custody.signing import repository, reservations
from custody.signing.errors import Raced
from custody.signing.requests import Built, read_request
from custody.signing.sessions import repository as sessions
from custody.signing.site import Site
from custody.storage import events
from custody.storage.db import Tx
from policies.bundle import BitcoinVault, EvmVault
from policies.intent import Kind


def record_first(
    tx: Tx,
    site: Site,
    transaction_id: UUID,
    kind: Kind,
    built: Built,
    *,
    change_index: int | None = None,
    payments: int = 0,
) -> None:
    """A new transaction, its first version, and the reservations of all that it uses.

    Args:
        tx: the caller's transaction, which also records what it serves.
        site: the wallet that will sign.
        transaction_id: its id, new.
        kind: of its intents.
        built: its first version.
        change_index: of its change address (BTC), None without change.
        payments: how many withdrawals it pays, for the feed.

    Raises:
        Raced: a resource is reserved for another transaction.
    """
    repository.insert(tx, transaction_id, site.chain, site.wallet.id, kind, change_index)
    if not repository.insert_version(tx, transaction_id, 1, built):
        raise Raced("a transaction with the same content is recorded already")
    if not reservations.reserve(tx, site.chain, built.resources, transaction_id):
        raise Raced("a coin or nonce was reserved meanwhile")
    _open_session(tx, site, transaction_id, 1, built)
    events.emit(
        tx,
        "transaction.built",
        str(transaction_id),
        {"chain": site.chain, "kind": kind, "payments": payments, "fee": str(built.fee_units)},
    )


def record_next(tx: Tx, site: Site, transaction_id: UUID, number: int, built: Built) -> None:
    """A further version of a transaction; what it uses beyond the others is reserved by the caller.

    Raises:
        Raced: another worker has recorded this number.
    """
    if not repository.insert_version(tx, transaction_id, number, built):
        raise Raced("another worker replaced it meanwhile")
    _open_session(tx, site, transaction_id, number, built)
    events.emit(
        tx,
        "transaction.replaced",
        str(transaction_id),
        {"chain": site.chain, "version": number, "fee": str(built.fee_units)},
    )


def _open_session(tx: Tx, site: Site, transaction_id: UUID, number: int, built: Built) -> None:
    """Members of a vault have until the first of the orders expires; for the house's own operations some days."""
    if not isinstance(site.wallet, BitcoinVault | EvmVault):
        return
    orders = read_request(built.request).evidence.orders
    ends = [signed.order.expires_at for signed in orders]
    members = site.wallet.cosigners if isinstance(site.wallet, BitcoinVault) else site.wallet.owners
    sessions.insert(
        tx,
        transaction_id,
        number,
        site.wallet.id,
        site.wallet.threshold,
        len(members),
        min(ends, default=None),
        seconds=site.pace.session_seconds,
    )
