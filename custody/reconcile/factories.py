"""Whom the forwarders pay. A factory's admin can change that after 48 hours: time to act, if anybody is told."""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from chains.eth.abi import WORD_BYTES, selector
from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from custody.reconcile.model import Waiting
from policies.bundle import Bundle, EvmKeyset

CHANGED: Final = "factory.pays_another"
PROPOSED: Final = "factory.change_proposed"
_NOBODY: Final = bytes(20)


@runtime_checkable
class CallSource(Protocol):
    """A node that says what a call would return."""

    def simulate(self, call: Call) -> bytes | Reverted:
        """What a call would return on top of the tip, or why it would fail. Raises NodeUnavailable."""


def factories(bundle: Bundle, chain: str, node: object) -> tuple[Waiting, ...]:
    """What somebody must know of the factories of a chain's key-sets; nothing where all is as it should be.

    Raises:
        NodeUnavailable: no answer.
    """
    if not isinstance(node, CallSource):
        return ()
    keysets = [entry for entry in bundle.keysets if isinstance(entry, EvmKeyset) and entry.chain == chain]
    return tuple(each for keyset in keysets for each in _of(keyset, node))


def _of(keyset: EvmKeyset, node: CallSource) -> list[Waiting]:
    found = []
    treasury = _address(keyset, node, "treasury()")
    if treasury != raw_address(keyset.address):
        said = "nobody" if treasury is None else checksummed(treasury)
        detail = f"the forwarders of {keyset.id} pay {said}, by their factory {keyset.factory}: stop showing addresses"
        found.append(Waiting(CHANGED, keyset.id, detail))
    for what in ("Treasury", "Admin"):
        candidate = _address(keyset, node, f"proposed{what}()")
        if candidate not in (None, _NOBODY):
            detail = (
                f"{checksummed(candidate)} is proposed as the {what.lower()} of {keyset.id}'s factory"
                f" {keyset.factory}, and can be accepted 48 hours after that: its admin can cancel it"
            )
            found.append(Waiting(PROPOSED, f"{keyset.id}:{what.lower()}:{checksummed(candidate)}", detail))
    return found


def _address(keyset: EvmKeyset, node: CallSource, signature: str) -> bytes | None:
    """The address in the first word of what a view returns; None where there is none."""
    call = Call(_NOBODY, raw_address(keyset.factory), 0, selector(signature))
    answer = node.simulate(call)
    if isinstance(answer, Reverted) or len(answer) < WORD_BYTES:
        return None
    return answer[12:WORD_BYTES]
