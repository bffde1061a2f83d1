"""Every signature counts until it is proven dead: random lives of a signer beside a plain model of the counting rule.

What the model calls exposed is what an attacker who hoards signatures could still make real, or has made real within
the window. It never passes the cap, whatever is asked, resolved, restarted, and in whichever order. Only a verifier
that contradicts itself can bring back what counted no more; what is signed within a window stays below the cap even
then.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from signers.examined import Exposure
from signers.ports import InputSignature, Refused, ResolveRequest, SignRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, NOW, Draft

CAP = 10_000
WINDOW = 1000
YEAR = 365 * DAY


@dataclass
class Version:
    """One transaction that was signed for an intent."""

    request: SignRequest
    answer: tuple[InputSignature, ...]
    content: str
    fee_sats: int
    outcome: Literal["open", "confirmed", "dead"] = "open"
    resolved_at: int = 0


@dataclass
class Payment:
    """An intent with all that was ever signed for it."""

    draft: Draft
    units: int
    signed_at: int = 0
    versions: list[Version] = field(default_factory=list)

    def counts(self, now: int) -> bool:
        if not self.versions:
            return False
        confirmed = [v.resolved_at for v in self.versions if v.outcome == "confirmed"]
        if not confirmed and any(v.outcome == "open" for v in self.versions):
            return True
        return now < max([self.signed_at, *confirmed]) + WINDOW

    def exposed(self) -> int:
        return self.units + max(v.fee_sats for v in self.versions)


class Lives(RuleBasedStateMachine):
    """One signer through its life."""

    payments = Bundle("payments")

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
        self.all: list[Payment] = []
        self.contradicted = False

    def teardown(self) -> None:
        self.bench.journal.close()
        self.place.cleanup()

    def total(self) -> int:
        return sum(p.exposed() for p in self.all if p.counts(self.bench.time))

    def ask(self, payment: Payment, fee_sats: int) -> Version | None:
        """Ask for a version; the signer must say what the model says."""
        payment.draft = replace(payment.draft, fee_sats=fee_sats)
        request = self.bench.world.request(payment.draft)
        fees = [fee_sats, *(v.fee_sats for v in payment.versions)]
        before = payment.exposed() if payment.counts(self.bench.time) else 0
        allowed = self.total() - before + payment.units + max(fees) <= CAP
        if not allowed:
            assert self.bench.codes(request) == {"window-cap"}
            return None
        before_it = self.opened()
        answer = self.bench.signatures(request)
        (content,) = self.opened() - before_it
        payment.signed_at = self.bench.time
        payment.versions.append(Version(request, answer, content, fee_sats))
        return payment.versions[-1]

    def opened(self) -> set[str]:
        found = self.bench.journal.write(lambda book: book.open_transactions(None, 1000))
        return {one.content for one in found}

    @rule(target=payments, units=st.integers(600, 6_000), fee_sats=st.integers(200, 1_000))
    def pay(self, units: int, fee_sats: int) -> object:
        world = self.bench.world
        order = world.order(units, expires_at=NOW + YEAR, fee_ceiling="2000")
        intent = world.intent(order, policy_version=2)
        payment = Payment(Draft([world.coin(20_000)], [order], intents=[intent]), units)
        if self.ask(payment, fee_sats) is None:
            return multiple()
        self.all.append(payment)
        return payment

    @rule(payment=payments, fee_sats=st.integers(200, 2_000))
    def bump(self, payment: Payment, fee_sats: int) -> None:
        if fee_sats not in {v.fee_sats for v in payment.versions}:
            self.ask(payment, fee_sats)

    @rule(payment=payments)
    def ask_again(self, payment: Payment) -> None:
        """The same transaction gets the same signature, counts nothing and changes nothing."""
        for version in payment.versions:
            assert self.bench.signatures(version.request) == version.answer

    @rule(payment=payments)
    def pay_twice(self, payment: Payment) -> None:
        """With other coins it could confirm beside the first: never, whatever has become of the others."""
        other = replace(payment.draft, coins=[self.bench.world.coin(20_000)])
        with pytest.raises(Refused, match="conflicting-version"):
            self.bench.service.sign(self.bench.world.request(other))

    @rule(payment=payments, which=st.integers(0, 5), outcome=st.sampled_from(["confirmed", "dead"]))
    def resolve(self, payment: Payment, which: int, outcome: Literal["confirmed", "dead"]) -> None:
        version = payment.versions[which % len(payment.versions)]
        new = version.outcome == "open" or (version.outcome, outcome) == ("dead", "confirmed")
        word = self.bench.resolution(CHAIN, version.content, outcome)
        assert self.bench.witness.resolve(ResolveRequest(resolutions=(word,))).accepted == int(new)
        if new:
            confirmed = any(v.outcome == "confirmed" for v in payment.versions)
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
        recent = [p for p in self.all if self.bench.time < p.signed_at + WINDOW]
        assert sum(p.exposed() for p in recent) <= CAP

    @invariant()
    def the_exposure_never_passes_the_cap_and_is_what_the_signer_counts(self) -> None:
        now = self.bench.time
        paid, fees = self.bench.journal.write(
            lambda book: (
                book.window(Exposure.PAYMENTS, "hot|BTC", WINDOW).total(now),
                book.window(Exposure.TIER_FEES, f"hot|{CHAIN}", WINDOW).total(now),
            )
        )
        assert paid + fees == self.total()
        assert self.contradicted or self.total() <= CAP


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
