"""A till whose deposit factory has a cold Safe as its admin, 3 of 5 holders offline; and a second hot key that follows
the first one, with a factory of its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from uuid import UUID

from chains.eth.address import checksummed, raw_address
from chains.eth.contracts import artifact
from chains.eth.factory import FactoryState, Step
from chains.eth.safe_files import SafeSignature, decode_request, encode_signature
from custody.reconcile.factories import read_factory
from custody.signing.cold import bringing, handing
from custody.signing.evm.administer import Planned, ask, plan
from custody.signing.evm.safe_site import SafeSite, safe_site
from custody.signing.evm.site import EvmSite, evm_site
from custody.signing.sessions import repository as sessions
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from ops.stack.safes import deploy_safe
from policies.bundle import EvmKeyset, EvmVault, KeyState, Owner
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord, SafeOwnerRecord
from signers.wallets import EvmWallet, Wallet
from tests.fakes.evm_signing import EVM_CHAIN, SoftEvmKeys
from tests.fakes.safe_till import SafeOutside, SafeTill
from tests.fakes.signing import House
from tests.support.evm import deploy

COLD, NEW = "eth-cold", "eth-hot-2"
HOLDERS = ("ann", "bob", "cem", "dee", "eve")
DELAY_SECONDS = 48 * 3600


class FactoryTill(SafeTill):
    """Driven by the test."""

    def __init__(self, dsn: str, outside: SafeOutside, directory: Path) -> None:
        chain_id = outside.node.chain_id
        self.holders = {name: SoftEvmKeys.of(SafeOwnerRecord, COLD, chain_id) for name in HOLDERS}
        names = [keys.record.address for keys in self.holders.values()]
        self.cold_safe = deploy_safe(outside.node, outside.payer, outside.safes, names, 3)
        self.new_keys = SoftEvmKeys.make(NEW, chain_id)
        super().__init__(dsn, outside, directory)
        self.adopt(2, **self._entries("active"))
        self.catch_up()

    def _factory_admin(self) -> str:
        return self.cold_safe

    def _make_record(self, house: House) -> EvmKeysetRecord:
        new = self.new_keys.record.address
        self.new_factory = deploy(
            self.anvil, self.outside.payer, artifact("ForwarderFactory"), new, self.cold_safe
        )
        return super()._make_record(house)

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {**super()._wallets(), NEW: EvmWallet(self.new_keys)}

    def _entries(self, state: KeyState) -> dict[str, Any]:
        """Of the bundle: the first key-set in a state, and then the second one is active; warm and cold Safe."""
        place = {"payout": self.world.payout, "admin": COLD}
        old = self.world.keyset_entry(
            self.world.record,
            factory=self.world.factory,
            forwarder=self.world.forwarder,
            state=state,
            **place,
        )
        forwarder = bytes(self.new_factory.call("initcodeHash")).hex()
        new = self.world.keyset_entry(
            self.new_keys.record, factory=self.new_factory.address, forwarder=forwarder, **place
        )
        cold = EvmVault(
            id=COLD,
            chain=EVM_CHAIN,
            tier="cold",
            threshold=3,
            address=self.cold_safe,
            owners=tuple(
                Owner(id=name, organisation=f"org-{name}", address=keys.record.address)
                for name, keys in self.holders.items()
            ),
        )
        warm = self.world.bundle().vaults
        return {"keysets": (old,) if state == "active" else (old, new), "vaults": (*warm, cold)}

    def retire(self, version: int, state: KeyState, **changes: Any) -> None:
        """The first key gets a state, and the second one is active."""
        self.adopt(version, **self._entries(state), **changes)
        self.catch_up()

    @property
    def old(self) -> EvmKeyset:
        """The first key-set."""
        entry = self.bundle.keyset(self.world.record.id)
        assert isinstance(entry, EvmKeyset)
        return entry

    def site_of(self, keyset: str) -> EvmSite:
        entry = self.bundle.keyset(keyset)
        assert isinstance(entry, EvmKeyset)
        return evm_site(self.bundle, EVM_CHAIN, self.node, pace=self.pace, wallet=entry)

    @property
    def cold_site(self) -> SafeSite:
        vault = self.bundle.wallet(COLD)
        assert isinstance(vault, EvmVault)
        return safe_site(self.bundle, vault, self.node, pace=self.pace)

    def now(self) -> int:
        """The chain's clock."""
        return int(self.anvil.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def plan(self, step: Step) -> Planned:
        return plan(self.cold_site, self.old, step, now=self.now())

    def ask(self, step: Step) -> UUID:
        """What an operator does with `strongroom factory`."""
        planned = self.plan(step)
        with self.db.transaction() as tx:
            return ask(tx, self.cold_site, planned)

    def export(self, transaction: UUID, *holders: str) -> bytes:
        """The request's file for holders."""
        with self.admin.snapshot() as tx:
            session = sessions.find(tx, transaction, 1)
        assert session is not None
        site = self.cold_site
        ready = handing.prepare(self.db, site, session.id, holders, [self.verifier])
        with self.db.transaction() as tx:
            handing.hand_out(tx, site, ready, now=int(time.time()))
        return ready.file

    def signed_by_hand(self, file: bytes, holder: str) -> bytes:
        """What a holder's machine writes for a request."""
        keys = self.holders[holder]
        digest = decode_request(file).message.signing_hash
        plain = normalised(keys.signature(digest), keys.pubkey, digest)
        parts = (digest, raw_address(keys.record.address), plain[:64] + bytes([27 + plain[64]]))
        return encode_signature(SafeSignature(*parts))

    def bring_file(self, file: bytes) -> bringing.Taken:
        return bringing.take(self.db, {COLD: self.cold_site}, file)

    def carry_out(self, transaction: UUID) -> None:
        """The gas payer sends it, and it is final."""
        self.send_execution()
        self.settle()
        assert self.transaction(transaction).state == "final"

    def through(self, step: Step) -> UUID:
        """A step from the operator's request to its end."""
        transaction = self.ask(step)
        file = self.export(transaction, *HOLDERS[:3])
        for holder in HOLDERS[:3]:
            assert not self.bring_file(self.signed_by_hand(file, holder)).refused
        self.carry_out(transaction)
        return transaction

    def wait_two_days(self) -> None:
        self.anvil.increase_time(DELAY_SECONDS + 60)
        self.mine()

    def sweep_of(self, keyset: str) -> int:
        return sweep(self.db, self.site_of(keyset), SweepPace(gather_seconds=0), now=int(time.time()))

    @property
    def factory_state(self) -> FactoryState:
        found = read_factory(raw_address(self.world.factory), self.adapter)
        assert found is not None
        return found

    @property
    def treasury(self) -> str:
        return checksummed(self.factory_state.treasury)

    def suspense(self, asset: str) -> int:
        """Base units that the house's suspense account has."""
        rows = self.query("SELECT balance FROM ledger_accounts WHERE kind = 'suspense' AND asset = %s", asset)
        return sum(int(row["balance"]) for row in rows)
