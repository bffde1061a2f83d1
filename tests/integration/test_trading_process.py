"""The trading core as a process: orders over REST and WebSocket, money in and out, and who may do what."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from custody.web.client import ApiRefused
from ops.devnet.process import wait_until
from tests.fakes.trading_core import (
    AUDIENCE,
    BTC,
    FakeCustody,
    TradingProcess,
    deposit,
    order,
    served,
    trading_process,
)
from tests.fakes.trading_desk import DOLLAR

ROOT = Path(__file__).parents[2]


@pytest.fixture
def custody() -> FakeCustody:
    made = FakeCustody()
    made.fund("alice", "USDX", 1_000_000 * DOLLAR)
    made.fund("bob", "BTC", 100 * BTC)
    made.fund("bot", "BTC", 100 * BTC)
    return made


@pytest.fixture
def core(tmp_path: Path, custody: FakeCustody) -> Iterator[TradingProcess]:
    with served(custody) as url, trading_process(tmp_path / "t", url) as running:
        yield running


def settled(core: TradingProcess, custody: FakeCustody, fills: int) -> None:
    wait_until(lambda: len(custody.fills) >= fills, timeout=30, what=f"{fills} fills are settled")


def test_the_known_case_from_deposit_to_withdrawal(core: TradingProcess, custody: FakeCustody) -> None:
    client = core.client()
    assert deposit(client, "alice", "USDX", "200000")["state"] == "done"
    assert deposit(client, "bob", "BTC", "2")["state"] == "done"
    orders = "/v1/customers/{}/orders"
    client.post(orders.format("bob"), order(1, "sell", "60300", "0.8"))
    client.post(orders.format("bob"), order(2, "sell", "60400", "1.2"))
    depth = client.get("/v1/markets/BTC-USDX/depth")
    assert depth["asks"] == [["60300.000000", "0.80000000"], ["60400.000000", "1.20000000"]]
    taken = client.post(orders.format("alice"), order(1, "buy", None, "2", type="market"))
    assert (taken["status"], taken["average_price"], taken["filled_base"]) == (
        "filled",
        "60360.000000",
        "2.00000000",
    )
    assert taken["fees"] == "120.720000"
    settled(core, custody, 2)
    assert custody.trading["alice", "BTC"] == 2 * BTC
    assert custody.trading["bob", "USDX"] == 120_720 * DOLLAR - 96_576_000
    assert custody.fees["USDX"] == 120_720_000 + 96_576_000
    shown = client.get("/v1/customers/alice/balances")["balances"]
    assert shown == [
        {"asset": "BTC", "free": "2.00000000", "held": "0.00000000"},
        {"asset": "USDX", "free": "79159.280000", "held": "0.000000"},
    ]
    fills = client.get("/v1/customers/bob/fills")["items"]
    assert [(fill["price"], fill["role"], fill["fee"]) for fill in fills] == [
        ("60300.000000", "maker", "38.592000"),
        ("60400.000000", "maker", "57.984000"),
    ]
    assert deposit(client, "alice", "BTC", "2", to="funding")["state"] == "done"
    assert custody.funding["alice", "BTC"] == 2 * BTC
    with pytest.raises(ApiRefused) as refused:
        deposit(client, "alice", "BTC", "0.1", to="funding")
    assert refused.value.problem["code"] == "insufficient_funds"
    candles = client.get("/v1/markets/BTC-USDX/candles", {"interval": "1d"})["items"]
    assert [(c["open"], c["close"], c["base_volume"], c["trades"]) for c in candles] == [
        ("60300.000000", "60400.000000", "2.00000000", 2)
    ]
    ticker = client.get("/v1/markets/BTC-USDX/ticker")
    assert (ticker["last"], ticker["base_volume"], ticker["ask"]) == ("60400.000000", "2.00000000", None)
    assert [trade["price"] for trade in client.get("/v1/markets/BTC-USDX/trades")["items"]] == [
        "60400.000000",
        "60300.000000",
    ]


def say(stream: Any, **message: Any) -> None:
    stream.send(json.dumps(message))


def hear(stream: Any, type: str) -> dict[str, Any]:
    while True:
        message: dict[str, Any] = json.loads(stream.recv(timeout=30))
        assert message["type"] != "problem" or type == "problem", message
        if message["type"] == type:
            return message


def test_the_stream_takes_orders_and_tells_of_depth_trades_and_own_orders(core: TradingProcess) -> None:
    client = core.client()
    deposit(client, "alice", "USDX", "100000")
    deposit(client, "bot", "BTC", "2")
    with core.stream() as stream, core.stream("bot") as bot:
        say(stream, op="subscribe", id="s", channel="depth", market="BTC-USDX")
        snapshot = hear(stream, "depth_snapshot")
        say(stream, op="subscribe", channel="orders", customer="alice")
        hear(stream, "orders")
        say(bot, op="place", id="1", customer="bot", order=order(1, "sell", "50000", "1"))
        assert hear(bot, "answer")["order"]["status"] == "open"
        change = hear(stream, "depth")
        assert change["previous"] == snapshot["sequence"]
        assert change["asks"] == [["50000.000000", "1.00000000"]]
        say(stream, op="place", id="2", customer="alice", order=order(1, "buy", "50000", "0.4"))
        found = hear(stream, "fill")
        assert (found["role"], found["base_amount"]) == ("taker", "0.40000000")
        after = hear(stream, "depth")
        assert (after["previous"], after["asks"]) == (change["sequence"], [["50000.000000", "0.60000000"]])
        say(bot, op="place", id="3", customer="alice", order=order(9, "buy", "50000", "0.4"))
        assert hear(bot, "problem")["problem"]["type"].endswith("not-your-customer")
        say(bot, op="cancel", id="4", customer="bot", client_order_id="o-1")
        assert hear(bot, "answer")["order"]["status"] == "cancelled"
        before = client.get("/v1/customers/alice/orders/o-1")
        core.kill(signal.SIGTERM)
        with pytest.raises(ConnectionClosed):
            hear(stream, "nothing more")
    core.start()
    assert client.get("/v1/customers/alice/orders/o-1") == before
    assert client.get("/v1/status")["sequence"] == client.get("/v1/markets/BTC-USDX/depth")["sequence"]


def test_who_may_not_is_told_why(core: TradingProcess) -> None:
    with pytest.raises(ApiRefused) as refused:
        core.client("watcher").post("/v1/customers/alice/orders", order(1, "buy", "1", "1"))
    assert refused.value.kind == "missing-scope"
    with pytest.raises(ApiRefused) as refused:
        core.client("bot").get("/v1/customers/alice/balances")
    assert refused.value.kind == "not-your-customer"
    with pytest.raises(ApiRefused) as refused:
        core.client().post("/v1/markets/BTC-USDX/state", {"state": "halted"})
    assert refused.value.kind == "missing-scope"
    with httpx.Client(base_url=core.url, trust_env=False) as stranger:
        assert stranger.get("/readyz").json() == {"ready": True, "alarms": []}
        assert "/v1/customers/{customer}/orders" in stranger.get("/openapi.json").json()["paths"]
        missing = stranger.get("/v1/markets")
        assert (missing.status_code, missing.json()["type"]) == (401, "urn:strongroom:problem:missing-token")
    with pytest.raises(InvalidStatus), connect(core.url.replace("http", "ws") + "/v1/stream"):
        pass
    halted = core.client("otto").post("/v1/markets/BTC-USDX/state", {"state": "halted"})
    assert halted["state"] == "halted"


def test_a_post_again_gets_the_same_answer_and_with_another_body_409(core: TradingProcess) -> None:
    client = core.client()
    deposit(client, "alice", "USDX", "100000")
    body = order(1, "buy", "50000", "0.4")
    first = client.send("POST", "/v1/customers/alice/orders", None, body, idempotency_key="k")
    again = client.send("POST", "/v1/customers/alice/orders", None, body, idempotency_key="k")
    assert (first.status_code, again.content) == (201, first.content)
    assert (first.headers["idempotency-replayed"], again.headers["idempotency-replayed"]) == ("false", "true")
    other = client.send(
        "POST", "/v1/customers/alice/orders", None, {**body, "price": "1"}, idempotency_key="k"
    )
    assert (other.status_code, other.json()["type"]) == (409, "urn:strongroom:problem:idempotency-key-reused")
    # Under another key the client order id keeps it from happening twice.
    assert client.post("/v1/customers/alice/orders", body)["order"] == first.json()["order"]
    with pytest.raises(ApiRefused) as refused:
        client.post("/v1/customers/alice/orders", {**body, "price": "1"})
    assert refused.value.problem["code"] == "duplicate_client_order_id"


def test_what_the_readme_says_to_type_works(core: TradingProcess, custody: FakeCustody) -> None:
    custody.fund("dave", "USDX", 250 * DOLLAR)
    section = (ROOT / "README.md").read_text().split("### Trading core\n")[1].split("\n### ")[0]
    shell, program = (block.split("```")[0] for block in re.split(r"```(?:sh|python)\n", section)[1:])
    key = core.directory / "exchange.pem"
    core.keys["exchange"].save(key)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "STRONGROOM_API_URL": core.url,
        "STRONGROOM_AUDIENCE": "custody's own",
        "STRONGROOM_CALLER": "exchange",
        "STRONGROOM_CALLER_KEY": str(key),
        "STRONGROOM_TRADING_URL": core.url,
        "STRONGROOM_TRADING_AUDIENCE": AUDIENCE,
    }
    # All but the line that reads a trial's own environment.
    typed = shell.split("\n", 1)[1]
    said = subprocess.run(
        ["bash", "-euc", typed],
        cwd=core.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    markets, moved, placed, depth, balances, cancelled, status = map(json.loads, said.splitlines())
    assert [market["id"] for market in markets["items"]] == ["BTC-USDX"]
    assert moved["state"] == "done"
    assert (placed["status"], cancelled["status"]) == ("open", "cancelled")
    assert depth["bids"] == [["59000.000000", "0.00200000"]]
    assert balances["balances"] == [{"asset": "USDX", "free": "81.882000", "held": "118.118000"}]
    assert status["alarms"] == []
    heard = subprocess.run(
        [sys.executable, "-c", program],
        cwd=core.directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [json.loads(line)["type"] for line in heard.splitlines()].count("answer") == 3
