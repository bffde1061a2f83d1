"""What the rest of the system asks of a chain: a few methods, the same for every family.

Observation is generic: a *receipt* is value arriving at a script we watch; a *consumption* is the use,
by a mined transaction, of a resource that can be used only once (an outpoint on BTC, a sender's nonce on
EVM chains). Two transactions conflict exactly if they share a resource; this is what makes replacement,
"dead" and the sign-once rule the same on every chain.

A transaction has two names. Its txid is what people and nodes use. Its *content* is known before it is signed and
does not change with the signature: on BTC it is the txid too (of segwit transactions), on EVM chains the hash that
is signed. By content we know our own transactions, even those whose signature we never saw.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from chains.eth.network import NativeMode
from chains.types import Address, BlockRef, TxId


@dataclass(frozen=True, slots=True)
class Receipt:
    """Value that arrived at a watched script."""

    resource: str
    """Identity of the receipt, unique on its chain and the same after a reorg that mines its transaction again:
    `txid:vout` on BTC; on EVM chains `txid:log:n` (n-th log of its transaction) for tokens, `txid:trace:0.2` (trace
    address; `txid:trace:` for the transaction itself) for the native asset, or `block:forwarder` where balances are
    compared."""
    txid: TxId
    """On EVM chains where balances are compared, the block's hash stands here: no transaction is known."""
    script: bytes
    units: int
    """Base units of the chain's native asset unless `contract` says otherwise."""
    contract: str | None = None
    """Token contract (EIP-55 text) for token receipts; None for the native asset."""
    coinbase: bool = False
    """True for newly mined coins (spendable after 100 blocks on BTC)."""
    source: str | None = field(default=None, compare=False)
    """Where it came from, in canonical form, where the block says so (EVM): the sender of the event or of the frame.
    For screening; no part of what the receipt is."""


@dataclass(frozen=True, slots=True)
class Consumption:
    """A single-use resource used by a mined (or, in a mempool sighting, pending) transaction."""

    resource: str
    """`txid:vout` on BTC; `sender:nonce` on EVM chains, the sender in lower case."""
    txid: TxId
    content: str
    """Hash of the transaction without its signatures, 64 hex digits; see above."""
    succeeded: bool = True
    """False where the receipt says the transaction failed (EVM revert); always True on BTC."""
    fee_units: int | None = None
    """What it paid for being mined, where only the block says that (EVM: gas used times effective price, wei)."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What one block (or one mempool transaction) means to us. Nothing in it is a decision."""

    receipts: tuple[Receipt, ...]
    consumptions: tuple[Consumption, ...]
    native_mode: NativeMode | None = None
    """How arrivals of the native asset were found in this block; None where there is one way only (BTC). It is part of
    what receipts are called: whoever reads the block again must name it, or would count what came a second time."""


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

    def anchor(self, tip: BlockRef) -> int:
        """Height from which confirmations are counted when the best chain ends at `tip`: on BTC the tip itself, on EVM
        chains the newest finalised block (at most the tip; -1 before the first)."""

    def observe_block(
        self,
        ref: BlockRef,
        scripts: Collection[bytes],
        resources: Container[str],
        native_mode: NativeMode | None = None,
    ) -> Observation:
        """Read one block by hash; receipts to `scripts`, and consumptions of any of `resources`.

        What moves between two of `scripts` is no receipt on EVM chains: it stays ours (a sweep). A block that was read
        before is read with the `native_mode` of then; without one, the adapter chooses and says in the answer which.

        Raises:
            Reorganised: the node does not have this block (any more).
        """

    def mempool(self) -> Sequence[TxId]:
        """Ids of the transactions waiting in the node's mempool."""

    def observe_pending(
        self, txids: Iterable[TxId], scripts: Collection[bytes], resources: Container[str]
    ) -> dict[TxId, Observation]:
        """Observations of pending transactions; those that left the mempool meanwhile are missing from the answer."""

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand a signed transaction to the node. A failure or timeout proves nothing: record before calling."""

    def presence(self, txid: TxId) -> Presence:
        """Whether this node has the transaction in its mempool or, where it can tell, in a block."""
