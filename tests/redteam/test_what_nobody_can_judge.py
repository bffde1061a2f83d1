"""Rules about facts that order and bundle leave open: the online side denies, so its thief asks signers directly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from policies.bundle import PriceBound
from policies.intent import Context
from policies.rules import Group, Limit, Need, Policy, Rule, When
from signers.ports import Refused
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signer import Bench
from tests.fakes.signing import ROLE, Draft, SoftKeys, World
from tests.support.amounts import HOUSE_RULES

HOT = Rule(id="hot", when=When(destinations=("external",)), route="hot")
BOARD = Rule(id="board", when=When(value_from="500000"), approvals=Need(group=ROLE, count=2))
"""From 5,000 USD on two people are asked."""
STRANGERS = Rule(id="strangers", when=When(kyc_below=2), deny="Who are you?")
DEVICES = Rule(id="devices", when=When(new_device=True), approvals=Need(group=ROLE, count=1))


class Till(Bench[World]):
    """A hot signer with a policy of our own."""

    def __init__(self, directory: Path) -> None:
        self.keys = SoftKeys.make()
        super().__init__(directory, World(self.keys.record))

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {self.keys.record.id: BitcoinWallet(self.keys)}

    def go_by(self, *rules: Rule, **changes: Any) -> None:
        policy = Policy(rules=(HOT, *HOUSE_RULES, *rules), groups=(Group(id=ROLE, roles=(ROLE,)),))
        self.adopt(2, policy=policy, **changes)

    def pay(self, units: int = 1_000_000, **changes: Any) -> set[str]:
        """Codes of the refusal of a payment; empty if it is signed."""
        order = self.world.order(units, **changes)
        intent = self.world.intent(order, policy_version=2)
        request = self.world.request(Draft([self.world.coin(2_000_000_000)], [order], intents=[intent]))
        try:
            assert self.signatures(request)
        except Refused:
            return self.codes(request)
        return set()


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    made = Till(tmp_path)
    yield made
    made.journal.close()


def test_nobody_is_spared_approvals_by_bounds_between_which_a_value_is_open(till: Till) -> None:
    """0.05 BTC are worth between 500 and 10,000 USD by the bundle: the online side denies, so no signer pays."""
    till.go_by(BOARD, prices=(PriceBound(asset="BTC", low="1000000", high="20000000"),))
    assert till.pay(5_000_000) == {"policy-unknown"}
    assert till.pay(2_000_000) == set(), "at most 4,000 USD"


def test_a_window_and_a_denial_by_value_hold_where_the_value_is_open(till: Till) -> None:
    dear = Rule(id="dear", when=When(value_from="500000"), deny="too dear")
    window = Rule(
        id="window",
        when=When(value_from="500000"),
        limit=Limit(window_seconds=60, per="customer", measure="payments", at_most="0"),
    )
    till.go_by(dear, window, prices=(PriceBound(asset="BTC", low="1000000", high="20000000"),))
    assert till.pay(5_000_000) == {"policy-unknown"}


@pytest.mark.parametrize("rule", [STRANGERS, DEVICES])
def test_an_order_that_does_not_say_what_a_rule_asks_for_is_not_signed(till: Till, rule: Rule) -> None:
    till.go_by(rule)
    assert till.pay() == {"policy-unknown"}
    assert till.pay(context=Context(new_device=False, kyc_level=2)) == set()
    assert till.pay(context=Context(new_device=True, kyc_level=1)) <= {"policy-denied", "approvals-missing"}


def test_what_only_the_online_side_can_know_is_no_reason_to_refuse(till: Till) -> None:
    listed = Rule(id="listed", when=When(destinations=("one-time",), kyc_below=2), deny="not listed")
    spared = Rule(
        id="spared", when=When(kyc_below=2), unless=When(destinations=("whitelisted",)), deny="unknown"
    )
    till.go_by(listed, spared)
    assert till.pay() == set()
