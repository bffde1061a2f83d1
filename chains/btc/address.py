"""Addresses as text and as scripts: base58check, bech32 (BIP173) and bech32m (BIP350). Pure."""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache
from typing import Final

from embit import base58, bech32

from chains.btc.network import NETWORKS, BtcNetwork
from chains.btc.script import (
    classify,
    p2pkh_script_from_hash,
    p2sh_script_from_hash,
    p2wpkh_script_from_hash,
    witness_script,
)
from chains.errors import InvalidAddress, InvalidValue
from chains.types import Address

MAX_ADDRESS_CHARS: Final = 90
"""Limit of BIP173; base58 addresses are shorter."""

_HRPS: Final = frozenset(network.bech32_hrp for network in NETWORKS.values())


def parse_address(text: str, network: BtcNetwork, chain: str) -> Address:
    """Read an address of `network`; `chain` is the id that the result carries.

    Accepts P2PKH, P2SH, P2WPKH, P2WSH and P2TR. Bech32 text may be all upper case (QR codes); the result
    is in lower case.

    Raises:
        InvalidAddress: not an address, bad checksum, mixed case, another network's, or a witness version
            or program length of no standard type (BIP350 lets wallets send there; a custodian must not).
    """
    if not 14 <= len(text) <= MAX_ADDRESS_CHARS or not text.isascii():
        raise InvalidAddress(f"address {text[:100]!r}: expected 14 to {MAX_ADDRESS_CHARS} ASCII characters")
    if text[:2].lower() == "0x":
        raise InvalidAddress(f"address {text!r}: no address of Bitcoin; those of Ethereum begin with 0x")
    if text.lower().rpartition("1")[0] in _HRPS:
        script = _p2wpkh_script(text, network) or _segwit_script(text, network)
        text = text.lower()
    else:
        script = _base58_script(text, network)
    kind = classify(script)
    assert kind is not None
    return Address(chain, text, script, kind)


def address_text(script: bytes, network: BtcNetwork) -> str:
    """The canonical address of a standard script.

    Raises:
        InvalidValue: the script is of no standard type.
    """
    match classify(script):
        case "p2wpkh":
            return p2wpkh_address_text(script[2:], network)
        case "p2wsh" | "p2tr":
            text: str = bech32.encode(network.bech32_hrp, 1 if script[0] else 0, script[2:])
            return text
        case "p2pkh":
            return str(base58.encode_check(bytes([network.p2pkh_version]) + script[3:23]))
        case "p2sh":
            return str(base58.encode_check(bytes([network.p2sh_version]) + script[2:22]))
        case _:
            raise InvalidValue(f"script {script[:40].hex()}: no standard type, so it has no address")


def _segwit_script(text: str, network: BtcNetwork) -> bytes:
    if text.lower() != text and text.upper() != text:
        raise InvalidAddress(f"address {text!r}: mixed upper and lower case")
    encoding, hrp, data = bech32.bech32_decode(text)
    if encoding is None or not data:
        raise InvalidAddress(f"address {text!r}: bad checksum")
    if hrp != network.bech32_hrp:
        raise InvalidAddress(
            f"address {text!r}: wrong network, expected {network.name} ({network.bech32_hrp}1...)"
        )
    version = data[0]
    if (encoding == bech32.Encoding.BECH32) != (version == 0):
        raise InvalidAddress(f"address {text!r}: bad checksum, wrong encoding for witness version {version}")
    program = bech32.convertbits(data[1:], 5, 8, False)
    if program is None:
        raise InvalidAddress(f"address {text!r}: bad padding")
    try:
        return witness_script(version, bytes(program))
    except InvalidValue as error:
        raise InvalidAddress(f"address {text!r}: unknown type, {error}") from None


def _base58_script(text: str, network: BtcNetwork) -> bytes:
    try:
        payload: bytes = base58.decode_check(text)
    except ValueError:
        raise InvalidAddress(f"address {text!r}: bad checksum, or neither base58 nor bech32") from None
    if len(payload) != 21 or base58.encode_check(payload) != text:
        raise InvalidAddress(f"address {text!r}: unknown type, {len(payload)} bytes")
    if payload[0] == network.p2pkh_version:
        return p2pkh_script_from_hash(payload[1:])
    if payload[0] == network.p2sh_version:
        return p2sh_script_from_hash(payload[1:])
    if any(payload[0] in (other.p2pkh_version, other.p2sh_version) for other in NETWORKS.values()):
        raise InvalidAddress(f"address {text!r}: wrong network, expected {network.name}")
    raise InvalidAddress(f"address {text!r}: unknown type, version byte {payload[0]}")


# The rest writes and reads P2WPKH addresses quickly: base32 is done in C, and the checksum of BIP173 is linear over
# GF(2), so it is the XOR of one table entry per byte of the key hash.

_BASE32: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_TO_BECH32: Final = bytes.maketrans(_BASE32, bech32.CHARSET.encode())
_FROM_BECH32: Final = bytes.maketrans(bech32.CHARSET.encode(), _BASE32)
_KEY_HASH_CHARS: Final = 32
_CHECKSUM_CHARS: Final = 6


def p2wpkh_address_text(key_hash: bytes, network: BtcNetwork) -> str:
    """The address of a 20-byte key hash, about twenty times faster than the reference encoder.

    Raises:
        InvalidValue: not 20 bytes.
    """
    if len(key_hash) != 20:
        raise InvalidValue(f"P2WPKH key hash of {len(key_hash)} bytes: expected 20")
    constant, tables = _checksum_tables(network.bech32_hrp)
    checksum = constant
    for table, byte in zip(tables, key_hash, strict=True):
        checksum ^= table[byte]
    tail = base64.b32encode((checksum << 2).to_bytes(4, "big"))[:6]
    body = base64.b32encode(key_hash) + tail
    return f"{network.bech32_hrp}1q{body.translate(_TO_BECH32).decode()}"


def _p2wpkh_script(text: str, network: BtcNetwork) -> bytes | None:
    """The script of a P2WPKH address of `network` in its canonical text; None for every other text."""
    if len(text) != len(network.bech32_hrp) + 2 + _KEY_HASH_CHARS + _CHECKSUM_CHARS:
        return None
    digits = text[-_KEY_HASH_CHARS - _CHECKSUM_CHARS : -_CHECKSUM_CHARS].encode().translate(_FROM_BECH32)
    try:
        key_hash = base64.b32decode(digits)
    except binascii.Error:
        return None
    # Whatever was read: it is an address if and only if it is written like this one.
    return p2wpkh_script_from_hash(key_hash) if p2wpkh_address_text(key_hash, network) == text else None


@lru_cache(maxsize=8)
def _checksum_tables(hrp: str) -> tuple[int, tuple[tuple[int, ...], ...]]:
    """Checksum (30 bits) of an all-zero hash, and per byte position what each byte value changes in it."""

    def checksum(key_hash: bytes) -> int:
        value = 0
        for digit in bech32.bech32_create_checksum(
            bech32.Encoding.BECH32, hrp, [0, *bech32.convertbits(key_hash, 8, 5)]
        ):
            value = value << 5 | digit
        return value

    zero = checksum(bytes(20))
    tables = []
    for position in range(20):
        bits = [
            checksum(bytes(position) + bytes([1 << bit]) + bytes(19 - position)) ^ zero for bit in range(8)
        ]
        table = [0] * 256
        for byte in range(1, 256):
            low = byte & -byte
            table[byte] = table[byte ^ low] ^ bits[low.bit_length() - 1]
        tables.append(tuple(table))
    return zero, tuple(tables)
