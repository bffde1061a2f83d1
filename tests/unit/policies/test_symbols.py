"""The formulas say of every withdrawal what the engine says, fact by fact and rule by rule."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import z3

from policies.decision import LimitKey, Routed
from policies.engine import Engine
from policies.facts import AccountState, Facts, Operation, Ownership
from policies.mentioned import NAMED, Names, Worth, names_in
from policies.prover import OTHERS, plainly
from policies.rules import COLDER, DAYS, Hours, Limit, Policy, When
from policies.symbols import Verdict, Withdrawal
from policies.windows import Windows
from tests.unit.policies import oracle
from tests.unit.policies.randomly import NOON, NUMBERS, facts, policy

CHUNKS, POLICIES, EACH = 5, 60, 5
WHITELIST = ("absent", "cooling", "usable")
NUMBERED = ("units", "destination_age_seconds", "kyc_level", "password_age_seconds", "mfa_age_seconds")
FLAGS = ("lookalike", "contract", "travel_rule", "ownership_proof", "new_device", "new_ip")


def withdrawal(random: Random) -> Facts:
    """One against which nothing stands that no rule can change; some facts are unknown."""
    now = NOON + random.randrange(0, 8 * 86_400)
    told, hidden = facts(random, now, hidden=0.0), facts(random, now, hidden=0.3)
    unknown: dict[str, Any] = {name: None for name in HIDEABLE if getattr(hidden, name) is None}
    good: dict[str, Any] = {
        "operation": Operation.WITHDRAWAL, "order": "genuine", "expires_at": now + 1, "account": AccountState.ACTIVE,
        "halts": (), "reverts": 0, "units": random.choice(NUMBERS[1:]),
        "ownership": random.choice((Ownership.EXTERNAL, Ownership.EXTERNAL, Ownership.CUSTOMER)),
    }  # fmt: skip
    return replace(told, **unknown, **good)


HIDEABLE = (
    "action", "source", "value", "whitelist", "screening", "mfa_methods", *NUMBERED[1:], *FLAGS,
)  # fmt: skip


def bound(told: Facts, of: Withdrawal, names: Names) -> list[Any]:
    """Constraints by which the variables are these facts and no others."""
    known = {name: getattr(told, name) is not None for name in HIDEABLE}
    constraints = [of.known(name) == value for name, value in known.items()]
    constraints += [of.sane, of.now == told.now]
    for name in NAMED:
        if getattr(told, name) is not None:
            constraints.append(of.is_named(name, getattr(told, name)))
    for name in NUMBERED:
        if getattr(told, name) is not None:
            constraints.append(of.number[name] == getattr(told, name))
    for name in FLAGS:
        if getattr(told, name) is not None:
            constraints.append(of.flags[name] == getattr(told, name))
    assert told.ownership is not None
    constraints.append(of.ownership == ("external", "customer").index(told.ownership))
    if told.whitelist is not None:
        constraints.append(of.whitelist == WHITELIST.index(told.whitelist))
    if told.screening is not None:
        constraints.append(of.hit == (told.screening == "hit"))
    if told.value is not None:
        constraints += [of.low == told.value[0], of.high == told.value[1]]
    if told.mfa_methods is not None:
        constraints += [passed == (name in told.mfa_methods) for name, passed in of.methods.items()]
        constraints.append(of.other_methods == len(told.mfa_methods - of.methods.keys()))
    return constraints


@pytest.mark.parametrize("seed", range(CHUNKS))
def test_formulas_and_engine_say_the_same(seed: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(POLICIES):
        random = Random(f"symbols/{seed}/{number}")
        tried = policy(random)
        names = names_in(tried, {}, [])
        told = [withdrawal(random) for _ in range(EACH)]
        for each in told:
            for name in NAMED:
                if getattr(each, name) is not None:
                    names.number(name, getattr(each, name))
        verdict = Verdict("w", tried, Withdrawal("w", names, tried, {}))
        solver = z3.Solver()
        for each in told:
            spent = {rule: random.choice((0, 0, 1, 5, 20)) for rule in verdict.spent}

            def held(key: LimitKey, limit: Limit, spent: dict[str, int] = spent) -> int:
                return spent[key.rule]

            decision = Engine(tried, plainly).decide(each, held)
            where = f"policy {number} of seed {seed}\n{each}\n{tried}\n{decision}"
            solver.push()
            solver.add(
                *bound(each, verdict.of, names), *(verdict.spent[rule] == n for rule, n in spent.items())
            )
            paid = isinstance(decision, Routed)
            assert (solver.check(verdict.paid) == z3.sat) is paid, where
            assert (solver.check(z3.Not(verdict.paid)) == z3.sat) is not paid, where
            if isinstance(decision, Routed):
                assert solver.check(verdict.tier != COLDER.index(decision.tier)) == z3.unsat, where
                asked = {reason.rule for reason in decision.reasons} | {
                    key.rule for key, _ in decision.counts
                }
                fitting = [verdict.fits[rule] for rule in asked]
                assert solver.check(z3.Not(z3.And(fitting))) == z3.unsat, where
                for key, amount in decision.counts:
                    assert solver.check(verdict.amounts[key.rule] != amount) == z3.unsat, where
            solver.pop()
            seen["paid" if paid else "not paid"] += 1
    assert min(seen["paid"], seen["not paid"]) > 40, f"random withdrawals have become dull: {seen}"


def test_what_a_model_describes_is_what_the_engine_is_told() -> None:
    random = Random("model")
    for number in range(60):
        tried = policy(random)
        names = names_in(tried, {}, [When()])
        verdict = Verdict("w", tried, Withdrawal("w", names, tried, {}))
        solver = z3.Solver()
        solver.add(verdict.paid, *(spent == 0 for spent in verdict.spent.values()))
        if solver.check() != z3.sat:
            continue
        told = verdict.of.facts(solver.model(), id=str(number), others=OTHERS)
        assert isinstance(Engine(tried, plainly).decide(told, Windows(tried)), Routed), (told, tried)
        names_of_it = {name for name in NAMED if getattr(told, name) is not None}
        again = z3.Solver()
        again.add(*bound(told, verdict.of, names), verdict.paid, *(s == 0 for s in verdict.spent.values()))
        assert names_of_it
        assert again.check() == z3.sat, (told, tried)


@pytest.mark.parametrize("units", [1, 9, 10, 11, 333, 10**9])
def test_values_are_rounded_as_the_service_rounds_them(units: int) -> None:
    one, low, high = 10, 7, 13
    names = names_in(Policy(), {"BTC": Worth("bitcoin", one, low, high)}, [])
    of = Withdrawal("w", names, Policy(), {"BTC": Worth("bitcoin", one, low, high)})
    solver = z3.Solver()
    solver.add(of.sane, of.number["units"] == units)
    assert solver.check() == z3.sat
    assert solver.check(z3.Or(of.low != units * low // one, of.high != -(-units * high // one))) == z3.unsat


def test_hours_are_those_of_the_oracle_at_every_edge() -> None:
    random = Random("hours")
    of = Withdrawal("w", names_in(Policy(), {}, []), Policy(), {})
    for _ in range(300):
        days = tuple(random.sample(DAYS, random.randrange(1, 4)))
        first, end = (
            random.choice((0, 1, 60, 720, 1_439, 1_440)),
            random.choice((0, 1, 60, 720, 1_439, 1_440)),
        )
        hours = Hours(days=days, from_minute=first, to_minute=end)
        formula = of.scope(When(hours=hours), None).yes
        for _ in range(10):
            minute = (
                random.randrange(0, 10_080)
                if random.random() < 0.3
                else random.choice((first, end, 0, 1_439))
            )
            now = (
                NOON
                + random.randrange(0, 8) * 86_400
                + (minute - 720) * 60
                + random.choice((-1, 0, 1, 59, 60))
            )
            says = z3.simplify(z3.substitute(formula, (of.now, z3.IntVal(now))))
            assert z3.is_true(says) is oracle.is_within(hours, now), (hours, now)


def test_the_console_does_not_load_z3_before_it_is_asked_for_a_proof() -> None:
    program = (
        "import sys, custody.console.policy_proofs, policies.deciding, policies.backtest; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "custody.console.policy_proofs" in loaded.stdout.split()
    assert "z3" not in loaded.stdout.split()
