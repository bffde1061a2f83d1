"""The four Bitcoin networks and the constants that tell them apart.

Sources: `chainparams.cpp` of Bitcoin Core; BIP32 (extended key versions); BIP44/SLIP44 (coin types);
BIP173 (human-readable parts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class BtcNetwork:
    """Constants of one network. Made only here; look it up in `NETWORKS`."""

    name: str
    """`main`, `test`, `signet` or `regtest`: the names that `getblockchaininfo` uses."""
    bech32_hrp: str
    """Human-readable part of segwit addresses (BIP173)."""
    p2pkh_version: int
    """First byte of a base58 P2PKH address."""
    p2sh_version: int
    """First byte of a base58 P2SH address."""
    xpub_version: bytes
    """First four bytes of a public extended key (BIP32): xpub or tpub."""
    xprv_version: bytes
    """First four bytes of a private extended key; known only to be refused."""
    coin_type: int
    """Second level of a BIP44 path: 0 for main, 1 for all test networks."""
    genesis_hash: str
    """Hash of block 0 (64 hex digits), by which a node's network is recognised."""


_XPUB: Final = bytes.fromhex("0488b21e")
_XPRV: Final = bytes.fromhex("0488ade4")
_TPUB: Final = bytes.fromhex("043587cf")
_TPRV: Final = bytes.fromhex("04358394")

_MAIN_GENESIS: Final = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
_TEST_GENESIS: Final = "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943"
_SIGNET_GENESIS: Final = "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"
_REGTEST_GENESIS: Final = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"

NETWORKS: Final[Mapping[str, BtcNetwork]] = MappingProxyType(
    {
        network.name: network
        for network in (
            BtcNetwork("main", "bc", 0, 5, _XPUB, _XPRV, 0, _MAIN_GENESIS),
            BtcNetwork("test", "tb", 111, 196, _TPUB, _TPRV, 1, _TEST_GENESIS),
            BtcNetwork("signet", "tb", 111, 196, _TPUB, _TPRV, 1, _SIGNET_GENESIS),
            BtcNetwork("regtest", "bcrt", 111, 196, _TPUB, _TPRV, 1, _REGTEST_GENESIS),
        )
    }
)
"""Every network by name."""
