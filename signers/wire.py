"""Frames and envelopes between client and daemon. The protocol is described in `signers/README.md`.

A frame is a 4-byte big-endian length and that many bytes of JSON. A call is `{"v": 1, "call": NAME, "body": {...}}`;
the answer has exactly one of `ok` (the result), `refused` (reasons) and `error` (a sentence: the same call may
succeed later; with `retry_ms`, after so many milliseconds).
"""

from __future__ import annotations

import socket
from typing import Annotated, Final, Literal

import msgspec

from chains.errors import InvalidValue, TransientError
from policies.canonical import decoder_for
from signers.ports import MAX_CALL_BYTES, Reason

MAX_FRAME_BYTES: Final = MAX_CALL_BYTES
"""Longest frame either side reads."""
_LENGTH_BYTES: Final = 4
_CHUNK_BYTES: Final = 1 << 17


class Disconnected(TransientError):
    """The other side closed the connection, or it broke. `mid_frame` tells whether data was under way."""

    def __init__(self, message: str, *, mid_frame: bool) -> None:
        super().__init__(message)
        self.mid_frame = mid_frame


CallName = Literal[
    "sign",
    "attest",
    "announce",
    "status",
    "metrics",
    "deliver",
    "freeze",
    "veto",
    "lower",
    "confirm_clock",
    "open",
    "resolve",
    "log",
    "seal",
    "verdict",
    "audit",
]
"""Every call there is; a signer serves some of them, a verifier others."""


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A call as it is sent."""

    v: Literal[1] = 1
    call: CallName
    body: msgspec.Raw


_NOTHING: Final = msgspec.Raw(b"")


class Reply(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """An answer; exactly one of `ok`, `refused` and `error` is set."""

    ok: msgspec.Raw = _NOTHING
    """JSON of the result; empty where there is none."""
    refused: Annotated[tuple[Reason, ...], msgspec.Meta(min_length=1)] | None = None
    error: str | None = None
    retry_ms: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """With an error: when asking again may help."""

    def __post_init__(self) -> None:
        if [bytes(self.ok) != b"", self.refused is not None, self.error is not None].count(True) != 1:
            raise ValueError("an answer has exactly one of ok, refused, error")
        if self.retry_ms is not None and self.error is None:
            raise ValueError("retry_ms goes with an error only")


CALLS: Final = decoder_for(Call)
REPLIES: Final = decoder_for(Reply)


def write_frame(connection: socket.socket, payload: bytes) -> None:
    """Send one frame.

    Raises:
        InvalidValue: longer than a frame may be.
        OSError: the connection broke.
    """
    if len(payload) > MAX_FRAME_BYTES:
        raise InvalidValue(f"frame of {len(payload)} bytes: at most {MAX_FRAME_BYTES}")
    connection.sendall(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)


def read_frame(connection: socket.socket) -> bytes:
    """Receive one frame.

    Raises:
        InvalidValue: the announced length is above the limit.
        Disconnected: the other side closed.
        OSError: the connection broke or timed out.
    """
    return read_body(connection, read_size(connection))


def read_size(connection: socket.socket) -> int:
    """Receive the length of a frame. Raises as `read_frame`."""
    size = int.from_bytes(_exactly(connection, _LENGTH_BYTES, begun=False), "big")
    if size > MAX_FRAME_BYTES:
        raise InvalidValue(f"frame of {size} bytes: at most {MAX_FRAME_BYTES}")
    return size


def read_body(connection: socket.socket, size: int) -> bytes:
    """Receive the rest of a frame; memory is taken as bytes arrive. Raises as `read_frame`."""
    return _exactly(connection, size, begun=True)


def _exactly(connection: socket.socket, size: int, *, begun: bool) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), _CHUNK_BYTES))
        if not piece:
            raise Disconnected("the connection was closed", mid_frame=begun or bool(data))
        data += piece
    return bytes(data)
