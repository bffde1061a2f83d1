"""Output scripts: the five standard types, their sizes and weights, and bitcoind's dust rule. Pure.

Weights are in weight units (WU, BIP141: four per non-witness byte, one per witness byte).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Final, Literal

import coincurve

from chains.errors import InvalidValue

KeyScript = Literal["p2wpkh", "p2tr"]
"""How one key of an HD wallet locks its coins: BIP84 or BIP86."""

WITNESS_SCALE: Final = 4
"""Weight units in one virtual byte (BIP141)."""

MAX_SCRIPT_BYTES: Final = 10_000
"""Consensus limit of a spendable script."""

MAX_STANDARD_TX_WU: Final = 400_000
"""Transactions above this weight are not relayed (`MAX_STANDARD_TX_WEIGHT`)."""

DUST_RELAY_SAT_PER_KVB: Final = 3_000
"""bitcoind's default `-dustrelayfee`, deliberately far above the relay fee so that it rarely changes."""

SIGNATURE_BYTES: Final = 72
"""Largest low-s DER signature with its sighash byte. HSMs draw random nonces, so low-r can't be assumed."""

_INPUT_BASE_BYTES: Final = 32 + 4 + 1 + 4
"""Outpoint hash and index, empty scriptSig length, sequence."""

INPUT_BASE_WU: Final = _INPUT_BASE_BYTES * WITNESS_SCALE
"""164: an input of a witness program, without its witness."""

P2WPKH_INPUT_WU: Final = INPUT_BASE_WU + 1 + 1 + SIGNATURE_BYTES + 1 + 33
"""272: the worst case for one P2WPKH input (item count, signature, 33-byte key, with their lengths)."""

P2PKH_INPUT_WU: Final = (_INPUT_BASE_BYTES + 1 + SIGNATURE_BYTES + 1 + 33) * WITNESS_SCALE + 1
"""593: a P2PKH input beside segwit inputs (one byte for its empty witness)."""

P2TR_KEY_INPUT_WU: Final = INPUT_BASE_WU + 1 + 1 + 64
"""230: a P2TR key path input with the default sighash (BIP341)."""


@dataclass(frozen=True, slots=True)
class Lock:
    """How all coins of a wallet are locked, as far as sizes and dust go."""

    script: bytes
    """A script as long, and with the same dust limit, as any other of the wallet."""
    input_wu: int
    """Worst case for one input that spends such a coin."""


KEY_LOCKS: Final[Mapping[KeyScript, Lock]] = MappingProxyType(
    {
        "p2wpkh": Lock(b"\x00\x14" + bytes(20), P2WPKH_INPUT_WU),
        "p2tr": Lock(b"\x51\x20" + bytes(32), P2TR_KEY_INPUT_WU),
    }
)
"""Those of HD wallets, by their kind."""

_OUTPUT_SPEND_VB: Final = 32 + 4 + 1 + 107 + 4
"""What bitcoind's dust rule assumes for spending a non-witness output."""

_WITNESS_OUTPUT_SPEND_VB: Final = 32 + 4 + 1 + 107 // WITNESS_SCALE + 4
"""The same for any witness program."""


def hash160(data: bytes) -> bytes:
    """RIPEMD160 of SHA256, 20 bytes."""
    return hashlib.new("ripemd160", hashlib.sha256(data).digest()).digest()


def hash256(data: bytes) -> bytes:
    """SHA256 of SHA256, 32 bytes."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


@lru_cache(maxsize=16)
def _tag_prefix(tag: str) -> bytes:
    digest = hashlib.sha256(tag.encode()).digest()
    return digest + digest


def tagged_hash(tag: str, data: bytes) -> bytes:
    """SHA256 of the tag's SHA256 twice and the data, 32 bytes (BIP340)."""
    return hashlib.sha256(_tag_prefix(tag) + data).digest()


def taproot_tweak(pubkey: bytes) -> bytes:
    """What is added to an internal key (33 bytes) that has no scripts (BIP86): 32 bytes."""
    return tagged_hash("TapTweak", _compressed(pubkey)[1:])


def taproot_output_key(pubkey: bytes) -> bytes:
    """The x-only output key (32 bytes) of an internal key (33 bytes) without scripts (BIP341, BIP86).

    Raises:
        InvalidValue: not 33 bytes starting with 02 or 03, or no point of the curve.
    """
    tweak = taproot_tweak(pubkey)
    try:
        key = coincurve.PublicKeyXOnly(pubkey[1:])
        key.tweak_add(tweak)
    except ValueError as error:
        raise InvalidValue("taproot: the internal key is not on the curve") from error
    return bytes(key.format())


def p2tr_script(pubkey: bytes) -> bytes:
    """The 34-byte script that pays to an internal key (33 bytes) without scripts (BIP86).

    Raises:
        InvalidValue: like `taproot_output_key`.
    """
    return b"\x51\x20" + taproot_output_key(pubkey)


