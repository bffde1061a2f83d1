"""Are the Safes of the bundle what the quorum agreed on? They are read back at every reconciliation, and before money
of ours goes there: threshold, owners, code, and whatever could act in their name.
"""

from __future__ import annotations

from typing import Final, Protocol, runtime_checkable

from chains.eth.address import raw_address
from chains.eth.safe_report import SafeReport, objections
from chains.types import BlockRef
from custody.reconcile.model import Waiting
from policies.bundle import Bundle, EvmVault

DIFFERS: Final = "safe.differs"


class SafeInspector(Protocol):
    """Reads Safes."""

    def inspect(self, safe: bytes, at: BlockRef) -> SafeReport:
        """What is at an address (20 bytes) after a block. Raises NodeUnavailable, Reorganised."""


@runtime_checkable
class SafeSource(Protocol):
    """A node that can say what a Safe is."""

    @property
    def safes(self) -> SafeInspector:
        """What it knows of Safes."""

    def tip(self) -> BlockRef:
        """Its best block now. Raises NodeUnavailable."""


def differing(bundle: Bundle, chain: str, node: object) -> tuple[Waiting, ...]:
    """What somebody must know of a chain's Safes; nothing where all are as agreed.

    Raises:
        NodeUnavailable, Reorganised: no answer.
    """
    if not isinstance(node, SafeSource):
        return ()
    vaults = [each for each in bundle.vaults if isinstance(each, EvmVault) and each.chain == chain]
    found = [(vault, differences(vault, node)) for vault in vaults]
    return tuple(
        Waiting(
            DIFFERS,
            vault.id,
            f"{vault.id} is not what the bundle says: {'; '.join(told)}; send nothing there",
        )
        for vault, told in found
        if told
    )


def differences(vault: EvmVault, node: SafeSource) -> list[str]:
    """Why a Safe is not the vault that the quorum agreed on, a sentence each. Raises NodeUnavailable, Reorganised."""
    report = node.safes.inspect(raw_address(vault.address), node.tip())
    return objections(report, [raw_address(owner.address) for owner in vault.owners], vault.threshold)
