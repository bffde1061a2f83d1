"""Every signature counts until it is proven dead: random lives of a signer beside a plain model of the counting rule.

What the model calls exposed is what an attacker who hoards signatures could still make real, or has made real within
the window. It never passes the cap, whatever is asked, resolved, restarted, and in whichever order. Only a verifier
that contradicts itself can bring back what counted no more; what is signed within a window stays below the cap even
then.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from signers.guard.examined import Exposure
from signers.ports import InputSignature, Refused, ResolveRequest, SignRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, NOW, Draft

CAP = 10_000
WINDOW = 1000
YEAR = 365 * DAY


@dataclass
class Version:
    """One transaction that was signed, for the orders of its draft."""

    draft: Draft
    at: int
    request: SignRequest | None = None
    answer: tuple[InputSignature, ...] = ()
    content: str = ""
    outcome: Literal["open", "confirmed", "dead"] = "open"
    resolved_at: int = 0

    @property
    def orders(self) -> frozenset[str]:
        return frozenset(order.id for order in self.draft.orders)


def counts(versions: Iterable[Version], now: int) -> bool:
    """Whether what all these versions stand for counts: they exclude each other."""
    versions = list(versions)
    confirmed = [v.resolved_at for v in versions if v.outcome == "confirmed"]
    if not confirmed and any(v.outcome == "open" for v in versions):
        return True
    return now < max([*(v.at for v in versions), *confirmed]) + WINDOW


def exposed(versions: list[Version], now: int) -> int:
    """Payments once each, and the highest fee of each set of payments, as long as they count."""
    total = 0
    amounts = {order.id: order.units for v in versions for order in v.draft.orders}
    for order, units in amounts.items():
        total += units if counts((v for v in versions if order in v.orders), now) else 0
    for group in {v.orders for v in versions}:
        same = [v for v in versions if v.orders == group]
        total += max(v.draft.fee_sats for v in same) if counts(same, now) else 0
    return total


class Lives(RuleBasedStateMachine):
    """One signer through its life."""

    versions = Bundle("versions")

    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.bench = SignerBench(Path(self.place.name))
        self.bench.adopt(
            2,
            cap_window_cap=str(CAP),
            cap_window_seconds=WINDOW,
            network_fee_cap="2000",
            network_feerate_cap=10**9,
            expires_at=NOW + YEAR,
            longest_order_seconds=YEAR,
        )
        self.all: list[Version] = []
        self.contradicted = False

    def teardown(self) -> None:
        self.bench.journal.close()
        self.place.cleanup()

    def ask(self, draft: Draft) -> object:
        """Ask for a transaction; the signer must say what the model says."""
        world, now = self.bench.world, self.bench.time
        draft = replace(draft, intents=[world.intent(order, policy_version=2) for order in draft.orders])
        request, version = world.request(draft), Version(draft, now)
        if any(v.request == request for v in self.all):
            return multiple()
        if exposed([*self.all, version], now) > CAP:
            assert self.bench.codes(request) == {"window-cap"}
            return multiple()
        before = self.opened()
        version.request, version.answer = request, self.bench.signatures(request)
        (version.content,) = self.opened() - before
        self.all.append(version)
        return version

    def opened(self) -> set[str]:
        found = self.bench.journal.write(lambda book: book.open_transactions(None, 1000))
        return {one.content for one in found}

    @rule(
        target=versions,
        units=st.lists(st.integers(600, 2_000), min_size=1, max_size=3),
        fee_sats=st.integers(200, 500),
    )
    def pay(self, units: list[int], fee_sats: int) -> object:
        world = self.bench.world
        orders = [world.order(n, expires_at=NOW + YEAR, fee_ceiling="2000") for n in units]
        return self.ask(Draft([world.coin(20_000)], orders, fee_sats=fee_sats))

    @rule(target=versions, version=versions, fee_sats=st.integers(200, 1_000))
    def bump(self, version: Version, fee_sats: int) -> object:
        return self.ask(replace(version.draft, fee_sats=fee_sats))

    @rule(target=versions, version=versions, which=st.integers(0, 2), fee_sats=st.integers(200, 2_000))
    def leave_one_out(self, version: Version, which: int, fee_sats: int) -> object:
        """A replacement for fewer payments: the one that is left out stays open with the earlier version."""
        orders = list(version.draft.orders)
        if len(orders) == 1:
            return multiple()
        del orders[which % len(orders)]
        return self.ask(replace(version.draft, orders=orders, fee_sats=fee_sats))

    @rule(version=versions)
    def ask_again(self, version: Version) -> None:
        """The same transaction gets the same signature, counts nothing and changes nothing."""
        assert version.request is not None
        assert self.bench.signatures(version.request) == version.answer

    @rule(version=versions)
    def pay_twice(self, version: Version) -> None:
        """With other coins it could confirm beside the first: never, whatever has become of the others."""
        other = replace(version.draft, coins=[self.bench.world.coin(20_000)])
        with pytest.raises(Refused, match="conflicting-version"):
            self.bench.service.sign(self.bench.world.request(other))

    @rule(version=versions, outcome=st.sampled_from(["confirmed", "dead"]))
    def resolve(self, version: Version, outcome: Literal["confirmed", "dead"]) -> None:
        new = version.outcome == "open" or (version.outcome, outcome) == ("dead", "confirmed")
        word = self.bench.resolution(CHAIN, version.content, outcome)
        assert self.bench.witness.resolve(ResolveRequest(resolutions=(word,))).accepted == int(new)
        if new:
            rivals = [v for v in self.all if v.orders & version.orders]
            confirmed = any(v.outcome == "confirmed" for v in rivals)
            self.contradicted |= outcome == "confirmed" and (confirmed or version.outcome == "dead")
            version.outcome, version.resolved_at = outcome, self.bench.time

    @rule(seconds=st.sampled_from([1, 10, WINDOW // 2, WINDOW - 1, WINDOW, 3 * WINDOW]))
    def wait(self, seconds: int) -> None:
        self.bench.time += seconds
        self.bench.timekeeper.tick()

    @rule()
    def restart(self) -> None:
        self.bench.restart()

    @invariant()
    def what_is_signed_within_a_window_never_passes_the_cap(self) -> None:
        now = self.bench.time
        recent = [v for v in self.all if now < v.at + WINDOW]
        assert exposed(recent, now) <= CAP

    @invariant()
    def the_exposure_never_passes_the_cap_and_is_what_the_signer_counts(self) -> None:
        now = self.bench.time
        paid, fees = self.bench.journal.write(
            lambda book: (
                book.window(Exposure.PAYMENTS, "hot|BTC", WINDOW).total(now),
                book.window(Exposure.TIER_FEES, f"hot|{CHAIN}", WINDOW).total(now),
            )
        )
        assert paid + fees == exposed(self.all, now)
        assert self.contradicted or paid + fees <= CAP


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=30, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
