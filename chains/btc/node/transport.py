"""How a bitcoind is reached: JSON-RPC through python-bitcoinrpc, JSON-RPC 2.0 batches and REST of our own.

`http.client` connections belong to one thread each; a shared one mixes up replies.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

from bitcoinrpc.authproxy import AuthServiceProxy, JSONRPCException

from chains.btc.network import BtcNetwork
from chains.errors import NodeRefused, NodeUnavailable, WrongNetwork

# Codes of bitcoind's src/rpc/protocol.h, and those that python-bitcoinrpc makes up.
MISC_ERROR: Final = -1
INVALID_ADDRESS_OR_KEY: Final = -5
INVALID_PARAMETER: Final = -8
NOT_CONNECTED: Final = -9
INITIAL_DOWNLOAD: Final = -10
VERIFY_ERROR: Final = -25
VERIFY_REJECTED: Final = -26
ALREADY_IN_UTXO_SET: Final = -27
IN_WARMUP: Final = -28
NO_JSON_RESPONSE: Final = -342
NO_RESULT: Final = -343

_TRANSIENT: Final = frozenset((NOT_CONNECTED, INITIAL_DOWNLOAD, IN_WARMUP, NO_RESULT))
_BROKEN: Final = (OSError, http.client.HTTPException, ValueError)
"""A connection that can't be used any further; ValueError is a reply cut short, so no JSON."""

_Result = TypeVar("_Result")


class Transport:
    """Connections to one bitcoind. Threads may share it: each gets connections of its own, kept alive.

    Whatever breaks a kept connection is retried once on a fresh one: bitcoind closes idle ones after 30 s,
    and every request made here may be repeated. A timeout is not retried.
    """

    def __init__(self, network: BtcNetwork, rpc_url: str, rest_url: str, timeout_s: float) -> None:
        """Connects lazily.

        Args:
            network: what the node must follow, by its genesis; checked on every new connection.
            rpc_url: `http://user:password@host:port`. Never printed.
            rest_url: `http://host:port`, without `/rest`.
            timeout_s: for one answer.
        """
        self._network = network
        self._rpc_url = rpc_url
        self._rest_url = rest_url
        self._timeout_s = timeout_s
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Transport({self._network.name}, rpc_url=[secret])"

    def call(self, method: str, *params: object) -> Any:
        """One JSON-RPC call; numbers with decimals come back as Decimal.

        Raises:
            NodeUnavailable: no answer, or not ready.
            NodeRefused: the node's error.
            WrongNetwork: see there.
        """
        return self._guarded(method, lambda kept: kept.call(method, params))

    def call_slow(self, method: str, *params: object, timeout_s: float) -> Any:
        """Like `call`, on a connection of its own that waits `timeout_s`."""
        self.call("uptime")  # checks the network

        def ask(_: _Connections) -> Any:
            own = _Connections(self._rpc_url, self._rest_url, timeout_s)
            try:
                return own.call(method, params)
            finally:
                own.close()

        return self._guarded(method, ask)

    def batch(self, calls: Sequence[tuple[str, list[object]]]) -> list[Any]:
        """A JSON-RPC 2.0 batch: each call's result in order, or None where the node answered with an error.

        python-bitcoinrpc's own batches fail since bitcoind 28, which leaves out `error` on success.

        Raises:
            NodeUnavailable, NodeRefused, WrongNetwork: like `call`, for the batch as a whole.
        """
        return self._guarded("batch", lambda kept: kept.batch(calls))

    def get(self, path: str) -> bytes | None:
        """The body of a REST resource, None if the node doesn't have it (404).

        Raises:
            NodeUnavailable, WrongNetwork: like `call`.
            NodeRefused: any other HTTP status; its code is the status.
        """
        return self._guarded(path, lambda kept: kept.get(path))

    def close(self) -> None:
        """Closes the calling thread's connections; those of others are closed when their threads end."""
        kept = self._local.__dict__.pop("kept", None)
        if kept is not None:
            kept.close()

    def _guarded(self, what: str, ask: Callable[[_Connections], _Result]) -> _Result:
        try:
            if "kept" in self._local.__dict__:
                try:
                    return ask(self._local.kept)
                except TimeoutError:
                    raise
                except _BROKEN:
                    self.close()
            return ask(self._connected())
        except JSONRPCException as error:
            raise _translated(error, what) from error
        except _BROKEN as error:
            self.close()
            raise NodeUnavailable(
                f"{self._network.name} node, {what}: {type(error).__name__}: {error}"
            ) from error

    def _connected(self) -> _Connections:
        fresh = _Connections(self._rpc_url, self._rest_url, self._timeout_s)
        try:
            genesis = fresh.call("getblockhash", (0,))
            if genesis != self._network.genesis_hash:
                raise WrongNetwork(f"node has genesis {genesis}, expected that of {self._network.name}")
        except BaseException:
            fresh.close()
            raise
        self._local.kept = fresh
        return fresh


class _Connections:
    """One thread's connections; closed with it, which `http.client` doesn't do by itself."""

    def __init__(self, rpc_url: str, rest_url: str, timeout_s: float) -> None:
        rpc, rest = urllib.parse.urlsplit(rpc_url), urllib.parse.urlsplit(rest_url)
        self._rpc, self._rest = _http(rpc, timeout_s), _http(rest, timeout_s)
        credentials = f"{rpc.username or ''}:{rpc.password or ''}"
        self._rpc_path = rpc.path or "/"
        self._authorization = "Basic " + base64.b64encode(credentials.encode()).decode()
        self._rest_path = rest.path.rstrip("/")
        self._proxy = AuthServiceProxy(rpc_url, timeout=timeout_s, connection=self._rpc)

    def __del__(self) -> None:
        if hasattr(self, "_rest"):
            self.close()

    def close(self) -> None:
        self._rpc.close()
        self._rest.close()

    def call(self, method: str, params: Sequence[object]) -> Any:
        return getattr(self._proxy, method)(*params)

    def batch(self, calls: Sequence[tuple[str, list[object]]]) -> list[Any]:
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        self._rpc.request("POST", self._rpc_path, json.dumps(requests), headers)
        response = self._rpc.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise NodeUnavailable(f"batch: HTTP {response.status} {response.reason}")
        answers = {answer["id"]: answer.get("result") for answer in json.loads(body, parse_float=Decimal)}
        return [answers.get(number) for number in range(len(calls))]

    def get(self, path: str) -> bytes | None:
        self._rest.request("GET", self._rest_path + path)
        response = self._rest.getresponse()
        body = response.read()
        if response.status == http.HTTPStatus.OK:
            return body
        if response.status == http.HTTPStatus.NOT_FOUND:
            return None
        if response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise NodeUnavailable(f"{path}: HTTP {response.status} {response.reason}")
        raise NodeRefused(response.status, f"{path}: {body[:200].decode(errors='replace').strip()}")


def _http(url: urllib.parse.SplitResult, timeout_s: float) -> http.client.HTTPConnection:
    if url.scheme == "https":
        return http.client.HTTPSConnection(url.hostname or "", url.port, timeout=timeout_s)
    return http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=timeout_s)


def _translated(error: JSONRPCException, what: str) -> NodeUnavailable | NodeRefused:
    code, message = error.code, str(error.message)
    # python-bitcoinrpc tells the HTTP status of a reply without JSON in its message only.
    busy = code == NO_JSON_RESPONSE and "401" not in message and "403" not in message
    if code in _TRANSIENT or busy:
        return NodeUnavailable(f"{what}: {message} ({code})")
    return NodeRefused(code, message)
