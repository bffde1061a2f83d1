"""Small markets in which few commands already meet, and commands by chance for them."""

from __future__ import annotations

from random import Random
from typing import Any

from custody.trading.commands import (
    AnyCommand,
    Cancel,
    CancelAll,
    Deposit,
    Kill,
    Place,
    Replace,
    SetMarketState,
    Tick,
    Withdraw,
)
from custody.trading.engine import Engine
from custody.trading.events import Event
from custody.trading.fees import FeeSchedule, Tier, Value
from custody.trading.market import Market

AT = 1_800_000_000_000_000
DAY = 86_400_000_000
CUSTOMERS = ("ada", "bob", "cyd", "dan")
ASSETS = ("X", "Y", "Q")


def market(name: str = "X-Q", **other: Any) -> Market:
    """Prices around 600 in steps of 10, sizes in steps of 10 base units of which 100 are one whole."""
    base, quote = name.split("-")
    values: dict[str, Any] = {
        "base_decimals": 2, "tick": 10, "lot": 10, "minimum_notional": 100, "maker_ppm": 10_000, "taker_ppm": 50_000,
        "slippage_bps": 1_000, "open_orders": 25, "reference_price": 600, "band_bps": 700, "band_micros": 60_000_000,
        "breaker_bps": 800, "breaker_micros": 5_000_000, "halt_micros": 4_000_000, "auction_micros": 5_000_000,
    }  # fmt: skip
    return Market(name, base, quote, **values | other)


MARKETS = (market(), market("Y-X", maker_ppm=-5_000, band_bps=0, breaker_bps=0, reference_price=0))
FEES = FeeSchedule(
    (
        Tier(0, 0), Tier(20_000, 10), Tier(60_000, 20), Tier(200_000, 30, 3_000), Tier(500_000, 45, 5_000),
        Tier(900_000, 60, 10_000),
    ),
    values=(Value("X", 13, 3),),
)  # fmt: skip


def transfer_id(number: int, at: int = AT) -> str:
    """A UUIDv7 of that time."""
    stamp = f"{at // 1_000:012x}"
    return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{number:012x}"


def opened(*markets: Market, fees: FeeSchedule = FEES, units: int = 10**6) -> Engine:
    """An engine whose markets are open, and whose customers have as much of everything."""
    engine = Engine(markets or MARKETS, fees)
    for command in opening(markets or MARKETS, units):
        engine.apply(command)
    return engine


def opening(markets: tuple[Market, ...], units: int) -> list[AnyCommand]:
    """Deposits for all customers, then all markets open."""
    commands: list[AnyCommand] = []
    for customer in CUSTOMERS:
        for asset in sorted({asset for one in markets for asset in (one.base, one.quote)}):
            commands.append(Deposit(AT, transfer_id(len(commands)), customer, asset, units))
    return [*commands, *(SetMarketState(AT, one.id, "open") for one in markets)]


def command(chance: Random, at: int, number: int) -> AnyCommand:
    """Any command, most often an order near the others; now and then a wrong one."""
    customer, market_id = CUSTOMERS[number % 4], chance.choice(("X-Q", "X-Q", "Y-X"))
    kind = chance.choices(
        ("limit", "market", "stop", "cancel", "cancel_all", "replace", "state", "kill", "money", "tick"),
        (46, 8, 8, 9, 1, 14, 6, 2, 3, 1),
    )[0]
    earlier = number - chance.randrange(1, 16)
    client_id, owner = f"o{earlier}", CUSTOMERS[earlier % 4]
    tif: Any
    side: Any = chance.choice(("buy", "sell"))
    size = 10 * chance.randint(2, 30)
    # Most rest, some reach over to the other side.
    away = chance.choice((-3, -1, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 5))
    price = 600 - 10 * away if side == "buy" else 600 + 10 * away
    self_trade = chance.choice(("cancel_newest", "cancel_oldest", "cancel_both"))
    channel = chance.choice(("api", "web"))
    ends: dict[str, Any] = {"self_trade": self_trade, "channel": channel}
    match kind:
        case "limit":
            tif = chance.choice((*["gtc"] * 7, "ioc", "fok", "post_only"))
            price += chance.choice((0,) * 30 + (1, 100))
            return Place(at, customer, f"o{number}", market_id, side, "limit", tif, price, size, **ends)
        case "market":
            by_quote = chance.random() < 0.4
            amounts: dict[str, Any] = (
                {"quote_units": chance.randint(1, 3_000)} if by_quote else {"base_units": size}
            )
            slippage = chance.choice((0, 100, 500))
            return Place(
                at,
                customer,
                f"o{number}",
                market_id,
                side,
                "market",
                "ioc",
                slippage_bps=slippage,
                **amounts,
                **ends,
            )
        case "stop":
            stop_price = 10 * chance.randint(52, 68)
            if chance.random() < 0.5:
                tif = chance.choice(("gtc", "gtc", "ioc", "fok"))
                return Place(
                    at, customer, f"o{number}", market_id, side, "stop_limit", tif, price, size,
                    stop_price=stop_price, **ends,
                )  # fmt: skip
            amounts = {"base_units": size}
            if side == "buy" and chance.random() < 0.4:
                amounts = {"quote_units": chance.randint(200, 3_000)}
            return Place(
                at, customer, f"o{number}", market_id, side, "stop_market", "ioc", stop_price=stop_price, **amounts,
                **ends,
            )  # fmt: skip
        case "cancel":
            return Cancel(at, owner, client_id)
        case "cancel_all":
            return CancelAll(at, customer, chance.choice(("", market_id)))
        case "replace":
            return Replace(at, owner, client_id, price, size)
        case "state":
            states: Any = (*["open"] * 9, "auction", "auction", "auction", "cancel_only", "halted")
            return SetMarketState(at, market_id, chance.choice(states))
        case "kill":
            switches: Any = ("on", *["off"] * 7)
            return Kill(at, customer, chance.choice(switches))
        case "money":
            asset = chance.choice(ASSETS)
            which = Deposit if chance.random() < 0.5 else Withdraw
            transfer = transfer_id(number // 40, at // DAY * DAY)
            return which(at, transfer, customer, asset, 1_000)
        case _:
            return Tick(at)


def told(events: list[Event]) -> list[Any]:
    """Events without the numbers of rejections, which are for people."""
    from custody.trading.events import Rejected

    return [(one.command, one.customer, one.code) if isinstance(one, Rejected) else one for one in events]
