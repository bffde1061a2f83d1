"""Calls that are never signed, by the names of what thieves ask for. Pure.

A refusal needs no name: whatever is not of a closed list is refused. But a person who reads `allowance` or
`safe-administration` knows that somebody tries to rob him, and an unknown call could be a mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from chains.eth.abi import SELECTOR_BYTES, selector
from chains.eth.safe import ADMINISTRATION, MULTI_SEND

ALLOWANCES: Final = (
    "approve(address,uint256)",
    "approve(address,address,uint160,uint48)",
    "approveAndCall(address,uint256)",
    "approveAndCall(address,uint256,bytes)",
    "authorizeOperator(address)",
    "decreaseAllowance(address,uint256)",
    "increaseAllowance(address,uint256)",
    "increaseApproval(address,uint256)",
    "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
    "permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)",
    "receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
    "safeTransferFrom(address,address,uint256)",
    "safeTransferFrom(address,address,uint256,bytes)",
    "setApprovalForAll(address,bool)",
    "transferFrom(address,address,uint256)",
    "transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)",
)
"""Calls that let others take money later, or take it from others (ERC-20, 721, 777, 1363, EIP-2612, 3009, Permit2)."""
CONTRACT_ADMINISTRATION: Final = (
    "acceptAdmin()",
    "acceptOwnership()",
    "acceptTreasury()",
    "cancelAdmin()",
    "cancelTreasury()",
    "changeAdmin(address)",
    "proposeAdmin(address)",
    "proposeTreasury(address)",
    "renounceOwnership()",
    "setImplementation(address)",
    "transferOwnership(address)",
    "upgrade(address,address)",
    "upgradeAndCall(address,address,bytes)",
    "upgradeTo(address)",
    "upgradeToAndCall(address,bytes)",
)
"""Calls that change who rules a contract, our factory included, or what a proxy runs (ERC-173, ERC-1967)."""


class NamedCall(NamedTuple):
    """What a call is known to be."""

    code: str
    """`allowance`, `contract-administration`, `safe-administration` or `multi-send`."""
    call: str
    """Its name, with types where they are known."""


_NAMED: Final[Mapping[bytes, NamedCall]] = {
    **{selector(call): NamedCall("allowance", call) for call in ALLOWANCES},
    **{selector(call): NamedCall("contract-administration", call) for call in CONTRACT_ADMINISTRATION},
    **{found: NamedCall("safe-administration", name) for found, name in ADMINISTRATION.items()},
    MULTI_SEND: NamedCall("multi-send", "multiSend(bytes)"),
}


def named_call(data: bytes) -> NamedCall | None:
    """What calldata is known to be; None: it is of no such kind."""
    return _NAMED.get(data[:SELECTOR_BYTES])
