"""Who holds a place at the listener, and who has to make room."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from signers.process.places import MEMORY_BYTES, STRANGER, Connection, Doing, NoPlace, Places

NANO = 1_000_000_000


@dataclass
class Hall:
    """Places on a clock that the test turns, and the other ends of all connections."""

    now: int = 0
    ends: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = Places(2, nanoseconds=lambda: self.now, leaving_seconds=0)

    def enter(self, client: str = STRANGER) -> Connection:
        self.now += 1
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.ends += [ours, theirs]
        return self.places.enter(ours, client)

    def at(self, client: str, doing: Doing) -> Connection:
        connection = self.enter(client)
        self.places.now(connection, doing)
        return connection


@pytest.fixture
def hall() -> Iterator[Hall]:
    made = Hall()
    yield made
    for end in made.ends:
        end.close()


def test_who_has_waited_longest_makes_room_for_the_same_client(hall: Hall) -> None:
    first, second = hall.at("a", Doing.IDLE), hall.at("a", Doing.READING)
    other = hall.at("b", Doing.IDLE)
    third = hall.enter("a")
    assert [c.dropped for c in (first, second, other, third)] == [True, False, False, False]
    assert hall.ends[1].recv(1) == b""


def test_a_call_at_work_is_never_dropped_for_a_place(hall: Hall) -> None:
    working = [hall.at("a", Doing.WORKING) for _ in range(2)]
    with pytest.raises(NoPlace):
        hall.enter("a")
    assert not any(c.dropped for c in working)
    hall.places.leave(working[0])
    hall.enter("a")


def test_who_was_dropped_is_not_served_any_more(hall: Hall) -> None:
    first = hall.at("a", Doing.READING)
    hall.enter("a")
    hall.enter("a")
    with pytest.raises(NoPlace):
        hall.places.now(first, Doing.WORKING)


def test_places_whose_threads_have_not_ended_yet_are_bounded_too(hall: Hall) -> None:
    for _ in range(4):
        hall.enter("a")
    with pytest.raises(NoPlace):
        hall.enter("a")


def test_whoever_comes_waits_for_those_that_were_dropped_to_leave() -> None:
    hall = Hall()
    hall.places = Places(2, leaving_seconds=30)
    gone, *_ = [hall.enter("a") for _ in range(4)]
    thread = threading.Thread(target=hall.enter, args=("a",))
    thread.start()
    hall.places.leave(gone)
    thread.join(20)
    assert not thread.is_alive()
    assert hall.places.count() == 4
    for end in hall.ends:
        end.close()


def test_strangers_push_out_strangers_only(hall: Hall) -> None:
    client = hall.at("a", Doing.IDLE)
    strangers = [hall.enter() for _ in range(3)]
    assert [c.dropped for c in strangers] == [True, False, False]
    hall.places.known(strangers[1], "a")
    hall.enter()
    assert [c.dropped for c in strangers] == [True, False, False]
    assert not client.dropped


@pytest.mark.parametrize(
    ("doing", "seconds"), [(Doing.HANDSHAKE, 10), (Doing.IDLE, 600), (Doing.READING, 30), (Doing.WRITING, 30)]
)
def test_who_takes_too_long_is_dropped(hall: Hall, doing: Doing, seconds: int) -> None:
    connection = hall.at("a", doing)
    hall.now = connection.since + seconds * NANO
    hall.places.drop_overdue()
    assert not connection.dropped
    hall.now += 1
    hall.places.drop_overdue()
    assert connection.dropped


def test_the_signers_own_time_is_not_counted(hall: Hall) -> None:
    connection = hall.at("a", Doing.WORKING)
    hall.now += 10_000 * NANO
    hall.places.drop_overdue()
    assert not connection.dropped


def test_memory_is_counted_by_client_and_given_back(hall: Hall) -> None:
    first, second = hall.at("a", Doing.READING), hall.at("a", Doing.READING)
    hall.places.hold(first, MEMORY_BYTES)
    hall.places.hold(hall.at("b", Doing.READING), MEMORY_BYTES)
    hall.places.free(first)
    hall.places.hold(second, MEMORY_BYTES)
    hall.places.leave(second)
    assert hall.places.count() == 2
    hall.places.hold(first, MEMORY_BYTES)


def test_who_waits_for_memory_when_dropped_ends(hall: Hall) -> None:
    first, second = hall.at("a", Doing.WORKING), hall.at("a", Doing.READING)
    hall.places.hold(first, MEMORY_BYTES)
    hall.enter("a")
    with pytest.raises(NoPlace):
        hall.places.hold(second, MEMORY_BYTES)
