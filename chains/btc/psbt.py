"""PSBT version 0 (BIP174) for P2WPKH: written and read through embit, checked by our own decoder. Pure.

Only what our signers need is allowed in: the unsigned transaction; per input the whole previous
transaction (a signer that believes a bare amount can be made to overpay fees), optionally its output
again, the sighash type ALL and one key origin; per output one key origin. Anything else is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import coincurve
from coincurve.ecdsa import cdata_to_der, der_to_cdata
from embit import ec
from embit import psbt as embit_psbt
from embit.base import EmbitError
from embit.transaction import Transaction as EmbitTransaction

from chains.btc.codec import Reader, with_size
from chains.btc.script import p2wpkh_script
from chains.btc.tx import (
    MAX_TX_BYTES,
    SIGHASH_ALL,
    Outpoint,
    SegwitDigests,
    Transaction,
    TxOut,
    with_witnesses,
)
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
_IN_BIP32_DERIVATION: Final = 0x06
_OUT_BIP32_DERIVATION: Final = 0x02

_INPUT_KEYS: Final = frozenset(
    (_IN_NON_WITNESS_UTXO, _IN_WITNESS_UTXO, _IN_SIGHASH_TYPE, _IN_BIP32_DERIVATION)
)
_OUTPUT_KEYS: Final = frozenset((_OUT_BIP32_DERIVATION,))
_GLOBAL_KEYS: Final = frozenset((_GLOBAL_UNSIGNED_TX,))
_MAX_KEY_BYTES: Final = 34

_EMBIT_ERRORS: Final = (EmbitError, ValueError, RuntimeError, TypeError, LookupError, ArithmeticError)
"""What embit raises on malformed data; it has no common base for them."""


class NativeCurveMissing(PermanentError):
    """embit fell back to its pure-Python secp256k1, which is slow and not constant-time."""


class InvalidSignature(PermanentError):
    """A signature that doesn't verify, or isn't in the one form we release."""


@dataclass(frozen=True, slots=True)
class PsbtInput:
    """One input to be signed, with all that a signer needs to judge it."""

    outpoint: Outpoint
    sequence: int
    previous: bytes
    """The whole previous transaction, serialised; its txid must be the outpoint's."""
    path: tuple[int, ...] | None
    """Derivation path of the key from the master key (hardened steps with bit 31), None where not ours."""
    pubkey: bytes
    """33 bytes; ignored where `path` is None."""


@dataclass(frozen=True, slots=True)
class KeyOrigin:
    """Where a key comes from. A hint: a signer derives the key itself and compares scripts."""

    pubkey: bytes
    """33 bytes, compressed."""
    fingerprint: bytes
    """First 4 bytes of HASH160 of the master public key."""
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ParsedPsbt:
    """A checked PSBT: the previous transactions hash to the outpoints' txids and have those outputs."""

    tx: Transaction
    """Unsigned."""
    previous: tuple[bytes, ...]
    """The whole previous transaction of each input, in input order."""
    spent: tuple[TxOut, ...]
    """The output that each input spends, read from `previous`."""
    input_origins: tuple[KeyOrigin | None, ...]
    output_origins: tuple[KeyOrigin | None, ...]

    @property
    def input_paths(self) -> tuple[tuple[int, ...] | None, ...]:
        """Derivation path of each input's key, None where the PSBT names none."""
        return tuple(origin.path if origin else None for origin in self.input_origins)

    @property
    def output_paths(self) -> tuple[tuple[int, ...] | None, ...]:
        """Derivation path of each output's key (change), None for payments."""
        return tuple(origin.path if origin else None for origin in self.output_origins)

    @property
    def fee_sats(self) -> int:
        """What the inputs bring beyond the outputs; checked to be 0 or more."""
        return sum(out.units for out in self.spent) - sum(out.units for out in self.tx.outputs)


