"""What REST and WebSocket share: from a body to a command, and from what happened to an answer."""

from __future__ import annotations

from typing import Any

from custody.trading import schemas
from custody.trading.commands import Channel, Place, Switch, TimeInForce
from custody.trading.events import Cancelled
from custody.trading.failures import OrderRejected
from custody.trading.history import OrderRecord
from custody.trading.service import Trading

Json = dict[str, Any]


def command(trading: Trading, customer: str, body: schemas.NewOrder, channel: Channel) -> Place:
    """The engine's command for a body; its time is now.

    Raises:
        NotFound: there is no such market.
        InvalidValue: a number is none, or finer than its asset.
    """
    views = trading.views
    market = views.market_of(body.market)
    default: TimeInForce = "ioc" if body.type in ("market", "stop_market") else "gtc"
    return Place(
        at=trading.core.now(),
        customer=customer,
        client_order_id=body.client_order_id,
        market=body.market,
        side=body.side,
        type=body.type,
        tif=body.tif or default,
        price=views.quote_units(market, body.price),
        base_units=views.base_units(market, body.base_amount),
        quote_units=views.quote_units(market, body.quote_amount),
        stop_price=views.quote_units(market, body.stop_price),
        slippage_bps=body.slippage_bps,
        self_trade=body.self_trade,
        channel=channel,
    )


async def place(trading: Trading, customer: str, body: schemas.NewOrder, channel: Channel) -> Json:
    """Place an order; the same again is answered with how it is now.

    Raises:
        OrderRejected: the engine refused it.
        NotFound, InvalidValue, Busy, SettlementBehind, Closed: nothing was done.
    """
    wanted = command(trading, customer, body, channel)
    try:
        await trading.place(wanted)
    except OrderRejected as error:
        if error.code != "duplicate_client_order_id":
            raise
        known = await trading.order(customer, body.client_order_id)
        if known is None or not _same(known, wanted):
            raise
        return trading.views.order(known)
    return await _order(trading, customer, body.client_order_id)


async def cancel(trading: Trading, customer: str, client_order_id: str) -> Json:
    """Cancel an order; one that is over already is answered with how it ended.

    Raises:
        OrderRejected: there is no such order, or its market is halted.
    """
    try:
        await trading.cancel(customer, client_order_id)
    except OrderRejected as error:
        known = await trading.order(customer, client_order_id) if error.code == "unknown_order" else None
        if known is None:
            raise
        return trading.views.order(known)
    return await _order(trading, customer, client_order_id)


async def replace(trading: Trading, customer: str, client_order_id: str, body: schemas.NewTerms) -> Json:
    """Change an order. Raises OrderRejected."""
    record = trading.records.order(customer, client_order_id)
    if record is None:
        raise OrderRejected("unknown_order", client_order_id, {})
    market = trading.views.market_of(record.market)
    price = trading.views.quote_units(market, body.price)
    units = trading.views.base_units(market, body.base_amount)
    await trading.replace(customer, client_order_id, price, units)
    return await _order(trading, customer, client_order_id)


async def cancel_all(trading: Trading, customer: str, body: schemas.CancelMany) -> Json:
    """Cancel all open orders; answers with the ids of those that were. Raises OrderRejected."""
    events = await trading.cancel_all(customer, body.market or "")
    return {"cancelled": [event.client_order_id for event in events if isinstance(event, Cancelled)]}


async def kill(trading: Trading, customer: str, switch: Switch) -> Json:
    """Turn the kill switch. Raises OrderRejected."""
    events = await trading.kill(customer, switch)
    cancelled = [event.client_order_id for event in events if isinstance(event, Cancelled)]
    return {"customer": customer, "switch": switch, "cancelled": cancelled}


def status(trading: Trading) -> Json:
    """How the core is."""
    fills, seconds = trading.unsettled()
    settlement, settled = trading.settlement, trading.settled
    return {
        "core": str(trading.id),
        "sequence": trading.core.sequence,
        "waiting": trading.core.waiting,
        "settled": settled.last,
        "unsettled_fills": fills,
        "lag_seconds": seconds,
        "open_transfers": len(settlement.open_transfers),
        "alarms": alarms(trading),
        "markets": {name: book.state for name, book in sorted(trading.engine.books.items())},
    }


def alarms(trading: Trading) -> list[str]:
    """What somebody has to look at; empty if all is well."""
    fills, seconds = trading.unsettled()
    found = []
    if trading.settlement.trouble:
        found.append(f"settling stands still: {trading.settlement.trouble}")
    if seconds >= trading.settings.custody.alarm_lag_seconds:
        found.append(f"{fills} fills wait for the ledger, the oldest for {seconds} s")
    if trading.settlement.move_trouble:
        found.append(f"a transfer waits: {trading.settlement.move_trouble}")
    return found


def reconciliation(trading: Trading) -> Json:
    """What the ledger must say if it agrees."""
    settled = trading.settled
    return {
        "core": str(trading.id),
        "settled": {
            "last": settled.last,
            "complete": settled.complete,
            "fill_sequence": settled.fill_sequence,
            "fill_index": max(settled.fill_index, 0),
        },
        "balances": [
            {"customer": customer, "asset": asset, "units": str(units)}
            for (customer, asset), units in trading.ledger_balances().items()
        ],
        "transfers": [
            {
                "id": entry.transfer.id,
                "customer": entry.transfer.customer,
                "asset": entry.transfer.asset,
                "units": str(entry.transfer.units),
                "to": entry.transfer.to,
                "state": entry.state,
            }
            for entry in trading.settlement.open_transfers
        ],
    }


async def _order(trading: Trading, customer: str, client_order_id: str) -> Json:
    found = await trading.order(customer, client_order_id)
    assert found is not None  # the records follow the core: what was applied is there
    return trading.views.order(found)


def _same(known: OrderRecord, wanted: Place) -> bool:
    fields = ("market", "side", "type", "tif", "price", "base_units", "quote_units")
    return all(getattr(known, name) == getattr(wanted, name) for name in fields)
