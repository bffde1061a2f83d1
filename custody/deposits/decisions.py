"""What becomes of a deposit that is deep enough. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from custody.deposits.lifecycle import DepositEvent, DepositState
from custody.screening.judging import Cleared, Hit, Judgement, Refused, Unknown, Waits


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a deposit, and why."""

    event: DepositEvent | None
    """None: it stays as it is."""
    reason: str = ""
    case: Hit | None = None
    """A case is to be opened about this."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """Something other than screening speaks against it."""

    reason: str


def decide(
    state: DepositState, units: int, minimum_units: int, unproven: str | None, judged: Judgement | Withheld
) -> Decision | None:
    """What happens to a deposit that has its confirmations; None if it stays as it is.

    Args:
        state: CONFIRMING, or HELD (asked again: what held it may be gone).
        units: what arrived.
        minimum_units: the asset's smallest deposit.
        unproven: why its address is not proven to be this customer's, None if it is.
        judged: what follows from screening, and from what people have decided.
    """
    held = state is DepositState.HELD
    if unproven is not None:
        return None if held else Decision(DepositEvent.HOLD, f"address not proven: {unproven}")
    if units < minimum_units and not held:
        return Decision(DepositEvent.TOO_SMALL, f"{units} is below the minimum of {minimum_units}")
    match judged:
        case Cleared():
            return Decision(DepositEvent.RELEASE if held else DepositEvent.CREDIT)
        case Refused(case) if held:
            return Decision(DepositEvent.QUARANTINE, f"case {case} was refused")
        case Hit() if held:
            return Decision(None, judged.reason, judged)
        case Hit():
            return Decision(DepositEvent.HOLD, judged.reason, judged)
        case other:
            return None if held else Decision(DepositEvent.HOLD, _why(other))


def _why(stopped: Refused | Unknown | Waits | Withheld) -> str:
    match stopped:
        case Withheld(reason):
            return reason
        case Unknown(why):
            return f"screening did not answer: {why}"
        case Refused(case):
            return f"case {case} was refused"
        case Waits(case):
            return f"case {case} is open"
