"""What the network asks for a payment now, as a worker has last seen it, and which fee ceiling to give an order by it.

For callers that must name a ceiling in the chain's native asset and have no node. It decides nothing: what is paid is
bounded by the order's own ceiling, the bundle's caps, and the signer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from custody.storage.db import Tx
from policies.bundle import AssetEntry, BitcoinNetwork, Bundle

FRESH_SECONDS: Final = 300
"""Workers look every few seconds: an older price is that of a worker or node that is away."""
HEADROOM: Final = 2
"""Room for the price to double while an order waits and its transaction is in no block."""
PAYMENT_VB: Final = 1_000
"""BTC: a payment out of a dozen coins."""
NATIVE_GAS: Final = 60_000
"""EVM: native money to a contract's address; a plain one takes 21,000."""
TOKEN_GAS: Final = 150_000
"""EVM: a token that does more than it must; a plain one takes 65,000 at most."""

_REFRESH_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Observation:
    """The price on one chain as it was seen last."""

    feerate: int
    """BTC: sat/kvB; EVM: wei per gas, base fee and tip."""
    at: datetime
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The fee ceiling that an order of one asset should have now."""

    asset: str
    chain: str
    native_asset: str
    units: int | None
    """Base units of the chain's native asset; None: not known now."""
    feerate: int | None
    at: datetime | None
    """When the feerate was seen."""
    reason: str
    """Why nothing is suggested; empty if something is."""


def observe(tx: Tx, chain: str, feerate: int) -> None:
    """Write down what the network asks for now. The same price again is written only now and then."""
    tx.execute(
        "INSERT INTO fee_observations AS o (chain, feerate) VALUES (%s, %s)"
        " ON CONFLICT (chain) DO UPDATE SET feerate = excluded.feerate, at = now()"
        " WHERE o.feerate <> excluded.feerate OR o.at < now() - make_interval(secs => %s)",
        [chain, feerate, _REFRESH_SECONDS],
    )


def observed(tx: Tx) -> Mapping[str, Observation]:
    """The last prices, by chain."""
    rows = tx.all("SELECT chain, feerate, at, extract(epoch FROM now() - at) AS age FROM fee_observations")
    return {row["chain"]: Observation(row["feerate"], row["at"], float(row["age"])) for row in rows}


def suggest(bundle: Bundle, entry: AssetEntry, seen: Observation | None) -> Suggestion:
    """The ceiling for an order of an asset: what a large payment costs at twice the price, within the bundle's caps.

    Args:
        bundle: names caps, and what customers pay.
        entry: the asset.
        seen: the last price on its chain; None: nobody has seen one.
    """
    network = bundle.network(entry.chain)
    known = None if seen is None else seen.feerate
    at = None if seen is None else seen.at
    reason = _unusable(entry.chain, seen)
    units = None
    if seen is not None and not reason:
        feerate = min(max(seen.feerate, network.feerate_floor) * HEADROOM, network.feerate_cap)
        if isinstance(network, BitcoinNetwork):
            wanted = -(-feerate * PAYMENT_VB // 1000)
        else:
            wanted = feerate * (NATIVE_GAS if entry.contract is None else TOKEN_GAS)
        # What the customer pays may be spent on it; only a native asset's fee is in the same money.
        paid = int(entry.withdrawal_fee) if entry.id == network.native_asset else 0
        units = min(max(wanted, paid), int(network.fee_cap))
    return Suggestion(entry.id, entry.chain, network.native_asset, units, known, at, reason)


def _unusable(chain: str, seen: Observation | None) -> str:
    if seen is None:
        return f"no worker has seen yet what a payment on {chain} costs"
    if seen.age_seconds > FRESH_SECONDS:
        seconds = int(seen.age_seconds)
        return (
            f"what a payment on {chain} costs was last seen {seconds} s ago: is a worker away, or its node?"
        )
    return ""
