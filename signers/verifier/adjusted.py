"""Corrections by hand: who has signed for them. Written down independently of the online side. Pure.

One operator has asked for it in a signed act; two others have approved that very row, in acts that name its number and
its hash. The row is only as good as its signature: whoever writes the tables writes none of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from chains.errors import InvalidValue, PermanentError
from policies.administration import Act
from policies.canonical import verify_ed25519
from signers.verifier.model import Adjustment, OperatorAction

OTHERS: Final = 2
"""So many others than who asked have approved it."""

Keys = Callable[[str], frozenset[str]]
"""Keys that an operator has, or once had, by id."""


class _NotSigned(Exception):
    pass


def unapproved(adjustment: Adjustment, rows: Sequence[OperatorAction], keys: Keys) -> str:
    """Why nobody need believe an adjustment; empty if its operators have signed it.

    Args:
        adjustment: as the ledger has it.
        rows: the record of what was done, asked for and approved about it.
        keys: of the bundles' operators.
    """
    told = {
        "id": str(adjustment.id),
        "customer": adjustment.customer,
        "asset": adjustment.asset,
        "units": str(adjustment.units),
    }
    why = "no operator has asked for it"
    for asked in rows:
        if asked.action != "adjust" or asked.outcome != "asked":
            continue
        try:
            said = _signed(asked, keys)
            if {name: said.parameters.get(name) for name in told} != told:
                continue
            approved = {name for row in rows if (name := _approver(row, asked, keys)) is not None}
        except _NotSigned as error:
            why = str(error)
            continue
        if len(approved - {asked.operator}) >= OTHERS:
            return ""
        why = f"{len(approved - {asked.operator})} others have approved row {asked.number}, expected {OTHERS}"
    return why


def _approver(row: OperatorAction, asked: OperatorAction, keys: Keys) -> str | None:
    """Who has approved a row; None if this one is no approval of it."""
    if row.action != "approve" or row.key == asked.key:
        return None
    try:
        said = _signed(row, keys)
    except _NotSigned:
        return None
    names = (said.parameters.get("number"), said.parameters.get("hash"))
    return row.operator if names == (str(asked.number), row_hash(asked)) else None


def _signed(row: OperatorAction, keys: Keys) -> Act:
    """What the operator of a row has signed; the row says the same. Raises _NotSigned."""
    try:
        act = Act.from_canonical(row.document.encode())
        if row.key not in keys(row.operator):
            raise _NotSigned(f"row {row.number} has another key than the bundle for {row.operator}")
        verify_ed25519(row.key, act.digest(), row.signature)
        parameters = msgspec.json.decode(row.parameters)
    except (InvalidValue, PermanentError, msgspec.MsgspecError) as error:
        raise _NotSigned(f"row {row.number} is not signed: {error}"[:300]) from None
    if (act.operator, act.action, act.parameters) != (row.operator, row.action, parameters):
        raise _NotSigned(f"row {row.number} says something else than what {row.operator} has signed")
    return act


def row_hash(row: OperatorAction) -> str:
    """SHA-256 over all columns of a row, each with its length before it, as the online side chains its record."""
    fields = (
        "strongroom:operator-action:v1",
        str(row.number),
        str(row.at_micros),
        row.writer,
        row.operator,
        row.key,
        row.via,
        row.origin,
        row.action,
        row.parameters,
        row.outcome,
        row.reason,
        row.decision,
        None if row.bundle_version is None else str(row.bundle_version),
        None if row.asked_in is None else str(row.asked_in),
        row.document,
        row.signature,
        row.previous,
    )
    parts = [b"-" if each is None else b"%d:%s" % (len(each.encode()), each.encode()) for each in fields]
    return hashlib.sha256(b",".join(parts)).hexdigest()
