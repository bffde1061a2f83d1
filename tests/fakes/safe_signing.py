"""A small world around a Safe of the warm tier: its owners, the gas payer that executes, and requests to both."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import SafeMessage, SafeTx, join_signatures
from policies.bundle import Bundle, EvmVault, GasPayer, Owner, TierCap
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import sign_order
from policies.rules import Rule
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord, GasPayerRecord, SafeOwnerRecord
from signers.ports import SignRequest
from signers.wallets import EvmWallet, GasPayerWallet, SafeWallet, Wallet
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    EVM_CHAIN_ID,
    USDX,
    EvmDraft,
    EvmWorld,
    SoftEvmKeys,
    named_address,
)
from tests.fakes.signer import Bench
from tests.fakes.signing import DAY, own_intent, payment_intent

VAULT = "eth-warm"
SAFE = named_address("the warm tier's safe")
OWNERS = ("warm-a", "warm-b", "warm-c")
THRESHOLD = 2
GAS_PAYER = "eth-gas"
HOLDING_CAP = ETHER // 2


@dataclass
class SafeDraft:
    """A Safe's transaction to be asked for; the defaults are honest, tests change one thing at a time."""

    orders: list[Order]
    nonce: int = 0
    chain_id: int = EVM_CHAIN_ID
    safe: str = SAFE
    chain: str = EVM_CHAIN
    keyset: str = VAULT
    tx: dict[str, Any] = field(default_factory=dict)
    """Fields of `SafeTx` instead of the honest ones."""
    intents: list[Intent] = field(default_factory=list)
    raw: bytes | None = None
    """Instead of all that, the bytes."""


def owner_keys() -> list[SoftEvmKeys[SafeOwnerRecord]]:
    """Fresh keys of all owners."""
    return [SoftEvmKeys.of(SafeOwnerRecord, VAULT, EVM_CHAIN_ID) for _ in OWNERS]


