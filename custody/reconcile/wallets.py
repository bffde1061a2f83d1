"""The wallets of one chain at one moment: facts of a database snapshot, and the node's word for the same block."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

from chains.btc.node import ScanDescriptor, UtxoScan
from chains.errors import InvalidValue, NodeUnavailable, Reorganised, TransientError
from chains.types import BlockRef
from custody.deposits.addresses import EvmWallet, evm_wallets
from custody.deposits.attestation import HOUSE, derive
from custody.reconcile import records, repository
from custody.reconcile.model import Coin, NodeBalance, NodeCoins, Offence, WalletFacts, WalletKey
from custody.storage.db import Database, Tx
from policies.bundle import BitcoinKeyset, BitcoinVault, Bundle

GAP_INDEXES: Final = 1_000
"""Addresses beyond the last one given out whose coins are looked for, too."""
ATTEMPTS: Final = 5
WAIT_SECONDS: Final = 20
"""How long the monitor may take to reach the block at which the node was asked."""
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
class Compared:
    """What is held against each other for the wallets of one chain."""

    at: BlockRef
    """The monitor's block."""
    wallets: tuple[WalletFacts, ...]
    nodes: Mapping[WalletKey, NodeCoins | NodeBalance]
    offences: tuple[Offence, ...] = ()
    """Address rows that the bundle does not bear out."""


def wallets_of(db: Database, bundle: Bundle, chain: str, node: Node) -> Compared | None:
    """The wallets of a chain and what its node has of them, at one block; None if it has no wallets.

    A node says what is unspent at its tip only, so the monitor must come there. It says what addresses had at any
    recent block, so an EVM chain is asked for the block where its monitor is.

    Raises:
        NotComparable: the monitor did not reach the node's block, or the chain moved on each time.
        NodeUnavailable, DatabaseUnavailable: no answer.
    """
    utxo = [
        entry
        for entry in (*bundle.keysets, *bundle.vaults)
        if isinstance(entry, BitcoinKeyset | BitcoinVault) and entry.chain == chain
    ]
    evm = evm_wallets(bundle, chain)
    for _ in range(ATTEMPTS):
        found = None
        if utxo and isinstance(node, UtxoSource):
            found = _by_coins(db, bundle, chain, utxo, node)
        elif evm and isinstance(node, BalanceSource):
            found = _by_balances(db, bundle, chain, evm, node)
        else:
            return None
        if found is not None:
            return found
    raise NotComparable(f"{chain}: node and monitor were not seen at the same block in {ATTEMPTS} attempts")


def descriptors(entry: BitcoinKeyset | BitcoinVault, next_indexes: Mapping[int, int]) -> list[ScanDescriptor]:
    """Output descriptors (BIP380) of both branches, up to a gap beyond what was given out."""
    return [
        ScanDescriptor(_descriptor(entry, branch), next_indexes.get(branch, 0) + GAP_INDEXES)
        for branch in (0, 1)
    ]


def _descriptor(entry: BitcoinKeyset | BitcoinVault, branch: int) -> str:
    if isinstance(entry, BitcoinVault):
        keys = ",".join(f"[{each.origin}]{each.account}/{branch}/*" for each in entry.cosigners)
        return f"wsh(sortedmulti({entry.threshold},{keys}))"
    return f"{'tr' if entry.script == 'p2tr' else 'wpkh'}([{entry.origin}]{entry.account}/{branch}/*)"


def _by_coins(
    db: Database,
    bundle: Bundle,
    chain: str,
    wallets: Sequence[BitcoinKeyset | BitcoinVault],
    node: UtxoSource,
) -> Compared | None:
    native = bundle.asset(bundle.network(chain).native_asset)
    nodes: dict[WalletKey, NodeCoins] = {}
    for entry in wallets:
        with db.snapshot() as tx:
            indexes = repository.last_indexes(tx, entry.id)
        scan = _scan(node, descriptors(entry, indexes))
        coins = tuple(Coin(output.resource, output.units) for output in scan.unspents)
        nodes[WalletKey(chain, entry.id, native.id, native.decimals)] = NodeCoins(scan.tip, coins)
    tips = {answer.tip for answer in nodes.values()}
    if len(tips) != 1:
        return None
    [tip] = tips

    def read(tx: Tx) -> Compared:
        return Compared(tip, repository.wallets(tx, bundle, nodes), nodes)

    return _at(db, chain, tip, read)


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


def _at(db: Database, chain: str, tip: BlockRef, read: Callable[[Tx], Compared]) -> Compared | None:
    """What a snapshot says in which the cursor is at the node's block; None if that block has passed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with db.snapshot() as tx:
            at = repository.cursors(tx).get(chain)
            if at == tip:
                return read(tx)
        if (at is not None and at.height > tip.height) or time.monotonic() > deadline:
            return None
        time.sleep(_POLL_SECONDS)


def _by_balances(
    db: Database, bundle: Bundle, chain: str, wallets: Sequence[EvmWallet], node: BalanceSource
) -> Compared | None:
    assets = [asset for asset in bundle.assets if asset.chain == chain]
    keys = [WalletKey(chain, entry.id, asset.id, asset.decimals) for entry in wallets for asset in assets]
    offences: list[Offence] = []
    with db.snapshot() as tx:
        at = repository.cursors(tx).get(chain)
        if at is None:
            raise NotComparable(f"{chain}: its monitor has not begun")
        facts = repository.wallets(tx, bundle, keys)
        scripts = {entry.id: _scripts(tx, bundle, entry, offences) for entry in wallets}
    try:
        nodes = {each.key: _balance(bundle, node, each, scripts[each.key.wallet], at) for each in facts}
    except Reorganised:
        return None
    return Compared(at, facts, nodes, tuple(offences))


def _scripts(tx: Tx, bundle: Bundle, wallet: EvmWallet, offences: list[Offence]) -> tuple[bytes, ...]:
    """Every address of a wallet, derived from the bundle: rows say only which were given out."""
    own = {derive(bundle, wallet.id, HOUSE, 0)[1]: None}
    for id_, branch, index, stored in records.addresses(tx, wallet.chain, wallet.id):
        try:
            derived = derive(bundle, wallet.id, branch, index)[1]
        except InvalidValue as error:
            offences.append(Offence(7, f"address row {id_}: {error}"))
            continue
        own[derived] = None
        if stored != derived:
            offences.append(Offence(7, f"address row {id_} is not what {wallet.id} gives at its path"))
    return tuple(own)


def _balance(
    bundle: Bundle, node: BalanceSource, wallet: WalletFacts, scripts: Sequence[bytes], at: BlockRef
) -> NodeBalance:
    assert wallet.records is not None, "balances are compared with records"
    contract = bundle.asset(wallet.key.asset).contract
    accounts = [(script, contract) for script in scripts]
    units = sum(node.balances(accounts, at))
    anchor = wallet.records.anchor
    # What agrees at the tip is asked about no further: most of the time that is all.
    if anchor is None or units == wallet.records.units:
        return NodeBalance(at, units, None)
    return NodeBalance(at, units, sum(node.balances(accounts, anchor)))
