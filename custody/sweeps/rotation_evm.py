"""Rotation of an account: every listed token that a key's address has, and of the native asset what its own gas does
not need, goes to the active key.

A planned rotation waits for its turn: its nonces come after those of payments, and tokens go first, while there is gas.
A rescue begins at the first nonce that no block has used, at a price at which nodes drop the payment that has it; with
the native asset, which whatever the payment leaves could not pay for any more. Nonces of payments that are left are
used up by rotations of next to nothing, so that none of them waits for ever.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from chains.eth import gas
from chains.eth.address import raw_address
from chains.eth.call import Reverted
from chains.eth.erc20 import transfer_calldata
from chains.eth.gas import TRANSFER_GAS, FeeOffer, GasPrice
from chains.eth.tx import UnsignedTx, nonce_resource
from custody.ids import new_id
from custody.signing import repository as transactions
from custody.signing.errors import Raced
from custody.signing.evm import funds, nonces
from custody.signing.evm.assemble import Draft, assemble
from custody.signing.evm.funds import Committed
from custody.signing.evm.plan import offer_for, too_high
from custody.signing.evm.site import EvmSite
from custody.signing.model import OurTransaction, VersionState
from custody.signing.requests import house_intent
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.sweeps import repository
from custody.sweeps.model import Item, Rotated
from custody.sweeps.rescue import overtake, tell_capped, tell_prices
from custody.sweeps.rotating import record
from policies import decision
from policies.bundle import AssetEntry, EvmKeyset
from policies.intent import Kind

NO_GAS: Final = "rotation.no_gas"
_HOUSE: Final = (1, 0)
"""Branch and index of an EVM key's own address."""
_NEXT_TO_NOTHING_WEI: Final = 1
"""What moves where only a nonce is to be used up."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """Where in the sender's queue a rotation goes, and what it finds there."""

    nonce: int | None
    """None: after all others."""
    rivals: tuple[OurTransaction, ...] = ()
    """What we may have signed with the same nonce."""

    @property
    def offered(self) -> FeeOffer | None:
        """The highest fees that rivals offer; None without any."""
        offers = [
            UnsignedTx.decode(version.unsigned)
            for each in self.rivals
            for version in each.versions
            if version.state is not VersionState.REFUSED
        ]
        if not offers:
            return None
        highest = max(tx.max_fee_per_gas_wei for tx in offers)
        return FeeOffer(highest, max(tx.max_priority_fee_per_gas_wei for tx in offers))


@dataclass(frozen=True, slots=True)
class _Short:
    """A rotation that its own key cannot pay."""

    asset: str
    cost_units: int
    """Of the native asset, what it moves of that included."""
    has_units: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """One rotation that can be made now."""

    draft: Draft
    limit: int
    offer: FeeOffer
    turn: _Turn
    used: int
    seen: Committed
    asset: str
    units: int
    items: tuple[Item, ...]


def rotate_account(db: Database, site: EvmSite, target: EvmKeyset) -> int:
    """Record what moves everything that can be moved now; returns how many transactions.

    Raises:
        Raced, Reorganised: another worker was quicker, or the chain moves; what was recorded before stays.
        NodeUnavailable, DatabaseUnavailable, Conflict: the same.
    """
    done = 0
    short: list[_Short] = []
    if site.rescuing:
        dear = too_high(site, site.node.gas_price())
        tell_prices(db, site, None if dear is None else dear.detail)
        _give_up_unpayable(db, site)
    for entry in _in_order(site):
        plan = _plan(db, site, target, entry)
        if isinstance(plan, _Short):
            short.append(plan)
        elif plan is not None:
            _record(db, site, target, plan)
            done += 1
    while site.rescuing:
        plan = _plan_of_nothing(db, site, target)
        if isinstance(plan, _Short):
            short.append(plan)
        if not isinstance(plan, _Plan):
            break
        _record(db, site, target, plan)
        done += 1
    _tell(db, site, short)
    return done


def _give_up_unpayable(db: Database, site: EvmSite) -> None:
    """A rotation that is next, and moves more than is left, e.g. after a reorg: all others would wait for it for
    ever."""
    tip = site.node.tip()
    used, [has] = site.node.nonce(site.sender, tip), site.node.balances([(site.sender, None)], tip)
    with db.snapshot() as tx:
        head = nonces.head(tx, site.chain, site.wallet.id)
        found = None if head is None else transactions.find(tx, head)
    if found is None or found.kind != Kind.ROTATION:
        return
    calls = [UnsignedTx.decode(version.unsigned) for version in found.versions]
    if calls[0].nonce != used or has >= min(call.value_wei + call.max_fee_wei for call in calls):
        return
    with db.transaction() as tx:
        overtake(tx, [found], f"{site.asset.told(has)} are left: it can move no more than that")


