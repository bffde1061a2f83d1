"""Random policies and operations, in a world so small that rules, facts and limits meet often."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, TypeVar

from policies.facts import Facts, Whitelist
from policies.rules import (
    COLDER,
    DAYS,
    AddressGroup,
    AllOf,
    AnyOf,
    Approvals,
    Check,
    Group,
    Hours,
    Limit,
    Need,
    Operation,
    Policy,
    Rule,
    When,
)

_T = TypeVar("_T")

CHAINS: Final = ("bitcoin", "ethereum")
ASSETS: Final = ("BTC", "ETH")
ADDRESSES: Final = ("a1", "a2", "a3")
CUSTOMERS: Final = ("alice", "bob", "house")
INITIATORS: Final = ("exchange", "desk")
METHODS: Final = ("totp", "passkey", "sms")
NUMBERS: Final = (0, 1, 2, 3, 5, 8, 9, 10, 11, 20)
"""Amounts and bounds: small and few, so that each bound is met exactly, and missed by one."""
SCOPES: Final = (
    "internal", "house", "external", "whitelisted", "one-time", "contract", "group:friends", "group:strangers",
    "address:bitcoin:a1", "address:ethereum:a2",
)  # fmt: skip
CHECKS: Final[tuple[Check, ...]] = ("screening", "travel-rule", "ownership-proof")
GROUPS: Final = ("operators", "risk", "directors")
NOON: Final = 20_000 * 86_400 + 43_200


@dataclass(frozen=True, slots=True)
class Trial:
    """A policy, and operations with rising times."""

    policy: Policy
    operations: tuple[Facts, ...]


def trials(seed: int, count: int, *, operations: int) -> Iterator[Trial]:
    """So many trials; the same seed gives the same ones."""
    for number in range(count):
        yield trial(Random(f"{seed}/{number}"), operations=operations)


def trial(random: Random, *, operations: int) -> Trial:
    """One policy with operations that it has something to say about."""
    hidden = random.choice((0.0, 0.0, 0.0, 0.01, 0.02, 0.08))
    times = sorted(NOON + random.randrange(0, random.choice((30, 600, 200_000))) for _ in range(operations))
    return Trial(policy(random), tuple(facts(random, now, hidden=hidden) for now in times))


def policy(random: Random) -> Policy:
    """A policy of up to nine rules; most have some that route."""
    routing = [_routing(random, f"route-{n}") for n in range(random.choice((0, 1, 2, 3, 4)))]
    asking = [_asking(random, f"ask-{n}") for n in range(random.randrange(0, 6))]
    rules = [*routing, *asking]
    random.shuffle(rules)
    return Policy(
        rules=tuple(rules),
        groups=tuple(Group(id=name, roles=(name,)) for name in GROUPS),
        addresses=(
            AddressGroup(id="friends", addresses=("bitcoin:a1", "ethereum:a1")),
            AddressGroup(id="strangers", addresses=("bitcoin:a3",)),
        ),
    )


def facts(random: Random, now: int, *, hidden: float) -> Facts:
    """An operation; each fact is unknown with the probability `hidden`, and mostly good otherwise."""
    chain = random.choice(CHAINS)
    low = random.choice(NUMBERS)
    known: dict[str, Any] = {
        "action": random.choice(("resolve", "freeze")),
        "chain": chain,
        "asset": ASSETS[CHAINS.index(chain)] if random.random() < 0.9 else random.choice(ASSETS),
        "units": random.choice(NUMBERS[1:]) if random.random() < 0.98 else 0,
        "value": (low, low + random.choice((0, 0, 1, 5))),
        "source": random.choice(("deposits", "hot-1")),
        "destination": random.choice(ADDRESSES),
        "ownership": _mostly(random, "external", ("customer", "customer", "customer", "house")),
        "whitelist": random.choice(list(Whitelist)),
        "destination_age_seconds": random.choice(NUMBERS),
        "lookalike": random.random() < 0.3,
        "contract": random.random() < 0.3,
        "customer": random.choice(CUSTOMERS),
        "kyc_level": random.randrange(0, 4),
        "initiator": random.choice(INITIATORS),
        "screening": _mostly(random, "clear", ("hit",)),
        "travel_rule": random.random() < 0.8,
        "ownership_proof": random.random() < 0.8,
        "new_device": random.random() < 0.5,
        "new_ip": random.random() < 0.5,
        "password_age_seconds": random.choice(NUMBERS),
        "mfa_age_seconds": random.choice(NUMBERS),
        "mfa_methods": frozenset(random.sample(METHODS, random.randrange(0, 4))),
        "order": "genuine" if random.random() < 0.97 else "the signature does not verify",
        "expires_at": now
        + (random.choice((1, 60, 3600)) if random.random() < 0.97 else random.choice((0, -1))),
        "account": "active" if random.random() < 0.97 else "frozen",
        "halts": () if random.random() < 0.97 else ("all",),
        "reverts": random.choice((0, 1, 2)) if random.random() < 0.96 else random.choice((3, 4)),
    }
    told = {name: value for name, value in known.items() if random.random() >= hidden}
    return _of(random, now, told)


def _of(random: Random, now: int, told: dict[str, Any]) -> Facts:
    from policies.facts import read

    operation = Operation.WITHDRAWAL if random.random() < 0.8 else random.choice(list(Operation))
    shown = dict(told, operation=operation, now=now)
    for name in ("value", "halts", "mfa_methods"):
        if name in shown:
            shown[name] = list(shown[name])
    return read(shown)


def _routing(random: Random, name: str) -> Rule:
    return Rule(
        id=name,
        when=when(random, tiers=False, most=random.choice((0, 1, 2))),
        unless=when(random, tiers=False, most=2) if random.random() < 0.15 else None,
        route=random.choice(COLDER),
        approvals=approvals(random, 2) if random.random() < 0.2 else None,
        delay_seconds=random.choice((0, 0, 0, 60)),
    )


def _asking(random: Random, name: str) -> Rule:
    what = random.random()
    return Rule(
        id=name,
        when=when(random, tiers=True, most=3),
        unless=when(random, tiers=True, most=2) if random.random() < 0.25 else None,
        deny="no" if what < 0.15 else None,
        approvals=approvals(random, 2) if 0.15 <= what < 0.4 else None,
        delay_seconds=random.choice((30, 60)) if 0.3 <= what < 0.45 else 0,
        checks=tuple(random.sample(CHECKS, random.randrange(1, 3))) if 0.45 <= what < 0.55 else (),
        verdict="required" if 0.5 <= what < 0.6 else None,
        limit=limit(random) if what >= 0.55 else None,
    )


def limit(random: Random) -> Limit:
    """A limit that a few operations reach."""
    return Limit(
        window_seconds=random.choice((1, 10, 60, 600, 86_400)),
        per=random.choice(("customer", "destination", "initiator", "tier", "asset", "chain", "all")),
        measure=random.choice(("units", "value", "payments")),
        at_most=str(random.choice((1, 2, 3, 5, 10, 20, 30, 50))),
        beyond=random.choice(("deny", "wait")),
    )


def approvals(random: Random, depth: int) -> Approvals:
    """A tree of needs."""
    if depth == 0 or random.random() < 0.5:
        return Need(
            group=random.choice(GROUPS),
            count=random.randrange(1, 4),
            distinct=random.choice(("people", "organisations")),
        )
    needs = tuple(approvals(random, depth - 1) for _ in range(random.randrange(1, 4)))
    return random.choice((AllOf, AnyOf))(needs=needs)


def when(random: Random, *, tiers: bool, most: int) -> When:
    """A scope with up to `most` conditions."""
    asked: dict[str, Any] = {}
    for _ in range(random.randrange(0, most + 1)):
        name = random.choice(_CONDITIONS if tiers else _CONDITIONS[1:])
        asked[name] = _condition(random, name)
    return When(**asked)


_CONDITIONS: Final = (
    "tiers", "operations", "actions", "chains", "assets", "sources", "destinations", "destinations", "destinations",
    "destination_younger_than", "customers", "kyc_below", "initiators", "amount_from", "amount_below", "amount_from",
    "amount_below", "value_from", "value_below", "hours", "screening", "lookalike", "new_device", "new_ip",
    "password_younger_than", "mfa_younger_than", "mfa_fewer_than", "mfa_without",
)  # fmt: skip


def _condition(random: Random, name: str) -> Any:
    match name:
        case "tiers":
            return _some(random, COLDER)
        case "operations":
            return (Operation.WITHDRAWAL,) if random.random() < 0.7 else _some(random, tuple(Operation))
        case "actions":
            return _some(random, ("resolve", "freeze", "lift"))
        case "chains":
            return _some(random, CHAINS)
        case "assets":
            return _some(random, ASSETS)
        case "sources":
            return _some(random, ("deposits", "hot-1", "hot-2"))
        case "destinations":
            return _some(random, SCOPES)
        case "customers":
            return _some(random, CUSTOMERS)
        case "initiators":
            return _some(random, INITIATORS)
        case "amount_from" | "amount_below" | "value_from" | "value_below":
            return str(random.choice(NUMBERS))
        case "hours":
            first, end = (random.randrange(0, 25) * 60 % 1_441 for _ in range(2))
            return Hours(days=_some(random, DAYS), from_minute=first, to_minute=end)
        case "screening":
            return random.choice(("clear", "hit"))
        case "lookalike" | "new_device" | "new_ip":
            return random.random() < 0.5
        case "mfa_fewer_than" | "kyc_below":
            return random.randrange(1, 4)
        case "mfa_without":
            return _some(random, METHODS)
    return random.choice(NUMBERS)


def _some(random: Random, of: Sequence[_T]) -> tuple[_T, ...]:
    return tuple(random.sample(of, random.randrange(1, min(4, len(of) + 1))))


def _mostly(random: Random, good: str, others: tuple[str, ...]) -> str:
    return good if random.random() < 0.8 else random.choice(others)
