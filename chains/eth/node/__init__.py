"""One EVM node as a chain adapter. The only part of the EVM family that meets the network."""

from chains.eth.node.adapter import EvmNode
from chains.eth.node.tokens import inspect_token

__all__ = ["EvmNode", "inspect_token"]
