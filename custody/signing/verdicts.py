"""Verdicts: a verifier's word that a customer's ledger covers what a vault is to pay, by the very transaction that its
members are shown, and that no other one for the same order can confirm beside it. Members want fresh ones.

A verdict is good for minutes, and a verifier answers in milliseconds. So none is kept: it is asked for whenever a
request is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from custody.signing.model import Version
from policies.bundle import Bundle
from policies.intent import Kind, SignedOrder, SignedVerdict
from signers.ports import SignerUnavailable, SignRequest, VerdictRequest


class Verifier(Protocol):
    """Who gives verdicts."""

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        """The signed word that an order is covered. Raises Refused (it is not, with reasons), SignerUnavailable."""


def verdicts_on(
    version: Version, request: SignRequest, verifiers: Sequence[Verifier], wanted: int
) -> tuple[SignedVerdict, ...]:
    """Verdicts for members of a vault, on each payment and refill of a version, good for that very transaction.

    Args:
        version: names the transaction, and what it uses.
        request: what its members are shown.
        verifiers: who is asked, in this order.
        wanted: how many different ones have to say yes: more than half of those that the bundle has.

    Raises:
        Refused: something is not covered, or was found good in another transaction, by the word of a verifier.
        SignerUnavailable: too few answer, or there are too few.
    """
    orders = _orders(request)
    found: list[SignedVerdict] = []
    for intent in request.intents:
        order = orders.get(intent.order or "")
        if intent.kind is not Kind.REFILL and (intent.kind is not Kind.PAYMENT or order is None):
            continue
        asked = VerdictRequest(
            intent=intent, order=order, content=version.content, resources=tuple(sorted(version.resources))
        )
        found += _ask(asked, verifiers, wanted)
    return tuple(found)


def check_covered(request: SignRequest, verifiers: Sequence[Verifier]) -> None:
    """Have a verifier look at each payment of a request that holders sign offline, who see no verdicts.

    Raises:
        Refused: an order is not covered, by the word of a verifier; the others are not asked.
        SignerUnavailable: none answers, or there is none.
    """
    orders = _orders(request)
    for intent in request.intents:
        if intent.kind is Kind.PAYMENT and intent.order in orders:
            _ask(VerdictRequest(intent=intent, order=orders[intent.order]), verifiers, 1)


def majority(bundle: Bundle) -> int:
    """How many verifiers members of a vault want to hear: so that any two groups of so many have one in common."""
    return len(bundle.verifiers) // 2 + 1


def _orders(request: SignRequest) -> dict[str, SignedOrder]:
    return {signed.order.digest_hex(): signed for signed in request.evidence.orders}


def _ask(request: VerdictRequest, verifiers: Sequence[Verifier], wanted: int) -> list[SignedVerdict]:
    unanswered = SignerUnavailable("no verifier is configured: vaults pay with a verifier's verdict only")
    found: list[SignedVerdict] = []
    for verifier in verifiers:
        try:
            found.append(verifier.verdict(request))
        except SignerUnavailable as error:
            unanswered = error
        if len(found) == wanted:
            return found
    raise unanswered
