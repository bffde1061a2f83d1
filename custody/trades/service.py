"""Settles the trading core's fills and moves customers' money between funding and trading, within the caller's
transaction.

Whether something happens again is told by its content, not by the request: a core that lost an answer asks anew.

While everything or an asset is halted or frozen, no batch that trades in it is settled and nothing of it moves in
either direction. A halted chain and a frozen customer stop moves only: a fill is a fact, and what it brings stays in
trading.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from custody.customers import repository as customers
from custody.errors import Conflict, Halted, InsufficientFunds, LedgerRejected, UnknownCustomer
from custody.ledger import service as ledger
from custody.ledger.model import Code
from custody.storage import halts
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Tx
from custody.trades import repository
from custody.trades.errors import CustomerFrozen, SettlementOutOfOrder, TransferExists
from custody.trades.model import Batch, Evidence, Move
from custody.trades.repository import Moved
from policies.bundle import Bundle

REFUSED: Final = "trading.settlement_refused"
NEW_CORE: Final = "trading.new_core"


def settle(tx: Tx, bundle: Bundle, batch: Batch, evidence: Evidence) -> bool:
    """Settle a batch, all of it or nothing, and move its core's cursor.

    Returns:
        True: now; False: this very batch was settled before, and nothing changed.

    Raises:
        InvalidValue: an asset that the bundle lacks.
        SettlementOutOfOrder: it does not follow the batch before it.
        Halted: nothing is settled now, of everything or of one of its assets.
        LedgerRejected: the ledger has not what the engine says, e.g. too little money: the two differ, and every later
            batch would be refused, too.
    """
    for asset in batch.assets:
        bundle.asset(asset)
    repository.lock(tx, batch.core)
    if repository.settled(tx, batch):
        return False
    cursor = repository.cursor(tx, batch.core)
    again = any((fill.sequence, fill.index) <= cursor.fill != (0, 0) for fill in batch.fills[:1])
    if batch.first != cursor.expected or again:
        raise SettlementOutOfOrder(batch.core, cursor.expected, batch.first, batch.last)
    _check_running(tx, batch.assets)
    if not cursor.batches and repository.other_cores(tx, batch.core):
        told = (
            f"core {batch.core} of caller {evidence.caller} settles trades for the first time: is it yours?"
        )
        raise_alert(tx, Severity.CRITICAL, NEW_CORE, str(batch.core), told, {"caller": evidence.caller})
    repository.insert_settlement(tx, batch, batch.after(cursor), evidence)
    ledger.post_all(tx, [fill.transfer(batch.core) for fill in batch.fills])
    resolve_alert(tx, REFUSED, str(batch.core))
    return True


def note_refusal(tx: Tx, core: UUID, why: str) -> None:
    """Alert people that a core and the ledger do not agree; the next batch that is settled resolves it."""
    raise_alert(tx, Severity.CRITICAL, REFUSED, str(core), f"a batch of trades was refused: {why}"[:1000], {})


def move(tx: Tx, bundle: Bundle, wanted: Move, evidence: Evidence) -> Moved:
    """Move a customer's money between funding and trading. Again changes nothing.

    Raises:
        InvalidValue: an asset that the bundle lacks.
        UnknownCustomer: there is no such customer.
        TransferExists: the id is taken by another transfer.
        CustomerFrozen: his money stays where it is.
        Halted: nothing of this asset moves now.
        InsufficientFunds: there is not enough where it is to come from.
        Conflict: the same request is being carried out at this moment.
    """
    known = repository.move(tx, wanted.id)
    if known is not None:
        if known.move != wanted:
            raise TransferExists(wanted.id)
        return known
    _check_movable(tx, bundle, wanted)
    moved = repository.insert_move(tx, wanted, evidence)
    if moved is None:
        raise Conflict(f"transfer {wanted.id} is being made by another request")
    try:
        ledger.post_all(tx, [wanted.transfer()])
    except LedgerRejected as error:
        (rejected,) = error.rejected
        if rejected.code == Code.INSUFFICIENT_FUNDS:
            raise InsufficientFunds(wanted.asset, rejected.available or 0, rejected.needed or 0) from error
        if rejected.code == Code.EXISTS_WITH_DIFFERENT_CONTENT:
            raise TransferExists(wanted.id) from error
        raise
    return moved


def _check_movable(tx: Tx, bundle: Bundle, wanted: Move) -> None:
    asset = bundle.asset(wanted.asset)
    customer = customers.find(tx, wanted.customer)
    if customer is None:
        raise UnknownCustomer(wanted.customer)
    if customer.state == "frozen":
        raise CustomerFrozen(customer.id, customer.reason)
    if wanted.target == "funding":
        _check_running(tx, (asset.id,), customer=customer.id)
        return
    why = halts.halted(tx, asset.chain, asset.id, customer=customer.id)
    if why is not None:
        raise Halted(halts.of_asset(asset.id), why)


def _check_running(tx: Tx, assets: Sequence[str], *, customer: str | None = None) -> None:
    stopped = halts.stopped(tx, [halts.ALL, *map(halts.of_asset, assets)], customer=customer)
    if stopped is not None:
        raise Halted(*stopped)
