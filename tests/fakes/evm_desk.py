"""The custody side of a small world on an EVM chain: contracts of its own, a fresh database, a monitor, and by hand
what workers do.

Everything is real but the signer daemon: its key is here. Each desk has its own random key and contracts, so that
desks can share one anvil.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

import coincurve
import msgspec

from chains.eth.address import raw_address
from chains.eth.contracts import artifact
from chains.eth.erc20 import transfer_calldata
from chains.eth.forwarder import agreed_forwarder, flush_calldata, salt_of
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.tx import SignedTx, UnsignedTx, address_text_of_key
from chains.eth.watch import WatchedSenders
from custody.deposits import repository
from custody.deposits.addresses import allocate
from custody.deposits.model import AddressRow
from custody.ids import new_id
from custody.ledger.bookings import hold_withdrawal
from custody.ledger.model import AccountKind, Leg, LineType, Transfer, available, house
from custody.ledger.service import post_all
from custody.monitor.monitor import Options
from custody.monitor.watch import ResourceSet
from custody.reconcile.model import Report
from custody.reconcile.service import enforce, reconcile
from custody.signing.evm.site import EvmSite, evm_site
from custody.signing.track import track
from custody.storage import halts
from custody.storage.db import Database
from ops.devnet.anvil import Anvil
from policies.bundle import AssetEntry, Bundle, Confirmations, EvmKeyset, EvmNetwork, GasCaps, Trait
from policies.intent import Attestation
from policies.keys import SigningKey
from policies.rules import Policy
from signers.ports import AttestRequest, SignedAttestation, SignerStatus, SignRequest, SignResponse
from tests.fakes.desk import Desk, as_role
from tests.support.evm import Contract, deploy, outside_artifact

CHAIN: Final = "ethereum-devnet"
KEYSET: Final = "eth-hot"
GWEI: Final = 10**9
ETHER: Final = 10**18
MINIMUM_WEI: Final = ETHER // 1_000
GAS: Final = 200_000
FEE_WEI: Final = 20 * GWEI
_TRAITS: Final[dict[str, tuple[Trait, ...]]] = {"FEEX": ("fee-on-transfer",), "NORX": ("no-return",)}


@dataclass
class EvmKeys:
    """A key-set's key: attests like the signer daemon, and lets tests spend."""

    secret: coincurve.PrivateKey = field(default_factory=lambda: coincurve.PrivateKey(os.urandom(32)))
    attestation: SigningKey = field(default_factory=SigningKey.generate)
    factory: str = ""
    forwarder: str = ""

    @property
    def address(self) -> str:
        return address_text_of_key(self.secret.public_key.format())

    def entry(self) -> EvmKeyset:
        return EvmKeyset(
            id=KEYSET,
            chain=CHAIN,
            tier="hot",
            attestation_key=self.attestation.public_hex,
            address=self.address,
            factory=self.factory,
            forwarder=self.forwarder,
            payout=None,
        )

    def attest(self, request: AttestRequest) -> SignedAttestation:
        assert request.branch == 0
        attestation = Attestation(
            v=1,
            chain=request.chain,
            keyset=request.keyset,
            customer=request.customer,
            asset=request.asset,
            path=f"m/0/{request.index}",
            address=agreed_forwarder(self.factory, self.forwarder, request.index),
        )
        return SignedAttestation(attestation=attestation, signature=self.attestation.sign(attestation))

    def status(self) -> SignerStatus:
        return SignerStatus(bundle_version=1, keysets=(KEYSET,), signed=0)

    def sign(self, request: SignRequest) -> SignResponse:
        raise AssertionError("these keys only attest")


