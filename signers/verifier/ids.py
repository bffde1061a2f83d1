"""How the ledger names a deposit after what arrived, and a trade after its fill, written down independently of the
online service."""

from __future__ import annotations

import re
from typing import Final
from uuid import UUID, uuid5

_NAMESPACE: Final = UUID("6d1f2c1e-8a3b-5c57-9b0e-7d4d0f5a9e21")
_REFERENCE: Final = re.compile(
    r"(deposit|withdrawal|refill|rotation|adjustment):([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
)


_TRADE: Final = re.compile(
    r"trade:([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}):([1-9][0-9]{0,15}):(0|[1-9][0-9]{0,9})"
)


def trade_id(core: UUID, sequence: int, index: int) -> UUID:
    """The only id under which a fill can be settled."""
    parts = ("trade", str(core), str(sequence), str(index))
    return uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in parts))


def traded(reference: str) -> tuple[UUID, int, int] | None:
    """Core, sequence and index in `trade:CORE:SEQUENCE:INDEX`; None if it is of something else."""
    match = _TRADE.fullmatch(reference)
    return None if match is None else (UUID(match[1]), int(match[2]), int(match[3]))


def deposit_id(chain: str, resource: str) -> UUID:
    """The only id under which a receipt can be credited (UUIDv5, RFC 9562 section 5.5).

    So whoever would credit one receipt twice must use one reference twice, and one reference names one receipt.
    """
    return uuid5(_NAMESPACE, "".join(f"{len(part)}:{part}" for part in ("deposit", chain, resource)))


def referred(reference: str, what: str) -> UUID | None:
    """The id in `deposit:ID`, `withdrawal:ID` and the like, in its one form; None if it is of something else."""
    match = _REFERENCE.fullmatch(reference)
    return UUID(match[2]) if match is not None and match[1] == what else None
