"""Whose signatures count: callers, operators, approvers, verifiers and officers, each until an end date."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policies.canonical import Base64Url, Hex32, Name, Part, Seconds

ScopeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,32}(:[a-z]{1,32})?\Z")]
"""What a caller may do, e.g. `withdrawals:sign`."""


class Caller(Part, frozen=True):
    """Somebody whose Ed25519 key may call the API, and sign orders if the scopes say so."""

    id: Name
    key: Hex32
    organisation: Name
    scopes: tuple[ScopeName, ...]
    not_after: Seconds


OperatorRole = Literal["support", "treasury", "compliance", "security", "auditor"]
"""What an operator may do by hand; which actions those are is in `policies.administration`."""


class Operator(Part, frozen=True):
    """Somebody who runs the service: signs each action with an Ed25519 key of his own, by hand."""

    id: Name
    """No caller has it. An approver who has it is the same person."""
    key: Hex32
    organisation: Name
    roles: Annotated[tuple[OperatorRole, ...], msgspec.Meta(min_length=1)]
    not_after: Seconds


class Officer(Part, frozen=True):
    """A holder of a quorum key."""

    id: Name
    key: Hex32
    organisation: Name
    not_after: Seconds


class Passkey(Part, frozen=True):
    """A WebAuthn credential of one person, for the one page that `strongroom approve` serves (`policies.passkeys`)."""

    credential_id: Annotated[Base64Url, msgspec.Meta(max_length=1400)]
    """By which the authenticator finds it; at most 1,023 bytes (WebAuthn section 5.8.3)."""
    public_key: Annotated[Base64Url, msgspec.Meta(max_length=160)]
    """COSE_Key in CTAP2's canonical CBOR (RFC 9052): ES256 on P-256, or EdDSA on Ed25519."""
    rp_id: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9.-]{0,252}\Z")]
    """Relying party: the host of the page, or a domain above it."""
    origin: Annotated[str, msgspec.Meta(pattern=r"^https?://[a-z0-9][a-z0-9.-]{0,252}(:[1-9][0-9]{0,4})?\Z")]
    """Of the page, exactly; without TLS it must be `localhost`."""


class Approver(Part, frozen=True):
    """Somebody whose key approves payments. A person who is also a caller never approves an own order."""

    id: Name
    key: Hex32 | Passkey
    """An Ed25519 public key, or a passkey."""
    organisation: Name
    roles: tuple[Name, ...]
    not_after: Seconds


class Attestor(Part, frozen=True):
    """A verifier: its Ed25519 key signs verdicts over ledgers, and what became of signed transactions."""

    id: Name
    key: Hex32
    organisation: Name
    not_after: Seconds
