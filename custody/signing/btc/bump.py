"""Replacing an unconfirmed transaction by a version with a higher fee (BIP125).

A replacement keeps every input of every earlier version, so at most one of all versions can confirm, and pays
the same intents with the same outputs; what grows is the fee, out of the change or of further inputs. It is
recorded as the next version and goes to the signer like the first.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.coins import FeeAboveLimit, InsufficientFunds, Selection, TooManyInputs
from chains.btc.fees import MAX_SAT_PER_KVB, FeeRate, minimum_replacement_fee
from chains.btc.outputs import lock_of
from chains.btc.psbt import ScriptKeys, parse_psbt
from chains.btc.script import Lock
from custody.signing import repository, reservations
from custody.signing.btc import change, coins
from custody.signing.btc.build import fetch_previous, present_feerate
from custody.signing.btc.consolidate import assemble_rotation, replaced
from custody.signing.btc.moving import assemble_move, behind_destination, choose_for_move
from custody.signing.btc.plan import MAX_PREVIOUS_BYTES, assemble, choose, previous_bytes
from custody.signing.btc.rivals import rival
from custody.signing.btc.site import BtcSite
from custody.signing.errors import BumpRefused, Raced
from custody.signing.model import OurTransaction, SpendableCoin, Version, VersionState
from custody.signing.recording import record_next
from custody.signing.replacing import lock_as_it_was, rebuildable, replaceable
from custody.signing.requests import Payee, read_request
from custody.storage.db import Database, Tx
from custody.sweeps import repository as sweeps
from custody.sweeps.model import Rotated
from custody.withdrawals.destinations import destination_of
from policies.intent import Kind


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database said, at one moment."""

    transaction: OurTransaction
    newest: Version
    pinned: Sequence[SpendableCoin]
    others: Sequence[SpendableCoin]
    contested: Sequence[OurTransaction]
    """Others of ours that spend the same coins: what a rescue has to replace, too."""


def replace(db: Database, site: BtcSite, transaction_id: UUID, feerate: int | None) -> int:
    """Record a replacement at a feerate (sat/kvB), or at the present estimate; see `custody.signing.bump`."""
    with db.snapshot() as tx:
        transaction = replaceable(tx, site, transaction_id)
        newest = transaction.newest_signed
        assert newest is not None
        found = _find(tx, site, transaction, newest)
    return _replace(db, site, found, feerate)


def rebuild(db: Database, site: BtcSite, transaction_id: UUID, feerate: int | None, *, now: int) -> int:
    """Record what takes the place of a version that was not signed in time, and a new request with it. It spends all
    that every earlier version does, so whatever holders have signed, one of all can confirm.

    Args:
        db: the database, as the workers' role.
        site: a vault.
        transaction_id: its transaction.
        feerate: sat/kvB; None: the present estimate. In any case so much that it replaces the version before, which
            may be out.
        now: UNIX seconds.

    Returns:
        The version's number.

    Raises:
        BumpRefused: see `custody.signing.replacing.rebuildable`; or no fee within the limits replaces the last one.
        Raced, NodeUnavailable, DatabaseUnavailable, Conflict: nothing was recorded.
    """
    with db.snapshot() as tx:
        transaction = rebuildable(tx, site, transaction_id, now=now)
        newest = [each for each in transaction.versions if each.state is not VersionState.REFUSED][-1]
        found = _find(tx, site, transaction, newest)
    return _replace(db, site, found, feerate)


def _replace(db: Database, site: BtcSite, found: _Found, feerate: int | None) -> int:
    target = None if feerate is None else FeeRate(feerate)
    payees = _payees(found.newest, site)
    present = FeeRate(found.newest.feerate)
    if target is not None and target <= present:
        raise BumpRefused(f"it pays {present} already: a replacement must pay more than that, not {target}")
    target = target if target is not None else present_feerate(site)[0]
    selection = _choose(site, found, payees, target)
    by_resource = {coin.resource: coin for coin in (*found.pinned, *found.others)}
    previous = fetch_previous(site, [by_resource[coin.resource] for coin in selection.coins])
    if previous_bytes(selection, by_resource, previous) > MAX_PREVIOUS_BYTES:
        raise BumpRefused("its coins come from transactions too large to be shown to a signer together")
    return _record(db, site, found, payees, selection, by_resource, previous)


