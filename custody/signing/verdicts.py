"""Verdicts: a verifier's word that a customer's ledger covers what a vault is to pay. Its members want a fresh one.

A verdict is good for minutes, and a verifier answers in milliseconds. So none is kept: it is asked for whenever a
request is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from policies.intent import Intent, Kind, SignedOrder, SignedVerdict
from signers.ports import SignerUnavailable, SignRequest, VerdictRequest


class Verifier(Protocol):
    """Who gives verdicts."""

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        """The signed word that an order is covered. Raises Refused (it is not, with reasons), SignerUnavailable."""


def verdicts_on(request: SignRequest, verifiers: Sequence[Verifier]) -> tuple[SignedVerdict, ...]:
    """A verdict on each payment of a request, of the first verifier that answers.

    Raises:
        Refused: an order is not covered, by the word of a verifier; the others are not asked.
        SignerUnavailable: none answers, or there is none.
    """
    orders = {signed.order.digest_hex(): signed for signed in request.evidence.orders}
    payments = [intent for intent in request.intents if intent.kind is Kind.PAYMENT]
    return tuple(
        _one(intent, orders[intent.order], verifiers) for intent in payments if intent.order in orders
    )


def _one(intent: Intent, order: SignedOrder, verifiers: Sequence[Verifier]) -> SignedVerdict:
    unanswered = SignerUnavailable("no verifier is configured: vaults pay with a verifier's verdict only")
    for verifier in verifiers:
        try:
            return verifier.verdict(VerdictRequest(intent=intent, order=order))
        except SignerUnavailable as error:
            unanswered = error
    raise unanswered