def _tell(db: Database, site: EvmSite, short: Sequence[_Short]) -> None:
    """Keys that pay nobody any more get no deposits to pay gas from: somebody must send them some."""
    with db.transaction() as tx:
        if not short:
            alerts.resolve_alert(tx, NO_GAS, site.wallet.id)
            return
        told, cost, has = site.asset.told, max(each.cost_units for each in short), short[0].has_units
        assets = ", ".join(dict.fromkeys(each.asset for each in short))
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            NO_GAS,
            site.wallet.id,
            f"moving {assets} away from {site.wallet.address} may cost {told(cost)}, it can pay {told(has)}: nothing"
            " moves before there is more. Send some to it, or wait for what is on its way",
            {"needed_units": str(cost), "available_units": str(has), "asset": site.asset.id},
        )


def _in_order(site: EvmSite) -> Sequence[AssetEntry]:
    """The chain's assets: tokens first while the gas is there, but in a rescue the native one."""
    assets = [entry for entry in site.bundle.assets if entry.chain == site.chain]
    return sorted(assets, key=lambda entry: (entry.contract is None) is not site.rescuing)


def _plan(db: Database, site: EvmSite, target: EvmKeyset, entry: AssetEntry) -> _Plan | _Short | None:
    """The call that moves an asset; None if there is too little of it, or it moves already, or fees are above caps."""
    used = site.node.nonce(site.sender, site.node.tip())
    price = site.node.gas_price()
    first = used
    while True:
        with db.snapshot() as tx:
            turn = _turn(tx, site, first)
            seen = funds.committed(tx, site, below=turn.nonce)
            house = repository.address_ids(tx, site.wallet.id, [_HOUSE]).get(_HOUSE)
            claimed = frozenset[str]() if house is None else repository.claimed(tx, house)
            waiting = _waiting(tx, site, used) if site.rescuing else 0
        if seen is None or house is None or entry.id in claimed:
            return None
        tokens = _tokens(site) - claimed
        has = funds.available(site, seen, {entry.id, *tokens})
        follow = sum(1 for token in tokens if has[token])
        draft = _draft(site, target, entry, has[entry.id], _kept(site, price, turn, follow, waiting))
        limit = None if draft is None else _limit(site, draft)
        if draft is None or limit is None:
            return None
        offer = _offer(site, price, turn, limit)
        if offer is not None or turn.nonce is None or not turn.rivals:
            break
        tell_capped(db, site, _told(turn, site, price))
        first = turn.nonce + 1
    if offer is None:
        return None
    cost, native = draft.value_wei + limit * offer.max_fee_wei, has[site.asset.id]
    if entry.contract is None and cost >= 2 * draft.value_wei:
        return None  # it would cost more than it moves
    if cost > native:
        return _Short(entry.id, cost, native)
    units = draft.value_wei if entry.contract is None else has[entry.id]
    items = (Item(house, entry.id, has[entry.id]),)
    return _Plan(draft, limit, offer, turn, used, seen, entry.id, units, items)


def _plan_of_nothing(db: Database, site: EvmSite, target: EvmKeyset) -> _Plan | _Short | None:
    """The call that does no more than use up the lowest nonce for which something of ours waits; None if nothing
    does."""
    used = site.node.nonce(site.sender, site.node.tip())
    price = site.node.gas_price()
    draft = Draft(raw_address(target.address), _NEXT_TO_NOTHING_WEI, b"", site.network.gas_caps.transfer)
    first = used
    while True:
        with db.snapshot() as tx:
            turn = _turn(tx, site, first)
            seen = funds.committed(tx, site, below=turn.nonce)
            last = nonces.highest(tx, site.chain, site.wallet.id)
        if seen is None or turn.nonce is None or turn.nonce > last:
            return None
        limit = _limit(site, draft)
        offer = None if limit is None else _offer(site, price, turn, limit)
        if limit is None:
            return None
        if offer is not None:
            break
        tell_capped(db, site, _told(turn, site, price))
        first = turn.nonce + 1
    cost, native = draft.value_wei + limit * offer.max_fee_wei, funds.available(site, seen, ())[site.asset.id]
    if cost > native:
        return _Short(site.asset.id, cost, native)
    return _Plan(draft, limit, offer, turn, used, seen, site.asset.id, draft.value_wei, ())


