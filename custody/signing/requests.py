"""Signing requests: how one is made and recorded, and read again. The record is what the signer gets, word for word."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from chains.errors import InvalidValue
from chains.types import Address
from custody.signing.site import Site
from policies.intent import Evidence, Intent, Kind, SignedOrder, payment_intent
from signers.ports import SignRequest


@dataclass(frozen=True, slots=True)
class Payee:
    """One payment of a transaction."""

    signed: SignedOrder
    destination: Address

    @property
    def units(self) -> int:
        """Base units that arrive."""
        return self.signed.order.units

    @property
    def fee_ceiling(self) -> int:
        """Base units of the native asset, of network fee that it may cause."""
        return self.signed.order.fee_ceiling_units


@dataclass(frozen=True, slots=True)
class Built:
    """An unsigned transaction and its request, ready to be recorded as a version."""

    unsigned: bytes
    request: str
    """JSON of the signing request."""
    content: str
    """See `chains.ports`."""
    resources: tuple[str, ...]
    fee_units: int
    """EVM: at most."""
    feerate: int
    """BTC: sat/kvB, rounded down as bitcoind does. EVM: wei per gas, at most."""
    size: int
    """BTC: vB with signatures of the largest size. EVM: the gas limit."""


def payment_intents(payees: Sequence[Payee], site: Site) -> tuple[Intent, ...]:
    """One intent per payment; its id is the order's, so that a signer pays an order once."""
    keyset, version = site.wallet, site.bundle.version
    return tuple(payment_intent(payee.signed.order, keyset.id, keyset.tier, version) for payee in payees)


def house_intent(site: Site, kind: Kind, id: str, destination: str) -> Intent:
    """The one intent of a transaction that serves the house alone: a sweep, a consolidation, a nonce fill.

    Args:
        site: the wallet.
        kind: what it does.
        id: UUID of the sweep, or of the transaction where there is nothing else.
        destination: an address of the house.
    """
    return Intent(
        v=1,
        kind=kind,
        id=id,
        chain=site.chain,
        keyset=site.wallet.id,
        tier=site.wallet.tier,
        asset=site.asset.id,
        destination=destination,
        amount="0",
        order=None,
        policy_version=site.bundle.version,
    )


def make_request(
    site: Site,
    intents: tuple[Intent, ...],
    orders: Sequence[SignedOrder],
    transaction: bytes,
    *,
    safe_nonce: int | None = None,
) -> str:
    """JSON of the request that asks for a transaction's signatures.

    Args:
        site: the wallet.
        intents: what the transaction does.
        orders: the callers' orders behind payments, verbatim.
        transaction: BTC: the PSBT; EVM: the unsigned bytes; of a Safe its message.
        safe_nonce: for an execution, the Safe's nonce.
    """
    request = SignRequest(
        chain=site.chain,
        keyset=site.wallet.id,
        intents=intents,
        evidence=Evidence(orders=tuple(orders)),
        transaction=base64.b64encode(transaction).decode(),
        safe_nonce=safe_nonce,
    )
    return msgspec.json.encode(request).decode()


def read_request(text: str) -> SignRequest:
    """A recorded request. Raises InvalidValue if the record is damaged."""
    try:
        return msgspec.json.decode(text, type=SignRequest)
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"recorded signing request: {error}") from None