@dataclass(frozen=True, slots=True)
class InputSignature:
    """A signature for one input."""

    index: int
    pubkey: bytes
    """33 bytes, compressed."""
    signature_der: bytes
    """Low-s DER without the sighash byte."""


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


def build_psbt(
    tx: Transaction,
    inputs: Sequence[PsbtInput],
    change: Mapping[int, tuple[bytes, tuple[int, ...]]],
    master_fingerprint: bytes,
) -> bytes:
    """Serialise the unsigned `tx` with everything a signer needs.

    Args:
        inputs: one per input of `tx`, in its order.
        change: public key (33 bytes) and path from the master key, by index of each output that is ours.
        master_fingerprint: 4 bytes.

    Raises:
        InvalidValue: inputs don't match `tx`, a previous transaction isn't the one spent, or a path or
            key is malformed; what this returns, `parse_psbt` accepts.
        NativeCurveMissing: see `require_native_curve`.
    """
    require_native_curve()
    if [(i.outpoint, i.sequence) for i in inputs] != [(i.outpoint, i.sequence) for i in tx.inputs]:
        raise InvalidValue("PSBT inputs are not those of the transaction, in its order")
    if len(master_fingerprint) != 4 or not all(0 <= index < len(tx.outputs) for index in change):
        raise InvalidValue("PSBT: expected a fingerprint of 4 bytes, and change among the outputs")
    try:
        psbt = embit_psbt.PSBT(EmbitTransaction.parse(tx.serialize()), unknown={})
        for scope, item in zip(psbt.inputs, inputs, strict=True):
            scope.non_witness_utxo = EmbitTransaction.parse(item.previous)
            scope.sighash_type = SIGHASH_ALL
            if item.path is not None:
                _put_origin(scope, item.pubkey, master_fingerprint, item.path)
        for index, (pubkey, path) in change.items():
            _put_origin(psbt.outputs[index], pubkey, master_fingerprint, path)
        raw: bytes = psbt.serialize()
    except _EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT can't be built: {error}") from error
    if parse_psbt(raw).tx != tx:
        raise InvalidValue("PSBT does not hold the transaction it was built from")
    return raw


def parse_psbt(raw: bytes) -> ParsedPsbt:
    """Decode and check a PSBT with our own decoder and with embit; both must see the same transaction.

    Raises:
        InvalidValue: not exactly one PSBT of the form this module's docstring allows; a previous
            transaction is missing or isn't the one spent; the outputs exceed the inputs.
        NativeCurveMissing: see `require_native_curve`.
    """
    require_native_curve()
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
    parsed = ParsedPsbt(
        tx,
        tuple(previous),
        tuple(spent),
        tuple(_origin(fields, _IN_BIP32_DERIVATION) for fields in input_maps),
        tuple(_origin(fields, _OUT_BIP32_DERIVATION) for fields in output_maps),
    )
    if parsed.fee_sats < 0:
        raise InvalidValue(f"PSBT spends {-parsed.fee_sats} sats more than its inputs bring")
    _embit_agrees(raw, parsed)
    return parsed


def finalize_p2wpkh(psbt: ParsedPsbt, signatures: Iterable[InputSignature]) -> bytes:
    """The signed transaction's bytes. Every signature is verified before it is put in.

    Raises:
        InvalidSignature: an input without exactly one signature; a key that the spent script doesn't name;
            a signature that is high-s, not DER, or doesn't verify against the BIP143 digest.
    """
    digests = SegwitDigests(psbt.tx)
    witnesses: dict[int, tuple[bytes, bytes]] = {}
    for item in signatures:
        if not 0 <= item.index < len(psbt.spent) or item.index in witnesses:
            raise InvalidSignature(f"input {item.index}: no such input, or signed twice")
        output = psbt.spent[item.index]
        if p2wpkh_script(item.pubkey) != output.script:
            raise InvalidSignature(f"input {item.index}: the key is not the one its script pays to")
        _check_signature(item, digests.p2wpkh(item.index, item.pubkey, output.units))
        witnesses[item.index] = (item.signature_der + bytes([SIGHASH_ALL]), item.pubkey)
    if len(witnesses) != len(psbt.spent):
        raise InvalidSignature(f"{len(witnesses)} of {len(psbt.spent)} inputs are signed")
    return with_witnesses(psbt.tx, [witnesses[index] for index in range(len(witnesses))]).serialize()


