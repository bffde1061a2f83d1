"""The bundle itself, its signed form, and the root of trust that is pinned outside of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec

from chains.errors import InvalidValue
from policies.bundle.common import Tier
from policies.bundle.limits import Breaker, PriceBound, TierCap
from policies.bundle.networks import AssetEntry, NetworkEntry
from policies.bundle.people import Approver, Attestor, Caller, Officer, Operator
from policies.bundle.wallets import GasPayer, KeysetEntry, Vault, WalletEntry
from policies.canonical import Document, Hex32, Name, Part, Seconds, Units, Version, decoder_for
from policies.intent import Signature
from policies.rules import Policy

_K = TypeVar("_K")
_T = TypeVar("_T")


class Overlay(Part, frozen=True):
    """What officers have lowered alone (`policies.overlays`); whoever applies it writes it, the quorum never does."""

    lowerings: tuple[Hex32, ...]
    """Digests of the statements that are applied."""
    longest_order_seconds: Seconds
    """As the quorum signed it."""
    limits: tuple[tuple[Name, Units], ...] = ()
    """Rules of which less is allowed than the quorum signed, and how much: decisions are recorded with them."""


class Bundle(Document, frozen=True):
    """Everything that the system trusts by signature: networks, assets, key-sets, caps, people, rules."""

    domain: ClassVar[str] = "bundle"

    v: Literal[1]
    version: Version
    issued_at: Seconds
    expires_at: Seconds
    networks: tuple[NetworkEntry, ...]
    assets: tuple[AssetEntry, ...]
    keysets: tuple[KeysetEntry, ...]
    caps: tuple[TierCap, ...]
    callers: tuple[Caller, ...]
    officers: tuple[Officer, ...]
    policy: Policy
    longest_order_seconds: Seconds
    """An order that expires later from now is neither taken nor signed: so long can a cancelled one be abused."""
    vaults: tuple[Vault, ...] = ()
    gas_payers: tuple[GasPayer, ...] = ()
    breakers: tuple[Breaker, ...] = ()
    prices: tuple[PriceBound, ...] = ()
    unit: Name = "USD-cents"
    """Unit of account of prices and breakers."""
    approvers: tuple[Approver, ...] = ()
    verifiers: tuple[Attestor, ...] = ()
    operators: tuple[Operator, ...] = ()
    in_force_from: Seconds = 0
    """It waits until then, and longer where `veto_seconds` of the one before it say so (`policies.bundle.waiting`)."""
    veto_seconds: Seconds = 0
    """How long the bundle that follows waits at each reader, from its first sight there, for any officer to veto it."""
    overlay: Overlay | None = None
    """Null in what is signed."""

    @property
    def longest_signed_order_seconds(self) -> int:
        """`longest_order_seconds` as the quorum signed it: orders may be that old, whatever was lowered since."""
        return self.longest_order_seconds if self.overlay is None else self.overlay.longest_order_seconds

    def network(self, chain: str) -> NetworkEntry:
        """The network `chain`. Raises InvalidValue if the bundle has none."""
        return _only(self.networks, chain, "network", lambda entry: entry.chain)

    def asset(self, asset: str) -> AssetEntry:
        """The asset `asset`. Raises InvalidValue if the bundle has none."""
        return _only(self.assets, asset, "asset", lambda entry: entry.id)

    def told(self, asset: str, units: int) -> str:
        """Base units of an asset as people read them. Never fails: of one that is listed no longer, as they are."""
        for entry in self.assets:
            if entry.id == asset:
                return entry.told(units)
        return f"{units} base units of {asset}"

    def asset_of(self, chain: str, contract: str | None) -> AssetEntry | None:
        """The asset with this contract on a chain (None: its native asset); None if it is not listed."""
        for entry in self.assets:
            if entry.chain == chain and entry.contract == contract:
                return entry
        return None

    def keyset(self, keyset: str) -> KeysetEntry:
        """The key-set `keyset`. Raises InvalidValue if the bundle has none."""
        return _only(self.keysets, keyset, "key-set", lambda entry: entry.id)

    def keyset_for(self, chain: str, tier: Tier) -> KeysetEntry:
        """The one active key-set of a tier on a chain. Raises InvalidValue if none is."""
        for entry in self.keysets:
            if (entry.chain, entry.tier, entry.state) == (chain, tier, "active"):
                return entry
        raise InvalidValue(f"the bundle has no active {tier} key-set on {chain}")

    @property
    def wallets(self) -> tuple[WalletEntry, ...]:
        """All key-sets, vaults and gas payers."""
        return (*self.keysets, *self.vaults, *self.gas_payers)

    def wallet(self, wallet: str) -> WalletEntry:
        """The key-set, vault or gas payer `wallet`. Raises InvalidValue if the bundle has none."""
        return _only(self.wallets, wallet, "key-set, vault or gas payer", lambda entry: entry.id)

    def gas_payer_for(self, chain: str) -> GasPayer:
        """The one active gas payer on a chain. Raises InvalidValue if none is."""
        for entry in self.gas_payers:
            if (entry.chain, entry.state) == (chain, "active"):
                return entry
        raise InvalidValue(f"the bundle has no active gas payer on {chain}")

    def breaker_of(self, keyset: str) -> Breaker:
        """The breaker that a key-set is under. Raises InvalidValue if none is: nothing may be signed."""
        for entry in self.breakers:
            if keyset in entry.keysets:
                return entry
        raise InvalidValue(f"the bundle has no breaker over key-set {keyset!r}")

    def price(self, asset: str) -> PriceBound:
        """The price bounds of an asset. Raises InvalidValue if there are none."""
        return _only(self.prices, asset, "price", lambda entry: entry.asset)

    def approver(self, approver: str) -> Approver:
        """The approver `approver`. Raises InvalidValue if the bundle has none."""
        return _only(self.approvers, approver, "approver", lambda entry: entry.id)

    def verifier(self, verifier: str) -> Attestor:
        """The verifier `verifier`. Raises InvalidValue if the bundle has none."""
        return _only(self.verifiers, verifier, "verifier", lambda entry: entry.id)

    def officer(self, officer: str) -> Officer:
        """The officer `officer`. Raises InvalidValue if the bundle has none."""
        return _only(self.officers, officer, "officer", lambda entry: entry.id)

    def cap(self, tier: Tier, asset: str) -> TierCap:
        """The caps of a tier for an asset. Raises InvalidValue if there are none: nothing may be paid."""
        return _only(self.caps, (tier, asset), "cap", lambda entry: (entry.tier, entry.asset))

    def caller(self, caller: str) -> Caller:
        """The caller `caller`. Raises InvalidValue if the bundle has none."""
        return _only(self.callers, caller, "caller", lambda entry: entry.id)


def _only(entries: Iterable[_T], key: _K, what: str, of: Callable[[_T], _K]) -> _T:
    for entry in entries:
        if of(entry) == key:
            return entry
    raise InvalidValue(f"the bundle has no {what} {key!r}")


class BundleSignature(Part, frozen=True):
    """One officer's signature over the bundle's digest."""

    key: Name
    signature: Signature


class SignedBundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The bundle as it is stored and sent: with the quorum's signatures."""

    bundle: Bundle
    signatures: tuple[BundleSignature, ...]

    def encode(self) -> bytes:
        """JSON bytes (the signed form is `bundle.canonical()`)."""
        return msgspec.json.encode(self)


class TrustRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is pinned at the ceremony: officers' keys, how many must sign, and the lowest version accepted."""

    threshold: Annotated[int, msgspec.Meta(ge=1, le=32)]
    keys: Mapping[str, Hex32]
    organisations: Mapping[str, Name]
    """Organisation of each key: two signatures of one organisation count once."""
    minimum_version: Version


for _kind in (SignedBundle, TrustRoot):
    decoder_for(_kind)