def _find(tx: Tx, site: BtcSite, transaction: OurTransaction, newest: Version) -> _Found:
    txids = [version.txid for version in transaction.versions if version.txid is not None]
    if coins.spends_outputs_of(tx, site.chain, txids):
        raise BumpRefused("another transaction of ours spends its change")
    resources = sorted(newest.resources)
    pinned = coins.coins_of(tx, site.chain, resources)
    if len(pinned) != len(resources):
        raise BumpRefused("a reorg removed a coin that it spends")
    others = coins.spendable(tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks)
    contested = _rivals(tx, site, transaction)
    return _Found(transaction, newest, pinned, others, contested)


def _rivals(tx: Tx, site: BtcSite, transaction: OurTransaction) -> Sequence[OurTransaction]:
    if transaction.kind != Kind.ROTATION:
        return ()
    resources = sorted(transaction.versions[-1].resources)
    found = repository.contenders(tx, site.chain, resources)
    return [each for each in found if each.id != transaction.id]


def _payees(version: Version, site: BtcSite) -> tuple[Payee, ...]:
    """The payments of a version, from its own request: the same orders word for word."""
    request = read_request(version.request)
    return tuple(
        Payee(signed, destination_of(site.bundle, signed.order.chain, signed.order.destination))
        for signed in request.evidence.orders
    )


