"""What the engine knows of customers: money, orders, remembered order ids, thirty days of volume."""

from __future__ import annotations

from collections import deque
from typing import Final

import msgspec

from custody.trading.fees import FeeSchedule
from custody.trading.orders import Balance, Order

REMEMBERED_ORDERS: Final = 1_000
"""Client order ids of so many closed orders per customer cannot be used again."""
VOLUME_DAYS: Final = 30
DAY_MICROS: Final = 86_400_000_000


class Customer(msgspec.Struct, eq=False):
    """One customer of the trading core; exists from the first deposit on."""

    id: str
    balances: dict[str, Balance] = msgspec.field(default_factory=dict)
    orders: dict[str, Order | None] = msgspec.field(default_factory=dict)
    """By client order id; None once closed, as long as the id is remembered."""
    closed: deque[str] = msgspec.field(default_factory=deque)
    """Client order ids of closed orders, the oldest first."""
    killed: bool = False
    tier: int = 0
    volume: int = 0
    """Sum of `days`, in reference value."""
    next_tier: int = 0
    """Volume at which `tier` rises; 0: it cannot."""
    days: dict[int, int] = msgspec.field(default_factory=dict)
    """Volume by day since 1970, of the last thirty days."""
    day: int = 0
    """The day to which `days` has been rolled."""

    def balance(self, asset: str) -> Balance:
        """The customer's balance of an asset, made on first sight."""
        found = self.balances.get(asset)
        if found is None:
            found = self.balances[asset] = Balance()
        return found

    def close(self, order: Order) -> None:
        """Forgets an order but remembers its id, and forgets the oldest remembered id beyond the bound."""
        self.orders[order.client_id] = None
        closed = self.closed
        closed.append(order.client_id)
        if len(closed) > REMEMBERED_ORDERS:
            del self.orders[closed.popleft()]

    def open_orders(self) -> list[Order]:
        """All open orders, the oldest first."""
        return [order for order in self.orders.values() if order is not None]

    def roll(self, day: int, fees: FeeSchedule) -> None:
        """Moves to a day: volume of thirty days ago and before no longer counts."""
        self.day = day
        for old in [known for known in self.days if known <= day - VOLUME_DAYS]:
            self.volume -= self.days.pop(old)
        self.find_tier(fees)

    def find_tier(self, fees: FeeSchedule) -> None:
        """Sets the tier by the present volume."""
        self.tier = fees.tier_of(self.volume)
        above = fees.tiers[self.tier + 1 :]
        self.next_tier = above[0].volume if above else 0
