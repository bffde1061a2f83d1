"""The REST face: parse, one call, render. Amounts are decimal strings; every POST takes an Idempotency-Key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
import rfc8785
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from chains.types import Amount
from custody.errors import NotFound
from custody.trading import orderentry, schemas
from custody.trading.access import Scope, Visitor
from custody.trading.answers import Answers
from custody.trading.candles import INTERVALS
from custody.trading.config import EVERYBODY
from custody.trading.ports import Transfer
from custody.trading.service import Trading
from custody.trading.streams import Streams
from custody.web import paging
from custody.web.errors import FieldError, InvalidCursor, InvalidRequest
from custody.web.schemas import NameText, UuidText

Interval = Literal["1s", "1m", "5m", "15m", "1h", "4h", "1d"]
assert set(INTERVALS) == set(Interval.__args__)  # type: ignore[attr-defined]

router = APIRouter(prefix="/v1")
_CUSTOMER: Final = "/customers/{customer}"


class Ask:
    """One request by an admitted visitor."""

    def __init__(self, request: Request) -> None:
        self.visitor: Visitor = request.state.visitor
        self.trading: Trading = request.app.state.trading
        self.streams: Streams = request.app.state.streams
        self._answers: Answers = request.app.state.answers
        self._request = request

    async def once(
        self, status: int, body: BaseModel | None, effect: Callable[[], Awaitable[dict[str, Any]]]
    ) -> Response:
        """Answer a POST, once for its key."""
        shown = rfc8785.dumps(body.model_dump(mode="json", exclude_unset=True)) if body is not None else b""
        what = f"{self._request.method}\n{self._request.url.path}\n".encode() + shown
        key = self._request.headers.get("idempotency-key")
        return await self._answers.once(self.visitor.id, key, what, status, effect)


def needs(scope: Scope) -> Callable[[Request], Any]:
    """The dependency of a route: the visitor has the scope, acts for the path's customer, and every parameter is
    known."""

    async def check(request: Request) -> Ask:
        ask = Ask(request)
        ask.visitor.need(scope)
        customer = request.path_params.get("customer")
        if customer is not None:
            ask.visitor.need_customer(unquote(customer))
        known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
        given = [name for name, _ in request.query_params.multi_items()]
        wrong = [FieldError(f"query.{n[:64]}", "there is no such parameter") for n in given if n not in known]
        wrong += [FieldError(f"query.{name}", "given twice") for name in known if given.count(name) > 1]
        if wrong:
            raise InvalidRequest(wrong)
        return ask

    check.__annotations__["return"] = Ask
    return check


Reader = Annotated[Ask, Depends(needs("trading:read"))]
Writer = Annotated[Ask, Depends(needs("trading:write"))]
Admin = Annotated[Ask, Depends(needs("trading:admin"))]


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


# --- market data ----------------------------------------------------------------------------------------------


@router.get("/markets", tags=["market data"])
async def list_markets(ask: Reader) -> Response:
    """All markets: what is traded where, in which steps, and whether it is open."""
    trading = ask.trading
    return _json(
        {
            "items": [
                trading.views.terms(book.market, book.state)
                for _, book in sorted(trading.engine.books.items())
            ],
            "next": None,
        }
    )


@router.get("/markets/{market}/depth", tags=["market data"])
async def show_depth(
    ask: Reader, market: NameText, levels: Annotated[int, Query(ge=1, le=1_000)] = 50
) -> Response:
    """The best prices of both sides. `sequence` tells to which increment of the stream it belongs."""
    trading = ask.trading
    found = trading.views.market_of(market)
    return _json(trading.views.depth(found, trading.market_data.markets[market], levels))


@router.get("/markets/{market}/ticker", tags=["market data"])
async def show_ticker(ask: Reader, market: NameText) -> Response:
    """The last 24 hours, the best prices, and the market's state."""
    trading = ask.trading
    found = trading.views.market_of(market)
    return _json(trading.views.ticker(found, trading.market_data.markets[market], trading.core.now()))


@router.get("/markets/{market}/trades", tags=["market data"])
async def list_trades(
    ask: Reader, market: NameText, after: paging.After = None, limit: paging.Limit = 100
) -> Response:
    """A market's trades, the newest first."""
    trading = ask.trading
    trading.views.market_of(market)
    place = _place("trades", after)
    found = await trading.trades(market, before=place, limit=limit + 1)
    return _page("trades", found, limit, trading.views.trade, lambda fill: (fill.sequence, fill.number))


