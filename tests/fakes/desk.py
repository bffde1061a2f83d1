"""The custody side of a small world: a fresh database, a key-set of its own, and a monitor on some chain.

Everything is real but the signer daemon: its keys are here. Each desk has its own random key-set, so that
desks can share one regtest node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import coincurve
from embit import bip32
from embit.networks import NETWORKS as EMBIT_NETWORKS
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut, sighash_p2wpkh, with_witnesses
from chains.ports import ChainAdapter
from custody.deposits import repository
from custody.deposits.addresses import allocate
from custody.deposits.model import AddressRow, Deposit, Purpose
from custody.ids import new_id
from custody.ledger.audit import audit
from custody.ledger.bookings import hold_withdrawal
from custody.ledger.model import AccountKind, Leg, LineType, Transfer, available, house
from custody.ledger.service import post_all
from custody.monitor.monitor import Monitor, Options
from custody.monitor.watch import ResourceSet
from custody.screening.ports import Elsewhere, Screening
from custody.storage.db import Database
from custody.storage.migrate import set_role_password
from policies.bundle import AssetEntry, BitcoinKeyset, BitcoinNetwork, Bundle, Confirmations, KeysetEntry
from policies.intent import Attestation
from policies.keys import SigningKey
from policies.rules import Policy
from signers.ports import (
    AttestRequest,
    SignedAttestation,
    SignerStatus,
    SignRequest,
    SignResponse,
)

CHAIN = "bitcoin-regtest"
ASSET = "BTC"
KEYSET = "hot-btc"
MINIMUM_SATS = 1_000
FEE_SATS = 50_000
PASSWORD = "a password for tests"


def as_role(dsn: str, role: str) -> str:
    """The same database for another role, whose password is set on the way."""
    set_role_password(dsn, role, PASSWORD)
    return make_conninfo(**{**conninfo_to_dict(dsn), "user": role, "password": PASSWORD})  # type: ignore[arg-type]


@dataclass
class Keys:
    """A key-set's keys: attests like the signer daemon, and lets tests spend."""

    seed: bytes = field(default_factory=lambda: os.urandom(32))
    attestation: SigningKey = field(default_factory=SigningKey.generate)

    def __post_init__(self) -> None:
        self.root = bip32.HDKey.from_seed(self.seed, version=EMBIT_NETWORKS["regtest"]["xprv"])
        public = self.root.derive("m/84h/1h/0h").to_public()
        self.xpub = str(public.to_base58(version=EMBIT_NETWORKS["regtest"]["xpub"]))
        self.account = AccountKey.parse(self.xpub, NETWORKS["regtest"])

    def entry(self) -> KeysetEntry:
        return BitcoinKeyset(
            id=KEYSET,
            chain=CHAIN,
            tier="hot",
            account=self.xpub,
            origin=f"{self.root.my_fingerprint.hex()}/84'/1'/0'",
            attestation_key=self.attestation.public_hex,
        )

    def secret(self, branch: int, index: int) -> bytes:
        secret: bytes = self.root.derive(f"m/84h/1h/0h/{branch}/{index}").key.secret
        return secret

    def attest(self, request: AttestRequest) -> SignedAttestation:
        attestation = Attestation(
            v=1,
            chain=request.chain,
            keyset=request.keyset,
            customer=request.customer,
            asset=request.asset,
            path=f"m/84'/1'/0'/{request.branch}/{request.index}",
            address=self.account.address(request.branch, request.index),
        )
        return SignedAttestation(attestation=attestation, signature=self.attestation.sign(attestation))

    def status(self) -> SignerStatus:
        return SignerStatus(bundle_version=1, keysets=(KEYSET,), signed=0)

    def sign(self, request: SignRequest) -> SignResponse:
        raise AssertionError("these keys only attest")


def make_bundle(keys: Keys, *, confirmations: int = 6) -> Bundle:
    """A regtest bundle with one asset and one hot key-set; nobody may call or pay."""
    return Bundle(
        v=1,
        version=1,
        issued_at=1,
        expires_at=2**40,
        longest_order_seconds=86_400,
        networks=(
            BitcoinNetwork(
                chain=CHAIN,
                network="regtest",
                genesis=NETWORKS["regtest"].genesis_hash,
                native_asset=ASSET,
                settle_blocks=6,
                feerate_floor=1_000,
                feerate_cap=500_000,
                fee_cap="1000000",
                fee_window_cap="10000000",
                fee_window_seconds=86_400,
            ),
        ),
        assets=(
            AssetEntry(
                id=ASSET,
                chain=CHAIN,
                decimals=8,
                contract=None,
                minimum_deposit=str(MINIMUM_SATS),
                withdrawal_fee="50000",
                confirmations=(Confirmations(from_units="0", blocks=confirmations),),
            ),
        ),
        keysets=(keys.entry(),),
        caps=(),
        callers=(),
        officers=(),
        policy=Policy(),
    )


