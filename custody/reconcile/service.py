"""Reconciliation on the real parts: a database snapshot and the node at one and the same block; and its teeth."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

from chains.btc.node import ScanDescriptor, UtxoScan
from chains.errors import InvalidValue, NodeUnavailable, Reorganised, TransientError
from chains.types import BlockRef
from custody.deposits.attestation import HOUSE, derive
from custody.reconcile import records, repository
from custody.reconcile.core import compare
from custody.reconcile.model import Coin, Facts, NodeBalance, NodeCoins, Offence, Report, WalletKey
from custody.reconcile.variances import book, reverse
from custody.storage import halts
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database, Tx
from policies.bundle import BitcoinKeyset, Bundle, EvmKeyset

GAP_INDEXES: Final = 1_000
"""Addresses beyond the last one given out whose coins are looked for, too."""
ATTEMPTS: Final = 5
WAIT_SECONDS: Final = 20
"""How long the monitor may take to reach the block at which the node was asked."""
ALERT: Final = "reconcile.difference"
_POLL_SECONDS: Final = 0.1  # float: a time to wait, no amount


class NotComparable(TransientError):
    """Node and monitor were never seen at the same block: nothing was compared, nothing is known to be wrong."""


@runtime_checkable
class UtxoSource(Protocol):
    """A node that can say which outputs exist for our keys."""

    def utxo_scan(self, descriptors: Sequence[ScanDescriptor]) -> UtxoScan:
        """Every unspent output of the descriptors, exactly at the tip that is returned. Raises NodeUnavailable."""


@runtime_checkable
class BalanceSource(Protocol):
    """A node that can say what addresses had at a block."""

    def balances(self, wanted: Sequence[tuple[bytes, str | None]], at: BlockRef) -> list[int]:
        """Base units of each (address, token contract or None for the native asset) after a block.

        Raises:
            NodeUnavailable: no answer.
            Reorganised: the node does not have this block (any more).
        """


Node = UtxoSource | BalanceSource


@dataclass(frozen=True, slots=True)
class Moment:
    """What one snapshot of the database says, with the addresses of the EVM wallets in it."""

    facts: Facts
    scripts: Mapping[str, tuple[bytes, ...]]
    """By key-set, each derived from the bundle."""


def reconcile(db: Database, bundle: Bundle, nodes: Mapping[str, Node]) -> Report:
    """Compare ledger, records and chains at one moment. Changes nothing; payments and sweeps may be in flight.

    Args:
        db: any role that may read.
        bundle: names the wallets.
        nodes: by chain, of its family; the wallets of chains without one are not looked at.

    Raises:
        NotComparable: the monitor did not reach the node's block, or the chain moved on each time.
        NodeUnavailable, DatabaseUnavailable: no answer.
    """
    for _ in range(ATTEMPTS):
        coins: dict[WalletKey, NodeCoins] = {}
        for entry in bundle.keysets:
            node = nodes.get(entry.chain)
            if isinstance(entry, BitcoinKeyset) and isinstance(node, UtxoSource):
                key = WalletKey(entry.chain, entry.id, bundle.network(entry.chain).native_asset)
                coins[key] = _node_coins(db, entry, node)
        report = _compare_at(db, bundle, coins, nodes)
        if report is not None:
            return report
    raise NotComparable(f"node and monitor were not seen at the same block in {ATTEMPTS} attempts")


def enforce(db: Database, report: Report) -> None:
    """A difference raises a critical alert and halts all paying; what waits unseen gets an alert; what is final and
    explained by no block is booked.

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
    for stale in report.stale:
        reverse(db, stale)
    for booking in report.bookings:
        book(db, booking)


def descriptors(entry: BitcoinKeyset, next_indexes: Mapping[int, int]) -> list[ScanDescriptor]:
    """Output descriptors (BIP380, `wpkh`) of both branches, up to a gap beyond what was given out."""
    return [
        ScanDescriptor(
            f"wpkh([{entry.origin}]{entry.account}/{branch}/*)", next_indexes.get(branch, 0) + GAP_INDEXES
        )
        for branch in (0, 1)
    ]


