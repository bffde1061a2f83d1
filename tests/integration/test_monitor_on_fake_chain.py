"""The monitor on a real database and a chain in memory: every turn that a chain can take, quickly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chains.btc.tx import TxOut
from custody.monitor.monitor import Options
from tests.fakes.chain import FakeChain
from tests.fakes.desk import Desk, open_desk

START = Options(start_height=0, held_again_seconds=0, heartbeat_seconds=0)
UNITS = 1_234_567


@pytest.fixture
def chain() -> FakeChain:
    chain = FakeChain()
    chain.mine(3)
    return chain


@pytest.fixture
def desk(database: str, chain: FakeChain) -> Iterator[Desk]:
    with open_desk(database, chain, options=START) as desk:
        yield desk


def test_a_deposit_is_seen_then_confirming_then_credited_after_six_blocks(
    desk: Desk, chain: FakeChain
) -> None:
    desk.customer("alice")
    address = desk.address("alice")
    desk.catch_up()
    chain.pay([TxOut(5_000, b"\x51"), TxOut(UNITS, address.script)])
    desk.catch_up()
    assert desk.states() == ["seen"]
    chain.mine()
    desk.catch_up()
    assert desk.states() == ["confirming"]
    chain.mine(4)
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["confirming"], 0)
    chain.mine()
    desk.catch_up()
    assert (desk.states(), desk.balance("alice")) == (["credited"], UNITS)
    before = desk.contents()
    chain.mine(3)
    desk.catch_up()
    assert desk.contents() == before
    desk.check()
