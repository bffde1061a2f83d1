"""Reading a PSBT strictly: our own decoder, and embit's as a second opinion. See the package for what is allowed.

Whoever builds, shows or broadcasts bytes asks both (`parse_psbt`). A signer asks the first alone (`read_psbt`): it
signs no bytes, but its own serialisation of what it has read and judged, and the digests of BIP143 and BIP341 commit
to the amounts besides. A decoder's mistake makes a signature worthless, never one for something unseen.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, NamedTuple

import coincurve
from embit import psbt as embit_psbt
from embit.base import EmbitError

from chains.btc.codec import Reader, with_size
from chains.btc.multisig_script import MAX_KEYS
from chains.btc.psbt.model import KeyOrigin, ParsedPsbt
from chains.btc.script import classify, p2wsh_script
from chains.btc.tx import MAX_TX_BYTES, SIGHASH_ALL, SIGHASH_DEFAULT, Outpoint, Transaction, TxOut
from chains.errors import InvalidValue, PermanentError

MAX_PSBT_BYTES: Final = 64_000_000
"""Bound of a PSBT with all its previous transactions."""

MAX_PATH_STEPS: Final = 10
"""Longest derivation path accepted."""

_MAGIC: Final = b"psbt\xff"
_GLOBAL_UNSIGNED_TX: Final = 0x00
_IN_NON_WITNESS_UTXO: Final = 0x00
_IN_WITNESS_UTXO: Final = 0x01
_IN_SIGHASH_TYPE: Final = 0x03


class _Numbers(NamedTuple):
    """Numbers of the fields that inputs and outputs both have (BIP174, BIP371)."""

    witness_script: int
    derivation: int
    taproot_derivation: int
    taproot_key: int


_INPUT: Final = _Numbers(0x05, 0x06, 0x16, 0x17)
_OUTPUT: Final = _Numbers(0x01, 0x02, 0x07, 0x05)
_INPUT_KEYS: Final = frozenset((_IN_NON_WITNESS_UTXO, _IN_WITNESS_UTXO, _IN_SIGHASH_TYPE, *_INPUT))
_OUTPUT_KEYS: Final = frozenset(_OUTPUT)
_GLOBAL_KEYS: Final = frozenset((_GLOBAL_UNSIGNED_TX,))
_MAX_KEY_BYTES: Final = 34

EMBIT_ERRORS: Final = (EmbitError, ValueError, RuntimeError, TypeError, LookupError, ArithmeticError)
"""What embit raises on malformed data; it has no common base for them."""


Fields = Mapping[int, Mapping[bytes, bytes]]
"""One map of a PSBT: by the type of the key, the rest of each key and its value."""


class NativeCurveMissing(PermanentError):
    """embit fell back to its pure-Python secp256k1, which is slow and not constant-time."""


def require_native_curve() -> None:
    """Refuse to run on embit's silent fallback.

    Raises:
        NativeCurveMissing: the native library did not load.
    """
    from embit.util import secp256k1

    if not secp256k1.ec_pubkey_create.__module__.endswith("ctypes_secp256k1"):
        raise NativeCurveMissing(
            "embit runs on pure Python: its native libsecp256k1 did not load on this machine"
        )


def parse_psbt(raw: bytes) -> ParsedPsbt:
    """Decode and check a PSBT with our own decoder and with embit; both must see the same transaction.

    Raises:
        InvalidValue: as `read_psbt` says, or embit refuses it or sees another transaction.
        NativeCurveMissing: see `require_native_curve`.
    """
    require_native_curve()
    parsed = read_psbt(raw)
    _embit_agrees(raw, parsed)
    return parsed


def read_psbt(raw: bytes) -> ParsedPsbt:
    """Decode and check a PSBT with our own decoder.

    Raises:
        InvalidValue: not exactly one PSBT of the form the package's docstring allows; a previous
            transaction is missing or isn't the one spent; the outputs exceed the inputs.
    """
    if not raw.startswith(_MAGIC) or len(raw) > MAX_PSBT_BYTES:
        raise InvalidValue(f"{len(raw)} bytes starting with {raw[:5].hex()}: expected a PSBT")
    reader = Reader(raw)
    reader.take(len(_MAGIC))
    tx = _unsigned_tx(_read_map(reader, _GLOBAL_KEYS, "global"))
    input_maps = [_read_map(reader, _INPUT_KEYS, f"input {index}") for index in range(len(tx.inputs))]
    output_maps = [_read_map(reader, _OUTPUT_KEYS, f"output {index}") for index in range(len(tx.outputs))]
    reader.finish("PSBT")

    previous, spent = [], []
    for txin, fields in zip(tx.inputs, input_maps, strict=True):
        whole, output = _previous_output(txin.outpoint, fields)
        previous.append(whole)
        spent.append(output)
    inputs = list(zip(input_maps, spent, strict=True))
    outputs = list(zip(output_maps, tx.outputs, strict=True))
    for fields, output in inputs:
        _check_sighash(fields, output)
    parsed = ParsedPsbt(
        tx,
        tuple(previous),
        tuple(spent),
        tuple(_keys(fields, output.script, _INPUT) for fields, output in inputs),
        tuple(_keys(fields, output.script, _OUTPUT) for fields, output in outputs),
        tuple(_script(fields, output.script, _INPUT) for fields, output in inputs),
        tuple(_script(fields, output.script, _OUTPUT) for fields, output in outputs),
    )
    if parsed.fee_sats < 0:
        raise InvalidValue(f"PSBT spends {-parsed.fee_sats} sats more than its inputs bring")
    return parsed


def _read_map(reader: Reader, allowed: Container[int], what: str) -> Fields:
    """One key-value map. No key comes twice."""
    fields: dict[int, dict[bytes, bytes]] = {}
    while key := reader.string(_MAX_KEY_BYTES):
        kind, rest = key[0], key[1:]
        if kind not in allowed:
            raise InvalidValue(f"PSBT {what}: field {kind:#04x} is not allowed here")
        values = fields.setdefault(kind, {})
        if rest in values:
            raise InvalidValue(f"PSBT {what}: field {kind:#04x} comes twice")
        values[rest] = reader.string(MAX_TX_BYTES)
    return fields


def _plain(fields: Fields, kind: int) -> bytes | None:
    """The value of a field whose key is its type alone; None where the field is missing."""
    values = fields.get(kind)
    if values is None:
        return None
    if values.keys() != {b""}:
        raise InvalidValue(f"PSBT field {kind:#04x}: its key is longer than its type")
    return values[b""]


def _unsigned_tx(fields: Fields) -> Transaction:
    raw = _plain(fields, _GLOBAL_UNSIGNED_TX)
    if raw is None:
        raise InvalidValue("PSBT without an unsigned transaction")
    tx = Transaction.parse(raw)
    if any(txin.script_sig or txin.witness for txin in tx.inputs):
        raise InvalidValue("PSBT whose unsigned transaction is signed")
    return tx


def _previous_output(outpoint: Outpoint, fields: Fields) -> tuple[bytes, TxOut]:
    raw = _plain(fields, _IN_NON_WITNESS_UTXO)
    if raw is None:
        raise InvalidValue(f"PSBT input {outpoint}: the whole previous transaction is required")
    previous = Transaction.parse(raw)
    if previous.txid != outpoint.txid or outpoint.vout >= len(previous.outputs):
        raise InvalidValue(f"PSBT input {outpoint}: {previous.txid} is not the transaction it spends")
    output = previous.outputs[outpoint.vout]
    repeated = _plain(fields, _IN_WITNESS_UTXO)
    if repeated is not None and repeated != output.units.to_bytes(8, "little") + with_size(output.script):
        raise InvalidValue(
            f"PSBT input {outpoint}: its amount or script contradicts the previous transaction"
        )
    return raw, output


def _check_sighash(fields: Fields, spent: TxOut) -> None:
    sighash, taproot = _plain(fields, _IN_SIGHASH_TYPE), classify(spent.script) == "p2tr"
    expected = SIGHASH_DEFAULT if taproot else SIGHASH_ALL
    if sighash is not None and sighash != expected.to_bytes(4, "little"):
        raise InvalidValue(
            f"PSBT: sighash type {sighash.hex()}: only {'DEFAULT' if taproot else 'ALL'} is signed here"
        )


def _keys(fields: Fields, script: bytes, numbers: _Numbers) -> tuple[KeyOrigin, ...]:
    """Origins of the keys behind a script, sorted by key; fields that other scripts would need are refused."""
    kind = classify(script)
    if kind == "p2tr":
        if {numbers.derivation, numbers.witness_script} & fields.keys():
            raise InvalidValue("PSBT: a taproot output has no keys of other scripts")
        return _taproot_keys(fields, numbers)
    if {numbers.taproot_key, numbers.taproot_derivation} & fields.keys():
        raise InvalidValue("PSBT: only a taproot output has an internal key")
    keys = tuple(_origin(*item, 33) for item in sorted(fields.get(numbers.derivation, {}).items()))
    if len(keys) > (MAX_KEYS if kind == "p2wsh" else 1):
        raise InvalidValue(f"PSBT: {len(keys)} key origins for one output")
    return keys


def _taproot_keys(fields: Fields, numbers: _Numbers) -> tuple[KeyOrigin, ...]:
    """The origin of the internal key, from which nothing but a key path follows (BIP371)."""
    internal = _plain(fields, numbers.taproot_key)
    keys = []
    for key, value in fields.get(numbers.taproot_derivation, {}).items():
        if value[:1] != b"\x00":
            raise InvalidValue("PSBT: a taproot key in scripts, where only key paths are signed")
        keys.append(_origin(key, value[1:], 32))
    if len(keys) > 1 or (internal is not None and [key.pubkey for key in keys] != [internal]):
        raise InvalidValue("PSBT: expected the origin of the internal key, and of no other")
    return tuple(keys)


def _script(fields: Fields, script: bytes, numbers: _Numbers) -> bytes | None:
    """The witness script, if there is one; checked to be the one that the output pays to."""
    found = _plain(fields, numbers.witness_script)
    if found is not None and p2wsh_script(found) != script:
        raise InvalidValue("PSBT: a witness script that the output does not pay to")
    return found


def _origin(pubkey: bytes, value: bytes, key_bytes: int) -> KeyOrigin:
    if len(pubkey) != key_bytes or len(value) % 4 or not 4 <= len(value) <= 4 + 4 * MAX_PATH_STEPS:
        raise InvalidValue(f"PSBT key origin of {len(pubkey)} and {len(value)} bytes: malformed")
    try:
        coincurve.PublicKey(pubkey if key_bytes == 33 else b"\x02" + pubkey)
    except ValueError:
        raise InvalidValue(f"PSBT key origin: {pubkey.hex()} is no point of the curve") from None
    path = tuple(int.from_bytes(value[at : at + 4], "little") for at in range(4, len(value), 4))
    return KeyOrigin(pubkey, value[:4], path)


def _embit_agrees(raw: bytes, parsed: ParsedPsbt) -> None:
    """Refuse what another decoder reads differently: one of the two would be signing something unseen."""
    try:
        other = embit_psbt.PSBT.parse(raw)
        other.verify()
        seen = (
            other.tx.txid().hex(),
            other.fee(),
            [utxo_scope.non_witness_utxo.txid().hex() for utxo_scope in other.inputs],
        )
    except EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT refused by the second decoder: {error}") from error
    expected = (
        parsed.tx.txid.hex,
        parsed.fee_sats,
        [txin.outpoint.txid.hex for txin in parsed.tx.inputs],
    )
    if seen != expected:
        raise InvalidValue(f"PSBT: two decoders disagree: {seen[:2]} and {expected[:2]}")
