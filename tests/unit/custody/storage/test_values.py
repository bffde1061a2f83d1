"""What storage does without a database: numbers of columns, and which error means what."""

from __future__ import annotations

from decimal import Decimal

import psycopg
import pytest
from psycopg import errors as pg

from chains.errors import InvalidValue
from custody.errors import Conflict, DatabaseUnavailable
from custody.storage.db import translated_errors, units
from custody.storage.migrate import LIFECYCLES, edges


def test_units_are_whole_numbers_of_any_size() -> None:
    assert units(Decimal(10**77)) == 10**77
    assert units(Decimal("-5E+3")) == -5000
    assert units(7) == 7
    for bad in (Decimal("0.5"), Decimal("NaN"), Decimal("Infinity"), True, "7", None):
        with pytest.raises(InvalidValue):
            units(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (pg.SerializationFailure, Conflict),
        (pg.DeadlockDetected, Conflict),
        (pg.LockNotAvailable, Conflict),
        (psycopg.OperationalError, DatabaseUnavailable),
        (pg.AdminShutdown, DatabaseUnavailable),
        (pg.DiskFull, DatabaseUnavailable),
        (pg.TooManyConnections, DatabaseUnavailable),
        (pg.ReadOnlySqlTransaction, DatabaseUnavailable),
        (pg.IdleInTransactionSessionTimeout, DatabaseUnavailable),
        # For the repository that knows the constraint, or a bug: never retried blindly.
        (pg.UniqueViolation, pg.UniqueViolation),
        (pg.CheckViolation, pg.CheckViolation),
        (pg.InsufficientPrivilege, pg.InsufficientPrivilege),
        (pg.UndefinedTable, pg.UndefinedTable),
    ],
)
def test_an_error_of_the_driver_says_whether_a_retry_can_help(
    raised: type[psycopg.Error], expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught, translated_errors():
        raise raised("what the server said\nand its details")
    if expected in (Conflict, DatabaseUnavailable):
        assert str(caught.value) == "database: what the server said"


def test_a_role_altered_by_two_at_once_is_a_conflict() -> None:
    with pytest.raises(Conflict), translated_errors():
        raise pg.InternalError_("tuple concurrently updated")


def test_the_edges_are_those_of_all_lifecycles_without_states_that_stay() -> None:
    assert {lifecycle for lifecycle, _, _ in edges()} == {cycle.name for cycle in LIFECYCLES}
    assert ("hold", "posted", "pending") in edges()
    assert not any(before == after for _, before, after in edges())
