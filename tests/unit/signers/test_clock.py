"""Time that never goes back, and that somebody vouches for: uptime, an officer, the quorum."""

from __future__ import annotations

import pytest

from signers.errors import ClockUnsteady
from signers.trust.clock import MAX_JUMP_SECONDS, MAX_STOP_SECONDS, ClockNote, SteadyClock


class Machine:
    """A machine with a wall clock that anybody may set, and an uptime that nobody can."""

    def __init__(self) -> None:
        self.wall, self.uptime, self.boot = 1_000_000, 50, "first"

    def pass_(self, seconds: int) -> None:
        self.wall += seconds
        self.uptime += seconds

    def reboot(self, seconds: int) -> None:
        """Stand still for so long."""
        self.wall += seconds
        self.uptime, self.boot = 0, self.boot + "+"

    def clock(self, latest: int = 0, note: ClockNote | None = None) -> SteadyClock:
        return SteadyClock(
            latest, note, wall=lambda: self.wall, uptime=lambda: self.uptime, boot=lambda: self.boot
        )


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_time_passes_as_on_the_wall(machine: Machine) -> None:
    clock = machine.clock()
    machine.pass_(3600)
    assert clock.now() == 1_003_600


def test_a_small_step_back_stands_still(machine: Machine) -> None:
    clock = machine.clock()
    before = clock.now()
    machine.wall -= 5
    assert clock.now() == before


def test_a_clock_that_went_back_stops_signing_until_it_is_right_again(machine: Machine) -> None:
    clock = machine.clock()
    clock.now()
    machine.wall -= 6
    with pytest.raises(ClockUnsteady, match="set the clock right"):
        clock.now()
    machine.wall += 7
    assert clock.now() == 1_000_001


def test_a_clock_behind_the_journal_stops_signing_and_a_confirmation_does_not_help(machine: Machine) -> None:
    clock = machine.clock(latest=1_000_100)
    clock.confirm(clock.vouched())
    with pytest.raises(ClockUnsteady, match="the journal is at 1000100"):
        clock.now()


def test_a_jump_forward_suspends_even_when_the_clock_comes_back_until_it_is_confirmed(
    machine: Machine,
) -> None:
    clock = machine.clock()
    machine.wall += 24 * 3600
    with pytest.raises(ClockUnsteady, match="jumped 86400 s forward"):
        clock.now()
    machine.wall -= 24 * 3600
    with pytest.raises(ClockUnsteady):
        clock.now()
    assert "jumped 86400 s" in clock.trouble
    clock.confirm(clock.vouched())
    assert clock.trouble == ""
    assert clock.now() == 1_000_000


def test_a_suspended_machine_is_no_jump(machine: Machine) -> None:
    clock = machine.clock()
    machine.pass_(24 * 3600)
    assert clock.now() == 1_086_400


def test_small_steps_forward_add_up_to_a_jump(machine: Machine) -> None:
    clock = machine.clock()
    for _ in range(4):
        machine.wall += 30
        clock.now()
    machine.wall += 30
    with pytest.raises(ClockUnsteady, match="jumped 150 s"):
        clock.now()


def test_a_suspension_survives_a_restart(machine: Machine) -> None:
    clock = machine.clock()
    machine.wall += 1000
    with pytest.raises(ClockUnsteady):
        clock.now()
    machine.wall -= 1000
    with pytest.raises(ClockUnsteady, match="jumped 1000 s"):
        machine.clock(1_000_000, clock.note()).now()


def test_a_jump_while_the_signer_is_down_is_found_as_the_machine_ran_on(machine: Machine) -> None:
    note = machine.clock().note()
    machine.pass_(60)
    machine.wall += 300
    with pytest.raises(ClockUnsteady, match="jumped 300 s"):
        machine.clock(1_000_000, note).now()


def test_a_short_stop_of_the_signer_or_of_the_machine_is_none(machine: Machine) -> None:
    note = machine.clock().note()
    machine.pass_(MAX_STOP_SECONDS)
    latest = machine.clock(1_000_000, note).now()
    machine.reboot(60)
    assert machine.clock(latest, note).now() == latest + 60


@pytest.mark.parametrize("how", ["the signer", "the machine"])
def test_a_long_stop_suspends(machine: Machine, how: str) -> None:
    note = machine.clock().note()
    stop = machine.pass_ if how == "the signer" else machine.reboot
    stop(MAX_STOP_SECONDS + 1)
    clock = machine.clock(1_000_000, note)
    with pytest.raises(ClockUnsteady, match="stood still for 3601 s"):
        clock.now()
    clock.confirm(clock.vouched())
    assert clock.now() == 1_003_601


def test_many_short_stops_of_the_machine_add_up(machine: Machine) -> None:
    """Whoever restarts a machine with its clock a little ahead each time does not move time on by days."""
    latest, note = 1_000_000, machine.clock().note()
    for _ in range(20):
        machine.reboot(60)
        clock = machine.clock(latest, note)
        latest, note = clock.now(), clock.note()
    machine.reboot(60)
    with pytest.raises(ClockUnsteady, match="no uptime vouches for 3780 s"):
        machine.clock(latest, note).now()


def test_a_confirmation_begins_the_sum_of_stops_anew(machine: Machine) -> None:
    note = machine.clock().note()
    machine.reboot(3000)
    clock = machine.clock(1_000_000, note)
    clock.confirm(clock.vouched())
    latest = clock.now()
    machine.reboot(3000)
    assert machine.clock(latest, clock.note()).now() == latest + 3000


def test_a_clock_that_is_held_back_stops_signing_for_else_nothing_would_ever_expire(machine: Machine) -> None:
    clock = machine.clock()
    machine.uptime += MAX_JUMP_SECONDS
    assert clock.now() == 1_000_000
    machine.uptime += 1
    with pytest.raises(ClockUnsteady, match="fell 121 s behind"):
        clock.now()
    machine.wall += 121
    assert clock.now() == 1_000_121


def test_a_new_journal_has_not_stood_still(machine: Machine) -> None:
    assert machine.clock(0).now() == 1_000_000


def test_the_real_clock_runs() -> None:
    clock = SteadyClock(0)
    assert clock.now() <= clock.now()
    assert len(clock.note().boot) == 36
