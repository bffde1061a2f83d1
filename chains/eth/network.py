"""What tells one EVM network from another, and how native deposits are found on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from chains.errors import InvalidValue
from chains.types import check_hash


class NativeMode(StrEnum):
    """How arrivals of the native asset are found; pinned in the bundle, for the two name receipts differently."""

    TRACE = "trace"
    """By the call traces of each block (`trace_block`); one whose traces the node does not give is read as below."""
    BALANCE = "balance"
    """By comparing each watched forwarder's balance before and after each block, for nodes without traces. That is one
    question a forwarder and block, so it is for thousands of them, not for millions."""


@dataclass(frozen=True, slots=True)
class EthNetwork:
    """Constants of one network, as the bundle names them.

    Raises:
        InvalidValue: a chain id below 1, or a malformed hash.
    """

    chain_id: int
    """EIP-155: part of everything that is signed."""
    genesis_hash: str
    """Hash of block 0 (64 hex digits), by which a node's network is recognised beside its chain id."""
    native_mode: NativeMode

    def __post_init__(self) -> None:
        if type(self.chain_id) is not int or self.chain_id < 1:
            raise InvalidValue(f"chain id {self.chain_id!r}: expected an integer from 1")
        check_hash(self.genesis_hash, what="genesis")
