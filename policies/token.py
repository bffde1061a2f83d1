"""The token with which a caller authenticates one request: a short-lived signed document (DESIGN section 9).

It names the request (method, path, query, body hash), who sends it, to whom, when, and a nonce that is good
once. A retry signs a new token; the `Idempotency-Key` and the order's own signature stay the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle, Caller, Operator
from policies.canonical import Document, Hex32, Name, Seconds, encode_signature, verify_ed25519
from policies.keys import SigningKey

SCHEME: Final = "Strongroom"
"""First word of the `Authorization` header."""
MAX_LIFETIME_SECONDS: Final = 60
MAX_CLOCK_AHEAD_SECONDS: Final = 5
"""How far a caller's clock may be ahead of ours."""
MAX_HEADER_CHARACTERS: Final = 8192


class Unauthenticated(PermanentError):
    """Base of everything that is wrong with a token. Sign a new token and send the request again."""


class MissingToken(Unauthenticated):
    """No `Authorization: Strongroom ...` header."""


class MalformedToken(Unauthenticated):
    """A header that is not a canonical token with a signature."""


class UnknownCaller(Unauthenticated):
    """The bundle names no such caller or operator, or its time is over."""


class WrongTokenSignature(Unauthenticated):
    """The signature was not made by the caller's key in the bundle."""


class WrongAudience(Unauthenticated):
    """A token made for another service."""


class TokenOutOfTime(Unauthenticated):
    """Expired, from the future, or valid for longer than a token may be."""

    def __init__(self, message: str, *, now: int, issued_at: int, expires_at: int) -> None:
        super().__init__(message)
        self.now, self.issued_at, self.expires_at = now, issued_at, expires_at


class TokenForAnotherRequest(Unauthenticated):
    """Method, path, query or body hash differ from the request that carries the token."""

    def __init__(self, part: str) -> None:
        super().__init__(f"the token was signed for another {part}: sign exactly the request that is sent")
        self.part = part


class TokenReplayed(Unauthenticated):
    """The nonce was used before."""


class Token(Document, frozen=True):
    """The signed document; canonical RFC 8785 JSON, domain `token`, Ed25519 over its digest."""

    domain: ClassVar[str] = "token"

    v: Literal[1]
    caller: Name
    """Id of the caller or operator in the bundle; its key there verifies the signature."""
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """The service that is to accept it, as its operator configured it."""
    issued_at: Seconds
    expires_at: Seconds
    """At most 60 seconds after `issued_at`."""
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{16,64}\Z")]
    """Never used before by this caller, e.g. 32 random hex digits."""
    method: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3,7}\Z")]
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    """As it is sent, percent-encoded, without the query."""
    query: Annotated[str, msgspec.Meta(max_length=4096)]
    """As it is sent, percent-encoded, without `?`; empty if there is none."""
    body_sha256: Hex32
    """SHA-256 of the body's bytes (of no bytes if there is none)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a token is checked against: the request as it arrived."""

    method: str
    path: str
    query: str
    body: bytes

    @property
    def body_sha256(self) -> str:
        """SHA-256 of the body, 64 hex digits."""
        return hashlib.sha256(self.body).hexdigest()


def header(token: Token, key: SigningKey) -> str:
    """The `Authorization` header of a token, signed with its caller's key."""
    signature = base64.b64decode(key.sign(token))
    return f"{SCHEME} {_encode(token.canonical())}.{_encode(signature)}"


def authenticate(
    authorization: str | None, request: Request, *, bundle: Bundle, audience: str, now: int
) -> tuple[Token, Caller | Operator]:
    """Check everything about a token but its nonce, which the database remembers.

    Args:
        authorization: the header's value, if there was one.
        request: the request as it arrived.
        bundle: names the callers and operators, and their keys.
        audience: our own name.
        now: our clock, UNIX seconds.

    Returns:
        The token and the caller, or the operator, that signed it.

    Raises:
        Unauthenticated: one of its subclasses, by what is wrong.
    """
    payload, signature = _split(authorization)
    try:
        token = Token.from_canonical(payload)
    except InvalidValue as error:
        raise MalformedToken(str(error)) from None
    everybody: tuple[Caller | Operator, ...] = (*bundle.callers, *bundle.operators)
    caller = next((entry for entry in everybody if entry.id == token.caller), None)
    if caller is None:
        raise UnknownCaller(f"the bundle names no caller {token.caller!r}")
    if now >= caller.not_after:
        raise UnknownCaller(f"the time of caller {caller.id!r} ended at {caller.not_after}")
    try:
        verify_ed25519(caller.key, token.digest(), encode_signature(signature))
    except PermanentError:
        raise WrongTokenSignature(f"not signed by the key of caller {caller.id!r} in the bundle") from None
    if token.audience != audience:
        raise WrongAudience(f"the token is for {token.audience!r}, this service is {audience!r}")
    _check_time(token, now)
    for part, said, is_ in (
        ("method", token.method, request.method),
        ("path", token.path, request.path),
        ("query", token.query, request.query),
        ("body", token.body_sha256, request.body_sha256),
    ):
        if said != is_:
            raise TokenForAnotherRequest(part)
    return token, caller


def signature_of(authorization: str) -> str:
    """The signature of a header that `authenticate` has accepted, as base64.

    Raises:
        Unauthenticated: it is no such header.
    """
    return encode_signature(_split(authorization)[1])


def _check_time(token: Token, now: int) -> None:
    lifetime = token.expires_at - token.issued_at
    trouble = None
    if lifetime <= 0 or lifetime > MAX_LIFETIME_SECONDS:
        trouble = f"valid for {lifetime} s; a token lives 1 to {MAX_LIFETIME_SECONDS} s"
    elif now >= token.expires_at:
        trouble = f"expired {now - token.expires_at} s ago; sign a new one"
    elif token.issued_at > now + MAX_CLOCK_AHEAD_SECONDS:
        trouble = f"issued {token.issued_at - now} s in the future; set the caller's clock"
    if trouble is not None:
        raise TokenOutOfTime(trouble, now=now, issued_at=token.issued_at, expires_at=token.expires_at)


def _split(authorization: str | None) -> tuple[bytes, bytes]:
    if not authorization:
        raise MissingToken(f"send `Authorization: {SCHEME} PAYLOAD.SIGNATURE`")
    scheme, _, rest = authorization.partition(" ")
    payload, dot, signature = rest.partition(".")
    if scheme != SCHEME or not dot or len(rest) > MAX_HEADER_CHARACTERS:
        raise MalformedToken(f"expected `{SCHEME} PAYLOAD.SIGNATURE`, both base64url without padding")
    return _decode(payload), _decode(signature)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise MalformedToken("payload or signature is not base64url") from None
    if _encode(raw) != text:
        raise MalformedToken("payload or signature is not base64url in its only form")
    return raw