def _node_coins(db: Database, entry: BitcoinKeyset, node: UtxoSource) -> NodeCoins:
    with db.snapshot() as tx:
        indexes = repository.last_indexes(tx, entry.id)
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


def _compare_at(
    db: Database, bundle: Bundle, coins: Mapping[WalletKey, NodeCoins], nodes: Mapping[str, Node]
) -> Report | None:
    """The report, of a snapshot in which every cursor is at its node's block; None if that block has passed.

    A node says what was unspent at its tip only, so the monitor must come there. It says what addresses had at any
    recent block, so an EVM chain is asked for the block where its monitor is.
    """
    balances = _balance_wallets(bundle, nodes)
    moment = _moment_at(db, bundle, {key.chain: node.tip for key, node in coins.items()}, [*coins, *balances])
    if moment is None:
        return None
    try:
        return compare(moment.facts, {**coins, **_node_balances(bundle, moment, balances)})
    except Reorganised:
        return None


def _moment_at(
    db: Database, bundle: Bundle, wanted: Mapping[str, BlockRef], wallets: Sequence[WalletKey]
) -> Moment | None:
    deadline = time.monotonic() + WAIT_SECONDS
    chains = {key.chain for key in wallets}
    while True:
        with db.snapshot() as tx:
            at = repository.cursors(tx)
            if chains <= at.keys() and all(at[chain] == tip for chain, tip in wanted.items()):
                return _moment(tx, bundle, wallets)
        if _passed(at, wanted) or time.monotonic() > deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _balance_wallets(bundle: Bundle, nodes: Mapping[str, Node]) -> dict[WalletKey, BalanceSource]:
    """Every asset of every EVM wallet whose chain has a node."""
    found = {}
    for entry in bundle.keysets:
        node = nodes.get(entry.chain)
        if isinstance(entry, EvmKeyset) and isinstance(node, BalanceSource):
            for asset in bundle.assets:
                if asset.chain == entry.chain:
                    found[WalletKey(entry.chain, entry.id, asset.id)] = node
    return found


def _moment(tx: Tx, bundle: Bundle, wallets: Sequence[WalletKey]) -> Moment:
    facts = repository.facts(tx, bundle, wallets)
    offences = list(facts.offences)
    scripts: dict[str, tuple[bytes, ...]] = {}
    for keyset in {key.wallet: bundle.keyset(key.wallet) for key in wallets}.values():
        if isinstance(keyset, EvmKeyset):
            own = {derive(bundle, keyset.id, HOUSE, 0)[1]: None}
            for id_, branch, index, stored in records.addresses(tx, keyset.chain, keyset.id):
                try:
                    own[derive(bundle, keyset.id, branch, index)[1]] = None
                except InvalidValue as error:
                    offences.append(Offence(7, f"address row {id_}: {error}"))
                if stored not in own:
                    offences.append(
                        Offence(7, f"address row {id_} is not what {keyset.id} gives at its path")
                    )
            scripts[keyset.id] = tuple(own)
    return Moment(replace(facts, offences=tuple(offences)), scripts)


def _node_balances(
    bundle: Bundle, moment: Moment, wallets: Mapping[WalletKey, BalanceSource]
) -> dict[WalletKey, NodeBalance]:
    found = {}
    for wallet in moment.facts.wallets:
        if wallet.records is None:
            continue
        key, node = wallet.key, wallets[wallet.key]
        contract = bundle.asset(key.asset).contract
        accounts = [(script, contract) for script in moment.scripts[key.wallet]]
        tip = moment.facts.cursors[key.chain]
        units = sum(node.balances(accounts, tip))
        final_units = None
        # What agrees at the tip is asked about no further: most of the time that is all.
        if units != wallet.records.units and wallet.records.anchor is not None:
            final_units = sum(node.balances(accounts, wallet.records.anchor))
        found[key] = NodeBalance(tip, units, final_units)
    return found


def _passed(at: Mapping[str, BlockRef], wanted: Mapping[str, BlockRef]) -> bool:
    return any(chain in at and at[chain].height > tip.height for chain, tip in wanted.items())
