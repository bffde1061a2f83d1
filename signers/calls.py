"""What a signer's listener answers: each call's request, its size, and the part that carries it out.

No sockets here. A part that a daemon does not have (a witness, say) is a call that it refuses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from chains.errors import InvalidValue, StrongroomError
from policies.bundle import SignedBundle
from policies.canonical import MAX_DOCUMENT_BYTES, decoder_for
from policies.statements import SignedClockConfirmation, SignedFreeze
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
    Signer,
    SignerUnavailable,
    SignRequest,
    Witness,
)
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
        found["confirm_clock"] = _handler(SignedClockConfirmation, officers.confirm_clock, SMALL_BYTES)
    if witness is not None:
        found["open"] = _handler(OpenRequest, witness.open, SMALL_BYTES)
        found["resolve"] = _handler(ResolveRequest, witness.resolve, LIST_BYTES)
        found["log"] = _handler(LogRequest, witness.log, SMALL_BYTES)
    if metrics is not None:
        found["metrics"] = _handler(Nothing, lambda _: metrics(), SMALL_BYTES)
    return found


def _handler(request: type[_Q], act: Callable[[_Q], object], max_bytes: int) -> Handler:
    decoder_for(request)
    return Handler(request, act, max_bytes)


def answer(served: Mapping[CallName, Handler], payload: bytes) -> Reply:
    """Carry out one call. Every outcome, also of a malformed call, is a reply."""
    try:
        call = CALLS.decode(payload)
        return Reply(ok=msgspec.Raw(msgspec.json.encode(_result(served, call, len(payload)))))
    except Refused as refused:
        return Reply(refused=refused.reasons)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidValue) as error:
        return Reply(refused=(Reason("malformed-request", str(error)),))
    except SignerUnavailable as error:
        return Reply(error=str(error), retry_ms=error.retry_ms)
    except StrongroomError as error:
        _log.error("a call failed: %s: %s", type(error).__name__, error)
        return Reply(error=f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever it was, this thread answers
        # A bug. The client learns that nothing is known; the request itself is never logged.
        _log.exception("a call failed unexpectedly")
        return Reply(error=f"internal error: {type(error).__name__}")


def _result(served: Mapping[CallName, Handler], call: Call, size: int) -> object:
    handler = served.get(call.call)
    if handler is None:
        raise Refused((Reason("call-not-served", f"this signer does not answer {call.call}"),))
    if size > handler.max_bytes:
        raise InvalidValue(f"{call.call} of {size} bytes: at most {handler.max_bytes}")
    return handler.act(decoder_for(handler.request).decode(call.body))
