"""Rotation: what a key-set that is no longer active holds is moved to the active one of its chain and tier.

Deposits still come to its addresses for years; each is credited as ever, and then moved. Those of a compromised
key-set are moved even while paying is halted, for whoever has its keys does not wait, and are credited only afterwards:
who can take his own deposit back would be paid for nothing (`custody.deposits.service`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE, AccountKey, Origin, agreed_address
from chains.btc.network import NETWORKS
from chains.btc.psbt import KeyOrigin
from chains.btc.script import KEY_INPUT_WU, KeyScript
from chains.errors import InvalidValue, Reorganised
from chains.eth import gas
from chains.eth.address import raw_address
from chains.eth.call import Reverted
from chains.eth.erc20 import transfer_calldata
from custody.ids import new_id
from custody.signing.btc import change, coins
from custody.signing.btc.build import present_feerate
from custody.signing.btc.consolidate import assemble_rotation, least_change_sats, merged
from custody.signing.btc.site import BtcSite
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import offer_for
from custody.signing.evm.site import EvmSite
from custody.signing.model import SpendableCoin
from custody.signing.recording import record_first
from custody.signing.requests import Built, house_intent
from custody.signing.site import Site
from custody.storage.db import Database, Tx
from custody.sweeps import repository
from custody.sweeps.btc import items_of, shown_to_a_signer
from custody.sweeps.lifecycle import SweepEvent, SweepState
from custody.sweeps.model import Item, Reason, Rotated, SweepPace
from custody.sweeps.planner import must_wait
from policies import decision
from policies.bundle import AssetEntry, BitcoinKeyset, EvmKeyset
from policies.intent import Kind

_HOUSE: Final = (1, 0)
"""Branch and index of an EVM key's own address."""
LAST_INDEX: Final = 999
"""The highest change index of the key-set that follows to which other keys' signers send anything."""


def rotate(db: Database, site: Site, pace: SweepPace, now: int) -> int:
    """Record what can be moved now; returns how many transactions. Again changes nothing more.

    Args:
        db: the database, as the worker's role.
        site: the wallet of the key-set that is no longer active.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; what was recorded before stays.
    """
    with db.snapshot() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            return 0
        times, last = repository.last_trouble(tx, site.chain, site.keyset.id, Kind.ROTATION)
        # A thief who spoils a rescue, or a bundle that changes under it, must not make the next one wait ever longer.
        if must_wait(min(times, 1) if site.rescuing else times, last, pace, now):
            return 0
    try:
        target = site.bundle.keyset_for(site.chain, site.keyset.tier)
    except InvalidValue:
        return 0  # the quorum has not named the next one yet
    try:
        if isinstance(site, BtcSite) and isinstance(target, BitcoinKeyset):
            return _rotate_coins(db, site, target, pace)
        if isinstance(site, EvmSite) and isinstance(target, EvmKeyset):
            return _rotate_account(db, site, target)
    except (Raced, Reorganised):
        pass  # another worker was quicker, or the chain moves: the next call looks again
    return 0