def _check_signature(item: InputSignature, digest: bytes) -> None:
    try:
        canonical = cdata_to_der(der_to_cdata(item.signature_der)) == item.signature_der
        # libsecp256k1 verifies low-s signatures only.
        valid = coincurve.PublicKey(item.pubkey).verify(item.signature_der, digest, hasher=None)
    except ValueError as error:
        raise InvalidSignature(f"input {item.index}: {error}") from error
    if not canonical or not valid:
        raise InvalidSignature(f"input {item.index}: the signature doesn't verify, or isn't low-s DER")


def _put_origin(scope: Any, pubkey: bytes, fingerprint: bytes, path: tuple[int, ...]) -> None:
    scope.bip32_derivations[ec.PublicKey.parse(pubkey)] = embit_psbt.DerivationPath(fingerprint, list(path))


def _read_map(reader: Reader, allowed: frozenset[int], what: str) -> dict[int, tuple[bytes, bytes]]:
    """One key-value map: by key type, the rest of the key and the value. Each type at most once."""
    fields: dict[int, tuple[bytes, bytes]] = {}
    while key := reader.string(_MAX_KEY_BYTES):
        kind, rest = key[0], key[1:]
        if kind not in allowed:
            raise InvalidValue(f"PSBT {what}: field {kind:#04x} is not allowed here")
        if kind in fields:
            raise InvalidValue(f"PSBT {what}: field {kind:#04x} comes twice")
        fields[kind] = (rest, reader.string(MAX_TX_BYTES))
    return fields


def _plain(fields: Mapping[int, tuple[bytes, bytes]], kind: int) -> bytes | None:
    """The value of a field whose key is its type alone; None where the field is missing."""
    if kind not in fields:
        return None
    rest, value = fields[kind]
    if rest:
        raise InvalidValue(f"PSBT field {kind:#04x}: its key has {len(rest)} bytes too many")
    return value


def _unsigned_tx(fields: Mapping[int, tuple[bytes, bytes]]) -> Transaction:
    raw = _plain(fields, _GLOBAL_UNSIGNED_TX)
    if raw is None:
        raise InvalidValue("PSBT without an unsigned transaction")
    tx = Transaction.parse(raw)
    if any(txin.script_sig or txin.witness for txin in tx.inputs):
        raise InvalidValue("PSBT whose unsigned transaction is signed")
    return tx


def _previous_output(outpoint: Outpoint, fields: Mapping[int, tuple[bytes, bytes]]) -> tuple[bytes, TxOut]:
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
    sighash = _plain(fields, _IN_SIGHASH_TYPE)
    if sighash is not None and sighash != SIGHASH_ALL.to_bytes(4, "little"):
        raise InvalidValue(f"PSBT input {outpoint}: sighash type {sighash.hex()}, only ALL is signed")
    return raw, output


def _origin(fields: Mapping[int, tuple[bytes, bytes]], kind: int) -> KeyOrigin | None:
    if kind not in fields:
        return None
    pubkey, value = fields[kind]
    if len(pubkey) != 33 or len(value) % 4 or not 4 <= len(value) <= 4 + 4 * MAX_PATH_STEPS:
        raise InvalidValue(f"PSBT key origin of {len(pubkey)} and {len(value)} bytes: malformed")
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
    except _EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT refused by the second decoder: {error}") from error
    expected = (
        parsed.tx.txid.hex,
        parsed.fee_sats,
        [txin.outpoint.txid.hex for txin in parsed.tx.inputs],
    )
    if seen != expected:
        raise InvalidValue(f"PSBT: two decoders disagree: {seen[:2]} and {expected[:2]}")
