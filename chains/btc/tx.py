"""Transactions: strict decoding, ids, weights, and the digests that keys sign. Pure.

Sources: BIP141 (weight, txid), BIP143 (signature digest), BIP144 (serialisation), BIP341 (taproot's digest).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from chains.btc.codec import Reader, compact_size, with_size
from chains.btc.script import hash160, hash256, tagged_hash
from chains.errors import InvalidValue
from chains.types import TxId

MAX_MONEY_SATS: Final = 21_000_000 * 100_000_000
"""No output, and no sum of outputs, is larger (consensus)."""

MAX_TX_BYTES: Final = 4_000_000
"""A block has at most 4,000,000 weight units, so no transaction has more bytes."""

RBF_SEQUENCE: Final = 0xFFFF_FFFD
"""Signals replaceability (BIP125) and leaves relative locks off (BIP68)."""

SIGHASH_ALL: Final = 1

SIGHASH_DEFAULT: Final = 0
"""Taproot's own way to say ALL; it takes no byte in the witness (BIP341)."""

_OUTPOINT: Final = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,9})")
_SMALLEST_INPUT: Final = 32 + 4 + 1 + 4
_SMALLEST_OUTPUT: Final = 8 + 1


@dataclass(frozen=True, slots=True)
class Outpoint:
    """An output of a transaction, named by txid and position.

    Raises:
        InvalidValue: `vout` is outside 0..2**32-1.
    """

    txid: TxId
    vout: int

    def __post_init__(self) -> None:
        if type(self.vout) is not int or not 0 <= self.vout <= 0xFFFF_FFFF:
            raise InvalidValue(f"vout {self.vout!r}: expected 0 to 2**32-1")

    @classmethod
    def parse(cls, text: str) -> Outpoint:
        """Read `txid:vout`, the form of `resource`.

        Raises:
            InvalidValue: any other form.
        """
        match = _OUTPOINT.fullmatch(text)
        if match is None:
            raise InvalidValue(f"outpoint {text[:100]!r}: expected txid:vout")
        return cls(TxId(match.group(1)), int(match.group(2)))

    @classmethod
    def from_raw(cls, raw: bytes) -> Outpoint:
        """Read the 36 bytes that inputs carry: the txid in hash order, vout little-endian.

        Raises:
            InvalidValue: not 36 bytes.
        """
        if len(raw) != 36:
            raise InvalidValue(f"outpoint of {len(raw)} bytes: expected 36")
        return cls(TxId(raw[31::-1].hex()), int.from_bytes(raw[32:], "little"))

    @property
    def resource(self) -> str:
        """`txid:vout`, the identity of a receipt and of a consumption on BTC."""
        return f"{self.txid.hex}:{self.vout}"

    @property
    def raw(self) -> bytes:
        """The 36 bytes that inputs carry."""
        return bytes.fromhex(self.txid.hex)[::-1] + self.vout.to_bytes(4, "little")

    def __str__(self) -> str:
        return self.resource


@dataclass(frozen=True, slots=True)
class TxIn:
    """An input. Unsigned inputs have neither `script_sig` nor `witness`.

    Raises:
        InvalidValue: `sequence` is outside 0..2**32-1.
    """

    outpoint: Outpoint
    sequence: int = RBF_SEQUENCE
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if type(self.sequence) is not int or not 0 <= self.sequence <= 0xFFFF_FFFF:
            raise InvalidValue(f"sequence {self.sequence!r}: expected 0 to 2**32-1")


