"""Messages signed by throwaway keys (BIP322)."""

from __future__ import annotations

import base64

import coincurve

from chains.btc.message import to_sign
from chains.btc.tx import sighash_p2wpkh
from chains.types import Address


def signed_by(key: coincurve.PrivateKey, address: Address, message: str) -> str:
    """The signature that a key makes for a P2WPKH address, be it its own or not."""
    pubkey = key.public_key.format()
    der = key.sign(sighash_p2wpkh(to_sign(address, message), 0, pubkey, 0), hasher=None) + b"\x01"
    stack = bytes([2, len(der)]) + der + bytes([len(pubkey)]) + pubkey
    return base64.b64encode(stack).decode()
