"""Reads a signed bundle and believes it only with the pinned quorum's signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.bundle.checks import check_consistent
from policies.bundle.document import Bundle, SignedBundle, TrustRoot
from policies.canonical import MAX_DOCUMENT_BYTES, BadSignature, decoder_for, verify_ed25519

MAX_CLOCK_AHEAD_SECONDS: Final = 300
"""How far an officer's clock may be ahead of a reader's."""


class UntrustedBundle(PermanentError):
    """A bundle that lacks its quorum, is older than the pinned one, or has expired."""


@dataclass(frozen=True, slots=True)
class ReadBundle:
    """A bundle that the quorum has signed."""

    bundle: Bundle
    by_all: bool
    """Every key of the pinned root has signed it, so that nobody is left who could veto it."""


def read_bundle(raw: bytes, root: TrustRoot, *, now: int) -> Bundle:
    """`read_signed` for those who ask for the bundle only. Raises the same."""
    return read_signed(raw, root, now=now).bundle


def read_signed(raw: bytes, root: TrustRoot, *, now: int) -> ReadBundle:
    """Read a signed bundle and believe it only with the quorum's signatures.

    Args:
        raw: JSON of a `SignedBundle`.
        root: the pinned quorum and lowest version.
        now: the reader's own clock, UNIX seconds.

    Raises:
        InvalidValue: malformed, or inconsistent within itself.
        UntrustedBundle: too few valid signatures, older than pinned, not yet issued or expired.
    """
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise InvalidValue(f"bundle: {len(raw)} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    try:
        signed = decoder_for(SignedBundle).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidValue(f"bundle: {error}") from None
    bundle = signed.bundle
    digest = bundle.digest()
    organisations: set[str] = set()
    counted: set[str] = set()
    for entry in signed.signatures:
        public_key = root.keys.get(entry.key)
        # One key counts once, even if a root lists it under two names.
        if public_key is None or public_key in counted:
            continue
        counted.add(public_key)
        try:
            verify_ed25519(public_key, digest, entry.signature)
        except BadSignature:
            raise UntrustedBundle(f"the signature of {entry.key} does not verify") from None
        organisations.add(root.organisations.get(entry.key, entry.key))
    if len(organisations) < root.threshold:
        raise UntrustedBundle(
            f"{len(organisations)} of {root.threshold} organisations have signed this bundle"
        )
    if bundle.overlay is not None:
        raise UntrustedBundle(
            "a bundle that is signed has no overlay: officers lower by statements of their own"
        )
    if bundle.version < root.minimum_version:
        raise UntrustedBundle(f"version {bundle.version} is older than the pinned {root.minimum_version}")
    if bundle.issued_at > now + MAX_CLOCK_AHEAD_SECONDS:
        raise UntrustedBundle(f"the bundle is not yet issued: it says {bundle.issued_at}, now is {now}")
    if now >= bundle.expires_at:
        raise UntrustedBundle(f"the bundle expired at {bundle.expires_at}; have the quorum sign a new one")
    check_consistent(bundle)
    return ReadBundle(bundle, counted == set(root.keys.values()))
