"""Rotation of coins: those of a key-set that is no longer active are spent into the active one's change addresses.

A rescue is many transactions at once, and takes what payments of the compromised keys have reserved
(`closing.contest`): it replaces them in mempools, and whichever confirms ends the other. Only mined coins are ever
moved, so change of a payment that never confirms is counted nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE
from custody.deposits.outputs import outputs_of
from custody.ids import new_id
from custody.signing import repository as transactions
from custody.signing.btc import change, coins
from custody.signing.btc.build import present_feerate
from custody.signing.btc.consolidate import assemble_rotation, least_change_sats
from custody.signing.btc.rivals import Rival, rival
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.model import OurTransaction, SpendableCoin
from custody.signing.requests import house_intent
from custody.storage.db import Database, Tx
from custody.sweeps import repository
from custody.sweeps.btc import items_of, shown_to_a_signer
from custody.sweeps.loads import Load, Terms, fitted, loads
from custody.sweeps.model import Rotated, SweepPace
from custody.sweeps.rescue import overtake, tell_capped, tell_prices
from custody.sweeps.rotating import record
from policies.bundle import BitcoinKeyset, BitcoinVault
from policies.intent import Kind

LAST_INDEX: Final = 999
"""The highest change index of the key-set that follows to which other keys' signers send anything."""


def rotate_coins(db: Database, site: BtcSite, target: BitcoinKeyset | BitcoinVault, pace: SweepPace) -> int:
    """Record what moves all coins worth moving, the most valuable first: a rescue all at once, else one at a time.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; what was recorded before stays.
    """
    with db.snapshot() as tx:
        if not site.rescuing and repository.open_count(tx, site.chain, site.wallet.id, Kind.ROTATION):
            return 0
        found = coins.spendable(
            tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks, taking=_taking(site)
        )
        users = _users(tx, site, found)
    if not found:
        return 0
    feerate, too_high = present_feerate(site)
    if site.rescuing:
        tell_prices(db, site, None if too_high is None else too_high.detail)
    elif too_high is not None:
        return 0
    terms = Terms(
        feerate=feerate,
        incremental=max(site.node.incremental_feerate(), FeeRate(1_000)),
        fee_cap_sats=int(site.network.fee_cap),
        feerate_cap=site.feerate_cap,
        spent=site.outputs.lock,
        made=outputs_of(site.bundle, target).lock,
        most_coins=pace.rescue_inputs if site.rescuing else pace.max_inputs,
    )
    planned = loads(found, [rival(site, each) for each in users], terms)
    at_once = pace.rescue_transactions if site.rescuing else 1
    done = 0
    for load in planned[:at_once]:
        # What is wrong with one must not keep the others: another worker has it, or the chain moves.
        with suppress(Raced):
            done += _move(db, site, target, load, terms)
    return done


def _taking(site: BtcSite) -> coins.Taking:
    # What is held, quarantined or too small is in nobody's balance, and yet a thief would take it.
    return "all" if site.rescuing else "credited"


def _users(tx: Tx, site: BtcSite, found: Sequence[SpendableCoin]) -> Sequence[OurTransaction]:
    if not site.rescuing:
        return ()
    return transactions.contenders(tx, site.chain, [coin.resource for coin in found])


def _move(db: Database, site: BtcSite, target: BitcoinKeyset | BitcoinVault, load: Load, terms: Terms) -> int:
    load, forbidden = fitted(load, terms)
    tell_capped(db, site, {each.transaction.id: _told(site, each, terms) for each in forbidden})
    chosen, previous = shown_to_a_signer(site, load.coins)
    load = load.of(chosen)
    if not load.coins:
        return 0
    fee_sats = load.fee_sats(terms)
    left = load.units - fee_sats
    if left < least_change_sats(FeeRate(site.pace.long_term_sat_per_kvb), terms.made):
        return 0
    _record(db, site, target, load, previous, fee_sats)
    return 1


def _told(site: BtcSite, forbidden: Rival, terms: Terms) -> str:
    told = site.asset.told
    return (
        f"replacing it takes more than the {told(forbidden.fee_sats)} of fees that wait with it"
        f" ({forbidden.evicted} transactions), the caps allow {told(terms.fee_cap_sats)} and {terms.feerate_cap}"
    )


def _record(
    db: Database,
    site: BtcSite,
    target: BitcoinKeyset | BitcoinVault,
    load: Load,
    previous: dict[str, bytes],
    fee_sats: int,
) -> UUID:
    """The one database transaction that takes the coins from payments and records what moves them."""
    outputs = outputs_of(site.bundle, target)
    resources = [coin.resource for coin in load.coins]
    sweep_id = new_id()
    with db.transaction() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            raise Raced("paying was halted meanwhile")
        overtake(tx, [each.transaction for each in load.rivals])
        if not coins.still_spendable(
            tx,
            site.chain,
            site.wallet.id,
            site.asset.id,
            site.network.settle_blocks,
            resources,
            taking=_taking(site),
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        # All up to the one that is allocated are known: once that is too far, the last one in reach serves again.
        index = min(change.allocate(tx, target, site.asset.id, outputs), LAST_INDEX)
        intent = house_intent(site, Kind.ROTATION, str(sweep_id), outputs.agreed_address(CHANGE, index))
        to = outputs.behind(CHANGE, index)
        built = assemble_rotation(site, (intent,), load.coins, previous, fee_sats, to)
        moved = Rotated(target.id, site.asset.id, load.units - fee_sats)
        return record(tx, site, sweep_id, items_of(tx, site, load.coins), built, moved, claim="coins")
