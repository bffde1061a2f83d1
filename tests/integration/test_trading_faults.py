"""The trading core killed, cut off from custody, and with a reader who does not read."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from websockets.exceptions import ConnectionClosed

from custody.ids import new_id
from custody.trading import snapshots
from custody.trading.codec import decode_command, encode_events
from custody.trading.core import Applied
from custody.trading.engine import Engine
from custody.trading.journal import read
from custody.trading.outbox import Outbox
from custody.trading.ports import Cursor, Fill, Transfer
from custody.web.client import ApiUnavailable
from ops.devnet.process import wait_until
from tests.fakes.trading_core import (
    BTC,
    FakeCustody,
    TradingProcess,
    deposit,
    order,
    served,
    trading_process,
)
from tests.fakes.trading_desk import DOLLAR

EXTRA = "segment_kilobytes = 100"


@pytest.fixture
def custody() -> FakeCustody:
    made = FakeCustody()
    made.fund("alice", "USDX", 100_000_000 * DOLLAR)
    made.fund("bob", "BTC", 10_000 * BTC)
    return made


@pytest.fixture
def core(tmp_path: Path, custody: FakeCustody) -> Iterator[TradingProcess]:
    with (
        served(custody) as url,
        trading_process(
            tmp_path / "t", url, extra=EXTRA, custody_extra="max_lag_seconds = 2\nalarm_lag_seconds = 1"
        ) as running,
    ):
        client = running.client()
        deposit(client, "alice", "USDX", "100000000")
        deposit(client, "bob", "BTC", "10000")
        yield running


class Trader(threading.Thread):
    """Places and cancels orders over the stream as fast as answers come, until the connection ends."""

    def __init__(self, core: TradingProcess, name: str, seed: int) -> None:
        super().__init__()
        self._stream = core.stream()
        self._name, self._random = name, random.Random(seed)
        self._prefix = f"{name}-{seed}"
        self.answers: list[dict[str, Any]] = []

    def run(self) -> None:
        try:
            with self._stream as stream:
                for number in range(1_000_000):
                    stream.send(json.dumps(self._message(number)))
                    if number >= 50:
                        self.answers.append(json.loads(stream.recv(timeout=60)))
        except ConnectionClosed:
            return

    def _message(self, number: int) -> dict[str, Any]:
        if number % 3 == 2:
            old = f"o-{self._prefix}-{number - self._random.randint(1, 40)}"
            return {"op": "cancel", "customer": self._name, "client_order_id": old}
        price = 50_000 + self._random.randint(-20, 20)
        size = self._random.randint(1, 50)
        body = order(
            f"{self._prefix}-{number}",
            "buy" if self._name == "alice" else "sell",
            str(price),
            f"0.00{size:02}",
        )
        return {"op": "place", "customer": self._name, "order": body}


def replay(core: TradingProcess, *, snapshot: bool) -> tuple[Engine, dict[int, bytes], list[Fill]]:
    """The journal as it is, applied again: the engine, each command's events as bytes, and all fills."""
    root = core.directory / "core"
    id = UUID(json.loads((root / "core.json").read_text())["core"])
    found = snapshots.newest(root / "snapshots", id, at_most=1 << 60) if snapshot else None
    done, engine = found if found is not None else (0, snapshots.new_engine())
    outbox = Outbox(lambda name: engine.books[name].market, Cursor())
    events = {}
    for sequence, record in read(root / "journal", id, done + 1):
        applied = Applied(sequence, command := decode_command(record), engine.apply(command))
        events[sequence] = encode_events(applied.events)
        outbox.take(applied)
    fills: list[Fill] = []
    while (due := outbox.next(1 << 60)) is not None:
        if isinstance(due, Transfer):
            outbox.handed_over(due)
        else:
            fills += due.fills
            outbox.settled(due)
    return engine, events, fills


def they_trade(traders: list[Trader]) -> bool:
    return sum(len(trader.answers) for trader in traders) > 1_500


def wait_for_fills(custody: FakeCustody, count: int) -> None:
    wait_until(lambda: len(custody.fills) >= count, timeout=60, what="all fills are settled")