@router.get("/markets/{market}/candles", tags=["market data"])
async def list_candles(
    ask: Reader,
    market: NameText,
    interval: Annotated[Interval, Query()],
    before: Annotated[
        int | None, Query(ge=0, le=1 << 53, description="Microseconds since 1970; none: the newest.")
    ] = None,
    limit: paging.Limit = 100,
) -> Response:
    """A market's candles, the newest first; intervals without trades have none."""
    trading = ask.trading
    found = trading.views.market_of(market)
    candles = await trading.candles(
        market, interval, before=1 << 62 if before is None else before, limit=limit
    )
    return _json({"interval": interval, "items": [trading.views.candle(found, candle) for candle in candles]})


# --- orders ---------------------------------------------------------------------------------------------------


@router.post(_CUSTOMER + "/orders", status_code=201, tags=["orders"])
async def place_order(ask: Writer, customer: NameText, body: schemas.NewOrder) -> Response:
    """Place an order. The answer shows what became of it at once. The same client order id and content again changes
    nothing."""
    channel = ask.visitor.entry.channel
    return await ask.once(201, body, lambda: orderentry.place(ask.trading, customer, body, channel))


@router.get(_CUSTOMER + "/orders", tags=["orders"])
async def list_open_orders(
    ask: Reader,
    customer: NameText,
    market: Annotated[NameText | None, Query()] = None,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """A customer's open orders, oldest first."""
    position = paging.decode_int("orders", after) or 0
    found = [record for record in ask.trading.records.open_orders(customer, market) if record.id > position][
        : limit + 1
    ]
    items = [ask.trading.views.order(record) for record in found[:limit]]
    following = paging.encode("orders", str(found[limit - 1].id)) if len(found) > limit else None
    return _json({"items": items, "next": following})


@router.get(_CUSTOMER + "/orders/{client_order_id}", tags=["orders"])
async def show_order(ask: Reader, customer: NameText, client_order_id: schemas.ClientOrderId) -> Response:
    """One order, open or closed."""
    found = await ask.trading.order(customer, client_order_id)
    if found is None:
        raise NotFound("order", client_order_id)
    return _json(ask.trading.views.order(found))


@router.post(_CUSTOMER + "/orders/{client_order_id}/cancel", tags=["orders"])
async def cancel_order(ask: Writer, customer: NameText, client_order_id: schemas.ClientOrderId) -> Response:
    """Cancel an open order."""
    return await ask.once(200, None, lambda: orderentry.cancel(ask.trading, customer, client_order_id))


@router.post(_CUSTOMER + "/orders/{client_order_id}/replace", tags=["orders"])
async def replace_order(
    ask: Writer, customer: NameText, client_order_id: schemas.ClientOrderId, body: schemas.NewTerms
) -> Response:
    """Change a resting limit order. It keeps its place only if the price stays and the size does not grow."""
    return await ask.once(200, body, lambda: orderentry.replace(ask.trading, customer, client_order_id, body))


@router.post(_CUSTOMER + "/cancel-all", tags=["orders"])
async def cancel_all_orders(ask: Writer, customer: NameText, body: schemas.CancelMany) -> Response:
    """Cancel all of a customer's open orders, or those of one market."""
    return await ask.once(200, body, lambda: orderentry.cancel_all(ask.trading, customer, body))


@router.get(_CUSTOMER + "/fills", tags=["orders"])
async def list_fills(
    ask: Reader, customer: NameText, after: paging.After = None, limit: paging.Limit = 100
) -> Response:
    """A customer's fills, oldest first."""
    trading = ask.trading
    found = await trading.fills(customer, after=_place("fills", after) or (0, -1), limit=limit + 1)
    return _page(
        "fills",
        found,
        limit,
        lambda fill: trading.views.fill(fill, customer),
        lambda fill: (fill.sequence, fill.number),
    )


# --- money ----------------------------------------------------------------------------------------------------


@router.get(_CUSTOMER + "/balances", tags=["money"])
async def show_balances(ask: Reader, customer: NameText) -> Response:
    """A customer's money in trading: free, and held by open orders."""
    trading = ask.trading
    return _json({"customer": customer, "balances": trading.views.balances(trading.balances(customer))})


@router.post(_CUSTOMER + "/transfers", status_code=202, tags=["money"])
async def make_transfer(ask: Writer, customer: NameText, body: schemas.NewTransfer) -> Response:
    """Move a customer's money from funding into trading, or back. `state` says how far it is: `done`, `refused` or
    `returned` are ends. The same id again changes nothing."""
    trading = ask.trading

    async def effect() -> dict[str, Any]:
        amount = Amount.parse(trading.views.asset_of(body.asset), body.amount)
        wanted = Transfer(body.id, customer, body.asset, amount.units, body.to)
        return trading.views.transfer(await trading.transfer(wanted))

    return await ask.once(202, body, effect)


@router.get(_CUSTOMER + "/transfers", tags=["money"])
async def list_transfers(
    ask: Reader, customer: NameText, after: paging.After = None, limit: paging.Limit = 100
) -> Response:
    """A customer's transfers, oldest first."""
    trading = ask.trading
    position = paging.decode_int("transfers", after) or 0
    found = await trading.settlement.page(customer, after=position, limit=limit + 1)
    following = paging.encode("transfers", str(found[limit - 1].number)) if len(found) > limit else None
    return _json({"items": [trading.views.transfer(entry) for entry in found[:limit]], "next": following})


@router.get(_CUSTOMER + "/transfers/{to}/{id}", tags=["money"])
async def show_transfer(
    ask: Reader, customer: NameText, to: Literal["trading", "funding"], id: UuidText
) -> Response:
    """One transfer, and how far it is."""
    found = await ask.trading.settlement.find(id, to)
    if found is None or found.transfer.customer != customer:
        raise NotFound("transfer", id)
    return _json(ask.trading.views.transfer(found))


# --- operators ------------------------------------------------------------------------------------------------


@router.post("/markets/{market}/state", tags=["operations"])
async def set_market_state(ask: Admin, market: NameText, body: schemas.NewState) -> Response:
    """Open, halt, or let a market take cancels only; from `auction` to `open` it uncrosses at one price."""
    trading = ask.trading
    found = trading.views.market_of(market)

    async def effect() -> dict[str, Any]:
        await trading.set_market_state(market, body.state)
        return trading.views.terms(found, trading.engine.books[market].state)

    return await ask.once(200, body, effect)


@router.post(_CUSTOMER + "/kill-switch", tags=["operations"])
async def turn_kill_switch(ask: Admin, customer: NameText, body: schemas.NewSwitch) -> Response:
    """`on` cancels all of a customer's orders and refuses new ones until it is `off`."""
    return await ask.once(200, body, lambda: orderentry.kill(ask.trading, customer, body.switch))


@router.get("/status", tags=["operations"])
async def show_status(ask: Reader) -> Response:
    """How the core is: its journal's end, what waits, how far custody has settled, and what stands still."""
    return _json({**orderentry.status(ask.trading), "readers": len(ask.streams.all)})


@router.get("/digest", tags=["operations"])
async def show_digest(ask: Admin) -> Response:
    """SHA-256 of the engine's whole state after command `sequence`: what every replay of the journal until there
    must give."""
    engine = ask.trading.engine
    digest = engine.digest().hex()
    return _json({"core": str(ask.trading.id), "sequence": engine.sequence, "digest": digest})


@router.get("/reconciliation", tags=["operations"])
async def show_ledger_balances(ask: Reader) -> Response:
    """What the ledger's trading accounts must hold at `settled`, in base units, if ledger and engine agree; transfers
    under way into trading may have reached the ledger or not. For who acts for everybody: `strongroom reconcile`."""
    ask.visitor.need_customer(EVERYBODY)
    return _json(orderentry.reconciliation(ask.trading))


def _place(kind: str, cursor: str | None) -> tuple[int, int] | None:
    position = paging.decode(kind, cursor)
    if position is None:
        return None
    sequence, _, number = position.partition(".")
    if not (sequence.isdigit() and number.isdigit() and len(position) < 30):
        raise InvalidCursor(f"not a cursor of {kind}")
    return int(sequence), int(number)


def _page(
    kind: str,
    found: list[Any],
    limit: int,
    render: Callable[[Any], dict[str, Any]],
    place: Callable[[Any], tuple[int, int]],
) -> Response:
    following = None
    if len(found) > limit:
        following = paging.encode(kind, ".".join(map(str, place(found[limit - 1]))))
    return _json({"items": [render(item) for item in found[:limit]], "next": following})
