"""Texts and numbers that the bundle's parts are made of."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Tier = Literal["hot", "warm", "cold"]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
EvmAddress = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-fA-F]{40}\Z")]
"""20 bytes with the mixed-case checksum of EIP-55; who reads the bundle checks the checksum."""
Origin = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}(/[0-9]{1,10}'){1,6}\Z")]
"""Master fingerprint and hardened path of an account key, e.g. `d34db33f/84'/1'/0'` (BIP380)."""
