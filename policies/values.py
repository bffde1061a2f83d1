"""What amounts are worth, between the lowest and the highest price that the bundle believes."""

from __future__ import annotations

from policies.bundle import Bundle


def value_of(bundle: Bundle, asset: str, units: int) -> tuple[int, int] | None:
    """Lowest (rounded down) and highest (rounded up) value of base units of an asset, in the bundle's unit of account.

    None if the bundle bounds no price of it: then nothing that a rule says about values can be judged.
    """
    bound = next((price for price in bundle.prices if price.asset == asset), None)
    if bound is None:
        return None
    one = 10 ** bundle.asset(asset).decimals
    return units * int(bound.low) // one, -(-units * int(bound.high) // one)
