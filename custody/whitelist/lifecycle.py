"""The life of a whitelist's entry. Pure.

No state says that an entry may be used: that follows, whenever somebody decides, from when it was listed, from the
policy and from the time. So nothing that is called in whatever order makes an entry usable before its time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from custody.lifecycle import Lifecycle
from policies.rules import Policy

LEAST_COOLING_SECONDS: Final = 24 * 3600
"""How long entries cool under a policy that denies no young destination."""


class EntryState(StrEnum):
    """Where an entry is."""

    REQUESTED = "requested"
    """Asked for; nothing follows from it."""
    CONFIRMED = "confirmed"
    """A caller has signed it."""
    LISTED = "listed"
    """A worker has verified that, and signers are told: from now on it cools."""
    REMOVED = "removed"
    """For good: the same destination can be listed anew, and cools anew."""


class EntryEvent(StrEnum):
    """What can happen to an entry."""

    CONFIRM = "confirm"
    LIST = "list"
    REMOVE = "remove"


class Standing(StrEnum):
    """What an entry is good for at one moment."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    COOLING = "cooling"
    USABLE = "usable"
    REMOVED = "removed"


S, E = EntryState, EntryEvent

WHITELIST: Final[Lifecycle[EntryState, EntryEvent]] = Lifecycle(
    "whitelist",
    {
        (S.REQUESTED, E.CONFIRM): S.CONFIRMED,
        (S.CONFIRMED, E.LIST): S.LISTED,
        **{(state, E.REMOVE): S.REMOVED for state in (S.REQUESTED, S.CONFIRMED, S.LISTED)},
    },
)


def cooling_seconds(policy: Policy) -> int:
    """How long an entry cools: as long as any rule denies a destination for being young, 24 h where none does."""
    ages = (rule.when.destination_younger_than or 0 for rule in policy.rules if rule.deny is not None)
    return max(ages, default=0) or LEAST_COOLING_SECONDS


def standing(state: EntryState, listed_at: int | None, cooling: int, *, now: int) -> Standing:
    """What an entry is good for.

    Args:
        state: as stored.
        listed_at: when a worker listed it, UNIX seconds; None: it was not.
        cooling: seconds.
        now: UNIX seconds.
    """
    if state is not EntryState.LISTED or listed_at is None:
        return Standing.CONFIRMED if state is EntryState.LISTED else Standing(state)
    return Standing.USABLE if now - listed_at >= cooling else Standing.COOLING
