"""One pass of the monitor: follow the chain, look at the mempool, credit what is due.

Observe all, recheck the tip, then commit everything in one transaction of the session that holds the
leader's lock: a monitor that lost the lock has lost the session, and cannot commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from chains.errors import Reorganised
from chains.ports import ChainAdapter, Header
from chains.types import BlockRef, TxId
from custody.deposits import service as deposits
from custody.deposits.addresses import ensure_house
from custody.deposits.attestation import Prover
from custody.deposits.model import DepositFacts
from custody.deposits.repository import addresses_after
from custody.deposits.service import Verdicts
from custody.errors import InvalidConfiguration
from custody.monitor import repository
from custody.monitor.follow import Behind, Progress, Reorged, Same, follow
from custody.monitor.observe import Attributed, Sighting, Trouble, attribute, read_blocks
from custody.monitor.repository import Cursor
from custody.monitor.watch import ResourceSet, Watch
from custody.screening.ports import Screening
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Session, Tx
from custody.storage.events import emit
from policies.bundle import Bundle

_log = structlog.get_logger("monitor")

_WINDOW_BLOCKS: Final = 512
_PENDING_PER_PASS: Final = 5_000
_AUDITED_PER_PASS: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """Numbers of one monitor; the defaults are meant for production."""

    start_height: int | None = None
    """Where the first start begins; None: at the node's tip then."""
    blocks_per_commit: int = 50
    """Bounds memory and the length of a transaction while far behind."""
    held_again_seconds: int = 15
    """How often held deposits are asked about again."""
    heartbeat_seconds: int = 5
    mempool_seconds: int = 1
    """How often the whole mempool is listed; announcements come far more often."""


