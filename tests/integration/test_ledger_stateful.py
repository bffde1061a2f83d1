"""Concurrent clients hammer one ledger with whatever hypothesis thinks of, and after each round it must hold together:
no liability below zero, sums of zero, frozen is what is held, and every chain recomputes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from custody.errors import Conflict
from custody.ledger import heads
from custody.ledger.audit import audit
from custody.ledger.model import (
    AccountKey,
    AccountKind,
    Code,
    Command,
    Created,
    Exists,
    Hold,
    Leg,
    LineType,
    Rejected,
    Result,
    Reverse,
    Transfer,
    VoidHold,
    available,
)
from custody.ledger.service import post
from custody.ledger.statements import balances, statement
from custody.ledger.verify import Known, verify
from custody.storage.db import Database
from tests.fakes.sealer import KEYSET, Sealer
from tests.support.ledger import credit, customers, move

NAMES = ("ada", "ben", "cem")
CLIENTS = 3


def to_trading(customer: str, units: int) -> Transfer:
    legs = (
        Leg(available(customer, "BTC"), -units, LineType.TRANSFER),
        Leg(AccountKey(customer, AccountKind.TRADING, "BTC"), units, LineType.TRANSFER),
    )
    return Transfer(uuid4(), legs, "trading")


WISHES = st.one_of(
    st.tuples(st.just("credit"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 50)),
    st.tuples(st.just("move"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 120)),
    st.tuples(st.just("trade"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 80)),
    st.tuples(st.just("hold"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(1, 80)),
    st.tuples(st.just("void"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 5)),
    st.tuples(st.just("undo"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 5)),
    st.tuples(st.just("again"), st.sampled_from(NAMES), st.sampled_from(NAMES), st.integers(0, 5)),
)


class Hammered(RuleBasedStateMachine):
    """Each rule lets several clients post at once, in transactions of their own."""

    db: Database
    sealer: Sealer

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Command] = []
        self.now = 1_800_000_000

    @rule(batches=st.lists(st.lists(WISHES, min_size=1, max_size=6), min_size=CLIENTS, max_size=CLIENTS))
    def post_at_once(self, batches: list[list[tuple[str, str, str, int]]]) -> None:
        commands = [[self.command(*wish) for wish in batch] for batch in batches]
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(self.posted, commands))
        for batch, results in zip(commands, answers, strict=True):
            for command, result in zip(batch, results, strict=True):
                assert not isinstance(result, Rejected) or result.code is not Code.OUT_OF_BALANCE
                if isinstance(result, Created):
                    self.done.append(command)

    def command(self, kind: str, one: str, other: str, number: int) -> Command:
        if kind == "credit":
            return credit(one, number)
        if kind == "trade":
            return to_trading(one, number)
        if kind == "hold":
            return Hold(uuid4(), one, "BTC", number)
        known = self.done[-number - 1] if number < len(self.done) else None
        if kind == "void" and isinstance(known, Hold):
            return VoidHold(uuid4(), known.id)
        if kind == "undo" and known is not None:
            return Reverse(uuid4(), known.id)
        if kind == "again" and known is not None:
            return known
        if one == other:
            return credit(one, number + 1)
        return move(one, other, number + 1)

    def posted(self, batch: list[Command]) -> list[Result]:
        while True:
            try:
                with self.db.transaction() as tx:
                    return post(tx, batch)
            except Conflict:
                continue

    @rule()
    def seal(self) -> None:
        self.now += 3600
        heads.seal(self.db, self.sealer.bundle(), {KEYSET: self.sealer}, now=self.now)  # type: ignore[dict-item]

    @rule()
    def everything_again_changes_nothing(self) -> None:
        last = self.done[-20:]
        assert all(isinstance(result, Exists) for result in self.posted(last))

    @invariant()
    def it_holds_together(self) -> None:
        with self.db.snapshot() as tx:
            assert audit(tx) == []
            found = verify(tx, Known(keys={KEYSET: self.sealer.key.public_hex}, sealing=KEYSET))
            assert found.flaws == []
            for name in NAMES:
                for each in balances(tx, name):
                    assert min(each.available, each.frozen, each.trading) >= 0
                    assert each.total == self.replayed(tx, name)

    def replayed(self, tx: object, name: str) -> int:
        total, cursor, more = 0, None, True
        while more:
            page = statement(tx, name, "BTC", after=cursor, limit=1000)  # type: ignore[arg-type]
            total += sum(line.amount for line in page.lines)
            cursor, more = page.cursor, page.more
        return total


@pytest.fixture
def ready(database: str, tmp_path: Path) -> Iterator[None]:
    with Database(database, application="test", pool_size=CLIENTS + 1) as db:
        customers(db, *NAMES)
        Hammered.db, Hammered.sealer = db, Sealer(tmp_path)
        Hammered.sealer.clock = lambda: 4_000_000_000
        yield
        Hammered.sealer.stop()


@pytest.mark.usefixtures("ready")
def test_concurrent_clients_cannot_bring_it_out_of_balance() -> None:
    run_state_machine_as_test(
        Hammered,
        settings=settings(
            max_examples=4, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
