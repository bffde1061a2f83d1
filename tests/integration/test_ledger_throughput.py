"""A batch is what makes the ledger fast. `make bench` measures it; here it only must not get lost."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import uuid4

from custody.ledger.model import Created
from custody.storage.db import Database
from tests.support.ledger import booked, credit, customers, move

_ONE_BY_ONE = 100
_BATCH = 1000


def rate(number: int, work: Callable[[], None]) -> float:
    """Transfers a second."""
    started = time.perf_counter()
    work()
    return number / (time.perf_counter() - started)


def test_batches_on_one_hot_account_are_many_times_faster_than_one_transfer_a_commit(database: str) -> None:
    with Database(database, application="test") as db:
        customers(db, "hot", "other")
        booked(db, credit("hot", 10**9))
        # First one line on an empty ledger: its plans are kept, and must be good for a thousand lines.
        singles = [move("hot", "other", 1) for _ in range(_ONE_BY_ONE)]

        def one_by_one() -> None:
            for command in singles:
                assert booked(db, command) == [Created(command.id)]

        alone = rate(_ONE_BY_ONE, one_by_one)
        batches = [[move("hot", "other", 1, id=uuid4()) for _ in range(_BATCH)] for _ in range(4)]

        def batched() -> None:
            for batch in batches:
                assert all(isinstance(result, Created) for result in booked(db, *batch))

        together = rate(_BATCH * len(batches), batched)
    # Measured 25 to 40; the bound leaves room for a machine that does other things at the same time.
    assert together > 5 * alone, f"{together:.0f}/s in batches, {alone:.0f}/s one by one"
