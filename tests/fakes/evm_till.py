"""The paying side of a small world on an EVM chain: see `tests.fakes.till`. Contracts of its own, on a shared anvil."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from chains.eth.address import checksummed, raw_address
from chains.eth.call import Call, Reverted
from chains.eth.contracts import artifact
from chains.eth.gas import GasPrice
from chains.eth.network import EthNetwork
from chains.eth.node import EvmNode
from chains.eth.tx import SignedTx, UnsignedTx
from chains.ports import BroadcastResult, Header, Presence
from chains.types import BlockRef, TxId
from custody.deposits.addresses import allocate
from custody.ids import new_id
from custody.monitor.monitor import Options
from custody.monitor.watch import ResourceSet, watched_nonces
from custody.signing.evm.site import EvmSite, SafeNode, Safes, evm_site
from policies.bundle import (
    AssetEntry,
    Bundle,
    Confirmations,
    EvmNetwork,
    GasCaps,
    TierCap,
    Trait,
)
from policies.intent import SignedOrder
from policies.keys import sign_order
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord
from signers.wallets import EvmWallet, Wallet
from tests.fakes.evm_desk import ETHER, GWEI, Outside
from tests.fakes.evm_signing import EVM_CHAIN, EVM_KEYSET, EvmWorld, SoftEvmKeys
from tests.fakes.signing import DAY, House
from tests.fakes.teller import Teller, opened
from tests.support.amounts import AmountRules, policy_of
from tests.support.evm import Contract, deploy

WITHDRAWAL_FEE = {"ETH": ETHER // 1000, "USDX": 10**6}
CEILING_WEI = ETHER // 50
TRAITS: dict[str, tuple[Trait, ...]] = {"FEEX": ("fee-on-transfer",), "NORX": ("no-return",)}


class TillOutside(Outside):
    """With two more tokens: one that can be paused, and one that can say no without failing."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paux = self._token("PausableToken")
        self.falx = self._token("FalseToken")

    def listed(self) -> dict[str, Contract]:
        return {**super().listed(), "PAUX": self.paux, "FALX": self.falx}


class PricedNode:
    """A node whose price of gas is the test's."""

    def __init__(self, node: SafeNode) -> None:
        self.node = node
        self.price: GasPrice | None = None
        """None: the node's own."""

    @property
    def safes(self) -> Safes:
        return self.node.safes

    def tip(self) -> BlockRef:
        return self.node.tip()

    def header_at(self, height: int) -> Header | None:
        return self.node.header_at(height)

    def nonce(self, address: bytes, at: BlockRef) -> int:
        return self.node.nonce(address, at)

    def balances(self, wanted: Any, at: BlockRef) -> list[int]:
        return self.node.balances(wanted, at)

    def gas_price(self) -> GasPrice:
        return self.price or self.node.gas_price()

    def estimate_gas(self, call: Call) -> int | Reverted:
        return self.node.estimate_gas(call)

    def simulate(self, call: Call) -> bytes | Reverted:
        return self.node.simulate(call)

    def code(self, address: bytes) -> bytes:
        return self.node.code(address)

    def broadcast(self, raw: bytes) -> BroadcastResult:
        return self.node.broadcast(raw)

    def presence(self, txid: TxId) -> Presence:
        return self.node.presence(txid)


