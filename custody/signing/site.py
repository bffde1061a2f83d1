"""One chain as the payment steps see it: the bundle's entries for it, its node, and how fast to go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from chains.btc.fees import FeeRate
from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.ports import BroadcastResult, Presence
from chains.types import TxId
from policies.bundle import AssetEntry, Bundle, KeysetEntry, NetworkEntry


class PaymentNode(Protocol):
    """What paying asks of a node. Every call may raise NodeUnavailable."""

    def broadcast(self, raw: bytes) -> BroadcastResult:
        """Hand it a signed transaction."""

    def presence(self, txid: TxId) -> Presence:
        """Where it sees a transaction."""

    def raw_transaction(self, txid: TxId, block_hash: str | None = None) -> bytes:
        """A transaction's bytes. Raises NodeRefused where it has none."""

    def fee_estimate(self, target_blocks: int) -> FeeRate | None:
        """Feerate to confirm within so many blocks; None without data."""

    def mempool_min_feerate(self) -> FeeRate:
        """Lowest feerate it takes in now."""

    def incremental_feerate(self) -> FeeRate:
        """What a replacement pays for its own relay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How often and how much; nothing here decides about money."""

    batch_payments: int = 200
    """Most payments of one transaction; weight bounds it too."""
    gather_seconds: int = 5
    """How long a queued withdrawal waits for others to share its transaction, unless that is full before."""
    confirm_target_blocks: int = 6
    """Within which a payment should confirm: asks the node's estimate for this."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Everything the steps need to know of one hot wallet on one chain."""

    bundle: Bundle
    network: NetworkEntry
    asset: AssetEntry
    """The chain's native asset."""
    keyset: KeysetEntry
    account: AccountKey
    node: PaymentNode
    pace: Pace = field(default_factory=Pace)

    @property
    def chain(self) -> str:
        """Id of the chain."""
        return self.network.chain

    @property
    def feerate_floor(self) -> FeeRate:
        """Lowest feerate we pay."""
        return FeeRate(self.network.feerate_floor)

    @property
    def feerate_cap(self) -> FeeRate:
        """Highest feerate we pay, and the signer signs."""
        return FeeRate(self.network.feerate_cap)


def site(bundle: Bundle, chain: str, node: PaymentNode, *, pace: Pace | None = None) -> Site:
    """The hot wallet of a chain.

    Raises:
        InvalidValue: the bundle lacks the chain, its asset or a hot key-set.
    """
    network = bundle.network(chain)
    keyset = bundle.keyset_for(chain, "hot")
    return Site(
        bundle=bundle,
        network=network,
        asset=bundle.asset(network.native_asset),
        keyset=keyset,
        account=AccountKey.parse(keyset.account, NETWORKS[network.network]),
        node=node,
        pace=pace or Pace(),
    )
