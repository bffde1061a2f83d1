"""The custody side of a small world with a Safe and a gas payer: see `tests.fakes.evm_desk`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import coincurve
import msgspec

from chains.eth.address import raw_address
from chains.eth.safe import SafeMessage, SafeTx, join_signatures
from chains.eth.tx import address_text_of_key
from custody.ids import new_id
from custody.ledger.bookings import hold_withdrawal
from custody.ledger.service import post_all
from custody.monitor.watch import ResourceSet, watched_nonces
from ops.stack.safes import deploy_contracts, deploy_safe
from policies.bundle import Bundle, EvmVault, GasPayer, Owner
from tests.fakes.evm_desk import CHAIN, ETHER, EvmDesk, Outside

VAULT, GAS_PAYER = "eth-warm", "eth-gas"


class SafeDesk(EvmDesk):
    """A desk whose bundle has a 2-of-3 Safe of the warm tier, really deployed, and a gas payer."""

    def __init__(self, dsn: str, outside: Outside, **options: Any) -> None:
        self.owners = [coincurve.PrivateKey() for _ in range(3)]
        self.payer = coincurve.PrivateKey()
        contracts = deploy_contracts(outside.node, outside.payer)
        names = [address_text_of_key(key.public_key.format()) for key in self.owners]
        self.safe = deploy_safe(outside.node, outside.payer, contracts, names, 2)
        self.names = names
        super().__init__(dsn, outside, **options)

    def _make_bundle(self, confirmations: int) -> Bundle:
        vault = EvmVault(
            id=VAULT,
            chain=CHAIN,
            tier="warm",
            threshold=2,
            address=self.safe,
            owners=tuple(
                Owner(id=f"o{n}", organisation=f"org{n}", address=a) for n, a in enumerate(self.names)
            ),
        )
        payer = GasPayer(
            id=GAS_PAYER,
            chain=CHAIN,
            address=address_text_of_key(self.payer.public_key.format()),
            attestation_key="ab" * 32,
            holding_cap=str(ETHER),
        )
        return msgspec.structs.replace(
            super()._make_bundle(confirmations), vaults=(vault,), gas_payers=(payer,)
        )

    def _resource_set(self) -> ResourceSet:
        return watched_nonces(self.bundle, CHAIN)

    def message(self, tx: SafeTx) -> SafeMessage:
        return SafeMessage(self.anvil.chain_id, raw_address(self.safe), tx)

    def signatures(self, message: SafeMessage) -> bytes:
        """Of the first two owners, as the contract takes them."""
        made = [key.sign_recoverable(message.signing_hash, hasher=None) for key in self.owners[:2]]
        return join_signatures(message.signing_hash, [each[:64] + bytes([27 + each[64]]) for each in made])

    def carry_out(self, tx: SafeTx) -> str:
        """Somebody sends what the owners have signed; it waits in the pool. Returns the txid."""
        data = tx.execution(self.signatures(self.message(tx)))
        return self.anvil.transact(self.outside.payer, self.safe, data, gas=500_000)[2:]

    def record_safe(self, tx: SafeTx, pays: tuple[str, str, int]) -> UUID:
        """What the database has once the owners have signed a payment: see `EvmDesk.record`."""
        message, withdrawal, transaction = self.message(tx), new_id(), new_id()
        customer, asset, units = pays
        with self.admin.transaction() as sql:
            sql.execute(
                "INSERT INTO transactions (id, chain, keyset, kind, state) VALUES (%s, %s, %s, 'payment', 'broadcast')",
                [transaction, CHAIN, VAULT],
            )
            sql.execute(
                "INSERT INTO transaction_versions (transaction_id, version, request, unsigned, content, resources,"
                " signed, txid, fee_units, feerate, size, state)"
                " VALUES (%s, 1, '', %s, %s, %s, %s, %s, 0, 0, 1, 'signed')",
                [
                    transaction,
                    message.encode(),
                    message.content,
                    [message.resource],
                    tx.execution(self.signatures(message)),
                    message.content,
                ],
            )
            sql.execute(
                "INSERT INTO reservations VALUES (%s, %s, %s)", [CHAIN, message.resource, transaction]
            )
            post_all(
                sql, [hold_withdrawal(withdrawal, customer=customer, asset=asset, units=units, fee_units=0)]
            )
            sql.execute(
                "INSERT INTO withdrawals (id, caller, customer_id, chain, asset, destination, units, fee_units,"
                " order_json, order_signature, order_hash, state, settlement, transaction_id, expires_at)"
                " VALUES (%s, 'test', %s, %s, %s, 'somewhere', %s, 0, '', '', %s, 'broadcast', 'chain', %s, now())",
                [withdrawal, customer, CHAIN, asset, units, str(withdrawal), transaction],
            )
        return transaction


@contextmanager
def open_safe_desk(dsn: str, outside: Outside, **options: Any) -> Iterator[SafeDesk]:
    """A desk that is closed in the end."""
    desk = SafeDesk(dsn, outside, **options)
    try:
        yield desk
    finally:
        desk.close()
