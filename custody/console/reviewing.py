"""What a withdrawal that waits for approval does, from the signed order and the pinned bundle alone.

Whoever asks for an approval may lie about it (FAULTS rows 44, 45): nothing of what the API says is shown that is not
checked here, or marked as its word. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from chains.types import Address
from custody.withdrawals.destinations import destination_of
from policies.approvals import belongs, initiated
from policies.bundle import Approver, Bundle, Caller
from policies.canonical import decoder_for
from policies.deciding import engine_of
from policies.engine import Demands, groups_of
from policies.facts import GENUINE, Ownership
from policies.intent import Intent, Order, SignedOrder, payment_intent
from policies.ordered import facts_of
from policies.values import value_of
from policies.words import needed

_LEDGER: Final = "ledger"
_KINDS: Final = {
    "p2wpkh": "one key (P2WPKH)",
    "p2wsh": "a script (P2WSH)",
    "p2tr": "a Taproot output (P2TR)",
    "p2pkh": "one key (P2PKH, old)",
    "p2sh": "a script (P2SH, old)",
    "evm": "an account or a contract",
}


class NotGenuine(PermanentError):
    """What is asked about is not what its caller has signed, or not what this bundle would pay: sign nothing."""


@dataclass(frozen=True, slots=True)
class Review:
    """One withdrawal as it really is."""

    order: Order
    caller: Caller
    intent: Intent
    """What would be signed; made here, and equal to what is asked about."""
    destination: Address
    demands: Demands
    """What the signers' part of the rules asks for."""
    groups: tuple[str, ...]
    """Of the policy, that are asked."""

    def lines(self, bundle: Bundle) -> Iterator[tuple[str, str]]:
        """It in words, for people: a heading and a sentence each."""
        order, network = self.order, bundle.network(self.order.chain)
        ends = datetime.fromtimestamp(order.expires_at, UTC)
        signed = (
            f"signed by {self.caller.id} of {self.caller.organisation}, which this bundle lets give orders"
        )
        yield "pay", f"{bundle.told(order.asset, order.units)} on {order.chain} ({order.amount} base units)"
        yield "to", f"{order.destination}: {_KINDS.get(self.destination.kind, self.destination.kind)}"
        yield "for", f"customer {order.customer}"
        yield "order", f"{order.id}, {signed}"
        yield "ends", f"{ends:%Y-%m-%d %H:%M:%S} UTC"
        yield "network fee", f"at most {bundle.told(network.native_asset, order.fee_ceiling_units)}"
        if self.intent.tier == _LEDGER:
            yield "from", "the ledger alone: no transaction is made, no signer is asked"
        else:
            yield "from", f"the {self.intent.tier} wallet {self.intent.keyset}"
        yield "rules", f"version {bundle.version} asks {needed(self.demands.approvals)}"
        for reason in self.demands.refusals:
            yield "WARNING", f"signers will refuse it: {reason}"


def review(question: Mapping[str, Any], bundle: Bundle, *, now: int) -> Review:
    """Check what the API asks about.

    Args:
        question: one item of `GET /v1/approvals`.
        bundle: pinned and verified here.
        now: UNIX seconds.

    Raises:
        NotGenuine: says what is wrong.
    """
    decoder_for(SignedOrder)
    try:
        signed = msgspec.convert(
            {"order": question["order"], "signature": question["order_signature"]}, SignedOrder
        )
        claimed = Intent.from_object(question["intent"])
        order = signed.order
        caller = bundle.caller(order.caller)
        signed.verify(caller.key)
        destination = destination_of(bundle, order.chain, order.destination)
        intent = payment_intent(order, claimed.keyset, claimed.tier, bundle.version)
        _check_order(order, caller, bundle, now)
        _check_wallet(intent, bundle)
    except (KeyError, TypeError, msgspec.ValidationError, PermanentError) as error:
        raise NotGenuine(f"{error}" or type(error).__name__) from None
    if claimed != intent:
        names = [
            name for name in claimed.__struct_fields__ if getattr(claimed, name) != getattr(intent, name)
        ]
        if names == ["policy_version"]:
            raise NotGenuine(
                f"it was decided under version {claimed.policy_version}, the bundle here is version {bundle.version}:"
                " get the newest bundle from the officers, or wait until it is decided again"
            )
        raise NotGenuine(f"the intent differs from what order and bundle say, in {', '.join(names)}")
    if question.get("intent_digest") != intent.digest_hex() or question.get("withdrawal") != order.id:
        raise NotGenuine("the digest or the id that is asked about is another one's")
    demands = _demands(order, intent, bundle, now)
    groups = tuple(sorted({*groups_of(demands.approvals), *map(str, question.get("groups", ()))}))
    return Review(order, caller, intent, destination, demands, groups)


def _check_order(order: Order, caller: Caller, bundle: Bundle, now: int) -> None:
    if "withdrawals:sign" not in caller.scopes or now >= caller.not_after:
        raise InvalidValue(f"caller {caller.id} may not sign orders")
    if now >= order.expires_at:
        raise InvalidValue(f"the order ended at {order.expires_at}")
    if bundle.asset(order.asset).chain != order.chain:
        raise InvalidValue(f"{order.asset} is not on {order.chain}")


def _check_wallet(intent: Intent, bundle: Bundle) -> None:
    if (intent.tier, intent.keyset) == (_LEDGER, _LEDGER):
        return
    wallet = bundle.wallet(intent.keyset)
    if (wallet.chain, wallet.tier, wallet.state) != (intent.chain, intent.tier, "active"):
        raise InvalidValue(f"{wallet.id} is not the active {intent.tier} wallet of {intent.chain}")


def _demands(order: Order, intent: Intent, bundle: Bundle, now: int) -> Demands:
    ours = intent.tier == _LEDGER
    facts = replace(
        facts_of(order, now=now),
        value=value_of(bundle, order.asset, order.units),
        source=None if ours else intent.keyset,
        ownership=Ownership.CUSTOMER if ours else Ownership.EXTERNAL,
        order=GENUINE,
    )
    return engine_of(bundle).demands(facts, intent.tier)


def group_for(
    order: Order | None, groups: Sequence[str], approver: Approver, bundle: Bundle, wanted: str | None
) -> str:
    """For which group an approver's answer counts.

    Args:
        order: whose initiator never counts; None: nobody has ordered it.
        groups: that are asked.
        approver: who answers.
        bundle: the pinned one.
        wanted: the approver's choice, needed where there are several.

    Raises:
        InvalidValue: for none, or for several and no choice; the approver has given the order himself.
    """
    if order is not None and initiated(order, approver, bundle):
        raise InvalidValue(
            f"{approver.id} has given this order: who gives one never counts among its approvers"
        )
    mine = [group for group in groups if belongs(approver, group, bundle.policy)]
    if wanted is not None:
        if wanted not in mine:
            raise InvalidValue(
                f"group {wanted}: {approver.id} counts for {', '.join(mine) or 'none that is asked'}"
            )
        return wanted
    if not mine:
        raise InvalidValue(f"{approver.id} is in none of the groups that are asked: {', '.join(groups)}")
    if len(mine) > 1:
        raise InvalidValue(f"{approver.id} counts for one group only: choose --group {' or '.join(mine)}")
    return mine[0]
