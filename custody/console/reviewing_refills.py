"""What a refill that waits for approval does, from its intent and the pinned bundle alone.

Nothing of what the API says is believed: that the destination is an address of ours is derived here again. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from custody.console.reviewing import NotGenuine
from custody.deposits.outputs import outputs_of
from policies.bundle import BitcoinKeyset, BitcoinVault, Bundle, GasPayer, WalletEntry
from policies.deciding import engine_of
from policies.engine import Demands, groups_of
from policies.intent import Intent, Kind
from policies.ordered import facts_of_refill
from policies.words import needed

CHANGE: Final = 1
"""The branch of a Bitcoin wallet that nobody's deposits go to."""


@dataclass(frozen=True, slots=True)
class RefillReview:
    """One refill as it really is."""

    intent: Intent
    """What would be signed."""
    source: WalletEntry
    target: WalletEntry
    """Whose address the destination is, as it was derived here."""
    place: int | None
    """BTC: index of that address."""
    demands: Demands
    """What the signers' part of the rules asks for."""
    groups: tuple[str, ...]
    """Of the policy, that are asked."""
    about: str
    """Why, in the service's words."""

    def lines(self, bundle: Bundle) -> Iterator[tuple[str, str]]:
        """It in words, for people: a heading and a sentence each."""
        intent, network = self.intent, bundle.network(self.intent.chain)
        yield (
            "move",
            f"{bundle.told(intent.asset, intent.units)} on {intent.chain} ({intent.amount} base units)",
        )
        yield "from", f"the {intent.tier} wallet {self.source.id}; change goes back there"
        kind = "gas payer" if isinstance(self.target, GasPayer) else f"{self.target.tier} wallet"
        place = "" if self.place is None else f" (change address {self.place})"
        yield "to", f"{intent.destination}: our {kind} {self.target.id}{place}, derived here from the bundle"
        yield "refill", f"{intent.id}: no customer is paid, the money stays ours"
        yield "network fee", f"at most {bundle.told(network.native_asset, int(network.fee_cap))}"
        yield "why", f"{self.about} (the service's word)"
        yield "rules", f"version {bundle.version} asks {needed(self.demands.approvals)}"
        for reason in self.demands.refusals:
            yield "WARNING", f"signers will refuse it: {reason}"


def review_refill(question: Mapping[str, Any], bundle: Bundle, *, now: int) -> RefillReview:
    """Check what the API asks about.

    Args:
        question: one item of `GET /v1/approvals` that is about a refill.
        bundle: pinned and verified here.
        now: UNIX seconds.

    Raises:
        NotGenuine: says what is wrong.
    """
    try:
        intent = Intent.from_object(question["intent"])
        source, target = bundle.wallet(intent.keyset), bundle.wallet(str(question["target"]))
        place = question.get("place")
        _check(intent, source, target, bundle)
        _check_destination(intent, target, place, bundle)
    except (KeyError, TypeError, msgspec.ValidationError, PermanentError) as error:
        raise NotGenuine(f"{error}" or type(error).__name__) from None
    if question.get("intent_digest") != intent.digest_hex() or question.get("refill") != intent.id:
        raise NotGenuine("the digest or the id that is asked about is another one's")
    demands = engine_of(bundle).demands(facts_of_refill(intent, bundle, now=now), intent.tier)
    groups = tuple(sorted({*groups_of(demands.approvals), *map(str, question.get("groups", ()))}))
    about = str(question.get("about", ""))[:300]
    return RefillReview(intent, source, target, place, demands, groups, about)


def _check(intent: Intent, source: WalletEntry, target: WalletEntry, bundle: Bundle) -> None:
    if intent.kind is not Kind.REFILL or intent.order is not None or intent.units < 1:
        raise InvalidValue("it is no refill")
    if intent.policy_version != bundle.version:
        raise InvalidValue(
            f"it was decided under version {intent.policy_version}, the bundle here is version {bundle.version}:"
            " get the newest bundle from the officers, or wait until it is proposed anew"
        )
    if {source.chain, target.chain, bundle.asset(intent.asset).chain} != {intent.chain}:
        raise InvalidValue(f"{source.id}, {target.id} and {intent.asset} are not all on {intent.chain}")
    if (source.tier, source.state) != (intent.tier, "active"):
        raise InvalidValue(f"{source.id} is not the active {intent.tier} wallet of {intent.chain}")
    if target.state != "active" or (source.tier == target.tier and not isinstance(target, GasPayer)):
        raise InvalidValue(f"{target.id} is not the active wallet of another tier")


def _check_destination(intent: Intent, target: WalletEntry, place: object, bundle: Bundle) -> None:
    if isinstance(target, BitcoinKeyset | BitcoinVault):
        if type(place) is not int:
            raise InvalidValue("it does not say which address of the target it is")
        ours = outputs_of(bundle, target).agreed_address(CHANGE, place)
    else:
        ours = target.address
    if intent.destination != ours:
        raise InvalidValue(f"{intent.destination} is no address of {target.id}: that is {ours}")
