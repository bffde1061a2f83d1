"""Networks and assets of the bundle, and how careful we are with each."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from chains.types import Asset
from policies.bundle.common import Count
from policies.canonical import Hex32, Name, Part, Seconds, Units

Blocks = Annotated[int, msgspec.Meta(ge=1, le=1000)]
Trait = Literal["no-return", "fee-on-transfer", "pausable", "blacklist", "rebasing"]
"""How a token departs from ERC-20's letter or spirit; `rebasing` ones cannot be listed."""


class Confirmations(Part, frozen=True):
    """Deposits of at least `from_units` need `blocks` confirmations; the largest that fits wins."""

    from_units: Units
    blocks: Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Network(Part, frozen=True):
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


class GasCaps(Part, frozen=True):
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
    execution: Count
    """A Safe's transaction as a whole; each owner's signature takes about 7,000."""


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


class AssetEntry(Part, frozen=True):
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
