"""How an EVM node is reached: JSON-RPC 2.0 in batches, over one kept-alive HTTP connection a thread.

`http.client` connections belong to one thread each; a shared one mixes up replies. Answers stay raw until somebody
says what they should be: a block with its traces has megabytes of what nobody reads.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from chains.errors import InvalidValue, NodeRefused, NodeUnavailable, WrongNetwork
from chains.eth.network import EthNetwork
from chains.eth.wire import hash_text, quantity

# Codes of JSON-RPC 2.0 and of EIP-1474.
REVERTED: Final = 3
INTERNAL_ERROR: Final = -32603
METHOD_NOT_FOUND: Final = -32601
LIMIT_EXCEEDED: Final = -32005
RESOURCE_UNAVAILABLE: Final = -32002
RESOURCE_NOT_FOUND: Final = -32001

_TRANSIENT: Final = frozenset((INTERNAL_ERROR, LIMIT_EXCEEDED, RESOURCE_UNAVAILABLE, RESOURCE_NOT_FOUND))
_BROKEN: Final = (OSError, http.client.HTTPException, msgspec.MsgspecError)
"""A connection that can't be used any further; MsgspecError is a reply cut short, or no JSON."""

_BUSY: Final = frozenset((http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_MANY_REQUESTS))
MAX_ANSWER_BYTES: Final = 128 * 1024 * 1024
"""Longest answer that is read, of 100 calls at most. A contract that tells a balance can return some 950 kB of hex for
its gas, and a block has no more than some 30 MB of events and transactions. Traces have no bound that a block's gas
sets, for each call repeats its input: 20 MB for 60,000 gas. Whoever asks for them brings a lower limit."""

_PIECE_BYTES: Final = 256 * 1024

_CONTRACT_FAILURES: Final = (
    "revert",
    "out of gas",
    "out of bounds",
    "gas uint64 overflow",
    "invalid opcode",
    "invalid jump",
    "stack ",
    "evm error",
    "bad instruction",
)
"""How nodes say that a contract failed: go-ethereum and its kin, Reth and anvil, OpenEthereum's kin."""

Call = tuple[str, list[Any]]
"""Method and parameters."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What is read of one answer before it is broken off."""

    size_bytes: int
    seconds: float
    """Until it begins, and until it ends."""


class AnswerTooLong(NodeUnavailable):
    """An answer of more bytes than are read. Asking again would give as many."""


