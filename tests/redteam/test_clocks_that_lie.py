"""An attacker who sets the signer's wall clock as he likes, and stops and restarts signer and machine: FAULTS row 34.

He wants windows to pass, destinations to age and delays to end before their time. Nobody confirms anything; what he
gains in all is bounded, whatever he does in whichever order. What he loses is up to him: a signer that stands still.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from signers.errors import ClockUnsteady
from signers.trust.clock import MAX_JUMP_SECONDS, MAX_STOP_SECONDS, ClockNote, SteadyClock
from signers.trust.timekeeping import NOTE_SECONDS

START = 1_000_000
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 4_000)),
        st.tuples(st.just("set"), st.integers(-5_000, 5_000)),
        st.tuples(st.just("restart"), st.integers(0, 4_000)),
        st.tuples(st.just("reboot"), st.integers(0, 4_000)),
        st.just(("sign", 0)),
    ),
    max_size=60,
)


class Victim:
    """A machine and what its signer's journal keeps, as `Timekeeper` and every signature write it."""

    def __init__(self) -> None:
        self.true, self.wall, self.uptime, self.boots = START, START, 0, 0
        self.latest, self.note, self.noted = 0, None, 0
        self.start()

    latest: int
    note: ClockNote | None
    noted: int

    def start(self) -> None:
        self.clock = SteadyClock(
            self.latest,
            self.note,
            wall=lambda: self.wall,
            uptime=lambda: self.uptime,
            boot=lambda: str(self.boots),
        )
        self.noted = 0

    def move(self, what: str, seconds: int) -> None:
        if what in ("set", "sign"):
            self.wall += seconds
            return
        self.true += seconds
        self.wall += seconds
        self.uptime += seconds
        if what == "reboot":
            self.uptime, self.boots = 0, self.boots + 1
        if what != "wait":
            self.start()

    def sign(self) -> int | None:
        """The time under which it would sign now, None if it would not; the journal keeps that time."""
        try:
            now = self.clock.now()
        except ClockUnsteady:
            if self.clock.note().suspended:
                self.note = self.clock.note()
            return None
        self.latest = now
        if now >= self.noted + NOTE_SECONDS:
            self.note, self.noted = self.clock.note(), now
        return now


@given(MOVES)
@example([("set", 119), ("sign", 0), ("reboot", 1)] * 40)
@example([("set", 119), ("reboot", 1)] * 40)
@example([("reboot", 0), ("set", 3_000)] * 20)
@example([("set", 119), ("sign", 0), ("restart", 1)] * 60)
def test_fault_34_all_that_a_lying_clock_gains_is_an_hour_and_two_minutes(
    moves: list[tuple[str, int]],
) -> None:
    victim, before = Victim(), 0
    assert victim.sign() == START
    for what, seconds in moves:
        victim.move(what, seconds)
        # Each start and each second notes the time; he may stop it before the next one.
        now = victim.sign() if what in ("sign", "restart", "reboot") else None
        if now is not None:
            assert now >= before, "time never goes back"
            assert now - victim.true <= MAX_STOP_SECONDS + MAX_JUMP_SECONDS
            before = now
