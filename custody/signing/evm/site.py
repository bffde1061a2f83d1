"""Wallets of the EVM family: a key's address, which pays, and the forwarders that pay into it; and a gas payer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from chains.errors import InvalidValue
from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.gas import GasPrice
from chains.eth.safe_report import SafeReport
from chains.eth.tx import nonce_resource
from chains.ports import Header
from chains.types import BlockRef
from custody.signing import executions
from custody.signing.evm.finish import finish
from custody.signing.model import OurTransaction, Version
from custody.signing.site import Pace, SendingNode, Site
from custody.storage.db import Tx
from policies.bundle import Bundle, EvmKeyset, EvmNetwork, GasPayer, WalletEntry
from signers.ports import SignResponse


class EvmPaymentNode(SendingNode, Protocol):
    """What paying asks of a node of this family. Every call may raise NodeUnavailable."""

    def tip(self) -> BlockRef:
        """Its best block now."""

    def header_at(self, height: int) -> Header | None:
        """Header of the best chain at a height, None above the tip."""

    def nonce(self, address: bytes, at: BlockRef) -> int:
        """How many transactions an address (20 bytes) has sent up to a block. Raises Reorganised."""

    def balances(self, wanted: Sequence[tuple[bytes, str | None]], at: BlockRef) -> list[int]:
        """Base units that addresses have after a block, of a token (contract) or of the native asset (None).
        Raises Reorganised."""

    def gas_price(self) -> GasPrice:
        """What the network asks for now."""

    def estimate_gas(self, call: Call) -> int | Reverted:
        """Gas that a call would take on top of the tip, or why it would fail."""

    def simulate(self, call: Call) -> bytes | Reverted:
        """What a call would return on top of the tip, or why it would fail."""

    def code(self, address: bytes) -> bytes:
        """The code of a contract; empty for an address without any."""


class Safes(Protocol):
    """What a node knows of Safes."""

    def nonce(self, safe: bytes, at: BlockRef) -> int:
        """The next nonce of a Safe (20 bytes) after a block; 0 where no contract is. Raises Reorganised."""

    def inspect(self, safe: bytes, at: BlockRef) -> SafeReport:
        """What is at an address (20 bytes) after a block. Raises Reorganised."""


class SafeNode(EvmPaymentNode, Protocol):
    """What paying from a Safe asks of a node. Every call may raise NodeUnavailable."""

    @property
    def safes(self) -> Safes:
        """What it knows of Safes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSite(Site):
    """A wallet with one address that pays, and nonces of its own."""

    network: EvmNetwork
    node: EvmPaymentNode
    sender: bytes
    """Its address, 20 bytes."""

    @property
    def account(self) -> str:
        """What stands before its nonces in the resources that its transactions use up."""
        return nonce_resource(self.sender, 0).rpartition(":")[0]

    @property
    def address(self) -> str:
        """Its address as documents have it (EIP-55)."""
        return checksummed(self.sender)

    def vanished(self, tx: Tx, transaction: OurTransaction) -> Sequence[str]:
        """A nonce cannot vanish: what a reorg takes away can be sent again."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySite(AccountSite):
    """One whose address is a key's: it sends transactions of the chain itself, and pays their gas."""

    def finish(self, version: Version, response: SignResponse) -> tuple[bytes, str]:
        """See `Site`."""
        return finish(version, response, self.sender)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvmSite(KeySite):
    """The wallet of a key-set."""

    wallet: EvmKeyset


@dataclass(frozen=True, slots=True, kw_only=True)
class GasPayerSite(KeySite):
    """A gas payer: it sends what owners of Safes have signed, and pays nobody."""

    wallet: GasPayer
    node: SafeNode

    def held(self, tx: Tx) -> Sequence[UUID]:
        """Executions for a Safe, or of what it moves, that somebody has stopped. See `Site`."""
        return executions.held(tx, self.bundle, self.chain)


def evm_site(
    bundle: Bundle,
    chain: str,
    node: EvmPaymentNode,
    *,
    pace: Pace | None = None,
    wallet: WalletEntry | None = None,
) -> EvmSite:
    """The wallet of a key-set on a chain, of the active hot one unless it is named.

    Raises:
        InvalidValue: the bundle lacks the chain, its asset or a hot key-set, or they are of another family.
    """
    network, wallet = bundle.network(chain), wallet or bundle.keyset_for(chain, "hot")
    if not isinstance(network, EvmNetwork) or not isinstance(wallet, EvmKeyset):
        raise InvalidValue(f"{chain} is no chain of the EVM family")
    return EvmSite(
        bundle=bundle,
        network=network,
        asset=bundle.asset(network.native_asset),
        wallet=wallet,
        sender=raw_address(wallet.address),
        node=node,
        pace=pace or Pace(),
    )


def gas_payer_site(
    bundle: Bundle, wallet: GasPayer, node: SafeNode, *, pace: Pace | None = None
) -> GasPayerSite:
    """A gas payer of the bundle.

    Raises:
        InvalidValue: the bundle lacks its chain or asset, or they are of another family.
    """
    network = bundle.network(wallet.chain)
    if not isinstance(network, EvmNetwork):
        raise InvalidValue(f"{wallet.chain} is no chain of the EVM family")
    return GasPayerSite(
        bundle=bundle,
        network=network,
        asset=bundle.asset(network.native_asset),
        wallet=wallet,
        sender=raw_address(wallet.address),
        node=node,
        pace=pace or Pace(),
    )
