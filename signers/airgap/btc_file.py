"""A Bitcoin payment as a file: PSBT of version 0 (BIP174) or 2 (BIP370), in the forms that standard wallets write.

Two decoders read it: ours, which takes the fields apart and puts those that matter into the strict form of
`chains.btc.psbt`, and embit, which reads the file as it came. Both must see the same transaction, the same coins, keys
and scripts, and the same digests to sign. Unknown fields and those of other ways to sign are refused. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from embit import psbt as embit_psbt

from chains.btc.codec import Reader, compact_size, with_size
from chains.btc.psbt import InputSignature, KeyOrigin, ParsedPsbt, parse_psbt
from chains.btc.psbt.read import EMBIT_ERRORS, MAX_PSBT_BYTES
from chains.btc.script import classify
from chains.btc.tx import (
    MAX_TX_BYTES,
    SIGHASH_ALL,
    Outpoint,
    SegwitDigests,
    Transaction,
    TxIn,
    TxOut,
)
from chains.errors import InvalidValue
from signers.airgap.keys import WrongSignature, check_signature

MAGIC: Final = b"psbt\xff"
MAX_FIELD_KEY_BYTES: Final = 256

PROPRIETARY: Final = 0xFC
"""Notes of other programs; they change nothing, and stay in the file."""
GLOBAL_TX, GLOBAL_XPUB, GLOBAL_VERSION = 0x00, 0x01, 0xFB
V2_TX_VERSION, V2_LOCKTIME, V2_INPUTS, V2_OUTPUTS, V2_MODIFIABLE = 0x02, 0x03, 0x04, 0x05, 0x06
IN_PARTIAL_SIG = 0x02
V2_IN_TXID, V2_IN_VOUT, V2_IN_SEQUENCE = 0x0E, 0x0F, 0x10
V2_OUT_AMOUNT, V2_OUT_SCRIPT = 0x03, 0x04

_STRICT_IN: Final = frozenset((0x00, 0x01, 0x03, 0x05, 0x06))
_STRICT_OUT: Final = frozenset((0x01, 0x02, 0x05, 0x07))
_ALLOWED: Final[Mapping[tuple[str, int], frozenset[int]]] = {
    ("global", 0): frozenset((GLOBAL_TX, GLOBAL_XPUB, GLOBAL_VERSION, PROPRIETARY)),
    ("global", 2): frozenset(
        (GLOBAL_XPUB, GLOBAL_VERSION, V2_TX_VERSION, V2_LOCKTIME, V2_INPUTS, V2_OUTPUTS, V2_MODIFIABLE, PROPRIETARY)
    ),
    ("input", 0): _STRICT_IN | {IN_PARTIAL_SIG, PROPRIETARY},
    ("input", 2): _STRICT_IN | {IN_PARTIAL_SIG, V2_IN_TXID, V2_IN_VOUT, V2_IN_SEQUENCE, PROPRIETARY},
    ("output", 0): _STRICT_OUT | {PROPRIETARY},
    ("output", 2): _STRICT_OUT | {V2_OUT_AMOUNT, V2_OUT_SCRIPT, PROPRIETARY},
}  # fmt: skip
_TOLD: Final[Mapping[tuple[str, int], str]] = {
    ("input", 0x04): "it spends an older kind of output (P2SH)",
    ("input", 0x07): "it is finished already",
    ("input", 0x08): "it is finished already",
    ("input", 0x11): "it asks for a time lock",
    ("input", 0x12): "it asks for a time lock",
}

Pairs = tuple[tuple[bytes, bytes], ...]
"""One map of the file, in its order: key with its type in front, and value."""


@dataclass(frozen=True, slots=True)
class PaymentFile:
    """What both decoders agree on."""

    psbt: ParsedPsbt
    version: Literal[0, 2]
    signed_by: tuple[frozenset[bytes], ...]
    """Of each input, the keys (33 bytes) whose signatures are in the file; each was verified."""
    digests: tuple[bytes, ...]
    """What is signed for each P2WSH input that names its script, 32 bytes (BIP143, ALL); empty for other inputs."""
    head: Pairs
    inputs: tuple[Pairs, ...]
    outputs: tuple[Pairs, ...]


def read_payment(raw: bytes) -> PaymentFile:
    """Read a PSBT with both decoders.

    Raises:
        InvalidValue: not exactly one PSBT; a field that is unknown or of another way to sign; a previous transaction is
            missing or another one; a sighash type other than ALL; a signature that does not verify; or the two
            decoders disagree.
        NativeCurveMissing: embit fell back to pure Python.
    """
    version, head, inputs, outputs = _maps(raw)
    tx = _unsigned(version, head, inputs, outputs)
    strict = b"".join(
        [
            MAGIC,
            _written([(bytes([GLOBAL_TX]), tx.serialize())]),
            *(_written(pair for pair in pairs if pair[0][0] in _STRICT_IN) for pairs in inputs),
            *(_written(pair for pair in pairs if pair[0][0] in _STRICT_OUT) for pairs in outputs),
        ]
    )
    psbt = parse_psbt(strict)
    digests = _digests(psbt)
    _second_decoder(raw, psbt, digests)
    return PaymentFile(
        psbt, version, _signed_by(inputs, digests), digests, head, tuple(inputs), tuple(outputs)
    )


def with_signatures(file: PaymentFile, signatures: Sequence[InputSignature]) -> bytes:
    """The file with these signatures in it and nothing else changed. Again changes nothing.

    Raises:
        InvalidValue: it would not be read as the same payment any more.
    """
    inputs = [list(pairs) for pairs in file.inputs]
    for item in signatures:
        key = bytes([IN_PARTIAL_SIG]) + item.pubkey
        pairs = inputs[item.index]
        if key not in dict(pairs):
            at = next((at for at, (found, _) in enumerate(pairs) if found > key), len(pairs))
            pairs.insert(at, (key, item.signature))
    raw = b"".join([MAGIC, _written(file.head), *map(_written, inputs), *map(_written, file.outputs)])
    again = read_payment(raw)
    if again.psbt != file.psbt or not all(item.pubkey in again.signed_by[item.index] for item in signatures):
        raise InvalidValue("the signed file is not the same payment")
    return raw


def _maps(raw: bytes) -> tuple[Literal[0, 2], Pairs, list[Pairs], list[Pairs]]:
    if not raw.startswith(MAGIC) or len(raw) > MAX_PSBT_BYTES:
        raise InvalidValue("this is not a Bitcoin payment file (PSBT)")
    reader = Reader(raw)
    reader.take(len(MAGIC))
    head = _map(reader)
    stated = int.from_bytes(_one(head, GLOBAL_VERSION, 4) or bytes(4), "little")
    if stated not in (0, 2):
        raise InvalidValue(f"PSBT of version {stated}: 0 and 2 are read")
    version: Literal[0, 2] = 2 if stated else 0
    _check_types(head, "global", version)
    if version == 0:
        tx = Transaction.parse(_required(head, GLOBAL_TX))
        counts = len(tx.inputs), len(tx.outputs)
    else:
        counts = _count(head, V2_INPUTS, reader), _count(head, V2_OUTPUTS, reader)
    inputs = [_map(reader) for _ in range(counts[0])]
    outputs = [_map(reader) for _ in range(counts[1])]
    reader.finish("PSBT")
    for what, maps in (("input", inputs), ("output", outputs)):
        for pairs in maps:
            _check_types(pairs, what, version)
    return version, head, inputs, outputs


def _map(reader: Reader) -> Pairs:
    pairs: dict[bytes, bytes] = {}
    while key := reader.string(MAX_FIELD_KEY_BYTES):
        if key in pairs:
            raise InvalidValue(f"PSBT: field {key[0]:#04x} comes twice")
        pairs[key] = reader.string(MAX_TX_BYTES)
    return tuple(pairs.items())


def _check_types(pairs: Pairs, what: str, version: int) -> None:
    for key, _ in pairs:
        if key[0] not in _ALLOWED[what, version]:
            told = _TOLD.get((what, key[0]), "this program does not know what it means")
            raise InvalidValue(f"PSBT {what}: field {key[0]:#04x}: {told}")


def _one(pairs: Pairs, kind: int, size: int | None) -> bytes | None:
    """The value of a field whose key is its type alone; None where it is missing."""
    found = [(key, value) for key, value in pairs if key[0] == kind]
    if not found:
        return None
    key, value = found[0]
    if len(found) != 1 or len(key) != 1 or (size is not None and len(value) != size):
        raise InvalidValue(f"PSBT: field {kind:#04x} is malformed")
    return value


def _required(pairs: Pairs, kind: int, size: int | None = None) -> bytes:
    value = _one(pairs, kind, size)
    if value is None:
        raise InvalidValue(f"PSBT: field {kind:#04x} is missing")
    return value


def _count(head: Pairs, kind: int, rest: Reader) -> int:
    reader = Reader(_required(head, kind))
    count = reader.compact_size()
    reader.finish("PSBT count")
    if not 1 <= count <= rest.remaining:
        raise InvalidValue(f"PSBT: {count} inputs or outputs")
    return count


def _unsigned(version: int, head: Pairs, inputs: Sequence[Pairs], outputs: Sequence[Pairs]) -> Transaction:
    """The unsigned transaction; of version 2, put together (BIP370)."""
    if version == 0:
        return Transaction.parse(_required(head, GLOBAL_TX))
    if (_one(head, V2_MODIFIABLE, 1) or b"\x00") != b"\x00":
        raise InvalidValue("PSBT: it says that inputs or outputs may still change; ask for the final one")
    return Transaction(
        int.from_bytes(_required(head, V2_TX_VERSION, 4), "little"),
        tuple(
            TxIn(
                Outpoint.from_raw(_required(pairs, V2_IN_TXID, 32) + _required(pairs, V2_IN_VOUT, 4)),
                sequence=int.from_bytes(_one(pairs, V2_IN_SEQUENCE, 4) or b"\xff" * 4, "little"),
            )
            for pairs in inputs
        ),
        tuple(
            TxOut(
                int.from_bytes(_required(pairs, V2_OUT_AMOUNT, 8), "little"), _required(pairs, V2_OUT_SCRIPT)
            )
            for pairs in outputs
        ),
        int.from_bytes(_one(head, V2_LOCKTIME, 4) or bytes(4), "little"),
    )


def _written(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(with_size(key) + with_size(value) for key, value in pairs) + compact_size(0)


def _digests(psbt: ParsedPsbt) -> tuple[bytes, ...]:
    segwit = SegwitDigests(psbt.tx)
    return tuple(
        b"" if script is None else segwit.p2wsh(index, script, spent.units)
        for index, (script, spent) in enumerate(zip(psbt.input_scripts, psbt.spent, strict=True))
    )


def _signed_by(inputs: Sequence[Pairs], digests: Sequence[bytes]) -> tuple[frozenset[bytes], ...]:
    signed = []
    for index, (pairs, digest) in enumerate(zip(inputs, digests, strict=True)):
        found = {key[1:]: value for key, value in pairs if key[0] == IN_PARTIAL_SIG}
        for pubkey, signature in found.items():
            try:
                if signature[-1:] != bytes([SIGHASH_ALL]) or not digest:
                    raise WrongSignature("not of sighash type ALL")
                check_signature(pubkey, digest, signature[:-1])
            except WrongSignature:
                raise InvalidValue(f"PSBT input {index}: a signature in it does not verify") from None
        signed.append(frozenset(found))
    return tuple(signed)


def _second_decoder(raw: bytes, psbt: ParsedPsbt, digests: Sequence[bytes]) -> None:
    """Refuse what embit reads differently in the file as it came."""
    try:
        other = embit_psbt.PSBT.parse(raw)
        other.verify()
        seen = [other.tx.serialize()]
        for index, scope in enumerate(other.inputs):
            coin = scope.non_witness_utxo.vout[scope.vout]
            spent, sighash = bytes(coin.script_pubkey.data), scope.sighash_type
            whole = sighash in (None, SIGHASH_ALL) or classify(spent) == "p2tr"
            digest = other.sighash(index, sighash=SIGHASH_ALL) if scope.witness_script else b""
            script = _data(scope.witness_script)
            seen.append((coin.value, spent, script, _keys(scope, spent), whole, digest))
        for scope in other.outputs:
            pays = bytes(scope.script_pubkey.data)
            seen.append((scope.value, pays, _data(scope.witness_script), _keys(scope, pays)))
    except EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT refused by the second decoder: {error}") from error
    if seen != _expected(psbt, digests):
        raise InvalidValue("PSBT: the two decoders read it differently; nothing is signed")


def _expected(psbt: ParsedPsbt, digests: Sequence[bytes]) -> list[Any]:
    expected: list[Any] = [psbt.tx.serialize()]
    for spent, script, keys, digest in zip(
        psbt.spent, psbt.input_scripts, psbt.input_keys, digests, strict=True
    ):
        expected.append((spent.units, spent.script, script, keys, True, digest))
    for output, script, keys in zip(psbt.tx.outputs, psbt.output_scripts, psbt.output_keys, strict=True):
        expected.append((output.units, output.script, script, keys))
    return expected


def _data(script: Any) -> bytes | None:
    return None if script is None else bytes(script.data)


def _keys(scope: Any, script: bytes) -> tuple[KeyOrigin, ...]:
    """The key origins that embit has read, in our form."""
    found = [
        KeyOrigin(bytes(key.sec()), bytes(origin.fingerprint), tuple(origin.derivation))
        for key, origin in scope.bip32_derivations.items()
    ]
    if classify(script) == "p2tr":
        found = [
            KeyOrigin(bytes(key.xonly()), bytes(origin.fingerprint), tuple(origin.derivation))
            for key, (_, origin) in scope.taproot_bip32_derivations.items()
        ]
    return tuple(sorted(found, key=lambda key: key.pubkey))
