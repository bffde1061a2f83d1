"""SQL of the chain facts: blocks, cursor, receipts, consumptions. The monitor alone writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, LiteralString

from chains.eth.network import NativeMode
from chains.ports import Consumption, Header, Receipt
from chains.types import BlockRef
from custody.deposits.model import AddressRow
from custody.errors import Conflict
from custody.storage.db import Tx


class Known(StrEnum):
    """What to do with a row that is there already."""

    REFUSE = "refuse"
    """It must not be there: following never sees a block twice."""
    KEEP = "keep"
    """A rescan adds what is missing only."""


_CONFLICT: Final[dict[Known, LiteralString]] = {
    Known.REFUSE: "",
    Known.KEEP: " ON CONFLICT DO NOTHING",
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far we are."""

    block: BlockRef
    """The last block that was committed."""
    anchor: int
    """Height from which confirmations count: on BTC the block's own, on EVM chains the newest finalised one."""


@dataclass(frozen=True, slots=True)
class OwnReceipt:
    """A receipt at an address that is proven to be ours."""

    receipt: Receipt
    address: AddressRow
    asset: str
    block: BlockRef


@dataclass(frozen=True, slots=True)
class MinedConsumption:
    """The use of one of our resources by a transaction of a block."""

    consumption: Consumption
    block: BlockRef


def cursor(tx: Tx, chain: str) -> Cursor | None:
    """How far we are; None before the first block."""
    row = tx.optional("SELECT height, hash, anchor FROM cursors WHERE chain = %s", [chain])
    return None if row is None else Cursor(BlockRef(row["height"], row["hash"]), row["anchor"])


def lowest(tx: Tx, chain: str) -> int:
    """Height of the first block that was committed."""
    return int(tx.one("SELECT min(height) AS height FROM blocks WHERE chain = %s", [chain])["height"])


def hashes(tx: Tx, chain: str, low: int, high: int) -> dict[int, str]:
    """Our blocks from `low` to `high`."""
    rows = tx.all(
        "SELECT height, hash FROM blocks WHERE chain = %s AND height BETWEEN %s AND %s", [chain, low, high]
    )
    return {row["height"]: row["hash"] for row in rows}


def begin(tx: Tx, chain: str, header: Header, anchor: int) -> None:
    """The first block and the cursor on it. The block itself counts as read."""
    connect(tx, chain, [header], {})
    tx.execute(
        "INSERT INTO cursors (chain, height, hash, anchor) VALUES (%s, %s, %s, %s)",
        [chain, header.ref.height, header.ref.hash, anchor],
    )


def advance(tx: Tx, chain: str, old: Cursor, new: Cursor) -> None:
    """Move the cursor, if it still is where we think.

    Raises:
        Conflict: it is not: another monitor has written.
    """
    moved = tx.execute(
        "UPDATE cursors SET height = %s, hash = %s, anchor = %s, updated_at = now()"
        " WHERE chain = %s AND height = %s AND hash = %s",
        [new.block.height, new.block.hash, new.anchor, chain, old.block.height, old.block.hash],
    )
    if moved != 1:
        raise Conflict(f"the cursor of {chain} is no longer at {old.block}")


def connect(
    tx: Tx,
    chain: str,
    headers: Sequence[Header],
    modes: Mapping[str, NativeMode],
    *,
    known: Known = Known.REFUSE,
) -> int:
    """Store blocks; returns how many were new.

    Args:
        tx: of the monitor.
        chain: whose blocks.
        headers: in order.
        modes: how each was read, by its hash; where there is one way only, or it was not read, it is missing.
        known: of blocks that are there already.
    """
    return tx.executemany(
        "INSERT INTO blocks (chain, height, hash, previous, native_mode) VALUES (%s, %s, %s, %s, %s)"
        + _CONFLICT[known],
        [
            (chain, header.ref.height, header.ref.hash, header.previous, modes.get(header.ref.hash))
            for header in headers
        ],
    )


def native_modes(tx: Tx, chain: str, low: int, high: int) -> dict[str, NativeMode]:
    """How our blocks from `low` to `high` were read, by their hashes, as far as that was ever to be chosen."""
    rows = tx.all(
        "SELECT hash, native_mode FROM blocks"
        " WHERE chain = %s AND height BETWEEN %s AND %s AND native_mode IS NOT NULL",
        [chain, low, high],
    )
    return {row["hash"]: NativeMode(row["native_mode"]) for row in rows}


def pin_native_modes(tx: Tx, chain: str, modes: Mapping[str, NativeMode]) -> None:
    """Record how blocks were read that had not been: the one where following began."""
    tx.executemany(
        "UPDATE blocks SET native_mode = %s WHERE chain = %s AND hash = %s AND native_mode IS NULL",
        [(mode, chain, hash_) for hash_, mode in modes.items()],
    )


