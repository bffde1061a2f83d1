"""What the monitor looks for, in memory: scripts of our addresses, and resources whose use concerns us."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable
from typing import Final, Protocol

from chains.eth.watch import WatchedSenders
from custody.deposits.addresses import evm_wallets
from custody.monitor import repository
from custody.storage.db import Tx
from policies.bundle import Bundle, EvmVault

_GAP_SECONDS: Final = 600
"""An address whose id was skipped is looked for this long: no transaction that took the id lives longer."""


def watched_nonces(bundle: Bundle, chain: str) -> WatchedSenders:
    """Every nonce of the keys and Safes of an EVM chain, also those that nobody has reserved."""
    wallets = evm_wallets(bundle, chain)
    return WatchedSenders(
        (each.address for each in wallets if not isinstance(each, EvmVault)),
        (each.address for each in wallets if isinstance(each, EvmVault)),
    )


class ResourceSet(Container[str], Protocol):
    """A set of resources in whatever form the adapter scans fastest."""

    def update(self, resources: Iterable[str], /) -> None:
        """Add all of these."""

    def discard(self, resource: str, /) -> None:
        """Remove one, if it is there."""


class Watch:
    """The two sets and how they are kept up to date. Built anew after every reorg or error.

    Args:
        chain: whose addresses and resources.
        resource_set: makes an empty set of resources.
    """

    def __init__(self, chain: str, resource_set: Callable[[], ResourceSet] = set) -> None:
        self._chain = chain
        self._resource_set = resource_set
        self.scripts: set[bytes] = set()
        self.resources: ResourceSet = resource_set()
        self._last = 0
        self._gaps: dict[int, int] = {}
        self._loaded = False

    def forget(self) -> None:
        """Load everything again at the next use: memory may be ahead of what was committed."""
        self._loaded = False

    def refresh(self, tx: Tx) -> None:
        """Learn new addresses and reservations.

        Called after a block or the mempool was seen to exist and before it is matched: an address was
        committed before anybody was shown it, so it is known here before any payment to it is matched.
        """
        if not self._loaded:
            self._reload(tx, None)
        self.resources.update(repository.reserved(tx, self._chain))
        self._new_addresses(tx)

    def refresh_from(self, tx: Tx, fork: int) -> None:
        """As `refresh`, for reading the blocks above a fork: uses in the branch that is left do not count."""
        self._reload(tx, fork)
        self._new_addresses(tx)
        self._loaded = False  # until the branch is committed, this is not what the database says

    def _reload(self, tx: Tx, fork: int | None) -> None:
        self.scripts, self.resources = set(), self._resource_set()
        self._last, self._gaps = 0, {}
        self.resources.update(repository.resources(tx, self._chain, fork))
        self._loaded = True

    def _new_addresses(self, tx: Tx) -> None:
        now = int(time.monotonic())
        for id_, script in repository.new_scripts(tx, self._chain, self._last, self._gaps):
            # Ids are given before commits: one that is skipped may still appear.
            self._gaps.update((skipped, now) for skipped in range(self._last + 1, id_))
            self._gaps.pop(id_, None)
            self._last = max(self._last, id_)
            if script is not None:
                self.scripts.add(script)
        self._gaps = {gap: since for gap, since in self._gaps.items() if now - since < _GAP_SECONDS}
