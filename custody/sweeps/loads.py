"""Which coins move together when a key-set is emptied, and at which fee. Pure.

A transaction dies with any one of its inputs. So a rescue is many small transactions side by side: a thief who spends
one coin spoils a few others, for as long as it takes to record them anew. What unconfirmed payments of the old keys
spend is taken along with the payment's other coins, so that each payment is replaced, and paid for, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.fees import MAX_EVICTED, FeeRate
from chains.btc.script import Lock
from custody.signing.btc.consolidate import merged
from custody.signing.btc.rivals import Rival, replacing_fee
from custody.signing.model import SpendableCoin


@dataclass(frozen=True, slots=True)
class Terms:
    """What moving coins costs, and may cost."""

    feerate: FeeRate
    """At present."""
    incremental: FeeRate
    """What nodes ask for the relay of a replacement."""
    fee_cap_sats: int
    feerate_cap: FeeRate
    """Beyond either no signer signs."""
    spent: Lock
    made: Lock
    most_coins: int
    """In one transaction."""

    @property
    def coin_fee_sats(self) -> int:
        """What one more coin costs."""
        return self.feerate.fee_for_weight(self.spent.input_wu)


@dataclass(frozen=True, slots=True)
class Load:
    """What one transaction moves."""

    coins: tuple[SpendableCoin, ...]
    """The most valuable first."""
    rivals: tuple[Rival, ...] = ()
    """Unconfirmed transactions of ours that it replaces."""

    @property
    def units(self) -> int:
        """Satoshis of all its coins."""
        return sum(coin.units for coin in self.coins)

    @property
    def evicted(self) -> int:
        """How many transactions it pushes out of mempools."""
        return sum(each.evicted for each in self.rivals)

    def of(self, coins: Iterable[SpendableCoin]) -> Load:
        """Some of its coins, with the rivals that spend any of these."""
        chosen = tuple(coins)
        resources = {coin.resource for coin in chosen}
        return Load(chosen, tuple(each for each in self.rivals if each.resources & resources))

    def without(self, rival: Rival) -> Load:
        """All but the coins of one rival."""
        return self.of(coin for coin in self.coins if coin.resource not in rival.resources)

    def fee_sats(self, terms: Terms) -> int:
        """What it has to pay."""
        size = merged(len(self.coins), terms.feerate, terms.spent, terms.made)
        return max(size.fee_sats, replacing_fee(self.rivals, size.vsize_vb, terms.incremental))

    def most_sats(self, terms: Terms) -> int:
        """What it may pay."""
        size = merged(len(self.coins), terms.feerate, terms.spent, terms.made)
        return min(terms.fee_cap_sats, terms.feerate_cap.fee_for(size.vsize_vb))


def loads(coins: Sequence[SpendableCoin], rivals: Sequence[Rival], terms: Terms) -> list[Load]:
    """Everything that is worth moving, the most valuable first.

    What contests payments is apart from all else: the payments may win, or be made too dear to replace. Only where a
    contest needs more weight to stay below the feerate cap, the least valuable coins go with it.

    Args:
        coins: all that may be spent now.
        rivals: unconfirmed transactions of ours that spend some of them.
        terms: fees and caps.
    """
    parts = sorted(_parts(coins, rivals, terms), key=lambda each: (-each.units, each.coins[0].resource))
    free = [part.coins[0] for part in parts if not part.rivals]
    found = [_weighted(part, free, terms) for part in parts if part.rivals]
    most = terms.most_coins
    found += [Load(tuple(free[start : start + most])) for start in range(0, len(free), most)]
    return sorted(found, key=lambda each: -each.units)


def fitted(load: Load, terms: Terms) -> tuple[Load, tuple[Rival, ...]]:
    """As much of a load as caps and nodes let through, and the rivals whose replacement they forbid. It may be
    nothing."""
    forbidden: list[Rival] = []
    while load.coins and (load.fee_sats(terms) > load.most_sats(terms) or load.evicted > MAX_EVICTED):
        dearest = max(load.rivals, key=lambda each: (each.fee_sats, each.evicted), default=None)
        if dearest is not None and (dearest.fee_sats or load.evicted > MAX_EVICTED):
            forbidden.append(dearest)
            load = load.without(dearest)
        else:
            load = load.of(load.coins[:-1])
    return load, tuple(forbidden)


def _weighted(contest: Load, free: list[SpendableCoin], terms: Terms) -> Load:
    """A contest with as many of the last free coins as its feerate needs; those are taken out of `free`."""
    added: list[SpendableCoin] = []
    load = contest
    while terms.fee_cap_sats >= load.fee_sats(terms) > load.most_sats(terms):
        if not free or len(load.coins) >= terms.most_coins:
            free += reversed(added)
            return contest
        added.append(free.pop())
        load = Load((*contest.coins, *added), contest.rivals)
    return load


def _parts(coins: Sequence[SpendableCoin], rivals: Sequence[Rival], terms: Terms) -> list[Load]:
    """Each coin, or all coins that common rivals spend, unless it is worth less than it costs."""
    worth = {coin.resource: coin for coin in coins if coin.units > terms.coin_fee_sats}
    users: dict[str, list[Rival]] = {}
    for each in rivals:
        for resource in each.resources & worth.keys():
            users.setdefault(resource, []).append(each)
    parts = [Load((coin,)) for resource, coin in worth.items() if resource not in users]
    while users:
        parts.append(_together(next(iter(users)), worth, users))
    return [
        part
        for part in parts
        if part.units > len(part.coins) * terms.coin_fee_sats + sum(each.fee_sats for each in part.rivals)
    ]


def _together(first: str, worth: Mapping[str, SpendableCoin], users: dict[str, list[Rival]]) -> Load:
    """A coin, what spends it, which other coins that spends, and so on; those are taken out of `users`."""
    found: list[SpendableCoin] = []
    involved: dict[UUID, Rival] = {}
    waiting = [first]
    while waiting:
        resource = waiting.pop()
        spenders = users.pop(resource, None)
        if spenders is None:
            continue
        found.append(worth[resource])
        for each in spenders:
            if each.transaction.id not in involved:
                involved[each.transaction.id] = each
                waiting += sorted(each.resources & worth.keys())
    found.sort(key=lambda coin: (-coin.units, coin.resource))
    return Load(tuple(found), tuple(involved.values()))
