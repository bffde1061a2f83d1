"""An attempt of an operator to do something, and its record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from policies.administration import Act
from policies.canonical import Document, verify_ed25519
from policies.token import Token

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
BEGINNING: Final = "0" * 64
"""What the first record has for the hash of the one before it."""


class Via(StrEnum):
    """By which way an operator came."""

    HOST = "host"
    """A verb of the command line, on the host, with the workers' database role. It signs an `Act`."""
    API = "api"
    """A request, whose token is what was signed."""


class Outcome(StrEnum):
    """What became of an attempt."""

    DONE = "done"
    ASKED = "asked"
    """It waits for other operators, or for time to pass."""
    REFUSED = "refused"
    """By roles, by the policy, or by where it came from."""
    FAILED = "failed"
    """It was allowed, and could not be done."""


def as_json(parameters: Mapping[str, str]) -> str:
    """Parameters in their one form."""
    return msgspec.json.encode(dict(parameters), order="sorted").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What somebody wants to do by hand, and signed."""

    operator: str
    """Id in the bundle, as it was claimed."""
    key: str
    """Ed25519 public key of the signature, 64 hex digits."""
    via: Via
    origin: str
    """User and host, or the network address of the connection."""
    action: str
    parameters: Mapping[str, str]
    """What and why, without secrets and personal data. `customer`, `asset` and `chain` are what rules see."""
    document: str
    """The signed `Act` or `Token`, verbatim."""
    signature: str
    """Over it: base64, 88 characters."""

    @property
    def parameters_json(self) -> str:
        """The parameters in their one form."""
        return as_json(self.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row, as it is stored."""

    number: int
    """1, 2, 3 ... without gaps."""
    at: datetime
    writer: str
    """Database role that wrote it."""
    operator: str
    key: str
    via: str
    origin: str
    action: str
    parameters: str
    outcome: str
    reason: str
    decision: str | None
    bundle_version: int | None
    asked_in: int | None
    """The row that asked for it; of an approval: the row that it approves."""
    document: str
    signature: str
    previous: str
    """Hash of the row before."""
    hash: str

    @property
    def parameters_json(self) -> str:
        """The parameters, as they are stored."""
        return self.parameters

    def computed_hash(self) -> str:
        """What `hash` must be: SHA-256 over all other columns, as the database's trigger computes it."""
        fields = (
            "strongroom:operator-action:v1",
            str(self.number),
            str((self.at - _EPOCH) // timedelta(microseconds=1)),
            self.writer,
            self.operator,
            self.key,
            self.via,
            self.origin,
            self.action,
            self.parameters,
            self.outcome,
            self.reason,
            self.decision,
            None if self.bundle_version is None else str(self.bundle_version),
            None if self.asked_in is None else str(self.asked_in),
            self.document,
            self.signature,
            self.previous,
        )
        parts = [b"-" if each is None else b"%d:%s" % (len(each.encode()), each.encode()) for each in fields]
        return hashlib.sha256(b",".join(parts)).hexdigest()

    def told(self) -> dict[str, Any]:
        """The row as plain JSON values, for people and programs."""
        return {
            "number": self.number,
            "at": f"{self.at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z",
            "operator": self.operator,
            "key": self.key,
            "via": self.via,
            "origin": self.origin,
            "action": self.action,
            "parameters": msgspec.json.decode(self.parameters),
            "outcome": self.outcome,
            "reason": self.reason,
            "decision": None if self.decision is None else msgspec.json.decode(self.decision),
            "bundle_version": self.bundle_version,
            "asked_in": self.asked_in,
            "hash": self.hash,
        }


def signed_by(attempt: Attempt | Record) -> Act | Token:
    """What was signed, by the key that is named, and by the operator who is named.

    Raises:
        InvalidValue: no such document, or it names another operator.
        BadSignature: not signed by that key.
    """
    raw = attempt.document.encode()
    kind: type[Document] = Act if attempt.via == Via.HOST else Token
    document = kind.from_canonical(raw)
    verify_ed25519(attempt.key, document.digest(), attempt.signature)
    assert isinstance(document, Act | Token)
    return document
