"""What every travel-rule exchange does, and what an outbox of files does besides."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from custody.storage.sealing import KeyRing, Keys, add_key
from custody.travelrule.ivms101 import read
from custody.travelrule.ports import (
    ExchangeRefused,
    ExchangeUnavailable,
    FileOutbox,
    Transfer,
    TravelRuleExchange,
)
from tests.support.ivms import travel_rule

SECRET = "Kaltenbrunner"


def transfer(id_: str | None = None, units: str = "100") -> Transfer:
    data = read(travel_rule("bc1q", family=SECRET))
    return Transfer(id_ or str(uuid4()), "bitcoin-regtest", "BTC", units, "bc1q", data)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    add_key(tmp_path / "ring", "first")
    return KeyRing(tmp_path / "ring")


@pytest.fixture
def outbox(tmp_path: Path, ring: KeyRing) -> FileOutbox:
    (tmp_path / "outbox").mkdir()
    return FileOutbox(tmp_path / "outbox", ring)


@pytest.fixture(params=["outbox"])
def exchange(request: pytest.FixtureRequest) -> TravelRuleExchange:
    """Every implementation that there is."""
    found: TravelRuleExchange = request.getfixturevalue(request.param)
    return found


def test_the_same_transfer_again_has_the_same_reference(exchange: TravelRuleExchange) -> None:
    one, other = transfer(), transfer()
    reference = exchange.deliver(one)
    assert reference
    assert exchange.deliver(one) == reference
    assert exchange.deliver(other) != reference


def test_an_id_that_came_with_other_content_is_refused(exchange: TravelRuleExchange) -> None:
    one = transfer()
    exchange.deliver(one)
    with pytest.raises(ExchangeRefused) as caught:
        exchange.deliver(transfer(one.id, "101"))
    assert SECRET not in str(caught.value)
    exchange.deliver(one)


def test_nothing_of_a_transfer_is_shown() -> None:
    assert SECRET not in repr(transfer())


def test_what_lies_in_the_outbox_is_sealed_private_and_whole(outbox: FileOutbox) -> None:
    one = transfer()
    name = outbox.deliver(one)
    path = outbox.directory / name
    assert os.listdir(outbox.directory) == [name]
    assert path.stat().st_mode & 0o077 == 0
    assert SECRET.encode() not in path.read_bytes()
    assert outbox.read(one.id) == one


def test_a_file_that_was_changed_or_is_another_transfers_is_refused(outbox: FileOutbox) -> None:
    one, other = transfer(), transfer()
    first, second = (outbox.directory / outbox.deliver(each) for each in (one, other))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ExchangeRefused):
        outbox.read(other.id)
    with pytest.raises(ExchangeRefused):
        outbox.deliver(other)
    first.write_bytes(first.read_bytes()[:-1] + b"\0")
    with pytest.raises(ExchangeRefused):
        outbox.read(one.id)


def test_an_outbox_that_is_away_is_tried_again(outbox: FileOutbox) -> None:
    one = transfer()
    outbox.directory.rmdir()
    with pytest.raises(ExchangeUnavailable):
        outbox.deliver(one)
    with pytest.raises(ExchangeUnavailable):
        outbox.read(one.id)
    outbox.directory.mkdir()
    outbox.deliver(one)


def test_a_write_that_dies_leaves_no_half_file(
    outbox: FileOutbox, monkeypatch: pytest.MonkeyPatch, ring: Callable[[], Keys]
) -> None:
    one = transfer()

    def die(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", die)
        with pytest.raises(ExchangeUnavailable, match="No space"):
            outbox.deliver(one)
    assert os.listdir(outbox.directory) == []
    outbox.deliver(one)
    assert outbox.read(one.id) == one
