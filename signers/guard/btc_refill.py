"""Which output of a Bitcoin transaction is a refill's: derived again from the bundle, as change is. Pure."""

from __future__ import annotations

from chains.btc.hd import CHANGE
from chains.btc.psbt import ParsedPsbt
from chains.errors import DerivationDisagreement, InvalidValue
from policies.bundle import WalletEntry
from policies.intent import Intent
from signers.guard.btc_scripts import scripts_of
from signers.guard.examined import Grounds, Target
from signers.guard.refills import target_of, targets, unknown_target
from signers.keys.keyset import NetworkName
from signers.ports import Reason


def refilled(
    refills: list[Intent], psbt: ParsedPsbt, grounds: Grounds, name: NetworkName
) -> tuple[frozenset[int], Target | None, list[Reason]]:
    """The one output that is what a refill asks for: its amount, to a change address of a target.

    Args:
        refills: intents; they come alone.
        psbt: the transaction; key origins of an output name the place in the target.
        grounds: what the bundle says.
        name: the network.

    Returns:
        The output's number (none if there is none), whose it is, and the objections.
    """
    reasons = []
    for intent in refills:
        for entry in targets(grounds.bundle, grounds.wallet):
            try:
                found = _output_of(entry, intent, psbt, name)
            except (InvalidValue, DerivationDisagreement) as error:
                reasons.append(Reason("refill-target", f"{entry.id}: {error}"))
                continue
            if found is not None:
                number, index = found
                return frozenset({number}), target_of(grounds.wallet, entry, index), []
        told = f"no output pays {intent.units} to {intent.destination} as one of a target's change addresses"
        reasons.append(unknown_target(grounds.bundle, grounds.wallet, told))
    return frozenset(), None, reasons


def _output_of(
    entry: WalletEntry, intent: Intent, psbt: ParsedPsbt, name: NetworkName
) -> tuple[int, int] | None:
    """Number and change index of the output that pays an intent's amount to its destination in a wallet.

    Raises:
        InvalidValue: the bundle's entry is malformed.
        DerivationDisagreement: two implementations derive different addresses from it.
    """
    scripts = scripts_of(entry, name)
    if scripts is None:
        return None
    for number, (output, keys) in enumerate(zip(psbt.tx.outputs, psbt.output_keys, strict=True)):
        place = scripts.place(keys) if keys and output.units == intent.units else None
        if place is None or place[0] != CHANGE:
            continue
        if (scripts.script(*place), scripts.address(*place)) == (output.script, intent.destination):
            return number, place[1]
    return None
