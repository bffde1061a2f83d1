"""Any sequence of deposits, payments, sweeps and reorgs on anvil: ledger, records and node agree to the wei after each
step, and nothing but the reorg's own claw-backs is ever owed otherwise."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.eth.forwarder import agreed_forwarder
from chains.eth.network import NativeMode
from custody.deposits.model import AddressRow
from custody.ledger.audit import audit
from custody.signing.broadcast import broadcast
from custody.signing.site import Pace
from ops.devnet.anvil import Anvil, AnvilRefused
from ops.devnet.postgres import EmbeddedPostgres
from tests.fakes.evm_desk import ETHER, EvmDesk, Outside, open_evm_desk
from tests.support.evm import salt

ASSETS = ("ETH", "USDX", "FEEX")
EAGER = Pace(resend_seconds=0, retry_seconds=0)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("properties-evm")) as node:
        yield Outside(node, NativeMode.TRACE)


@dataclass
class World:
    """One desk, and everything that can happen to it."""

    desk: EvmDesk
    rows: list[AddressRow] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("alice", "bob"):
            self.rows.append(self.desk.address(self.desk.customer(name)))
        self.desk.fund_gas()
        self.desk.mine(3)

    @property
    def site(self) -> object:
        return replace(self.desk.site, pace=EAGER)

    def apply(self, step: tuple[str, int, int]) -> None:
        kind, a, b = step
        outside, row, asset = self.desk.outside, self.rows[a % 2], ASSETS[b % 3]
        units = ETHER // 1_000 * (1 + a * 7 + b) if asset == "ETH" else 1_000 * (1 + a * 7 + b)
        match kind:
            case "deposit":
                outside.send(asset, row.address, units)
            case "internal":
                outside.wallet.do(outside.payer, "payByCall", row.address, units, b"")
            case "flush":
                self.desk.flush(self.rows[: 1 + a % 2])
            case "flush by a stranger":
                tokens = [token.address for token in outside.listed().values()]
                self.desk.factory.do(outside.payer, "flush", [salt(row.index)], tokens)
            case "pay":
                self._pay(row, asset)
            case "gift":
                outside.send("ETH", self.desk.evm_keys.address, 1 + a)
            case "prepaid":
                self._prepaid(asset, units)
            case "mine":
                self.desk.anvil.mine(1 + a % 3)
            case "finalize":
                self.desk.anvil.finalize()
            case "reorg":
                # What waits is mined first: else the payer's next transactions would wait for a nonce that is gone.
                self.desk.anvil.mine()
                self.removed = self.desk.anvil.reorg(1 + (a * 3 + b) % 6)
            case "send again":
                for raw in self.removed:
                    self._send(raw)
                self.removed = []
            case "work":
                self.work()
            case "restart":
                self.desk.restart()

    def _prepaid(self, asset: str, units: int) -> None:
        """Somebody pays to an address that is given out afterwards only."""
        [taken] = self.desk.query("SELECT next FROM address_indexes WHERE branch = 0")
        keys = self.desk.evm_keys
        self.desk.outside.send(asset, agreed_forwarder(keys.factory, keys.forwarder, taken["next"]), units)
        self.desk.mine()
        self.desk.address("alice")

    def _pay(self, row: AddressRow, asset: str) -> None:
        assert row.customer is not None
        units = self.desk.balance(row.customer, asset=asset) // 3
        # Orders of a token that takes fees are refused; of others, the key's address may or may not have enough.
        if asset == "FEEX" or units == 0 or (asset == "ETH" and units > ETHER):
            return
        self.desk.pay(row.customer, asset, units, self.desk.anvil.accounts()[6])

    def _send(self, raw: str) -> None:
        """Its nonce may be used meanwhile, or the pool may have it."""
        with contextlib.suppress(AnvilRefused):
            self.desk.anvil.send_raw(raw)

    def work(self) -> None:
        """What workers do: follow what the chain did, send what it lost, reconcile and book."""
        self.desk.track()
        broadcast(self.desk.workers, self.site)  # type: ignore[arg-type]
        assert self.desk.enforce().ok

    def check(self) -> None:
        self.desk.catch_up()
        report = self.desk.reconcile()
        assert report.ok, report.differences()
        for statement in report.statements:
            assert statement.difference_units == 0, statement
            assert statement.node_units - statement.pending_units == statement.coins_units, statement
        assert self.desk.halted() is None
        with self.desk.admin.snapshot() as tx:
            assert audit(tx) == []

    def settle(self) -> None:
        """Nothing is in flight any more."""
        for _ in range(3):
            self.work()
            self.desk.finalize()
            self.work()
        self.desk.exact()
        unsettled = "SELECT 1 FROM transactions WHERE state NOT IN ('final', 'dead')"
        assert self.desk.query(unsettled) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            (
                *("deposit", "deposit", "internal", "pay", "pay", "flush", "flush by a stranger", "gift"),
                *(
                    "prepaid",
                    "mine",
                    "mine",
                    "finalize",
                    "finalize",
                    "reorg",
                    "send again",
                    "work",
                    "restart",
                ),
            )
        ),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    min_size=4,
    max_size=18,
)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_after_any_sequence_of_events_the_wallet_reconciles_to_the_wei(
    postgres: EmbeddedPostgres, migrated_template: str, outside: Outside, steps: list[tuple[str, int, int]]
) -> None:
    name = f"property_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    try:
        with open_evm_desk(postgres.superuser_dsn(name), outside) as desk:
            world = World(desk)
            for step in steps:
                world.apply(step)
                world.check()
            world.settle()
            before = desk.contents()
            desk.restart()
            desk.catch_up()
            world.work()
            assert desk.contents() == before, "again changes nothing"
    finally:
        postgres.drop_database(name)
