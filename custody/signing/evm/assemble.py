"""What a transaction calls, and the version that it becomes with a nonce and a price. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from chains.eth.call import Call
from chains.eth.erc20 import transfer_calldata
from chains.eth.gas import TRANSFER_GAS, FeeOffer
from chains.eth.payout import Payout, payout_calldata
from chains.eth.tx import UnsignedTx
from custody.signing.evm.site import EvmSite, KeySite
from custody.signing.requests import Built, Payee, make_request
from policies.intent import Intent, SignedOrder


@dataclass(frozen=True, slots=True)
class Draft:
    """One call by the wallet's key, without nonce, gas and price."""

    to: bytes
    """20 bytes."""
    value_wei: int
    data: bytes
    gas_cap: int
    """Highest gas limit that a signer signs for it."""
    is_token: bool = False
    """Whether `to` is a token, which may say no without failing."""

    @classmethod
    def paying(cls, site: EvmSite, payees: Sequence[Payee]) -> Self:
        """The call that makes these payments: of a token one, of the native asset one, or many through the contract
        for that.

        Raises:
            InvalidValue: they cannot be made by one call.
        """
        caps = site.network.gas_caps
        if len(payees) == 1:
            [payee] = payees
            contract = site.bundle.asset(payee.signed.order.asset).contract
            if contract is None:
                return cls(payee.destination.script, payee.units, b"", caps.transfer)
            data = transfer_calldata(payee.destination.script, payee.units)
            return cls(raw_address(contract), 0, data, caps.token, is_token=True)
        if site.wallet.payout is None or any(p.signed.order.asset != site.asset.id for p in payees):
            raise InvalidValue("only payments of the native asset go together, through a contract for that")
        data = payout_calldata([Payout(payee.destination.script, payee.units) for payee in payees])
        return cls(raw_address(site.wallet.payout), sum(payee.units for payee in payees), data, caps.payout)

    @classmethod
    def nothing(cls, site: KeySite) -> Self:
        """No payment, to oneself: what fills a gap between nonces."""
        return cls(site.sender, 0, b"", max(TRANSFER_GAS, site.network.gas_caps.transfer))

    def call(self, sender: bytes) -> Call:
        """What a node is asked about its gas."""
        return Call(sender, self.to, self.value_wei, self.data)


def assemble(
    site: KeySite,
    draft: Draft,
    intents: tuple[Intent, ...],
    orders: Sequence[SignedOrder],
    *,
    nonce: int,
    gas_limit: int,
    offer: FeeOffer,
    safe_nonce: int | None = None,
) -> Built:
    """The unsigned transaction and the request that asks for its signature.

    Args:
        site: the wallet.
        draft: what it calls.
        intents: what that does.
        orders: behind payments.
        nonce: its own.
        gas_limit: of it.
        offer: for gas.
        safe_nonce: for an execution, the Safe's.
    """
    tx = UnsignedTx(
        chain_id=site.network.chain_id,
        nonce=nonce,
        max_priority_fee_per_gas_wei=offer.priority_wei,
        max_fee_per_gas_wei=offer.max_fee_wei,
        gas_limit=gas_limit,
        to=draft.to,
        value_wei=draft.value_wei,
        data=draft.data,
    )
    return version_of(site, tx, intents, orders, safe_nonce=safe_nonce)


def version_of(
    site: KeySite,
    tx: UnsignedTx,
    intents: tuple[Intent, ...],
    orders: Sequence[SignedOrder],
    *,
    safe_nonce: int | None = None,
) -> Built:
    """A transaction as a version to record."""
    raw = tx.encode()
    return Built(
        unsigned=raw,
        request=make_request(site, intents, orders, raw, safe_nonce=safe_nonce),
        content=tx.content,
        resources=(tx.resource(site.sender),),
        fee_units=tx.max_fee_wei,
        feerate=tx.max_fee_per_gas_wei,
        size=tx.gas_limit,
    )
