"""The EVM networks of a trial: two chains that differ in id, native asset and key, and in nothing of our code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True)
class TrialToken:
    """A token that stands on a trial's chain from its beginning."""

    asset: str
    name: str
    """As the contract tells it."""
    decimals: int


@dataclass(frozen=True, slots=True)
class TrialTiers:
    """Ids of what a network has beside its hot key-set."""

    warm: str
    """A Safe whose owners' keys are with the members."""
    cold: str
    """A Safe whose owners' keys are with the holders."""
    gas_payer: str


@dataclass(frozen=True, slots=True)
class TrialNetwork:
    """An EVM network of a trial."""

    chain: str
    chain_id: int
    """EIP-155."""
    native: str
    """Id of its native asset."""
    keyset: str
    """Id of its hot key-set."""
    native_mode: Literal["trace", "balance"]
    """How native deposits are found."""
    tokens: tuple[TrialToken, ...] = ()
    tiers: TrialTiers | None = None
    """None: the hot key-set is all that there is."""


USDX: Final = TrialToken("USDX", "Example Dollar", 6)
ETHEREUM: Final = TrialNetwork(
    "ethereum-devnet",
    31337,
    "ETH",
    "eth-hot",
    "trace",
    (USDX,),
    TrialTiers("eth-warm", "eth-cold", "eth-gas"),
)
POLYGON: Final = TrialNetwork("polygon-devnet", 31338, "XETH", "xeth-hot", "balance")
TRIAL_NETWORKS: Final = (ETHEREUM, POLYGON)
GAS_MONEY_WEI: Final = 10**18
"""What operators send to a hot key, so that it can pay for its first transactions."""
