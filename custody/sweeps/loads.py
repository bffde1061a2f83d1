"""Which coins move together when a key-set is emptied, and at which fee. Pure.

A transaction dies with any one of its inputs. So a rescue is many small transactions side by side: a thief who spends
one coin spoils a few others, for as long as it takes to record them anew. What unconfirmed payments of the old keys
spend is taken along with the payment's other coins, so that each payment is replaced, and paid for, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chains.btc.fees import MAX_EVICTED, FeeRate
from chains.btc.script import KEY_INPUT_WU, KeyScript
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
    spent: KeyScript
    made: KeyScript
    most_coins: int
    """In one transaction."""

    @property
    def coin_fee_sats(self) -> int:
        """What one more coin costs."""
        return self.feerate.fee_for_weight(KEY_INPUT_WU[self.spent])


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
    """Everything that is worth moving, the most valuable first, in as few transactions as hold it.

    Args:
        coins: all that may be spent now.
        rivals: unconfirmed transactions of ours that spend some of them.
        terms: fees and caps.
    """
    found: list[Load] = []
    for part in sorted(_parts(coins, rivals, terms), key=lambda each: (-each.units, each.coins[0].resource)):
        last = found[-1] if found else None
        if (
            last is not None
            and len(last.coins) + len(part.coins) <= terms.most_coins
            and last.evicted + part.evicted <= MAX_EVICTED
        ):
            found[-1] = Load((*last.coins, *part.coins), (*last.rivals, *part.rivals))
        else:
            found.append(part)
    return found


def fitted(load: Load, terms: Terms) -> tuple[Load, tuple[Rival, ...]]:
    """As much of a load as the caps let through, and the rivals whose replacement they forbid. It may be nothing."""
    forbidden: list[Rival] = []
    while load.coins and load.fee_sats(terms) > load.most_sats(terms):
        dearest = max(load.rivals, key=lambda each: each.fee_sats, default=None)
        if dearest is not None and dearest.fee_sats:
            forbidden.append(dearest)
            load = load.without(dearest)
        else:
            load = load.of(load.coins[:-1])
    return load, tuple(forbidden)


def _parts(coins: Sequence[SpendableCoin], rivals: Sequence[Rival], terms: Terms) -> list[Load]:
    """Each coin, or all coins that common rivals spend, unless it is worth less than it costs."""
    worth = [coin for coin in coins if coin.units > terms.coin_fee_sats]
    ordered = sorted(worth, key=lambda coin: (-coin.units, coin.resource))
    parts: list[Load] = []
    taken: set[str] = set()
    for coin in ordered:
        if coin.resource not in taken:
            part = _together(coin, ordered, rivals)
            taken |= {each.resource for each in part.coins}
            parts.append(part)
    return [
        part
        for part in parts
        if part.units > len(part.coins) * terms.coin_fee_sats + sum(each.fee_sats for each in part.rivals)
    ]


def _together(first: SpendableCoin, coins: Sequence[SpendableCoin], rivals: Sequence[Rival]) -> Load:
    """A coin, what spends it, which other coins that spends, and so on."""
    resources, involved = {first.resource}, list[Rival]()
    worth = {coin.resource for coin in coins} if rivals else set[str]()
    while more := [each for each in rivals if each not in involved and each.resources & resources]:
        involved += more
        resources |= worth & frozenset[str]().union(*(each.resources for each in more))
    if not involved:
        return Load((first,))
    return Load(tuple(coin for coin in coins if coin.resource in resources), tuple(involved))
