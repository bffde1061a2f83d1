"""Decisions by the shipped policy with windows kept incrementally, beside the oracle that adds them up each time."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

from ops.bench.compare import Row, Side, interleave

if TYPE_CHECKING:
    from policies.facts import Facts

_TESTS: Final = Path(__file__).parents[2] / "tests"
_OPERATIONS: Final = 20_000
_OF_THE_ORACLE: Final = 400
_CUSTOMERS: Final = 5_000
_ASSETS: Final = {"BTC": ("bitcoin", 10**5), "ETH": ("ethereum", 10**16), "USDC": ("ethereum", 10**7)}
"""Chain, and the smallest payment, in base units."""


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Decisions a second on one core, about a day of withdrawals; what is let through is counted, and paid at once."""
    from policies.decision import Routed
    from policies.engine import Engine
    from policies.reading import read_policy
    from policies.windows import Windows

    progress("policy: deciding")
    oracle = _of_the_tests("unit/policies/oracle.py")
    house = _of_the_tests("fakes/house.py").bundle()
    text = resources.files("policies").joinpath("default.yaml").read_text(encoding="utf-8")
    policy = read_policy(text, house, file="default.yaml")
    engine, operations = Engine(policy, house.told), list(_day())

    def ours() -> int:
        windows, paid = Windows(policy), 0
        for asked in operations:
            windows.move_to(asked.now)
            decision = engine.decide(asked, windows)
            if isinstance(decision, Routed):
                paid += 1
                for key, amount in decision.counts:
                    windows.add(key, amount)
        return paid

    def peer() -> None:
        ledger = oracle.Ledger()
        for asked in operations[:_OF_THE_ORACLE]:
            ledger.add(asked.now, oracle.decide(policy, asked, ledger).counts)

    paid = ours()
    if not _OPERATIONS // 4 < paid < _OPERATIONS * 3 // 4:
        raise AssertionError(
            f"{paid} of {_OPERATIONS} are let through: this measures one kind of answer only"
        )
    rates = interleave(Side(ours, _OPERATIONS), Side(peer, _OF_THE_ORACLE), repeats=5)
    yield Row("policy", *rates, "the oracle: the same rules in plain words, windows added up", "decisions/s")


def _of_the_tests(path: str) -> Any:
    """A module of the checkout's tests: the oracle is nothing that is installed."""
    spec = importlib.util.spec_from_file_location(f"bench_{Path(path).stem}", _TESTS / path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _day() -> Iterator[Facts]:
    from policies.cases import facts_in

    random = Random("a day")
    for number in range(_OPERATIONS):
        asset = random.choice(list(_ASSETS))
        chain, smallest = _ASSETS[asset]
        yield facts_in(
            {
                "id": str(number),
                "now": 1_800_000_000 + number * 86_400 // _OPERATIONS,
                "chain": chain,
                "asset": asset,
                "units": smallest * random.choice((1, 2, 5, 20, 200, 2_000)),
                "customer": f"customer-{random.randrange(_CUSTOMERS)}",
                "destination": f"address-{random.randrange(_CUSTOMERS * 2)}",
                "destination_age_seconds": random.choice((3_600, 10**6, 10**6, 10**6)),
                "kyc_level": random.choice((1, 2, 2)),
                "new_device": random.random() < 0.1,
            }
        )
