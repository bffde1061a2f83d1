"""Which payments the next transaction makes, with how much gas at which price; which have to wait, and why.

The oldest payment goes first. One of the native asset to an address without code takes along all others of that kind,
through the contract for batches, where the key-set has one: any of them failing would undo all, and what has no code
cannot fail. It can get code before the batch is mined, though (CREATE2, EIP-7702), and whoever does that loses nothing
by it. So after a batch that reverted nobody shares for a while. Every other payment has a transaction of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from chains.eth import gas
from chains.eth.abi import MAX_ITEMS
from chains.eth.address import checksummed
from chains.eth.call import Reverted
from chains.eth.gas import TRANSFER_GAS, FeeOffer, GasPrice
from custody.signing.evm.assemble import Draft
from custody.signing.evm.site import AccountSite, EvmSite
from custody.signing.requests import Payee
from policies.decision import Reason

WOULD_REVERT = "would-revert"
"""Reason code of payments whose call would fail now: they are not signed."""


class Sharing(Enum):
    """Whether payments may share a transaction."""

    ALLOWED = auto()
    ENDED = auto()
    """A batch has reverted lately."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """Payments that one call makes within everybody's limits."""

    payees: tuple[Payee, ...]
    draft: Draft
    gas_limit: int
    offer: FeeOffer


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next transaction does, if anything can be done, and who has to wait."""

    fitted: Fitted | None
    waiting: tuple[tuple[Payee, Reason], ...]


def plan(
    site: EvmSite,
    payees: Sequence[Payee],
    price: GasPrice,
    available: Mapping[str, int],
    sharing: Sharing = Sharing.ALLOWED,
) -> Plan:
    """Pay the oldest that can be paid, with all that can share its transaction.

    Args:
        site: the wallet; its node is asked for code and gas.
        payees: oldest first, none of them known to be wrong.
        price: what the network asks for, at most the network's cap.
        available: base units by asset, see `funds`.
        sharing: whether a batch may be made.

    Raises:
        NodeUnavailable: try again.
    """
    waiting: list[tuple[Payee, Reason]] = []
    may_share = sharing is Sharing.ALLOWED
    plain = {id(payee) for payee in payees if may_share and _is_plain(site, payee)}
    left = list(payees)
    while left:
        group = [payee for payee in left if id(payee) in plain] if id(left[0]) in plain else left[:1]
        fitted = _fit(site, group[:MAX_ITEMS], price, available, waiting)
        if fitted is not None:
            return Plan(fitted, tuple(waiting))
        settled = {id(payee) for payee, _ in waiting}
        left = [payee for payee in left if id(payee) not in settled]
    return Plan(None, tuple(waiting))


def _is_plain(site: EvmSite, payee: Payee) -> bool:
    """Whether it may share a transaction."""
    batches = site.wallet.payout is not None and payee.signed.order.asset == site.asset.id
    return batches and not site.node.code(payee.destination.script)


def _fit(
    site: EvmSite,
    group: Sequence[Payee],
    price: GasPrice,
    available: Mapping[str, int],
    waiting: list[tuple[Payee, Reason]],
) -> Fitted | None:
    """As many of a group as one transaction can pay; those that must wait are added to `waiting`. None: nobody."""
    chosen = list(group)

    def drop(payee: Payee, reason: Reason) -> None:
        waiting.append((payee, reason))
        chosen.remove(payee)

    while chosen:
        largest = max(chosen, key=lambda payee: payee.units)
        draft = Draft.paying(site, chosen)
        short = _short(site, chosen, available, gas_wei=0)
        if short is not None:
            drop(largest, short)
            continue
        limit = gas_limit_of(site, draft)
        if isinstance(limit, Reason):
            if len(chosen) == 1:
                drop(largest, limit)
            else:
                # Too many for one call, or one that spoils it: fewer now, the others with the next transaction.
                del chosen[len(chosen) // 2 :]
            continue
        found = offer_for(site, price, limit, sum(payee.fee_ceiling for payee in chosen))
        if isinstance(found, Reason):
            # Together they may pay a fee up to the sum of what their orders allow.
            drop(min(chosen, key=lambda payee: payee.fee_ceiling), found)
            continue
        short = _short(site, chosen, available, gas_wei=limit * found.max_fee_wei)
        if short is not None:
            drop(largest, short)
            continue
        return Fitted(tuple(chosen), draft, limit, found)
    return None


def offer_for(site: AccountSite, price: GasPrice, gas_limit: int, ceiling_wei: int) -> FeeOffer | Reason:
    """What to offer for gas, or why to wait.

    Args:
        site: the wallet.
        price: what the network asks for.
        gas_limit: of the transaction.
        ceiling_wei: most that it may cost by what it serves.
    """
    fee_cap = int(site.network.fee_cap)
    cap_wei = min(site.network.feerate_cap, ceiling_wei // gas_limit, fee_cap // gas_limit)
    found = gas.offer(price, floor_wei=site.network.feerate_floor, cap_wei=cap_wei)
    if found is not None:
        return found
    least = gas_limit * max(price.now_wei, site.network.feerate_floor)
    told = site.asset.told
    if least > fee_cap:
        return Reason(
            "fees-above-cap", f"it would cost {told(least)} now, the network's cap is {told(fee_cap)}"
        )
    return Reason("fee-ceiling", f"it would cost {told(least)} now, its order allows {told(ceiling_wei)}")


def present_price(site: AccountSite) -> int:
    """What gas costs now, wei per gas with the tip. Raises NodeUnavailable."""
    return site.node.gas_price().now_wei


def too_high(site: AccountSite, price: GasPrice) -> Reason | None:
    """Why nothing is paid at this price, if so."""
    least = max(price.now_wei, site.network.feerate_floor)
    if least <= site.network.feerate_cap:
        return None
    return Reason(
        "fees-above-cap",
        f"gas costs {gas.told(price.now_wei)} (base fee {gas.told(price.base_fee_wei)}),"
        f" the cap is {gas.told(site.network.feerate_cap)}",
    )


def _short(
    site: EvmSite, payees: Sequence[Payee], available: Mapping[str, int], *, gas_wei: int
) -> Reason | None:
    """What is missing to make these payments, which are of one asset, and to pay for the gas."""
    asset = payees[0].signed.order.asset
    needed = {site.asset.id: gas_wei}
    needed[asset] = needed.get(asset, 0) + sum(payee.units for payee in payees)
    for each, units in needed.items():
        if units > available[each]:
            told = site.bundle.asset(each).told
            return Reason(
                f"insufficient-{site.wallet.tier}-funds",
                f"{told(units)} are needed, gas included; {told(available[each])} can be paid now",
            )
    return None


def gas_limit_of(site: EvmSite, draft: Draft) -> int | Reason:
    """How much gas to allow: the exact 21,000 of a plain transfer, else what the node estimates and a third more."""
    if not draft.data and not site.node.code(draft.to):
        return TRANSFER_GAS
    call = draft.call(site.sender)
    estimate = site.node.estimate_gas(call)
    if isinstance(estimate, Reverted):
        return _would_revert(draft, estimate.reason)
    if draft.is_token and not agrees(site.node.simulate(call)):
        return _would_revert(draft, "the token says no, without failing")
    limit = gas.gas_limit(estimate, draft.gas_cap)
    if limit is None:
        return Reason(
            "gas-cap", f"it would take {estimate} gas, at most {draft.gas_cap} is signed for such a call"
        )
    return limit


def agrees(answer: bytes | Reverted) -> bool:
    """Whether a token says that a transfer succeeds: with true, or like the oldest ones with nothing."""
    return not isinstance(answer, Reverted) and (not answer or int.from_bytes(answer[:32], "big") == 1)


def _would_revert(draft: Draft, why: str) -> Reason:
    return Reason(WOULD_REVERT, f"the call to {checksummed(draft.to)} would fail: {why}"[:500])