def test_fault_50_the_engine_dies_mid_journal_and_the_replay_is_byte_identical(
    core: TradingProcess, custody: FakeCustody
) -> None:
    for seed in range(2):
        before = core.client("otto").get("/v1/digest")
        traders = [Trader(core, "alice", seed), Trader(core, "bob", seed)]
        for trader in traders:
            trader.start()
        wait_until(partial(they_trade, traders), timeout=120, what="they trade")
        core.kill()
        for trader in traders:
            trader.join()

        engine, events, fills = replay(core, snapshot=False)
        again, later_events, _ = replay(core, snapshot=True)
        assert again.digest() == engine.digest()
        assert all(events[sequence] == found for sequence, found in later_events.items())
        # What was answered is in the journal, as what it was answered to be.
        for trader in traders:
            for answer in trader.answers:
                if answer["type"] == "answer" and answer["op"] == "place":
                    assert answer["order"]["client_order_id"].encode() in events[answer["order"]["order"]]
        assert custody.fills == fills[: len(custody.fills)]

        core.start()
        wait_for_fills(custody, len(fills))
        assert custody.fills == fills
        present = core.client("otto").get("/v1/digest")
        assert present["sequence"] >= engine.sequence > before["sequence"]
        if present["sequence"] != engine.sequence:  # time has passed: midnight
            engine, _, _ = replay(core, snapshot=False)
        assert (present["sequence"], present["digest"]) == (engine.sequence, engine.digest().hex())
    place = core.directory / "core" / "snapshots"
    wait_until(lambda: any(place.glob("*.snapshot")), timeout=60, what="a snapshot of what was closed")
    told = core.client("otto").get("/v1/reconciliation")
    assert {(b["customer"], b["asset"]): int(b["units"]) for b in told["balances"]} == custody.trading
    assert custody.total("USDX") == 100_000_000 * DOLLAR
    assert custody.total("BTC") == 10_000 * BTC


def test_while_custody_is_away_trading_goes_on_to_a_bound_then_only_cancels_and_all_is_settled_later(
    core: TradingProcess, custody: FakeCustody
) -> None:
    client = core.client()
    custody.away = True
    path = "/v1/customers/{}/orders"
    client.post(path.format("bob"), order(1, "sell", "50000", "1"))
    assert client.post(path.format("alice"), order(1, "buy", "50000", "0.5"))["status"] == "filled"
    wait_until(lambda: client.get("/v1/status")["alarms"] != [], timeout=30, what="there is an alarm")

    def refused() -> bool:
        try:
            client.post(path.format("alice"), order(2, "buy", "1", "1"))
        except ApiUnavailable as error:
            return str(error.problem["type"]).endswith("settlement-behind")
        return False

    wait_until(refused, timeout=30, what="new orders are refused")
    assert client.post(path.format("bob") + "/o-1/cancel")["status"] == "cancelled"
    waiting = deposit_asked(client, "alice")
    assert waiting["state"] == "debited"
    custody.away = False
    wait_until(lambda: len(custody.fills) == 1, timeout=30, what="the fill is settled")
    wait_until(lambda: waiting["id"] in custody.moves, timeout=30, what="the money is moved")
    wait_until(lambda: client.get("/v1/status")["alarms"] == [], timeout=30, what="the alarm ends")
    assert client.post(path.format("alice"), order(3, "buy", "1", "1"))["status"] == "open"


def deposit_asked(client: Any, customer: str) -> dict[str, Any]:
    body = {"id": str(new_id()), "asset": "BTC", "amount": "0.5", "to": "funding"}
    found: dict[str, Any] = client.post(f"/v1/customers/{customer}/transfers", body)
    return found


def test_what_custody_will_not_take_out_comes_back(core: TradingProcess, custody: FakeCustody) -> None:
    client = core.client()
    custody.frozen.add("alice")
    found = deposit(client, "alice", "USDX", "100", to="funding")
    assert (found["state"], found["reason"]) == ("returned", "customer-frozen")
    (balance,) = client.get("/v1/customers/alice/balances")["balances"]
    assert balance["free"] == "100000000.000000"
    assert deposit(client, "alice", "USDX", "1")["state"] == "refused"


def read_to_the_end(stream: Any) -> None:
    while True:
        stream.recv(timeout=60)


def test_a_reader_who_does_not_read_costs_the_others_nothing(core: TradingProcess) -> None:
    with core.stream() as stream, core.stream(max_queue=1) as lazy:
        lazy.send(json.dumps({"op": "subscribe", "channel": "orders", "customer": "alice"}))

        def cut() -> bool:
            for number in range(200):
                body = order(new_id(), "buy", str(40_000 + number), "0.0001")
                stream.send(json.dumps({"op": "place", "customer": "alice", "order": body}))
            stream.send(json.dumps({"op": "cancel_all", "customer": "alice"}))
            assert [json.loads(stream.recv(timeout=60))["type"] for _ in range(201)] == ["answer"] * 201
            return int(core.client().get("/v1/status")["readers"]) == 1

        wait_until(cut, timeout=100, what="the reader who does not read is cut off, the other one is served")
        with pytest.raises(ConnectionClosed):
            read_to_the_end(lazy)
