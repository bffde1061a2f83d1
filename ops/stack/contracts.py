"""Contracts on the chains of a trial: deployed, called and asked through a node that holds the senders' keys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from chains.eth.address import checksummed, keccak256
from chains.eth.contracts import HERE, Artifact, artifact
from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError
from ops.devnet.tools import CHECKOUT

OUTSIDE: Final = CHECKOUT / "tests/contracts"
"""Contracts of the outside world: tokens good and bad, wallets, liars."""


def signature_types(signature: str) -> list[str]:
    """Types of a function's plain arguments: `transfer(address,uint256)` has `["address", "uint256"]`."""
    inside = signature.partition("(")[2].removesuffix(")")
    return inside.split(",") if inside else []


def calldata(signature: str, *arguments: object) -> bytes:
    """Selector and ABI encoding of a call, such as `calldata("mint(address,uint256)", "0x...", 5)`."""
    from eth_abi.abi import encode

    return keccak256(signature.encode())[:4] + encode(signature_types(signature), arguments)


def deploy(
    node: Anvil, sender: str, name: str, arguments: Sequence[object] = (), *, directory: Path = HERE
) -> str:
    """Deploys a contract in a block of its own, and returns its address.

    Args:
        node: holds the sender's key.
        sender: pays for it.
        name: of the artifact.
        arguments: of the constructor.
        directory: of the artifact.

    Raises:
        DevnetError: the constructor reverted.
    """
    return deploy_artifact(node, sender, artifact(name, directory), arguments)


def deploy_artifact(node: Anvil, sender: str, found: Artifact, arguments: Sequence[object] = ()) -> str:
    """Deploys a compiled contract in a block of its own, and returns its address. Otherwise as `deploy`."""
    from eth_abi.abi import encode

    inputs = next((entry["inputs"] for entry in found.abi if entry["type"] == "constructor"), ())
    data = found.bytecode + encode([entry["type"] for entry in inputs], arguments)
    # Estimates are refused for what is not in a block yet, and a trial has no reason to be mean.
    txid = node.transact(sender, None, data, gas=6_000_000)
    receipt = mined(node, txid)
    return checksummed(bytes.fromhex(receipt["contractAddress"][2:]))


def mined(node: Anvil, txid: str) -> dict[str, Any]:
    """Mines a block and returns the receipt of a transaction in it.

    Raises:
        DevnetError: it is not in that block, or it failed.
    """
    node.mine()
    receipt = node.receipt(txid)
    if receipt is None or int(receipt["status"], 16) != 1:
        raise DevnetError(f"transaction {txid} was not mined, or failed: {receipt}")
    return receipt


def ask(node: Anvil, contract: str, signature: str, returns: str, *arguments: object) -> Any:
    """Calls a view of a contract at the latest block, and returns its one value.

    Raises:
        DevnetError: it answers something else, as an address without code does.
    """
    from eth_abi.abi import decode
    from eth_abi.exceptions import DecodingError

    asked = {"to": contract, "data": "0x" + calldata(signature, *arguments).hex()}
    answer = bytes.fromhex(node.rpc("eth_call", asked, "latest")[2:])
    try:
        return decode([returns], answer)[0]
    except DecodingError as error:
        raise DevnetError(f"{contract} does not answer {signature} with {returns}: {error}") from None
