"""Who holds the money: key-sets of one signer, vaults that several sign for, and the keys that pay for their gas."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from policies.bundle.common import EvmAddress, Origin, Tier
from policies.canonical import Hex32, Name, Part, Seconds, Units

KeyState = Literal["pre-active", "active", "suspended", "deactivated", "compromised", "destroyed"]
"""A key's life (NIST SP 800-57, 7). `pre-active`: made, not yet proven by a restore; signs nothing. `active`: signs and
attests. `suspended`: signs nothing for now. `deactivated`: followed by another; collects what still arrives and moves
everything to the active one. `compromised`: moves everything to the active one, and nothing else. `destroyed`: gone."""
ScriptType = Literal["p2wpkh", "p2tr"]
"""How an HD wallet's coins are locked: BIP84 or BIP86."""


class _Keyset(Part, frozen=True, kw_only=True):
    """A set of keys on one chain in one tier: one wallet."""

    id: Name
    chain: Name
    tier: Tier
    attestation_key: Hex32
    """Ed25519 public key that attests this key-set's addresses."""
    state: KeyState = "active"
    active_from: Seconds = 0
    """When it became active; anew, if it is active again. A signer pays no order that another key-set could have been
    asked to pay before that: one that expires within `longest_order_seconds` of it."""


class BitcoinKeyset(_Keyset, frozen=True, kw_only=True, tag_field="kind", tag="btc-hd"):
    """An HD wallet: branch 0 are deposits, branch 1 is change."""

    kind: ClassVar[str] = "btc-hd"
    family: ClassVar[Literal["btc"]] = "btc"

    script: ScriptType = "p2wpkh"
    account: str
    """BIP32 account public key (`xpub`/`tpub`) from which both branches derive."""
    origin: Origin

    @property
    def fingerprint(self) -> bytes:
        """Master key fingerprint, 4 bytes."""
        return bytes.fromhex(self.origin[:8])

    @property
    def account_path(self) -> str:
        """Path of the account key from the master, e.g. `m/84'/1'/0'`."""
        return "m" + self.origin[8:]


class EvmKeyset(_Keyset, frozen=True, kw_only=True, tag_field="kind", tag="evm-key"):
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
    admin: Name | None = None
    """The Safe (a vault of this chain) that is the factory's admin and may change its treasury; null: none of ours."""

    @property
    def account_path(self) -> str:
        """What stands before branch and index in an attestation's path."""
        return "m"


KeysetEntry = BitcoinKeyset | EvmKeyset
"""A set of keys on one chain in one tier: one wallet."""


class Cosigner(Part, frozen=True):
    """One of the keys of a Bitcoin vault."""

    id: Name
    organisation: Name
    account: str
    """BIP32 account public key (`xpub`/`tpub`)."""
    origin: Origin


class Owner(Part, frozen=True):
    """One of the owners of a Safe."""

    id: Name
    organisation: Name
    address: EvmAddress


class _Vault(Part, frozen=True, kw_only=True):
    """A wallet of the warm or cold tier: `threshold` of several keys, each with a signer or holder of its own."""

    id: Name
    """Among all key-sets and vaults."""
    chain: Name
    tier: Literal["warm", "cold"]
    threshold: Annotated[int, msgspec.Meta(ge=2, le=15)]
    """More than half of the members: else two groups that share nobody could each sign one and the same order."""
    state: KeyState = "active"
    active_from: Seconds = 0
    """As of a key-set."""


class BitcoinVault(_Vault, frozen=True, kw_only=True, tag_field="kind", tag="wsh-sortedmulti"):
    """`wsh(sortedmulti(threshold, ...))` (BIP67, BIP383): branch 0 receives, branch 1 is change."""

    kind: ClassVar[str] = "wsh-sortedmulti"
    family: ClassVar[Literal["btc"]] = "btc"

    cosigners: Annotated[tuple[Cosigner, ...], msgspec.Meta(min_length=2, max_length=15)]
    descriptor: str
    """What the keys mean together, with BIP380's checksum and both branches as `<0;1>` (BIP389). Signers derive it from
    the cosigners again and refuse another one."""


class EvmVault(_Vault, frozen=True, kw_only=True, tag_field="kind", tag="safe"):
    """A Safe (version 1.4.1, without modules, guard and fallback handler) of which a signer holds one owner's key."""

    kind: ClassVar[str] = "safe"
    family: ClassVar[Literal["evm"]] = "evm"

    address: EvmAddress
    owners: Annotated[tuple[Owner, ...], msgspec.Meta(min_length=2, max_length=15)]


Vault = BitcoinVault | EvmVault
"""A wallet that several sign for."""


class GasPayer(Part, frozen=True, kw_only=True):
    """A key that sends what owners of Safes have signed and pays its gas, and does nothing else. It pays no customer.

    It is of the hot tier: its fees count in that tier's windows and under the breaker that names it.
    """

    family: ClassVar[Literal["evm"]] = "evm"
    tier: ClassVar[Literal["hot"]] = "hot"

    id: Name
    """Among all key-sets, vaults and gas payers."""
    chain: Name
    address: EvmAddress
    attestation_key: Hex32
    """Ed25519 public key that signs the log of a signer which has no other key-set; it attests no address."""
    holding_cap: Units
    """The most that it should hold, in base units of the native asset; no top-up is larger."""
    state: KeyState = "active"
    active_from: Seconds = 0
    """When it became active."""


WalletEntry = KeysetEntry | Vault | GasPayer
"""Whatever an intent can name as what is to sign."""
