"""What the verifier is asked and what it answers, besides its words to signers. No I/O here."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from policies.canonical import Seconds, decoder_for
from policies.intent import SignedVerdict
from signers.ports import Nothing
from signers.verifier.model import Finding, Unknown

VERDICT_SECONDS = 300
"""How long a verdict is good at most."""


class Findings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is wrong, and what could not be told."""

    findings: tuple[Finding, ...]
    unknowns: tuple[Unknown, ...] = ()


class AuditRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for an audit: of one customer now, or (null) for what the last round over everybody has found."""

    v: Literal[1] = 1
    customer: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class ChainStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How far a chain was read on the own node."""

    chain: str
    height: int
    """-1 before the first block."""
    anchor: int
    trouble: str = ""
    """Why it is not followed now, empty if it is."""


class VerifierStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the verifier says of itself."""

    name: str
    bundle_version: int
    chains: tuple[ChainStatus, ...]
    signers: dict[str, str]
    """By name: empty, or why its log was not read or its open transactions not resolved at the last try."""
    standing: int
    """Findings of the last round that stand."""
    round_at: Seconds
    """When the last round over everybody ended; 0 before the first."""
    audit: str = ""
    """Why the last round did not come to its end, empty if it did."""


for _kind in (Findings, AuditRequest, VerifierStatus, SignedVerdict, Nothing):
    decoder_for(_kind)
