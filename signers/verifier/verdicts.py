"""Verdicts: does what a customer provably owns cover this order? Refuses by default."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from chains.errors import InvalidValue, PermanentError
from policies.bundle import Bundle
from policies.intent import (
    Carrier,
    Intent,
    Kind,
    Order,
    SignedOrder,
    SignedVerdict,
    Verdict,
    resources_digest,
)
from policies.keys import SigningKey, sign_verdict
from signers.ports import Reason, Refused, SignerUnavailable, VerdictRequest, Witness
from signers.verifier.bound import Binding
from signers.verifier.bundles import SIGNING_SCOPE, Bundles
from signers.verifier.examine import Examination, Examiner
from signers.verifier.logs import LogKeeper, read_all, untold
from signers.verifier.model import Replayed
from signers.verifier.paid import CLOCKS_APART_SECONDS
from signers.verifier.ports import VERDICT_SECONDS
from signers.verifier.source import Ledger, LedgerUnavailable
from signers.verifier.state import State

_MOST_REASONS: Final = 50


class Verdicts:
    """Examines and signs; one order at a time, so that two never rely on the same money.

    Args:
        name: of this verifier in the bundle.
        key: signs verdicts.
        state: remembers what was covered and may not be debited yet.
        bundles: whom to believe.
        ledger: the customers' ledger.
        examiner: examines it.
        logs: copies of the signers' logs.
        signers: whose logs must all be read before anything is covered.
        now: tells the time, UNIX seconds.
        member_of: see `signers.verifier.logs.untold`.
        binding: which transactions verdicts were given for.
    """

    def __init__(
        self,
        name: str,
        key: SigningKey,
        state: State,
        bundles: Bundles,
        ledger: Ledger,
        examiner: Examiner,
        logs: LogKeeper,
        signers: Mapping[str, Witness],
        now: Callable[[], int],
        member_of: Mapping[str, Collection[str]],
        binding: Binding,
    ) -> None:
        self._name, self._key, self._state, self._bundles = name, key, state, bundles
        self._ledger, self._examiner, self._logs, self._signers = ledger, examiner, logs, signers
        self._now, self._member_of, self._binding = now, member_of, binding
        self._lock = threading.Lock()

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        """The signed word that an order is covered, and that of all transactions for its intent only one can confirm;
        of a refill the second half.

        Raises:
            Refused: it is not, or something about it is wrong or not known now; all reasons are given.
            SignerUnavailable: the database does not answer, or what is said cannot be remembered.
        """
        with self._lock:
            bundle, now = self._bundles.present(), self._now()
            self._check(request, bundle, now)
            findings, silent = read_all(self._logs, self._signers, bundle)
            reasons = [Reason(each.kind, str(each)) for each in findings]
            missing = untold(silent, self._member_of, bundle)
            reasons += [Reason("signer-silent", f"{name}: {why}") for name, why in missing.items()]
            if reasons:
                raise Refused(tuple(reasons))
            if request.content is not None:
                bound = tuple(self._binding.reasons(request, bundle, now=now))
                if bound:
                    raise Refused(bound[:_MOST_REASONS])
            if request.order is None:
                return self._signed(request, None, now)
            try:
                with self._ledger.snapshot() as snapshot:
                    found = self._examiner.examine_with_partners(snapshot, request.order.order.customer)
            except LedgerUnavailable as error:
                raise SignerUnavailable(str(error)) from error
            self._refuse_unexplained(found)
            order = request.order.order
            promise = _Promise(order, order.units + int(bundle.asset(order.asset).withdrawal_fee))
            self._cover(order, promise.units, found.replayed, now)
            return self._signed(request, promise, now)

    def _check(self, request: VerdictRequest, bundle: Bundle, now: int) -> None:
        """Check everything that needs no ledger. Raises Refused."""
        if now >= bundle.expires_at:
            raise _refused("bundle-expired", f"at {bundle.expires_at}")
        try:
            entry = bundle.verifier(self._name)
            if entry.key != self._key.public_hex or now >= entry.not_after:
                raise InvalidValue(f"the bundle has another key for {self._name}, or its time is over")
            if request.order is not None:
                _check_order(request.order, bundle, now)
        except PermanentError as error:
            raise _refused("order-not-genuine", str(error)) from None
        if not _carries_out(request.intent, request.order):
            raise _refused("intent-mismatch", "the intent is not the payment that the order asks for")

    def _refuse_unexplained(self, found: Examination) -> None:
        reasons = [Reason(each.kind, str(each)) for each in found.findings]
        reasons += [Reason("not-known", str(each)) for each in found.unknowns]
        if reasons:
            raise Refused(tuple(reasons[:_MOST_REASONS]))

    def _cover(self, order: Order, needed: int, replayed: Replayed, now: int) -> None:
        """Check that available money and what is frozen for this order cover it. Raises Refused."""
        held = next((each for each in replayed.held.values() if str(each.withdrawal) == order.id), None)
        if held is not None and held.state != "pending":
            raise _refused("not-covered", f"the hold of this order is {held.state}")
        frozen = 0 if held is None else held.units
        promised = self._promised(order, replayed, now)
        missing = replayed.shortfalls.get(order.asset, 0)
        free = replayed.balance("available", order.asset) - promised - missing
        if frozen + free < needed:
            raise _refused(
                "not-covered",
                f"{frozen} are frozen for it and {free} free ({promised} are promised to other orders, {missing} owed),"
                f" it needs {needed} {order.asset}",
            )

    def _promised(self, order: Order, replayed: Replayed, now: int) -> int:
        """What other orders were found covered with, and may still be signed for, that the ledger does not hold."""
        debited = {str(each.withdrawal) for each in replayed.held.values() if each.state != "voided"}
        rows = self._state.rows(
            "SELECT DISTINCT withdrawal, units FROM verdicts WHERE customer = ? AND asset = ? AND expires_at > ?"
            " AND withdrawal <> ?",
            order.customer,
            order.asset,
            now - CLOCKS_APART_SECONDS,
            order.id,
        )
        return sum(int(units) for withdrawal, units in rows if withdrawal not in debited)

    def _signed(self, request: VerdictRequest, promise: _Promise | None, now: int) -> SignedVerdict:
        """The verdict, once it is remembered. Raises SignerUnavailable: it cannot be."""
        end = now + VERDICT_SECONDS
        verdict = Verdict(
            v=1,
            intent=request.intent.digest_hex(),
            verifier=self._name,
            outcome="bound" if promise is None else "covered",
            expires_at=end if promise is None else min(end, promise.order.expires_at),
            carrier=None
            if request.content is None
            else Carrier(content=request.content, resources=resources_digest(request.resources)),
        )
        # Before it leaves: what is promised must be known after any crash.
        if promise is not None:
            self._state.write(
                "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?)",
                verdict.intent,
                promise.order.id,
                promise.order.customer,
                promise.order.asset,
                str(promise.units),
                verdict.expires_at,
            )
        if verdict.carrier is not None:
            self._binding.note(request, verdict)
        return sign_verdict(verdict, self._key)


@dataclass(frozen=True, slots=True)
class _Promise:
    """What an order was found covered with."""

    order: Order
    units: int
    """Base units, the customer's fee included."""


def _check_order(signed: SignedOrder, bundle: Bundle, now: int) -> None:
    """Raises a PermanentError unless a caller of the bundle has signed it, and its time is not over."""
    order, caller = signed.order, bundle.caller(signed.order.caller)
    if SIGNING_SCOPE not in caller.scopes or now >= caller.not_after or now >= order.expires_at:
        raise InvalidValue(f"{caller.id} may not sign orders, or the order's time is over")
    signed.verify(caller.key)
    if bundle.asset(order.asset).chain != order.chain:
        raise InvalidValue(f"{order.asset} is not on {order.chain}")


def _carries_out(intent: Intent, signed: SignedOrder | None) -> bool:
    if signed is None:
        return intent.kind is Kind.REFILL and intent.order is None
    order = signed.order
    return (
        intent.kind is Kind.PAYMENT
        and intent.order == order.digest_hex()
        and (intent.id, intent.chain, intent.asset, intent.destination, intent.amount)
        == (order.id, order.chain, order.asset, order.destination, order.amount)
    )


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))
