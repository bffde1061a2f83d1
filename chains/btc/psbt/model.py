"""What a PSBT says, and what is put into one."""

from __future__ import annotations

from dataclasses import dataclass

from chains.btc.tx import Outpoint, Transaction, TxOut


@dataclass(frozen=True, slots=True)
class KeyOrigin:
    """Where a key comes from. A hint: a signer derives the key itself and compares scripts."""

    pubkey: bytes
    """33 bytes, compressed; of taproot the internal key's x coordinate, 32 bytes."""
    fingerprint: bytes
    """First 4 bytes of HASH160 of the master public key."""
    path: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScriptKeys:
    """What stands behind an output of ours: where its keys come from, and of a P2WSH output the script they are in."""

    script: bytes | None
    """Witness script of a P2WSH output; None: one key's own output (P2WPKH, P2TR)."""
    keys: tuple[KeyOrigin, ...]


@dataclass(frozen=True, slots=True)
class PsbtInput:
    """One input to be signed, with all that a signer needs to judge it."""

    outpoint: Outpoint
    sequence: int
    previous: bytes
    """The whole previous transaction, serialised; its txid must be the outpoint's."""
    path: tuple[int, ...] | None = None
    """Derivation path of the one key from the master key (hardened steps with bit 31), None where not ours."""
    pubkey: bytes = b""
    """33 bytes, for taproot the internal key; ignored where `path` is None."""
    behind: ScriptKeys | None = None
    """Instead of `path` and `pubkey`; of a P2WSH output always."""


@dataclass(frozen=True, slots=True)
class ParsedPsbt:
    """A checked PSBT: the previous transactions hash to the outpoints' txids and have those outputs."""

    tx: Transaction
    """Unsigned."""
    previous: tuple[bytes, ...]
    """The whole previous transaction of each input, in input order."""
    spent: tuple[TxOut, ...]
    """The output that each input spends, read from `previous`."""
    input_keys: tuple[tuple[KeyOrigin, ...], ...]
    """Sorted by public key; empty where the PSBT names none."""
    output_keys: tuple[tuple[KeyOrigin, ...], ...]
    """Likewise; of payments empty."""
    input_scripts: tuple[bytes | None, ...]
    """The witness script of each P2WSH input that has one; it is the one that the spent output pays to."""
    output_scripts: tuple[bytes | None, ...]
    """Likewise of outputs."""

    @property
    def fee_sats(self) -> int:
        """What the inputs bring beyond the outputs; checked to be 0 or more."""
        return sum(out.units for out in self.spent) - sum(out.units for out in self.tx.outputs)


@dataclass(frozen=True, slots=True)
class InputSignature:
    """A signature for one input."""

    index: int
    pubkey: bytes
    """33 bytes, compressed; of taproot the internal key."""
    signature: bytes
    """As it stands in the witness: low-s DER and the sighash byte; of taproot the 64 bytes of BIP340."""
