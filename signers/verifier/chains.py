"""A chain as the verifier's own node shows it: what used a resource, what arrived at a script. No decisions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from chains.btc.address import parse_address as parse_bitcoin
from chains.btc.block import WatchedOutpoints
from chains.btc.fees import FeeRate
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.errors import InvalidValue, NodeRefused, NodeUnavailable
from chains.eth.address import checksummed
from chains.eth.address import parse_address as parse_evm
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.safe import parse_safe_resource
from chains.eth.watch import WatchedSenders
from chains.ports import Consumption, Header, Receipt
from chains.types import BlockRef, TxId
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, EvmVault, GasPayer

_NO_FEERATE = FeeRate(1)
_NONCE_RESOURCE: Final = re.compile(r"0x[0-9a-f]{40}:[0-9]+")


class Spending(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a transaction of the Bitcoin family moved."""

    spent: tuple[str, ...]
    """The script of each output that its inputs spend, hex."""
    paid: tuple[tuple[str, str], ...]
    """Script (hex) and satoshis of each output."""


class OwnChain(Protocol):
    """One chain. Calls may raise NodeUnavailable at any time."""

    @property
    def name(self) -> str:
        """Id of the network in the bundle."""

    def tip(self) -> BlockRef:
        """The node's best block. Raises NodeUnavailable also where the node knows of blocks that it does not have."""

    def header_at(self, height: int) -> Header | None:
        """Header of the best chain at a height, None above the tip."""

    def anchor(self, tip: BlockRef) -> int:
        """Height from which confirmations count when the best chain ends at `tip`."""

    def uses(self, block: BlockRef, resources: Iterable[str]) -> Sequence[Consumption]:
        """Uses of these resources in a block; on EVM chains of all nonces of the bundle's keys and Safes, and theirs.

        Raises:
            Reorganised: the node does not have the block (any more).
        """

    def needs_reading(self, resources: Sequence[str]) -> bool:
        """Whether blocks must be read at all to find uses of these resources."""

    def unused(self, resource: str) -> bool:
        """Whether, at the node's tip, no mined transaction has used it (and one could)."""

    def receipts(self, block: BlockRef, script: bytes, mode: NativeMode | None) -> Sequence[Receipt]:
        """What a block brought to one script from outside. Raises like `uses`."""

    def spending(self, txid: str, block: BlockRef) -> Spending | None:
        """What a transaction of a block moved; None if it is not in this block, or not on chains with accounts.

        Raises:
            InvalidValue: that is no txid.
        """

    def modes(self) -> tuple[NativeMode, ...]:
        """Ways in which receipts of the native asset may be named; empty where there is one only."""


class BitcoinChain:
    """A chain of the Bitcoin family. `node` is the verifier's own."""

    def __init__(self, node: BitcoinNode) -> None:
        self._node = node

    @property
    def name(self) -> str:
        """Id of the network in the bundle."""
        return self._node.chain

    def tip(self) -> BlockRef:
        """See `OwnChain`."""
        if not self._node.is_synced():
            raise NodeUnavailable(f"node {self.name} is behind: it has not all blocks that it has heard of")
        return self._node.tip()

    def header_at(self, height: int) -> Header | None:
        """See `OwnChain`."""
        return self._node.header_at(height)

    def anchor(self, tip: BlockRef) -> int:
        """See `OwnChain`."""
        return self._node.anchor(tip)

    def uses(self, block: BlockRef, resources: Iterable[str]) -> Sequence[Consumption]:
        """See `OwnChain`."""
        return self._node.observe_block(block, (), WatchedOutpoints(resources)).consumptions

    def needs_reading(self, resources: Sequence[str]) -> bool:
        """See `OwnChain`."""
        return bool(resources)

    def unused(self, resource: str) -> bool:
        """See `OwnChain`."""
        return self._node.is_unspent(resource)

    def receipts(self, block: BlockRef, script: bytes, mode: NativeMode | None) -> Sequence[Receipt]:
        """See `OwnChain`."""
        return self._node.observe_block(block, {script}, ()).receipts

    def spending(self, txid: str, block: BlockRef) -> Spending | None:
        """See `OwnChain`."""
        try:
            tx, spent = self._node.mined(TxId(txid), block.hash)
        except NodeRefused:
            return None
        return Spending(
            tuple(each.script.hex() for each in spent),
            tuple((each.script.hex(), str(each.units)) for each in tx.outputs),
        )

    def modes(self) -> tuple[NativeMode, ...]:
        """See `OwnChain`."""
        return ()