@dataclass
class SafeWorld(EvmWorld):
    """The world of EVM key-sets with one Safe, of which three signers hold an owner's key each, and its gas payer."""

    owners: list[SoftEvmKeys[SafeOwnerRecord]]
    hot: list[SoftEvmKeys[EvmKeysetRecord]]
    gas: SoftEvmKeys[GasPayerRecord]
    safe: str = SAFE

    @classmethod
    def make(cls, safe: str = SAFE, owners: list[SoftEvmKeys[SafeOwnerRecord]] | None = None) -> SafeWorld:
        """A world with fresh keys, or with the owners of a Safe that exists."""
        hot = [SoftEvmKeys.make(), SoftEvmKeys.make("xeth-hot", 31338)]
        gas = SoftEvmKeys.of(GasPayerRecord, GAS_PAYER, EVM_CHAIN_ID)
        return cls(hot[0].record, hot[1].record, owners or owner_keys(), hot, gas, safe)

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """As in `EvmWorld`; `vault_...` are fields of the Safe, `warm_...` of the warm cap of ETH, `gas_...` of the gas
        payer."""
        prefixes = ("vault_", "warm_", "gas_")
        plain = {k: v for k, v in changes.items() if not k.startswith(prefixes) or k == "gas_payers"}
        gas = {
            k.removeprefix("gas_"): v
            for k, v in changes.items()
            if k.startswith("gas_") and k != "gas_payers"
        }
        vault = {k.removeprefix("vault_"): v for k, v in changes.items() if k.startswith("vault_")}
        warm = {k.removeprefix("warm_"): v for k, v in changes.items() if k.startswith("warm_")}
        caps = (self.warm_cap("ETH", ETHER, **warm), self.warm_cap("USDX", 10**9))
        fields: dict[str, Any] = {
            "vaults": (self.vault_entry(**vault),),
            "gas_payers": (self.gas_payer_entry(**gas),),
            "requirements": (self.requirement(asset="ETH"), self.requirement(asset="USDX")),
        }
        bundle = super().bundle(version, **(fields | plain))
        if "caps" in changes:
            return bundle
        paid = {cap.asset for cap in caps}
        # The Safe pays nearly all there is, so the hot tier pays next to nothing.
        hot = (
            msgspec.structs.replace(c, payment_below="1000") if c.asset in paid else c for c in bundle.caps
        )
        return msgspec.structs.replace(bundle, caps=(*hot, *caps))

    def gas_payer_entry(self, **changes: Any) -> GasPayer:
        """The gas payer as the bundle has it."""
        record = self.gas.record
        fields: dict[str, Any] = {
            "id": record.id,
            "chain": EVM_CHAIN,
            "address": record.address,
            "attestation_key": record.attestation_key,
            "holding_cap": str(HOLDING_CAP),
        }
        return GasPayer(**(fields | changes))

    def vault_entry(self, **changes: Any) -> EvmVault:
        """The Safe as the bundle has it."""
        fields: dict[str, Any] = {
            "id": VAULT,
            "chain": EVM_CHAIN,
            "tier": "warm",
            "threshold": THRESHOLD,
            "address": self.safe,
            "owners": tuple(
                Owner(id=name, organisation=f"org-{name}", address=keys.record.address)
                for name, keys in zip(OWNERS, self.owners, strict=True)
            ),
        }
        return EvmVault(**(fields | changes))

    def warm_cap(self, asset: str, one: int, **changes: Any) -> TierCap:
        """What the warm tier may pay: nearly anything below 100, 1,000 a day."""
        fields: dict[str, Any] = {
            "tier": "warm",
            "asset": asset,
            "payment_from": "1000",
            "payment_below": str(100 * one),
            "window_cap": str(1000 * one),
            "window_seconds": DAY,
        }
        return TierCap(**(fields | changes))

    def requirement(self, **changes: Any) -> Rule:
        """What warm payments need: one person and a verdict."""
        return super().requirement(**({"approvals": 1} | changes))

    def safe_draft(self, *units: int, asset: str = "ETH", **changes: Any) -> SafeDraft:
        """An honest draft: an order for each of `units`, which a Safe pays one at a time."""
        default = 10**9 if asset == "USDX" else 5 * ETHER
        return SafeDraft([self.order(n, asset=asset) for n in units or (default,)], **changes)

    def message(self, draft: SafeDraft) -> SafeMessage:
        """What the owners are to sign."""
        fields: dict[str, Any] = {"to": raw_address(USDX), "value_wei": 0, "data": b"", "nonce": draft.nonce}
        if draft.orders and draft.orders[0].asset == "USDX":
            order = draft.orders[0]
            fields["data"] = transfer_calldata(raw_address(order.destination), order.units)
        elif draft.orders:
            fields |= {"to": raw_address(draft.orders[0].destination), "value_wei": draft.orders[0].units}
        return SafeMessage(draft.chain_id, raw_address(draft.safe), SafeTx(**(fields | draft.tx)))

    def safe_request(self, draft: SafeDraft) -> SignRequest:
        """The request to an owner: intents, signed orders, an approval and a verdict, and what is to be signed."""
        plain = SignRequest(
            chain=draft.chain,
            keyset=draft.keyset,
            intents=tuple(draft.intents or [self.safe_intent(order) for order in draft.orders]),
            evidence=Evidence(orders=tuple(sign_order(order, self.caller) for order in draft.orders)),
            transaction=base64.b64encode(draft.raw or self.message(draft).encode()).decode(),
        )
        return self.evidence(plain, ("ada",))

    def safe_intent(self, order: Order, /, **changes: Any) -> Intent:
        """What the Safe should do for an order."""
        return payment_intent(VAULT, order, **({"tier": "warm"} | changes))

    def safe_house_intent(self, kind: Kind, destination: str, **changes: Any) -> Intent:
        """What the house wants of the Safe: a rotation."""
        fields = {"chain": EVM_CHAIN, "asset": "ETH", "tier": "warm", "destination": destination}
        return own_intent(VAULT, kind, **(fields | changes))

    def owner_signature(self, message: SafeMessage, owner: int) -> bytes:
        """65 bytes by one owner, made as its signer makes them."""
        keys = self.owners[owner]
        plain = normalised(keys.signature(message.signing_hash), keys.pubkey, message.signing_hash)
        return plain[:64] + bytes([27 + plain[64]])

    def signatures_blob(self, message: SafeMessage, owners: Sequence[int] = (0, 1)) -> bytes:
        """Signatures of some owners as `execTransaction` takes them."""
        return join_signatures(message.signing_hash, [self.owner_signature(message, n) for n in owners])

    def execution(
        self, message: SafeMessage, blob: bytes | None = None, *, destination: str = "", **changes: Any
    ) -> EvmDraft:
        """The gas payer's transaction that sends what two owners have signed, or what `blob` says they did."""
        intent = self.gas_intent(Kind.EXECUTION, destination=destination or self.safe)
        fields: dict[str, Any] = {
            "to": raw_address(self.safe),
            "value_wei": 0,
            "data": message.tx.execution(self.signatures_blob(message) if blob is None else blob),
            "gas_limit": 200_000,
            "safe_nonce": message.tx.nonce,
            "intents": [intent],
            "keyset": self.gas.record.id,
        }
        return EvmDraft([], **(fields | changes))

    def gas_intent(self, kind: Kind, **changes: Any) -> Intent:
        """What the house wants of its gas payer."""
        fields = {"chain": EVM_CHAIN, "asset": "ETH", "destination": self.gas.record.address}
        return own_intent(self.gas.record.id, kind, **(fields | changes))


