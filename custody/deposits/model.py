"""Values of the deposits slice."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from custody.deposits.lifecycle import DepositState
from custody.screening.model import Subject

COINBASE_MATURITY_BLOCKS: Final = 100
"""New coins can be spent in the 100th block after their own (`COINBASE_MATURITY`, a consensus rule)."""
MOST_UNITS: Final = 2**128 - 1
"""More than all there is of any asset. A listed token can claim up to 2**256 - 1 for each deposit, and a few of those
are more than a ledger's column holds: no commit would succeed, and nobody's deposit be credited any more."""


class Purpose(StrEnum):
    """What an address of ours is for."""

    DEPOSIT = "deposit"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class AddressRow:
    """An address as the database has it: a claim, to be checked by `attestation.verify_row` before use."""

    id: int
    chain: str
    keyset: str
    asset: str
    customer: str | None
    """None: the house's (change)."""
    purpose: Purpose
    branch: int
    index: int
    address: str
    script: bytes
    attestation: str | None
    """JSON of a `SignedAttestation`; deposit addresses have one."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as the database has it."""

    id: UUID
    chain: str
    resource: str
    txid: str
    address_id: int
    customer: str | None
    """None: paid to an address of the house; booked to suspense."""
    asset: str
    units: int
    state: DepositState
    height: int | None
    block_hash: str | None
    confirmations: int
    """Blocks it needs up to the anchor, its own included; fixed at first sight."""
    credits: int
    """How often it was credited; names the ledger transfer."""
    source: str | None
    """Where it came from, for screening; None where nobody knows."""
    created_at: datetime
    updated_at: datetime

    def depth(self, anchor: int) -> int:
        """Confirmations it has when they count from height `anchor`; 0 while in no block, or in one above it."""
        return 0 if self.height is None else max(0, anchor - self.height + 1)


@dataclass(frozen=True, slots=True)
class DepositFacts:
    """What is known of a deposit when it is screened and decided."""

    chain: str
    asset: str
    resource: str
    txid: str
    units: int
    address: str
    """Our address that was paid."""
    customer: str | None
    source: str | None = None
    """Where it came from, if that is known."""

    def subject(self) -> Subject:
        """What screening is told of it: not whose it is."""
        sources = () if self.source is None else (self.source,)
        return Subject(self.chain, self.address, self.txid, self.resource, sources, self.units)
