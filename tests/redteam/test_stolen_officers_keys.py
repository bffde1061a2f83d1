"""Who has stolen the keys of a quorum, all of the online side and the signer's time server: the officers who are left
have their time, and one of them suffices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Bundle, SignedBundle
from policies.keys import sign_clock, sign_freeze, sign_veto
from policies.statements import ClockConfirmation, Freeze, Veto
from signers.ports import Refused
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY, World

STOLEN = ("olga", "felix")
HONEST = "sanna"
MORE = "1000000000000"


class Careful(World):
    """Its bundles let the next one wait for two days."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        officers = tuple(
            msgspec.structs.replace(each, not_after=self.now + 90 * DAY) for each in self.people()["officers"]
        )
        wanted = {"veto_seconds": 2 * DAY, "officers": officers, "expires_at": self.now + 60 * DAY}
        return super().bundle(version, **(wanted | changes))


class Thief(SignerBench):
    """A signer, and what a thief with two of three officers' keys does to it."""

    def publish(self, bundle: Bundle) -> None:
        self.world.__class__ = Careful
        super().publish(self.world.bundle(bundle.version))

    def tick(self, seconds: int = 0) -> None:
        self.time += seconds
        self.timekeeper.tick()
        self.trust.refresh(self.troubles.append)

    def forge(self, version: int, **changes: Any) -> SignedBundle:
        """A bundle that pays everything, as the thief has the quorum's keys."""
        wanted = {"cap_payment_below": MORE, "cap_window_cap": MORE, "issued_at": self.time} | changes
        return self.world.signed(self.world.bundle(version, **wanted), STOLEN)

    def confirm(self) -> None:
        """The clock is right, says a stolen key."""
        told = ClockConfirmation(v=1, officer="felix", journal=self.journal.id, at=self.time)
        self.desk.confirm_clock(sign_clock(told, self.world.officers["felix"]))

    def honest_veto(self, signed: SignedBundle) -> None:
        veto = Veto(
            v=1,
            officer=HONEST,
            bundle=signed.bundle.digest_hex(),
            reason="I have not seen this",
            issued_at=self.world.now,
        )
        self.desk.veto(sign_veto(veto, self.world.officers[HONEST]))

    def version(self) -> int:
        return self.service.status().bundle_version

    def safe(self) -> bool:
        return self.trust.present.cap("hot", "BTC").payment_below != MORE


@pytest.fixture
def thief(tmp_path: Path) -> Iterator[Thief]:
    made = Thief(tmp_path)
    yield made
    made.journal.close()


def test_no_trick_with_the_clock_shortens_the_time_of_the_officer_who_is_left(thief: Thief) -> None:
    """Jumps that stolen keys confirm, bundles that vouch for false times, restarts and reboots, one after the other."""
    begun = thief.time
    signed = thief.forge(2)
    thief.desk.deliver(signed)
    thief.jump(3 * DAY)
    thief.tick()
    thief.confirm()
    thief.tick(60)
    assert thief.safe()
    thief.jump(3 * DAY)
    with pytest.raises(Refused, match="version 2 waits already"):
        thief.desk.deliver(thief.forge(2, expires_at=thief.time + 50 * DAY))
    thief.desk.deliver(thief.forge(3))
    thief.tick(60)
    assert thief.safe()
    thief.boot = "second"
    thief.jump(2 * DAY)
    thief.restart()
    thief.tick()
    thief.confirm()
    for _ in range(40):
        thief.tick(100)
        thief.jump(100)
        thief.tick()
    thief.confirm()
    thief.tick()
    assert thief.safe()
    assert thief.uptime - begun < DAY, "so much time has passed, whatever the clock says"
    waiting = thief.trust.waiting
    assert waiting is not None
    assert waiting.acts_from - thief.time == 2 * DAY


def test_one_honest_veto_ends_it_whatever_the_thief_does_before_and_after(thief: Thief) -> None:
    signed = thief.forge(2)
    thief.desk.deliver(signed)
    thief.jump(30 * DAY)  # so that grants seem to have ended
    thief.tick()
    thief.honest_veto(signed)
    thief.confirm()
    thief.tick(3 * DAY)
    assert thief.safe()
    for names in (STOLEN, ("olga",), ("felix", "olga")):
        again = thief.world.signed(signed.bundle, names)
        with pytest.raises(Refused):
            thief.desk.deliver(again)
    thief.restart()
    thief.tick(3 * DAY)
    assert thief.safe()
    assert thief.version() == 1


def test_a_veto_of_one_bundle_is_none_of_another(thief: Thief) -> None:
    """Whoever replays it stops nothing else; and the thief's next bundle needs the next veto."""
    first = thief.forge(2)
    thief.honest_veto(first)
    other = thief.world.signed(thief.world.bundle(2))
    thief.desk.deliver(other)
    thief.honest_veto(first)
    thief.tick(2 * DAY)
    assert thief.version() == 2
    thief.desk.deliver(thief.forge(3))
    thief.honest_veto(thief.forge(3))
    thief.tick(3 * DAY)
    assert thief.version() == 2


def test_bundles_one_after_the_other_give_each_veto_its_full_time(thief: Thief) -> None:
    for version in range(2, 12):
        thief.desk.deliver(thief.forge(version))
        thief.tick(DAY)
        assert thief.safe()
    waiting = thief.trust.waiting
    assert waiting is not None
    assert (waiting.version, waiting.acts_from) == (11, thief.time + DAY)


def test_a_bundle_that_takes_the_wait_away_must_itself_wait(thief: Thief) -> None:
    thief.desk.deliver(thief.forge(2, veto_seconds=0))
    with pytest.raises(Refused, match="waits already"):
        thief.desk.deliver(thief.forge(2, veto_seconds=1))
    thief.desk.deliver(thief.forge(3, veto_seconds=0))
    thief.tick(DAY)
    assert thief.version() == 1


def test_a_freeze_holds_through_everything_that_waits(thief: Thief) -> None:
    frozen = Freeze(
        v=1, officer=HONEST, scope="all", bundle_version=1, reason="theft", issued_at=thief.world.now
    )
    thief.desk.freeze(sign_freeze(frozen, thief.world.officers[HONEST]))
    thief.desk.deliver(thief.forge(2))
    thief.tick(DAY)
    assert thief.service.status().frozen == ("all",)
    thief.world.now = thief.time
    assert "frozen" in thief.codes(thief.request())
