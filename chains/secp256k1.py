"""Numbers of the curve that Bitcoin and Ethereum sign with (SEC 2)."""

from typing import Final

CURVE_ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""Order n: secrets, nonces, r and s are between 1 and n - 1."""
LOW_S_LIMIT: Final = CURVE_ORDER // 2
"""A signature whose s is above has another form that says the same, and is not relayed or not valid (BIP146, EIP-2)."""
