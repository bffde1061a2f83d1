"""Whether a destination has code, by our own node at the moment of decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, runtime_checkable

from chains.errors import InvalidAddress, InvalidValue, TransientError
from chains.eth.address import raw_address
from chains.types import BlockRef
from policies.bundle import Bundle, EvmNetwork
from policies.rules import Policy

NO_NODES: Final[Mapping[str, object]] = MappingProxyType({})


@runtime_checkable
class CodeReader(Protocol):
    """What is asked of an EVM node."""

    def tip(self) -> BlockRef:
        """The best block. Raises NodeUnavailable."""

    def code(self, address: bytes, at: BlockRef | None = None) -> bytes:
        """The code at an address (20 bytes). Raises NodeUnavailable, Reorganised."""


@dataclass(frozen=True, slots=True)
class CodeSeen:
    """What was seen, and where."""

    there: bool
    block: BlockRef | None
    """None on chains whose addresses have no code."""

    def describe(self) -> dict[str, object]:
        """As it is recorded."""
        return {"there": self.there, "block": None if self.block is None else self.block.hash}


def look(bundle: Bundle, nodes: Mapping[str, object], chain: str, address: str) -> CodeSeen | None:
    """Whether an address has code; None: not known, or no rule asks, which spares the node the question.

    Args:
        nodes: our own, by chain.
        address: as an order names it, whatever that is.
    """
    try:
        network = bundle.network(chain)
    except InvalidValue:
        return None
    if not isinstance(network, EvmNetwork):
        return CodeSeen(there=False, block=None)
    node = nodes.get(chain)
    if not _asked_for(bundle.policy) or not isinstance(node, CodeReader):
        return None
    try:
        raw, tip = raw_address(address), node.tip()
        return CodeSeen(there=node.code(raw, tip) != b"", block=tip)
    except (TransientError, InvalidAddress):
        return None


def _asked_for(policy: Policy) -> bool:
    return any(
        "contract" in when.destinations
        for rule in policy.rules
        for when in (rule.when, rule.unless)
        if when is not None
    )
