"""What the rest of the system asks of a chain: a few methods, the same for every family.

Observation is generic: a *receipt* is value arriving at a script we watch; a *consumption* is the use,
by a mined transaction, of a resource that can be used only once (an outpoint on BTC, a sender's nonce on
EVM chains). Two transactions conflict exactly if they share a resource; this is what makes replacement,
"dead" and the sign-once rule the same on every chain.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from chains.types import Address, BlockRef, TxId


@dataclass(frozen=True, slots=True)
class Receipt:
    """Value that arrived at a watched script."""

    resource: str
    """Identity of the receipt, unique on its chain: `txid:vout` on BTC."""
    txid: TxId
    script: bytes
    units: int
    """Base units of the chain's native asset unless `contract` says otherwise."""
    contract: str | None = None
    """Token contract for token receipts; None for the native asset."""
    coinbase: bool = False
    """True for newly mined coins (spendable after 100 blocks on BTC)."""


@dataclass(frozen=True, slots=True)
class Consumption:
    """A single-use resource used by a mined (or, in a mempool sighting, pending) transaction."""

    resource: str
    """`txid:vout` on BTC; `sender:nonce` on EVM chains."""
    txid: TxId
    succeeded: bool = True
    """False where the receipt says the transaction failed (EVM revert); always True on BTC."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one block (or one mempool transaction) means to us. Nothing in it is a decision."""

    receipts: tuple[Receipt, ...]
    consumptions: tuple[Consumption, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """A block's place in the chain."""

    ref: BlockRef
    previous: str
    """Hash of the parent block (64 hex digits; 64 zeros for the genesis block)."""
    time: int
    """The block's own claim, UNIX seconds."""


class BroadcastState(StrEnum):
    """What a node said when it was given a transaction. None of these is proof that money did or did not move."""

    ACCEPTED = "accepted"
    ALREADY_KNOWN = "already_known"
    """In the mempool or mined already."""
    REJECTED = "rejected"
    """Refused now (fee too low, conflict, missing inputs): to be tried again with the same bytes."""


@dataclass(frozen=True, slots=True)
class BroadcastResult:
    """The node's word on a broadcast; `reason` is its text when rejected."""

    state: BroadcastState
    reason: str = ""


class Presence(StrEnum):
    """Where a node sees a transaction."""

    UNKNOWN = "unknown"
    MEMPOOL = "mempool"
    MINED = "mined"


class ChainAdapter(Protocol):
    """One network of one family, seen through one node. Calls may raise NodeUnavailable at any time."""

    @property
    def chain(self) -> str:
        """Id of the network in the bundle."""

    def parse_address(self, text: str) -> Address:
        """Read an address of this network. Raises InvalidAddress (wrong network, checksum, unknown type)."""

    def tip(self) -> BlockRef:
        """The node's best block now."""

    def header_at(self, height: int) -> Header | None:
        """Header of the best chain at `height`, or None above the tip."""

    def observe_block(
        self, ref: BlockRef, scripts: Container[bytes], resources: Container[str]
    ) -> Observation:
        """Read one block by hash; receipts to `scripts`, and consumptions of any of `resources`.

        Raises:
            Reorganised: the node does not have this block (any more).
        """

    def mempool(self) -> Sequence[TxId]:
        """Ids of the transactions waiting in the node's mempool."""

    def observe_pending(
        self, txids: Iterable[TxId], scripts: Container[bytes], resources: Container[str]
    ) -> dict[TxId, Observation]:
        """Observations of pending transactions; those that left the mempool meanwhile are missing from the answer."""

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand a signed transaction to the node. A failure or timeout proves nothing: record before calling."""

    def presence(self, txid: TxId) -> Presence:
        """Whether this node has the transaction in its mempool or, where it can tell, in a block."""
