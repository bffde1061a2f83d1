"""What a signer's listener answers: each call's request, its size, and the part that carries it out.

No sockets here. Calls of a part that a daemon does not have (a witness, say) are refused.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec

from chains.errors import StrongroomError
from policies.bundle import SignedBundle
from policies.canonical import MAX_DOCUMENT_BYTES, decoder_for
from policies.statements import SignedClockConfirmation, SignedFreeze, SignedLowering, SignedVeto
from signers.ports import (
    MAX_CALL_BYTES,
    AnnounceRequest,
    Announcing,
    AttestRequest,
    LogRequest,
    Metrics,
    Nothing,
    OfficersDesk,
    OpenRequest,
    Reason,
    Refused,
    ResolveRequest,
    Sealing,
    SealRequest,
    Signer,
    SignerUnavailable,
    SignRequest,
    Witness,
)
from signers.process.rates import MALFORMED, Gate
from signers.wire import CALLS, Call, CallName, Reply

SMALL_BYTES: Final = 16 * 1024
LIST_BYTES: Final = 1024 * 1024

_log = logging.getLogger("strongroom.signer")
_Q = TypeVar("_Q")


@dataclass(frozen=True, slots=True)
class Handler:
    """How one kind of call is answered."""

    request: type[Any]
    """What its body is."""
    act: Callable[[Any], object]
    """Takes the body, returns what is sent as `ok`."""
    max_bytes: int
    """Longest frame of such a call."""


def handlers(
    signer: Signer,
    *,
    announcing: Announcing | None = None,
    officers: OfficersDesk | None = None,
    witness: Witness | None = None,
    sealing: Sealing | None = None,
    metrics: Callable[[], Metrics] | None = None,
) -> Mapping[CallName, Handler]:
    """The calls that these parts answer."""
    found: dict[CallName, Handler] = {
        "sign": _handler(SignRequest, signer.sign, MAX_CALL_BYTES),
        "attest": _handler(AttestRequest, signer.attest, SMALL_BYTES),
        "status": _handler(Nothing, lambda _: signer.status(), SMALL_BYTES),
    }
    if announcing is not None:
        found["announce"] = _handler(AnnounceRequest, announcing.announce, LIST_BYTES)
    if officers is not None:
        found["deliver"] = _handler(SignedBundle, officers.deliver, MAX_DOCUMENT_BYTES)
        found["freeze"] = _handler(SignedFreeze, officers.freeze, SMALL_BYTES)
        found["veto"] = _handler(SignedVeto, officers.veto, SMALL_BYTES)
        found["lower"] = _handler(SignedLowering, officers.lower, SMALL_BYTES)
        found["confirm_clock"] = _handler(SignedClockConfirmation, officers.confirm_clock, SMALL_BYTES)
    if witness is not None:
        found["open"] = _handler(OpenRequest, witness.open, SMALL_BYTES)
        found["resolve"] = _handler(ResolveRequest, witness.resolve, LIST_BYTES)
        found["log"] = _handler(LogRequest, witness.log, SMALL_BYTES)
    if sealing is not None:
        found["seal"] = _handler(SealRequest, sealing.seal, LIST_BYTES)
    if metrics is not None:
        found["metrics"] = _handler(Nothing, lambda _: metrics(), SMALL_BYTES)
    return found


def _handler(request: type[_Q], act: Callable[[_Q], object], max_bytes: int) -> Handler:
    decoder_for(request)
    return Handler(request, act, max_bytes)


class Meter(Protocol):
    """Counts calls."""

    def answered(self, call: str, reply: Reply, nanoseconds: int) -> None:
        """A call (`rates.MALFORMED`: no call) was answered after so long."""


class Desk:
    """Answers calls, each client no more often than it may. Methods may be called from many threads.

    Args:
        served: the calls, from `handlers`.
        gate: says who may call how often.
        meter: is told of every answer.
    """

    def __init__(
        self, served: Mapping[CallName, Handler], gate: Gate | None = None, meter: Meter | None = None
    ) -> None:
        self._served, self._gate, self._meter = served, gate or Gate({}), meter

    def answer(self, client: str, payload: bytes) -> Reply:
        """Carry out one call. Every outcome, also of a malformed call, is a reply."""
        begun = time.monotonic_ns()
        call = _read(payload)
        name = call.call if isinstance(call, Call) else MALFORMED
        if wait_ms := self._gate.wait_ms(client, name, len(payload)):
            reply = Reply(error=f"too often: {name} again in {wait_ms} ms", retry_ms=wait_ms)
        else:
            reply = self._carried_out(call, len(payload)) if isinstance(call, Call) else call
        if self._meter is not None:
            self._meter.answered(name, reply, time.monotonic_ns() - begun)
        return reply

    def _carried_out(self, call: Call, size: int) -> Reply:
        try:
            return Reply(ok=msgspec.Raw(msgspec.json.encode(self._result(call, size))))
        except Refused as refused:
            return Reply(refused=refused.reasons)
        except SignerUnavailable as error:
            return Reply(error=str(error), retry_ms=error.retry_ms)
        except StrongroomError as error:
            _log.error("a call failed: %s: %s", type(error).__name__, error)
            return Reply(error=f"{type(error).__name__}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever it was, this thread answers
            # A bug. Neither client nor log get its message, as nobody knows what is in it: the places only.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("a call failed unexpectedly: %s\n%s", type(error).__name__, where)
            return Reply(error=f"internal error: {type(error).__name__}")

    def _result(self, call: Call, size: int) -> object:
        handler = self._served.get(call.call)
        if handler is None:
            raise Refused((Reason("call-not-served", f"this signer does not answer {call.call}"),))
        if size > handler.max_bytes:
            raise _malformed(f"{call.call} of {size} bytes: at most {handler.max_bytes}")
        try:
            body = decoder_for(handler.request).decode(call.body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _malformed(str(error)) from None
        # Outside of the try: what fails in here may have been journaled before, so it must not be called refused.
        return handler.act(body)


def _read(payload: bytes) -> Call | Reply:
    try:
        return CALLS.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Reply(refused=_malformed(str(error)).reasons)


def _malformed(detail: str) -> Refused:
    return Refused((Reason("malformed-request", detail),))