@dataclass(frozen=True, slots=True)
class TxOut:
    """An output: satoshis and the script they go to.

    Raises:
        InvalidValue: `units` is outside 0..21 million BTC.
    """

    units: int
    """Satoshis."""
    script: bytes

    def __post_init__(self) -> None:
        if type(self.units) is not int or not 0 <= self.units <= MAX_MONEY_SATS:
            raise InvalidValue(f"output of {self.units!r} sats: expected 0 to {MAX_MONEY_SATS}")


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction, signed or not. What exists serialises and parses back to itself.

    Raises:
        InvalidValue: no inputs or outputs, an outpoint spent twice, more than 21 million BTC in outputs,
            or version or locktime outside 32 bits.
    """

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int = 0

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise InvalidValue(f"transaction of {len(self.inputs)} inputs and {len(self.outputs)} outputs")
        if len({txin.outpoint for txin in self.inputs}) != len(self.inputs):
            raise InvalidValue("transaction spends one outpoint twice")
        if sum(txout.units for txout in self.outputs) > MAX_MONEY_SATS:
            raise InvalidValue("transaction outputs sum to more than 21 million BTC")
        for name, value in (("version", self.version), ("locktime", self.locktime)):
            if type(value) is not int or not 0 <= value <= 0xFFFF_FFFF:
                raise InvalidValue(f"transaction {name} {value!r}: expected 0 to 2**32-1")

    @classmethod
    def parse(cls, raw: bytes) -> Transaction:
        """Decode a serialised transaction, with or without witnesses (BIP144).

        Raises:
            InvalidValue: anything but exactly one transaction in its canonical form: longer than 4 MB,
                a compact size that isn't the shortest, a witness section that is empty, trailing bytes.
        """
        if len(raw) > MAX_TX_BYTES:
            raise InvalidValue(f"transaction of {len(raw)} bytes: at most {MAX_TX_BYTES}")
        reader = Reader(raw)
        version = reader.uint(4)
        has_witness = raw[4:6] == b"\x00\x01"
        if has_witness:
            reader.take(2)
        inputs = [
            TxIn(
                Outpoint.from_raw(reader.take(36)),
                script_sig=reader.string(MAX_TX_BYTES),
                sequence=reader.uint(4),
            )
            for _ in range(reader.count(_SMALLEST_INPUT))
        ]
        outputs = [
            TxOut(reader.uint(8), reader.string(MAX_TX_BYTES)) for _ in range(reader.count(_SMALLEST_OUTPUT))
        ]
        if has_witness:
            witnesses = [
                tuple(reader.string(MAX_TX_BYTES) for _ in range(reader.count(1))) for _ in range(len(inputs))
            ]
            if not any(witnesses):
                raise InvalidValue("transaction has a witness section without witnesses")
            inputs = [replace(txin, witness=witness) for txin, witness in zip(inputs, witnesses, strict=True)]
        locktime = reader.uint(4)
        reader.finish("transaction")
        return cls(version, tuple(inputs), tuple(outputs), locktime)

    def serialize(self) -> bytes:
        """The bytes that are broadcast; with a witness section exactly if an input has a witness (BIP144)."""
        if not any(txin.witness for txin in self.inputs):
            return self.serialize_without_witness()
        parts = [self.version.to_bytes(4, "little"), b"\x00\x01", self._body()]
        for txin in self.inputs:
            parts.append(compact_size(len(txin.witness)))
            parts.extend(with_size(item) for item in txin.witness)
        parts.append(self.locktime.to_bytes(4, "little"))
        return b"".join(parts)

    def serialize_without_witness(self) -> bytes:
        """The bytes whose hash is the txid."""
        return self.version.to_bytes(4, "little") + self._body() + self.locktime.to_bytes(4, "little")

    def _body(self) -> bytes:
        parts = [compact_size(len(self.inputs))]
        for txin in self.inputs:
            parts += (txin.outpoint.raw, with_size(txin.script_sig), txin.sequence.to_bytes(4, "little"))
        parts.append(compact_size(len(self.outputs)))
        for txout in self.outputs:
            parts += (txout.units.to_bytes(8, "little"), with_size(txout.script))
        return b"".join(parts)

    @property
    def txid(self) -> TxId:
        """Double SHA256 of the transaction without witnesses, in the order people read."""
        return TxId(hash256(self.serialize_without_witness())[::-1].hex())

    @property
    def weight(self) -> int:
        """Weight units (BIP141): three times the bytes without witnesses, and all bytes."""
        return 3 * len(self.serialize_without_witness()) + len(self.serialize())

    @property
    def vsize(self) -> int:
        """Virtual bytes: a quarter of the weight, rounded up."""
        return -(-self.weight // 4)

    @property
    def is_coinbase(self) -> bool:
        """Whether it creates new coins: its only input is the null outpoint."""
        first = self.inputs[0].outpoint
        return len(self.inputs) == 1 and first.vout == 0xFFFF_FFFF and first.txid.hex == "0" * 64

    @property
    def resources(self) -> tuple[str, ...]:
        """`txid:vout` of every outpoint it spends, in input order."""
        return tuple(txin.outpoint.resource for txin in self.inputs)


class SegwitDigests:
    """The signature digests of one transaction's version 0 witness inputs (BIP143, SIGHASH_ALL).

    The three hashes over the whole transaction are computed once, so n inputs cost n digests, not n squared.
    """

    __slots__ = ("_hash_outputs", "_hash_prevouts", "_hash_sequence", "_tx")

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._hash_prevouts = hash256(b"".join(txin.outpoint.raw for txin in tx.inputs))
        self._hash_sequence = hash256(b"".join(txin.sequence.to_bytes(4, "little") for txin in tx.inputs))
        self._hash_outputs = hash256(
            b"".join(out.units.to_bytes(8, "little") + with_size(out.script) for out in tx.outputs)
        )

    def p2wpkh(self, input_index: int, pubkey: bytes, amount_sats: int) -> bytes:
        """The 32 bytes that `pubkey` (33 bytes) signs to spend `amount_sats` at `input_index`.

        Raises:
            InvalidValue: there is no such input, or the key isn't compressed.
        """
        if len(pubkey) != 33:
            raise InvalidValue(f"public key of {len(pubkey)} bytes: expected 33, compressed")
        return self._digest(input_index, b"\x76\xa9\x14" + hash160(pubkey) + b"\x88\xac", amount_sats)

    def p2wsh(self, input_index: int, script: bytes, amount_sats: int) -> bytes:
        """The 32 bytes that each key of a witness script signs to spend `amount_sats` at `input_index`.

        Raises:
            InvalidValue: there is no such input.
        """
        return self._digest(input_index, script, amount_sats)

    def _digest(self, input_index: int, script_code: bytes, amount_sats: int) -> bytes:
        if not 0 <= input_index < len(self._tx.inputs):
            raise InvalidValue(f"input {input_index}: the transaction has {len(self._tx.inputs)}")
        txin = self._tx.inputs[input_index]
        preimage = (
            self._tx.version.to_bytes(4, "little")  # 1. nVersion
            + self._hash_prevouts  # 2. hashPrevouts
            + self._hash_sequence  # 3. hashSequence
            + txin.outpoint.raw  # 4. outpoint
            + with_size(script_code)  # 5. scriptCode of the input
            + amount_sats.to_bytes(8, "little")  # 6. value of the output spent
            + txin.sequence.to_bytes(4, "little")  # 7. nSequence of the input
            + self._hash_outputs  # 8. hashOutputs
            + self._tx.locktime.to_bytes(4, "little")  # 9. nLocktime
            + SIGHASH_ALL.to_bytes(4, "little")  # 10. sighash type
        )
        return hash256(preimage)


class TaprootDigests:
    """The signature digests of one transaction's taproot inputs, spent by key path (BIP341).

    They cover amount and script of every output that the transaction spends, so one that lies about another
    input's amount signs nothing that is valid.

    Args:
        tx: unsigned or signed.
        spent: the outputs that it spends, one for each input.
        sighash: `SIGHASH_DEFAULT`, as we sign, or `SIGHASH_ALL`, which covers the same.

    Raises:
        InvalidValue: not one output for each input.
    """

    __slots__ = ("_common", "_inputs")

    def __init__(
        self, tx: Transaction, spent: Sequence[TxOut], sighash: Literal[0, 1] = SIGHASH_DEFAULT
    ) -> None:
        if len(spent) != len(tx.inputs):
            raise InvalidValue(f"{len(spent)} outputs spent by {len(tx.inputs)} inputs")
        self._inputs = len(tx.inputs)
        self._common = (
            b"\x00"  # epoch
            + bytes([sighash])  # hash_type
            + tx.version.to_bytes(4, "little")  # nVersion
            + tx.locktime.to_bytes(4, "little")  # nLockTime
            + _sha256(txin.outpoint.raw for txin in tx.inputs)  # sha_prevouts
            + _sha256(out.units.to_bytes(8, "little") for out in spent)  # sha_amounts
            + _sha256(with_size(out.script) for out in spent)  # sha_scriptpubkeys
            + _sha256(txin.sequence.to_bytes(4, "little") for txin in tx.inputs)  # sha_sequences
            + _sha256(
                out.units.to_bytes(8, "little") + with_size(out.script) for out in tx.outputs
            )  # sha_outputs
            + b"\x00"  # spend_type: key path, no annex
        )

    def key_path(self, input_index: int) -> bytes:
        """The 32 bytes that the output key signs at `input_index`. Raises InvalidValue: no such input."""
        if not 0 <= input_index < self._inputs:
            raise InvalidValue(f"input {input_index}: the transaction has {self._inputs}")
        return tagged_hash("TapSighash", self._common + input_index.to_bytes(4, "little"))


def _sha256(parts: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def sighash_p2wpkh(tx: Transaction, input_index: int, pubkey: bytes, amount_sats: int) -> bytes:
    """The 32 bytes to sign for one P2WPKH input (BIP143, SIGHASH_ALL); for many inputs use `SegwitDigests`.

    Raises:
        InvalidValue: there is no such input, or the key isn't compressed.
    """
    return SegwitDigests(tx).p2wpkh(input_index, pubkey, amount_sats)


def with_witnesses(tx: Transaction, witnesses: Sequence[Sequence[bytes]]) -> Transaction:
    """The same transaction with one witness stack per input, such as `[signature, pubkey]`; same txid.

    Raises:
        InvalidValue: not exactly one stack per input.
    """
    if len(witnesses) != len(tx.inputs):
        raise InvalidValue(f"{len(witnesses)} witnesses for {len(tx.inputs)} inputs")
    signed = tuple(
        replace(txin, witness=tuple(stack)) for txin, stack in zip(tx.inputs, witnesses, strict=True)
    )
    return replace(tx, inputs=signed)
