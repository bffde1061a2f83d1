"""Refills out of a Bitcoin wallet: one output of exactly what was approved, at the target's address, and change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.address import parse_address
from chains.btc.coin_index import Coin
from chains.btc.coins import (
    ChangeOutput,
    FeeAboveLimit,
    InsufficientFunds,
    Payments,
    Selection,
    TooManyInputs,
    select,
)
from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE
from chains.btc.network import NETWORKS
from chains.btc.tx import TxOut
from chains.errors import InvalidValue
from custody.deposits.outputs import outputs_of
from custody.ids import new_id
from custody.signing.btc import change, coins
from custody.signing.btc.build import fetch_previous, present_feerate
from custody.signing.btc.plan import MAX_PREVIOUS_BYTES, previous_bytes, written
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.model import SpendableCoin
from custody.signing.recording import record_first
from custody.signing.requests import Built
from custody.storage.db import Database
from custody.treasury.carrying import Unready, begin, finish
from custody.treasury.model import Refill
from policies.intent import Intent, Kind


@dataclass(frozen=True, slots=True)
class _Plan:
    selection: Selection
    by_resource: Mapping[str, SpendableCoin]
    previous: Mapping[str, bytes]


def build(db: Database, site: BtcSite, refill: Refill, *, keep_sats: int, now: int) -> UUID:
    """Record the transaction that carries out an approved refill; returns its id.

    Args:
        db: the database, as the worker's role.
        site: the wallet that the money leaves.
        refill: approved.
        keep_sats: what payments that wait in this wallet ask for: it stays.
        now: UNIX seconds.

    Raises:
        Unready: says why it waits.
        Raced: another worker was quicker, or the chain moves: nothing was recorded.
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        found = coins.spendable(tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks)
    feerate, too_high = present_feerate(site)
    if too_high is not None:
        raise Unready(str(too_high))
    plan = _plan(site, refill, found, feerate, keep_sats)
    transaction_id = new_id()
    resources = [coin.resource for coin in plan.selection.coins]
    with db.transaction() as tx:
        begin(tx, site, refill, now=now)
        if not coins.still_spendable(
            tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks, resources
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        index = None
        if plan.selection.change_sats is not None:
            index = change.allocate(tx, site.wallet, site.asset.id, site.outputs)
        built = assemble(site, refill.intent, refill.target, refill.place, plan.selection,
                         plan.by_resource, plan.previous, index)  # fmt: skip
        record_first(tx, site, transaction_id, Kind.REFILL, built, change_index=index)
        finish(tx, refill, transaction_id)
    return transaction_id


def _plan(
    site: BtcSite, refill: Refill, found: Sequence[SpendableCoin], feerate: FeeRate, keep_sats: int
) -> _Plan:
    there = sum(coin.units for coin in found)
    told = site.asset.told
    if there - keep_sats < refill.units:
        kept = f"of which {told(keep_sats)} are for payments that wait"
        raise Unready(f"funds: {site.wallet.id} can spend {told(there)} now, {kept}")
    try:
        selection = choose(site, refill.intent, found, feerate, max_fee_sats=int(site.network.fee_cap))
    except (InsufficientFunds, TooManyInputs, FeeAboveLimit) as error:
        raise Unready(f"coins: {error}") from error
    if there - keep_sats < refill.units + selection.fee_sats:
        raise Unready(
            f"funds: with {told(selection.fee_sats)} of fee too little is left for payments that wait"
        )
    by_resource = {coin.resource: coin for coin in found}
    previous = fetch_previous(site, [by_resource[coin.resource] for coin in selection.coins])
    size = previous_bytes(selection, by_resource, previous)
    if size > MAX_PREVIOUS_BYTES:
        raise Unready(f"too-heavy: its coins come from transactions of {size} bytes together")
    return _Plan(selection, by_resource, previous)


def choose(
    site: BtcSite,
    intent: Intent,
    found: Sequence[SpendableCoin],
    feerate: FeeRate,
    *,
    max_fee_sats: int,
    pinned: Sequence[SpendableCoin] = (),
) -> Selection:
    """Choose coins by waste.

    Args:
        site: the wallet that the money leaves.
        intent: of the refill.
        found: what may be spent.
        feerate: to pay.
        max_fee_sats: at most.
        pinned: what every version spends.

    Raises:
        InsufficientFunds, TooManyInputs, FeeAboveLimit.
    """
    limit, lock = max_fee_sats, site.outputs.lock
    script = _script(site, intent)
    while True:
        selection = select(
            [Coin(coin.resource, coin.units, lock.input_wu) for coin in found],
            Payments.to([(intent.units, script)]),
            feerate=feerate,
            long_term_feerate=FeeRate(site.pace.long_term_sat_per_kvb),
            change=ChangeOutput.to(lock.script, lock.input_wu),
            pinned=[Coin(coin.resource, coin.units, lock.input_wu) for coin in pinned],
            max_fee_sats=limit,
        )
        allowed = site.feerate_cap.fee_for(selection.vsize_vb)
        if selection.fee_sats <= allowed:
            return selection
        limit = min(allowed, selection.fee_sats - 1)


def assemble(
    site: BtcSite,
    intent: Intent,
    target: str,
    place: int | None,
    selection: Selection,
    by_resource: Mapping[str, SpendableCoin],
    previous: Mapping[str, bytes],
    change_index: int | None,
) -> Built:
    """The unsigned transaction and the request that asks for its signatures.

    Args:
        site: the wallet that the money leaves.
        intent: of the refill.
        target: wallet of the bundle that gets it.
        place: index of the destination on the target's branch 1.
        selection: coins, fee, change.
        by_resource: at least the selected coins.
        previous: whole previous transactions by txid.
        change_index: needed exactly if the selection has change.

    Raises:
        InvalidValue: the parts do not fit together.
        DerivationDisagreement: two implementations derive different addresses.
    """
    outputs = outputs_of(site.bundle, site.bundle.wallet(target))
    if place is None or outputs.agreed_address(CHANGE, place) != intent.destination:
        raise InvalidValue(f"refill {intent.id}: {intent.destination} is not at {place} of {target}")
    if (selection.change_sats is None) != (change_index is None):
        raise InvalidValue("a change index belongs to a selection with change")
    made = [TxOut(intent.units, _script(site, intent))]
    if change_index is not None and selection.change_sats is not None:
        made.append(TxOut(selection.change_sats, site.outputs.script(CHANGE, change_index)))
    spent = [by_resource[coin.resource] for coin in selection.coins]
    return written(
        site,
        (intent,),
        (),
        spent,
        previous,
        made,
        selection,
        change_index,
        elsewhere=outputs.behind(CHANGE, place),
    )


def _script(site: BtcSite, intent: Intent) -> bytes:
    return parse_address(intent.destination, NETWORKS[site.network.network], site.chain).script
