"""Reconciliation on the real parts: a database snapshot and the node at one and the same block; and its teeth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from chains.btc.node import ScanDescriptor, UtxoScan
from chains.errors import NodeUnavailable, TransientError
from chains.types import BlockRef
from custody.reconcile import repository
from custody.reconcile.core import compare
from custody.reconcile.model import Coin, NodeCoins, Report, WalletKey
from custody.storage import halts
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database
from policies.bundle import Bundle, KeysetEntry

GAP_INDEXES: Final = 1_000
"""Addresses beyond the last one given out whose coins are looked for, too."""
ATTEMPTS: Final = 5
WAIT_SECONDS: Final = 20
"""How long the monitor may take to reach the block at which the node was asked."""
ALERT: Final = "reconcile.difference"
_POLL_SECONDS: Final = 0.1  # float: a time to wait, no amount


class NotComparable(TransientError):
    """Node and monitor were never seen at the same block: nothing was compared, nothing is known to be wrong."""


class UtxoSource(Protocol):
    """A node that can say which outputs exist for our keys."""

    def utxo_scan(self, descriptors: Sequence[ScanDescriptor]) -> UtxoScan:
        """Every unspent output of the descriptors, exactly at the tip that is returned. Raises NodeUnavailable."""


def reconcile(db: Database, bundle: Bundle, nodes: Mapping[str, UtxoSource]) -> Report:
    """Compare ledger, records and chain at one moment. Changes nothing; payments may be in flight.

    Args:
        db: any role that may read.
        bundle: names the wallets.
        nodes: by chain; the wallets of chains without one are not looked at.

    Raises:
        NotComparable: the monitor did not reach the node's block, or the chain moved on each time.
        NodeUnavailable, DatabaseUnavailable: no answer.
    """
    wallets = {
        WalletKey(entry.chain, entry.id, bundle.network(entry.chain).native_asset): entry
        for entry in bundle.keysets
        if entry.chain in nodes
    }
    for _ in range(ATTEMPTS):
        coins = {key: _node_coins(db, key, entry, nodes[key.chain]) for key, entry in wallets.items()}
        report = _compare_at(db, coins)
        if report is not None:
            return report
    raise NotComparable(f"the monitor did not reach the node's block in {ATTEMPTS} attempts")


def enforce(db: Database, report: Report) -> None:
    """A difference raises a critical alert and halts all paying; what waits unseen gets an alert.

    Again changes nothing. Needs a role that may halt. An operator lifts the halt once the difference is explained.
    """
    with db.transaction() as tx:
        differences = report.differences()
        if differences:
            text = "; ".join(differences)[:2000]
            raise_alert(
                tx,
                Severity.CRITICAL,
                ALERT,
                "all",
                f"ledger and chain differ, paying is halted: {text}",
                {"differences": list(differences[:20])},
            )
            halts.halt(tx, halts.ALL, f"reconciliation: {text}"[:500])
        else:
            resolve_alert(tx, ALERT, "all")
        for each in report.waiting:
            raise_alert(tx, Severity.WARNING, each.type, each.subject, each.detail, {})


def descriptors(entry: KeysetEntry, next_indexes: Mapping[int, int]) -> list[ScanDescriptor]:
    """Output descriptors (BIP380, `wpkh`) of both branches, up to a gap beyond what was given out."""
    return [
        ScanDescriptor(
            f"wpkh([{entry.origin}]{entry.account}/{branch}/*)", next_indexes.get(branch, 0) + GAP_INDEXES
        )
        for branch in (0, 1)
    ]


def _node_coins(db: Database, key: WalletKey, entry: KeysetEntry, node: UtxoSource) -> NodeCoins:
    with db.snapshot() as tx:
        indexes = repository.last_indexes(tx, key.wallet)
    scan = _scan(node, descriptors(entry, indexes))
    return NodeCoins(scan.tip, tuple(Coin(output.resource, output.units) for output in scan.unspents))


def _scan(node: UtxoSource, wanted: Sequence[ScanDescriptor]) -> UtxoScan:
    """The node's coins. A node scans for one caller at a time, so another's scan is waited out."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return node.utxo_scan(wanted)
        except NodeUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _compare_at(db: Database, coins: Mapping[WalletKey, NodeCoins]) -> Report | None:
    """The report, of a snapshot in which every cursor is at its node's block; None if that block has passed."""
    wanted = {key.chain: node.tip for key, node in coins.items()}
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with db.snapshot() as tx:
            at = repository.cursors(tx)
            if all(at.get(chain) == tip for chain, tip in wanted.items()):
                return compare(repository.facts(tx, coins), coins)
        if _passed(at, wanted) or time.monotonic() > deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _passed(at: Mapping[str, BlockRef], wanted: Mapping[str, BlockRef]) -> bool:
    return any(chain in at and at[chain].height > tip.height for chain, tip in wanted.items())
