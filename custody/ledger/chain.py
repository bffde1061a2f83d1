"""The hash chain of each account's lines: what a line's hash covers, for whoever writes lines and whoever checks them.

Pure. The database computes the same (`ledger_genesis`, `ledger_line_hash`) and takes no line that has another hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from custody.ledger.model import Line
from custody.ledger.posting import TransferRecord

HASH_BYTES: Final = 32
LINES_A_BATCH: Final = 1 << 24
"""Ids of lines that one number of a batch is good for."""
_CHUNK: Final = 1000
_NULL: Final = "\\N"
_ESCAPED: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class Stamp(NamedTuple):
    """What the database gives to a batch of lines, after their accounts were locked."""

    batch: int
    """Its number: no other batch has it, and an account's later batch has a higher one."""
    at: str
    """The time, as the database writes it."""
    at_micros: int
    """The same, microseconds since 1970."""


def genesis(account_id: int, customer: str | None, kind: str, asset: str, wallet: str) -> bytes:
    """32 bytes with which an account's chain begins: whose account it is."""
    fields = ("strongroom:ledger-account:v1", str(account_id), customer or "", kind, asset, wallet)
    return hashlib.sha256("\t".join(fields).encode()).digest()


def transfer_text(record: TransferRecord, legs: int) -> str:
    """What of a transfer the hash of each of its lines covers."""
    parent = "" if record.parent is None else str(record.parent)
    return f"{record.kind.value}\t{parent}\t{record.content_hash.hex()}\t{legs}\t{record.reference}"


def escaped(text: str) -> str:
    """A text as COPY takes it."""
    return text.translate(_ESCAPED)


def transfer_rows(records: Sequence[TransferRecord], legs: Mapping[UUID, int]) -> Iterator[bytes]:
    """Transfers as COPY takes them: id, kind, content_hash, parent_id, reference, legs."""
    rows = [
        f"{each.id}\t{each.kind.value}\t\\\\x{each.content_hash.hex()}\t{each.parent or _NULL}"
        f"\t{escaped(each.reference)}\t{legs[each.id]}\n"
        for each in records
    ]
    yield "".join(rows).encode()


def line_rows(
    lines: Sequence[Line],
    transfers: Mapping[UUID, str],
    last: Mapping[int, bytes],
    stamp: Stamp,
    *,
    first_leg: int = 1,
) -> Iterator[bytes]:
    """Lines as COPY takes them, some hundred at a time: id, account_id, seq, transfer_id, leg, type, amount,
    balance_before, balance_after, at, hash.

    Args:
        lines: in their order, those of one transfer together.
        transfers: `transfer_text` of each transfer.
        last: hash of the last line of every account, before these.
        stamp: of the batch.
        first_leg: number of the first line within its transfer.
    """
    hashes = dict(last)
    sha256 = hashlib.sha256
    first, at, micros = stamp.batch * LINES_A_BATCH, stamp.at, str(stamp.at_micros)
    rows: list[str] = []
    transfer: UUID | None = None
    leg, named, suffix = 0, "", ""
    for id, line in enumerate(lines, first):
        if line.transfer_id != transfer:
            transfer, leg, named = line.transfer_id, first_leg - 1, str(line.transfer_id)
            suffix = f"\t{micros}\t{transfers[transfer]}"
        leg += 1
        account = line.account_id
        text = (
            f"{id}\t{account}\t{line.seq}\t{named}\t{leg}\t{line.type.value}"
            f"\t{line.amount}\t{line.balance_before}\t{line.balance_after}"
        )
        digest = sha256(hashes[account] + (text + suffix).encode())
        hashes[account] = digest.digest()
        rows.append(f"{text}\t{at}\t\\\\x{digest.hexdigest()}\n")
        if len(rows) == _CHUNK:
            yield "".join(rows).encode()
            rows.clear()
    if rows:
        yield "".join(rows).encode()
