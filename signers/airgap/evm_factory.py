"""A Safe's call of the factory whose admin it is: whom deposits pay, in plain words, and why not to sign. Pure.

Only the treasury changes, and only to the one address that the registered bundle names as the active hot key. That is
the one call by which a holder decides where customers' money goes, so it is said larger than any payment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.factory import DELAY_SECONDS, TreasuryCall
from chains.eth.safe import SafeMessage
from signers.airgap.evm_words import grouped_address
from signers.airgap.past import Signed
from signers.airgap.registered import Registered, RegisteredFactory

_HOURS: Final = DELAY_SECONDS // 3600


class Change(NamedTuple):
    """What a Safe would do to a factory."""

    factory: RegisteredFactory
    call: TreasuryCall | None
    """None: none of the three calls."""
    treasury: str | None
    """The only address that deposits may flow to, by the registered bundle."""
    keyset: str
    """Whose that is."""

    @property
    def typed(self) -> str:
        """What a holder types who wants it: the end of the address; empty where nothing of it changes."""
        named = self.call is not None and self.call.step != "cancel"
        return self.treasury[-6:] if named and self.treasury else ""

    @property
    def proposes(self) -> str:
        """How a proposal is remembered on this machine: the factory, and whom it names; empty of other calls."""
        if self.call is None or self.call.treasury is None:
            return ""
        return f"{_place(self.factory)}:{checksummed(self.call.treasury)}"


def change_of(message: SafeMessage, registered: Registered) -> Change | None:
    """What a request does to a factory of which its Safe is the admin; None: it calls none."""
    factory = registered.factory(message.chain_id, checksummed(message.tx.to))
    if factory is None or factory.admin != checksummed(message.safe):
        return None
    try:
        call = TreasuryCall.decode(message.tx.data)
    except InvalidValue:
        call = None
    found = registered.treasury(message.chain_id)
    return Change(factory, call, found.address if found else None, found.keyset if found else "")


def change_objections(change: Change, value_wei: int) -> list[tuple[str, str]]:
    """Code and sentence of each reason not to sign a change. What is none of the three calls is refused elsewhere."""
    found = []
    if value_wei:
        found.append(("value-with-call", f"{value_wei} wei would go to the factory, and be lost."))
    call = change.call
    if call is None or call.step == "cancel":
        return found
    if change.treasury is None:
        told = (
            "the registered bundle has no active hot key on this network, so deposits may flow to nobody new."
        )
        found.append(("factory-treasury", f"NO TREASURY: {told}"))
    elif call.treasury is not None and checksummed(call.treasury) != change.treasury:
        told = (
            f"deposits would flow to {checksummed(call.treasury)}, which the registered bundle does not name as the "
            f"active hot key. That is {change.treasury} ({change.keyset})."
        )
        found.append(("factory-treasury", f"FOREIGN TREASURY: {told} Never signed: tell the others at once."))
    return found


def change_lines(change: Change) -> list[str]:
    """What it does, in words."""
    place = [
        f"  factory  {grouped_address(raw_address(change.factory.address))}",
        f"           of the deposit addresses of {change.factory.keyset}",
    ]
    call = change.call
    if call is None:
        return ["NO PAYMENT, AND NO CHANGE OF A TREASURY: a call of your deposit factory", *place, ""]
    if call.step == "cancel":
        return ["TAKES BACK A PROPOSAL: whom deposits pay stays as it is.", *place, ""]
    if call.treasury is not None:
        ours = checksummed(call.treasury) == change.treasury
        return [
            f"CHANGES WHOM DEPOSITS PAY. After {_HOURS} hours, once it is accepted too,",
            "ALL MONEY that comes to these deposit addresses flows to",
            f"    {grouped_address(call.treasury)}",
            f"    = hot key-set {change.keyset} of the registered bundle"
            if ours
            else "    = NOBODY OF YOUR BUNDLE",
            *place,
            "",
        ]
    named = grouped_address(raw_address(change.treasury)) if change.treasury else "nobody: no active hot key"
    return [
        "ACCEPTS WHOM DEPOSITS PAY. From then on ALL MONEY that comes to these deposit",
        "addresses flows to whoever was proposed. The call does not say who: have",
        "proposedTreasury() of the factory read from the chain. It must be",
        f"    {named}",
        f"    = hot key-set {change.keyset} of the registered bundle" if change.treasury else "",
        *place,
        "",
    ]


def acceptance_warnings(change: Change, past: Sequence[Signed]) -> list[str]:
    """What this machine knows of the proposal that a request accepts, whose bytes do not name it."""
    if change.call is None or change.call.step != "accept":
        return []
    place = f"{_place(change.factory)}:"
    before = [each.proposes.removeprefix(place) for each in past if each.proposes.startswith(place)]
    if not before:
        return ["You have signed no proposal for this factory here: ask those who did whom it names."]
    if before[-1] != change.treasury:
        told = f"names {before[-1]}, and the active hot key is {change.treasury} now. Sign only if another proposal"
        return [f"THE LAST PROPOSAL THAT YOU SIGNED {told} has followed, and you know whom it names."]
    return []


def _place(factory: RegisteredFactory) -> str:
    return f"{factory.chain_id}:{factory.address}"
