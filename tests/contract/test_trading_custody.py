"""Custody as the trading core meets it: the tests' fake and the real API, over HTTP, keep the same rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from uuid import UUID

import pytest

from custody.ids import new_id
from custody.trading.client import RestCustody
from custody.trading.failures import CustodyRefused, CustodyUnavailable
from custody.trading.ports import Batch, Cursor, Fill, Target, Transfer
from custody.web.client import RestCaller
from policies.keys import SigningKey
from tests.fakes.api import AUDIENCE
from tests.fakes.trading_core import BTC, FakeCustody, served
from tests.fakes.trading_desk import CORE, DOLLAR, trading_desk

FILL = Fill(12, 1, "BTC", "USDX", "alice", "bob", 80_000_000, 48_240 * DOLLAR, 48_240_000, -9_648_000)


@dataclass
class Side:
    """One implementation, with alice's 100,000 USDX and bob's 2 BTC in funding."""

    custody: RestCustody
    trading: Callable[[str, str], int]
    """What a customer has in trading, base units."""


@contextmanager
def fake(_: str) -> Iterator[Side]:
    made = FakeCustody()
    made.fund("alice", "USDX", 100_000 * DOLLAR)
    made.fund("bob", "BTC", 2 * BTC)
    with served(made) as url, RestCaller(url, "x", "trading", SigningKey.generate(), retries=0) as caller:
        yield Side(RestCustody(caller), lambda customer, asset: made.trading.get((customer, asset), 0))


@contextmanager
def real(database: str) -> Iterator[Side]:
    with trading_desk(database) as desk:
        key = desk.api.keys["trading"]
        with RestCaller(desk.api.url, AUDIENCE, "trading", key, retries=0) as caller:
            yield Side(RestCustody(caller), desk.trading)


@pytest.fixture(params=[fake, real], ids=["fake", "real"])
def side(request: pytest.FixtureRequest, database: str) -> Iterator[Side]:
    make: Callable[[str], AbstractContextManager[Side]] = request.param
    with make(database) as made:
        yield made


def move(side: Side, customer: str, asset: str, units: int, to: Target = "trading") -> Transfer:
    made = Transfer(str(new_id()), customer, asset, units, to)
    side.custody.move(made)
    return made


def funded(side: Side) -> RestCustody:
    move(side, "alice", "USDX", 100_000 * DOLLAR)
    move(side, "bob", "BTC", 2 * BTC)
    return side.custody


def test_a_core_begins_at_nothing_and_goes_on_where_its_last_batch_ended(side: Side) -> None:
    custody = funded(side)
    assert custody.cursor(CORE) == Cursor()
    custody.settle(CORE, Batch(1, 12, True, (FILL,)))
    custody.settle(CORE, Batch(13, 20, True, ()))
    assert custody.cursor(CORE) == Cursor(20, True, 12, 1)
    assert (side.trading("alice", "BTC"), side.trading("bob", "BTC")) == (80_000_000, 120_000_000)
    assert side.trading("alice", "USDX") == 100_000 * DOLLAR - 48_240 * DOLLAR - 48_240_000
    assert side.trading("bob", "USDX") == 48_240 * DOLLAR + 9_648_000


def test_the_same_batch_again_changes_nothing_and_one_out_of_order_is_refused(side: Side) -> None:
    custody = funded(side)
    batch = Batch(1, 12, True, (FILL,))
    custody.settle(CORE, batch)
    custody.settle(CORE, batch)
    assert side.trading("alice", "BTC") == 80_000_000
    for first in (5, 14):
        with pytest.raises(CustodyRefused) as refused:
            custody.settle(CORE, Batch(first, 30, True, ()))
        assert refused.value.code == "settlement-out-of-order"


def test_a_commands_fills_may_come_in_several_batches(side: Side) -> None:
    custody = funded(side)
    half = Fill(12, 1, "BTC", "USDX", "alice", "bob", 40_000_000, 24_120 * DOLLAR, 24_120_000, 0)
    rest = Fill(12, 3, "BTC", "USDX", "alice", "bob", 40_000_000, 24_120 * DOLLAR, 24_120_000, 0)
    custody.settle(CORE, Batch(1, 12, False, (half,)))
    assert custody.cursor(CORE) == Cursor(12, False, 12, 1)
    custody.settle(CORE, Batch(12, 12, True, (rest,)))
    assert custody.cursor(CORE) == Cursor(12, True, 12, 3)
    assert side.trading("alice", "BTC") == 80_000_000


def test_a_fill_that_the_ledger_cannot_pay_is_refused_and_nothing_of_its_batch_is_done(side: Side) -> None:
    custody = side.custody
    move(side, "bob", "BTC", 2 * BTC)
    with pytest.raises(CustodyRefused) as refused:
        custody.settle(CORE, Batch(1, 12, True, (FILL,)))
    assert refused.value.code == "ledger-rejected"
    assert side.trading("bob", "BTC") == 2 * BTC
    assert custody.cursor(CORE) == Cursor()


def test_a_transfer_is_made_once_for_its_id_and_not_without_money(side: Side) -> None:
    made = move(side, "bob", "BTC", BTC)
    side.custody.move(made)
    assert side.trading("bob", "BTC") == BTC
    for wanted, code in (
        (Transfer(made.id, "bob", "BTC", BTC - 1, "trading"), "transfer-exists"),
        (Transfer(str(new_id()), "bob", "BTC", BTC + 1, "trading"), "insufficient-funds"),
        (Transfer(str(new_id()), "bob", "BTC", BTC + 1, "funding"), "insufficient-funds"),
    ):
        with pytest.raises(CustodyRefused) as refused:
            side.custody.move(wanted)
        assert refused.value.code == code
    move(side, "bob", "BTC", BTC, to="funding")
    assert side.trading("bob", "BTC") == 0


def test_a_custody_that_is_not_there_is_unavailable() -> None:
    calls: tuple[Callable[[RestCustody], object], ...] = (
        lambda custody: custody.cursor(UUID(int=1)),
        lambda custody: custody.settle(CORE, Batch(1, 1, True, ())),
        lambda custody: custody.move(Transfer(str(new_id()), "bob", "BTC", 1, "trading")),
    )
    with RestCaller("http://127.0.0.1:9", "x", "trading", SigningKey.generate(), retries=0) as caller:
        for call in calls:
            with pytest.raises(CustodyUnavailable):
                call(RestCustody(caller))
