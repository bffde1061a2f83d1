"""How long an order over WebSocket takes to be acknowledged, at the 99th percentile, beside a ping to the same
process.

The process is `strongroom trading` itself: token, JSON, limits, group commit on the disk, engine, answer. The
ping takes the same way in and out, and does nothing between. Eight connections, each with four messages in
flight; half of the orders rest, 45 % are cancels, 5 % take. Client and server share the machine's cores, and
custody is away: settling costs nothing here.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

from ops.bench.compare import Row
from ops.devnet.files import part_directory
from ops.devnet.process import ManagedProcess, free_port, release_port

if TYPE_CHECKING:
    from policies.keys import SigningKey

_CONNECTIONS: Final = 8
_IN_FLIGHT: Final = 4
_MESSAGES: Final = 1_000
"""Of each connection."""
_REPEATS: Final = 3
_AUDIENCE: Final = "bench"
_CALLER: Final = "bench"
_SETTINGS: Final = """
directory = "{directory}/core"
audience = "bench"
bundle_path = "{directory}/bundle.json"
trust_root_path = "{directory}/trust-root.json"
port = {port}

[custody]
url = "http://127.0.0.1:9"
audience = "nobody"
caller = "nobody"
key_path = "{key}"
max_unsettled = 1000000000
max_lag_seconds = 1000000000

[fees]
reference = "USDX"
tiers = [{{ volume = "0", discount_percent = 0 }}]

[[markets]]
id = "BTC-USDX"
base = "BTC"
quote = "USDX"
tick = "0.01"
lot = "0.0001"
minimum_notional = "1"
maker_ppm = 800
taker_ppm = 1000
open_orders = 100000
band_bps = 0
breaker_bps = 0

[[callers]]
id = "bench"
customers = ["*"]
per_second = 1000000
"""


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Milliseconds at the 99th percentile; less is better."""
    directory = part_directory("strongroom-bench-")
    port = free_port()
    try:
        progress("trading-ws: starting the trading core")
        key = _prepare(directory, port)
        service = ManagedProcess(
            "trading",
            [sys.executable, "-m", "custody.trading"],
            log_path=directory / "trading.log",
            env={**os.environ, "STRONGROOM_CONFIG": str(directory / "trading.toml")},
        )
        with service:
            service.wait_ready(lambda: _ready(port), timeout=60)
            progress(f"trading-ws: {_CONNECTIONS * _MESSAGES} orders over {_CONNECTIONS} connections")
            found = [_measure(port, key, kind) for _ in range(_REPEATS) for kind in ("order", "ping")]
            yield Row(
                "trading-ws p99",
                statistics.median(found[0::2]),
                statistics.median(found[1::2]),
                "a ping to the same process, no journal, no engine (less is better)",
                "ms",
            )
    finally:
        release_port(port)
        shutil.rmtree(directory, ignore_errors=True)


