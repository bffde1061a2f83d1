"""A real Safe (1.4.1) on a test chain, from the contracts that set-up has fetched."""

from __future__ import annotations

from collections.abc import Sequence

from ops.devnet.anvil import Anvil
from ops.stack import safes
from ops.stack.safes import safe_artifact
from tests.support.evm import Contract

NOBODY = "0x" + "00" * 20

__all__ = ["NOBODY", "deploy_safe", "safe_artifact"]


def deploy_safe(node: Anvil, sender: str, owners: Sequence[str], threshold: int) -> Contract:
    """A Safe behind its proxy, without modules, guard and fallback handler, read back."""
    contracts = safes.deploy_contracts(node, sender)
    address = safes.deploy_safe(node, sender, contracts, owners, threshold)
    return Contract(node, address, safe_artifact("Safe").abi)
