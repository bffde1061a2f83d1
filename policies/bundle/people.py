"""Whose signatures count: callers, approvers, verifiers and officers, each until an end date."""

from __future__ import annotations

from typing import Annotated

import msgspec

from policies.canonical import Hex32, Name, Part, Seconds

ScopeName = Annotated[str, msgspec.Meta(pattern=r"^[a-z]{1,32}(:[a-z]{1,32})?\Z")]
"""What a caller may do, e.g. `withdrawals:sign`."""


class Caller(Part, frozen=True):
    """Somebody whose Ed25519 key may call the API, and sign orders if the scopes say so."""

    id: Name
    key: Hex32
    organisation: Name
    scopes: tuple[ScopeName, ...]
    not_after: Seconds


class Officer(Part, frozen=True):
    """A holder of a quorum key."""

    id: Name
    key: Hex32
    organisation: Name
    not_after: Seconds


class Approver(Part, frozen=True):
    """Somebody whose Ed25519 key approves payments. A person who is also a caller never approves an own order."""

    id: Name
    key: Hex32
    organisation: Name
    roles: tuple[Name, ...]
    not_after: Seconds


class Attestor(Part, frozen=True):
    """A verifier: its Ed25519 key signs verdicts over ledgers, and what became of signed transactions."""

    id: Name
    key: Hex32
    organisation: Name
    not_after: Seconds
