"""What a holder has registered on the offline machine: the only wallets, tokens and names that a review believes in.

It comes from a signed bundle (`register`), or from a bare descriptor that the holder has compared by eye. It is public,
but must not be edited: the store keeps it under a code made with the holder's key. Pure.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from policies.bundle.common import Count, EvmAddress, Origin, Tier
from policies.canonical import Hex32, Name, Part, Seconds, Version

BitcoinNetworkName = Literal["main", "test", "signet", "regtest"]
ChainId = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
"""EIP-155."""

DEFAULT_FEE_PERCENT: Final = 5
"""A fee above this part of what a payment sends is refused where no bundle names a cap."""


class RegisteredMember(Part, frozen=True):
    """One key of a Bitcoin vault."""

    id: Name
    organisation: Name
    origin: Origin
    account: str
    """`xpub...` or `tpub...`."""


class FeeCaps(Part, frozen=True):
    """What a bundle allows for one Bitcoin transaction."""

    fee_cap_sats: Count
    feerate_cap_sat_per_kvb: Count


class RegisteredVault(Part, frozen=True):
    """A Bitcoin wallet `wsh(sortedmulti(...))`, one of whose keys is the holder's."""

    id: Name
    network: BitcoinNetworkName
    threshold: Annotated[int, msgspec.Meta(ge=1, le=15)]
    members: tuple[RegisteredMember, ...]
    """In the descriptor's order; the holder's own is among them."""
    descriptor: str
    """With checksum; derived from the members again whenever it is used."""
    caps: FeeCaps | None
    """None: registered without a bundle, `DEFAULT_FEE_PERCENT` holds."""


class KnownVault(Part, frozen=True):
    """Another Bitcoin wallet of the bundle, so that money going there can be called by its name."""

    id: Name
    tier: Tier
    network: BitcoinNetworkName
    kind: Literal["p2wpkh", "p2tr", "wsh-sortedmulti"]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=15)]
    """1 for a wallet of one key."""
    members: tuple[RegisteredMember, ...]


class RegisteredOwner(Part, frozen=True):
    """One owner of a Safe."""

    id: Name
    organisation: Name
    address: EvmAddress


class RegisteredSafe(Part, frozen=True):
    """A Safe (1.4.1, without modules, guard and fallback handler), one of whose owners is the holder's key."""

    id: Name
    chain: Name
    chain_id: ChainId
    address: EvmAddress
    owners: tuple[RegisteredOwner, ...]
    threshold: Annotated[int, msgspec.Meta(ge=1, le=15)]
    tier: Tier


class RegisteredNetwork(Part, frozen=True):
    """An EVM network and its own coin."""

    chain: Name
    chain_id: ChainId
    symbol: Name
    decimals: Annotated[int, msgspec.Meta(ge=0, le=36)]


class RegisteredToken(Part, frozen=True):
    """A token that may be paid; amounts of any other contract are never shown as money."""

    chain_id: ChainId
    contract: EvmAddress
    symbol: Name
    decimals: Annotated[int, msgspec.Meta(ge=0, le=36)]


class KnownAddress(Part, frozen=True):
    """An EVM address that the bundle names: another Safe, a hot key, a gas payer, a factory."""

    chain_id: ChainId
    address: EvmAddress
    name: str
    """As a person reads it: `warm-eth (warm Safe)`."""


class RegisteredFactory(Part, frozen=True):
    """Whom deposit addresses pay: a contract that one of the holder's Safes is the admin of."""

    chain_id: ChainId
    address: EvmAddress
    admin: EvmAddress
    """The Safe."""
    keyset: Name
    """Whose deposit addresses they are."""


class RegisteredTreasury(Part, frozen=True):
    """The one address of a network that deposits may flow to: the active hot key's."""

    chain_id: ChainId
    address: EvmAddress
    keyset: Name


class Source(Part, frozen=True):
    """The bundle that all of it was taken from."""

    version: Version
    digest: Hex32
    expires_at: Seconds


class Registered(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything registered for one key. Addresses have EIP-55's checksum throughout."""

    v: Literal[1] = 1
    source: Source | None = None
    """None: no bundle yet."""
    vaults: tuple[RegisteredVault, ...] = ()
    wallets: tuple[KnownVault, ...] = ()
    safes: tuple[RegisteredSafe, ...] = ()
    networks: tuple[RegisteredNetwork, ...] = ()
    tokens: tuple[RegisteredToken, ...] = ()
    known: tuple[KnownAddress, ...] = ()
    factories: tuple[RegisteredFactory, ...] = ()
    treasuries: tuple[RegisteredTreasury, ...] = ()

    def safe(self, chain_id: int, address: str) -> RegisteredSafe | None:
        """The Safe of the holder's at an address of a network; None: not registered."""
        return next((s for s in self.safes if (s.chain_id, s.address) == (chain_id, address)), None)

    def network(self, chain_id: int) -> RegisteredNetwork | None:
        """The EVM network; None: not registered."""
        return next((n for n in self.networks if n.chain_id == chain_id), None)

    def token(self, chain_id: int, contract: str) -> RegisteredToken | None:
        """The token at a contract of a network; None: not registered."""
        return next((t for t in self.tokens if (t.chain_id, t.contract) == (chain_id, contract)), None)

    def factory(self, chain_id: int, address: str) -> RegisteredFactory | None:
        """The factory at an address of a network; None: not registered."""
        return next((f for f in self.factories if (f.chain_id, f.address) == (chain_id, address)), None)

    def treasury(self, chain_id: int) -> RegisteredTreasury | None:
        """Where deposits on a network may flow; None: no active hot key is registered."""
        return next((t for t in self.treasuries if t.chain_id == chain_id), None)

    def name_of(self, chain_id: int, address: str) -> str | None:
        """What the bundle calls an address of a network; None: it names no such address."""
        return next((k.name for k in self.known if (k.chain_id, k.address) == (chain_id, address)), None)
