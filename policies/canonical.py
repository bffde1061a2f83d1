"""Signed documents: RFC 8785 canonical JSON, hashed with a domain and a version, signed with Ed25519.

A document's hash is SHA-256 over `strongroom:{domain}:v{version}\\n` followed by its canonical bytes, so a
signature for one kind of document is never valid for another. Signatures are over that 32-byte hash.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar

import msgspec
from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from chains.errors import InvalidValue, PermanentError

MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")]
"""An id chosen by people: 1 to 64 of `A-Za-z0-9._-`."""
Uuid = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]
"""Canonical lower-case UUID text."""
Units = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,77})\Z")]
"""Base units as a decimal string (JSON numbers lose precision above 2**53)."""
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
"""32 bytes as lower-case hex: a hash or an Ed25519 public key."""
Base64Url = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+\Z")]
"""Bytes as base64url without padding (RFC 4648 section 5), as WebAuthn writes them."""
Seconds = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""UNIX time in whole seconds, or a duration in seconds."""
Version = Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
"""Version of a bundle, from 1 (larger integers have no one form in RFC 8785)."""


class BadSignature(PermanentError):
    """A signature that does not verify under the key that should have made it."""


_T = TypeVar("_T")
_decoders: dict[type, msgspec.json.Decoder[Any]] = {}
_decoders_lock = threading.Lock()


def decoder_for(kind: type[_T]) -> msgspec.json.Decoder[_T]:
    """The JSON decoder of a type, made once.

    msgspec prepares a type when it is first decoded or converted to, and crashes the process when two threads do
    that at once (seen with 0.22.0). So types that threads share are prepared here, under a lock; the modules that
    define such types call this as they are imported.
    """
    with _decoders_lock:
        found = _decoders.get(kind)
        if found is None:
            found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what documents are made of: immutable, unknown fields refused."""


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all signed documents: immutable, unknown fields refused, one canonical form.

    Subclasses set `domain` and `version`.
    """

    domain: ClassVar[str]
    version_number: ClassVar[int] = 1

    def canonical(self) -> bytes:
        """RFC 8785 bytes of the document.

        Documents have ASCII field names, strings, integers below 2**53, booleans and null, and for those msgspec's
        sorted encoding is RFC 8785 byte for byte, twenty times faster; a test compares it with `rfc8785`.
        """
        return msgspec.json.encode(self, order="sorted")

    def digest(self) -> bytes:
        """The 32 bytes that are signed and that other documents refer to."""
        return domain_hash(self.domain, self.version_number, self.canonical())

    def digest_hex(self) -> str:
        """`digest` as 64 lower-case hex digits."""
        return self.digest().hex()

    @classmethod
    def from_canonical(cls, raw: bytes) -> Self:
        """Read a document that must already be in canonical form, byte for byte.

        Raises:
            InvalidValue: not this kind of document, or the bytes are not its canonical form
                (other key order, blanks, duplicate keys, escapes).
        """
        document = cls.from_json(raw)
        if document.canonical() != raw:
            raise InvalidValue(f"{cls.domain}: not in canonical form (RFC 8785)")
        return document

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a document from any JSON text of it; types, patterns and unknown fields are checked.

        Raises:
            InvalidValue: says which field is wrong and why.
        """
        if len(raw) > MAX_DOCUMENT_BYTES:
            raise InvalidValue(f"{cls.domain}: {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are read")
        try:
            return decoder_for(cls).decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise InvalidValue(f"{cls.domain}: {error}") from None

    @classmethod
    def from_object(cls, value: Any) -> Self:
        """Read a document from decoded JSON (dicts, lists, strings, ints).

        Raises:
            InvalidValue: says which field is wrong and why.
        """
        decoder_for(cls)
        try:
            return msgspec.convert(value, type=cls, strict=True)
        except msgspec.MsgspecError as error:
            raise InvalidValue(f"{cls.domain}: {error}") from None

    def to_object(self) -> dict[str, Any]:
        """The document as plain JSON values."""
        value = msgspec.to_builtins(self)
        assert isinstance(value, dict)
        return value


def domain_hash(domain: str, version: int, canonical: bytes) -> bytes:
    """SHA-256 (32 bytes) of the domain line and the canonical bytes."""
    return hashlib.sha256(f"strongroom:{domain}:v{version}\n".encode() + canonical).digest()


def verify_ed25519(public_key_hex: str, digest: bytes, signature_b64: str) -> None:
    """Check an Ed25519 signature (64 bytes as base64) over a document's digest (RFC 8032).

    libsodium takes half as long for it as OpenSSL does, lets other threads run meanwhile, and refuses keys of small
    order, under which a signature may hold for several messages.

    Raises:
        BadSignature: malformed or wrong.
    """
    try:
        signature = base64.b64decode(signature_b64, validate=True)
        VerifyKey(bytes.fromhex(public_key_hex)).verify(digest, signature)
    except (CryptoError, ValueError, binascii.Error):
        raise BadSignature("the signature does not verify under the expected key") from None
    # The last letter has four bits to spare; with those set it would be another text of the same signature.
    if encode_signature(signature) != signature_b64:
        raise BadSignature("the signature's base64 is not in its one form")


def encode_signature(signature: bytes) -> str:
    """64 signature bytes as standard base64 (88 characters)."""
    return base64.b64encode(signature).decode("ascii")
