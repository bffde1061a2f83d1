"""Which forwarders to flush now, in which transactions, and why. Pure.

A flush takes everything that a forwarder has of the tokens it names, and its native money. So a token of which a
deposit is held is not named, and a forwarder whose native money is in doubt is not touched at all. Nor are tokens named
that are not worth moving. Once an operator has quarantined a deposit, it moves with the rest: its place is decided.

What failed together is tried again one by one: native money alone, then each token. So a token that spoils every flush,
such as one that burns all gas only in a block, holds up itself.

Forwarders with the same tokens share a transaction. So do those with different ones where that costs less gas: each is
then asked for tokens of which it has nothing, which is cheaper than another transaction while they are few.

What an asset is worth: native money is compared with its own gas, exactly. A token has no price here. Its floor in the
bundle (`sweep_above`) says what is worth moving at the long-term gas price, so at half that price half the floor is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from custody.sweeps.model import Batch, Candidate, Pile, Reason, SweepPace, Terms

BASE_GAS: Final = 28_000
"""A flush of nothing: the transaction itself and the factory's own work. These were measured, before refunds."""
KNOWN_GAS: Final = 4_000
"""A forwarder that exists, its call and its salt, with nothing in it."""
NEW_GAS: Final = 45_000
"""The same for one that the flush has to make."""
NATIVE_GAS: Final = 8_500
"""Native money of one forwarder."""
TOKEN_GAS: Final = 20_000
"""One token of one forwarder. A plain ERC-20 takes 9,000, those in use more; the node's estimate decides about the
limit."""
EMPTY_GAS: Final = 4_000
"""A token of which a forwarder has nothing."""

_MAX_DOUBLINGS: Final = 10


@dataclass(frozen=True, slots=True)
class Market:
    """What gas costs."""

    wei_per_gas: int
    """At present."""
    long_term_wei_per_gas: int
    """For which the floors were chosen."""


def plan(
    candidates: Iterable[Candidate],
    terms: Mapping[str, Terms],
    market: Market,
    pace: SweepPace,
    *,
    native: str,
    gas_cap: int,
    shared_gas_cap: int,
    now: int,
    needed: frozenset[str] = frozenset(),
) -> tuple[Batch, ...]:
    """The transactions to make now, most urgent first; the same arguments give the same answer.

    Args:
        candidates: forwarders with credited deposits and in no open sweep.
        terms: by asset; piles of other assets stay where they are.
        market: the gas price.
        pace: how much, how often.
        native: id of the chain's native asset.
        gas_cap: most gas of one transaction.
        shared_gas_cap: the same for one that forwarders with different tokens share: what its sender can pay now.
        now: UNIX seconds.
        needed: assets for which withdrawals wait.
    """
    due: dict[tuple[bool, int, tuple[str, ...]], list[tuple[Candidate, frozenset[Reason]]]] = {}
    for candidate in sorted(candidates, key=lambda each: each.index):
        if native in candidate.doubtful:
            continue
        reasons = {
            pile: reason
            for pile in candidate.piles
            if (reason := _why(candidate, pile, terms, market, pace, native, now, needed)) is not None
        }
        chosen = _now(reasons, native)
        if chosen:
            spoilt = any(pile.failures for pile in candidate.piles)
            tokens = tuple(sorted(pile.asset for pile in chosen if pile.asset != native))
            group = due.setdefault((spoilt, max(pile.failures for pile in chosen), tokens), [])
            group.append((candidate, frozenset(reasons[pile] for pile in chosen)))
    well: list[Batch] = []
    failed: list[Batch] = []
    for (spoilt, failures, tokens), group in due.items():
        if _ready(group, pace, now):
            batches = _cut(group, failures, tokens, pace, native, gas_cap)
            (failed if spoilt else well).extend(batch for batch in batches if _pays(batch, market, native))
    # What failed is kept apart from all else: otherwise the one that spoils it would not be found.
    merged = _merge(well, pace.max_forwarders, min(gas_cap, shared_gas_cap))
    return tuple(
        sorted(
            (*merged, *failed),
            key=lambda b: (Reason.NEEDED not in b.reasons, *_largest_first(b)),
        )
    )


