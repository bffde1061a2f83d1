"""What the bundle of a trial says of each network: assets, key-set and caps, with DESIGN's numbers.

Confirmations and depths are those of the main networks, for here six blocks cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from ops.stack.networks import TrialNetwork
from policies.bundle import (
    AssetEntry,
    BitcoinNetwork,
    Confirmations,
    EvmNetwork,
    GasCaps,
    GasPayer,
    KeysetEntry,
    NetworkEntry,
    PriceBound,
    Tier,
    TierCap,
    Vault,
)

CHAIN: Final = "bitcoin-regtest"
ASSET: Final = "BTC"
REGTEST_GENESIS: Final = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
BTC_SATS: Final = 100_000_000
ETH_WEI: Final = 10**18
GWEI_WEI: Final = 10**9
DAY: Final = 24 * 3600
_WINDOWS: Final[Mapping[Tier, int]] = {"hot": 50, "warm": 5_000, "cold": 500_000}
"""What a tier may pay in a day, in largest hot payments: 5, 500 and 50,000 BTC."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One network with all that belongs to it."""

    network: NetworkEntry
    assets: tuple[AssetEntry, ...]
    keyset: KeysetEntry
    caps: tuple[TierCap, ...]
    prices: tuple[PriceBound, ...]
    vaults: tuple[Vault, ...] = ()
    gas_payers: tuple[GasPayer, ...] = ()


def bitcoin(keyset: KeysetEntry, vaults: tuple[Vault, ...] = ()) -> Listing:
    """Regtest: hot below 0.1 BTC a payment and 5 BTC a day, warm below 10 BTC, cold the rest.

    Args:
        keyset: the hot one.
        vaults: of the other tiers that there are.
    """
    network = BitcoinNetwork(
        chain=CHAIN,
        network="regtest",
        genesis=REGTEST_GENESIS,
        native_asset=ASSET,
        settle_blocks=6,
        feerate_floor=1_000,
        feerate_cap=500_000,
        fee_cap=str(BTC_SATS // 100),
        fee_window_cap=str(BTC_SATS // 10),
        fee_window_seconds=DAY,
    )
    asset = AssetEntry(
        id=ASSET,
        chain=CHAIN,
        decimals=8,
        contract=None,
        minimum_deposit="1000",
        withdrawal_fee="50000",
        confirmations=(Confirmations(from_units="0", blocks=6),),
    )
    caps = _caps(ASSET, BTC_SATS // 10, vaults)
    return Listing(network, (asset,), keyset, caps, (_price(ASSET, 100_000),), vaults)


def evm(
    trial: TrialNetwork,
    genesis: str,
    keyset: KeysetEntry,
    tokens: dict[str, str],
    *,
    vaults: tuple[Vault, ...] = (),
    gas_payers: tuple[GasPayer, ...] = (),
) -> Listing:
    """An EVM network: hot below 2 of its native asset or 5,000 of a token a payment, warm below a hundred times that.

    Args:
        trial: the network.
        genesis: hash of its block 0, 64 hex digits.
        keyset: its hot key-set.
        tokens: address of each token's contract by asset id.
        vaults: of the other tiers that there are.
        gas_payers: who pays for what vaults do.
    """
    network = EvmNetwork(
        chain=trial.chain,
        chain_id=trial.chain_id,
        genesis=genesis,
        native_asset=trial.native,
        native_mode=trial.native_mode,
        settle_blocks=1,  # confirmations count from the newest finalised block
        feerate_floor=GWEI_WEI // 100,
        feerate_cap=500 * GWEI_WEI,
        fee_cap=str(ETH_WEI // 2),
        fee_window_cap=str(20 * ETH_WEI),
        fee_window_seconds=DAY,
        # No transaction may have more than 2^24 gas (EIP-7825).
        gas_caps=GasCaps(
            transfer=100_000, token=200_000, payout=6_000_000, sweep=12_000_000, execution=300_000
        ),
    )
    native = AssetEntry(
        id=trial.native,
        chain=trial.chain,
        decimals=18,
        contract=None,
        minimum_deposit=str(ETH_WEI // 1000),
        withdrawal_fee=str(ETH_WEI // 1000),
        confirmations=(Confirmations(from_units="0", blocks=1),),
        sweep_above=str(ETH_WEI // 20),
    )
    caps = [*_caps(trial.native, 2 * ETH_WEI, vaults)]
    assets = [native]
    for token in trial.tokens:
        one = 10**token.decimals
        assets.append(
            AssetEntry(
                id=token.asset,
                chain=trial.chain,
                decimals=token.decimals,
                contract=tokens[token.asset],
                minimum_deposit=str(one),
                withdrawal_fee=str(one),
                confirmations=native.confirmations,
                sweep_above=str(20 * one),
            )
        )
        caps += _caps(token.asset, 5_000 * one, vaults)
    prices = (_price(trial.native, 5_000), *(_price(token.asset, 1) for token in trial.tokens))
    return Listing(network, tuple(assets), keyset, tuple(caps), prices, vaults, gas_payers)


def _price(asset: str, dollars: int) -> PriceBound:
    """A tenth to twice of what one whole asset is worth about now, in cents."""
    return PriceBound(asset=asset, low=str(dollars * 10), high=str(dollars * 200))


def _caps(asset: str, hot_below: int, vaults: Sequence[Vault]) -> tuple[TierCap, ...]:
    """What signers allow, in DESIGN's proportions; the rules beside them are in `trial-policy.yaml`.

    Args:
        asset: of which.
        hot_below: hot payments are smaller than this, in base units.
        vaults: those of the asset's chain.
    """
    bands = {
        "hot": (0, hot_below),
        "warm": (hot_below, 100 * hot_below),
        "cold": (100 * hot_below, 10_000 * hot_below),
    }
    tiers: list[Tier] = ["hot", *(vault.tier for vault in vaults)]
    return tuple(
        TierCap(
            tier=tier,
            asset=asset,
            payment_from=str(bands[tier][0]),
            payment_below=str(bands[tier][1]),
            window_cap=str(_WINDOWS[tier] * hot_below),
            window_seconds=DAY,
        )
        for tier in tiers
    )