class _SafeWorldBench(Bench[SafeWorld]):
    """A bench in the world of a Safe."""

    def __init__(self, directory: Path, world: SafeWorld | None = None) -> None:
        super().__init__(directory, world or SafeWorld.make())

    @property
    def owners(self) -> list[SoftEvmKeys[SafeOwnerRecord]]:
        """Keys of all owners."""
        return self.world.owners

    @property
    def hot(self) -> list[SoftEvmKeys[EvmKeysetRecord]]:
        """Keys of the hot key-sets."""
        return self.world.hot

    def adopted(self, version: int, draft: SafeDraft) -> SafeDraft:
        """The draft, decided under a later version of the bundle."""
        intents = draft.intents or [self.world.safe_intent(order) for order in draft.orders]
        changed = [msgspec.structs.replace(intent, policy_version=version) for intent in intents]
        return replace(draft, intents=changed)


class OwnerBench(_SafeWorldBench):
    """A signer that holds one owner's key: the first's unless told otherwise."""

    def __init__(self, directory: Path, world: SafeWorld | None = None, owner: int = 0) -> None:
        self.owner = owner
        super().__init__(directory, world)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {VAULT: SafeWallet(self.owners[self.owner])}

    def request(self, *units: int, asset: str = "ETH", **changes: Any) -> SignRequest:
        """The request for an honest draft, or one with a change."""
        return self.world.safe_request(self.world.safe_draft(*units, asset=asset, **changes))

    def asked(self, **tx: Any) -> SignRequest:
        """An honest payment of ETH whose `SafeTx` has other fields."""
        return self.request(tx=tx)


class ExecutorBench(_SafeWorldBench):
    """A signer of the hot keys and the gas payer, which sends what a Safe's owners have signed."""

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        hot = {keys.record.id: EvmWallet(keys) for keys in self.hot}
        return {**hot, GAS_PAYER: GasPayerWallet(self.world.gas)}

    def message(self, **tx: Any) -> SafeMessage:
        """What the owners have signed: a payment of 5 ETH, or with other fields."""
        return self.world.message(self.world.safe_draft(tx=tx))

    def request(self, message: SafeMessage, blob: bytes | None = None, **changes: Any) -> SignRequest:
        """The request to execute it."""
        return self.world.request(self.world.execution(message, blob, **changes))
