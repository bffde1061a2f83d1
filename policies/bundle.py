"""The bundle: one canonical, versioned document of trust, signed by the policy quorum (DESIGN section 1).

It is loaded by the online side and by signers alike and never taken from database tables. Versions only
rise, a bundle expires, and the quorum's keys (`TrustRoot`) are pinned outside of it at the key ceremony.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, ClassVar, Final, Literal, TypeVar

import msgspec

from chains.errors import InvalidValue, PermanentError
from chains.eth.address import is_checksummed
from chains.types import Asset
from policies.canonical import (
    MAX_DOCUMENT_BYTES,
    BadSignature,
    Document,
    Hex32,
    Name,
    Seconds,
    Units,
    Version,
    decoder_for,
    verify_ed25519,
)
from policies.intent import Signature

Tier = Literal["hot", "warm", "cold"]
_K = TypeVar("_K")
_T = TypeVar("_T")
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
Blocks = Annotated[int, msgspec.Meta(ge=1, le=1000)]
EvmAddress = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
"""20 bytes with the mixed-case checksum of EIP-55; who reads the bundle checks the checksum."""
Trait = Literal["no-return", "fee-on-transfer", "pausable", "blacklist", "rebasing"]
"""How a token departs from ERC-20's letter or spirit; `rebasing` ones cannot be listed."""
ScopeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,32}(:[a-z]{1,32})?\Z")]
"""What a caller may do, e.g. `withdrawals:sign`."""

MAX_CLOCK_AHEAD_SECONDS: Final = 300
"""How far an officer's clock may be ahead of a reader's."""


class UntrustedBundle(PermanentError):
    """A bundle that lacks its quorum, is older than the pinned one, or has expired."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of the bundle's parts."""


class Confirmations(_Part, frozen=True):
    """Deposits of at least `from_units` need `blocks` confirmations; the largest that fits wins."""

    from_units: Units
    blocks: Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Network(_Part, frozen=True):
    """What every network has: where it begins, when its past is final, and how careful we are on it.

    A feerate is sat/kvB on BTC, and wei per gas (`maxFeePerGas`, EIP-1559) on EVM networks.
    """

    chain: Name
    genesis: Hex32
    """Hash of block 0; adapters refuse a node whose genesis differs."""
    native_asset: Name
    settle_blocks: Blocks
    """Confirmations after which a payment is settled and a conflict is final. They count from the tip on BTC, from the
    newest finalised block on EVM networks, where 1 is enough."""
    feerate_floor: Count
    """Lowest feerate we pay."""
    feerate_cap: Count
    """Highest feerate a signer signs."""
    fee_cap: Units
    """Highest fee of one transaction, in base units of the native asset."""
    fee_window_cap: Units
    """Highest sum of fees signed in `fee_window_seconds`."""
    fee_window_seconds: Seconds


class BitcoinNetwork(_Network, frozen=True, tag_field="family", tag="btc"):
    """A network of the Bitcoin family."""

    family: ClassVar[Literal["btc"]] = "btc"

    network: Literal["main", "test", "signet", "regtest"]


class GasCaps(_Part, frozen=True):
    """Highest gas limit that a signer signs for each kind of call.

    Where EIP-7825 holds (Ethereum since Fusaka), a transaction with more than 2**24 is never mined: keep them below.
    """

    transfer: Count
    """The native asset to one address; contracts that receive it may take more than 21,000."""
    token: Count
    """One token transfer."""
    payout: Count
    """A batch payout as a whole."""
    sweep: Count
    """A flush of forwarders as a whole, deployments included."""


class EvmNetwork(_Network, frozen=True, tag_field="family", tag="evm"):
    """A network of the EVM family."""

    family: ClassVar[Literal["evm"]] = "evm"

    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """EIP-155: part of everything that is signed, so that nothing is valid on another network."""
    native_mode: Literal["trace", "balance"]
    """How native deposits are found: by traces, or by the difference of balances where a node has none."""
    gas_caps: GasCaps


NetworkEntry = BitcoinNetwork | EvmNetwork
"""A network and how careful we are on it."""