def _turn(tx: Tx, site: EvmSite, first: int) -> _Turn:
    if not site.rescuing:
        return _Turn(None)
    nonce = nonces.to_rescue(tx, site.chain, site.account, first=first)
    rivals = transactions.contenders(tx, site.chain, [nonce_resource(site.sender, nonce)])
    return _Turn(nonce, tuple(rivals))


def _waiting(tx: Tx, site: EvmSite, used: int) -> int:
    """How many nonces something of ours waits for that no rotation has yet."""
    last, found, first = nonces.highest(tx, site.chain, site.wallet.id), 0, used
    while (nonce := nonces.to_rescue(tx, site.chain, site.account, first=first)) <= last:
        found, first = found + 1, nonce + 1
    return found


def _tokens(site: EvmSite) -> frozenset[str]:
    """All that a rescue moves after the native asset."""
    if not site.rescuing:
        return frozenset()
    return frozenset(
        entry.id for entry in site.bundle.assets if entry.chain == site.chain and entry.contract is not None
    )


def _kept(site: EvmSite, price: GasPrice, turn: _Turn, tokens: int, waiting: int) -> int:
    """What stays of the native asset: what a transfer could cost at most, so that a replacement can pay more without
    moving less, and late deposits can still be moved; in a rescue, also the gas of all that follows it.
    """
    caps = site.network.gas_caps
    kept = min(int(site.network.fee_cap), caps.token * site.network.feerate_cap)
    if not site.rescuing:
        return kept
    offer = _offer(site, price, turn, TRANSFER_GAS)
    wei_per_gas = site.network.feerate_cap if offer is None else offer.max_fee_wei
    return kept + wei_per_gas * (tokens * caps.token + waiting * caps.transfer)


def _draft(site: EvmSite, target: EvmKeyset, entry: AssetEntry, units: int, kept: int) -> Draft | None:
    caps = site.network.gas_caps
    to = raw_address(target.address)
    if entry.contract is not None:
        if units < max(1, int(entry.minimum_deposit)):
            return None
        return Draft(raw_address(entry.contract), 0, transfer_calldata(to, units), caps.token, is_token=True)
    if units - kept < max(1, int(entry.minimum_deposit)):
        return None
    return Draft(to, units - kept, b"", caps.transfer)


def _limit(site: EvmSite, draft: Draft) -> int | None:
    """Its gas limit; None for a token that is paused, or whose issuer has frozen our address."""
    estimate = site.node.estimate_gas(draft.call(site.sender))
    return None if isinstance(estimate, Reverted) else gas.gas_limit(estimate, draft.gas_cap)


def _offer(site: EvmSite, price: GasPrice, turn: _Turn, limit: int) -> FeeOffer | None:
    """What nodes take in its turn; None if the caps do not allow it."""
    fee_cap = int(site.network.fee_cap)
    if turn.offered is not None:
        return gas.replacement(turn.offered, price, cap_wei=min(site.network.feerate_cap, fee_cap // limit))
    offer = offer_for(site, price, limit, fee_cap)
    return None if isinstance(offer, decision.Reason) else offer


def _told(turn: _Turn, site: EvmSite, price: GasPrice) -> Mapping[UUID, str]:
    offered = "nothing" if turn.offered is None else gas.told(turn.offered.max_fee_wei)
    why = (
        f"nonce {turn.nonce} is offered {offered} per gas, gas costs {gas.told(price.now_wei)},"
        f" the cap is {gas.told(site.network.feerate_cap)}"
    )
    return {each.id: why for each in turn.rivals}


def _record(db: Database, site: EvmSite, target: EvmKeyset, plan: _Plan) -> None:
    """The one database transaction that takes the nonce, if need be from payments, and records what uses it."""
    turn, sweep_id = plan.turn, new_id()
    with db.transaction() as tx:
        if Kind.ROTATION not in site.allowed(tx):
            raise Raced("paying was halted meanwhile")
        if turn.nonce is None:
            nonce = nonces.take(tx, site.chain, site.account, used=plan.used)
        else:
            nonces.lock(tx, site.chain, site.account, used=plan.used)
            if _turn(tx, site, turn.nonce) != turn:
                raise Raced("its turn was taken meanwhile")
            nonce = turn.nonce
        if funds.committed(tx, site, below=turn.nonce) != plan.seen:
            raise Raced("another transaction was recorded, or a block was read, meanwhile")
        overtake(tx, turn.rivals)
        intent = house_intent(site, Kind.ROTATION, str(sweep_id), target.address)
        built = assemble(site, plan.draft, (intent,), (), nonce=nonce, gas_limit=plan.limit, offer=plan.offer)
        record(tx, site, sweep_id, plan.items, built, Rotated(target.id, plan.asset, plan.units))
