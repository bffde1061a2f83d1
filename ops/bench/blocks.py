"""Scanning a full block for our scripts and outpoints, beside python-bitcoinlib's parse and match."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from ops.bench.compare import Row, Side, interleave

_WATCHED: Final = 1_000_000
_TRANSACTIONS: Final = 4_500
"""About 1.7 MB with witnesses, 3.9 M weight units: a full block of today."""
_HITS: Final = 20


def double_sha256(raw: bytes) -> bytes:
    """SHA-256 twice (32 bytes)."""
    return hashlib.sha256(hashlib.sha256(raw).digest()).digest()


def merkle_root(leaves: list[bytes]) -> bytes:
    """Merkle root of transaction ids in internal byte order, as the header has it."""
    while len(leaves) > 1:
        if len(leaves) % 2:
            leaves.append(leaves[-1])
        leaves = [double_sha256(leaves[i] + leaves[i + 1]) for i in range(0, len(leaves), 2)]
    return leaves[0]


def _transaction(draw: random.Random, inputs: list[bytes], scripts: list[bytes]) -> tuple[bytes, bytes]:
    """One segwit transaction: its full bytes, and its id in internal byte order."""
    body = bytes([len(inputs)]) + b"".join(point + b"\0" + b"\xfd\xff\xff\xff" for point in inputs)
    body += bytes([len(scripts)])
    for script in scripts:
        body += struct.pack("<qB", draw.randrange(10_000, 10**9), len(script)) + script
    witness = b"".join(b"\x02\x47" + draw.randbytes(71) + b"\x21\x02" + draw.randbytes(32) for _ in inputs)
    version, locktime = struct.pack("<i", 2), bytes(4)
    full = version + b"\0\x01" + body + witness + locktime
    return full, double_sha256(version + body + locktime)


def full_block(ours: list[bytes], spent: list[bytes]) -> bytes:
    """A block that pays each script of `ours` once and spends each outpoint (36 bytes) of `spent`."""
    draw = random.Random(2009)
    coinbase_body = b"\x01" + bytes(32) + b"\xff" * 4 + b"\x04" + draw.randbytes(4) + b"\xff" * 4
    coinbase_body += b"\x01" + struct.pack("<qB", 50 * 10**8, 22) + b"\0\x14" + draw.randbytes(20)
    coinbase = struct.pack("<i", 2) + coinbase_body + bytes(4)
    parts, ids = [coinbase], [double_sha256(coinbase)]
    places = draw.sample(range(_TRANSACTIONS), len(ours) + len(spent))
    pays = dict(zip(places, ours, strict=False))
    spends = dict(zip(places[len(ours) :], spent, strict=True))
    for number in range(_TRANSACTIONS):
        inputs = [
            draw.randbytes(32) + struct.pack("<I", draw.randrange(8)) for _ in range(draw.choice((1, 2, 3)))
        ]
        scripts = [b"\0\x14" + draw.randbytes(20) for _ in range(draw.choice((2, 2, 3)))]
        if number in pays:
            scripts[-1] = pays[number]
        if number in spends:
            inputs[0] = spends[number]
        raw, txid = _transaction(draw, inputs, scripts)
        parts.append(raw)
        ids.append(txid)
    header = struct.pack("<i", 0x20000000) + draw.randbytes(32) + merkle_root(ids)
    header += struct.pack("<III", 1_700_000_000, 0x207FFFFF, 0)
    return header + b"\xfd" + struct.pack("<H", len(parts)) + b"".join(parts)


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Blocks a second, each with 1 M watched scripts and 20 hits of either kind."""
    from bitcoin.core import CBlock, CBlockHeader, CTransaction
    from bitcoin.core.serialize import VectorSerializer

    from chains.btc.block import Block, WatchedOutpoints

    progress("block scan: making 1 M scripts and a full block")
    pool = os.urandom(20 * _WATCHED)
    scripts = {b"\0\x14" + pool[i : i + 20] for i in range(0, len(pool), 20)}
    mine = random.Random(1).sample(sorted(scripts), _HITS)
    spent = [os.urandom(32) + struct.pack("<I", number) for number in range(_HITS)]
    resources = {f"{point[:32][::-1].hex()}:{struct.unpack('<I', point[32:])[0]}" for point in spent}
    raw = full_block(mine, spent)
    watched = WatchedOutpoints(resources)
    points = {(point[:32], struct.unpack("<I", point[32:])[0]) for point in spent}

    def ours() -> tuple[int, int]:
        seen = Block.parse(raw).observe(scripts, watched)
        return len(seen.receipts), len(seen.consumptions)

    def ours_checked() -> tuple[int, int]:
        block = Block.parse(raw)
        block.check_merkle_root()
        seen = block.observe(scripts, watched)
        return len(seen.receipts), len(seen.consumptions)

    def match(transactions: Iterable[CTransaction]) -> tuple[int, int]:
        receipts = consumptions = 0
        for transaction in transactions:
            for output in transaction.vout:
                receipts += bytes(output.scriptPubKey) in scripts
            for entry in transaction.vin:
                consumptions += (entry.prevout.hash, entry.prevout.n) in points
        return receipts, consumptions

    def peer() -> tuple[int, int]:
        stream = io.BytesIO(raw)
        CBlockHeader.stream_deserialize(stream)
        return match(VectorSerializer.stream_deserialize(CTransaction, stream))

    def peer_checked() -> tuple[int, int]:
        return match(CBlock.deserialize(raw).vtx)

    if not ours() == ours_checked() == peer() == peer_checked() == (_HITS, _HITS):
        raise AssertionError(f"they find different things: {ours()} and {peer()}")
    progress(f"block scan: a block of {len(raw):,} bytes")
    ours_rate, peer_rate = interleave(Side(ours, 1, runs=20), Side(peer, 1), repeats=7)
    yield Row("block-scan", ours_rate, peer_rate, "python-bitcoinlib: parse and match", "blocks/s")
    progress("block scan: with the merkle root")
    ours_rate, peer_rate = interleave(Side(ours_checked, 1, runs=10), Side(peer_checked, 1), repeats=7)
    name = "python-bitcoinlib: the same with CBlock, which builds both merkle trees"
    yield Row("block-scan-merkle", ours_rate, peer_rate, name, "blocks/s")
