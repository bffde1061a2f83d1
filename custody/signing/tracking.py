"""What the chain's facts mean for one of our transactions. Pure.

All versions of a transaction use common resources, so at most one of them can be in a chain. A version is
known by its content from the moment it is built: signatures do not change it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from custody.signing.lifecycle import TransactionState
from custody.signing.model import ConsumptionFact, Version


@dataclass(frozen=True, slots=True)
class Stay:
    """Nothing has changed."""


@dataclass(frozen=True, slots=True)
class Mined:
    """A version is in the best chain, where it was not, or not there."""

    fact: ConsumptionFact


@dataclass(frozen=True, slots=True)
class Moved:
    """A final version is in another block now, as deep as ever: nothing but the block changes."""

    fact: ConsumptionFact


@dataclass(frozen=True, slots=True)
class Undone:
    """What had confirmed is no longer (that deep) in the best chain."""


@dataclass(frozen=True, slots=True)
class Final:
    """The confirmed version is as deep as the network's `settle_blocks`, and succeeded."""

    fact: ConsumptionFact


@dataclass(frozen=True, slots=True)
class Failed:
    """The confirmed version is that deep, and its receipt says that it failed: it paid its fee, and nothing else."""

    fact: ConsumptionFact


@dataclass(frozen=True, slots=True)
class Dead:
    """No version can ever confirm: each has lost a resource, for good, to a transaction that is none of
    them."""

    facts: tuple[ConsumptionFact, ...]


Verdict = Stay | Mined | Moved | Undone | Final | Failed | Dead


def judge(
    state: TransactionState,
    place: tuple[str, int, str] | None,
    versions: Sequence[Version],
    consumed: Mapping[str, ConsumptionFact],
    *,
    anchor: int,
    settle_blocks: int,
) -> Verdict:
    """The next step of a transaction, if there is one. Asked again after each step until the answer is
    `Stay`.

    Args:
        state: where it is.
        place: txid, height and block hash where we last saw it confirmed, None if unconfirmed.
        versions: all versions ever built, refused ones too: what was once asked for could appear.
        consumed: the versions' resources that mined transactions have used.
        anchor: height from which confirmations count, by the same reader and in the same snapshot as `consumed`.
        settle_blocks: confirmations that count as final.
    """
    ours = {version.content for version in versions}
    mine = next((fact for fact in consumed.values() if fact.content in ours), None)

    def is_final(fact: ConsumptionFact) -> bool:
        return anchor - fact.height + 1 >= settle_blocks

    if mine is not None:
        return _confirmed(state, place, mine, is_final=is_final(mine))
    if state in (TransactionState.CONFIRMING, TransactionState.FINAL):
        return Undone()
    if state not in (TransactionState.BUILT, TransactionState.BROADCAST, TransactionState.CONTESTED):
        return Stay()
    fatal = [
        next(
            (consumed[r] for r in sorted(version.resources) if r in consumed and is_final(consumed[r])), None
        )
        for version in versions
    ]
    killers = tuple(fact for fact in fatal if fact is not None)
    return Dead(killers) if versions and len(killers) == len(versions) else Stay()


def _confirmed(
    state: TransactionState, place: tuple[str, int, str] | None, fact: ConsumptionFact, *, is_final: bool
) -> Verdict:
    there = (fact.txid, fact.height, fact.block_hash)
    if state in (TransactionState.BROADCAST, TransactionState.CONTESTED):
        return Mined(fact)
    if state is TransactionState.BUILT:
        # It was signed, but we have not all of the answer yet: asking again brings it, unless members of a vault took
        # it past us. Once it is final nobody needs it.
        return Mined(fact) if is_final else Stay()
    if state is TransactionState.CONFIRMING:
        if place != there:
            return Mined(fact)
        if not is_final:
            return Stay()
        return Final(fact) if fact.succeeded else Failed(fact)
    if state is TransactionState.FINAL and place != there:
        stays = is_final and fact.succeeded and place is not None and place[0] == fact.txid
        return Moved(fact) if stays else Undone()
    # Ends stay ends.
    return Stay()
