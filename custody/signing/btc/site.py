"""A wallet of the Bitcoin family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chains.btc.fees import Evicted, FeeRate
from chains.btc.outputs import Outputs
from chains.errors import InvalidValue
from chains.ports import BroadcastResult, BroadcastState
from chains.types import TxId
from custody.deposits.outputs import outputs_of
from custody.signing.btc import coins
from custody.signing.btc.finish import check_cosigner, finish
from custody.signing.errors import NotAMember
from custody.signing.model import OurTransaction, Version
from custody.signing.site import Pace, SendingNode, Site
from custody.storage.db import Tx
from policies.bundle import BitcoinKeyset, BitcoinNetwork, BitcoinVault, Bundle, Cosigner, WalletEntry
from signers.ports import SignResponse


class BtcPaymentNode(SendingNode, Protocol):
    """What paying asks of a node of this family. Every call may raise NodeUnavailable."""

    def test_accept(self, raw: bytes) -> BroadcastResult:
        """What it would say to a broadcast now."""

    def raw_transaction(self, txid: TxId, block_hash: str | None = None) -> bytes:
        """A transaction's bytes. Raises NodeRefused where it has none."""

    def fee_estimate(self, target_blocks: int) -> FeeRate | None:
        """Feerate to confirm within so many blocks; None without data."""

    def mempool_min_feerate(self) -> FeeRate:
        """Lowest feerate it takes in now."""

    def incremental_feerate(self) -> FeeRate:
        """What a replacement pays for its own relay."""

    def evicted(self, txid: TxId) -> Evicted | None:
        """What a replacement of a transaction pushes out of its mempool; None if it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BtcSite(Site):
    """Everything the steps need to know of one wallet on one chain."""

    network: BitcoinNetwork
    wallet: BitcoinKeyset | BitcoinVault
    node: BtcPaymentNode
    outputs: Outputs

    @property
    def feerate_floor(self) -> FeeRate:
        """Lowest feerate we pay."""
        return FeeRate(self.network.feerate_floor)

    @property
    def feerate_cap(self) -> FeeRate:
        """Highest feerate we pay, and the signer signs."""
        return FeeRate(self.network.feerate_cap)

    def finish(self, version: Version, response: SignResponse) -> tuple[bytes, str]:
        """See `Site`."""
        return finish(version, response)

    def objection(self, signed: bytes) -> str | None:
        """Of a vault, what `testmempoolaccept` says: people signed it, and should hear of it before it is out."""
        if not self.is_vault:
            return None
        said = self.node.test_accept(signed)
        return said.reason if said.state is BroadcastState.REJECTED else None

    def check_member(self, version: Version, member: str, response: SignResponse) -> None:
        """See `Site`."""
        found = [each for each in cosigners_of(self.wallet) if each.id == member]
        if not found:
            raise NotAMember(f"{self.wallet.id} has no cosigner {member!r}")
        check_cosigner(found[0], self.network.network, version, response)

    def vanished(self, tx: Tx, transaction: OurTransaction) -> Sequence[str]:
        """Inputs that are no output of the best chain any more."""
        inputs = frozenset[str]().union(*(version.resources for version in transaction.versions))
        return coins.missing_receipts(tx, transaction.chain, sorted(inputs))


def cosigners_of(wallet: WalletEntry) -> tuple[Cosigner, ...]:
    """The cosigners of a vault; none of a key-set."""
    return wallet.cosigners if isinstance(wallet, BitcoinVault) else ()


def btc_site(
    bundle: Bundle,
    chain: str,
    node: BtcPaymentNode,
    *,
    pace: Pace | None = None,
    wallet: WalletEntry | None = None,
) -> BtcSite:
    """A wallet of a chain, or its active hot one.

    Raises:
        InvalidValue: the bundle lacks the chain, its asset or a hot key-set, or they are of another family.
    """
    network, wallet = bundle.network(chain), wallet or bundle.keyset_for(chain, "hot")
    if not isinstance(network, BitcoinNetwork) or not isinstance(wallet, BitcoinKeyset | BitcoinVault):
        raise InvalidValue(f"{chain} is no chain of the Bitcoin family")
    return BtcSite(
        bundle=bundle,
        network=network,
        asset=bundle.asset(network.native_asset),
        wallet=wallet,
        outputs=outputs_of(bundle, wallet),
        node=node,
        pace=pace or Pace(),
    )
