"""Values of the sweeps slice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from chains.errors import InvalidValue
from custody.sweeps.lifecycle import SweepState


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPace:
    """How often and how much is swept. Nothing here decides where money goes: a signer does.

    Raises:
        InvalidValue: a number that would plan nothing, or without end.
    """

    gather_seconds: int = 300
    """How long a deposit that could be swept waits for others to share its transaction, unless that is full before."""
    sweep_after_seconds: int = 7 * 24 * 3600
    """A deposit below its floor that is older than this is swept if it is worth its gas."""
    max_forwarders: int = 100
    """Most forwarders in one transaction; the gas cap bounds it too."""
    max_open: int = 4
    """Most sweeps of one wallet that are not final: the other nonces in flight are for payments."""
    retry_seconds: int = 60
    """After a sweep was refused or died, until what it was to empty is planned again; doubles each time."""
    long_term_wei_per_gas: int = 20_000_000_000
    """The gas price for which the bundle's floors (`sweep_above`) were chosen: below it less is worth sweeping."""
    consolidate_above_coins: int = 200
    """So many small coins may lie around before they are consolidated."""
    small_coin_sats: int = 1_000_000
    """A coin of at most this is small."""
    max_inputs: int = 400
    """Most coins that one consolidation spends; weight and the signer's message size bound it too."""
    rescue_inputs: int = 50
    """Most coins that one transaction of a rescue spends: a thief who takes one of them spoils it. A payment's coins
    stay together, however many."""
    rescue_transactions: int = 40
    """Most transactions of a rescue that are recorded in one go, before any of them is signed."""

    def __post_init__(self) -> None:
        at_least_one = (
            self.max_forwarders,
            self.max_open,
            self.retry_seconds,
            self.long_term_wei_per_gas,
            self.max_inputs,
            self.rescue_inputs,
            self.rescue_transactions,
        )
        not_negative = (
            self.gather_seconds,
            self.sweep_after_seconds,
            self.consolidate_above_coins,
            self.small_coin_sats,
        )
        if min(at_least_one) < 1 or min(not_negative) < 0:
            raise InvalidValue(f"sweep pace out of range: {self}")


class Reason(StrEnum):
    """Why something is swept now."""

    FLOOR = "floor"
    """It has reached the floor of its asset."""
    OLD = "old"
    """It has waited for long, and is worth its gas."""
    NEEDED = "needed"
    """Withdrawals wait for this asset, and it is worth its gas."""
    MANY = "many"
    """There are too many small coins, and fees are low."""
    RETIRED = "retired"
    """Its key-set is no longer active."""


@dataclass(frozen=True, slots=True)
class Pile:
    """What one forwarder holds of one asset, by its credited deposits that were not swept."""

    asset: str
    units: int
    since: int
    """When the oldest of it was credited, UNIX seconds."""
    left_behind: int = 0
    """How often a sweep left it where it was: its token refuses."""
    left_at: int = 0
    """When last, UNIX seconds."""
    failures: int = 0
    """How many sweeps that were to take it were refused or died since one of them went well. Native money, which every
    sweep takes along, is blamed for none that took tokens as well."""
    failed_at: int = 0
    """When the last of them did, UNIX seconds."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A forwarder with credited deposits and in no open sweep."""

    address_id: int
    index: int
    """Its salt."""
    address: str
    piles: tuple[Pile, ...]
    deployed: bool = False
    """It has been flushed before; otherwise the flush makes it, for more gas."""
    doubtful: frozenset[str] = frozenset()
    """Assets of which it has held deposits: not swept, since a flush takes all that there is of one."""

    def units(self, asset: str) -> int:
        """What it has of an asset."""
        return sum(pile.units for pile in self.piles if pile.asset == asset)


@dataclass(frozen=True, slots=True)
class Rotated:
    """What one version of a rotation moves."""

    target: str
    """Key-set that gets it."""
    asset: str
    units: int


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a sweep empties."""

    address_id: int
    asset: str
    units: int
    """Expected; what is there when it is mined is swept. Zero where nothing is expected, but would be taken."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms an asset of an EVM chain is swept."""

    asset: str
    floor_units: int
    contract: str | None
    """Of a token; None: the chain's native asset, which every flush takes along."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Forwarders that one transaction flushes, and of which tokens."""

    candidates: tuple[Candidate, ...]
    """In the order of their salts."""
    tokens: tuple[str, ...]
    """Asset ids, sorted; the native asset is always flushed as well."""
    reasons: frozenset[Reason]
    gas: int
    """What the flush should use."""

    def items(self, native: str) -> tuple[Item, ...]:
        """Everything that the flush empties: each forwarder of each token and of the native asset."""
        return tuple(
            Item(candidate.address_id, asset, candidate.units(asset))
            for candidate in self.candidates
            for asset in (*self.tokens, native)
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep as the database has it."""

    id: UUID
    chain: str
    keyset: str
    kind: str
    """`sweep` (forwarders into the treasury) or `consolidation` (many coins into one)."""
    state: SweepState
    reason: str
    transaction_id: UUID | None
    txid: str | None
    """Of the confirmed version, else of the newest signed one."""
    fee_units: int | None
    """What it paid for being mined; until then what its newest version pays at most."""
    addresses: int
    """How many it empties."""
    units: Mapping[str, int]
    """Expected, by asset."""
    created_at: datetime
    updated_at: datetime
