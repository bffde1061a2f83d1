"""Windows that are kept incrementally hold what a sum over everything that ever happened says."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies.decision import LimitKey
from policies.rules import Limit, Policy, Rule
from policies.windows import Windows

LENGTHS = {"short": 5, "long": 50}
LIMITS = {
    name: Limit(window_seconds=seconds, per="customer", measure="units", at_most="100")
    for name, seconds in LENGTHS.items()
}
POLICY = Policy(rules=tuple(Rule(id=name, limit=limit) for name, limit in LIMITS.items()))
KEYS = [LimitKey(rule, bucket) for rule in LENGTHS for bucket in ("alice", "bob")]


@dataclass
class Naive:
    """Every payment that was ever let through, with the moment it was settled or released at."""

    payments: dict[str, tuple[tuple[tuple[LimitKey, int], ...], int | None]] = field(default_factory=dict)
    paid: list[tuple[int, LimitKey, int]] = field(default_factory=list)

    def total(self, key: LimitKey, now: int) -> int:
        unpaid = [
            amount
            for counts, end in self.payments.values()
            if end is None
            for k, amount in counts
            if k == key
        ]
        recent = [amount for at, k, amount in self.paid if k == key and at > now - LENGTHS[key.rule]]
        return sum(unpaid) + sum(recent)


NAMES = st.sampled_from([f"p{n}" for n in range(6)])
COUNTS = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 40)), unique_by=lambda c: c[0]).map(tuple)
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 30)),
    st.tuples(st.just("let through"), NAMES, COUNTS),
    st.tuples(st.just("settled"), NAMES),
    st.tuples(st.just("released"), NAMES),
    st.tuples(st.just("add"), st.sampled_from(KEYS), st.integers(0, 40)),
    st.tuples(st.just("sweep")),
)


@given(st.lists(STEPS, max_size=60))
def test_windows_hold_what_a_naive_sum_says(steps: list[tuple[object, ...]]) -> None:
    windows, naive, now = Windows(POLICY), Naive(), 1_000
    windows.move_to(now)
    for step in steps:
        match step:
            case ("wait", int(seconds)):
                now += seconds
                windows.move_to(now)
            case ("let through", str(name), tuple(counts)):
                windows.let_through(name, counts)
                if naive.payments.get(name, ((), 0))[1] is not None:
                    naive.payments[name] = (counts, None)
            case ("settled" | "released" as what, str(name)):
                getattr(windows, what)(name)
                counts, end = naive.payments.get(name, ((), 0))
                if end is None:
                    naive.payments[name] = (counts, now)
                    naive.paid += [(now, key, n) for key, n in counts if what == "settled"]
            case ("add", LimitKey() as key, int(amount)):
                windows.add(key, amount)
                naive.paid.append((now, key, amount))
            case _:
                windows.sweep()
        for key in KEYS:
            assert windows(key, LIMITS[key.rule]) == naive.total(key, now), (step, key, now)


def test_time_does_not_go_back() -> None:
    windows = Windows(POLICY)
    windows.move_to(10)
    windows.move_to(10)
    with pytest.raises(InvalidValue):
        windows.move_to(9)


def test_a_window_that_has_emptied_is_forgotten_and_an_unpaid_payment_is_not() -> None:
    windows = Windows(POLICY)
    windows.move_to(0)
    windows.add(KEYS[0], 1)
    windows.let_through("unpaid", [(KEYS[1], 7)])
    windows.let_through("unpaid", [(KEYS[1], 7)])
    windows.move_to(10**9)
    windows.sweep()
    assert len(windows) == 1
    assert windows(KEYS[1], LIMITS["short"]) == 7


def test_payments_are_remembered_only_as_long_as_they_count() -> None:
    windows = Windows(POLICY)
    for now in range(200_000):
        windows.move_to(now)
        windows.add(LimitKey("short", f"customer-{now}"), 1)
    assert len(windows) < 70_000