@dataclass
class Outside:
    """The chain and who is on it beside us: tokens good and bad, and somebody who pays."""

    node: Anvil
    mode: NativeMode = NativeMode.TRACE

    def __post_init__(self) -> None:
        self.payer = self.node.accounts()[0]
        self.wallet = deploy(self.node, self.payer, outside_artifact("ContractWallet"))
        self.node.send_eth(self.payer, self.wallet.address, 100 * ETHER)
        self.usdx = self._token("Token", "USDX", "USDX", 6)
        self.norx = self._token("NoReturnToken")
        self.feex = self._token("FeeToken", 100)
        self.unlisted = self._token("Token", "Fake USDX", "USDX", 6)

    def _token(self, name: str, *arguments: object) -> Contract:
        token = deploy(self.node, self.payer, outside_artifact(name), *arguments)
        token.do(self.payer, "mint", self.payer, 10**30)
        return token

    def listed(self) -> dict[str, Contract]:
        return {"USDX": self.usdx, "NORX": self.norx, "FEEX": self.feex}

    def send(self, asset: str, to: str, units: int) -> str:
        """Pay from outside; waits in the pool for a block. Returns the txid, without 0x as we write it."""
        if asset == "ETH":
            # A forwarder that is deployed before this is mined takes a little more than an address without code.
            return self.node.transact(self.payer, to, value_wei=units, gas=30_000)[2:]
        token = self.listed()[asset]
        data = transfer_calldata(raw_address(to), units)
        return self.node.transact(self.payer, token.address, data, gas=GAS)[2:]


