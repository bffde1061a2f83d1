"""KeyRef URIs: in which backend the keys of a key-set are. Pure.

    pkcs11:token=NAME[;object=LABEL]     a secp256k1 key inside a token; its label is KEYSET-sign if not given
    sealed:token=NAME                    an HD seed, sealed under a key of a token
    software:file=PATH                   a key in a file, for trials and tests only

NAME is that of a `[tokens.NAME]` section of the configuration. Attributes are written as RFC 7512 has them:
`name=value` joined by `;`, every byte beside letters, digits, `-._~/` as %XX. There is no query: where the
library and the PIN are is said by the token's section.

Sources: RFC 7512 (PKCS#11 URI scheme), RFC 3986 section 2 (unreserved characters, percent-encoding).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from chains.errors import InvalidValue

MAX_URI_CHARS: Final = 1024
MAX_LABEL_BYTES: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VALUE: Final = re.compile(r"(?:[A-Za-z0-9._~/-]|%[0-9A-Fa-f]{2})+")
_SAFE: Final = "/"


@dataclass(frozen=True, slots=True)
class Pkcs11Ref:
    """A secp256k1 key inside a token."""

    token: str
    """Name of the token's section."""
    object: str | None = None
    """CKA_LABEL of both halves of the key."""

    def __str__(self) -> str:
        label = "" if self.object is None else f";object={quote(self.object, safe=_SAFE)}"
        return f"pkcs11:token={self.token}{label}"


@dataclass(frozen=True, slots=True)
class SealedRef:
    """An HD seed, sealed under a key of a token."""

    token: str
    """Name of the token's section."""

    def __str__(self) -> str:
        return f"sealed:token={self.token}"


@dataclass(frozen=True, slots=True)
class SoftwareRef:
    """A key in a file. No production signer opens one."""

    file: Path
    """Absolute."""

    def __str__(self) -> str:
        return f"software:file={quote(str(self.file), safe=_SAFE)}"


KeyRef = Pkcs11Ref | SealedRef | SoftwareRef
"""Where keys are. `str` gives the URI back; none of it is secret."""

_ATTRIBUTES: Final = {
    "pkcs11": (frozenset({"token"}), frozenset({"token", "object"})),
    "sealed": (frozenset({"token"}), frozenset({"token"})),
    "software": (frozenset({"file"}), frozenset({"file"})),
}
"""Of each scheme: the attributes that it must have, and those that it may have."""


def parse_keyref(uri: str) -> KeyRef:
    """The reference that a URI is, in the one form in which it can be written.

    Raises:
        InvalidValue: says what is wrong; the URI itself is not repeated, as somebody may have put a PIN into it.
    """
    scheme, colon, rest = uri.partition(":")
    if len(uri) > MAX_URI_CHARS or not colon or scheme not in _ATTRIBUTES:
        raise InvalidValue(f"a key's URI begins with one of {', '.join(f'{name}:' for name in _ATTRIBUTES)}")
    needed, known = _ATTRIBUTES[scheme]
    found: dict[str, str] = {}
    for part in rest.split(";"):
        name, equals, value = part.partition("=")
        if not equals or name not in known:
            raise InvalidValue(
                f"a {scheme} URI has attributes NAME=VALUE joined by ';', of the names {', '.join(sorted(known))}"
            )
        if name in found:
            raise InvalidValue(f"a {scheme} URI has the attribute {name} once")
        found[name] = _decoded(scheme, name, value)
    for name in sorted(needed - found.keys()):
        raise InvalidValue(f"a {scheme} URI needs the attribute {name}")
    return _made(scheme, found)


def _made(scheme: str, found: dict[str, str]) -> KeyRef:
    if scheme == "software":
        if not found["file"].startswith("/"):
            raise InvalidValue("a software URI names its file by an absolute path")
        return SoftwareRef(Path(found["file"]))
    if not _NAME.fullmatch(found["token"]):
        raise InvalidValue(f"a {scheme} URI names its token as the section [tokens.NAME] does")
    if scheme == "sealed":
        return SealedRef(found["token"])
    label = found.get("object")
    if label is not None and len(label.encode()) > MAX_LABEL_BYTES:
        raise InvalidValue(f"a label has at most {MAX_LABEL_BYTES} bytes")
    return Pkcs11Ref(found["token"], label)


def _decoded(scheme: str, name: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise InvalidValue(f"a {scheme} URI: write every unusual byte of {name} as %XX")
    try:
        text = unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise InvalidValue(f"a {scheme} URI: {name} is not UTF-8") from None
    if not text.isprintable():
        raise InvalidValue(f"a {scheme} URI: {name} has characters that can't be printed")
    return text
