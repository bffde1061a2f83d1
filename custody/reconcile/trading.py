"""What the trading core says that customers have, held against the ledger's `trading` accounts at the same place.

The core tells what each customer has as of the last command that custody has settled. The ledger may be further by a
few batches meanwhile: what these did is known to the unit, and taken off. Moves between funding and trading are made on
two sides, one after the other: the core tells of each that is not on both, and whether what it says has it already.

```
  what the ledger has in trading
- what batches behind the core's place have brought
+ moves into trading that the ledger has and the core has not   (and those out of it that only the core has)
= what the core says
```

A move that begins between the two looks is a difference for a moment. So only what is seen in every one of some looks
counts.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol
from uuid import UUID

import msgspec

from chains.errors import StrongroomError, TransientError
from custody.config_tables import TradingCoreSettings
from custody.storage.db import Database, Tx, units
from policies.keys import SigningKey

if TYPE_CHECKING:
    from custody.web.client import RestCaller

RULE: Final = 8
"""Of `custody.reconcile.model.RULES`."""
LOOKS: Final = 4
PAUSE_SECONDS: Final = 0.5

Place = tuple[str, str]
"""Customer and asset."""
_Digits = Annotated[str, msgspec.Meta(pattern=r"^(0|-?[1-9][0-9]{0,77})\Z")]


class CoreUnavailable(TransientError):
    """The trading core does not answer, or not as it should."""


class CoreBalance(msgspec.Struct, frozen=True):
    """What a customer has of one asset, free and held."""

    customer: str
    asset: str
    units: _Digits


class CoreMove(msgspec.Struct, frozen=True):
    """A move that is not on both sides yet, as far as the core knows."""

    id: UUID
    customer: str
    asset: str
    units: _Digits
    to: Literal["trading", "funding"]
    applied: bool
    """Whether the balances told have it already."""


class Settled(msgspec.Struct, frozen=True):
    """What the core says, as of one place."""

    core: UUID
    sequence: int
    """Of the last command that custody has settled, as the core knows."""
    complete: bool
    fill_sequence: int
    fill_index: int
    balances: tuple[CoreBalance, ...]
    moves: tuple[CoreMove, ...] = ()


class TradingCore(Protocol):
    """The trading core, as far as it is reconciled."""

    def settled(self) -> Settled:
        """What customers have there as of what is settled. Raises CoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """What the ledger has, of one snapshot."""

    balances: Mapping[Place, int]
    """In `trading`; all that are not zero."""
    known: bool
    """Whether the core's place is the end of a batch."""
    behind: Mapping[Place, int]
    """What batches behind that place have changed."""
    moved: Collection[UUID]
    """Those of the core's moves that were made."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """The ledger has `ledger_units` in trading where it should have `core_units`."""

    asset: str
    customer: str
    ledger_units: int
    core_units: int

    def __str__(self) -> str:
        return (
            f"{self.customer} has {self.ledger_units} base units of {self.asset} in trading by the ledger,"
            f" {self.core_units} by the trading core"
        )


def compare(settled: Settled, ledger: Ledger) -> frozenset[Difference]:
    """Where core and ledger differ. Pure."""
    found = Counter[Place]()
    found.update(ledger.balances)
    found.subtract(ledger.behind)
    due = Counter[Place]()
    for balance in settled.balances:
        due[balance.customer, balance.asset] += int(balance.units)
    for move in settled.moves:
        made = move.id in ledger.moved
        if made != move.applied:
            sign = 1 if (move.to == "trading") == made else -1
            due[move.customer, move.asset] += sign * int(move.units)
    return frozenset(
        Difference(place[1], place[0], found[place], due[place])
        for place in found.keys() | due.keys()
        if found[place] != due[place]
    )


def read(tx: Tx, settled: Settled) -> Ledger:
    """The ledger's side. Give it a snapshot.

    Raises:
        CoreUnavailable: what was settled cannot be read: its rows were edited.
    """
    start = tx.optional(
        "SELECT number FROM trading_settlements WHERE core = %s AND last = %s AND complete = %s"
        " AND fill_sequence = %s AND fill_index = %s ORDER BY number LIMIT 1",
        [
            settled.core,
            settled.sequence,
            settled.complete,
            settled.fill_sequence,
            settled.fill_index,
        ],
    )
    number = 0 if start is None else int(start["number"])
    later = tx.all(
        "SELECT document FROM trading_settlements WHERE core = %s AND number > %s ORDER BY number",
        [settled.core, number],
    )
    rows = tx.all(
        "SELECT customer_id, asset, balance FROM ledger_accounts WHERE kind = 'trading' AND balance <> 0"
    )
    moved = tx.all(
        "SELECT id FROM trading_transfers WHERE id = ANY (%s)", [[move.id for move in settled.moves]]
    )
    return Ledger(
        {(row["customer_id"], row["asset"]): units(row["balance"]) for row in rows},
        start is not None or settled.sequence == 0,
        _brought([row["document"] for row in later]),
        frozenset(row["id"] for row in moved),
    )


class _Fill(msgspec.Struct, frozen=True):
    base: str
    quote: str
    buyer: str
    seller: str
    base_units: _Digits
    quote_units: _Digits
    buyer_fee: _Digits
    seller_fee: _Digits


class _Batch(msgspec.Struct, frozen=True):
    fills: tuple[_Fill, ...]


_batches: Final = msgspec.json.Decoder(_Batch)


def _brought(documents: Sequence[str]) -> Counter[Place]:
    changes = Counter[Place]()
    for document in documents:
        try:
            batch = _batches.decode(document)
        except msgspec.MsgspecError as error:
            raise CoreUnavailable(f"a settled batch cannot be read: {error}") from None
        for fill in batch.fills:
            base, quote = int(fill.base_units), int(fill.quote_units)
            changes[fill.buyer, fill.base] += base
            changes[fill.seller, fill.base] -= base
            changes[fill.buyer, fill.quote] -= quote + int(fill.buyer_fee)
            changes[fill.seller, fill.quote] += quote - int(fill.seller_fee)
    return changes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen in every look."""

    differences: tuple[Difference, ...] = ()
    ahead: str = ""
    """That the core has more settled than the ledger, which then has lost something; empty: it has not."""


