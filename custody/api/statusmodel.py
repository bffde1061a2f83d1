"""SQL of the status: what waits, how much of it, since when and why. Counts and sums, no customer data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from custody.deposits.lifecycle import DepositState
from custody.signing.lifecycle import TransactionState
from custody.storage.db import Tx, units
from custody.sweeps.repository import OPEN_STATES
from custody.withdrawals.lifecycle import WithdrawalState

_COMMONEST: Final = 3
_DEPOSITS: Final = (DepositState.SEEN, DepositState.CONFIRMING, DepositState.HELD)
_WITHDRAWALS: Final = (
    WithdrawalState.REQUESTED,
    WithdrawalState.SCREENING,
    WithdrawalState.AWAITING_APPROVAL,
    WithdrawalState.COOLING,
    WithdrawalState.QUEUED,
    WithdrawalState.BUILDING,
    WithdrawalState.SIGNING,
    WithdrawalState.BROADCAST,
    WithdrawalState.CONFIRMING,
)
_TRANSACTIONS: Final = (
    TransactionState.BUILT,
    TransactionState.BROADCAST,
    TransactionState.CONTESTED,
    TransactionState.CONFIRMING,
)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Deposits or withdrawals of one asset that are in one state."""

    asset: str
    state: str
    count: int
    units: int
    oldest_at: datetime
    reasons: Sequence[tuple[str, int]]
    """The commonest reasons, each by one that has it, with how many have it; deposits have none."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """Sweeps or transactions of one chain and kind that are in one state."""

    chain: str
    kind: str
    state: str
    count: int
    oldest_at: datetime


def deposits(tx: Tx) -> Sequence[Waiting]:
    """Deposits that are not credited yet, and may be."""
    rows = tx.all(
        "SELECT asset, state, count(*) AS n, sum(units) AS units, min(created_at) AS oldest FROM deposits"
        " WHERE state = ANY (%s) GROUP BY asset, state ORDER BY asset, state",
        [list(_DEPOSITS)],
    )
    return [
        Waiting(row["asset"], row["state"], row["n"], units(row["units"]), row["oldest"], ()) for row in rows
    ]


def withdrawals(tx: Tx) -> Sequence[Waiting]:
    """Withdrawals that have not ended, with the commonest reasons of those that wait."""
    reasons: dict[tuple[str, str], list[tuple[str, int]]] = {}
    # What stands before the colon is the same for all that wait for the same; behind it are each one's numbers.
    for row in tx.all(
        "SELECT asset, state, example, n FROM (SELECT asset, state, min(reason) AS example, count(*) AS n,"
        " row_number() OVER (PARTITION BY asset, state ORDER BY count(*) DESC, min(reason)) AS place"
        " FROM withdrawals WHERE state = ANY (%s) AND reason <> ''"
        " GROUP BY asset, state, split_part(reason, ':', 1)) r WHERE place <= %s ORDER BY asset, state, place",
        [list(_WITHDRAWALS), _COMMONEST],
    ):
        reasons.setdefault((row["asset"], row["state"]), []).append((row["example"], row["n"]))
    rows = tx.all(
        "SELECT asset, state, count(*) AS n, sum(units) AS units, min(created_at) AS oldest FROM withdrawals"
        " WHERE state = ANY (%s) GROUP BY asset, state",
        [list(_WITHDRAWALS)],
    )
    rows.sort(key=lambda row: (row["asset"], _WITHDRAWALS.index(WithdrawalState(row["state"]))))
    return [
        Waiting(
            row["asset"],
            row["state"],
            row["n"],
            units(row["units"]),
            row["oldest"],
            reasons.get((row["asset"], row["state"]), ()),
        )
        for row in rows
    ]


def sweeps(tx: Tx) -> Sequence[UnderWay]:
    """Sweeps that are not final."""
    rows = tx.all(
        "SELECT chain, kind, state, count(*) AS n, min(created_at) AS oldest FROM sweeps"
        " WHERE state = ANY (%s) GROUP BY chain, kind, state ORDER BY chain, kind, state",
        [list(OPEN_STATES)],
    )
    return [UnderWay(row["chain"], row["kind"], row["state"], row["n"], row["oldest"]) for row in rows]


def transactions(tx: Tx) -> Sequence[UnderWay]:
    """Transactions of ours that are not final."""
    rows = tx.all(
        "SELECT chain, kind, state, count(*) AS n, min(created_at) AS oldest FROM transactions"
        " WHERE state = ANY (%s) GROUP BY chain, kind, state ORDER BY chain, kind, state",
        [list(_TRANSACTIONS)],
    )
    return [UnderWay(row["chain"], row["kind"], row["state"], row["n"], row["oldest"]) for row in rows]