class AssetEntry(_Part, frozen=True):
    """An asset and its terms for customers."""

    id: Name
    chain: Name
    decimals: Annotated[int, msgspec.Meta(ge=0, le=36)]
    contract: str | None
    """Token contract (EVM address); null for a chain's native asset."""
    minimum_deposit: Units
    withdrawal_fee: Units
    """What a customer pays for one withdrawal (default 0.0005 BTC)."""
    confirmations: Annotated[tuple[Confirmations, ...], msgspec.Meta(min_length=1)]
    """Counted like the `settle_blocks` of its network."""
    sweep_above: Units = "0"
    """What one deposit address must hold before it is swept; less waits until it is old."""
    traits: tuple[Trait, ...] = ()

    def asset(self) -> Asset:
        """The asset as a value type."""
        return Asset(self.id, self.chain, self.decimals)

    def told(self, units: int) -> str:
        """Base units as people read them, all places written: `0.01000000 BTC`."""
        return self.asset().told(units)

    def confirmations_for(self, units: int) -> int:
        """Confirmations that a deposit of `units` base units needs."""
        fitting = [c for c in self.confirmations if int(c.from_units) <= units]
        chosen = max(fitting or self.confirmations, key=lambda c: int(c.from_units) if fitting else c.blocks)
        return chosen.blocks


class _Keyset(_Part, frozen=True):
    """A set of keys on one chain in one tier: one wallet."""

    id: Name
    chain: Name
    tier: Tier
    attestation_key: Hex32
    """Ed25519 public key that attests this key-set's addresses."""


