"""Building: queued withdrawals become one recorded, unsigned transaction. See `custody.signing.paying`."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chains.btc.fees import FeeRate, clamp
from chains.btc.tx import Transaction
from chains.errors import NodeRefused
from chains.types import TxId
from custody.signing import paying
from custody.signing.btc import change, coins
from custody.signing.btc.plan import MAX_PREVIOUS_BYTES, Plan, assemble, plan, previous_bytes
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.model import SpendableCoin
from custody.signing.requests import Payee, payment_intents
from custody.storage.db import Database
from policies.decision import Reason


def build(db: Database, site: BtcSite, now: int) -> UUID | None:
    """Record one transaction that pays what can be paid; see `custody.signing.build`."""
    with db.snapshot() as tx:
        ready = paying.ready(tx, site, now=now)
        if not ready:
            return None
        found = coins.spendable(tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks)
    payees = paying.payees(db, site, ready)
    if not payees:
        return None
    feerate, too_high = present_feerate(site)
    if too_high is not None:
        paying.wait(db, site, [(payee, too_high) for payee in payees])
        return None
    by_resource = {coin.resource: coin for coin in found}
    try:
        chosen, previous = _plan(payees, by_resource, feerate, site)
        paying.wait(db, site, chosen.waiting)
        return None if chosen.selection is None else _record(db, site, chosen, by_resource, previous)
    except Raced:
        return None


def _plan(
    payees: Sequence[Payee], coins: dict[str, SpendableCoin], feerate: FeeRate, site: BtcSite
) -> tuple[Plan, dict[str, bytes]]:
    """A plan whose request a signer can read, and its previous transactions.

    Anybody can pay us out of transactions as large as a block. The whole of each goes to the signer, so what would
    not fit is not asked for: it could never be answered, and would wait in front of everything else.
    """
    chosen = list(payees)
    waiting: list[tuple[Payee, Reason]] = []
    while True:
        found = plan(chosen, list(coins.values()), feerate, site)
        if found.selection is None:
            return Plan((), None, (*found.waiting, *waiting)), {}
        previous = fetch_previous(site, [coins[coin.resource] for coin in found.selection.coins])
        size = previous_bytes(found.selection, coins, previous)
        if size <= MAX_PREVIOUS_BYTES:
            return Plan(found.payees, found.selection, (*found.waiting, *waiting)), previous
        reason = Reason(
            "too-heavy",
            f"its coins come from transactions of {size} bytes together,"
            f" at most {MAX_PREVIOUS_BYTES} can be shown to a signer",
        )
        largest = sorted(found.payees, key=lambda payee: payee.units)[-max(1, len(found.payees) // 4) :]
        waiting += [(payee, reason) for payee in largest]
        chosen = [payee for payee in chosen if payee not in largest]


def present_feerate(site: BtcSite) -> tuple[FeeRate, Reason | None]:
    """The feerate to pay now: the node's estimate, at least what its mempool takes, within the bundle's
    bounds.

    Returns:
        The feerate, and a reason to wait if what the mempool takes is above the cap.
    """
    lowest = max(site.feerate_floor, site.node.mempool_min_feerate())
    if lowest > site.feerate_cap:
        return site.feerate_cap, Reason(
            "fees-above-cap", f"the mempool takes {lowest} and more, the cap is {site.feerate_cap}"
        )
    estimate = site.node.fee_estimate(site.pace.confirm_target_blocks)
    return clamp(estimate or lowest, lowest, site.feerate_cap), None


def price(site: BtcSite) -> int:
    """What the network asks for now, sat/kvB, within the bundle's bounds. Raises NodeUnavailable."""
    return present_feerate(site)[0].sat_per_kvb


def fetch_previous(site: BtcSite, coins: Sequence[SpendableCoin]) -> dict[str, bytes]:
    """Whole previous transactions by txid, without witnesses: a signer believes amounts only from them.

    Their ids do not cover witnesses, and a stranger's may weigh megabytes.

    Raises:
        Raced: the node no longer has one in the block we know: a reorg is under way.
    """
    blocks = {coin.txid: coin.block_hash for coin in coins}
    try:
        return {
            txid: Transaction.parse(site.node.raw_transaction(TxId(txid), block)).serialize_without_witness()
            for txid, block in blocks.items()
        }
    except NodeRefused as error:
        raise Raced(f"previous transaction: {error}") from error


def _record(
    db: Database,
    site: BtcSite,
    chosen: Plan,
    by_resource: dict[str, SpendableCoin],
    previous: dict[str, bytes],
) -> UUID:
    """The one transaction in which withdrawals are claimed and the transaction that pays them is recorded."""
    selection = chosen.selection
    assert selection is not None
    resources = [coin.resource for coin in selection.coins]
    with db.transaction() as tx:
        claimed = paying.claim(tx, site, chosen.payees)
        if not coins.still_spendable(
            tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks, resources
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        change_index = None
        if selection.change_sats is not None:
            change_index = change.allocate(tx, site.wallet, site.asset.id, site.outputs)
        built = assemble(
            site,
            chosen.payees,
            payment_intents(chosen.payees, site),
            selection,
            by_resource,
            previous,
            change_index,
        )
        return paying.record(tx, site, claimed, built, change_index=change_index)
