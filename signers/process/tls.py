"""TLS 1.3 between pinned certificates: who signed them does not matter, only that they are exactly these."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

from signers.errors import BadConfiguration


def server_context(certificate: Path, private_key: Path, clients: Iterable[Path]) -> ssl.SSLContext:
    """A context that lets only clients with one of the given certificates in.

    Raises:
        BadConfiguration: a file is missing or malformed.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, certificate, private_key, clients)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(certificate: Path, private_key: Path, server: Path) -> ssl.SSLContext:
    """A context that talks only to the server with the given certificate.

    Raises:
        BadConfiguration: a file is missing or malformed.
    """
    return _context(ssl.PROTOCOL_TLS_CLIENT, certificate, private_key, [server])


def pins(certificates: Iterable[Path]) -> frozenset[bytes]:
    """The DER bytes of PEM certificates. Raises BadConfiguration where a file is missing or malformed."""
    try:
        return frozenset(ssl.PEM_cert_to_DER_cert(path.read_text()) for path in certificates)
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"certificate: {error}") from None


def ends(certificates: Iterable[Path]) -> dict[str, int]:
    """When PEM certificates expire, by file name (UNIX seconds): from then on nobody gets in with them.

    Raises:
        BadConfiguration: a file is missing or malformed.
    """
    try:
        return {
            path.name: int(load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
            for path in certificates
        }
    except (OSError, ValueError) as error:
        raise BadConfiguration(f"certificate: {error}") from None


def is_pinned(connection: ssl.SSLSocket, allowed: frozenset[bytes]) -> bool:
    """Whether the other side showed one of the allowed certificates (DER), byte for byte."""
    return connection.getpeercert(binary_form=True) in allowed


def _context(protocol: int, certificate: Path, private_key: Path, trusted: Iterable[Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # The certificate itself is compared; names in it mean nothing here.
    context.check_hostname = False
    # Lets a certificate that is its own issuer, or any other pinned one, end the chain.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_cert_chain(certificate, private_key)
        for path in trusted:
            context.load_verify_locations(path)
    except (OSError, ssl.SSLError) as error:
        raise BadConfiguration(f"TLS files ({certificate}, {private_key}): {error}") from None
    return context
