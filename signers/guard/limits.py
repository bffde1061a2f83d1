"""How much: fees, caps, counters, the breaker over all assets, and ages by the signer's own first sight. Pure."""

from __future__ import annotations

from chains.errors import InvalidValue
from policies.bundle import Bundle, NetworkEntry, TierCap
from policies.intent import Intent
from signers.guard.examined import Examined, Exposure, Grounds, JournalView, U, Unsigned
from signers.ports import Reason, SignRequest


def cap_reasons(payments: list[Intent], grounds: Grounds) -> list[Reason]:
    """Objections to payments that are not below their tier's cap, or belong to a hotter tier."""
    reasons = []
    bounds = {cap.asset: (int(cap.payment_from), int(cap.payment_below)) for cap in grounds.caps}
    for intent in payments:
        lowest, below = bounds.get(intent.asset, (0, 0))
        if intent.units >= below:
            told = f"{intent.amount} {intent.asset}: a payment must be below {below}"
            reasons.append(Reason("payment-cap", told))
        if intent.units < lowest:
            told = f"{intent.amount} {intent.asset}: {grounds.wallet.tier} payments are from {lowest} on"
            reasons.append(Reason("payment-floor", told))
    return reasons


def fee_reasons(
    request: SignRequest, payments: list[Intent], unsigned: Unsigned, network: NetworkEntry
) -> list[Reason]:
    """Objections to the fee at its largest: the network's cap, and what the orders allow together."""
    reasons, fee = [], unsigned.fee_units
    if fee > int(network.fee_cap):
        reasons.append(Reason("fee-cap", f"fee {fee}: at most {network.fee_cap}"))
    if payments:
        ceiling = sum(signed.order.fee_ceiling_units for signed in request.evidence.orders)
        if fee > ceiling:
            reasons.append(Reason("fee-ceiling", f"fee {fee}: the orders allow {ceiling} together"))
    return reasons


def worth(bundle: Bundle, asset: str, units: int) -> int:
    """Base units of an asset at the highest price that the bundle believes, rounded up, in its unit of account.

    Raises:
        InvalidValue: the bundle has no price for the asset.
    """
    high, one = _price(bundle, asset)
    return -(-units * high // one)


def value_of(
    payments: list[Intent], fee: tuple[str, int], grounds: Grounds
) -> tuple[tuple[tuple[str, int], ...], list[Reason]]:
    """What each payment and the fee are worth at most, for the breaker.

    Args:
        payments: the request's payments.
        fee: its fee group, and the fee in base units of the native asset.
        grounds: of the request.

    Returns:
        Intent ids and fee group, each with its value; and an objection for each asset without a price.
    """
    if grounds.breaker is None:
        return (), []
    group, fee_units = fee
    native = grounds.network.native_asset
    counted = [*((i.id, i.asset, i.units) for i in payments), (group, native, fee_units)]
    prices: dict[str, tuple[int, int]] = {}
    reasons = []
    for asset in {asset for _, asset, _ in counted}:
        try:
            prices[asset] = _price(grounds.bundle, asset)
        except InvalidValue as error:
            reasons.append(Reason("no-price", f"{error}: nothing may be paid"))
    if reasons:
        return (), reasons
    return tuple((key, -(-units * prices[asset][0] // prices[asset][1])) for key, asset, units in counted), []


def _price(bundle: Bundle, asset: str) -> tuple[int, int]:
    """Highest price of one whole asset, and the base units of one. Raises InvalidValue."""
    one: int = 10 ** bundle.asset(asset).decimals
    return int(bundle.price(asset).high), one


def window_reasons(examined: Examined[U], view: JournalView, now: int) -> list[Reason]:
    """Objections of the counters: per tier and asset, fees per chain, and the breaker."""
    network, fee = examined.grounds.network, [(examined.fee_group, examined.unsigned.fee_units)]
    reasons = []
    for cap in examined.grounds.caps:
        reasons += _cap_window(cap, examined, view, fee, now)
    fees = view.window(examined.chain_fees, network.chain, network.fee_window_seconds).total_with(fee, now)
    if fees > int(network.fee_window_cap):
        reasons.append(
            Reason(
                "fee-window",
                f"{fees} in fees within {network.fee_window_seconds} s: at most {network.fee_window_cap}",
            )
        )
    return reasons + _breaker_reasons(examined, view, now)


def _cap_window(
    cap: TierCap, examined: Examined[U], view: JournalView, fee: list[tuple[str, int]], now: int
) -> list[Reason]:
    paid = view.window(Exposure.PAYMENTS, f"{cap.tier}|{cap.asset}", cap.window_seconds)
    total = paid.total_with(examined.payments(cap.asset), now)
    if cap.asset == examined.grounds.network.native_asset:
        fees = view.window(Exposure.TIER_FEES, examined.tier_fees, cap.window_seconds)
        total += fees.total_with(fee, now)
    if total <= int(cap.window_cap):
        return []
    told = f"{total} {cap.asset} within {cap.window_seconds} s: at most {cap.window_cap}, fees included"
    return [Reason("window-cap", told)]


def _breaker_reasons(examined: Examined[U], view: JournalView, now: int) -> list[Reason]:
    breaker = examined.breaker
    if breaker is None:
        return []
    counter = view.window(Exposure.VALUE, breaker.id, breaker.window_seconds)
    value = counter.total_with(examined.value, now)
    if value <= int(breaker.value_cap):
        return []
    unit = examined.grounds.bundle.unit
    told = f"{value} {unit} of all assets within {breaker.window_seconds} s: at most {breaker.value_cap}"
    return [Reason("value-cap", told)]
