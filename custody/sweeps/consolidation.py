"""Which small coins to gather into one, and when. Pure.

A coin that waits costs nothing until it is spent. Spending it while fees are low saves what it would cost later, and
keeps the wallet able to pay: a transaction holds so many coins and no more. But coins in a consolidation cannot pay
anybody until it is mined. So payments come first, and half of the wallet's money always stays out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chains.btc.fees import FeeRate
from chains.btc.script import Lock
from custody.signing.btc.consolidate import least_change_sats, merged
from custody.signing.model import SpendableCoin
from custody.sweeps.model import SweepPace


@dataclass(frozen=True, slots=True)
class Means:
    """What a consolidation must leave and may cost, in satoshis."""

    needed_sats: int
    """What withdrawals on their way and open refills ask for together, with fees, and what customers took lately in the
    time that a consolidation may wait for its block."""
    fee_cap_sats: int
    """Most that a signer signs."""
    feerate: FeeRate
    """At present."""
    long_term: FeeRate
    """What spending a coin is expected to cost at leisure."""
    lock: Lock
    """How the wallet locks coins."""


def choose(coins: Sequence[SpendableCoin], means: Means, pace: SweepPace) -> tuple[SpendableCoin, ...]:
    """The coins to gather now, smallest first; none if that does not pay or payments could miss them.

    The same arguments in any order give the same answer.

    Args:
        coins: all that may be spent now.
        means: fees, and what payments need.
        pace: what is small, how many are many.
    """
    if means.feerate > means.long_term:
        return ()
    own = means.feerate.fee_for_weight(means.lock.input_wu)
    small = sorted(
        (coin for coin in coins if own < coin.units <= pace.small_coin_sats),
        key=lambda coin: (coin.units, coin.resource),
    )
    if len(small) <= pace.consolidate_above_coins:
        return ()
    total = sum(coin.units for coin in coins)
    may_take = min(total // 2, total - means.needed_sats)
    chosen: list[SpendableCoin] = []
    taken = 0
    for coin in small[: pace.max_inputs]:
        if taken + coin.units > may_take:
            break
        if merged(len(chosen) + 1, means.feerate, means.lock, means.lock).fee_sats > means.fee_cap_sats:
            break
        chosen.append(coin)
        taken += coin.units
    return tuple(chosen) if pays(chosen, means) else ()


def pays(chosen: Sequence[SpendableCoin], means: Means) -> bool:
    """Whether it costs less than spending each of the coins later would, and leaves a coin worth having."""
    if len(chosen) < 2:
        return False
    found = merged(len(chosen), means.feerate, means.lock, means.lock)
    later = means.long_term.fee_for_weight(means.lock.input_wu)
    left = sum(coin.units for coin in chosen) - found.fee_sats
    return found.fee_sats + later < len(chosen) * later and left >= least_change_sats(
        means.long_term, means.lock
    )