def _rotate_coins(db: Database, site: BtcSite, target: BitcoinKeyset, pace: SweepPace) -> int:
    """All coins worth moving, the largest first, as many as one transaction holds. One at a time is in flight."""
    # What is held, quarantined or too small is in nobody's balance, and yet a thief would take it.
    taking: coins.Taking = "all" if site.rescuing else "credited"
    with db.snapshot() as tx:
        if repository.open_count(tx, site.chain, site.keyset.id, Kind.ROTATION):
            return 0
        found = coins.spendable(
            tx, site.chain, site.keyset.id, site.asset.id, site.network.settle_blocks, taking=taking
        )
    feerate, too_high = present_feerate(site)
    if too_high is not None and not site.rescuing:
        return 0
    chosen, previous = shown_to_a_signer(site, _worth_moving(site, found, feerate, pace, target.script))
    fee_sats = merged(len(chosen), feerate, site.keyset.script, target.script).fee_sats
    left = sum(coin.units for coin in chosen) - fee_sats
    if not chosen or left < least_change_sats(FeeRate(site.pace.long_term_sat_per_kvb), target.script):
        return 0
    account = AccountKey.parse(target.account, NETWORKS[site.network.network], target.script)
    sweep_id = new_id()
    resources = [coin.resource for coin in chosen]
    with db.transaction() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            raise Raced("paying was halted meanwhile")
        if not coins.still_spendable(
            tx,
            site.chain,
            site.keyset.id,
            site.asset.id,
            site.network.settle_blocks,
            resources,
            taking=taking,
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        # All up to the one that is allocated are known: once that is too far, the last one in reach serves again.
        index = min(change.allocate(tx, target, site.asset.id, account), LAST_INDEX)
        intent = house_intent(site, Kind.ROTATION, str(sweep_id), agreed_address(account, CHANGE, index))
        path = (*Origin.parse(target.origin).path, CHANGE, index)
        to = KeyOrigin(account.pubkey(CHANGE, index), target.fingerprint, path)
        built = assemble_rotation(site, (intent,), chosen, previous, fee_sats, to)
        moved = Rotated(target.id, site.asset.id, left)
        _record(tx, site, sweep_id, items_of(tx, site, chosen), built, moved)
    return 1


def _worth_moving(
    site: BtcSite, found: Sequence[SpendableCoin], feerate: FeeRate, pace: SweepPace, made: KeyScript
) -> tuple[SpendableCoin, ...]:
    spent = site.keyset.script
    own = feerate.fee_for_weight(KEY_INPUT_WU[spent])
    worth = sorted((c for c in found if c.units > own), key=lambda coin: (-coin.units, coin.resource))
    chosen = worth[: pace.max_inputs]
    while chosen and merged(len(chosen), feerate, spent, made).fee_sats > int(site.network.fee_cap):
        chosen.pop()
    return tuple(chosen)


def _rotate_account(db: Database, site: EvmSite, target: EvmKeyset) -> int:
    """Every listed token that the address has, and of the native asset what its own gas does not need."""
    done = 0
    assets = [entry for entry in site.bundle.assets if entry.chain == site.chain]
    for entry in sorted(assets, key=lambda entry: entry.contract is None):
        with db.snapshot() as tx:
            seen = funds.committed(tx, site)
            house = repository.address_ids(tx, site.keyset.id, [_HOUSE]).get(_HOUSE)
        if seen is None or house is None:
            return done
        has = funds.available(site, seen, [entry.id])
        draft = _draft(site, target, entry, has[entry.id])
        if draft is not None and _record_transfer(
            db, site, target, entry, draft, Item(house, entry.id, has[entry.id]), seen, has[site.asset.id]
        ):
            done += 1
    return done


def _draft(site: EvmSite, target: EvmKeyset, entry: AssetEntry, units: int) -> Draft | None:
    """The call that moves an asset; None if there is too little of it.

    Of the native asset so much stays that a transfer could cost at most: then a replacement can pay more without
    moving less, and late deposits can still be moved.
    """
    caps = site.network.gas_caps
    to = raw_address(target.address)
    if entry.contract is not None:
        if units < max(1, int(entry.minimum_deposit)):
            return None
        return Draft(raw_address(entry.contract), 0, transfer_calldata(to, units), caps.token, is_token=True)
    kept = min(int(site.network.fee_cap), caps.token * site.network.feerate_cap)
    if units - kept < max(1, int(entry.minimum_deposit)):
        return None
    return Draft(to, units - kept, b"", caps.transfer)


def _record_transfer(
    db: Database,
    site: EvmSite,
    target: EvmKeyset,
    entry: AssetEntry,
    draft: Draft,
    item: Item,
    seen: Committed,
    native_units: int,
) -> bool:
    estimate = site.node.estimate_gas(draft.call(site.sender))
    limit = None if isinstance(estimate, Reverted) else gas.gas_limit(estimate, draft.gas_cap)
    if limit is None:
        return False  # a token that is paused, or whose issuer has frozen our address
    offer = offer_for(site, site.node.gas_price(), limit, int(site.network.fee_cap))
    if isinstance(offer, decision.Reason) or draft.value_wei + limit * offer.max_fee_wei > native_units:
        return False
    used = site.node.nonce(site.sender, site.node.tip())
    sweep_id = new_id()
    units = draft.value_wei if entry.contract is None else item.units
    with db.transaction() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            raise Raced("paying was halted meanwhile")
        nonce = nonces.take(tx, site.chain, site.sender, used=used)
        if funds.committed(tx, site) != seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        intent = house_intent(site, Kind.ROTATION, str(sweep_id), target.address)
        built = assemble(site, draft, (intent,), (), nonce=nonce, gas_limit=limit, offer=offer)
        _record(tx, site, sweep_id, [item], built, Rotated(target.id, entry.id, units))
    return True


def _record(tx: Tx, site: Site, sweep_id: UUID, items: Sequence[Item], built: Built, moved: Rotated) -> None:
    """The sweep, its items, its transaction, its request, and what it moves, in the caller's transaction."""
    transaction_id = new_id()
    kind = Kind.ROTATION
    if not repository.insert(tx, sweep_id, site.chain, site.keyset.id, kind, Reason.RETIRED, items):
        raise Raced("another sweep has claimed one of its addresses")
    record_first(tx, site, transaction_id, kind, built)
    repository.record_rotated(tx, transaction_id, 1, moved)
    repository.attach(tx, sweep_id, transaction_id)
    detail = {"transaction": str(transaction_id), "target": moved.target}
    repository.apply(tx, sweep_id, SweepState.PLANNED, SweepEvent.RECORD, detail=detail)