class EvmDesk(Desk):
    """One installation's monitor side on an EVM chain, driven pass by pass by the test."""

    def __init__(self, dsn: str, outside: Outside, **options: Any) -> None:
        self.outside, self.anvil = outside, outside.node
        self.evm_keys = EvmKeys()
        admin = self.anvil.accounts()[9]
        self.factory = deploy(
            self.anvil, outside.payer, artifact("ForwarderFactory"), self.evm_keys.address, admin
        )
        self.evm_keys.factory = self.factory.address
        self.evm_keys.forwarder = bytes(self.factory.call("initcodeHash")).hex()
        network = EthNetwork(self.anvil.chain_id, self.anvil.block_hash(0)[2:], outside.mode)
        self.node = EvmNode(CHAIN, network, self.anvil.rpc_url, tokens=self._tokens)
        quick = Options(
            start_height=self.anvil.height(), held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0
        )
        options.setdefault("options", quick)
        super().__init__(dsn, self.node, **options)
        self.workers = Database(as_role(dsn, "strongroom_worker"), application="worker", pool_size=4)
        self.nonce = 0
        self.catch_up()

    def _make_bundle(self, confirmations: int) -> Bundle:
        contracts = {"ETH": None} | {id_: token.address for id_, token in self.outside.listed().items()}
        return Bundle(
            v=1,
            version=1,
            issued_at=1,
            expires_at=2**40,
            longest_order_seconds=86_400,
            networks=(
                EvmNetwork(
                    chain=CHAIN,
                    genesis=self.anvil.block_hash(0)[2:],
                    native_asset="ETH",
                    settle_blocks=1,
                    feerate_floor=1,
                    feerate_cap=200 * GWEI,
                    fee_cap=str(ETHER),
                    fee_window_cap=str(100 * ETHER),
                    fee_window_seconds=86_400,
                    chain_id=self.anvil.chain_id,
                    native_mode=self.outside.mode.value,
                    gas_caps=GasCaps(
                        transfer=100_000, token=200_000, payout=3_000_000, sweep=6_000_000, execution=300_000
                    ),
                ),
            ),
            assets=tuple(
                AssetEntry(
                    id=id_,
                    chain=CHAIN,
                    decimals=6 if id_ == "USDX" else 18,
                    contract=contract,
                    minimum_deposit=str(MINIMUM_WEI) if contract is None else "1000",
                    withdrawal_fee="0",
                    confirmations=(Confirmations(from_units="0", blocks=1),),
                    traits=_TRAITS.get(id_, ()),
                )
                for id_, contract in contracts.items()
            ),
            keysets=(self.evm_keys.entry(),),
            caps=(),
            callers=(),
            officers=(),
            policy=Policy(),
        )

    def _tokens(self) -> list[str]:
        return [asset.contract for asset in self.bundle.assets if asset.contract is not None]

    def list_token(self, asset: str, token: Contract) -> None:
        """A new bundle that lists one more token."""
        entry = msgspec.structs.replace(
            self.bundle.asset("NORX"), id=asset, contract=token.address, traits=()
        )
        self.bundle = msgspec.structs.replace(self.bundle, assets=(*self.bundle.assets, entry))

    def _resource_set(self) -> ResourceSet:
        return WatchedSenders([self.evm_keys.address])

    def close(self) -> None:
        super().close()
        self.workers.close()
        self.node.close()

    # What customers, operators and the chain do.

    def address(self, customer: str, asset: str = "ETH") -> AddressRow:
        return allocate(self.admin, self.evm_keys, self.bundle, customer, asset)

    def mine(self, blocks: int = 1) -> None:
        self.anvil.mine(blocks)
        self.catch_up()

    def finalize(self) -> None:
        self.anvil.finalize()
        self.catch_up()

    def reorg(self, depth: int) -> list[str]:
        """Replace the last blocks by empty ones; returns what was in them, to be sent again or not."""
        removed = self.anvil.reorg(depth)
        self.catch_up()
        return removed

    def send_again(self, removed: Sequence[str]) -> None:
        for raw in removed:
            self.anvil.send_raw(raw)

    def fund_gas(self, wei: int = 10 * ETHER) -> None:
        """Operators bring money for gas to the key's address: it goes to suspense."""
        self.outside.send("ETH", self.evm_keys.address, wei)
        self.finalize()

    # What the key signs.

    def signed(
        self, to: str, value_wei: int = 0, data: bytes = b"", *, nonce: int, gas: int = GAS
    ) -> tuple[UnsignedTx, bytes]:
        """A transaction of the key, as its signer would sign it."""
        tx = UnsignedTx(
            chain_id=self.anvil.chain_id,
            nonce=nonce,
            max_priority_fee_per_gas_wei=GWEI,
            max_fee_per_gas_wei=FEE_WEI,
            gas_limit=gas,
            to=raw_address(to),
            value_wei=value_wei,
            data=data,
        )
        return tx, tx.signed(self.evm_keys.secret.sign_recoverable(tx.signing_hash, hasher=None)).encode()

    def steal(self, to: str, value_wei: int) -> str:
        """Somebody else signs with our key, with the next nonce."""
        _, raw = self.signed(to, value_wei, nonce=self._next_nonce())
        return self.anvil.send_raw("0x" + raw.hex())[2:]

    def pay(self, customer: str, asset: str, units: int, to: str, **changes: Any) -> UUID:
        """What workers record of a payment, and its broadcast. Returns the transaction's id."""
        contract = self.bundle.asset(asset).contract
        data = b"" if contract is None else transfer_calldata(raw_address(to), units)
        value = units if contract is None else 0
        tx, raw = self.signed(contract or to, value, data, nonce=self._next_nonce(), **changes)
        transaction = self.record(tx, raw, "payment", pays=(customer, asset, units))
        self.anvil.send_raw("0x" + raw.hex())
        return transaction

    def flush(self, rows: Sequence[AddressRow]) -> UUID:
        """A sweep of forwarders, of all assets, in one transaction. Returns the transaction's id."""
        tokens = [raw_address(token.address) for token in self.outside.listed().values()]
        data = flush_calldata([salt_of(row.index) for row in rows], tokens)
        tx, raw = self.signed(self.factory.address, 0, data, nonce=self._next_nonce(), gas=5_000_000)
        transaction = self.record(tx, raw, "nonce_fill", pays=None)
        self.anvil.send_raw("0x" + raw.hex())
        return transaction

    def record(
        self, unsigned: UnsignedTx, raw: bytes, kind: str, *, pays: tuple[str, str, int] | None
    ) -> UUID:
        """What the database has once it is signed: hold and withdrawal, transaction, version, reservation."""
        withdrawal, transaction = new_id(), new_id()
        resource = unsigned.resource(raw_address(self.evm_keys.address))
        txid = SignedTx.decode(raw).txid.hex
        with self.admin.transaction() as tx:
            tx.execute(
                "INSERT INTO transactions (id, chain, keyset, kind, state) VALUES (%s, %s, %s, %s, 'broadcast')",
                [transaction, CHAIN, KEYSET, kind],
            )
            tx.execute(
                "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
                " signed, txid, fee_units, feerate, size, state)"
                " VALUES (%s, 1, '', %s, %s, %s, %s, %s, %s, %s, %s, 'signed')",
                [
                    transaction,
                    unsigned.encode(),
                    unsigned.content,
                    [resource],
                    raw,
                    txid,
                    unsigned.max_fee_wei,
                    unsigned.max_fee_per_gas_wei,
                    unsigned.gas_limit,
                ],
            )
            tx.execute("INSERT INTO reservations VALUES (%s, %s, %s)", [CHAIN, resource, transaction])
            if pays is not None:
                customer, asset, units = pays
                hold = hold_withdrawal(withdrawal, customer=customer, asset=asset, units=units, fee_units=0)
                post_all(tx, [hold])
                tx.execute(
                    "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
                    " order_json, order_signature, order_hash, state, settlement, transaction_id, expires_at)"
                    " VALUES (%s, 'test', %s, %s, %s, 'somewhere', %s, 0, '', '', %s, 'broadcast', 'chain', %s, now())",
                    [withdrawal, customer, CHAIN, asset, units, str(withdrawal), transaction],
                )
        return transaction

    def _next_nonce(self) -> int:
        self.nonce += 1
        return self.nonce - 1

    def track(self) -> int:
        """What workers do about what the chain did."""
        return track(self.workers, self.site)

    @property
    def site(self) -> EvmSite:
        return evm_site(self.bundle, CHAIN, self.node)

    # What there is.

    def addresses(self) -> list[AddressRow]:
        with self.admin.snapshot() as tx:
            return repository.addresses_after(tx, CHAIN, 0, 1_000)

    def transaction_state(self, transaction: UUID) -> str:
        [row] = self.query("SELECT state FROM transactions WHERE id = %s", transaction)
        return str(row["state"])

    def spend(self, customer: str, units: int, asset: str = "ETH") -> None:
        legs = (
            Leg(available(customer, asset), -units, LineType.FEE),
            Leg(house(AccountKind.FEES_EARNED, asset), units, LineType.FEE),
        )
        with self.admin.transaction() as tx:
            post_all(tx, [Transfer(new_id(), legs, "test")])

    def balance(self, customer: str | None, kind: str = "available", asset: str = "ETH") -> int:
        rows = self.query(
            "SELECT balance FROM ledger_accounts"
            " WHERE customer_id IS NOT DISTINCT FROM %s AND kind = %s AND asset = %s",
            customer,
            kind,
            asset,
        )
        return sum(int(row["balance"]) for row in rows)

    def halted(self) -> str | None:
        with self.admin.snapshot() as tx:
            return halts.halted(tx, CHAIN)

    def reconcile(self) -> Report:
        return reconcile(self.admin, self.bundle, {CHAIN: self.node})

    def exact(self) -> Report:
        """Ledger, records and node agree in every asset, to the base unit, and nothing is unexplained."""
        report = self.reconcile()
        assert report.ok, report.differences()
        for statement in report.statements:
            assert statement.difference_units == 0, statement
            assert statement.node_units == statement.coins_units, statement
        return report

    def enforce(self) -> Report:
        """A pass of reconciliation with its teeth, as a worker makes it."""
        report = self.reconcile()
        enforce(self.workers, report)
        return report


@contextmanager
def open_evm_desk(dsn: str, outside: Outside, **options: Any) -> Iterator[EvmDesk]:
    """A desk that is closed in the end."""
    desk = EvmDesk(dsn, outside, **options)
    try:
        yield desk
    finally:
        desk.close()
