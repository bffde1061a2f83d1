"""Refills: money that moves between wallets of the house on one chain, from one tier to another. Pure.

Where it goes a signer derives again from the bundle: to the active wallet of another tier, or from a hot key-set to
the gas payer, and to nobody else. Towards where people look less (a hotter tier, the gas payer) it counts like a
payment in the windows of the tier that it leaves. The other way only its fee does: whoever owns the online side could
only make money harder to spend.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from chains.errors import InvalidValue
from policies.bundle import Bundle, EvmKeyset, EvmVault, GasPayer, Tier, WalletEntry
from policies.intent import Intent, Kind
from signers.guard.examined import Examined, Grounds, JournalView, Target, U, refills_of
from signers.guard.orders import asset_reasons
from signers.ports import Reason, SignRequest

MAX_TARGET_AHEAD: Final = 1_000
"""How far a change index of the target may be beyond the highest that this signer knows of: what recovery will scan."""
_COLDER: Final[tuple[Tier, ...]] = ("hot", "warm", "cold")


def targets(bundle: Bundle, source: WalletEntry) -> Iterator[WalletEntry]:
    """Where money of a wallet may flow: active wallets of the other tiers, and from a hot key-set the gas payer."""
    for entry in bundle.wallets:
        if entry.chain != source.chain or entry.state != "active":
            continue
        if isinstance(entry, GasPayer):
            if isinstance(source, EvmKeyset) and source.tier == "hot":
                yield entry
        elif entry.tier != source.tier:
            yield entry


def target_of(source: WalletEntry, entry: WalletEntry, index: int | None = None) -> Target:
    """A wallet as what a refill goes to.

    Args:
        source: whose money it is.
        entry: one of its `targets`.
        index: of the change address there, on Bitcoin.
    """
    hotter = _COLDER.index(entry.tier) < _COLDER.index(source.tier)
    return Target(entry.id, entry.tier, index, upwards=hotter or isinstance(entry, GasPayer))


def evm_target(bundle: Bundle, source: WalletEntry, destination: str) -> Target | None:
    """Whose address a destination is: the key's, the Safe's or the gas payer's; None if it is none of the `targets`."""
    for entry in targets(bundle, source):
        if isinstance(entry, EvmKeyset | EvmVault | GasPayer) and entry.address == destination:
            return target_of(source, entry)
    return None


def refill_of(request: SignRequest, grounds: Grounds) -> tuple[Target | None, list[Reason]]:
    """Where a request's refill goes on an EVM chain, and the objection if that is none of the `targets`."""
    for intent in refills_of(request):
        target = evm_target(grounds.bundle, grounds.wallet, intent.destination)
        if target is None:
            told = f"{intent.destination} is no target's address"
            return None, [unknown_target(grounds.bundle, grounds.wallet, told)]
        return target, []
    return None, []


def unknown_target(bundle: Bundle, source: WalletEntry, told: str) -> Reason:
    """The objection to where a refill goes, with where it could."""
    known = ", ".join(entry.id for entry in targets(bundle, source)) or "nowhere"
    return Reason("refill-target", f"{told}: money of {source.id} goes to {known}")


def refill_reasons(refills: Collection[Intent], target: Target | None, grounds: Grounds) -> list[Reason]:
    """Objections to a refill that its transaction does not tell: its asset, its amount, and caps to count it in."""
    reasons: list[Reason] = []
    for intent in refills:
        if intent.units == 0:
            reasons.append(Reason("house-intent", f"refill {intent.id} moves nothing"))
        try:
            asset = grounds.bundle.asset(intent.asset)
        except InvalidValue as error:
            reasons.append(Reason("wrong-asset", str(error)))
            continue
        odd = asset_reasons(asset, intent.chain)
        if target is None or target.upwards:
            reasons += odd
            if intent.asset not in {cap.asset for cap in grounds.caps}:
                told = f"the bundle has no cap of {intent.asset} for the {grounds.wallet.tier} tier"
                reasons.append(Reason("no-cap", f"{told}: none flows to a hotter one"))
        else:
            # What can't be paid out can be saved: it is not what arrives that matters.
            reasons += [reason for reason in odd if reason.code != "asset-not-payable"]
        if target is not None:
            reasons += _top_up_reasons(intent, target, grounds)
    return reasons


def _top_up_reasons(intent: Intent, target: Target, grounds: Grounds) -> Iterator[Reason]:
    payer = grounds.bundle.wallet(target.wallet)
    if not isinstance(payer, GasPayer):
        return
    native = grounds.network.native_asset
    if intent.asset != native:
        yield Reason("top-up", f"{intent.asset} for {payer.id}: a gas payer needs {native} only")
    elif intent.units > int(payer.holding_cap):
        told = f"{intent.units} {native} for {payer.id}: it should hold at most {payer.holding_cap}"
        yield Reason("top-up", told)


def reach_reasons(examined: Examined[U], view: JournalView) -> list[Reason]:
    """Objection to a change index of the target that recovery would not find."""
    target = examined.target
    if target is None or target.index is None or Kind.REFILL not in examined.grounds.kinds:
        return []
    known = max(view.high_water(mark_of(target)), view.high_water(target.wallet))
    if target.index <= known + MAX_TARGET_AHEAD:
        return []
    told = f"index {target.index} of {target.wallet}: at most {known + MAX_TARGET_AHEAD} now"
    return [Reason("target-index", told)]


def mark_of(target: Target) -> str:
    """Under which name the journal remembers the highest index that was paid to. No wallet's id begins so."""
    return f">{target.wallet}"
