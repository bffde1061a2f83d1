"""A real Safe (1.4.1) on a test chain, from the contracts that set-up has fetched."""

from __future__ import annotations

import json
from collections.abc import Sequence

from eth_utils.address import to_checksum_address

from chains.eth.contracts import Artifact
from ops.devnet.anvil import Anvil
from ops.devnet.errors import PartMissing
from ops.devnet.tools import TOOLS
from tests.support.evm import Contract, deploy

NOBODY = "0x" + "00" * 20


def safe_artifact(name: str) -> Artifact:
    """A contract of `@safe-global/safe-contracts` 1.4.1: Safe, SafeProxyFactory, MultiSend."""
    path = TOOLS / f"safe/{name}.json"
    if not path.exists():
        raise PartMissing(path.name, f"{TOOLS}/safe")
    found = json.loads(path.read_text(encoding="utf-8"))
    code = [bytes.fromhex(found[part].removeprefix("0x")) for part in ("bytecode", "deployedBytecode")]
    return Artifact(found["contractName"], tuple(found["abi"]), code[0], code[1], ())


def deploy_safe(node: Anvil, sender: str, owners: Sequence[str], threshold: int) -> Contract:
    """A Safe behind its proxy, without modules, guard and fallback handler."""
    singleton = deploy(node, sender, safe_artifact("Safe"))
    factory = deploy(node, sender, safe_artifact("SafeProxyFactory"))
    setup = singleton.data("setup", list(owners), threshold, NOBODY, b"", NOBODY, NOBODY, 0, NOBODY)
    receipt = factory.do(sender, "createProxyWithNonce", singleton.address, setup, 1)
    [(_, (proxy, _))] = factory.events(receipt, "ProxyCreation")
    return Contract(node, to_checksum_address(proxy), singleton.abi)
