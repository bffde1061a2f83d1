"""Flushing forwarders: what final flushes left is looked at, and new flushes are recorded, signed later like payments.

A deposit that comes to a forwarder between plan and flush is moved with the rest, whatever screening will say of it: a
flush takes all there is. The books do not change by that. The wallet is the key's address and all forwarders together,
the deposit keeps its own state, and is credited, held or returned as it would be had it stayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from chains.errors import Reorganised
from chains.eth import gas
from chains.eth.address import raw_address
from chains.eth.call import Reverted
from chains.eth.forwarder import flush_calldata, salt_of
from chains.eth.gas import FeeOffer, GasPrice
from chains.types import BlockRef
from custody.deposits.lifecycle import DepositEvent
from custody.ids import new_id
from custody.reconcile.factories import diverting, flushing
from custody.signing import repository as transactions
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import offer_for, too_high
from custody.signing.evm.site import EvmSite
from custody.signing.recording import record_first
from custody.signing.requests import house_intent
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.sweeps import repository
from custody.sweeps.lifecycle import SweepEvent, SweepState
from custody.sweeps.model import Batch, Candidate, Item, SweepPace, Terms
from custody.sweeps.permission import DEPOSITS, NotPermitted, moved_by, permitted, tell
from custody.sweeps.planner import Market, apart, least_units, plan, singly
from custody.sweeps.settling import gone
from custody.withdrawals import windows
from policies.bundle import Bundle, EvmKeyset
from policies.decision import Reason
from policies.facts import Operation
from policies.intent import Kind

NO_GAS: Final = "sweep.no_gas"
WOULD_REVERT: Final = "sweep.would_revert"
LEFT_BEHIND: Final = "sweep.left_behind"
DIVERTED: Final = "sweep.diverted"
MAX_LOOKED_AT: Final = 20
"""So many batches are tried in one go; each takes a few questions to the node."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database said, at one moment."""

    candidates: Sequence[Candidate]
    needed: frozenset[str]
    committed: Committed
    anchor: BlockRef


@dataclass(frozen=True, slots=True)
class _Fitted:
    """A flush within all limits."""

    batch: Batch
    draft: Draft
    gas_limit: int
    offer: FeeOffer


def flush(db: Database, site: EvmSite, pace: SweepPace, now: int) -> int:
    """Look at what final flushes left, then record what is due; returns how many of both.

    Whom a factory pays flushes its forwarders, and has the gas for it: the active key also those of key-sets before it,
    once their deposits were turned to it; then those leave them alone.

    Args:
        db: the database, as the worker's role.
        site: the hot wallet.
        pace: how much, how often.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; what was recorded before stays.
    """
    done = 0
    try:
        done += look_back(db, site)
        for keyset in _paying(site):
            for _ in range(pace.max_open):
                if _record_next(db, site, keyset, pace, now) is None:
                    break
                done += 1
    except (Raced, Reorganised):
        pass  # another worker was quicker, or the chain moves: the next call looks again
    return done


def _paying(site: EvmSite) -> Sequence[EvmKeyset]:
    """Key-sets whose forwarders pay this key, by the chain's word; its own first."""
    chain, own = site.chain, site.wallet.id
    flows = flushing(site.bundle, chain, site.node)
    keysets = [each for each in site.bundle.keysets if isinstance(each, EvmKeyset) and each.chain == chain]
    found = [each for each in keysets if flows.get(each.id, each.id) == own]
    if site.wallet.state != "active":
        return [each for each in found if each.id == own]
    return sorted(found, key=lambda each: (each.id != own, each.id))


def look_back(db: Database, site: EvmSite) -> int:
    """Ask the node what final flushes have left, and mark the deposits that are gone; returns how many flushes it was.

    Raises:
        NodeUnavailable, Reorganised, Raced: nothing was marked.
    """
    with db.snapshot() as tx:
        items = repository.to_look_at(tx, site.chain, site.wallet.id)
        anchor = _anchor(tx, site)
    if not items or anchor is None:
        return 0
    left = _balances(site, [(item.address_id, item.asset, address) for _, item, address in items], anchor)
    with db.transaction() as tx:
        if repository.to_look_at(tx, site.chain, site.wallet.id) != items:
            raise Raced("another worker has looked, or a reorg has undone a sweep, meanwhile")
        moved = _mark(tx, site.chain, left, anchor)
        for sweep_id, item, address in items:
            place = (item.address_id, item.asset)
            stayed = left[place] if item.units and not moved[place] else 0
            repository.close_item(tx, sweep_id, *place, left_units=stayed)
            _tell_of_what_stayed(tx, site.bundle, sweep_id, item, address, stayed)
    return len({sweep_id for sweep_id, _, _ in items})


