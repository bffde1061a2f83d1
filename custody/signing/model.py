"""Our transactions as they are stored: one effect on a chain, in all its versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from custody.signing.lifecycle import TransactionState


class VersionState(StrEnum):
    """Where one version is."""

    BUILT = "built"
    """Recorded; the signer may have been asked, and may have signed even if no answer came."""
    SIGNED = "signed"
    """Its bytes are recorded and may be sent at any time."""
    REFUSED = "refused"
    """The signer refused it and has never signed it."""


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a transaction. Bytes never change once they are recorded."""

    transaction_id: UUID
    version: int
    """1, 2, 3 ...; each uses all resources of every earlier one."""
    request: str
    """JSON of the signing request, verbatim."""
    unsigned: bytes
    content: str
    """Hash of it without signatures, 64 hex digits: how it is known in the chain."""
    resources: frozenset[str]
    """What it uses: outpoints, or one sender's nonce."""
    signed: bytes | None
    txid: str | None
    """Set with `signed`."""
    fee_units: int
    """EVM: at most; the block says what it was."""
    feerate: int
    """BTC: sat/kvB. EVM: wei per gas, at most."""
    size: int
    """BTC: vB. EVM: the gas limit."""
    state: VersionState
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ForeignSpend:
    """A coin of ours in the best chain that a transaction which is none of ours has used there."""

    chain: str
    resource: str
    keyset: str
    asset: str
    units: int
    txid: str
    """Of the foreign transaction."""
    height: int


@dataclass(frozen=True, slots=True)
class Loss:
    """A foreign spend that is booked."""

    spend: ForeignSpend
    """As it was when it was booked."""
    bookings: int
    """How often; names the ledger transfer of the last time."""


@dataclass(frozen=True, slots=True)
class OurTransaction:
    """One on-chain effect of ours and its versions, oldest first. At most one of them can ever confirm."""

    id: UUID
    chain: str
    keyset: str
    kind: str
    state: TransactionState
    confirmed_txid: str | None
    """The version in the best chain."""
    height: int | None
    block_hash: str | None
    change_index: int | None
    """Index of the change address on branch 1, None without change."""
    finalisations: int
    """Times final; names the ledger transfer of the last network fee."""
    last_error: str
    versions: tuple[Version, ...]

    @property
    def newest_signed(self) -> Version | None:
        """The signed version that is sent first, None while there is none."""
        signed = [version for version in self.versions if version.state is VersionState.SIGNED]
        return signed[-1] if signed else None

    @property
    def reference(self) -> str:
        """How ledger lines refer to it."""
        return f"transaction:{self.id}"


@dataclass(frozen=True, slots=True)
class SpendableCoin:
    """A coin of a key-set that a transaction may spend now."""

    resource: str
    """`txid:vout` on BTC."""
    txid: str
    units: int
    script: bytes
    branch: int
    index: int
    block_hash: str
    """Of the block that has it: where a node without an index finds the whole transaction."""


@dataclass(frozen=True, slots=True)
class ConsumptionFact:
    """A resource of ours used by a mined transaction, as the monitor committed it."""

    resource: str
    txid: str
    content: str
    """By which we know our own."""
    succeeded: bool
    """False: its receipt says that it failed (EVM)."""
    fee_units: int | None
    """What it paid for being mined, where only the block says that; None: what its version says."""
    height: int
    block_hash: str
