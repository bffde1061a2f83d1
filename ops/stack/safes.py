"""Safes on the chains of a trial: deployed from the official 1.4.1 contracts, and believed only as read back.

The contracts come from their makers' npm package (`ops.setup.npm`); what is deployed must have the pinned hashes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chains.errors import NodeUnavailable
from chains.eth.address import checksummed, keccak256, raw_address
from chains.eth.contracts import Artifact
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.safe_report import FACTORY_CODE, SINGLETON_CODE, SafeReport, objections, setup_calldata
from ops.devnet.anvil import Anvil
from ops.devnet.errors import DevnetError, PartMissing
from ops.devnet.tools import TOOLS
from ops.stack.contracts import calldata, deploy_artifact, mined

_CREATED: Final = "0x" + keccak256(b"ProxyCreation(address,address)").hex()


@dataclass(frozen=True, slots=True)
class SafeContracts:
    """What all Safes of a chain share."""

    singleton: str
    """The code that they run (EIP-55 address)."""
    factory: str
    """What makes them."""


def safe_artifact(name: str, directory: Path = TOOLS / "safe") -> Artifact:
    """A contract of `@safe-global/safe-contracts` 1.4.1: Safe, SafeProxyFactory, MultiSend.

    Raises:
        PartMissing: set-up has not fetched it.
    """
    path = directory / f"{name}.json"
    if not path.exists():
        raise PartMissing(path.name, str(directory))
    found = json.loads(path.read_text(encoding="utf-8"))
    code, runtime = (
        bytes.fromhex(found[part].removeprefix("0x")) for part in ("bytecode", "deployedBytecode")
    )
    return Artifact(found["contractName"], tuple(found["abi"]), code, runtime, ())


def deploy_contracts(node: Anvil, sender: str) -> SafeContracts:
    """Deploys what all Safes share, and checks its code.

    Args:
        node: holds the sender's key.
        sender: pays for it.

    Raises:
        DevnetError: it failed, or what is there now is not the official code.
    """
    found = []
    for name, due in (("Safe", SINGLETON_CODE), ("SafeProxyFactory", FACTORY_CODE)):
        address = deploy_artifact(node, sender, safe_artifact(name))
        code = bytes.fromhex(node.rpc("eth_getCode", address, "latest")[2:])
        if keccak256(code) != due:
            raise DevnetError(f"{name} at {address} is not the official one")
        found.append(address)
    return SafeContracts(*found)


def deploy_safe(
    node: Anvil,
    sender: str,
    contracts: SafeContracts,
    owners: Sequence[str],
    threshold: int,
    *,
    salt: int = 0,
) -> str:
    """Makes a Safe without modules, guard and fallback handler, reads it back, and returns its address.

    Args:
        node: holds the sender's key.
        sender: pays for it, and is nothing to the Safe.
        contracts: of the chain.
        owners: EIP-55 addresses.
        threshold: how many of them sign.
        salt: with owners and threshold it gives the address: no two Safes of one chain share all three.

    Raises:
        DevnetError: it failed, or what is there now is not what was meant.
    """
    raw = [raw_address(owner) for owner in owners]
    data = calldata(
        "createProxyWithNonce(address,bytes,uint256)",
        contracts.singleton,
        setup_calldata(raw, threshold),
        salt,
    )
    receipt = mined(node, node.transact(sender, contracts.factory, data, gas=2_000_000))
    made = [
        log["topics"][1][-40:]
        for log in receipt["logs"]
        if log["address"].lower() == contracts.factory.lower() and log["topics"][0] == _CREATED
    ]
    if len(made) != 1:
        raise DevnetError(f"{contracts.factory} made {len(made)} proxies")
    address = checksummed(bytes.fromhex(made[0]))
    check_safe(node, address, owners, threshold)
    return address


def check_safe(node: Anvil, safe: str, owners: Sequence[str], threshold: int) -> SafeReport:
    """Reads a Safe back from the chain.

    Args:
        node: of its chain.
        safe: its address.
        owners: who must own it, EIP-55.
        threshold: how many of them must sign.

    Raises:
        DevnetError: it is not what it must be; says what was found.
    """
    network = EthNetwork(node.chain_id, node.block_hash(0)[2:], NativeMode.BALANCE)
    chain = EvmNode("trial", network, node.rpc_url, tokens=lambda: ())
    try:
        report = chain.safes.inspect(raw_address(safe), chain.tip())
    except NodeUnavailable as error:
        raise DevnetError(f"Safe {safe}: {error}") from error
    finally:
        chain.close()
    found = objections(report, [raw_address(owner) for owner in owners], threshold)
    if found:
        raise DevnetError(f"Safe {safe} is not what was meant: {'; '.join(found)}")
    return report
