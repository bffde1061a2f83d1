"""What becomes of a deposit that is deep enough. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from custody.deposits.lifecycle import DepositEvent, DepositState
from custody.deposits.screening import Clear, Verdict


@dataclass(frozen=True, slots=True)
class Decision:
    """The event to apply to a deposit, and why."""

    event: DepositEvent
    reason: str = ""


def decide(
    state: DepositState, units: int, minimum_units: int, unproven: str | None, verdict: Verdict | None
) -> Decision | None:
    """What happens to a deposit that has its confirmations; None if it stays as it is.

    Args:
        state: CONFIRMING, or HELD (asked again: what held it may be gone).
        units: what arrived.
        minimum_units: the asset's smallest deposit.
        unproven: why its address is not proven to be this customer's, None if it is.
        verdict: what screening says, None if it did not answer.
    """
    held = state is DepositState.HELD
    if unproven is not None:
        return None if held else Decision(DepositEvent.HOLD, f"address not proven: {unproven}")
    if units < minimum_units and not held:
        return Decision(DepositEvent.TOO_SMALL, f"{units} is below the minimum of {minimum_units}")
    if isinstance(verdict, Clear):
        return Decision(DepositEvent.RELEASE if held else DepositEvent.CREDIT)
    if held:
        return None
    return Decision(DepositEvent.HOLD, "screening did not answer" if verdict is None else verdict.reason)
