"""The policy as the bundle carries it: rules, groups and holdings, in one canonical form.

People write it as YAML with comments (`policies.reading`); what is signed, enforced and proven is this. Nothing here
depends on order: the strictest of all rules that match wins (`policies.engine`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from policies.canonical import Name, Part, Seconds, Units


class Operation(StrEnum):
    """What is to be done."""

    WITHDRAWAL = "withdrawal"
    SWEEP = "sweep"
    CONSOLIDATION = "consolidation"
    REFILL = "refill"
    ROTATION = "rotation"
    ADMINISTRATION = "administration"
    """What an operator does by hand, such as resolving a case; `Facts.action` names it."""


HOUSE: Final = "house"
"""The customer of the house's own operations, and the owner of its whitelist."""

Route = Literal["hot", "warm", "cold", "ledger"]
"""Where an operation is paid from; `ledger` for a withdrawal to an address of ours, which needs no transaction, and for
what moves no money."""

COLDER: Final[tuple[Route, ...]] = ("ledger", "hot", "warm", "cold")
"""From least to most protected: of several tiers that rules allow, the last one is taken."""

DestinationScope = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(internal|house|external|whitelisted|one-time|contract|group:[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
        r"|address:[A-Za-z0-9][A-Za-z0-9._-]{0,63}:[!-~]{1,128})\Z"
    ),
]
"""`internal`: a customer's address of ours. `house`: any other address of ours. `external`: all others, of which
`whitelisted` are those that its owner may use without waiting, `one-time` the rest. `contract`: has code.
`group:NAME`: listed in that group of the policy. `address:CHAIN:TEXT`: this one."""

Sentence = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
Percent = Annotated[int, msgspec.Meta(ge=1, le=100)]
BasisPoints = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Minute = Annotated[int, msgspec.Meta(ge=0, le=24 * 60)]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Hours(Part, frozen=True):
    """A part of each of some days, in UTC."""

    days: tuple[Day, ...] = DAYS
    from_minute: Minute = 0
    """Of the day, the first that belongs to it."""
    to_minute: Minute = 24 * 60
    """The first that does not; not above `from_minute`: it ends on the next day."""


class When(Part, frozen=True):
    """What a rule is about. All that is given must hold; what is empty or null holds always."""

    operations: tuple[Operation, ...] = ()
    actions: tuple[Name, ...] = ()
    """Of administration."""
    chains: tuple[Name, ...] = ()
    assets: tuple[Name, ...] = ()
    sources: tuple[Name, ...] = ()
    """Wallets of the bundle, or `deposits`, where the money comes from."""
    tiers: tuple[Route, ...] = ()
    """Where the other rules have routed it; not for a rule that routes."""
    destinations: tuple[DestinationScope, ...] = ()
    destination_younger_than: Seconds | None = None
    """Whoever decides has known it for less than so many seconds."""
    lookalike: bool | None = None
    """It begins and ends like another destination of the same payer, and is another."""
    customers: tuple[Name, ...] = ()
    kyc_below: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    initiators: tuple[Name, ...] = ()
    """Callers who signed the order, or operators."""
    amount_from: Units | None = None
    """In base units of the one asset that the rule is about."""
    amount_below: Units | None = None
    value_from: Units | None = None
    """In the bundle's unit of account."""
    value_below: Units | None = None
    hours: Hours | None = None
    screening: Literal["clear", "hit"] | None = None
    new_device: bool | None = None
    new_ip: bool | None = None
    password_younger_than: Seconds | None = None
    """The password was changed so recently."""
    mfa_younger_than: Seconds | None = None
    """The second factor was changed so recently."""
    mfa_fewer_than: Annotated[int, msgspec.Meta(ge=1, le=8)] | None = None
    """So few methods were passed in this session."""
    mfa_without: tuple[Name, ...] = ()
    """None of these methods was passed."""


class Group(Part, frozen=True):
    """Approvers of the bundle who have one of the roles, or are named."""

    id: Name
    roles: tuple[Name, ...] = ()
    people: tuple[Name, ...] = ()


