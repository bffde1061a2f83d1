from __future__ import annotations

import pytest

from signers.clock import SteadyClock
from signers.errors import ClockUnsteady


class Times:
    wall = 1_000_000.0
    uptime = 50.0


@pytest.fixture
def times() -> Times:
    return Times()


def clock_of(times: Times, latest: int = 0) -> SteadyClock:
    return SteadyClock(latest, wall=lambda: times.wall, uptime=lambda: times.uptime)


def test_time_passes_as_on_the_wall(times: Times) -> None:
    clock = clock_of(times)
    times.wall += 3600
    times.uptime += 3600
    assert clock.now() == 1_003_600


def test_a_small_step_back_stands_still(times: Times) -> None:
    clock = clock_of(times)
    before = clock.now()
    times.wall -= 5
    assert clock.now() == before


def test_a_clock_that_went_back_stops_signing_until_it_is_right_again(times: Times) -> None:
    clock = clock_of(times)
    clock.now()
    times.wall -= 6
    with pytest.raises(ClockUnsteady, match="set the clock right"):
        clock.now()
    times.wall += 7
    assert clock.now() == 1_000_001


def test_a_clock_behind_the_journal_stops_signing(times: Times) -> None:
    with pytest.raises(ClockUnsteady, match="the journal is at 1000100"):
        clock_of(times, latest=1_000_100).now()


def test_a_jump_forward_suspends_even_when_the_clock_comes_back_until_it_is_confirmed(times: Times) -> None:
    clock = clock_of(times)
    times.wall += 24 * 3600
    with pytest.raises(ClockUnsteady, match="jumped 86400 s forward"):
        clock.now()
    times.wall -= 24 * 3600
    with pytest.raises(ClockUnsteady):
        clock.now()
    clock.confirm()
    assert clock.now() == 1_000_000


def test_a_suspended_machine_is_no_jump(times: Times) -> None:
    clock = clock_of(times)
    times.wall += 24 * 3600
    times.uptime += 24 * 3600
    assert clock.now() == 1_086_400
