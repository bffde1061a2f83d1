"""A proxy in front of a node's RPC and REST that can lose replies, hold requests, and answer by itself."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind


class Fault(Enum):
    """What happens to a call."""

    LOSE_REPLY = "lose reply"
    """The node gets it and does it; the caller's connection breaks."""
    HOLD_REQUEST = "hold request"
    """The node does not get it; the caller waits until `release`, and is then cut off."""
    HOLD_REPLY = "hold reply"
    """The node gets it and does it; the caller waits until `release`, and is then cut off."""
    FAKE = "fake"
    """The node does not get it; the caller gets `fake_result`."""


@dataclass
class RpcProxy:
    """Where the proxy answers, what it has seen, and what it does to calls of each method."""

    rpc_url: str
    rest_url: str
    faults: dict[str, Fault] = field(default_factory=dict)
    fake_result: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, list[Any]]] = field(default_factory=list)
    """Every call, with its parameters, in the order of arrival."""
    _released: threading.Event = field(default_factory=threading.Event)

    def calls(self, method: str) -> list[list[Any]]:
        return [params for name, params in list(self.seen) if name == method]

    def release(self) -> None:
        """End all holding, now and later."""
        self.faults.clear()
        self._released.set()

    def wait_released(self) -> None:
        self._released.wait(60)


@contextmanager
def rpc_proxy(node: Bitcoind | Anvil) -> Iterator[RpcProxy]:
    """A proxy in front of `node` on a free loopback port."""
    proxy = RpcProxy("", "")
    upstream = urlsplit(node.rpc_url)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._forward(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            decoded = json.loads(body)
            calls = decoded if isinstance(decoded, list) else [decoded]
            proxy.seen.extend((call["method"], call.get("params", [])) for call in calls)
            fault = next((proxy.faults[c["method"]] for c in calls if c["method"] in proxy.faults), None)
            if fault is Fault.FAKE:
                [call] = calls
                answer = {"jsonrpc": "2.0", "result": proxy.fake_result[call["method"]], "id": call.get("id")}
                self._answer(200, json.dumps([answer] if isinstance(decoded, list) else answer).encode())
            elif fault is Fault.HOLD_REQUEST:
                proxy.wait_released()
                self.close_connection = True
            elif fault in (Fault.LOSE_REPLY, Fault.HOLD_REPLY):
                self._ask(body)
                if fault is Fault.HOLD_REPLY:
                    proxy.wait_released()
                self.close_connection = True
            else:
                self._forward(body)

        def _forward(self, body: bytes) -> None:
            self._answer(*self._ask(body))

        def _ask(self, body: bytes) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)
            try:
                headers = {
                    k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type")
                }
                connection.request(self.command, self.path, body or None, headers)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # callers that were killed in mid-request

    server = Server(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    user = f"{upstream.username}:{upstream.password}@" if upstream.username else ""
    proxy.rpc_url = f"http://{user}127.0.0.1:{port}"
    proxy.rest_url = f"http://127.0.0.1:{port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.release()
        server.shutdown()
        server.server_close()
        thread.join()
