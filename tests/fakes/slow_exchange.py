"""The exchange once more, slowly and in the plainest way: lists that are searched, sums added up anew, fractions.

It shares no code with the engine but the records that both read and write. Orders are one list in the order of their
time; what is held is what the open orders need, computed each time; fees are exact fractions, rounded when money moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import Any

from custody.trading import commands as c
from custody.trading import events as e
from custody.trading.fees import FeeSchedule
from custody.trading.market import Market

DAY = 86_400_000_000
ENDLESS = 10**39


class No(Exception):
    def __init__(self, code: str, **numbers: int) -> None:
        self.code = code


@dataclass(eq=False)
class Order:
    id: int
    place: c.Place
    market: Market
    price: int
    left: int
    maker: Fraction
    taker: Fraction
    stop: int
    spend: int | None
    filled: int = 0
    exact_fees: Fraction = Fraction(0)

    @property
    def who(self) -> str:
        return self.place.customer

    @property
    def buy(self) -> bool:
        return self.place.side == "buy"

    def cost(self, price: int, units: int) -> int:
        exact = Fraction(units * price, 10**self.market.base_decimals)
        assert exact.denominator == 1
        return int(exact)

    def hold(self, price: int | None = None, left: int | None = None) -> int:
        if self.stop and self.spend is not None:
            return self.spend
        price, left = self.price if price is None else price, self.left if left is None else left
        if not self.buy:
            return left
        cost = self.cost(price, left)
        return cost + ceil(self.exact_fees + cost * self.taker) - ceil(self.exact_fees)

    def fee(self, cost: int, rate: Fraction) -> int:
        before = ceil(self.exact_fees)
        self.exact_fees += cost * rate
        return ceil(self.exact_fees) - before


@dataclass
class Floor:
    """A market as people on the floor see it."""

    market: Market
    state: str = "halted"
    until: int = 0
    last: int = 0
    reference: int = 0
    band_window: int = 0
    trades: list[tuple[int, int]] = field(default_factory=list)
    """Time and price of all trades since the market opened."""
    now: list[int] = field(default_factory=list)
    """Prices that this command has traded at."""

    @property
    def low(self) -> Fraction:
        return self.reference * Fraction(10_000 - self.market.band_bps, 10_000) if self._band else Fraction(0)

    @property
    def high(self) -> Fraction:
        return (
            self.reference * Fraction(10_000 + self.market.band_bps, 10_000)
            if self._band
            else Fraction(10**99)
        )

    @property
    def _band(self) -> bool:
        return self.reference > 0 and self.market.band_bps > 0


class SlowExchange:
    """What `Engine` is, but for `Configure` and what ids of transfers may look like."""

    def __init__(self, markets: tuple[Market, ...], fees: FeeSchedule) -> None:
        self.fees = fees
        self.floors = {market.id: Floor(market, reference=market.reference_price) for market in markets}
        self.money: dict[tuple[str, str], int] = {}
        self.orders: list[Order] = []
        self.closed: dict[str, list[str]] = {}
        self.volumes: dict[str, list[tuple[int, int]]] = {}
        self.tiers: dict[str, int] = {}
        self.killed: set[str] = set()
        self.done: dict[tuple[str, str], tuple[str, str, int]] = {}
        self.earned: dict[str, int] = {}
        self.sequence = self.at = 0
        self.events: list[e.Event] = []

    def held(self, who: str, asset: str) -> int:
        return sum(
            order.hold()
            for order in self.orders
            if order.who == who and asset == (order.market.quote if order.buy else order.market.base)
        )

    def free(self, who: str, asset: str) -> int:
        return self.money.get((who, asset), 0) - self.held(who, asset)

    def apply(self, command: Any) -> list[e.Event]:
        self.events = []
        self.sequence += 1
        try:
            if command.at < self.at:
                raise No("time_went_back")
            self.at = command.at
            for floor_ in self.floors.values():
                self.pass_time(floor_)
            getattr(self, type(command).__name__.lower())(command)
        except No as no:
            self.events.append(
                e.Rejected(command.__struct_config__.tag, getattr(command, "customer", ""), "", no.code, {})  # type: ignore[arg-type]
            )
        for floor_ in self.floors.values():
            floor_.now = []
        return self.events

    # commands

    def deposit(self, command: c.Deposit) -> None:
        if self.again("deposit", command):
            return
        self.done["deposit", command.id] = command.customer, command.asset, command.units
        self.closed.setdefault(command.customer, [])
        self.tiers.setdefault(command.customer, 0)
        key = command.customer, command.asset
        self.money[key] = self.money.get(key, 0) + command.units
        self.events.append(e.Credited(command.id, *key, command.units))

    def withdraw(self, command: c.Withdraw) -> None:
        if self.again("withdraw", command):
            return
        if command.customer not in self.closed:
            raise No("unknown_customer")
        if command.units > self.free(command.customer, command.asset):
            raise No("insufficient_funds")
        self.done["withdraw", command.id] = command.customer, command.asset, command.units
        self.money[command.customer, command.asset] -= command.units
        self.events.append(e.Debited(command.id, command.customer, command.asset, command.units))

    def place(self, command: c.Place) -> None:
        if command.customer not in self.closed:
            raise No("unknown_customer")
        floor_ = self.floors[command.market]
        market = floor_.market
        mine = [order for order in self.orders if order.who == command.customer]
        if command.client_order_id in [
            *(o.place.client_order_id for o in mine),
            *self.closed[command.customer],
        ]:
            raise No("duplicate_client_order_id")
        if command.customer in self.killed:
            raise No("killed")
        self.must_take_orders(floor_)
        if len(mine) >= market.open_orders:
            raise No("too_many_orders")
        self.look_at_tier(command.customer)
        buy, limit = command.side == "buy", command.type in ("limit", "stop_limit")
        opposite = [o.price for o in self.resting(floor_) if o.buy != buy]
        if limit:
            price = command.price
            self.must_be_good(floor_, buy, price, command.base_units)
        else:
            price = command.stop_price or (min(opposite) if opposite and buy else max(opposite, default=0))
            if not price:
                raise No("no_price")
            worth = command.quote_units or command.base_units * price // 10**market.base_decimals
            if worth < market.minimum_notional:
                raise No("below_minimum_notional")
            slip = Fraction(command.slippage_bps or market.slippage_bps, 10_000)
            if buy:
                price = max(price, floor(price * (1 + slip) / market.tick) * market.tick)
            else:
                price = ceil(price * (1 - slip) / market.tick) * market.tick
        reached = floor_.last >= command.stop_price if buy else floor_.last <= command.stop_price
        if command.stop_price and floor_.last and reached:
            raise No("stop_would_trigger")
        maker, taker = self.rates(command, market)
        spend = command.quote_units or None
        order = Order(
            self.sequence, command, market, price, command.base_units, maker, taker, command.stop_price, spend
        )
        self.must_fit(floor_, order)
        if spend is not None:
            free_base = self.free(command.customer, market.base)
            order.left = ENDLESS if buy else free_base // market.lot * market.lot
            if (self.free(command.customer, market.quote) < spend) if buy else order.left == 0:
                raise No("insufficient_funds")
        elif order.hold() > self.free(command.customer, market.quote if buy else market.base):
            free_quote = self.free(command.customer, market.quote)
            if command.type != "market" or not buy or order.hold(min(opposite), market.lot) > free_quote:
                raise No("insufficient_funds")
            order.spend = free_quote
        self.events.append(
            e.Accepted(
                order.id, order.who, command.client_order_id, market.id, command.side, command.type, command.price,
                command.base_units, command.quote_units, command.stop_price,
            )
        )  # fmt: skip
        if order.stop:
            self.orders.append(order)
        else:
            self.trade(floor_, order)

    def cancel(self, command: c.Cancel) -> None:
        order = self.find(command)
        if self.floors[order.market.id].state == "halted":
            raise No("market_halted")
        self.drop(order, "stops" if order.stop else "book", "asked")

    def cancelall(self, command: c.CancelAll) -> None:
        if command.customer not in self.closed:
            raise No("unknown_customer")
        if command.market and self.floors[command.market].state == "halted":
            raise No("market_halted")
        for order in sorted(self.orders, key=lambda order: order.id):
            here = command.market in ("", order.market.id) and self.floors[order.market.id].state != "halted"
            if order.who == command.customer and here:
                self.drop(order, "stops" if order.stop else "book", "asked")

    def replace(self, command: c.Replace) -> None:
        order = self.find(command)
        floor_ = self.floors[order.market.id]
        self.must_take_orders(floor_)
        if order.stop:
            raise No("not_replaceable")
        self.must_be_good(floor_, order.buy, command.price, command.base_units)
        left = command.base_units - order.filled
        if left <= 0:
            raise No("already_filled")
        kept = command.price == order.price and left <= order.left
        told = e.Replaced(
            order.id, order.who, order.place.client_order_id, order.market.id, order.place.side, order.price,
            order.left, command.price, left, "kept" if kept else "lost",
        )  # fmt: skip
        if not kept:
            funds = order.market.quote if order.buy else order.market.base
            if order.hold(command.price, left) > self.free(order.who, funds) + order.hold():
                raise No("insufficient_funds")
            old, order.price = order.price, command.price
            try:
                self.must_fit(floor_, order)
            except No:
                order.price = old
                raise
        self.events.append(told)
        order.price, order.left = command.price, left
        if not kept:
            self.orders.remove(order)
            self.trade(floor_, order)

    def setmarketstate(self, command: c.SetMarketState) -> None:
        floor_ = self.floors[command.market]
        if floor_.state == command.state and not floor_.until:
            raise No("already_in_state")
        self.become(floor_, command.state, "operator", 0)

    def kill(self, command: c.Kill) -> None:
        if command.customer not in self.closed:
            raise No("unknown_customer")
        self.events.append(e.KillSwitched(command.customer, command.switch))
        if command.switch == "off":
            self.killed.discard(command.customer)
            return
        self.killed.add(command.customer)
        for order in sorted(self.orders, key=lambda order: order.id):
            if order.who == command.customer:
                self.drop(order, "stops" if order.stop else "book", "kill_switch")

    def tick(self, command: c.Tick) -> None:
        pass

    # what may be

    def again(self, kind: str, command: c.Deposit | c.Withdraw) -> bool:
        before = self.done.get((kind, command.id))
        if before is None:
            return False
        if before != (command.customer, command.asset, command.units):
            raise No("id_reused")
        self.events.append(e.AlreadyApplied(command.id, command.customer))
        return True

    def must_take_orders(self, floor_: Floor) -> None:
        if floor_.state in ("halted", "cancel_only"):
            raise No(f"market_{floor_.state}")

    def must_be_good(self, floor_: Floor, buy: bool, price: int, units: int) -> None:
        market = floor_.market
        if price <= 0 or price % market.tick:
            raise No("bad_price")
        if units <= 0 or units % market.lot:
            raise No("bad_size")
        if Fraction(units * price, 10**market.base_decimals) < market.minimum_notional:
            raise No("below_minimum_notional")
        if price > floor_.high if buy else price < floor_.low:
            raise No("outside_band")

    def must_fit(self, floor_: Floor, order: Order) -> None:
        if order.stop:
            return
        against = self.against(floor_, order)
        if floor_.state == "auction":
            if order.place.type == "market" or order.place.tif != "gtc":
                raise No("not_in_auction")
            if any(other.who == order.who for other in against):
                raise No("self_trade_in_auction")
            return
        if order.place.tif == "post_only" and against:
            raise No("post_only_would_take")
        if order.place.tif == "fok" and not self.can_fill(floor_, order):
            raise No("not_fillable")

    def can_fill(self, floor_: Floor, order: Order) -> bool:
        found = 0
        for other in self.against(floor_, order):
            if not floor_.low <= other.price <= floor_.high:
                break
            if other.who == order.who:
                if order.place.self_trade == "cancel_oldest":
                    continue
                break
            found += other.left
            if found >= order.left:
                return True
        return False

    # how it goes

    def resting(self, floor_: Floor) -> list[Order]:
        return [order for order in self.orders if order.market.id == floor_.market.id and not order.stop]

    def against(self, floor_: Floor, order: Order) -> list[Order]:
        """Orders that this one may trade with, the best and oldest first."""
        found = [
            other
            for other in self.resting(floor_)
            if other.buy != order.buy
            and (other.price <= order.price if order.buy else other.price >= order.price)
        ]
        return sorted(found, key=lambda other: other.price if order.buy else -other.price)

    def trade(self, floor_: Floor, order: Order) -> None:
        self.arrive(floor_, order)
        self.wake_stops(floor_)

    def wake_stops(self, floor_: Floor) -> None:
        """Stops that trades of this command have reached arrive, one by one, and may reach more."""
        while floor_.state == "open" and floor_.now:
            buys = [o for o in self.stops(floor_) if o.buy and o.stop <= max(floor_.now)]
            sells = [o for o in self.stops(floor_) if not o.buy and o.stop >= min(floor_.now)]
            nearest = [
                *sorted(buys, key=lambda o: (o.stop, o.id))[:1],
                *sorted(sells, key=lambda o: (-o.stop, o.id))[:1],
            ]
            if not nearest:
                return
            stop = min(nearest, key=lambda o: o.id)
            self.orders.remove(stop)
            self.events.append(
                e.Triggered(stop.id, stop.who, stop.place.client_order_id, stop.market.id, stop.stop)
            )
            stop.stop = 0
            if stop.place.tif == "fok" and not self.can_fill(floor_, stop):
                self.drop(stop, "incoming", "not_fillable")
            else:
                self.arrive(floor_, stop)

    def stops(self, floor_: Floor) -> list[Order]:
        return [order for order in self.orders if order.market.id == floor_.market.id and order.stop]

    def arrive(self, floor_: Floor, order: Order) -> None:
        """The order is not in the list. It trades, and what is left rests or is cancelled."""
        why, traded = "unfilled", False
        while floor_.state == "open":
            against = self.against(floor_, order)
            if not against:
                break
            other = against[0]
            if not floor_.low <= other.price <= floor_.high:
                why = "price_band"
                break
            if other.who == order.who:
                if order.place.self_trade != "cancel_newest":
                    self.drop(other, "book", "self_trade")
                if order.place.self_trade != "cancel_oldest":
                    why = "self_trade"
                    break
                continue
            units = min(order.left, other.left)
            while units and not self.within(order, units, other.price):
                units -= order.market.lot
            if not units:
                why = "spent" if order.place.quote_units else "insufficient_funds"
                break
            self.fill(floor_, order, other, units, other.price)
            traded = True
            if not order.left:
                why = "filled"
                break
        if why == "filled" and order.place.quote_units:
            why = "insufficient_funds" if order.spend else "spent"
        if why == "filled":
            self.close(order)
        elif (
            why == "unfilled"
            and order.place.type.endswith("limit")
            and order.place.tif in ("gtc", "post_only")
        ):
            self.orders.append(order)
            self.events.append(
                e.Rested(
                    order.id, order.who, order.place.client_order_id, order.market.id, order.place.side, order.price,
                    order.left,
                )
            )  # fmt: skip
        else:
            self.drop(order, "incoming", why)
        if traded and self.too_fast(floor_):
            self.become(floor_, "halted", "circuit_breaker", self.at + floor_.market.halt_micros)
        elif why == "price_band":
            self.become(floor_, "halted", "price_band", self.at + floor_.market.halt_micros)

    def within(self, order: Order, units: int, price: int) -> bool:
        """Whether so much more stays within what the order may spend, or for sells by quote, earn."""
        if order.spend is None:
            return True
        cost = order.cost(price, units)
        if order.buy:
            cost += ceil(order.exact_fees + cost * order.taker) - ceil(order.exact_fees)
        return cost <= order.spend

    def fill(self, floor_: Floor, taker: Order, maker: Order, units: int, price: int) -> None:
        market, cost = taker.market, taker.cost(price, units)
        taker_fee = taker.fee(cost, taker.taker)
        maker_fee = maker.fee(cost, maker.maker) if maker.maker >= 0 else -floor(cost * -maker.maker)
        assert taker_fee + maker_fee >= 0, "the house gives"
        buyer, seller = (taker, maker) if taker.buy else (maker, taker)
        buyer_fee, seller_fee = (taker_fee, maker_fee) if taker.buy else (maker_fee, taker_fee)
        for who, asset, change in (
            (buyer.who, market.base, units),
            (buyer.who, market.quote, -cost - buyer_fee),
            (seller.who, market.base, -units),
            (seller.who, market.quote, cost - seller_fee),
        ):
            self.money[who, asset] = self.money.get((who, asset), 0) + change
        self.earned[market.quote] = self.earned.get(market.quote, 0) + taker_fee + maker_fee
        for order in (taker, maker):
            order.left -= units
            order.filled += units
        if taker.spend is not None:
            taker.spend -= cost + taker_fee if taker.buy else cost
        floor_.last = price
        floor_.trades.append((self.at, price))
        floor_.now.append(price)
        self.events.append(
            e.Filled(
                market.id, price, units, cost, taker.place.side,
                maker.id, maker.who, maker.place.client_order_id, maker_fee, maker.left,
                taker.id, taker.who, taker.place.client_order_id, taker_fee,
                0 if taker.place.quote_units else taker.left,
            )
        )  # fmt: skip
        value = next((v for v in self.fees.values if v.asset == market.quote), None)
        worth = cost if value is None else cost * value.numerator // value.denominator
        for order in (taker, maker):
            self.look_at_tier(order.who)
            self.volumes.setdefault(order.who, []).append((self.at // DAY, worth))
            self.look_at_tier(order.who)
        if not maker.left:
            self.orders.remove(maker)
            self.close(maker)

    def drop(self, order: Order, where: str, why: str) -> None:
        if order in self.orders:
            self.orders.remove(order)
        left = 0 if order.place.quote_units else order.left
        self.events.append(
            e.Cancelled(
                order.id, order.who, order.place.client_order_id, order.market.id, order.place.side, order.price,
                left, where, why,  # type: ignore[arg-type]
            )
        )  # fmt: skip
        self.close(order)

    def close(self, order: Order) -> None:
        self.closed[order.who] = [*self.closed[order.who], order.place.client_order_id][-1_000:]

    def find(self, command: c.Cancel | c.Replace) -> Order:
        if command.customer not in self.closed:
            raise No("unknown_customer")
        for order in self.orders:
            if (order.who, order.place.client_order_id) == (command.customer, command.client_order_id):
                return order
        raise No("unknown_order")

    # the market itself

    def pass_time(self, floor_: Floor) -> None:
        market = floor_.market
        while floor_.until and self.at >= floor_.until:
            if floor_.state == "halted":
                self.become(floor_, "auction", "halt_over", floor_.until + market.auction_micros)
            else:
                self.become(floor_, "open", "auction_over", 0)
        if self.at // market.band_micros != floor_.band_window:
            floor_.band_window = self.at // market.band_micros
            floor_.reference = floor_.last or floor_.reference

    def become(self, floor_: Floor, state: str, why: str, until: int) -> None:
        before, floor_.state, floor_.until = floor_.state, state, until
        self.events.append(e.MarketStateChanged(floor_.market.id, state, why, until))  # type: ignore[arg-type]
        if state != "open":
            return
        bids = [order.price for order in self.resting(floor_) if order.buy]
        asks = [order.price for order in self.resting(floor_) if not order.buy]
        price = 0
        if before == "auction" or (bids and asks and max(bids) >= min(asks)):
            price = self.uncross(floor_)
        if price:
            floor_.reference = price
        elif before == "auction" and bids and asks:
            floor_.reference = (max(bids) + min(asks)) // 2 // floor_.market.tick * floor_.market.tick
        if floor_.last:
            floor_.trades = [(self.at, floor_.last)]
            floor_.now = [floor_.last]
            self.wake_stops(floor_)
            floor_.now = []

    def uncross(self, floor_: Floor) -> int:
        """Tries every limit price there is."""

        def volume(price: int) -> tuple[int, int]:
            wanted = sum(o.left for o in self.resting(floor_) if o.buy and o.price >= price)
            offered = sum(o.left for o in self.resting(floor_) if not o.buy and o.price <= price)
            return min(wanted, offered), abs(wanted - offered)

        prices = {order.price for order in self.resting(floor_)}
        if not prices or max(volume(price)[0] for price in prices) == 0:
            self.events.append(e.Uncrossed(floor_.market.id, 0, 0))
            return 0
        best = min(
            prices,
            key=lambda p: (
                -volume(p)[0],
                volume(p)[1],
                abs(p - floor_.reference) if floor_.reference else 0,
                p,
            ),
        )
        left, _ = volume(best)
        self.events.append(e.Uncrossed(floor_.market.id, best, left))
        while left:
            bid = sorted((o for o in self.resting(floor_) if o.buy), key=lambda o: -o.price)[0]
            ask = sorted((o for o in self.resting(floor_) if not o.buy), key=lambda o: o.price)[0]
            units = min(left, bid.left, ask.left)
            left -= units
            older, newer = sorted((bid, ask), key=self.orders.index)
            self.fill(floor_, newer, older, units, best)
            if not newer.left:
                self.orders.remove(newer)
                self.close(newer)
        return best

    def too_fast(self, floor_: Floor) -> bool:
        """Whether the last price is too far from one of this window's, the last window's, or the one before those."""
        market = floor_.market
        window = self.at // market.breaker_micros
        recent = [price for at, price in floor_.trades if at // market.breaker_micros >= window - 1]
        earlier = [price for at, price in floor_.trades if at // market.breaker_micros < window - 1][-1:]
        seen, limit = [*recent, *earlier], Fraction(market.breaker_bps, 10_000)
        return market.breaker_bps > 0 and (
            floor_.last > min(seen) * (1 + limit) or max(seen) - floor_.last > max(seen) * limit
        )

    def rates(self, command: c.Place, market: Market) -> tuple[Fraction, Fraction]:
        tier = self.fees.tiers[self.tiers[command.customer]]
        off = Fraction(100 - tier.discount_percent, 100)
        if command.channel == "api":
            off *= Fraction(100 - self.fees.api_discount_percent, 100)
        taker = Fraction(market.taker_ppm, 10**6) * off
        if tier.rebate_ppm > 0 or market.maker_ppm < 0:
            return -Fraction(max(tier.rebate_ppm, -market.maker_ppm), 10**6), taker
        return Fraction(market.maker_ppm, 10**6) * off, taker

    def look_at_tier(self, who: str) -> None:
        volume = sum(worth for day, worth in self.volumes.get(who, []) if day > self.at // DAY - 30)
        tier = sum(volume >= tier.volume for tier in self.fees.tiers) - 1
        if tier != self.tiers[who]:
            self.tiers[who] = tier
            self.events.append(e.TierChanged(who, tier))