def look(db: Database, core: TradingCore, *, pause: Callable[[float], None] = time.sleep) -> Outcome:
    """What differs in every one of some looks. Changes nothing.

    Raises:
        CoreUnavailable: the trading core does not answer.
        DatabaseUnavailable: no answer.
    """
    standing: frozenset[Difference] | None = None
    ahead = ""
    for each in range(LOOKS):
        if each:
            pause(PAUSE_SECONDS)
        settled = core.settled()
        with db.snapshot() as tx:
            ledger = read(tx, settled)
        if not ledger.known:
            place = f"settled to {settled.sequence}, where no batch of the ledger ends"
            ahead = f"core {settled.core} says that it is {place}"
            continue
        found = compare(settled, ledger)
        standing = found if standing is None else standing & found
        if not standing:
            return Outcome()
    if standing is None:
        return Outcome(ahead=ahead)
    return Outcome(tuple(sorted(standing)))


class _Place(msgspec.Struct, frozen=True):
    last: int
    complete: bool
    fill_sequence: int
    fill_index: int


class _Transfer(msgspec.Struct, frozen=True):
    id: UUID
    customer: str
    asset: str
    units: _Digits
    to: Literal["trading", "funding"]


class _Told(msgspec.Struct, frozen=True):
    """The answer of the trading core."""

    core: UUID
    settled: _Place
    balances: tuple[CoreBalance, ...]
    transfers: tuple[_Transfer, ...]


class RestCore:
    """The trading core over HTTP.

    Args:
        caller: whose scope in the bundle lets it read what everybody has there.
    """

    def __init__(self, caller: RestCaller) -> None:
        self._caller = caller

    def settled(self) -> Settled:
        """See `TradingCore`."""
        try:
            found = msgspec.convert(self._caller.get("/v1/reconciliation"), _Told)
        except (StrongroomError, msgspec.ValidationError) as error:
            raise CoreUnavailable(f"the trading core: {error}") from None
        at = found.settled
        moves = tuple(
            # What it tells as of its place has left out every transfer that is not at its end.
            CoreMove(each.id, each.customer, each.asset, each.units, each.to, applied=False)
            for each in found.transfers
        )
        return Settled(
            found.core, at.last, at.complete, at.fill_sequence, at.fill_index, found.balances, moves
        )


def open_core(settings: TradingCoreSettings, clock: Callable[[], float]) -> RestCore:
    """The client of a trading core.

    Raises:
        UnusableKey: the file of our key holds none, or is open to others.
    """
    from custody.web.client import RestCaller  # httpx takes its time to load

    key = SigningKey.load(settings.key_path)
    return RestCore(RestCaller(settings.url, settings.audience, settings.caller, key, retries=0, clock=clock))