@dataclass
class TillWorld(EvmWorld):
    """The bundle of one key-set with the contracts that really stand on the chain."""

    outside: TillOutside
    factory: str
    forwarder: str
    payout: str

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        """`changes` are fields of the bundle, its network (`network_...`) or key-set (`keyset_...`)."""

        def named(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): v for name, v in changes.items() if name.startswith(prefix)}

        network: dict[str, Any] = {
            "chain": EVM_CHAIN,
            "genesis": self.outside.node.block_hash(0)[2:],
            "native_asset": "ETH",
            "settle_blocks": 1,
            "feerate_floor": 1,
            "feerate_cap": 200 * GWEI,
            "fee_cap": str(ETHER // 5),
            "fee_window_cap": str(100 * ETHER),
            "fee_window_seconds": DAY,
            "chain_id": self.outside.node.chain_id,
            "native_mode": self.outside.mode.value,
            "gas_caps": GasCaps(
                transfer=100_000, token=200_000, payout=3_000_000, sweep=6_000_000, execution=300_000
            ),
        }
        keyset: dict[str, Any] = {
            "factory": self.factory,
            "forwarder": self.forwarder,
            "payout": self.payout,
            **named("keyset_"),
        }
        plain = {k: v for k, v in changes.items() if not k.startswith(("network_", "keyset_"))}
        contracts = {"ETH": None} | {id_: token.address for id_, token in self.outside.listed().items()}
        fields: dict[str, Any] = {
            "v": 1,
            "version": version,
            "issued_at": self.now - 10,
            "expires_at": self.now + 30 * DAY,
            "networks": (EvmNetwork(**(network | named("network_"))),),
            "assets": tuple(self._asset(id_, contract) for id_, contract in contracts.items()),
            "keysets": (self.keyset_entry(self.record, **keyset),),
            "caps": tuple(self._cap(id_) for id_ in contracts),
            **self.people(),
            "policy": policy_of(self._rules(id_) for id_ in contracts),
        }
        return Bundle(**self.completed(fields | plain))

    def _asset(self, id_: str, contract: str | None) -> AssetEntry:
        return AssetEntry(
            id=id_,
            chain=EVM_CHAIN,
            decimals=6 if id_ == "USDX" else 18,
            contract=contract,
            minimum_deposit="1",
            withdrawal_fee=str(WITHDRAWAL_FEE.get(id_, 0)),
            confirmations=(Confirmations(from_units="0", blocks=1),),
            traits=TRAITS.get(id_, ()),
        )

    def _cap(self, id_: str) -> TierCap:
        most = str(1_000_000 * ETHER)
        return TierCap(tier="hot", asset=id_, payment_below=most, window_cap=most, window_seconds=DAY)

    def _rules(self, id_: str) -> AmountRules:
        most = 1_000_000 * ETHER
        return AmountRules(
            asset=id_,
            hot_below=most,
            warm_below=2 * most,
            hot_window_cap=most,
            customer_window_cap=most,
            window_seconds=DAY,
        )


class EvmTill(Teller):
    """One installation on an EVM chain, driven by the test.

    Args:
        dsn: superuser's address of a migrated database.
        outside: the chain, and who is on it beside us.
        directory: for the signer's files.
        changes: of the bundle, as `TillWorld.bundle` takes them.
    """

    adapter: EvmNode

    def __init__(self, dsn: str, outside: TillOutside, directory: Path, **changes: Any) -> None:
        self.outside, self.anvil = outside, outside.node
        house = House()
        record = self._make_record(house)
        admin = self._factory_admin()
        self.factory = deploy(self.anvil, outside.payer, artifact("ForwarderFactory"), record.address, admin)
        payout = deploy(self.anvil, outside.payer, artifact("BatchPayout"))
        self.world = self._make_world(
            record=record,
            other=record,
            now=int(time.time()),
            officers=house.officers,
            outside=outside,
            factory=self.factory.address,
            forwarder=bytes(self.factory.call("initcodeHash")).hex(),
            payout=payout.address,
        )
        network = EthNetwork(self.anvil.chain_id, self.anvil.block_hash(0)[2:], outside.mode)
        self.tokens = [token.address for token in outside.listed().values()]
        adapter = EvmNode(EVM_CHAIN, network, self.anvil.rpc_url, tokens=lambda: self.tokens)
        self.node = PricedNode(adapter)
        quick = Options(start_height=self.anvil.height(), held_again_seconds=0, heartbeat_seconds=0)
        super().__init__(dsn, directory, adapter, self.world, self.world.bundle(**changes), quick)

    def _factory_admin(self) -> str:
        return self.anvil.accounts()[9]

    def _make_record(self, house: House) -> EvmKeysetRecord:
        self.keys = SoftEvmKeys.make(EVM_KEYSET, self.anvil.chain_id)
        return self.keys.record

    def _make_world(self, **fields: Any) -> TillWorld:
        return TillWorld(**fields)

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {self.keys.record.id: EvmWallet(self.keys)}

    def _resource_set(self) -> ResourceSet:
        return watched_nonces(self.bundle, EVM_CHAIN)

    def close(self) -> None:
        super().close()
        self.adapter.close()

    @property
    def site(self) -> EvmSite:
        return evm_site(self.bundle, EVM_CHAIN, self.node, pace=self.pace)

    # What customers, callers and the chain do.

    def customer(self, name: str, **deposits: int) -> str:
        """A customer with these credited deposits, units by asset. They lie at the customer's forwarder."""
        self.enrol(name)
        for asset, units in deposits.items():
            self.outside.send(asset, self.address(name), units)
        if deposits:
            self.finalize()
        return name

    def address(self, customer: str, asset: str = "ETH") -> str:
        return allocate(self.admin, self.signer, self.bundle, customer, asset).address

    def fund(self, asset: str = "ETH", units: int = 100 * ETHER) -> None:
        """Operators bring money to the key's address: it is in suspense once it is final."""
        self.outside.send(asset, self.world.record.address, units)
        self.finalize()

    def order(self, customer: str, units: int, /, **changes: Any) -> SignedOrder:
        """A signed order to a fresh address outside, unless `changes` say otherwise."""
        fields: dict[str, Any] = {
            "customer": customer,
            "destination": changes.get("destination") or self.nobody(),
            "fee_ceiling": str(CEILING_WEI),
            "expires_at": int(time.time()) + 3600,
        }
        return sign_order(self.world.order(units, **(fields | changes)), self.world.caller)

    def nobody(self) -> str:
        """An address that was never used, and has no code."""
        return checksummed(new_id().bytes + b"\x07" * 4)

    def mine(self, blocks: int = 1) -> None:
        self.anvil.mine(blocks)
        self.catch_up()

    def finalize(self) -> None:
        """Blocks until what is the tip now is final, read by the monitor."""
        self.anvil.finalize()
        self.catch_up()

    def settle(self) -> None:
        """Enough blocks, and what follows from them."""
        self.mine()
        self.finalize()
        self.track()

    def reorg(self, depth: int) -> list[str]:
        """Replace the last blocks by empty ones; returns what was in them."""
        removed = self.anvil.reorg(depth)
        self.catch_up()
        return removed

    def price(self, base_fee_gwei: int, priority_gwei: int = 1) -> None:
        """What the node says of gas from now on."""
        self.node.price = GasPrice(base_fee_gwei * GWEI, priority_gwei * GWEI)

    def sign_with_the_key(self, to: str, value_wei: int, *, nonce: int, max_fee_gwei: int = 100) -> bytes:
        """A transaction that is no version of ours: as if the key had leaked."""
        tx = UnsignedTx(
            chain_id=self.anvil.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas_wei=2 * GWEI,
            max_fee_per_gas_wei=max_fee_gwei * GWEI,
            gas_limit=21_000,
            to=raw_address(to),
            value_wei=value_wei,
        )
        made = self.keys.signature(tx.signing_hash)
        return tx.signed(normalised(made, self.keys.pubkey, tx.signing_hash)).encode()

    # What there is.

    def tx_of(self, transaction_id: UUID, version: int = 1) -> UnsignedTx:
        return UnsignedTx.decode(self.transaction(transaction_id).versions[version - 1].unsigned)

    def raw_of(self, transaction_id: UUID, version: int = 1) -> bytes:
        signed = self.transaction(transaction_id).versions[version - 1].signed
        assert signed is not None
        assert SignedTx.decode(signed).tx == self.tx_of(transaction_id, version)
        return signed

    def pool(self) -> set[str]:
        """Txids in the node's pool, as we write them."""
        content = self.anvil.rpc("txpool_content")
        return {
            tx["hash"][2:]
            for kind in content.values()
            for of_sender in kind.values()
            for tx in of_sender.values()
        }

    def has(self, address: str, asset: str = "ETH") -> int:
        """Base units of an address at the tip, by the node's own word."""
        if asset == "ETH":
            return self.anvil.balance_wei(address)
        return int(self.outside.listed()[asset].call("balanceOf", address))


def open_evm_till(
    dsn: str, outside: TillOutside, directory: Path, **changes: Any
) -> AbstractContextManager[EvmTill]:
    """A till that is closed in the end, and checked before."""
    return opened(EvmTill(dsn, outside, directory, **changes))
