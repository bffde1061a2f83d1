"""Consolidating: many small coins of a hot wallet are recorded as inputs of one transaction to itself."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chains.btc.fees import FeeRate
from custody.ids import new_id
from custody.signing.btc import change, coins
from custody.signing.btc.build import fetch_previous, present_feerate
from custody.signing.btc.consolidate import assemble_consolidation, merged
from custody.signing.btc.plan import MAX_PREVIOUS_BYTES
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.model import SpendableCoin
from custody.signing.recording import record_first
from custody.storage.db import Database, Tx
from custody.sweeps import repository
from custody.sweeps.consolidation import Means, choose, pays
from custody.sweeps.lifecycle import SweepEvent, SweepState
from custody.sweeps.model import Item, Reason, SweepPace
from custody.sweeps.permission import NotPermitted, permitted, tell
from custody.sweeps.planner import must_wait
from custody.treasury.observing import outlook
from custody.withdrawals import windows
from policies.facts import Operation
from policies.intent import Kind


def consolidate(db: Database, site: BtcSite, pace: SweepPace, now: int) -> int:
    """Record one consolidation if it pays; returns how many were recorded. One at a time is in flight.

    Args:
        db: the database, as the worker's role.
        site: the hot wallet.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        if site.halted(tx) is not None:
            return 0
        if repository.open_count(tx, site.chain, site.wallet.id, Kind.CONSOLIDATION):
            return 0
        if must_wait(*repository.last_trouble(tx, site.chain, site.wallet.id, Kind.CONSOLIDATION), pace, now):
            return 0
        found = coins.spendable(tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks)
        needed = repository.queued_units(tx, site.chain, site.asset.id) + outlook(
            tx, site.wallet.id, site.asset.id
        )
    if len(found) <= pace.consolidate_above_coins:
        return 0
    feerate, too_high = present_feerate(site)
    if too_high is not None:
        return 0
    long_term = FeeRate(site.pace.long_term_sat_per_kvb)
    fee_cap = int(site.network.fee_cap)
    means = Means(needed + fee_cap if needed else 0, fee_cap, feerate, long_term, site.outputs.lock)
    try:
        chosen, previous = shown_to_a_signer(site, choose(found, means, pace))
        if not pays(chosen, means):
            return 0
        fee_sats = merged(len(chosen), feerate, means.lock, means.lock).fee_sats
        return _record(db, site, chosen, previous, fee_sats, now)
    except Raced:
        return 0
    except NotPermitted as denied:
        with db.transaction() as tx:
            tell(tx, site, Operation.CONSOLIDATION, denied)
        return 0


def shown_to_a_signer(
    site: BtcSite, chosen: Sequence[SpendableCoin]
) -> tuple[list[SpendableCoin], dict[str, bytes]]:
    """As many of the coins as can be shown to a signer in one request, and their previous transactions."""
    previous = fetch_previous(site, chosen)
    fitting: list[SpendableCoin] = []
    size = 0
    for coin in chosen:
        own = len(previous[coin.txid])
        if size + own <= MAX_PREVIOUS_BYTES:
            fitting.append(coin)
            size += own
    return fitting, previous


def _record(
    db: Database,
    site: BtcSite,
    chosen: Sequence[SpendableCoin],
    previous: dict[str, bytes],
    fee_sats: int,
    now: int,
) -> int:
    """The one database transaction that records the sweep, its items, its transaction and its request."""
    sweep_id, transaction_id = new_id(), new_id()
    resources = [coin.resource for coin in chosen]
    with db.transaction() as tx:
        if site.halted(tx) is not None:
            raise Raced("paying was halted meanwhile")
        if not coins.still_spendable(
            tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks, resources
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        amounts = {site.asset.id: sum(coin.units for coin in chosen)}
        decision = permitted(tx, site, Operation.CONSOLIDATION, site.wallet.id, amounts, now=now)
        change_index = change.allocate(tx, site.wallet, site.asset.id, site.outputs)
        built = assemble_consolidation(site, sweep_id, chosen, previous, fee_sats, change_index)
        _insert(tx, site, sweep_id, chosen)
        repository.record_decision(tx, sweep_id, decision.record)
        windows.count(tx, sweep_id, decision.counts)
        record_first(tx, site, transaction_id, Kind.CONSOLIDATION, built, change_index=change_index)
        repository.attach(tx, sweep_id, transaction_id)
        detail = {"transaction": str(transaction_id), "coins": len(chosen)}
        repository.apply(tx, sweep_id, SweepState.PLANNED, SweepEvent.RECORD, detail=detail)
    return 1


def _insert(tx: Tx, site: BtcSite, sweep_id: UUID, chosen: Sequence[SpendableCoin]) -> None:
    items = items_of(tx, site, chosen)
    kind = Kind.CONSOLIDATION
    repository.insert(tx, sweep_id, site.chain, site.wallet.id, kind, Reason.MANY, items, claim="coins")


def items_of(tx: Tx, site: BtcSite, chosen: Sequence[SpendableCoin]) -> list[Item]:
    """The addresses that coins are at, and how much."""
    ids = repository.address_ids(tx, site.wallet.id, [(coin.branch, coin.index) for coin in chosen])
    amounts: dict[int, int] = {}
    for coin in chosen:
        address_id = ids[coin.branch, coin.index]
        amounts[address_id] = amounts.get(address_id, 0) + coin.units
    return [Item(address_id, site.asset.id, units) for address_id, units in sorted(amounts.items())]
