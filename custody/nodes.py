"""A chain's own node, by its family: what the bundle says of the network, and the settings of where it answers."""

from __future__ import annotations

from collections.abc import Callable

from chains.btc.fees import FeeRate
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.errors import InvalidValue
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from custody.config import NodeSettings
from policies.bundle import Bundle, EvmNetwork

Node = BitcoinNode | EvmNode
"""A chain's own node."""


def open_node(bundle: Callable[[], Bundle], chain: str, entry: NodeSettings) -> Node:
    """The node of a chain; nothing connects before it is used.

    Args:
        bundle: the bundle in force now: it may list more tokens later.
        chain: id of the network.
        entry: where the node answers.

    Raises:
        InvalidValue: the bundle has no such network, or the settings are for one of another family.
    """
    network = bundle().network(chain)
    if isinstance(network, EvmNetwork):
        if entry.rest_url or entry.zmq_url:
            raise InvalidValue("its network is of the EVM family: leave rest_url and zmq_url out")
        return EvmNode(
            chain,
            EthNetwork(network.chain_id, network.genesis, NativeMode(network.native_mode)),
            entry.rpc_url.reveal(),
            tokens=lambda: [
                asset.contract
                for asset in bundle().assets
                if asset.chain == chain and asset.contract is not None
            ],
        )
    if not entry.rest_url:
        raise InvalidValue("its network is of the Bitcoin family: write rest_url as http://HOST:PORT, too")
    return BitcoinNode(
        chain,
        NETWORKS[network.network],
        entry.rpc_url.reveal(),
        entry.rest_url,
        max_feerate=FeeRate(network.feerate_cap + 1_000),
    )