class EvmChain:
    """A chain of the EVM family.

    Args:
        node: the verifier's own.
        bundle: the one in force: names the keys and Safes whose nonces are watched.
    """

    def __init__(self, node: EvmNode, bundle: Callable[[], Bundle]) -> None:
        self._node, self._bundle = node, bundle

    @property
    def name(self) -> str:
        """Id of the network in the bundle."""
        return self._node.chain

    def tip(self) -> BlockRef:
        """See `OwnChain`."""
        return self._node.tip()

    def header_at(self, height: int) -> Header | None:
        """See `OwnChain`."""
        return self._node.header_at(height)

    def anchor(self, tip: BlockRef) -> int:
        """See `OwnChain`."""
        return self._node.anchor(tip)

    def uses(self, block: BlockRef, resources: Iterable[str]) -> Sequence[Consumption]:
        """See `OwnChain`."""
        watched = self._watched(tuple(resources))
        # Where traces are not asked for, a block is read in few requests; nonces need none of them. Our own addresses
        # are named, so that a token that says no without failing is noticed.
        own = watched.senders | watched.safes
        return self._node.observe_block(block, own, watched, NativeMode.BALANCE).consumptions

    def needs_reading(self, resources: Sequence[str]) -> bool:
        """See `OwnChain`."""
        watched = self._watched(resources)
        return bool(watched.senders or watched.safes)

    def unused(self, resource: str) -> bool:
        """See `OwnChain`."""
        if resource.startswith("safe:"):
            safe, used = parse_safe_resource(resource)
            return self._node.safes.nonce(safe, self._node.tip()) <= used
        sender, _, nonce = resource.partition(":")
        if not nonce.isdecimal():
            raise InvalidValue(f"resource {resource!r}: expected sender:nonce")
        return self._node.nonce(bytes.fromhex(sender.removeprefix("0x")), self._node.tip()) <= int(nonce)

    def receipts(self, block: BlockRef, script: bytes, mode: NativeMode | None) -> Sequence[Receipt]:
        """See `OwnChain`."""
        watched = self._watched(())
        # With the keys' and Safes' own addresses, as what they pay to a forwarder stays within the house.
        scripts = watched.senders | watched.safes | {script}
        found = self._node.observe_block(block, scripts, watched, mode).receipts
        return [receipt for receipt in found if receipt.script == script]

    def spending(self, txid: str, block: BlockRef) -> Spending | None:
        """See `OwnChain`."""
        return None

    def modes(self) -> tuple[NativeMode, ...]:
        """See `OwnChain`."""
        own = self._node.network.native_mode
        # A block whose traces nobody gives is read by balances, whatever the chain's mode.
        return (own,) if own is NativeMode.BALANCE else (own, NativeMode.BALANCE)

    # What signers have open names its sender or Safe itself: their bundle may be newer than the one known here, or the
    # present one may have dropped a wallet that it had.

    def _watched(self, resources: Iterable[str]) -> WatchedSenders:
        senders, safes = set[str](), set[str]()
        for each in self._bundle().wallets:
            if isinstance(each, EvmKeyset | GasPayer) and each.chain == self.name:
                senders.add(each.address)
            elif isinstance(each, EvmVault) and each.chain == self.name:
                safes.add(each.address)
        for resource in resources:
            if resource.startswith("safe:"):
                safes.add(checksummed(parse_safe_resource(resource)[0]))
            elif _NONCE_RESOURCE.fullmatch(resource):
                senders.add(checksummed(bytes.fromhex(resource[2:42])))
        return WatchedSenders(senders, safes)


def script_of(bundle: Bundle, chain: str, address: str) -> bytes:
    """The script (EVM: 20 bytes) of an address text.

    Raises:
        InvalidValue: the bundle has no such network, or it is none of its addresses.
    """
    network = bundle.network(chain)
    if isinstance(network, EvmNetwork):
        return parse_evm(address, chain).script
    return parse_bitcoin(address, NETWORKS[network.network], chain).script


def open_chain(bundle: Callable[[], Bundle], chain: str, *, rpc_url: str, rest_url: str | None) -> OwnChain:
    """The verifier's own node of a chain; nothing connects before it is used.

    Raises:
        InvalidValue: the bundle has no such network, or the settings are of another family.
    """
    network = bundle().network(chain)
    if isinstance(network, EvmNetwork):
        if rest_url is not None:
            raise InvalidValue(f"{chain} is of the EVM family: leave rest_url out")
        listed = EthNetwork(network.chain_id, network.genesis, NativeMode(network.native_mode))
        return EvmChain(
            EvmNode(
                chain,
                listed,
                rpc_url,
                tokens=lambda: [
                    entry.contract
                    for entry in bundle().assets
                    if entry.chain == chain and entry.contract is not None
                ],
            ),
            bundle,
        )
    if rest_url is None:
        raise InvalidValue(f"{chain} is of the Bitcoin family: write rest_url as http://HOST:PORT, too")
    # The verifier hands no transaction on: a ceiling for that is none.
    return BitcoinChain(
        BitcoinNode(chain, NETWORKS[network.network], rpc_url, rest_url, max_feerate=_NO_FEERATE)
    )
