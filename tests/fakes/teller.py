"""What every till has, whatever its chain: the payment steps one by one, the signer, and what there is to see."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

from chains.btc.node import BitcoinNode
from chains.eth.node import EvmNode
from custody.approvals.counting import count, end_with_approvers, lapse, reconsider
from custody.ledger.audit import audit
from custody.monitor.monitor import Monitor, Options
from custody.monitor.watch import ResourceSet
from custody.reconcile.model import Report
from custody.reconcile.service import enforce, reconcile
from custody.screening.ports import Elsewhere, Screening
from custody.signing import repository as transactions
from custody.signing.announcing import announce_waiting
from custody.signing.broadcast import broadcast
from custody.signing.build import build, fill_gap
from custody.signing.bump import bump, bump_stuck
from custody.signing.losses import book_losses
from custody.signing.model import OurTransaction
from custody.signing.requests import read_request
from custody.signing.sign import sign
from custody.signing.site import Pace, Site
from custody.signing.track import track
from custody.storage import halts
from custody.storage.db import Database
from custody.storage.sealing import Keys
from custody.whitelist.service import list_confirmed
from custody.withdrawals import service
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.routing import cool, route
from custody.withdrawals.screened import screen_again
from ops.devnet.process import wait_until
from policies.bundle import Bundle, Caller
from policies.intent import SignedOrder
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.ports import (
    AttestRequest,
    Reason,
    Refused,
    SignedAttestation,
    Signer,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle, pin
from signers.wallets import Wallet
from tests.fakes.api import as_role
from tests.fakes.signing import House

EAGER = Pace(
    gather_seconds=0,
    wait_seconds=0,
    refused_seconds=0,
    resend_seconds=0,
    retry_seconds=0,
    fill_after_seconds=0,
)
"""Looks at everything again at once."""


@dataclass
class Refusing:
    """A signer that refuses one request, and answers no other."""

    inner: Signer
    refused: SignRequest

    def status(self) -> SignerStatus:
        return self.inner.status()

    def attest(self, request: AttestRequest) -> SignedAttestation:
        return self.inner.attest(request)

    def sign(self, request: SignRequest) -> SignResponse:
        if request != self.refused:
            raise SignerUnavailable("not now")
        raise Refused((Reason(code="test", detail="no"),))


class Teller(ABC):
    """One installation on one chain, driven by the test.

    Args:
        dsn: superuser's address of a migrated database.
        directory: for the signer's files.
        adapter: the chain, as the monitor sees it.
        world: who signs bundles and orders.
        bundle: what is trusted.
        options: of the monitor.
    """

    def __init__(
        self,
        dsn: str,
        directory: Path,
        adapter: BitcoinNode | EvmNode,
        world: House,
        bundle: Bundle,
        options: Options,
    ) -> None:
        self.dsn, self.directory, self.adapter, self.chain = dsn, directory, adapter, adapter.chain
        self.house, self.bundle = world, bundle
        self.pace = EAGER
        self.admin = Database(dsn, application="test", pool_size=2)
        self.db = Database(as_role(dsn, "strongroom_worker"), application="worker", pool_size=4)
        self.api = Database(as_role(dsn, "strongroom_api"), application="api", pool_size=2)
        self.screening = Screening([Elsewhere("tests")])
        self.sealing_keys: Keys | None = None
        self._monitor_db = Database(as_role(dsn, "strongroom_monitor"), application="monitor", pool_size=2)
        self._stack = ExitStack()
        session = self._stack.enter_context(self._monitor_db.session())
        self.monitor = Monitor(
            adapter,
            session,
            lambda: self.bundle,
            self.screening,
            options=options,
            resource_set=self._resource_set,
        )
        self.signer: Signer = self._make_signer()
        self.catch_up()

    def _resource_set(self) -> ResourceSet:
        return set()

    @abstractmethod
    def _wallets(self) -> dict[str, Wallet[Any]]:
        """The signer's keys by key-set."""

    @property
    @abstractmethod
    def site(self) -> Site:
        """The hot wallet, by the bundle of now."""

    def _make_signer(self) -> Signer:
        (self.directory / "mark").mkdir(parents=True)
        Journal.create(self.directory / "journal.sqlite", self.directory / "mark" / "journal.mark")
        pin(self.house.root, self.directory / "pinned.json")
        self.bundle_path = self.directory / "bundle.json"
        self.bundle_path.write_bytes(self.house.signed(self.bundle).encode())
        self.journal = Journal.open(
            self.directory / "journal.sqlite", MarkFile.open(self.directory / "mark" / "journal.mark")
        )
        self.clock = SteadyClock(self.journal.write(lambda book: book.latest))
        self.trust = PinnedBundle(self.bundle_path, self.directory / "pinned.json", self.journal, self.clock)
        self.service = SignerService(self._wallets(), self.trust, self.journal, self.clock)
        self._stack.callback(self.journal.close)
        return self.service

    def adopt(self, version: int, **changes: Any) -> None:
        """A new bundle for everybody."""
        self.bundle = self.house.bundle(version, **changes)
        self.bundle_path.write_bytes(self.house.signed(self.bundle).encode())
        troubles: list[str] = []
        self.trust.refresh(troubles.append)
        assert troubles == []

    def close(self) -> None:
        self._stack.close()
        for database in (self._monitor_db, self.api, self.db, self.admin):
            database.close()

    @property
    def caller(self) -> Caller:
        return self.bundle.caller("exchange")

    # What callers ask for.

    def enrol(self, name: str) -> str:
        """A new customer."""
        with self.admin.transaction() as tx:
            tx.execute("INSERT INTO customers (id) VALUES (%s)", [name])
        return name

    def request(self, customer: str, units: int, /, **changes: Any) -> Withdrawal:
        """A withdrawal, as the API takes it in."""
        signed = self.order(customer, units, **changes)
        with self.api.transaction() as tx:
            return service.request(tx, signed, self.caller, self.bundle, now=int(time.time()))

    @abstractmethod
    def order(self, customer: str, units: int, /, **changes: Any) -> SignedOrder:
        """A signed order to a fresh address outside, unless `changes` say otherwise."""

    def catch_up(self) -> None:
        """The monitor reads all there is."""
        for _ in range(1_000):
            if not self.monitor.step():
                return
        raise AssertionError("the monitor does not come to rest")

    # The payment steps.

    def route(self) -> int:
        """What a worker's step of that name does."""
        now = int(time.time())
        done = list_confirmed(self.db, self.bundle, now=now) + reconsider(self.db, self.bundle, now=now)
        done += route(
            self.db,
            self.bundle,
            self.screening,
            now=now,
            keys=self.sealing_keys,
            nodes={self.chain: self.adapter},
        )
        done += count(self.db, self.bundle, now=now) + lapse(self.db, now=now)
        return done + end_with_approvers(self.db, self.bundle, now=now) + cool(self.db)

    def announce(self) -> int:
        return announce_waiting(self.db, self.site, self.signer, now=int(time.time()))

    def build(self) -> UUID | None:
        screen_again(self.db, self.chain, self.screening)
        return build(self.db, self.site, now=int(time.time()))

    def sign(self) -> list[UUID]:
        return sign(self.db, self.site, self.signer)

    def broadcast(self) -> int:
        return broadcast(self.db, self.site)

    def track(self) -> int:
        return track(self.db, self.site)

    def book_losses(self) -> int:
        return book_losses(self.db, self.site)

    def bump(self, transaction_id: UUID, feerate: int | None = None) -> int:
        return bump(self.db, self.site, transaction_id, feerate)

    def bump_stuck(self) -> int:
        return bump_stuck(self.db, self.site)

    def refuse(self, transaction_id: UUID) -> None:
        """The signer refuses this transaction, and does not answer about others."""
        with suppress(SignerUnavailable):
            sign(
                self.db,
                self.site,
                Refusing(self.service, read_request(self.transaction(transaction_id).versions[-1].request)),
            )

    def signed_when_old_enough(self) -> UUID:
        """Builds again and again, as a worker does, until the signer has known the orders for long enough."""
        found: list[UUID] = []

        def signed() -> bool:
            self.build()
            found.extend(self.sign())
            return bool(found)

        wait_until(signed, timeout=30, what="a signature")
        self.broadcast()
        return found[0]

    def fill_gap(self) -> UUID | None:
        return fill_gap(self.db, self.site)

    def send(self) -> UUID:
        """Everything up to the mempool, for one transaction."""
        self.route()
        transaction_id = self.build()
        assert transaction_id is not None, [
            row["reason"] for row in self.query("SELECT reason FROM withdrawals")
        ]
        assert self.sign() == [transaction_id]
        self.broadcast()
        return transaction_id

    # What there is.

    def query(self, sql: str, *params: Any) -> list[dict[str, Any]]:
        with self.admin.transaction() as tx:
            return tx.all(sql.encode(), params)

    def execute(self, sql: str, *params: Any) -> int:
        with self.admin.transaction() as tx:
            return tx.execute(sql.encode(), params)

    def withdrawal(self, withdrawal_id: UUID) -> Withdrawal:
        with self.admin.transaction() as tx:
            return service.get(tx, withdrawal_id)

    def states(self) -> list[str]:
        return [row["state"] for row in self.query("SELECT state FROM withdrawals ORDER BY created_at, id")]

    def transaction(self, transaction_id: UUID) -> OurTransaction:
        with self.admin.transaction() as tx:
            found = transactions.find(tx, transaction_id)
        assert found is not None
        return found

    def balance(self, customer: str | None, kind: str = "available", asset: str | None = None) -> int:
        """Base units in an account of a customer's or of the house's (None), over all its wallets; of the native asset
        unless another is asked for."""
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE customer_id IS NOT DISTINCT FROM %s AND kind = %s"
            " AND asset = %s",
            customer,
            kind,
            asset or self.site.asset.id,
        )
        return sum(int(row["balance"]) for row in rows)

    def alerts(self) -> set[str]:
        return {row["type"] for row in self.query("SELECT type FROM alerts WHERE resolved_at IS NULL")}

    def contents(self) -> dict[str, list[dict[str, Any]]]:
        """Everything that money depends on, to compare before and after what must change nothing."""
        tables = ("withdrawals", "withdrawal_events", "transactions", "transaction_versions", "reservations")
        more = ("ledger_accounts", "ledger_lines", "ledger_holds", "deposits")
        return {table: self.query(f"SELECT * FROM {table} ORDER BY 1, 2") for table in (*tables, *more)}

    def reconcile(self) -> Report:
        return reconcile(self.admin, self.bundle, {self.chain: self.adapter})

    def enforce(self) -> Report:
        """A pass of reconciliation with its teeth, as a worker makes it."""
        report = self.reconcile()
        enforce(self.db, report)
        return report

    def lift_halt(self) -> None:
        """An operator has found out why."""
        with self.admin.transaction() as tx:
            halts.lift(tx, halts.ALL)

    def broken_rules(self) -> set[int]:
        """Which rules of reconciliation do not hold; the identity itself is exact to the satoshi all the time."""
        report = self.reconcile()
        assert [statement.difference_units for statement in report.statements] == [0] * len(report.statements)
        return {check.number for check in report.checks if not check.ok}

    def halted(self) -> str | None:
        with self.admin.snapshot() as tx:
            return halts.halted(tx, self.chain)

    def check(self) -> None:
        """What holds at any time, to the satoshi: the ledger is sound, and equals the chain and what is in
        flight."""
        self.catch_up()
        with self.admin.snapshot() as tx:
            assert audit(tx) == []
        report = self.reconcile()
        assert report.ok, report.differences()
        for row in self.query("SELECT id, state, transaction_id FROM withdrawals"):
            if row["state"] == "settled" and row["transaction_id"] is not None:
                assert self.transaction(row["transaction_id"]).state == "final"


_T = TypeVar("_T", bound=Teller)


@contextmanager
def opened(till: _T) -> Iterator[_T]:
    """A till that is closed in the end, and checked before."""
    try:
        yield till
        till.catch_up()
        till.track()
        till.check()
    finally:
        till.close()
