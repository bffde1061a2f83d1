"""One bitcoind as a chain adapter. The only part of this package that touches the network."""

from chains.btc.node.adapter import BitcoinNode, ScanDescriptor, UnspentOutput, UtxoScan
from chains.btc.node.announce import BlockAnnouncements

__all__ = [
    "BitcoinNode",
    "BlockAnnouncements",
    "ScanDescriptor",
    "UnspentOutput",
    "UtxoScan",
]
