"""One wallet on one chain as the payment steps see it: the bundle's entries for it, its node, and how fast to go."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from chains.ports import BroadcastResult, Presence
from chains.types import TxId
from custody.signing.errors import NotAMember
from custody.signing.model import OurTransaction, Version
from custody.storage import halts
from custody.storage.db import Tx
from policies.bundle import AssetEntry, BitcoinVault, Bundle, EvmVault, KeyState, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.ports import Refused, Signer, SignResponse

_SIGNED_STILL: Final[Mapping[KeyState, frozenset[Kind]]] = {
    "deactivated": frozenset({Kind.ROTATION, Kind.SWEEP, Kind.CONSOLIDATION, Kind.NONCE_FILL}),
    "compromised": frozenset({Kind.ROTATION}),
}


class SendingNode(Protocol):
    """What sending asks of a node, whatever its family. Every call may raise NodeUnavailable."""

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand it a signed transaction."""

    def presence(self, txid: TxId) -> Presence:
        """Where it sees a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how much; nothing here decides about money."""

    batch_payments: int = 200
    """Most payments of one transaction; weight or gas bounds it too."""
    gather_seconds: int = 5
    """How long a queued withdrawal waits for others to share its transaction, unless that is full before."""
    confirm_target_blocks: int = 6
    """Within which a BTC payment should confirm: asks the node's estimate for this."""
    long_term_sat_per_kvb: int = 10_000
    """What spending a coin is expected to cost at leisure: decides between more inputs now and change."""
    wait_seconds: int = 5
    """Until a withdrawal that could not be paid is looked at again."""
    refused_seconds: int = 30
    """The same after the signer's refusal."""
    resend_seconds: int = 60
    """Until a transaction that waits in the mempool is looked at again."""
    retry_seconds: int = 5
    """The same after trouble."""
    bump_after_blocks: int = 6
    """Blocks without a confirmation after which a higher estimate leads to a replacement."""
    unconfirmed_at_most: int = 16
    """EVM: so many transactions of one sender wait for a block at a time; nodes hold only some."""
    alone_seconds: int = 86_400
    """EVM: how long after a batch that reverted each payment has a transaction of its own."""
    session_seconds: int = 3 * 86_400
    """How long members of a vault may take to sign what no order gives a time for."""
    stuck_seconds: int = 3600
    """EVM: how long what owners of a Safe have signed may fail to be carried out, before somebody must look, and a warm
    Safe gives it up."""
    fill_after_seconds: int = 30
    """EVM: how long a nonce may stay unused below one that is broadcast, before a transaction to nobody fills it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site(ABC):
    """Everything the steps need to know of one wallet on one chain; most steps ask the active one only."""

    bundle: Bundle
    network: NetworkEntry
    asset: AssetEntry
    """The chain's native asset, in which fees are paid."""
    wallet: WalletEntry
    node: SendingNode
    pace: Pace = field(default_factory=Pace)

    @property
    def chain(self) -> str:
        """Id of the chain."""
        return self.network.chain

    @property
    def is_vault(self) -> bool:
        """Whether several members sign for it, by sessions."""
        return isinstance(self.wallet, BitcoinVault | EvmVault)

    @property
    def sends(self) -> bool:
        """Whether what is signed is sent as it is. What owners of a Safe sign is carried out by somebody else."""
        return True

    @property
    def rescuing(self) -> bool:
        """Whether its keys are compromised: what they hold is moved even while paying is halted."""
        return self.wallet.state == "compromised"

    def signs(self, kind: str) -> bool:
        """Whether keys in their state sign what they have not signed yet (signers/README.md, `key-state`)."""
        return self.wallet.state == "active" or kind in _SIGNED_STILL.get(self.wallet.state, ())

    def halted(self, tx: Tx, asset: str | None = None, customer: str | None = None) -> str | None:
        """Why this wallet pays nothing now, or not of an asset or for a customer; None if it does."""
        return halts.halted(
            tx,
            self.chain,
            asset,
            customer=customer,
            tier=self.wallet.tier,
            wallet=self.wallet.id,
            fees=self.asset.id,
        )

    def allowed(self, tx: Tx) -> tuple[Kind, ...]:
        """What may be signed and sent now: nothing while paying is halted on its chain, but rescues."""
        if self.halted(tx) is None:
            return tuple(Kind)
        return (Kind.ROTATION,) if self.rescuing else ()

    def held(self, tx: Tx) -> Sequence[UUID]:
        """Transactions that are neither signed nor sent now, whatever their kind: they serve what is stopped."""
        return ()

    @abstractmethod
    def finish(self, version: Version, response: SignResponse) -> tuple[bytes, str]:
        """The signed bytes and their txid, after two decoders agree that they are what was recorded.

        Raises:
            InvalidSignature: a signature is missing or does not verify.
            DecodersDisagree: the signed bytes are not the recorded transaction, or two decoders read them differently.
        """

    def check_member(self, version: Version, member: str, response: SignResponse) -> None:
        """Check that a member of the vault has signed all of a version, and nothing else.

        Raises:
            InvalidSignature: it has not.
            NotAMember: there is no such member, or this is no vault.
        """
        raise NotAMember(f"{self.wallet.id} is no vault, so {member} cannot sign a part of it")

    def catch_up(self, signer: Signer, refusal: Refused) -> bool:
        """Whether a member's signer that has refused because it was away for long may be asked again now: it was
        brought up to what the chain shows. Raises SignerUnavailable, NodeUnavailable, Refused."""
        return False

    def objection(self, signed: bytes) -> str | None:
        """What speaks against sending bytes that are recorded, by the node's word, before it is given them; None if
        nothing does, or it is not asked. Raises NodeUnavailable."""
        return None

    @abstractmethod
    def vanished(self, tx: Tx, transaction: OurTransaction) -> Sequence[str]:
        """Resources of an unconfirmed transaction that a reorg took away, so that no block can hold it as it is."""