def _choose(site: BtcSite, found: _Found, payees: Sequence[Payee], target: FeeRate) -> Selection:
    """The cheapest choice that nodes take as a replacement, within the orders' ceilings and the caps."""
    told = site.asset.told
    kind, [*intents] = found.transaction.kind, read_request(found.newest.request).intents
    refill = kind == Kind.REFILL
    ceiling = int(site.network.fee_cap) if refill else sum(payee.fee_ceiling for payee in payees)
    limit = min(ceiling, int(site.network.fee_cap))
    # What was asked for may be signed, and in others' mempools.
    signed = [v for v in found.transaction.versions if v.state is not VersionState.REFUSED]
    rivals = [rival(site, each) for each in found.contested]
    # Mempools have either what it replaces, or itself.
    old_fee = max(*(v.fee_units for v in signed), sum(each.fee_sats for each in rivals))
    old_feerate = max(*(FeeRate(v.feerate) for v in signed), *(each.feerate for each in rivals), FeeRate(0))
    incremental = max(site.node.incremental_feerate(), FeeRate(1_000))
    feerate = max(target, FeeRate(old_feerate.sat_per_kvb + 1))
    if kind in (Kind.CONSOLIDATION, Kind.ROTATION, Kind.CANCELLATION):
        return replaced(
            site,
            found.pinned,
            feerate,
            _made(found.newest),
            old_fee_sats=old_fee,
            old_feerate=old_feerate,
            incremental=incremental,
        )
    while True:
        if feerate > site.feerate_cap:
            raise BumpRefused(f"a replacement needs {feerate}, the cap is {site.feerate_cap}")
        try:
            selection = (
                choose_for_move(
                    site, intents[0], found.others, feerate, max_fee_sats=limit, pinned=found.pinned
                )
                if refill
                else choose(payees, found.others, feerate, site, max_fee_sats=limit, pinned=found.pinned)
            )
        except FeeAboveLimit as error:
            raise BumpRefused(
                f"at {feerate} the fee would be {told(error.fee_sats)}; the orders allow {told(ceiling)} together,"
                f" the network's cap is {told(int(site.network.fee_cap))}"
            ) from error
        except (InsufficientFunds, TooManyInputs) as error:
            raise BumpRefused(f"no coins for a higher fee: {error}") from error
        needed = minimum_replacement_fee(old_fee, old_feerate, selection.vsize_vb, incremental)
        if selection.fee_sats >= needed:
            return selection
        # The least rate at which this size pays what is needed; strictly higher each time, so this ends.
        wanted = -(-needed * 1000 // selection.vsize_vb)
        if wanted > MAX_SAT_PER_KVB:
            raise BumpRefused(f"a replacement needs {needed} sats of fee")
        feerate = max(FeeRate(wanted), FeeRate(feerate.sat_per_kvb + 1))


def _made(version: Version) -> Lock:
    """The one output of a consolidation or rotation."""
    asked = parse_psbt(base64.b64decode(read_request(version.request).transaction))
    [output] = asked.tx.outputs
    return lock_of(output.script, asked.output_scripts[0])


def _record(
    db: Database,
    site: BtcSite,
    found: _Found,
    payees: Sequence[Payee],
    selection: Selection,
    by_resource: dict[str, SpendableCoin],
    previous: dict[str, bytes],
) -> int:
    transaction = found.transaction
    added = sorted({coin.resource for coin in selection.coins} - {coin.resource for coin in found.pinned})
    number = transaction.versions[-1].version + 1
    with db.transaction() as tx:
        current = lock_as_it_was(tx, site, transaction)
        mined = repository.consumptions(tx, site.chain, [coin.resource for coin in found.pinned])
        txids = [version.txid for version in current.versions if version.txid is not None]
        if mined or coins.spends_outputs_of(tx, site.chain, txids):
            raise Raced(f"transaction {transaction.id} was mined meanwhile, or its change is spent")
        if not coins.still_spendable(
            tx, site.chain, site.wallet.id, site.asset.id, site.network.settle_blocks, added
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        change_index = current.change_index
        if selection.change_sats is None or transaction.kind == Kind.ROTATION:
            change_index = None
        elif change_index is None:
            change_index = change.allocate(tx, site.wallet, site.asset.id, site.outputs)
            repository.set_change_index(tx, transaction.id, change_index)
        request = read_request(found.newest.request)
        intents = request.intents
        if transaction.kind == Kind.ROTATION:
            asked = parse_psbt(base64.b64decode(request.transaction))
            to = ScriptKeys(asked.output_scripts[0], asked.output_keys[0])
            built = assemble_rotation(site, intents, found.pinned, previous, selection.fee_sats, to)
        elif transaction.kind == Kind.REFILL:
            to = behind_destination(site, intents[0], request)
            built = assemble_move(site, intents[0], to, selection, by_resource, previous, change_index)
        else:
            built = assemble(site, payees, intents, selection, by_resource, previous, change_index)
        if not found.newest.resources <= set(built.resources):
            raise BumpRefused("the replacement would drop an input of an earlier version")
        if not reservations.reserve(tx, site.chain, added, transaction.id):
            raise Raced("a coin was reserved meanwhile")
        record_next(tx, site, transaction.id, number, built)
        if transaction.kind == Kind.ROTATION:
            moved = sweeps.rotated(tx, transaction.id)
            left = sum(coin.units for coin in found.pinned) - selection.fee_sats
            sweeps.record_rotated(tx, transaction.id, number, Rotated(moved.target, moved.asset, left))
    return number


def stuck(db: Database, site: BtcSite) -> Sequence[tuple[UUID, int | None]]:
    """What has waited for blocks below the present estimate, and that estimate (sat/kvB); and rescues that pay less
    than what mempools have in their place (None: whatever that takes)."""
    with db.snapshot() as tx:
        waiting = repository.unconfirmed_for(tx, site.chain, site.wallet.id, site.pace.bump_after_blocks)
        leisurely = _consolidations(tx, waiting)
        rescues = _rescues(tx, site, waiting)
    if not waiting:
        return ()
    feerate, _ = present_feerate(site)
    if feerate.sat_per_kvb <= site.pace.long_term_sat_per_kvb:
        leisurely = frozenset()
    behind: list[tuple[UUID, int | None]] = [
        (transaction_id, feerate.sat_per_kvb)
        for transaction_id, paid in waiting
        if paid < feerate.sat_per_kvb and transaction_id not in leisurely
    ]
    enough = {transaction_id for transaction_id, _ in behind}
    outbid = [each for each in rescues if each.transaction.id not in enough and _outbid(site, each)]
    return [*behind, *((each.transaction.id, None) for each in outbid)]


@dataclass(frozen=True, slots=True)
class _Rescue:
    transaction: OurTransaction
    rivals: Sequence[OurTransaction]


def _rescues(tx: Tx, site: BtcSite, waiting: Sequence[tuple[UUID, int]]) -> Sequence[_Rescue]:
    """Those of what waits that replace payments."""
    if not site.rescuing:
        return ()
    found = (repository.find(tx, transaction_id) for transaction_id, _ in waiting)
    return [_Rescue(each, _rivals(tx, site, each)) for each in found if each is not None]


def _outbid(site: BtcSite, rescue: _Rescue) -> bool:
    """Whether what our node has in its place pays more: somebody has raised that since the rescue was built."""
    pays = max(version.fee_units for version in rescue.transaction.versions)
    return sum(rival(site, each).fee_sats for each in rescue.rivals) >= pays


def _consolidations(tx: Tx, waiting: Sequence[tuple[UUID, int]]) -> frozenset[UUID]:
    """Those that pay nobody: made because fees were low, they wait until fees are low again."""
    found = (repository.find(tx, transaction_id) for transaction_id, _ in waiting)
    return frozenset(each.id for each in found if each is not None and each.kind == Kind.CONSOLIDATION)
