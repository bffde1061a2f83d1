"""What it takes to replace unconfirmed transactions of ours by one that spends the same coins (BIP125).

Nodes that have one of them take the other only if it pays at least what it pushes out, descendants included, and more.
Whoever is paid by a transaction can make descendants. So the node is asked, and what it has not got counts as it was
built.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from chains.btc.fees import FeeRate, minimum_replacement_fee
from chains.types import TxId
from custody.signing.btc.site import BtcSite
from custody.signing.model import OurTransaction, VersionState
from policies.intent import Kind


@dataclass(frozen=True, slots=True)
class Rival:
    """An unconfirmed transaction of ours, and what its replacement has to pay."""

    transaction: OurTransaction
    resources: frozenset[str]
    """Coins that any of its versions spends."""
    fee_sats: int
    feerate: FeeRate
    """Its highest."""
    evicted: int
    """How many transactions go with it, itself included."""


def rival(site: BtcSite, transaction: OurTransaction) -> Rival:
    """What replacing one of ours takes, by the node's word of this moment. Raises NodeUnavailable."""
    versions = [each for each in transaction.versions if each.state is not VersionState.REFUSED]
    found = [each for each in (site.node.evicted(TxId(v.content)) for v in versions) if each is not None]
    fees, rates = [each.fees_sats for each in found], [0]
    # A payment that our node has not got may be in others' mempools. A rescue that was overtaken is in none.
    if found or transaction.kind != Kind.ROTATION:
        fees += [version.fee_units for version in versions]
        rates += [version.feerate for version in versions]
    return Rival(
        transaction,
        frozenset[str]().union(*(version.resources for version in versions)),
        max(fees, default=0),
        FeeRate(max(rates)),
        max((each.transactions for each in found), default=1),
    )


def replacing_fee(rivals: Iterable[Rival], vsize_vb: int, incremental: FeeRate) -> int:
    """Least fee in satoshis of a transaction of `vsize_vb` virtual bytes that replaces all of these; 0 for none."""
    together = tuple(rivals)
    if not any(each.fee_sats for each in together):
        return 0
    return minimum_replacement_fee(
        sum(each.fee_sats for each in together),
        max(each.feerate for each in together),
        vsize_vb,
        incremental,
    )
