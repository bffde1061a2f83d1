"""Signatures out of a file that somebody brings back: a PSBT of version 0 (BIP174) or 2 (BIP370), or the finished
transaction, written by whatever program. Pure.

Unknown fields are passed over, and nothing that the file says is believed: which transaction it is about is compared
with a recorded one, and each signature is verified against that before anybody keeps it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chains.btc.codec import Reader
from chains.btc.multisig_script import MultisigScript
from chains.btc.psbt.finish import InvalidSignature, check_ecdsa
from chains.btc.psbt.model import InputSignature, ParsedPsbt
from chains.btc.psbt.read import MAX_PSBT_BYTES
from chains.btc.tx import MAX_TX_BYTES, Outpoint, SegwitDigests, Transaction, TxIn, TxOut, with_witnesses
from chains.errors import InvalidValue

_MAGIC: Final = b"psbt\xff"
_GLOBAL_TX, _GLOBAL_VERSION = b"\x00", b"\xfb"
_V2_TX_VERSION, _V2_LOCKTIME, _V2_INPUTS, _V2_OUTPUTS = b"\x02", b"\x03", b"\x04", b"\x05"
_V2_IN_TXID, _V2_IN_VOUT, _V2_IN_SEQUENCE = b"\x0e", b"\x0f", b"\x10"
_V2_OUT_AMOUNT, _V2_OUT_SCRIPT = b"\x03", b"\x04"
_IN_PARTIAL_SIG: Final = 0x02
_IN_FINAL_WITNESS: Final = b"\x08"
_MAX_KEY_BYTES: Final = 256
_MAX_COUNT: Final = 100_000
"""More inputs or outputs than any standard transaction has."""
_SEQUENCE_FINAL: Final = b"\xff\xff\xff\xff"

_Map = Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class BroughtInput:
    """What a file has for one input."""

    partial: Mapping[bytes, bytes]
    """Signatures with their sighash byte, by the key (33 bytes) that is said to have made them."""
    witness: tuple[bytes, ...]
    """The stack of a finished input; empty: it is not finished."""


@dataclass(frozen=True, slots=True)
class BroughtFile:
    """What a file is about."""

    tx: Transaction
    """Without signatures."""
    inputs: tuple[BroughtInput, ...]


@dataclass(frozen=True, slots=True)
class Brought:
    """What of a file is good for a recorded transaction."""

    signatures: tuple[InputSignature, ...]
    """Each verified, by a key of its input's script; of one key and input at most one."""
    refused: tuple[str, ...]
    """A sentence for each signature that is not."""


def read_brought(raw: bytes) -> BroughtFile:
    """Read a file: binary, base64 or hexadecimal.

    Raises:
        InvalidValue: neither a PSBT nor a finished transaction.
    """
    if len(raw) > 2 * MAX_PSBT_BYTES:
        raise InvalidValue(f"a file of {len(raw)} bytes: no payment is as long")
    data = _bytes_of(raw)
    if data.startswith(_MAGIC):
        return _read_psbt(data)
    tx = Transaction.parse(data)
    if not any(txin.witness for txin in tx.inputs):
        raise InvalidValue("a transaction without signatures")
    unsigned = with_witnesses(tx, [()] * len(tx.inputs))
    return BroughtFile(unsigned, tuple(BroughtInput({}, txin.witness) for txin in tx.inputs))


def verified(psbt: ParsedPsbt, brought: BroughtFile) -> Brought:
    """The signatures of a file that are good for a recorded PSBT of P2WSH multisig inputs, and what is wrong with
    others.

    Raises:
        InvalidValue: the file is about another transaction.
    """
    if brought.tx != psbt.tx:
        raise InvalidValue(f"it is about {brought.tx.txid}, not {psbt.tx.txid}")
    digests = SegwitDigests(psbt.tx)
    good: dict[tuple[int, bytes], InputSignature] = {}
    refused: list[str] = []
    for index, item in enumerate(brought.inputs):
        raw = psbt.input_scripts[index]
        if raw is None:
            raise InvalidValue(f"input {index} is no multisig")
        keys = MultisigScript.parse(raw).pubkeys
        digest = digests.p2wsh(index, raw, psbt.spent[index].units)
        for pubkey, signature in item.partial.items():
            one = InputSignature(index, pubkey, signature)
            try:
                if pubkey not in keys:
                    raise InvalidSignature(f"input {index}: its script has no key {pubkey.hex()}")
                check_ecdsa(one, digest)
            except InvalidSignature as error:
                refused.append(str(error))
            else:
                good[index, pubkey] = one
        for one in _of_witness(index, item.witness, raw, keys, digest, refused):
            good.setdefault((index, one.pubkey), one)
    return Brought(tuple(good[place] for place in sorted(good)), tuple(refused))