def undo(tx: Tx, chain: str, above: int) -> None:
    """Remove blocks above a height, and all that was only in them."""
    tx.execute("DELETE FROM consumptions WHERE chain = %s AND height > %s", [chain, above])
    tx.execute("DELETE FROM receipts WHERE chain = %s AND height > %s", [chain, above])
    tx.execute("DELETE FROM blocks WHERE chain = %s AND height > %s", [chain, above])


def insert_receipts(
    tx: Tx, chain: str, receipts: Iterable[OwnReceipt], *, known: Known = Known.REFUSE
) -> int:
    """Store receipts; returns how many were new."""
    return tx.executemany(
        "INSERT INTO receipts (chain, resource, txid, address_id, asset, units, coinbase, height, block_hash)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)" + _CONFLICT[known],
        [
            (
                chain,
                each.receipt.resource,
                each.receipt.txid.hex,
                each.address.id,
                each.asset,
                each.receipt.units,
                each.receipt.coinbase,
                each.block.height,
                each.block.hash,
            )
            for each in receipts
        ],
    )


def insert_consumptions(
    tx: Tx, chain: str, consumptions: Iterable[MinedConsumption], *, known: Known = Known.REFUSE
) -> int:
    """Store consumptions; returns how many were new."""
    return tx.executemany(
        "INSERT INTO consumptions (chain, resource, txid, content, succeeded, fee_units, height, block_hash)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)" + _CONFLICT[known],
        [
            (
                chain,
                each.consumption.resource,
                each.consumption.txid.hex,
                each.consumption.content,
                each.consumption.succeeded,
                each.consumption.fee_units,
                each.block.height,
                each.block.hash,
            )
            for each in consumptions
        ],
    )


def resources(tx: Tx, chain: str, fork: int | None = None) -> list[str]:
    """Every resource whose use concerns us: our unspent receipts, and what our transactions have reserved.

    Args:
        tx: of the monitor.
        chain: whose resources.
        fork: uses in blocks above it do not count, for these are about to be undone; None: all count.
    """
    rows = tx.all(
        "SELECT resource FROM receipts r WHERE chain = %(chain)s AND NOT EXISTS"
        " (SELECT 1 FROM consumptions c WHERE c.chain = r.chain AND c.resource = r.resource"
        "  AND (%(fork)s::integer IS NULL OR c.height <= %(fork)s))",
        {"chain": chain, "fork": fork},
    )
    return [row["resource"] for row in rows] + reserved(tx, chain, fork)


def reserved(tx: Tx, chain: str, fork: int | None = None) -> list[str]:
    """Resources that our transactions have reserved and no mined transaction has used; `fork` as above."""
    rows = tx.all(
        "SELECT resource FROM reservations s WHERE chain = %(chain)s AND NOT EXISTS"
        " (SELECT 1 FROM consumptions c WHERE c.chain = s.chain AND c.resource = s.resource"
        "  AND (%(fork)s::integer IS NULL OR c.height <= %(fork)s))",
        {"chain": chain, "fork": fork},
    )
    return [row["resource"] for row in rows]


def all_resources(tx: Tx, chain: str) -> list[str]:
    """All that was ever ours or reserved, used or not: what a rescan watches."""
    rows = tx.all(
        "SELECT resource FROM receipts WHERE chain = %(chain)s"
        " UNION SELECT resource FROM reservations WHERE chain = %(chain)s",
        {"chain": chain},
    )
    return [row["resource"] for row in rows]


def own_contents(tx: Tx, contents: Iterable[str]) -> set[str]:
    """Those of `contents` that are versions of our transactions: recorded before anybody is asked to sign them."""
    rows = tx.all("SELECT content FROM transaction_versions WHERE content = ANY (%s)", [list(contents)])
    return {row["content"] for row in rows}


def wallets_of(tx: Tx, chain: str, resources: Sequence[str]) -> dict[str, str]:
    """The key-set whose address each of these coins is at, of those that were recorded."""
    rows = tx.all(
        "SELECT r.resource, a.keyset FROM receipts r JOIN addresses a ON a.id = r.address_id"
        " WHERE r.chain = %s AND r.resource = ANY (%s)",
        [chain, list(resources)],
    )
    return {row["resource"]: row["keyset"] for row in rows}


def new_scripts(tx: Tx, chain: str, after: int, gaps: Iterable[int]) -> list[tuple[int, bytes | None]]:
    """Address ids above `after` or among `gaps`; with the script where the address is of `chain`."""
    rows = tx.all(
        "SELECT id, CASE WHEN chain = %s THEN script END AS script FROM addresses"
        " WHERE id > %s OR id = ANY (%s) ORDER BY id",
        [chain, after, list(gaps)],
    )
    return [(row["id"], None if row["script"] is None else bytes(row["script"])) for row in rows]


def heartbeat(tx: Tx, chain: str) -> None:
    """Say that a monitor is at work."""
    tx.execute("UPDATE cursors SET updated_at = now() WHERE chain = %s", [chain])