def p2wsh_script(script: bytes) -> bytes:
    """The 34-byte script that pays to a witness script (BIP141)."""
    return b"\x00\x20" + hashlib.sha256(script).digest()


def key_script(kind: KeyScript, pubkey: bytes) -> bytes:
    """The script of one key (33 bytes) of an HD wallet. Raises InvalidValue for a malformed key."""
    return p2tr_script(pubkey) if kind == "p2tr" else p2wpkh_script(pubkey)


def p2wpkh_script(pubkey: bytes) -> bytes:
    """The 22-byte script that pays to a compressed public key (BIP141).

    Raises:
        InvalidValue: not 33 bytes starting with 02 or 03; segwit forbids uncompressed keys.
    """
    return b"\x00\x14" + hash160(_compressed(pubkey))


def p2wpkh_script_from_hash(key_hash: bytes) -> bytes:
    """The 22-byte script that pays to the 20-byte HASH160 of a compressed public key.

    Raises:
        InvalidValue: not 20 bytes.
    """
    return b"\x00\x14" + _exactly(key_hash, 20, "P2WPKH key hash")


def p2pkh_script_from_hash(key_hash: bytes) -> bytes:
    """The 25-byte script DUP HASH160 <20> EQUALVERIFY CHECKSIG.

    Raises:
        InvalidValue: not 20 bytes.
    """
    return b"\x76\xa9\x14" + _exactly(key_hash, 20, "P2PKH key hash") + b"\x88\xac"


def p2sh_script_from_hash(script_hash: bytes) -> bytes:
    """The 23-byte script HASH160 <20> EQUAL (BIP16).

    Raises:
        InvalidValue: not 20 bytes.
    """
    return b"\xa9\x14" + _exactly(script_hash, 20, "P2SH script hash") + b"\x87"


def witness_script(version: int, program: bytes) -> bytes:
    """The script of a standard witness program: version 0 with 20 or 32 bytes, version 1 with 32 bytes.

    Raises:
        InvalidValue: any other combination; it would pay to nobody, or to rules that don't exist yet.
    """
    if (version, len(program)) not in ((0, 20), (0, 32), (1, 32)):
        raise InvalidValue(f"witness version {version} with {len(program)} bytes: no standard type")
    return bytes([0x50 + version if version else 0, len(program)]) + program


def classify(script: bytes) -> str | None:
    """The standard type of a script: `p2pkh`, `p2sh`, `p2wpkh`, `p2wsh`, `p2tr`; None for anything else."""
    size = len(script)
    if size == 22 and script[:2] == b"\x00\x14":
        return "p2wpkh"
    if size == 34 and script[:2] == b"\x00\x20":
        return "p2wsh"
    if size == 34 and script[:2] == b"\x51\x20":
        return "p2tr"
    if size == 25 and script[:3] == b"\x76\xa9\x14" and script[23:] == b"\x88\xac":
        return "p2pkh"
    if size == 23 and script[:2] == b"\xa9\x14" and script[22] == 0x87:
        return "p2sh"
    return None


def dust_limit_sats(script: bytes) -> int:
    """Smallest output to `script` that bitcoind relays: the cost of making and spending it at 3,000 sat/kvB.

    294 for P2WPKH, 330 for P2WSH and P2TR, 540 for P2SH, 546 for P2PKH (`GetDustThreshold`); 0 for
    scripts nobody can spend.
    """
    if script[:1] == b"\x6a" or len(script) > MAX_SCRIPT_BYTES:
        return 0
    spend_vb = _WITNESS_OUTPUT_SPEND_VB if _is_witness_program(script) else _OUTPUT_SPEND_VB
    return -(-(output_size_vb(script) + spend_vb) * DUST_RELAY_SAT_PER_KVB // 1000)


def output_size_vb(script: bytes) -> int:
    """Bytes, which are virtual bytes, of an output: 8 of value, the script's length, the script."""
    size = len(script)
    return 8 + (1 if size < 0xFD else 3 if size <= 0xFFFF else 5) + size


def _is_witness_program(script: bytes) -> bool:
    return (
        4 <= len(script) <= 42
        and (script[0] == 0 or 0x51 <= script[0] <= 0x60)
        and script[1] + 2 == len(script)
    )


def _compressed(pubkey: bytes) -> bytes:
    if len(pubkey) != 33 or pubkey[0] not in (2, 3):
        raise InvalidValue(f"public key of {len(pubkey)} bytes: expected 33, compressed")
    return pubkey


def _exactly(data: bytes, size: int, what: str) -> bytes:
    if len(data) != size:
        raise InvalidValue(f"{what} of {len(data)} bytes: expected {size}")
    return data