def _of_witness(
    index: int, stack: Sequence[bytes], raw: bytes, keys: Sequence[bytes], digest: bytes, refused: list[str]
) -> list[InputSignature]:
    """The signatures of a finished input, each with the key that made it: a finished input doesn't say which."""
    if not stack:
        return []
    if stack[-1] != raw or stack[0] != b"":
        refused.append(f"input {index}: it is finished with another script")
        return []
    found = []
    left = list(keys)
    for signature in stack[1:-1]:
        made = next(
            (one for one in (InputSignature(index, key, signature) for key in left) if _holds(one, digest)),
            None,
        )
        if made is None:
            refused.append(f"input {index}: a signature of the finished input is of none of its keys")
            continue
        left.remove(made.pubkey)
        found.append(made)
    return found


def _holds(one: InputSignature, digest: bytes) -> bool:
    try:
        check_ecdsa(one, digest)
    except InvalidSignature:
        return False
    return True


def _bytes_of(raw: bytes) -> bytes:
    """The bytes themselves: people copy files as text, too."""
    if raw.startswith(_MAGIC):
        return raw
    text = b"".join(raw.split())
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return raw


def _read_psbt(raw: bytes) -> BroughtFile:
    if len(raw) > MAX_PSBT_BYTES:
        raise InvalidValue(f"a PSBT of {len(raw)} bytes: at most {MAX_PSBT_BYTES} are read")
    reader = Reader(raw)
    reader.take(len(_MAGIC))
    head = _map(reader)
    version = int.from_bytes(head.get(_GLOBAL_VERSION, b""), "little")
    if version == 0:
        tx = Transaction.parse(_field(head, _GLOBAL_TX))
        inputs = [_map(reader) for _ in tx.inputs]
        for _ in tx.outputs:
            _map(reader)
    elif version == 2:
        inputs = [_map(reader) for _ in range(_count(head, _V2_INPUTS))]
        outputs = [_map(reader) for _ in range(_count(head, _V2_OUTPUTS))]
        tx = _put_together(head, inputs, outputs)
    else:
        raise InvalidValue(f"PSBT of version {version}: 0 and 2 are read")
    reader.finish("PSBT")
    if any(txin.script_sig or txin.witness for txin in tx.inputs):
        raise InvalidValue("PSBT whose unsigned transaction is signed")
    return BroughtFile(tx, tuple(BroughtInput(_partial(each), _witness(each)) for each in inputs))


def _map(reader: Reader) -> _Map:
    fields: dict[bytes, bytes] = {}
    while key := reader.string(_MAX_KEY_BYTES):
        if key in fields:
            raise InvalidValue(f"PSBT: field {key[0]:#04x} comes twice")
        fields[key] = reader.string(MAX_TX_BYTES)
    return fields


def _put_together(head: _Map, inputs: Sequence[_Map], outputs: Sequence[_Map]) -> Transaction:
    """The transaction of a PSBT of version 2 (BIP370)."""
    return Transaction(
        int.from_bytes(_field(head, _V2_TX_VERSION, 4), "little"),
        tuple(
            TxIn(
                Outpoint.from_raw(_field(each, _V2_IN_TXID, 32) + _field(each, _V2_IN_VOUT, 4)),
                sequence=int.from_bytes(each.get(_V2_IN_SEQUENCE, _SEQUENCE_FINAL), "little"),
            )
            for each in inputs
        ),
        tuple(
            TxOut(int.from_bytes(_field(each, _V2_OUT_AMOUNT, 8), "little"), _field(each, _V2_OUT_SCRIPT))
            for each in outputs
        ),
        int.from_bytes(head.get(_V2_LOCKTIME, b""), "little"),
    )


def _field(fields: _Map, key: bytes, size: int | None = None) -> bytes:
    value = fields.get(key)
    if value is None or (size is not None and len(value) != size):
        raise InvalidValue(f"PSBT: field {key[0]:#04x} is missing or malformed")
    return value


def _count(head: _Map, key: bytes) -> int:
    reader = Reader(_field(head, key))
    count = reader.compact_size()
    reader.finish("PSBT count")
    if not 1 <= count <= _MAX_COUNT:
        raise InvalidValue(f"PSBT of {count} inputs or outputs")
    return count


def _partial(fields: _Map) -> dict[bytes, bytes]:
    return {key[1:]: value for key, value in fields.items() if key[0] == _IN_PARTIAL_SIG}


def _witness(fields: _Map) -> tuple[bytes, ...]:
    raw = fields.get(_IN_FINAL_WITNESS)
    if raw is None:
        return ()
    reader = Reader(raw)
    stack = tuple(reader.string(MAX_TX_BYTES) for _ in range(reader.count(1)))
    reader.finish("final witness")
    return stack
