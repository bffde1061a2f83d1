"""Refills out of a Bitcoin wallet: one output of exactly what was approved, at the target's address, and change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.coins import FeeAboveLimit, InsufficientFunds, Selection, TooManyInputs
from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE
from chains.btc.psbt import ScriptKeys
from chains.errors import InvalidValue
from custody.deposits.outputs import outputs_of
from custody.ids import new_id
from custody.signing.btc import change, coins
from custody.signing.btc.build import fetch_previous, present_feerate
from custody.signing.btc.moving import assemble_move, choose_for_move
from custody.signing.btc.plan import MAX_PREVIOUS_BYTES, previous_bytes
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.model import SpendableCoin
from custody.signing.recording import record_first
from custody.storage.db import Database
from custody.treasury.carrying import Unready, begin, finish
from custody.treasury.model import Refill
from policies.intent import Kind


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
    plan, to = _plan(site, refill, found, feerate, keep_sats), _behind(site, refill)
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
        built = assemble_move(site, refill.intent, to, plan.selection, plan.by_resource, plan.previous, index)
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
        selection = choose_for_move(
            site, refill.intent, found, feerate, max_fee_sats=int(site.network.fee_cap)
        )
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


def _behind(site: BtcSite, refill: Refill) -> ScriptKeys:
    """What is behind the destination, derived again.

    Raises:
        InvalidValue: it is not where the refill says.
        DerivationDisagreement: two implementations derive different addresses.
    """
    outputs = outputs_of(site.bundle, site.bundle.wallet(refill.target))
    if refill.place is None or outputs.agreed_address(CHANGE, refill.place) != refill.destination:
        raise InvalidValue(
            f"refill {refill.id}: {refill.destination} is not at {refill.place} of {refill.target}"
        )
    return outputs.behind(CHANGE, refill.place)
