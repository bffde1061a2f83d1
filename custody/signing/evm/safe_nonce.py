"""The nonces of a Safe, and what is said with each: never the same words for two payments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from chains.eth.safe import SafeMessage, SafeTx
from custody.ids import new_id
from custody.signing import repository
from custody.signing.evm import nonces
from custody.signing.evm.safe_site import SafeSite
from custody.signing.recording import record_first
from custody.signing.requests import Built, house_intent, make_request
from custody.storage.db import Tx
from policies.intent import Intent, Kind, SignedOrder


def take(tx: Tx, site: SafeSite, *, used: int, say: Callable[[int], SafeMessage]) -> SafeMessage:
    """What owners are to sign next; the caller records it before `tx` ends. One caller at a time.

    A nonce that was given up goes to the next payment. Where that would be word for word what was given up, owners'
    signatures of then would carry it out, and nobody could tell which of the two it paid: the nonce goes to nothing,
    and the payment takes the one after it.

    Args:
        tx: the transaction that records it.
        site: the Safe.
        used: how many of its nonces the chain has used, by the node's word of this moment.
        say: the message with a nonce.

    Raises:
        Raced: the chain has used the nonce, and the monitor has not read that block yet; or another worker was quicker.
    """
    while True:
        message = say(nonces.take(tx, site.chain, site.account, used=used))
        if not repository.may_be_signed(tx, message.content):
            return message
        record_nothing(tx, site, message.tx.nonce)


def record_nothing(tx: Tx, site: SafeSite, nonce: int) -> UUID:
    """Record a transaction that does nothing with a nonce that is free; returns its id. Raises Raced: it is not."""
    id_ = new_id()
    nothing = SafeTx(to=site.sender, value_wei=0, data=b"", nonce=nonce)
    intent = house_intent(site, Kind.CANCELLATION, str(id_), site.address)
    message = SafeMessage(site.network.chain_id, site.sender, nothing)
    record_first(tx, site, id_, Kind.CANCELLATION, version_of(site, message, (intent,), ()))
    return id_


def version_of(
    site: SafeSite, message: SafeMessage, intents: tuple[Intent, ...], orders: Sequence[SignedOrder]
) -> Built:
    """A Safe's transaction as a version to record. It costs the Safe nothing."""
    raw = message.encode()
    return Built(
        unsigned=raw,
        request=make_request(site, intents, orders, raw),
        content=message.content,
        resources=(message.resource,),
        fee_units=0,
        feerate=0,
        size=site.network.gas_caps.execution,
    )
