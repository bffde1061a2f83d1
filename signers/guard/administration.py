"""Administration: the Safe that is the admin of a forwarders' factory changes whom the forwarders pay. Pure.

Only the treasury, and only to the key of the chain's active hot key-set, as the bundle has it. The office of the admin
is never handed over. What the factory does with a call it does by its own rules: a proposal takes 48 hours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec import UnsetType

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.factory import TreasuryCall
from chains.eth.safe import CALL, SafeTx
from policies.bundle import Bundle, EvmKeyset, EvmVault
from policies.intent import Intent
from signers.guard.evm_calls import listed, refusal
from signers.ports import Reason, SignRequest

_NO_CALL: Final = "no call by which a treasury is proposed, accepted or taken back"


def administered(bundle: Bundle, vault: EvmVault, to: bytes) -> EvmKeyset | None:
    """The key-set whose factory is at an address (20 bytes) and has this Safe as its admin; None: there is none."""
    place = (vault.chain, vault.id, to)
    for keyset in bundle.keysets:
        if isinstance(keyset, EvmKeyset) and (keyset.chain, keyset.admin, listed(keyset.factory)) == place:
            return keyset
    return None


def treasury_of(bundle: Bundle, chain: str) -> str | None:
    """The only address that may become a treasury on a chain: the active hot key's; None where there is none."""
    for keyset in bundle.keysets:
        if isinstance(keyset, EvmKeyset) and (keyset.chain, keyset.tier, keyset.state) == (
            chain,
            "hot",
            "active",
        ):
            return keyset.address
    return None


def change_reasons(tx: SafeTx, vault: EvmVault, bundle: Bundle) -> tuple[TreasuryCall | None, list[Reason]]:
    """What a Safe's call of its factory does (None: it can't be said), and objections to it.

    Args:
        tx: calls a factory of which `administered` says that the Safe is its admin.
        vault: the Safe.
        bundle: knows the active hot key.
    """
    reasons: list[Reason] = []
    if tx.operation != CALL:
        reasons.append(Reason("delegate-call", f"{checksummed(tx.to)} would run as if it were the Safe"))
    if tx.refunds:
        reasons.append(
            Reason("refund-fields", "gas, its price, token or receiver of a refund: the Safe refunds nothing")
        )
    if tx.value_wei != 0:
        reasons.append(Reason("value-with-call", f"{tx.value_wei} wei go to the factory"))
    try:
        call = TreasuryCall.decode(tx.data)
    except InvalidValue:
        return None, [*reasons, refusal(tx.data, "unknown-call", _NO_CALL).reason]
    if call.treasury is not None:
        reasons += _treasury_reasons(checksummed(call.treasury), vault, bundle)
    return call, reasons


def administration_reasons(request: SignRequest, tx: SafeTx, vault: EvmVault, bundle: Bundle) -> list[Reason]:
    """Objections to an administration: what its bytes do, and that it is what its intent says."""
    if administered(bundle, vault, tx.to) is None:
        told = f"{vault.id} is no admin of a factory at {checksummed(tx.to)} in the bundle"
        return [refusal(tx.data, "unlisted-contract", told).reason]
    call, reasons = change_reasons(tx, vault, bundle)
    for intent in request.intents:
        if intent.destination != checksummed(tx.to):
            reasons.append(Reason("bad-destination", f"the call is to the factory {checksummed(tx.to)}"))
        if call is not None:
            reasons += _meant(intent, call, vault, bundle)
    return reasons


def _meant(intent: Intent, call: TreasuryCall, vault: EvmVault, bundle: Bundle) -> Iterator[Reason]:
    """That an intent says what the call does. An acceptance does not say whose, so there its intent is held to it."""
    change = intent.change
    if isinstance(change, UnsetType):
        return  # `intent_reasons` has said so
    if change.step != call.step:
        yield Reason("factory-call", f"{intent.id} is to {change.step}, the call is to {call.step}")
    if call.treasury is not None and change.treasury != checksummed(call.treasury):
        yield Reason(
            "factory-call", f"{intent.id} proposes {change.treasury}, the call {checksummed(call.treasury)}"
        )
    if (change.step == "cancel") != (change.treasury is None):
        yield Reason("factory-call", f"{intent.id}: all but a cancellation name the treasury")
    if change.treasury is not None and call.treasury is None:
        yield from _treasury_reasons(change.treasury, vault, bundle)


def _treasury_reasons(address: str, vault: EvmVault, bundle: Bundle) -> Iterator[Reason]:
    active = treasury_of(bundle, vault.chain)
    if address != active:
        told = (
            f"the active hot key of {vault.chain} is {active}"
            if active
            else f"{vault.chain} has no active hot key"
        )
        yield Reason("factory-treasury", f"forwarders would pay {address}: {told}")
