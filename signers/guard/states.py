"""What keeps a wallet from signing, whatever is asked: its state in the bundle, and officers' freezes. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from chains.errors import InvalidValue
from chains.eth.address import raw_address
from policies.bundle import Bundle, EvmVault, KeysetEntry, KeyState
from policies.intent import Intent, Kind
from policies.statements import Freeze
from signers.guard.examined import Target, Unsigned
from signers.ports import Reason, SignRequest

NOTHING: Final[frozenset[Kind]] = frozenset()
ALLOWED: Final[dict[KeyState, frozenset[Kind]]] = {
    "pre-active": NOTHING,
    # A rotation counts in no tier's window, so wallets in use have none.
    "active": frozenset(Kind) - {Kind.ROTATION},
    "suspended": NOTHING,
    "deactivated": frozenset({Kind.ROTATION, Kind.SWEEP, Kind.CONSOLIDATION, Kind.NONCE_FILL}),
    "compromised": frozenset({Kind.ROTATION}),
    "destroyed": NOTHING,
}
"""Kinds of intents that are signed in each state."""
RELEASING: Final[frozenset[KeyState]] = frozenset({"active", "deactivated"})
"""States in which everything that was journaled is given out again; in the others but `destroyed`, only rotations."""


class Freezes(Protocol):
    """Knows what officers have frozen: the journal."""

    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that no higher bundle has lifted."""


def state_reasons(state: KeyState, kinds: Iterable[Kind]) -> list[Reason]:
    """An objection for each kind that is not signed in this state."""
    return [
        Reason("key-state", f"{kind}: not signed by keys that are {state}")
        for kind in sorted(set(kinds) - ALLOWED[state])
    ]


def attestation_state(state: KeyState) -> list[Reason]:
    """An objection unless keys of this state attest addresses: others should receive nothing more."""
    return [] if state == "active" else [Reason("key-state", f"keys that are {state} attest no address")]


def freeze_reasons(request: SignRequest, unsigned: Unsigned, bundle: Bundle, view: Freezes) -> list[Reason]:
    """An objection for each freeze in force that covers the request."""
    freezes = view.freezes()
    if not freezes:
        return []
    scopes = _scopes(request, unsigned, bundle) | _customers(request, freezes)
    return [_frozen(freeze) for freeze in freezes if freeze.scope in scopes]


def target_freezes(target: Target | None, view: Freezes) -> list[Reason]:
    """The same for where a refill goes: what is frozen should receive nothing more."""
    if target is None:
        return []
    scopes = {f"wallet:{target.wallet}", f"tier:{target.tier}"}
    return [_frozen(freeze) for freeze in view.freezes() if freeze.scope in scopes]


def attestation_freezes(keyset: KeysetEntry, asset: str, customer: str | None, view: Freezes) -> list[Reason]:
    """The same for an address to be attested: what is frozen should receive nothing more."""
    scopes = {
        "all",
        f"chain:{keyset.chain}",
        f"tier:{keyset.tier}",
        f"wallet:{keyset.id}",
        f"asset:{asset}",
        *(() if customer is None else (f"customer:{customer}",)),
    }
    return [_frozen(freeze) for freeze in view.freezes() if freeze.scope in scopes]


def withheld(
    request: SignRequest, unsigned: Unsigned, bundle: Bundle, view: Freezes, target: Target | None
) -> str:
    """Why signatures of a journaled transaction are not given out again; empty if they are.

    They may be out already, so this is no refusal: nobody may conclude that the transaction can't confirm.
    """
    rotation = all(intent.kind is Kind.ROTATION for intent in request.intents)
    try:
        state = bundle.wallet(request.keyset).state
    except InvalidValue:
        state = "active"  # what the bundle dropped without a word about its keys
    if state == "destroyed" or (state not in RELEASING and not rotation):
        return f"{request.keyset} is {state}"
    freezes = [] if rotation else freeze_reasons(request, unsigned, bundle, view)
    freezes += target_freezes(target, view)
    return "; ".join(reason.detail for reason in freezes)


def _scopes(request: SignRequest, unsigned: Unsigned, bundle: Bundle) -> set[str]:
    """Everything that a request touches; the native asset pays the fee of whatever is done."""
    scopes = {"all", f"chain:{request.chain}", f"wallet:{request.keyset}"}
    scopes |= {f"asset:{intent.asset}" for intent in request.intents}
    scopes |= {f"tier:{intent.tier}" for intent in request.intents}
    # The house's own intents name the native asset, whatever their transactions collect or carry out.
    scopes |= {
        f"asset:{entry.id}"
        for entry in bundle.assets
        if entry.chain == request.chain and entry.contract and raw_address(entry.contract) in unsigned.called
    }
    for vault in _executed(request.intents, bundle):
        scopes |= {f"wallet:{vault.id}", f"tier:{vault.tier}"}
    scopes |= {
        f"asset:{network.native_asset}" for network in bundle.networks if network.chain == request.chain
    }
    return scopes


def _customers(request: SignRequest, freezes: Iterable[Freeze]) -> set[str]:
    """Frozen customers whom a request pays for; where it keeps an order back, all of them."""
    frozen = {freeze.scope for freeze in freezes if freeze.scope.startswith("customer:")}
    if not frozen:
        return frozen
    customers = {s.order.digest_hex(): f"customer:{s.order.customer}" for s in request.evidence.orders}
    orders = {intent.order for intent in request.intents if intent.kind is Kind.PAYMENT}
    return frozen if orders - customers.keys() else frozen & {customers[order] for order in orders if order}


def _executed(intents: Iterable[Intent], bundle: Bundle) -> Iterable[EvmVault]:
    """Vaults whose Safe an intent has executed."""
    safes = {i.destination for i in intents if i.kind is Kind.EXECUTION}
    return (v for v in bundle.vaults if isinstance(v, EvmVault) and v.address in safes)


def _frozen(freeze: Freeze) -> Reason:
    return Reason("frozen", f"{freeze.officer} has frozen {freeze.scope}: {freeze.reason}")