class AddressGroup(Part, frozen=True):
    """Destinations under one name."""

    id: Name
    addresses: tuple[
        Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}:[!-~]{1,128}\Z")], ...
    ]
    """Each `CHAIN:ADDRESS`, in canonical form."""


class Need(Part, frozen=True, tag_field="kind", tag="need"):
    """So many of a group must approve."""

    group: Name
    count: Annotated[int, msgspec.Meta(ge=1, le=32)]
    distinct: Literal["people", "organisations"] = "people"
    """Whether two people of one organisation count twice or once."""


class AllOf(Part, frozen=True, tag_field="kind", tag="all"):
    """Each of these must be met. Nobody's approval counts for two groups: it names one."""

    needs: tuple[Approvals, ...]


class AnyOf(Part, frozen=True, tag_field="kind", tag="any"):
    """One of these must be met."""

    needs: Annotated[tuple[Approvals, ...], msgspec.Meta(min_length=1)]


Approvals = Need | AllOf | AnyOf
NOBODY: Final = AllOf(needs=())
"""Approvals that are there without anybody."""


class Limit(Part, frozen=True):
    """What the operations that a rule is about may come to within a rolling window, this one included."""

    window_seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 24 * 3600)]
    per: Literal["customer", "destination", "initiator", "tier", "asset", "chain", "all"]
    """Each of these is counted for itself."""
    measure: Literal["units", "value", "payments"]
    """Base units of the one asset of the rule, the unit of account, or how many."""
    at_most: Units
    beyond: Literal["deny", "wait"] = "deny"
    """What becomes of one that would go above it."""


Check = Literal["screening", "travel-rule", "ownership-proof"]
"""What must have been found good: the destination by screening; originator and beneficiary data attached; the owner's
signed message that the destination is theirs."""


class Rule(Part, frozen=True):
    """When its scope fits, and the exception does not, it denies, or does all else that it says.

    Rules of the shipped policy are told apart by id; records of decisions name them.
    """

    id: Name
    about: Annotated[str, msgspec.Meta(max_length=300)] = ""
    """For people."""
    when: When = When()
    unless: When | None = None
    deny: Sentence | None = None
    """Why not, for the one who asked."""
    route: Route | None = None
    """Allows it, from this tier."""
    approvals: Approvals | None = None
    delay_seconds: Seconds = 0
    checks: tuple[Check, ...] = ()
    verdict: Literal["required"] | None = None
    """A verifier must have found it covered."""
    limit: Limit | None = None


class Holding(Part, frozen=True):
    """What tiers should hold of an asset at most; more flows to a colder tier, less than the mark is refilled."""

    tiers: Annotated[tuple[Literal["hot", "warm"], ...], msgspec.Meta(min_length=1)]
    """Taken together."""
    asset: Name
    at_most: Units
    share: BasisPoints | None = None
    """At most so many ten-thousandths of all that is held of the asset, if that is less."""
    refill_below: Percent | None = None
    """Of the maximum."""


class Filled(Part, frozen=True):
    """How full a window is in a case."""

    rule: Name
    """The one whose limit it is; the window that the case's facts fall into."""
    amount: Units


class Case(Part, frozen=True):
    """A question with the answer that the policy must give, kept with it: `strongroom policy test`."""

    id: Name
    given: str
    """Facts as JSON, in the form of `policies.facts.describe`; what is not named has its plain value."""
    expect: Literal["deny", "wait", "hot", "warm", "cold", "ledger"]
    because: tuple[str, ...] = ()
    """Codes of reasons, or ids of rules, that must be among those given."""
    approvals: Approvals | None = None
    """Exactly these are asked for; null: whatever is asked for will do."""
    delay_seconds: Seconds | None = None
    """Exactly so long; null: whatever delay."""
    spent: tuple[Filled, ...] = ()
    """Other windows are empty."""


class Policy(Part, frozen=True):
    """All rules. Without a rule that routes an operation it is denied."""

    rules: tuple[Rule, ...] = ()
    groups: tuple[Group, ...] = ()
    addresses: tuple[AddressGroup, ...] = ()
    holdings: tuple[Holding, ...] = ()
    cases: tuple[Case, ...] = ()
