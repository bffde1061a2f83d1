"""Asking a node about a token before it is listed."""

from __future__ import annotations

from typing import Final

from chains.eth.abi import WORD_BYTES
from chains.eth.address import ADDRESS_BYTES, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.erc20 import DECIMALS, balance_of_calldata, transfer_calldata
from chains.eth.node.adapter import EvmNode
from chains.eth.tokens import IMPLEMENTATION_SLOT, TokenFacts, TokenReport, assess, clone_target

_SOMEBODY: Final = b"\x5a" * ADDRESS_BYTES
_SOMEBODY_ELSE: Final = b"\x5b" * ADDRESS_BYTES


def inspect_token(node: EvmNode, contract: str) -> TokenReport:
    """What to know of a token (EIP-55) before it is listed; see `chains.eth.tokens`. Nothing is sent.

    Raises:
        InvalidAddress: not in the canonical form.
        NodeUnavailable: the node cannot tell.
    """
    address = raw_address(contract)
    code = node.code(address)
    target = clone_target(code) or _address_in(node.storage(address, IMPLEMENTATION_SLOT))
    return assess(
        TokenFacts(
            code=code,
            implementation=node.code(target) if target else b"",
            decimals=_answer(node, address, DECIMALS),
            balance=_answer(node, address, balance_of_calldata(_SOMEBODY)),
            transfer=_answer(node, address, transfer_calldata(_SOMEBODY_ELSE, 0)),
        )
    )


def _answer(node: EvmNode, contract: bytes, data: bytes) -> bytes | None:
    answer = node.simulate(Call(_SOMEBODY, contract, 0, data))
    return None if isinstance(answer, Reverted) else answer


def _address_in(word: bytes) -> bytes | None:
    padded = word.rjust(WORD_BYTES, b"\0")
    return padded[-ADDRESS_BYTES:] if any(padded) else None
