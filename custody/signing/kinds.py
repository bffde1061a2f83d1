"""Which effects a transaction has, by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from custody.signing.effects import Effects, NoEffects
from custody.signing.executions import ExecutionEffects
from custody.signing.payments import PaymentEffects
from custody.sweeps.effects import RotationEffects, SweepEffects
from custody.treasury.effects import RefillEffects
from policies.intent import Kind

_EFFECTS: Final[Mapping[str, Effects]] = {
    Kind.PAYMENT: PaymentEffects(),
    Kind.SWEEP: SweepEffects(),
    Kind.CONSOLIDATION: SweepEffects(),
    Kind.ROTATION: RotationEffects(),
    Kind.REFILL: RefillEffects(),
    Kind.NONCE_FILL: NoEffects(),
    Kind.CANCELLATION: NoEffects(),
    Kind.ADMINISTRATION: NoEffects(),
    Kind.EXECUTION: ExecutionEffects(),
}


def effects_of(kind: str) -> Effects:
    """The effects of transactions of a kind."""
    return _EFFECTS[kind]