class Monitor:
    """Follows one chain on behalf of the leader. One thread; made anew when the session was lost.

    Args:
        adapter: the chain through our node.
        session: holds the leader's lock, and makes every commit.
        bundle: the bundle in force now.
        screening: asked before a credit.
        options: numbers.
        resource_set: makes the set of resources that the adapter scans fastest.
    """

    def __init__(
        self,
        adapter: ChainAdapter,
        session: Session,
        bundle: Callable[[], Bundle],
        screening: Screening,
        *,
        options: Options | None = None,
        resource_set: Callable[[], ResourceSet] = set,
    ) -> None:
        self.chain = adapter.chain
        self._adapter = adapter
        self._session = session
        self._bundle = bundle
        self._screening = screening
        self._options = options or Options()
        self._watch = Watch(self.chain, resource_set)
        self._prover = Prover(bundle())
        self._looked_at: set[TxId] = set()
        self._housed = False
        self._audited = 0
        self._held_at = 0
        self._beat_at = 0
        self._mempool_at = 0

    def step(self) -> bool:
        """One pass. True if blocks were committed: there may be more, call again at once.

        Raises:
            NodeUnavailable, Reorganised, Conflict: nothing was committed by the part that raised; call again.
            DatabaseUnavailable: the session is lost, and with it the lead.
        """
        try:
            self._renew_bundle()
            moved = self._follow()
            if not moved:
                self._mempool()
                self._settle()
                self._audit()
                self._heartbeat()
        except BaseException:
            self._watch.forget()  # memory may be ahead of what was committed
            raise
        return moved

    # ------------------------------------------------------------------------------------------------- blocks

    def _follow(self) -> bool:
        tip = self._adapter.tip()
        with self._session.transaction() as tx:
            cursor = repository.cursor(tx, self.chain)
            if cursor is None:
                self._begin(tx, tip)
                return True
            lowest = repository.lowest(tx, self.chain)
        update = follow(
            cursor.block,
            lowest,
            self._known(cursor.block),
            self._adapter.header_at,
            tip,
            limit=self._options.blocks_per_commit,
            max_shrink=self._max_shrink(cursor),
        )
        match update:
            case Same():
                self._caught_up()
                return False
            case Behind():
                self._behind(cursor.block, update.tip)
                return False
            case Progress():
                self._connect(cursor, update.connect, fork=None)
            case Reorged():
                _log.warning("reorg", chain=self.chain, fork=update.fork, undone=len(update.undo))
                self._connect(cursor, update.connect, fork=update.fork)
        return True

    def _begin(self, tx: Tx, tip: BlockRef) -> None:
        start = self._options.start_height
        header = self._adapter.header_at(tip.height if start is None else start)
        if header is None:
            raise InvalidConfiguration(
                [f"{self.chain}: the start height {start} is above the tip {tip.height}: write a lower one"]
            )
        repository.begin(tx, self.chain, header, self._adapter.anchor(header.ref))
        _log.info("first start", chain=self.chain, block=str(header.ref))

    def _connect(self, cursor: Cursor, headers: Sequence[Header], *, fork: int | None) -> None:
        """Read blocks, recheck the tip, and commit all that follows from them."""
        with self._session.transaction() as tx:
            if fork is None:
                self._watch.refresh(tx)
            else:
                self._watch.refresh_from(tx, fork)
        sightings = read_blocks(self._adapter, headers, self._watch, {})
        with self._session.transaction() as tx:
            found = attribute(tx, self._prover, self.chain, sightings)
            block = headers[-1].ref if headers else self._block_at(tx, fork)
        end = self._cursor_at(block, cursor.anchor if fork is None else min(cursor.anchor, fork))
        with self._session.transaction() as tx:
            facts = deposits.due(tx, self.chain, end.anchor)
        verdicts = self._screen(facts, found, end.anchor)
        self._recheck(end.block)
        with self._session.transaction() as tx:
            repository.advance(tx, self.chain, cursor, end)
            if fork is not None:
                repository.undo(tx, self.chain, fork)
                self._tell_reorg(tx, cursor, fork, end.block)
            self._write(tx, headers, found, end.anchor, fork)
            deposits.settle_due(tx, self._prover, self.chain, end.anchor, verdicts)
        for used in found.consumptions:
            self._watch.resources.discard(used.consumption.resource)
        self._beat_at = _now()

    def _write(
        self, tx: Tx, headers: Sequence[Header], found: Attributed, anchor: int, fork: int | None
    ) -> None:
        repository.connect(tx, self.chain, headers, found.native_modes)
        repository.insert_receipts(tx, self.chain, found.receipts)
        repository.insert_consumptions(tx, self.chain, found.consumptions)
        deposits.mined(tx, self._prover.bundle, self.chain, found.deposits, undone_above=fork, anchor=anchor)
        found.raise_in(tx)

    def _screen(self, facts: Sequence[DepositFacts], found: Attributed, anchor: int) -> Verdicts:
        """Ask about everything that may be credited in the coming commit, outside any transaction."""
        bundle = self._prover.bundle
        wanted = {each.resource: each for each in facts}
        for each in found.deposits:
            needed = deposits.confirmations_needed(bundle, each)
            if each.block is not None and anchor - each.block.height + 1 >= needed:
                wanted[each.receipt.resource] = each.facts()
        return deposits.screen(self._screening, wanted.values())

    def _cursor_at(self, block: BlockRef, least: int) -> Cursor:
        """The cursor on a block of the best chain. What was final below a fork stays so, whatever a node says now."""
        return Cursor(block, min(block.height, max(least, self._adapter.anchor(block))))

    def _recheck(self, end: BlockRef) -> None:
        header = self._adapter.header_at(end.height)
        if header is None or header.ref != end:
            raise Reorganised(f"block {end} left the best chain while it was read")

    def _known(self, cursor: BlockRef) -> Callable[[int], str | None]:
        """Our hash at a height, read in windows."""
        cache: dict[int, str] = {}

        def known(height: int) -> str | None:
            if height not in cache and 0 <= height <= cursor.height:
                low = max(0, height - _WINDOW_BLOCKS + 1)
                with self._session.transaction() as tx:
                    cache.update(repository.hashes(tx, self.chain, low, height))
            return cache.get(height)

        return known

    def _block_at(self, tx: Tx, height: int | None) -> BlockRef:
        assert height is not None
        return BlockRef(height, repository.hashes(tx, self.chain, height, height)[height])

    def _max_shrink(self, cursor: Cursor) -> int:
        """Blocks that can be undone without touching what was credited or settled."""
        bundle = self._prover.bundle
        depths = [bundle.network(self.chain).settle_blocks]
        depths += [
            each.blocks
            for asset in bundle.assets
            if asset.chain == self.chain
            for each in asset.confirmations
        ]
        return cursor.block.height - cursor.anchor + min(depths) - 1

    def _tell_reorg(self, tx: Tx, cursor: Cursor, fork: int, end: BlockRef) -> None:
        depth = cursor.block.height - fork
        data = {"from": str(cursor.block), "to": str(end), "fork": fork, "undone_blocks": depth}
        emit(tx, "chain.reorganised", self.chain, data)
        if cursor.anchor - fork >= self._prover.bundle.network(self.chain).settle_blocks:
            message = f"{depth} blocks of {self.chain} were replaced above height {fork}: what counted as final is not"
            raise_alert(tx, Severity.CRITICAL, "chain.deep_reorg", str(cursor.block), message, data)

    def _behind(self, cursor: BlockRef, tip: BlockRef) -> None:
        """Our node has lost what it had: crediting waits, and somebody must know."""
        with self._session.transaction() as tx:
            message = (
                f"the node of {self.chain} ends at {tip}, we have read up to {cursor}: crediting waits for it"
            )
            raise_alert(tx, Severity.CRITICAL, "node.behind", self.chain, message, {})

    def _caught_up(self) -> None:
        if _now() - self._beat_at >= self._options.heartbeat_seconds:
            with self._session.transaction() as tx:
                resolve_alert(tx, "node.behind", self.chain)

    # ----------------------------------------------------------------------------------------------- mempool

    def _mempool(self) -> None:
        if _now() - self._mempool_at < self._options.mempool_seconds:
            return
        pending = self._adapter.mempool()
        with self._session.transaction() as tx:
            self._watch.refresh(tx)
        fresh = [txid for txid in pending if txid not in self._looked_at][:_PENDING_PER_PASS]
        seen = self._adapter.observe_pending(fresh, self._watch.scripts, ()) if fresh else {}
        # Only if no block came in between is absence from the mempool a sign of having vanished.
        current = self._adapter.tip()
        with self._session.transaction() as tx:
            cursor = repository.cursor(tx, self.chain)
            found = attribute(
                tx, self._prover, self.chain, [Sighting(None, observation) for observation in seen.values()]
            )
            deposits.sighted(tx, self._prover.bundle, self.chain, found.deposits)
            for trouble in found.troubles:
                trouble.raise_in(tx)
            if cursor is not None and cursor.block == current:
                deposits.vanished(tx, self.chain, frozenset(txid.hex for txid in pending))
        self._mempool_at = _now()
        self._looked_at.intersection_update(pending)
        self._looked_at.update(fresh)

    # --------------------------------------------------------------------------------------------- crediting

    def _settle(self) -> None:
        """Credit what is deep enough and not credited yet, and ask again about what is held.

        On EVM chains blocks become final while no new block comes, or none that says anything of ours.
        """
        ask_held = _now() - self._held_at >= self._options.held_again_seconds
        with self._session.transaction() as tx:
            cursor = repository.cursor(tx, self.chain)
        if cursor is None:
            return
        now = self._cursor_at(cursor.block, cursor.anchor)
        with self._session.transaction() as tx:
            facts = deposits.due(tx, self.chain, now.anchor)
            facts += deposits.held(tx, self.chain) if ask_held else []
        if ask_held:
            self._held_at = _now()
        if not facts and now == cursor:
            return
        verdicts = deposits.screen(self._screening, facts)
        self._recheck(now.block)
        with self._session.transaction() as tx:
            repository.advance(tx, self.chain, cursor, now)
            deposits.settle_due(tx, self._prover, self.chain, now.anchor, verdicts)

    # ----------------------------------------------------------------------------------------------- the rest

    def _renew_bundle(self) -> None:
        bundle = self._bundle()
        if bundle is not self._prover.bundle:
            self._prover = Prover(bundle)
            self._watch.forget()  # a key-set's own address may be new
            self._housed = False
        if not self._housed:
            with self._session.transaction() as tx:
                ensure_house(tx, bundle, self.chain)
            self._housed = True

    def _audit(self) -> None:
        """Check the next stored addresses, round and round: an edited one is noticed before anybody pays."""
        with self._session.transaction() as tx:
            rows = addresses_after(tx, self.chain, self._audited, _AUDITED_PER_PASS)
        troubles = []
        for row in rows:
            kind = "address.not_ours"
            doubt = self._prover.not_ours(row)
            if doubt is None:
                kind, doubt = "address.unproven", self._prover.unproven(row)
            if doubt is not None:
                troubles.append(Trouble(kind, str(row.id), doubt))
        self._audited = rows[-1].id if len(rows) == _AUDITED_PER_PASS else 0
        if troubles:
            with self._session.transaction() as tx:
                for trouble in troubles:
                    trouble.raise_in(tx)

    def _heartbeat(self) -> None:
        if _now() - self._beat_at >= self._options.heartbeat_seconds:
            with self._session.transaction() as tx:
                repository.heartbeat(tx, self.chain)
            self._beat_at = _now()


def _now() -> int:
    return int(time.monotonic())