def _tell_of_what_stayed(
    tx: Tx, bundle: Bundle, sweep_id: UUID, item: Item, address: str, stayed: int
) -> None:
    subject = f"{address}:{item.asset}"
    if not stayed:
        alerts.resolve_alert(tx, LEFT_BEHIND, subject)
        return
    told = bundle.told(item.asset, stayed)
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        LEFT_BEHIND,
        subject,
        f"sweep {sweep_id} is final, and {address} still has {told}: the token refuses to"
        " move them (paused, or the address is on its blacklist). The next attempt waits, longer each time",
        {"sweep": str(sweep_id), "asset": item.asset, "units": str(stayed)},
    )


def _record_next(db: Database, site: EvmSite, of: EvmKeyset, pace: SweepPace, now: int) -> UUID | None:
    """Record the most urgent flush that is due and can be made; None if there is none."""
    price = site.node.gas_price()
    if too_high(site, price) is not None:
        return None
    wei = max(price.now_wei, site.network.feerate_floor)
    market, terms = Market(wei, pace.long_term_wei_per_gas), _terms(site)
    found = _find(db, site, of, pace, least_units(terms, market, site.asset.id))
    if found is None or _diverted(db, site):
        return None
    available = funds.available(site, found.committed, ())[site.asset.id]
    batches = plan(
        found.candidates,
        terms,
        market,
        pace,
        native=site.asset.id,
        gas_cap=_most_gas(site, wei),
        shared_gas_cap=_expected(available // (gas.BASE_FEE_HEADROOM * wei)),
        now=now,
        needed=found.needed,
    )
    for batch in batches[:MAX_LOOKED_AT]:
        there = _still_there(db, site, batch, found.anchor)
        for fitted in _fit(db, site, of, there, price, market) if there is not None else ():
            cost = fitted.gas_limit * fitted.offer.max_fee_wei
            if cost > available:
                # A flush that its sender cannot pay for would wait in front of every payment.
                _lacks_gas(db, site, cost, available)
                return None
            if _brings_more_than_it_costs(site, fitted, wei):
                try:
                    return _record(db, site, fitted, found.committed, now)
                except NotPermitted as denied:
                    with db.transaction() as tx:
                        tell(tx, site, Operation.SWEEP, denied)
    return None


def _diverted(db: Database, site: EvmSite) -> bool:
    """Whether a factory of the chain pays no hot key of ours: then nothing is flushed at all, and somebody is told."""
    told = diverting(site.bundle, site.chain, site.node)
    with db.transaction() as tx:
        if not told:
            alerts.resolve_alert(tx, DIVERTED, site.chain)
        else:
            message = f"nothing is swept on {site.chain}: {'; '.join(told)}"[:1000]
            alerts.raise_alert(tx, Severity.CRITICAL, DIVERTED, site.chain, message, {})
    return bool(told)


def _find(
    db: Database, site: EvmSite, of: EvmKeyset, pace: SweepPace, least: Mapping[str, int]
) -> _Found | None:
    with db.snapshot() as tx:
        chain, keyset = site.chain, site.wallet.id
        if site.halted(tx) is not None:
            return None
        if repository.open_count(tx, chain, keyset, Kind.SWEEP) >= pace.max_open:
            return None
        if nonces.unconfirmed(tx, chain, keyset) >= site.pace.unconfirmed_at_most:
            return None
        committed, anchor = funds.committed(tx, site), _anchor(tx, site)
        if committed is None or anchor is None:
            return None
        candidates = repository.candidates(tx, chain, of.id, anchor.height, least, native=site.asset.id)
        if not candidates:
            return None
        needed = repository.needed(tx, chain)
        # What a payment lacks may be its gas.
        return _Found(candidates, needed | {site.asset.id} if needed else needed, committed, anchor)


def _anchor(tx: Tx, site: EvmSite) -> BlockRef | None:
    """The newest final block, as the monitor has committed it."""
    height = transactions.anchor(tx, site.chain)
    if height is None or height < 0:
        return None
    row = tx.optional("SELECT hash FROM blocks WHERE chain = %s AND height = %s", [site.chain, height])
    return None if row is None else BlockRef(height, row["hash"])


def _most_gas(site: EvmSite, wei_per_gas: int) -> int:
    """What a flush may be expected to take: its limit is a third more, and has its caps, in gas and in money."""
    return _expected(min(site.network.gas_caps.sweep, int(site.network.fee_cap) // wei_per_gas))


def _expected(limit: int) -> int:
    """The gas that a flush with this limit may be expected to take."""
    return limit * gas.ESTIMATE_DENOMINATOR // gas.ESTIMATE_NUMERATOR


def _terms(site: EvmSite) -> Mapping[str, Terms]:
    """What may be swept. Tokens that take a fee on transfers stay: moving them loses some, and nothing is paid out of
    them."""
    return {
        entry.id: Terms(entry.id, max(int(entry.sweep_above), int(entry.minimum_deposit)), entry.contract)
        for entry in site.bundle.assets
        if entry.chain == site.chain and "fee-on-transfer" not in entry.traits
    }


def _balances(
    site: EvmSite, places: Sequence[tuple[int, str, str]], at: BlockRef
) -> dict[tuple[int, str], int]:
    """What addresses (id, asset, text) have at a block, by id and asset."""
    wanted = [(raw_address(text), site.bundle.asset(asset).contract) for _, asset, text in places]
    found = site.node.balances(wanted, at)
    return {(id, asset): units for (id, asset, _), units in zip(places, found, strict=True)}


def _mark(
    tx: Tx, chain: str, left: Mapping[tuple[int, str], int], anchor: BlockRef
) -> dict[tuple[int, str], tuple[UUID, ...]]:
    """Mark the credited deposits that have left their forwarders up to the anchor; returns them by address and asset.

    Quarantined and held ones that left keep their state, and are among those that have arrived for ever.
    """
    row = tx.optional(
        "SELECT 1 FROM blocks WHERE chain = %s AND height = %s AND hash = %s",
        [chain, anchor.height, anchor.hash],
    )
    if row is None:
        raise Raced("a reorg replaced the block that was asked about")
    arrived = repository.arrived(tx, [address_id for address_id, _ in left], anchor.height)
    left_them = {place: gone(arrived.get(place, ()), units) for place, units in left.items()}
    moved = repository.move_deposits(
        tx, [id for ids in left_them.values() for id in ids], DepositEvent.SWEEP, {}
    )
    return {place: tuple(id for id in ids if id in moved) for place, ids in left_them.items()}


def _still_there(db: Database, site: EvmSite, batch: Batch, anchor: BlockRef) -> Batch | None:
    """The batch without forwarders that somebody else has flushed; their deposits are marked. None if that is all."""
    places = [
        (candidate.address_id, asset, candidate.address)
        for candidate in batch.candidates
        for asset in (*batch.tokens, site.asset.id)
    ]
    left = _balances(site, places, anchor)
    short = {
        candidate.address_id
        for candidate in batch.candidates
        for asset in (*batch.tokens, site.asset.id)
        if left[candidate.address_id, asset] < candidate.units(asset)
    }
    if not short:
        return batch
    with db.transaction() as tx:
        _mark(tx, site.chain, {place: units for place, units in left.items() if place[0] in short}, anchor)
    kept = tuple(each for each in batch.candidates if each.address_id not in short)
    return replace(batch, candidates=kept) if kept else None


def _fit(
    db: Database, site: EvmSite, of: EvmKeyset, batch: Batch, price: GasPrice, market: Market
) -> Iterator[_Fitted]:
    """The batch with its gas limit and price; in parts where it would fail as a whole, without those that always do."""
    draft = _draft(site, of, batch)
    estimate = site.node.estimate_gas(draft.call(site.sender))
    # What a token refuses is left behind, so a flush may seem to succeed with too little gas for its tokens.
    limit = None if isinstance(estimate, Reverted) else gas.gas_limit(max(estimate, batch.gas), draft.gas_cap)
    if limit is None:
        by_tokens = apart(batch, site.asset.id)
        # A token that fails even where there is nothing of it must not keep the others, nor where there is some.
        smaller = by_tokens if len(by_tokens) > 1 else singly(batch, market, site.asset.id)
        for part in smaller:
            yield from _fit(db, site, of, part, price, market)
        if len(by_tokens) > 1 or len(batch.tokens) > 1:
            return
        if len(batch.candidates) == 1:
            why = estimate.reason if isinstance(estimate, Reverted) else f"it takes {estimate} gas"
            _would_revert(db, site, batch, why)
            return
        half = len(batch.candidates) // 2
        for half_of in (batch.candidates[:half], batch.candidates[half:]):
            part = replace(batch, candidates=half_of, gas=batch.gas // 2)
            yield from _fit(db, site, of, part, price, market)
        return
    offer = offer_for(site, price, limit, int(site.network.fee_cap))
    if not isinstance(offer, Reason):
        yield _Fitted(batch, draft, limit, offer)


def _draft(site: EvmSite, of: EvmKeyset, batch: Batch) -> Draft:
    contracts = [site.bundle.asset(asset).contract for asset in batch.tokens]
    tokens = [raw_address(contract) for contract in contracts if contract is not None]
    calldata = flush_calldata([salt_of(candidate.index) for candidate in batch.candidates], tokens)
    return Draft(raw_address(of.factory), 0, calldata, site.network.gas_caps.sweep)


def _brings_more_than_it_costs(site: EvmSite, fitted: _Fitted, wei_per_gas: int) -> bool:
    """The planner's rule again, with what the node says of the gas."""
    if fitted.batch.tokens:
        return True
    brought = sum(candidate.units(site.asset.id) for candidate in fitted.batch.candidates)
    return brought > _expected(fitted.gas_limit) * wei_per_gas


def _record(db: Database, site: EvmSite, fitted: _Fitted, seen: Committed, now: int) -> UUID:
    """The one database transaction that records the sweep, its items, its nonce, its transaction and its request.

    Raises:
        Raced: another worker was quicker, or something has changed: nothing was recorded.
        NotPermitted: the policy says no; nothing was recorded.
    """
    used = site.node.nonce(site.sender, site.node.tip())
    sweep_id, transaction_id = new_id(), new_id()
    batch = fitted.batch
    with db.transaction() as tx:
        if site.halted(tx) is not None:
            raise Raced("paying was halted meanwhile")
        nonce = nonces.take(tx, site.chain, site.account, used=used)
        # Whoever takes a nonce waits for the one before, so money that is on its way is counted by everybody.
        if funds.committed(tx, site) != seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        addresses = [candidate.address_id for candidate in batch.candidates]
        if repository.doubtful(tx, addresses, (*batch.tokens, site.asset.id)):
            raise Raced("a deposit to one of the forwarders is held meanwhile")
        items = batch.items(site.asset.id)
        decision = permitted(tx, site, Operation.SWEEP, DEPOSITS, moved_by(items), now=now)
        intent = house_intent(site, Kind.SWEEP, str(sweep_id), site.wallet.address)
        built = assemble(
            site, fitted.draft, (intent,), (), nonce=nonce, gas_limit=fitted.gas_limit, offer=fitted.offer
        )
        why = ", ".join(sorted(batch.reasons))
        if not repository.insert(tx, sweep_id, site.chain, site.wallet.id, Kind.SWEEP, why, items):
            raise Raced("another sweep has claimed one of the forwarders")
        repository.record_decision(tx, sweep_id, decision.record)
        windows.count(tx, sweep_id, decision.counts)
        record_first(tx, site, transaction_id, Kind.SWEEP, built)
        repository.attach(tx, sweep_id, transaction_id)
        detail = {"transaction": str(transaction_id), "forwarders": len(batch.candidates)}
        repository.apply(tx, sweep_id, SweepState.PLANNED, SweepEvent.RECORD, detail=detail)
        alerts.resolve_alert(tx, NO_GAS, site.wallet.id)
        for candidate in batch.candidates:
            for asset in batch.tokens or (site.asset.id,):
                alerts.resolve_alert(tx, WOULD_REVERT, f"{candidate.address}:{asset}")
    return sweep_id


def _lacks_gas(db: Database, site: EvmSite, cost: int, available: int) -> None:
    told = site.asset.told
    with db.transaction() as tx:
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            NO_GAS,
            site.wallet.id,
            f"a sweep may cost {told(cost)}, {site.wallet.address} can pay {told(available)}: nothing is swept before"
            " there is more. Send some to it, or wait for what is on its way",
            {"needed_units": str(cost), "available_units": str(available), "asset": site.asset.id},
        )


def _would_revert(db: Database, site: EvmSite, batch: Batch, reason: str) -> None:
    """Tell of one forwarder, and of the one asset for which it was to be flushed."""
    [candidate] = batch.candidates
    asset = batch.tokens[0] if batch.tokens else site.asset.id
    with db.transaction() as tx:
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            WOULD_REVERT,
            f"{candidate.address}:{asset}",
            f"forwarder {candidate.index} ({candidate.address}) cannot be flushed of {asset}: {reason}"[
                :1000
            ],
            {"address": candidate.address, "asset": asset},
        )
