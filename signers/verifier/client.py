"""The other end of the verifier's listener: who needs a verdict asks here."""

from __future__ import annotations

from policies.intent import SignedVerdict
from signers.client import SignerClient
from signers.ports import Metrics, Nothing
from signers.verifier.ports import AuditRequest, Findings, VerdictRequest, VerifierStatus


class VerifierClient:
    """A verifier reached over its socket. Safe to use from many threads.

    Args:
        connection: a client of its address; nothing else is asked over it.
    """

    def __init__(self, connection: SignerClient) -> None:
        self._connection = connection

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        """The signed word that an order is covered. Raises Refused (it is not, with reasons), SignerUnavailable."""
        return self._connection.ask("verdict", request, SignedVerdict)

    def audit(self, customer: str | None = None) -> Findings:
        """What is wrong with a customer's ledger now, or (None) what the last round found. Raises SignerUnavailable."""
        return self._connection.ask("audit", AuditRequest(customer=customer), Findings)

    def status(self) -> VerifierStatus:
        """What the verifier says of itself. Raises SignerUnavailable."""
        return self._connection.ask("status", Nothing(), VerifierStatus)

    def metrics(self) -> Metrics:
        """What it counts. Raises SignerUnavailable."""
        return self._connection.metrics()

    def close(self) -> None:
        """Close idle connections."""
        self._connection.close()