def _prepare(directory: Path, port: int) -> SigningKey:
    """A bundle that names one caller, settings, and a journal in which its customers have money."""
    from embit import bip32
    from embit.networks import NETWORKS

    from custody.ids import new_id
    from custody.trading import config
    from custody.trading.codec import encode_command
    from custody.trading.commands import Configure, Deposit, SetMarketState
    from custody.trading.core import system_micros
    from custody.trading.journal import Journal
    from custody.trading.starting import Places, core_id
    from ops.stack.keys import person
    from ops.stack.listing import bitcoin, evm
    from ops.stack.networks import ETHEREUM
    from ops.stack.quorum import CallerGrant, make_bundle, make_quorum, publish
    from policies.bundle import BitcoinKeyset, EvmKeyset

    caller = person(directory / "callers", _CALLER, organisation="bench")
    quorum = make_quorum(directory / "officers")
    master = bip32.HDKey.from_seed(bytes(range(64)), version=NETWORKS["regtest"]["xprv"])
    hot = BitcoinKeyset(
        id="hot-btc",
        chain="bitcoin-regtest",
        tier="hot",
        account=master.derive("m/84h/1h/0h").to_public().to_base58(),
        origin=f"{bytes(master.my_fingerprint).hex()}/84'/1'/0'",
        attestation_key=caller.key.public_hex,
    )
    ethereum = EvmKeyset(
        id="eth-hot",
        chain=ETHEREUM.chain,
        tier="hot",
        attestation_key=caller.key.public_hex,
        address="0x" + "22" * 20,
        factory="0x" + "33" * 20,
        forwarder="44" * 32,
        payout=None,
    )
    bundle = make_bundle(
        version=1,
        listings=[bitcoin(hot), evm(ETHEREUM, "ab" * 32, ethereum, {"USDX": "0x" + "11" * 20})],
        callers=[CallerGrant(caller, ("trading:read", "trading:write"))],
        quorum=quorum,
    )
    publish(directory, quorum.sign(bundle), quorum.trust_root(minimum_version=1))
    text = _SETTINGS.format(directory=directory, port=port, key=caller.key_file)
    (directory / "trading.toml").write_text(text)
    terms = config.terms(config.parse(text.encode()), [entry.asset() for entry in bundle.assets])
    at = system_micros()
    commands = [
        Configure(at, terms.markets, terms.fees),
        SetMarketState(at, "BTC-USDX", "open"),
        *(
            Deposit(at, str(new_id()), f"c{number}", asset, units)
            for number in range(_CONNECTIONS)
            for asset, units in (("BTC", 10**12), ("USDX", 10**16))
        ),
    ]
    places = Places(directory / "core")
    with Journal(places.journal, core_id(places)) as journal:
        journal.append([encode_command(command) for command in commands])
    return caller.key


def _ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _measure(port: int, key: SigningKey, kind: str) -> float:
    """The 99th percentile of one run, milliseconds."""
    waits = asyncio.run(_drive(port, key, kind))
    return statistics.quantiles(waits, n=100)[98] * 1_000  # float: milliseconds, no amount


async def _drive(port: int, key: SigningKey, kind: str) -> list[float]:
    found = await asyncio.gather(*(_client(port, key, f"c{n}", kind) for n in range(_CONNECTIONS)))
    return [wait for waits in found for wait in waits]


async def _client(port: int, key: SigningKey, customer: str, kind: str) -> list[float]:
    """One connection: as many messages in flight as it may have, one more for each answer. Seconds each took."""
    from websockets.asyncio.client import connect

    headers = {"Authorization": _authorization(key)}
    sent: dict[str, float] = {}
    waits: list[float] = []
    run = secrets.token_hex(4)
    url = f"ws://127.0.0.1:{port}/v1/stream"
    async with connect(url, additional_headers=headers, compression=None) as stream:

        async def say(number: int) -> None:
            message = {"op": "ping"} if kind == "ping" else _message(customer, run, number)
            sent[str(number)] = time.perf_counter()
            await stream.send(json.dumps({**message, "id": str(number)}))

        for number in range(_IN_FLIGHT):
            await say(number)
        for number in range(_IN_FLIGHT, _MESSAGES + _IN_FLIGHT):
            answer = json.loads(await stream.recv())
            waits.append(time.perf_counter() - sent.pop(answer["id"]))
            if number < _MESSAGES:
                await say(number)
    return waits


def _message(customer: str, run: str, number: int) -> dict[str, Any]:
    """Of each twenty: ten that rest, nine cancels of those, one that takes."""
    place = number % 20
    if place == 19:
        body: dict[str, Any] = {"type": "market", "base_amount": "0.0001"}
    elif place % 2:
        return {"op": "cancel", "customer": customer, "client_order_id": f"{run}-{number - 1}"}
    else:
        body = {"price": str(50_000 - place if number % 40 < 20 else 60_000 + place), "base_amount": "0.0010"}
    side = "buy" if number % 40 < 20 else "sell"
    order = {"client_order_id": f"{run}-{number}", "market": "BTC-USDX", "side": side, **body}
    return {"op": "place", "customer": customer, "order": order}


def _authorization(key: SigningKey) -> str:
    from policies.token import Request, Token, header

    now = int(time.time())
    token = Token(
        v=1,
        caller=_CALLER,
        audience=_AUDIENCE,
        issued_at=now,
        expires_at=now + 60,
        nonce=secrets.token_hex(16),
        method="GET",
        path="/v1/stream",
        query="",
        body_sha256=Request("GET", "/v1/stream", "", b"").body_sha256,
    )
    return header(token, key)