def least_units(terms: Mapping[str, Terms], market: Market, native: str) -> dict[str, int]:
    """By asset: below this nothing is worth moving now, whatever its age and whoever waits for it."""
    return {
        asset: (KNOWN_GAS + NATIVE_GAS) * market.wei_per_gas + 1
        if asset == native
        else min(each.floor_units, -(-each.floor_units * market.wei_per_gas // market.long_term_wei_per_gas))
        for asset, each in terms.items()
    }


def gas_of(candidate: Candidate, tokens: Sequence[str], native: str) -> int:
    """What one forwarder adds to a flush of `tokens`."""
    moved = sum(1 for asset in tokens if candidate.units(asset))
    own = KNOWN_GAS if candidate.deployed else NEW_GAS
    held = moved * TOKEN_GAS + (len(tokens) - moved) * EMPTY_GAS
    return own + held + (NATIVE_GAS if candidate.units(native) else 0)


def apart(batch: Batch, native: str) -> tuple[Batch, ...]:
    """A batch by what its forwarders have of its tokens, each asked for that alone."""
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in batch.candidates:
        tokens = tuple(token for token in batch.tokens if candidate.units(token))
        groups.setdefault(tokens, []).append(candidate)
    return tuple(_flush_of(group, tokens, batch.reasons, native) for tokens, group in groups.items())


def singly(batch: Batch, market: Market, native: str) -> tuple[Batch, ...]:
    """What can be flushed of a batch that would fail: its native money alone, then each of several tokens alone.

    Native money only where it is worth its gas. Nothing if there is nothing smaller than the batch.
    """
    if not batch.tokens:
        return ()
    rich = [
        each
        for each in batch.candidates
        if each.units(native) > gas_of(each, (), native) * market.wei_per_gas
    ]
    parts = [_flush_of(rich, (), batch.reasons, native)]
    if len(batch.tokens) > 1:
        parts += [
            _flush_of(
                [each for each in batch.candidates if each.units(token)], (token,), batch.reasons, native
            )
            for token in batch.tokens
        ]
    return tuple(part for part in parts if part.candidates and _pays(part, market, native))


def must_wait(times: int, last: int, pace: SweepPace, now: int) -> bool:
    """Whether what went wrong so many times has to rest: twice as long each time."""
    return times > 0 and now < last + pace.retry_seconds * 2 ** min(times - 1, _MAX_DOUBLINGS)


def _why(
    candidate: Candidate,
    pile: Pile,
    terms: Mapping[str, Terms],
    market: Market,
    pace: SweepPace,
    native: str,
    now: int,
    needed: frozenset[str],
) -> Reason | None:
    """Why a pile should be swept now; None if it should not."""
    known = terms.get(pile.asset)
    if known is None or pile.units <= 0 or pile.asset in candidate.doubtful:
        return None
    if must_wait(pile.left_behind, pile.left_at, pace, now):
        return None
    if must_wait(pile.failures, pile.failed_at, pace, now):
        return None
    old = now - pile.since >= pace.sweep_after_seconds
    wanted = pile.asset in needed
    reached = pile.units >= known.floor_units
    if pile.asset == native:
        alone = Candidate(
            candidate.address_id, candidate.index, candidate.address, (pile,), candidate.deployed
        )
        worth = pile.units > gas_of(alone, (), native) * market.wei_per_gas
    else:
        worth = pile.units * market.long_term_wei_per_gas >= known.floor_units * market.wei_per_gas
    # Native money below its gas is never worth it. A token above its floor does not wait for ever for lower fees.
    if not worth and (pile.asset == native or not reached or not (old or wanted)):
        return None
    if wanted:
        return Reason.NEEDED
    if reached:
        return Reason.FLOOR
    return Reason.OLD if old else None


def _flush_of(
    chosen: Sequence[Candidate], tokens: tuple[str, ...], reasons: frozenset[Reason], native: str
) -> Batch:
    return Batch(
        tuple(chosen), tokens, reasons, BASE_GAS + sum(gas_of(each, tokens, native) for each in chosen)
    )


def _now(due: Iterable[Pile], native: str) -> tuple[Pile, ...]:
    """Of the piles that are due, those to move together: all that never failed, else one, native money first."""
    piles = sorted(due, key=lambda pile: (pile.failures, pile.asset != native, pile.asset))
    return tuple(pile for pile in piles if not pile.failures) or tuple(piles[:1])


def _ready(group: Sequence[tuple[Candidate, frozenset[Reason]]], pace: SweepPace, now: int) -> bool:
    """Whether a group need not wait for others to share its transactions."""
    if len(group) >= pace.max_forwarders or any(why - {Reason.FLOOR} for _, why in group):
        return True
    oldest = min(pile.since for candidate, _ in group for pile in candidate.piles)
    return now - oldest >= pace.gather_seconds


def _cut(
    group: Sequence[tuple[Candidate, frozenset[Reason]]],
    failures: int,
    tokens: tuple[str, ...],
    pace: SweepPace,
    native: str,
    gas_cap: int,
) -> list[Batch]:
    """Batches within the caps. What failed together is tried in halves, so that the one that spoils it is found."""
    limit = max(1, pace.max_forwarders >> min(failures, 31))
    batches: list[Batch] = []
    open_: list[tuple[Candidate, frozenset[Reason]]] = []
    gas = BASE_GAS
    for candidate, why in group:
        own = gas_of(candidate, tokens, native)
        if BASE_GAS + own > gas_cap:
            continue
        if len(open_) == limit or gas + own > gas_cap:
            batches.append(_batch(open_, tokens, gas))
            open_, gas = [], BASE_GAS
        open_.append((candidate, why))
        gas += own
    if open_:
        batches.append(_batch(open_, tokens, gas))
    return batches


def _batch(chosen: Sequence[tuple[Candidate, frozenset[Reason]]], tokens: tuple[str, ...], gas: int) -> Batch:
    reasons = frozenset(reason for _, why in chosen for reason in why)
    return Batch(tuple(candidate for candidate, _ in chosen), tokens, reasons, gas)


def _pays(batch: Batch, market: Market, native: str) -> bool:
    """Native money alone must be worth the whole transaction, not only its own share of it."""
    if batch.tokens:
        return True
    return sum(each.units(native) for each in batch.candidates) > batch.gas * market.wei_per_gas


def _largest_first(batch: Batch) -> tuple[int, tuple[str, ...], int]:
    return -len(batch.candidates), batch.tokens, batch.candidates[0].index


def _merge(batches: Iterable[Batch], max_forwarders: int, gas_cap: int) -> list[Batch]:
    """Batches of different tokens put together wherever that takes less gas; none is ever taken apart.

    No forwarder is asked for a token that it has and that was not to be moved: it may rest after a refusal, or be held.
    """
    merged: list[Batch] = []
    for batch in sorted(batches, key=_largest_first):
        best, place = batch.gas, len(merged)
        found = batch
        for n, other in enumerate(merged):
            if len(other.candidates) + len(batch.candidates) > max_forwarders:
                continue
            gas = (
                other.gas + batch.gas - BASE_GAS + _asked_in_vain(other, batch) + _asked_in_vain(batch, other)
            )
            if (
                gas <= gas_cap
                and gas - other.gas < best
                and not (_unasked(other, batch) or _unasked(batch, other))
            ):
                best, place, found = gas - other.gas, n, _together(other, batch, gas)
        merged[place : place + 1] = [found]
    return merged


def _asked_in_vain(batch: Batch, other: Batch) -> int:
    """Gas for asking the forwarders of `batch` for what only those of `other` have."""
    return len(batch.candidates) * len(set(other.tokens) - set(batch.tokens)) * EMPTY_GAS


def _unasked(batch: Batch, other: Batch) -> bool:
    """Whether a forwarder of `batch` has a token that only `other` names, or a held deposit of it."""
    new = set(other.tokens) - set(batch.tokens)
    return bool(new) and any(
        candidate.units(token) or token in candidate.doubtful
        for candidate in batch.candidates
        for token in new
    )


def _together(one: Batch, other: Batch, gas: int) -> Batch:
    candidates = sorted((*one.candidates, *other.candidates), key=lambda each: each.index)
    tokens = tuple(sorted({*one.tokens, *other.tokens}))
    return Batch(tuple(candidates), tokens, one.reasons | other.reasons, gas)
