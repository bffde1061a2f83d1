"""One EVM node as a chain adapter. The only part of the EVM family that meets the network."""

from chains.eth.node.adapter import EvmNode, MinedReceipt
from chains.eth.node.tokens import inspect_token

__all__ = ["EvmNode", "MinedReceipt", "inspect_token"]
