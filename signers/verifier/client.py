"""The other end of the verifier's listener: who needs a verdict asks here."""

from __future__ import annotations

from signers.client import VerdictClient
from signers.ports import Metrics, Nothing
from signers.verifier.ports import AuditRequest, Findings, VerifierStatus


class VerifierClient(VerdictClient):
    """A verifier reached over its socket, for all that it answers. Safe to use from many threads."""

    def audit(self, customer: str | None = None) -> Findings:
        """What is wrong with a customer's ledger now, or (None) what the last round found. Raises SignerUnavailable."""
        return self._connection.ask("audit", AuditRequest(customer=customer), Findings)

    def status(self) -> VerifierStatus:
        """What the verifier says of itself. Raises SignerUnavailable."""
        return self._connection.ask("status", Nothing(), VerifierStatus)

    def metrics(self) -> Metrics:
        """What it counts. Raises SignerUnavailable."""
        return self._connection.metrics()