class Desk:
    """One installation's monitor side, driven pass by pass by the test.

    Args:
        dsn: superuser's address of a migrated database.
        adapter: the chain.
    """

    def __init__(
        self,
        dsn: str,
        adapter: ChainAdapter,
        *,
        confirmations: int = 6,
        screening: Screening | None = None,
        options: Options | None = None,
    ) -> None:
        self.dsn = dsn
        self.adapter = adapter
        self.bundle = self._make_bundle(confirmations)
        self.screening = screening or Screening([Elsewhere("tests")])
        self.options = options or Options(held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0)
        self.admin = Database(dsn, application="test", pool_size=2)
        self.db = Database(as_role(dsn, "strongroom_monitor"), application="monitor", pool_size=2)
        self._stack = ExitStack()
        self.monitor = self._monitor(self._stack)

    def _make_bundle(self, confirmations: int) -> Bundle:
        self.keys = Keys()
        return make_bundle(self.keys, confirmations=confirmations)

    def _resource_set(self) -> ResourceSet:
        return set()

    def _monitor(self, stack: ExitStack) -> Monitor:
        session = stack.enter_context(self.db.session())
        return Monitor(
            self.adapter,
            session,
            lambda: self.bundle,
            self.screening,
            options=self.options,
            resource_set=self._resource_set,
        )

    def close(self) -> None:
        self._stack.close()
        self.db.close()
        self.admin.close()

    def restart(self) -> None:
        """A monitor with an empty memory and a new session, as after a crash."""
        self._stack.close()
        self._stack = ExitStack()
        self.monitor = self._monitor(self._stack)

    def catch_up(self) -> None:
        """Passes until there is nothing new, and one more that must change nothing."""
        for _ in range(1_000):
            if not self.monitor.step():
                break
        assert self.monitor.step() is False

    # What customers and operators do.

    def customer(self, name: str) -> str:
        with self.admin.transaction() as tx:
            tx.execute("INSERT INTO customers (id) VALUES (%s)", [name])
        return name

    def address(self, customer: str) -> AddressRow:
        return allocate(self.admin, self.keys, self.bundle, customer, ASSET)

    def change_address(self, index: int = 0) -> AddressRow:
        with self.admin.transaction() as tx:
            return repository.insert_address(
                tx,
                chain=CHAIN,
                keyset=KEYSET,
                asset=ASSET,
                customer=None,
                purpose=Purpose.CHANGE,
                branch=1,
                index=index,
                address=self.keys.account.address(1, index),
                script=self.keys.account.script(1, index),
                attestation=None,
            )

    def spend(self, customer: str, units: int) -> None:
        """The customer's money goes to the house, as if it had been withdrawn for good."""
        legs = (
            Leg(available(customer, ASSET), -units, LineType.FEE),
            Leg(house(AccountKind.FEES_EARNED, ASSET), units, LineType.FEE),
        )
        with self.admin.transaction() as tx:
            post_all(tx, [Transfer(new_id(), legs, "test")])

    # What there is.

    def query(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        with self.admin.transaction() as tx:
            return tx.all(sql.encode(), params)

    def execute(self, sql: str, *params: Any) -> int:
        with self.admin.transaction() as tx:
            return tx.execute(sql.encode(), params)

    def deposits(self) -> list[Deposit]:
        with self.admin.transaction() as tx:
            return sorted(repository.deposits(tx, limit=100_000), key=lambda row: row.created_at)

    def deposit(self, txid: str) -> Deposit:
        [row] = [row for row in self.deposits() if row.txid == txid]
        return row

    def states(self) -> list[str]:
        return [row.state.value for row in self.deposits()]

    def balance(self, customer: str | None, kind: str = "available") -> int:
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE customer_id IS NOT DISTINCT FROM %s AND kind = %s",
            customer,
            kind,
        )
        return sum(int(row["balance"]) for row in rows)

    def alerts(self) -> list[str]:
        rows = self.query("SELECT type FROM alerts WHERE resolved_at IS NULL ORDER BY id")
        return [row["type"] for row in rows]

    def frozen(self, customer: str) -> bool:
        return bool(self.query("SELECT state FROM customers WHERE id = %s", customer)[0]["state"] == "frozen")

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that money depends on, to compare before and after what must change nothing."""
        tables = ("deposits", "deposit_events", "ledger_accounts", "ledger_lines", "receipts", "consumptions")
        return {table: self.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables}

    def check(self) -> None:
        """What holds at any time: the ledger is sound, and equals the credited deposits and what we paid."""
        with self.admin.snapshot() as tx:
            assert audit(tx) == []
        credited = [row for row in self.deposits() if row.state.value in ("credited", "swept")]
        assert -self.balance(None, "chain_assets") == sum(row.units for row in credited)
        receipts = {row["resource"]: row for row in self.query("SELECT * FROM receipts")}
        for row in self.deposits():
            mined = receipts.get(row.resource)
            assert (row.height is not None) == (mined is not None), row
            if mined is not None:
                assert (row.height, row.block_hash) == (mined["height"], mined["block_hash"])
        resources = [row.resource for row in self.deposits()]
        assert len(set(resources)) == len(resources)


@contextmanager
def open_desk(dsn: str, adapter: ChainAdapter, **options: Any) -> Iterator[Desk]:
    """A desk that is closed in the end."""
    desk = Desk(dsn, adapter, **options)
    try:
        yield desk
    finally:
        desk.close()


def signed_spend(desk: Desk, coins: Sequence[tuple[str, int, AddressRow]], outputs: Sequence[TxOut]) -> bytes:
    """A signed transaction that spends coins of the desk's key-set (resource, satoshis, address) to `outputs`."""
    tx = Transaction(2, tuple(TxIn(Outpoint.parse(resource)) for resource, _, _ in coins), tuple(outputs))
    witnesses = []
    for at, (_, sats, row) in enumerate(coins):
        pubkey = desk.keys.account.pubkey(row.branch, row.index)
        key = coincurve.PrivateKey(desk.keys.secret(row.branch, row.index))
        witnesses.append([key.sign(sighash_p2wpkh(tx, at, pubkey, sats), hasher=None) + b"\x01", pubkey])
    return with_witnesses(tx, witnesses).serialize()