class BitcoinKeyset(_Keyset, frozen=True, tag_field="kind", tag="p2wpkh-hd"):
    """An HD wallet: branch 0 are deposits, branch 1 is change (BIP84)."""

    kind: ClassVar[str] = "p2wpkh-hd"
    family: ClassVar[Literal["btc"]] = "btc"

    account: str
    """BIP32 account public key (`xpub`/`tpub`) from which both branches derive."""
    origin: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(/[0-9]{1,10}'){1,6}\Z")]
    """Master fingerprint and hardened path of the account key, e.g. `d34db33f/84'/1'/0'`."""

    @property
    def fingerprint(self) -> bytes:
        """Master key fingerprint, 4 bytes."""
        return bytes.fromhex(self.origin[:8])

    @property
    def account_path(self) -> str:
        """Path of the account key from the master, e.g. `m/84'/1'/0'`."""
        return "m" + self.origin[8:]


class EvmKeyset(_Keyset, frozen=True, tag_field="kind", tag="evm-key"):
    """One key in an HSM, and the forwarders that pay into its address.

    Branch 0 are deposits: index n is the forwarder with salt n (CREATE2). Branch 1 has index 0 only: the key's address.
    """

    kind: ClassVar[str] = "evm-key"
    family: ClassVar[Literal["evm"]] = "evm"

    address: EvmAddress
    """Of the key: it pays, and is the treasury of the forwarders."""
    factory: EvmAddress
    """The contract that deploys and flushes the forwarders."""
    forwarder: Hex32
    """keccak256 of the forwarders' init code; with factory and salt it gives each address (EIP-1014)."""
    payout: EvmAddress | None
    """The contract for many payments in one transaction; null: one each."""

    @property
    def account_path(self) -> str:
        """What stands before branch and index in an attestation's path."""
        return "m"


KeysetEntry = BitcoinKeyset | EvmKeyset
"""A set of keys on one chain in one tier: one wallet."""


class TierCap(_Part, frozen=True):
    """What one tier may pay of one asset. A signer of the tier enforces it by its own counters."""

    tier: Tier
    asset: Name
    payment_below: Units
    """A single payment must be smaller than this."""
    window_cap: Units
    """Sum of payments, fees included, signed within `window_seconds`."""
    window_seconds: Seconds
    holding_cap: Units | None = None
    """What the tier should hold at most; null: no limit. An excess is shown and raises an alert. No signer enforces it,
    for what arrives cannot be refused."""


class Caller(_Part, frozen=True):
    """Somebody whose Ed25519 key may call the API, and sign orders if the scopes say so."""

    id: Name
    key: Hex32
    organisation: Name
    scopes: tuple[ScopeName, ...]
    not_after: Seconds


class Officer(_Part, frozen=True):
    """A holder of a quorum key."""

    id: Name
    key: Hex32
    organisation: Name
    not_after: Seconds


class Rules(_Part, frozen=True):
    """The simple rules of this version; all amounts in base units of `asset`."""

    asset: Name
    hot_below: Units
    """Payments below this go to the hot tier at once."""
    warm_below: Units
    """Payments from `hot_below` to below this belong to the warm tier, the rest to the cold tier."""
    hot_window_cap: Units
    customer_window_cap: Units
    """Most that one customer withdraws within `window_seconds`."""
    window_seconds: Seconds


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
    rules: tuple[Rules, ...]

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
        """The active key-set of a tier on a chain: the first listed. Raises InvalidValue if none is."""
        for entry in self.keysets:
            if entry.chain == chain and entry.tier == tier:
                return entry
        raise InvalidValue(f"the bundle has no {tier} key-set on {chain}")

    def cap(self, tier: Tier, asset: str) -> TierCap:
        """The caps of a tier for an asset. Raises InvalidValue if there are none: nothing may be paid."""
        return _only(self.caps, (tier, asset), "cap", lambda entry: (entry.tier, entry.asset))

    def caller(self, caller: str) -> Caller:
        """The caller `caller`. Raises InvalidValue if the bundle has none."""
        return _only(self.callers, caller, "caller", lambda entry: entry.id)

    def rules_for(self, asset: str) -> Rules:
        """The rules for an asset. Raises InvalidValue if there are none: then nothing may be paid."""
        return _only(self.rules, asset, "rules", lambda entry: entry.asset)


def _only(entries: Iterable[_T], key: _K, what: str, of: Callable[[_T], _K]) -> _T:
    for entry in entries:
        if of(entry) == key:
            return entry
    raise InvalidValue(f"the bundle has no {what} {key!r}")


class BundleSignature(_Part, frozen=True):
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


def read_bundle(raw: bytes, root: TrustRoot, *, now: int) -> Bundle:
    """Read a signed bundle and believe it only with the quorum's signatures.

    Args:
        raw: JSON of a `SignedBundle`.
        root: the pinned quorum and lowest version.
        now: the reader's own clock, UNIX seconds.

    Raises:
        InvalidValue: malformed, or inconsistent within itself.
        UntrustedBundle: too few valid signatures, older than pinned, not yet issued or expired.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidValue(f"bundle: {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    try:
        signed = decoder_for(SignedBundle).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"bundle: {error}") from None
    bundle = signed.bundle
    digest = bundle.digest()
    organisations: set[str] = set()
    counted: set[str] = set()
    for entry in signed.signatures:
        public_key = root.keys.get(entry.key)
        # One key counts once, even if a root lists it under two names.
        if public_key is None or public_key in counted:
            continue
        counted.add(public_key)
        try:
            verify_ed25519(public_key, digest, entry.signature)
        except BadSignature:
            raise UntrustedBundle(f"the signature of {entry.key} does not verify") from None
        organisations.add(root.organisations.get(entry.key, entry.key))
    if len(organisations) < root.threshold:
        raise UntrustedBundle(
            f"{len(organisations)} of {root.threshold} organisations have signed this bundle"
        )
    if bundle.version < root.minimum_version:
        raise UntrustedBundle(f"version {bundle.version} is older than the pinned {root.minimum_version}")
    if bundle.issued_at > now + MAX_CLOCK_AHEAD_SECONDS:
        raise UntrustedBundle(f"the bundle is not yet issued: it says {bundle.issued_at}, now is {now}")
    if now >= bundle.expires_at:
        raise UntrustedBundle(f"the bundle expired at {bundle.expires_at}; have the quorum sign a new one")
    check_consistent(bundle)
    return bundle


def check_consistent(bundle: Bundle) -> None:
    """Check that ids are unique and that everything referred to exists.

    Raises:
        InvalidValue: names the entry.
    """
    chains = [n.chain for n in bundle.networks]
    assets = {a.id: a for a in bundle.assets}
    for what, ids in (
        ("network", chains),
        ("asset", [a.id for a in bundle.assets]),
        ("asset of one chain and contract", [(a.chain, a.contract) for a in bundle.assets]),
        ("chain id", [n.chain_id for n in bundle.networks if isinstance(n, EvmNetwork)]),
        ("key-set", [k.id for k in bundle.keysets]),
        # Each signer's journal knows its own signatures only: two that may pay one order could both pay it, and a cap
        # of the tier would hold for each of them.
        ("key-set of one chain and tier", [(k.chain, k.tier) for k in bundle.keysets]),
        ("caller", [c.id for c in bundle.callers]),
        ("caller key", [c.key for c in bundle.callers]),
        ("officer", [o.id for o in bundle.officers]),
        ("cap", [(c.tier, c.asset) for c in bundle.caps]),
        ("rules", [r.asset for r in bundle.rules]),
    ):
        if len(set(ids)) != len(ids):
            raise InvalidValue(f"bundle: a {what} is listed twice")
    for network in bundle.networks:
        native = assets.get(network.native_asset)
        if native is None or native.chain != network.chain or native.contract is not None:
            raise InvalidValue(f"bundle: {network.chain} names no native asset of its own")
        if network.feerate_floor > network.feerate_cap:
            raise InvalidValue(f"bundle: the feerate floor of {network.chain} is above its cap")
    for entry in bundle.assets:
        if "rebasing" in entry.traits:
            raise InvalidValue(
                f"bundle: {entry.id} is a rebasing token: balances that change by themselves cannot be kept in a ledger"
            )
    families = {n.chain: n.family for n in bundle.networks}
    for entry in bundle.assets:
        if entry.contract is not None and families.get(entry.chain) == "btc":
            raise InvalidValue(f"bundle: {entry.id} names a contract on {entry.chain}, which has none")
        if entry.contract is not None and families.get(entry.chain) == "evm":
            _check_address(entry.id, entry.contract)
    for keyset in bundle.keysets:
        if families.get(keyset.chain, keyset.family) != keyset.family:
            raise InvalidValue(f"bundle: key-set {keyset.id} is of another family than {keyset.chain}")
        if isinstance(keyset, EvmKeyset):
            _check_contracts(keyset, bundle)
    for where, chain in [(a.id, a.chain) for a in bundle.assets] + [(k.id, k.chain) for k in bundle.keysets]:
        if chain not in chains:
            raise InvalidValue(f"bundle: {where} is on an unlisted network {chain}")
    windows = [
        *((f"the fees of {n.chain}", n.fee_window_seconds) for n in bundle.networks),
        *((f"the {c.tier} cap of {c.asset}", c.window_seconds) for c in bundle.caps),
        *((f"the rules of {r.asset}", r.window_seconds) for r in bundle.rules),
    ]
    for where, seconds in windows:
        if seconds < 1:
            raise InvalidValue(f"bundle: the window of {where} has no length, so it would limit nothing")
    for listed in [c.asset for c in bundle.caps] + [r.asset for r in bundle.rules]:
        if listed not in assets:
            raise InvalidValue(f"bundle: a cap or rule names an unlisted asset {listed}")


def _check_contracts(keyset: EvmKeyset, bundle: Bundle) -> None:
    """What a call of an address means must follow from the address alone."""
    own = [address for address in (keyset.address, keyset.factory, keyset.payout) if address is not None]
    for address in own:
        _check_address(keyset.id, address)
    tokens = {entry.contract for entry in bundle.assets if entry.chain == keyset.chain}
    if len(set(own)) != len(own) or tokens & set(own):
        raise InvalidValue(f"bundle: key-set {keyset.id}: key, factory, payout and tokens share an address")


def _check_address(where: str, text: str) -> None:
    """Addresses are compared as texts everywhere, so each has one form only."""
    if not is_checksummed(text):
        raise InvalidValue(f"bundle: {where}: {text} lacks the checksum of EIP-55")


for _kind in (SignedBundle, TrustRoot):
    decoder_for(_kind)
