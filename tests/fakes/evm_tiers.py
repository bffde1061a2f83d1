"""An EVM network in three tiers (a hot key, a warm and a cold Safe) with a gas payer, and refills between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from policies.bundle import Bundle, EvmVault, Owner
from policies.intent import Intent, Kind
from signers.ports import SignRequest
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, FEEX, USDX, EvmDraft, named_address
from tests.fakes.safe_signing import (
    GAS_PAYER,
    SAFE,
    VAULT,
    ExecutorBench,
    OwnerBench,
    SafeDraft,
    SafeWorld,
)
from tests.fakes.signing import carrier_of, own_intent

COLD_VAULT = "eth-cold"
COLD_SAFE = named_address("the cold tier's safe")
TOKENS = {"USDX": USDX, "FEEX": FEEX}


@dataclass
class SafeTiersWorld(SafeWorld):
    """The world of a Safe, with a colder one beside it."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """As in `SafeWorld`; `cold_...` are fields of the cold Safe."""
        cold = {k.removeprefix("cold_"): v for k, v in changes.items() if k.startswith("cold_")}
        plain = {k: v for k, v in changes.items() if not k.startswith("cold_")}
        vault = {k.removeprefix("vault_"): v for k, v in changes.items() if k.startswith("vault_")}
        rules = (
            *(self.requirement(asset=asset, verdict=None) for asset in ("ETH", "USDX")),
            *(self.requirement(tier="cold", asset=asset, verdict=None) for asset in ("ETH", "USDX")),
        )
        fields: dict[str, Any] = {
            "vaults": (self.vault_entry(**vault), self.cold_entry(**cold)),
            "requirements": rules,
        }
        bundle = super().bundle(version, **(fields | plain))
        if "caps" in changes:
            return bundle
        cap = msgspec.structs.replace(
            self.warm_cap("ETH", ETHER), tier="cold", payment_from=str(100 * ETHER), payment_below=str(10**30)
        )
        return msgspec.structs.replace(bundle, caps=(*bundle.caps, cap))

    def cold_entry(self, **changes: Any) -> EvmVault:
        """The cold Safe as the bundle has it."""
        fields: dict[str, Any] = {
            "id": COLD_VAULT,
            "chain": EVM_CHAIN,
            "tier": "cold",
            "threshold": 2,
            "address": COLD_SAFE,
            "owners": tuple(
                Owner(id=name, organisation=name, address=named_address(f"holder {name}")) for name in "abc"
            ),
        }
        return EvmVault(**(fields | changes))

    def hot_refill(self, to: str, /, units: int = ETHER, asset: str = "ETH", **changes: Any) -> EvmDraft:
        """Money of the hot key to another wallet's address."""
        intent = self.house_intent(Kind.REFILL, destination=to, asset=asset, amount=str(units))
        fields: dict[str, Any] = {"to": raw_address(to), "value_wei": units, "data": b"", "intents": [intent]}
        if asset in TOKENS:
            data = transfer_calldata(raw_address(to), units)
            fields |= {"to": raw_address(TOKENS[asset]), "value_wei": 0, "data": data}
        return EvmDraft([], **(fields | changes))

    def safe_refill_intent(self, to: str, units: int, asset: str, **changes: Any) -> Intent:
        """What the warm Safe should do."""
        fields = {"chain": EVM_CHAIN, "asset": asset, "tier": "warm", "destination": to, "amount": str(units)}
        return own_intent(VAULT, Kind.REFILL, **(fields | changes))

    def safe_refill(self, to: str, units: int = ETHER, asset: str = "ETH", **changes: Any) -> SafeDraft:
        """Money of the warm Safe to another wallet's address."""
        tx: dict[str, Any] = {"to": raw_address(to), "value_wei": units, "data": b""}
        if asset in TOKENS:
            data = transfer_calldata(raw_address(to), units)
            tx = {"to": raw_address(TOKENS[asset]), "value_wei": 0, "data": data}
        intents = [self.safe_refill_intent(to, units, asset)]
        return SafeDraft([], **({"tx": tx, "intents": intents} | changes))

    def approved(self, draft: SafeDraft, names: tuple[str, ...] = ("ada",)) -> SignRequest:
        """The request to an owner, with these people's approvals."""
        request = self.safe_request(draft)
        approvals = tuple(self.approval(intent, name) for intent in request.intents for name in names)
        carrier = carrier_of(request)
        verdicts = tuple(self.verdict(intent, carrier=carrier) for intent in request.intents)
        evidence = msgspec.structs.replace(request.evidence, approvals=approvals, verdicts=verdicts)
        return msgspec.structs.replace(request, evidence=evidence)


class HotBench(ExecutorBench):
    """The signer of the hot keys and the gas payer, in three tiers."""

    world: SafeTiersWorld

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SafeTiersWorld.make())

    def asked(self, draft: EvmDraft, version: int = 1) -> SignRequest:
        """The request for a draft, decided under a version of the bundle."""
        draft.intents = [msgspec.structs.replace(i, policy_version=version) for i in draft.intents]
        return self.world.request(draft)


class WarmBench(OwnerBench):
    """The signer of one owner of the warm Safe, in three tiers."""

    world: SafeTiersWorld

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, SafeTiersWorld.make())


__all__ = [
    "COLD_SAFE",
    "COLD_VAULT",
    "GAS_PAYER",
    "SAFE",
    "VAULT",
    "HotBench",
    "SafeTiersWorld",
    "WarmBench",
]
