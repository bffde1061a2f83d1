"""Messages signed by the key of an address: BIP322, its simple form, for P2WPKH and for P2TR by key path. Pure.

What is signed is a transaction that can never be valid, so the digests are those of payments. The curve is the
library's; in the tests another implementation has to agree.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import coincurve

from chains.btc.script import hash160, tagged_hash
from chains.btc.tx import SIGHASH_ALL, Outpoint, TaprootDigests, Transaction, TxIn, TxOut, sighash_p2wpkh
from chains.errors import InvalidValue
from chains.types import Address, TxId

SUPPORTED: Final = frozenset({"p2wpkh", "p2tr"})
"""Kinds of addresses whose messages can be verified."""
_PREFIX: Final = "smp"
"""Of a simple signature in the BIP's later text; the first one has none."""
_NOWHERE: Final = Outpoint(TxId("00" * 32), 0xFFFF_FFFF)
_OP_RETURN: Final = b"\x6a"


def to_sign(address: Address, message: str) -> Transaction:
    """The transaction whose only input a message's signature spends."""
    digest = tagged_hash("BIP0322-signed-message", message.encode())
    spent = Transaction(
        0, (TxIn(_NOWHERE, 0, b"\x00\x20" + digest),), (TxOut(0, address.script),), locktime=0
    )
    return Transaction(0, (TxIn(Outpoint(spent.txid, 0), 0),), (TxOut(0, _OP_RETURN),), locktime=0)


def verifies(address: Address, message: str, signature: str) -> bool:
    """Whether the key of an address has signed a message.

    Args:
        address: of a kind in `SUPPORTED`.
        message: any text.
        signature: the witness stack as base64.

    Raises:
        InvalidValue: an address of another kind.
    """
    if address.kind not in SUPPORTED:
        raise InvalidValue(f"messages of a {address.kind} address can't be verified: only of P2WPKH and P2TR")
    stack = _stack(signature)
    if stack is None:
        return False
    tx = to_sign(address, message)
    if address.kind == "p2tr":
        return len(stack) == 1 and _taproot(address, tx, stack[0])
    return len(stack) == 2 and _segwit(address, tx, stack[0], stack[1])


def _segwit(address: Address, tx: Transaction, signature: bytes, pubkey: bytes) -> bool:
    if len(pubkey) != 33 or hash160(pubkey) != address.script[2:] or signature[-1:] != bytes([SIGHASH_ALL]):
        return False
    try:
        key = coincurve.PublicKey(pubkey)
        return key.verify(signature[:-1], sighash_p2wpkh(tx, 0, pubkey, 0), hasher=None)
    except ValueError:
        return False


def _taproot(address: Address, tx: Transaction, signature: bytes) -> bool:
    # Both hash types cover everything; the first one has no byte in the signature.
    if len(signature) == 64:
        digests = TaprootDigests(tx, [TxOut(0, address.script)])
    elif len(signature) == 65 and signature[64] == SIGHASH_ALL:
        digests = TaprootDigests(tx, [TxOut(0, address.script)], SIGHASH_ALL)
    else:
        return False
    try:
        return coincurve.PublicKeyXOnly(address.script[2:]).verify(signature[:64], digests.key_path(0))
    except ValueError:
        return False


def _stack(signature: str) -> list[bytes] | None:
    """The witness stack of a simple signature; None if it is none. No item that we verify is longer than 252 bytes."""
    text = signature.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    if not raw:
        return None
    items, rest = [], raw[1:]
    for _ in range(min(raw[0], 3)):
        if not rest or rest[0] > 252 or len(rest) < 1 + rest[0]:
            return None
        items.append(rest[1 : 1 + rest[0]])
        rest = rest[1 + rest[0] :]
    return items if not rest and len(items) == raw[0] else None
