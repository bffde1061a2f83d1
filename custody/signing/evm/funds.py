"""What the wallet's key can pay with now: what its address has, less what is on its way out of it.

An account has no coins that could be reserved, so the sum is kept in mind: at the block that the monitor has read last,
and at the newest final one, what is there less what transactions that are not in that block may still take. The lesser
of the two is what there is. Forwarders' money counts once a sweep has brought it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chains.errors import NodeUnavailable
from chains.types import BlockRef
from custody.signing import repository
from custody.signing.evm.site import AccountSite
from custody.storage.db import Tx, units


@dataclass(frozen=True, slots=True)
class Leaving:
    """What transactions that are in no block up to a height may take, base units by asset; fees at their highest."""

    units: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Committed:
    """What the database says, at one moment."""

    tip: BlockRef
    """The last block the monitor has read."""
    anchor: int
    """Height of the newest final one."""
    beyond_tip: Leaving
    beyond_anchor: Leaving


def committed(tx: Tx, site: AccountSite, *, below: int | None = None) -> Committed | None:
    """What is on its way out; None before the monitor's first block.

    Args:
        tx: any.
        site: the wallet.
        below: of what is in no block, payments with lower nonces only, and rotations with any: what a rotation with
            this nonce has to leave room for. None: everything.
    """
    tip, anchor = repository.cursor(tx, site.chain), repository.anchor(tx, site.chain)
    if tip is None or anchor is None:
        return None
    return Committed(tip, anchor, _leaving(tx, site, tip.height, below), _leaving(tx, site, anchor, below))


def _leaving(tx: Tx, site: AccountSite, height: int, below: int | None) -> Leaving:
    params = {"chain": site.chain, "keyset": site.wallet.id, "height": height, "below": below}
    pending = (
        "t.chain = %(chain)s AND t.keyset = %(keyset)s AND (t.state IN ('built', 'broadcast')"
        "  AND (%(below)s::bigint IS NULL OR t.kind = 'rotation' OR EXISTS ("
        "   SELECT 1 FROM transaction_versions n WHERE n.transaction_id = t.id"
        "    AND substring(n.resources[1] FROM '[0-9]+$')::bigint < %(below)s))"
        " OR t.state = 'confirming' AND t.height > %(height)s)"
    )
    fees = tx.one(
        "SELECT coalesce(sum((SELECT max(v.fee_units) FROM transaction_versions v WHERE v.transaction_id = t.id)), 0)"
        f" AS fees FROM transactions t WHERE {pending}",
        params,
    )
    paid = tx.all(
        "SELECT w.asset, sum(w.units) AS units FROM withdrawals w JOIN transactions t ON t.id = w.transaction_id"
        f" WHERE {pending} GROUP BY w.asset"
        # A rotation moves the same in each version: what may cost more stays behind.
        " UNION ALL SELECT r.asset, sum(r.units) AS units FROM rotations r JOIN transactions t"
        f" ON t.id = r.transaction_id AND r.version = 1 WHERE {pending} GROUP BY r.asset"
        " UNION ALL SELECT f.asset, sum(f.units) AS units FROM refills f JOIN transactions t ON t.id = f.transaction_id"
        f" WHERE {pending} GROUP BY f.asset",
        params,
    )
    leaving: dict[str, int] = {}
    for row in paid:
        leaving[row["asset"]] = leaving.get(row["asset"], 0) + units(row["units"])
    leaving[site.asset.id] = leaving.get(site.asset.id, 0) + units(fees["fees"])
    return Leaving(leaving)


def available(site: AccountSite, found: Committed, assets: Iterable[str]) -> dict[str, int]:
    """Base units that can be paid now, by asset; the native one, which pays for gas, is always among them.

    Args:
        site: the wallet.
        found: what is on its way.
        assets: ids of assets of the site's chain.

    Raises:
        NodeUnavailable: the node has not what the monitor has read, e.g. while it reorganises.
        Reorganised: the same.
    """
    wanted = sorted({site.asset.id, *assets})
    if found.anchor < 0:
        return dict.fromkeys(wanted, 0)  # a chain so young that nothing is final yet
    accounts = [(site.sender, site.bundle.asset(asset).contract) for asset in wanted]
    header = site.node.header_at(found.anchor)
    if header is None:
        raise NodeUnavailable(f"{site.chain}: the node has no block {found.anchor}, which was final")
    at_tip = site.node.balances(accounts, found.tip)
    at_anchor = site.node.balances(accounts, header.ref)
    return {
        asset: max(
            0,
            min(tip - found.beyond_tip.units.get(asset, 0), anchor - found.beyond_anchor.units.get(asset, 0)),
        )
        for asset, tip, anchor in zip(wanted, at_tip, at_anchor, strict=True)
    }
