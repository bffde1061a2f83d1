"""The other end of a signer's listener: all calls of `signers.ports` over a Unix socket or TLS.

Whatever goes wrong on the way (timeout, lost connection, an answer that can't be read) is `SignerUnavailable`:
nothing is known about whether it signed. Asking again with the same request is always safe.
"""

from __future__ import annotations

import queue
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from chains.errors import InvalidValue
from policies.bundle import SignedBundle
from policies.canonical import decoder_for
from policies.intent import SignedVerdict
from policies.statements import SignedClockConfirmation, SignedFreeze, SignedLowering, SignedVeto
from signers.ports import (
    Announced,
    AnnounceRequest,
    AttestRequest,
    LogPage,
    LogRequest,
    Metrics,
    Nothing,
    OpenPage,
    OpenRequest,
    Refused,
    Resolved,
    ResolveRequest,
    Sealed,
    SealRequest,
    SignedAttestation,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
    VerdictRequest,
)
from signers.process.tls import client_context, is_pinned, pins
from signers.wire import REPLIES, Call, CallName, Disconnected, read_frame, write_frame

DEFAULT_TIMEOUT_SECONDS: Final = 30
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A daemon on this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class TlsAddress:
    """A daemon elsewhere. All three certificates and keys are PEM files; the server's certificate is pinned."""

    host: str
    port: int
    certificate: Path
    private_key: Path
    server_certificate: Path


class SignerClient:
    """A signer reached over its socket: `Signer`, `Announcing`, `OfficersDesk`, `Witness`, `Sealing`, and its
    metrics.

    Safe to use from many threads; connections are kept and reused.

    Args:
        address: where the daemon listens.
        timeout_s: longest wait for one answer.

    Raises:
        BadConfiguration: a TLS file is missing or malformed.
    """

    def __init__(
        self, address: UnixAddress | TlsAddress, *, timeout_s: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self._timeout_s = timeout_s
        self._idle: queue.LifoQueue[socket.socket] = queue.LifoQueue()
        self._connect: Callable[[], socket.socket] = (
            _unix(address, timeout_s) if isinstance(address, UnixAddress) else _tls(address, timeout_s)
        )

    def status(self) -> SignerStatus:
        """What the signer says of itself. Raises SignerUnavailable."""
        return self.ask("status", Nothing(), SignerStatus)

    def attest(self, request: AttestRequest) -> SignedAttestation:
        """The address and the signer's word for it. Raises Refused, SignerUnavailable."""
        return self.ask("attest", request, SignedAttestation)

    def sign(self, request: SignRequest) -> SignResponse:
        """Signatures for every input; again the same for the same request. Raises Refused, SignerUnavailable."""
        return self.ask("sign", request, SignResponse)

    def announce(self, request: AnnounceRequest) -> Announced:
        """Since when the signer knows these orders. Raises Refused, SignerUnavailable."""
        return self.ask("announce", request, Announced)

    def metrics(self) -> Metrics:
        """What it counts and measures. Raises SignerUnavailable."""
        return self.ask("metrics", Nothing(), Metrics)

    def deliver(self, bundle: SignedBundle) -> SignerStatus:
        """Hand over a bundle. Raises Refused, SignerUnavailable."""
        return self.ask("deliver", bundle, SignerStatus)

    def freeze(self, freeze: SignedFreeze) -> SignerStatus:
        """Hand over a freeze. Raises Refused, SignerUnavailable."""
        return self.ask("freeze", freeze, SignerStatus)

    def veto(self, veto: SignedVeto) -> SignerStatus:
        """Hand over a veto of a bundle. Raises Refused, SignerUnavailable."""
        return self.ask("veto", veto, SignerStatus)

    def lower(self, lowering: SignedLowering) -> SignerStatus:
        """Hand over a lower number of the bundle. Raises Refused, SignerUnavailable."""
        return self.ask("lower", lowering, SignerStatus)

    def confirm_clock(self, confirmation: SignedClockConfirmation) -> SignerStatus:
        """Hand over an officer's word on the time. Raises Refused, SignerUnavailable."""
        return self.ask("confirm_clock", confirmation, SignerStatus)

    def open(self, request: OpenRequest) -> OpenPage:
        """Transactions whose fate the signer does not know. Raises SignerUnavailable."""
        return self.ask("open", request, OpenPage)

    def resolve(self, request: ResolveRequest) -> Resolved:
        """Hand over a verifier's words. Raises Refused, SignerUnavailable."""
        return self.ask("resolve", request, Resolved)

    def log(self, request: LogRequest) -> LogPage:
        """The signer's log from a place on. Raises SignerUnavailable."""
        return self.ask("log", request, LogPage)

    def seal(self, request: SealRequest) -> Sealed:
        """A head of the ledger, signed. Raises Refused, SignerUnavailable."""
        return self.ask("seal", request, Sealed)

    def close(self) -> None:
        """Close idle connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def ask(self, call: CallName, body: msgspec.Struct, result: type[_T]) -> _T:
        """Make any call. Raises Refused, SignerUnavailable."""
        payload = msgspec.json.encode(Call(call=call, body=msgspec.Raw(msgspec.json.encode(body))))
        try:
            reply = REPLIES.decode(self._exchange(payload))
            if reply.refused is not None:
                raise Refused(reply.refused)
            if reply.error is not None:
                raise SignerUnavailable(f"the signer could not: {reply.error}", retry_ms=reply.retry_ms)
            return decoder_for(result).decode(reply.ok)
        except (OSError, Disconnected, InvalidValue, msgspec.MsgspecError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise SignerUnavailable(f"no answer from the signer to {call}: {why}") from error

    def _exchange(self, payload: bytes) -> bytes:
        try:
            connection, fresh = self._idle.get_nowait(), False
        except queue.Empty:
            connection, fresh = self._connect(), True
        try:
            return self._over(connection, payload)
        except (ConnectionError, ssl.SSLError, Disconnected):
            if fresh:
                raise
        # A kept connection ends when the daemon restarts or needs its place. Repeating is safe: the same request gets
        # the same answer.
        self.close()
        return self._over(self._connect(), payload)

    def _over(self, connection: socket.socket, payload: bytes) -> bytes:
        try:
            write_frame(connection, payload)
            answer = read_frame(connection)
        except BaseException:
            # An answer that comes late must never be taken for the next call's.
            connection.close()
            raise
        self._idle.put(connection)
        return answer


def _unix(address: UnixAddress, timeout_s: int) -> Callable[[], socket.socket]:
    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(address.path))
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


def _tls(address: TlsAddress, timeout_s: int) -> Callable[[], socket.socket]:
    context = client_context(address.certificate, address.private_key, address.server_certificate)
    allowed = pins([address.server_certificate])

    def connect() -> socket.socket:
        plain: Any = socket.create_connection((address.host, address.port), timeout=timeout_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        if not is_pinned(connection, allowed):
            connection.close()
            raise ConnectionRefusedError("the signer showed another certificate than the pinned one")
        return connection

    return connect


class VerdictClient:
    """A verifier reached over its socket, for verdicts. Safe to use from many threads.

    Args:
        connection: a client of its address; nothing else is asked over it.
    """

    def __init__(self, connection: SignerClient) -> None:
        self._connection = connection

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        """The signed word that an order is covered. Raises Refused (it is not, with reasons), SignerUnavailable."""
        return self._connection.ask("verdict", request, SignedVerdict)

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()