def record_payment(
    desk: Desk, customer: str, raws: Sequence[tuple[bytes, int]], *, paid_sats: int, state: str = "broadcast"
) -> tuple[str, str]:
    """What workers record of a payment: hold, withdrawal, transaction, its versions (bytes, fee), reservations.

    Returns:
        The ids of the withdrawal and of the transaction.
    """
    withdrawal, transaction = new_id(), new_id()
    with desk.admin.transaction() as tx:
        post_all(
            tx,
            [
                hold_withdrawal(
                    withdrawal, customer=customer, asset=ASSET, units=paid_sats, fee_units=FEE_SATS
                )
            ],
        )
        tx.execute(
            "INSERT INTO transactions (id, chain, keyset, kind, state) VALUES (%s, %s, %s, 'payment', %s)",
            [transaction, CHAIN, KEYSET, state],
        )
        for number, (raw, fee_sats) in enumerate(raws, start=1):
            parsed = Transaction.parse(raw)
            tx.execute(
                "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
                " signed, txid, fee_units, feerate, size, state)"
                " VALUES (%s, %s, '', ''::bytea, %s, %s, %s, %s, %s, 1000, 100, 'signed')",
                [
                    transaction,
                    number,
                    parsed.txid.hex,
                    list(parsed.resources),
                    raw,
                    parsed.txid.hex,
                    fee_sats,
                ],
            )
            tx.executemany(
                "INSERT INTO reservations VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [(CHAIN, resource, transaction) for resource in parsed.resources],
            )
        tx.execute(
            "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units, order_json,"
            " order_signature, order_hash, state, settlement, transaction_id, expires_at)"
            " VALUES (%s, 'test', %s, %s, %s, 'somewhere', %s, %s, '', '', %s, 'broadcast', 'chain', %s, now())",
            [withdrawal, customer, CHAIN, ASSET, paid_sats, FEE_SATS, str(withdrawal), transaction],
        )
    return str(withdrawal), str(transaction)