class _Failure(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: Any = None

    @property
    def is_revert(self) -> bool:
        """Whether the contract failed, not the node. Not all nodes have a code for that."""
        said = self.message.lower()
        return self.code == REVERTED or any(failure in said for failure in _CONTRACT_FAILURES)


class _Answer(msgspec.Struct, frozen=True):
    id: int | str | None
    result: msgspec.Raw = msgspec.Raw(b"null")
    error: _Failure | None = None


_BATCH_ANSWER: Final = msgspec.json.Decoder(list[_Answer] | _Answer)


@dataclass(frozen=True, slots=True)
class Reply:
    """One call's answer, not yet read."""

    method: str
    raw: msgspec.Raw
    failure: _Failure | None

    def read(self, decoder: msgspec.json.Decoder[_T]) -> _T:
        """The result as `decoder` has it.

        Raises:
            NodeUnavailable: the node could not answer now, or the answer is something else.
            NodeRefused: the node's error.
        """
        if self.failure is not None:
            raise self.error(self.failure)
        try:
            return decoder.decode(self.raw)
        except msgspec.MsgspecError as error:
            raise NodeUnavailable(f"{self.method}: unreadable answer: {error}") from error

    def error(self, failure: _Failure) -> NodeUnavailable | NodeRefused:
        """The node's error as ours."""
        if failure.code in _TRANSIENT:
            return NodeUnavailable(f"{self.method}: {failure.message[:300]} ({failure.code})")
        return NodeRefused(failure.code, f"{self.method}: {failure.message[:300]}")


class Transport:
    """Connections to one EVM node. Threads may share it: each gets a connection of its own, kept alive.

    Whatever breaks a kept connection is retried once on a fresh one: nodes close idle ones, and every request made
    here may be repeated (a transaction that is there already is refused as known). A timeout is not retried.
    """

    def __init__(
        self, chain: str, network: EthNetwork, rpc_url: str, *, timeout_s: float, batch_size: int
    ) -> None:
        """Connects lazily.

        Args:
            chain: id of the network in the bundle, for messages.
            network: what the node must follow, by chain id and genesis; checked on every new connection.
            rpc_url: `http(s)://[user:password@]host[:port][/path]`. Never printed: its path may be a key.
            timeout_s: for one answer.
            batch_size: most calls in one request; nodes have limits.
        """
        self._chain = chain
        self._network = network
        self._rpc_url = rpc_url
        self._limits = Limits(MAX_ANSWER_BYTES, timeout_s)
        self._batch_size = batch_size
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"Transport({self._chain!r}, rpc_url=[secret])"

    def call(self, method: str, *params: object) -> Reply:
        """One call. Raises like `batch`."""
        return self.batch([(method, list(params))])[0]

    def batch(self, calls: Sequence[Call], limits: Limits | None = None) -> list[Reply]:
        """Calls in as few requests as the node takes, answered in order; each may have failed by itself.

        Args:
            calls: what to ask.
            limits: of each answer; None: the widest there are. Waiting never takes longer than `timeout_s`.

        Raises:
            AnswerTooLong: beyond the limit; what came of it is gone.
            NodeUnavailable: no answer, or no JSON-RPC.
            NodeRefused: HTTP's refusal; its code is the status.
            WrongNetwork: the node follows another network.
        """
        size, most = self._batch_size, self._limits
        if limits is not None:
            most = Limits(limits.size_bytes, min(limits.seconds, most.seconds))
        parts = [calls[at : at + size] for at in range(0, len(calls), size)]
        return [reply for part in parts for reply in self._guarded(part, most)]

    def close(self) -> None:
        """Closes the calling thread's connection; those of others are closed when their threads end."""
        kept = self._local.__dict__.pop("kept", None)
        if kept is not None:
            kept.close()

    def _guarded(self, calls: Sequence[Call], limits: Limits) -> list[Reply]:
        try:
            if "kept" in self._local.__dict__:
                try:
                    return self._local.kept.ask(calls, limits)  # type: ignore[no-any-return]
                except TimeoutError:
                    raise
                except _BROKEN:
                    self.close()
            return self._connected().ask(calls, limits)
        except AnswerTooLong:
            self.close()
            raise
        except _BROKEN as error:
            self.close()
            what = f"{self._chain} node, {calls[0][0]}"
            raise NodeUnavailable(f"{what}: {type(error).__name__}: {error}") from error

    def _connected(self) -> _Connection:
        fresh = _Connection(self._rpc_url, self._limits.seconds)
        try:
            self._check_network(fresh)
        except BaseException:
            fresh.close()
            raise
        self._local.kept = fresh
        return fresh

    def _check_network(self, fresh: _Connection) -> None:
        questions: list[Call] = [("eth_chainId", []), ("eth_getBlockByNumber", ["0x0", False])]
        chain_id, genesis = fresh.ask(questions, self._limits)
        try:
            found_id = quantity(chain_id.read(_TEXT))
        except InvalidValue as error:
            raise NodeUnavailable(f"{self._chain} node: {error}") from error
        if found_id != self._network.chain_id:
            raise WrongNetwork(f"node of {self._chain} has chain id {found_id}, not {self._network.chain_id}")
        block = genesis.read(_GENESIS)
        found = None if block is None else hash_text(block.hash)
        if found != self._network.genesis_hash:
            raise WrongNetwork(f"node of {self._chain} has genesis {found}, not {self._network.genesis_hash}")


class _Genesis(msgspec.Struct, frozen=True):
    hash: str


_TEXT: Final = msgspec.json.Decoder(str)
_GENESIS: Final = msgspec.json.Decoder(_Genesis | None)


class _Connection:
    """One thread's connection; closed with it, which `http.client` doesn't do by itself."""

    def __init__(self, rpc_url: str, timeout_s: float) -> None:
        url = urllib.parse.urlsplit(rpc_url)
        host = url.hostname or ""
        if url.scheme == "https":
            context = ssl.create_default_context()
            self._http: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, url.port, timeout=timeout_s, context=context
            )
        else:
            self._http = http.client.HTTPConnection(host, url.port or 80, timeout=timeout_s)
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if url.username is not None:
            credentials = f"{urllib.parse.unquote(url.username)}:{urllib.parse.unquote(url.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(credentials.encode()).decode()

    def __del__(self) -> None:
        if hasattr(self, "_http"):
            self._http.close()

    def close(self) -> None:
        self._http.close()

    def ask(self, calls: Sequence[Call], limits: Limits) -> list[Reply]:
        """One request. Raises `_BROKEN`, AnswerTooLong, NodeUnavailable or NodeRefused."""
        question = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        self._http.timeout = limits.seconds
        if self._http.sock is not None:
            self._http.sock.settimeout(limits.seconds)
        until = time.monotonic() + limits.seconds
        self._http.request("POST", self._path, msgspec.json.encode(question), self._headers)
        response = self._http.getresponse()
        body = _read(response, limits.size_bytes, until)
        if response.status != http.HTTPStatus.OK:
            said = f"HTTP {response.status} {response.reason}"
            if response.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _BUSY:
                raise NodeUnavailable(f"{calls[0][0]}: {said}")
            raise NodeRefused(response.status, said)
        answers = _BATCH_ANSWER.decode(body)
        if isinstance(answers, _Answer):
            # A batch that is refused as a whole: too long, or rate-limited.
            reason = answers.error.message if answers.error else "no list of answers"
            raise NodeUnavailable(f"{calls[0][0]}: {reason[:300]}")
        found = {answer.id: answer for answer in answers}
        if set(found) != set(range(len(calls))):
            raise NodeUnavailable(f"{calls[0][0]}: answers to other questions")
        return [
            Reply(method, found[number].result, found[number].error)
            for number, (method, _) in enumerate(calls)
        ]


def _read(response: http.client.HTTPResponse, most_bytes: int, until: float) -> bytearray:
    """An answer in pieces, so that one that is too long, or comes too slowly, is not waited for."""
    body = bytearray()
    if (response.length or 0) <= most_bytes:  # of what says its length, nothing is read
        while piece := response.read(_PIECE_BYTES):
            body += piece
            if len(body) > most_bytes:
                break
            if time.monotonic() > until:
                raise TimeoutError("the answer takes too long")
        else:
            return body
    raise AnswerTooLong(f"an answer of more than {most_bytes} bytes")
