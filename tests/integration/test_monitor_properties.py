"""Whatever a chain does, the ledger is what the best chain says: random payments, blocks, reorgs and crashes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chains.btc.tx import TxOut
from chains.types import TxId
from custody.monitor.monitor import Options
from ops.devnet.postgres import EmbeddedPostgres
from tests.fakes.chain import FakeChain
from tests.fakes.desk import MINIMUM_SATS, Desk, open_desk

CONFIRMATIONS = 3
START = Options(
    start_height=0, blocks_per_commit=4, held_again_seconds=0, heartbeat_seconds=0, mempool_seconds=0
)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pay"), st.integers(0, 2), st.integers(MINIMUM_SATS - 2, 100_000)),
        st.tuples(st.just("pay"), st.integers(0, 2), st.integers(MINIMUM_SATS - 2, 100_000)),
        st.tuples(st.just("replace"), st.integers(0, 9), st.integers(0, 2)),
        st.tuples(st.just("drop"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("mine"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("mine"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("reorg"), st.integers(1, 8), st.integers(1, 3)),
        st.tuples(st.just("spend"), st.integers(0, 1), st.integers(1, 100_000)),
        st.tuples(st.just("follow"), st.integers(1, 3), st.just(0)),
        st.tuples(st.just("crash"), st.just(0), st.just(0)),
    ),
    min_size=5,
    max_size=40,
)


@dataclass
class World:
    """A chain, a desk, and who owns which script; script 2 is a change address that strangers pay to."""

    chain: FakeChain
    desk: Desk
    spent: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.customers = [self.desk.customer("alice"), self.desk.customer("bob")]
        self.scripts = [self.desk.address(name).script for name in self.customers]
        self.scripts.append(self.desk.change_address().script)
        self.spent = dict.fromkeys(self.customers, 0)

    def apply(self, step: tuple[str, int, int]) -> None:
        kind, a, b = step
        pending = [TxId(txid.hex) for txid in self.chain.mempool()]
        match kind:
            case "pay":
                self.chain.pay([TxOut(b, self.scripts[a]), TxOut(1, b"\x51")])
            case "replace" if pending:
                to_us = [TxOut(54_321, self.scripts[b])] if b else []
                self.chain.pay([TxOut(7, b"\x51"), *to_us], replaces=pending[a % len(pending)])
            case "drop" if pending:
                self.chain.drop(pending[a % len(pending)])
            case "mine":
                self.chain.mine(a, only=pending[::2] if b else None)
            case "reorg":
                depth = min(a, self.chain.tip().height)
                if depth:
                    self.chain.reorg(depth, length=depth + b)
            case "spend":
                units = min(self.desk.balance(self.customers[a]), b)
                if units:
                    self.desk.spend(self.customers[a], units)
                    self.spent[self.customers[a]] += units
            case "follow":
                for _ in range(a):
                    self.desk.monitor.step()
            case "crash":
                self.desk.restart()

    def on_chain(self) -> dict[str, tuple[int, int, int]]:
        """Outputs of the best chain to our scripts: units, confirmations, whose script."""
        tip = self.chain.tip().height
        found = {}
        for height in range(tip + 1):
            header = self.chain.header_at(height)
            assert header is not None
            seen = self.chain.observe_block(header.ref, set(self.scripts), ())
            for receipt in seen.receipts:
                owner = self.scripts.index(receipt.script)
                found[receipt.resource] = (receipt.units, tip - height + 1, owner)
        return found

    def check(self) -> None:
        """The ledger and the deposits are exactly what the best chain says."""
        self.desk.check()
        mined = self.on_chain()
        rows = {row.resource: row for row in self.desk.deposits()}
        assert mined.keys() <= rows.keys()
        for resource, row in rows.items():
            units, depth, _ = mined.get(resource, (row.units, 0, 0))
            assert row.units == units
            if row.state == "credited":
                assert depth > 0, "credited, so in the best chain"
            elif depth >= CONFIRMATIONS:
                assert row.state == "below_minimum"
                assert units < MINIMUM_SATS
            else:
                assert (row.state == "confirming") == (depth > 0)
        owed = [0, 0, 0]
        for resource, (units, _, owner) in mined.items():
            owed[owner] += units if rows[resource].state == "credited" else 0
        short = 0
        for at, name in enumerate(self.customers):
            balance = self.desk.balance(name)
            # What was spent and then clawed back is the house's loss, and never the customer's gain.
            short += balance - (owed[at] - self.spent[name])
        assert short >= 0
        assert self.desk.balance(None, "suspense") == owed[2] - short


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=STEPS)
def test_after_any_sequence_of_events_the_ledger_is_what_the_best_chain_says(
    postgres: EmbeddedPostgres, migrated_template: str, steps: list[tuple[str, int, int]]
) -> None:
    name = f"property_{uuid.uuid4().hex}"
    postgres.create_database(name, template=migrated_template)
    try:
        chain = FakeChain()
        dsn = postgres.superuser_dsn(name)
        with open_desk(dsn, chain, confirmations=CONFIRMATIONS, options=START) as desk:
            world = World(chain, desk)
            for step in steps:
                world.apply(step)
            desk.catch_up()
            world.check()
            before = desk.contents()
            desk.restart()
            desk.catch_up()
            assert desk.contents() == before, "again changes nothing"
    finally:
        postgres.drop_database(name)
