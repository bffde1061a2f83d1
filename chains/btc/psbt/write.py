"""Writing a PSBT, through embit; what comes out is read again by our own decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from embit import ec
from embit import psbt as embit_psbt
from embit.script import Script
from embit.transaction import Transaction as EmbitTransaction

from chains.btc.psbt.model import KeyOrigin, PsbtInput, ScriptKeys
from chains.btc.psbt.read import EMBIT_ERRORS, parse_psbt, require_native_curve
from chains.btc.script import classify
from chains.btc.tx import SIGHASH_ALL, SIGHASH_DEFAULT, Transaction
from chains.errors import InvalidValue

_NO_SCRIPTS: Final[Mapping[int, ScriptKeys]] = {}


def build_psbt(
    tx: Transaction,
    inputs: Sequence[PsbtInput],
    change: Mapping[int, tuple[bytes, tuple[int, ...]]],
    master_fingerprint: bytes,
    scripts: Mapping[int, ScriptKeys] = _NO_SCRIPTS,
) -> bytes:
    """Serialise the unsigned `tx` with everything a signer needs.

    Args:
        tx: unsigned.
        inputs: one per input of `tx`, in its order.
        change: public key (33 bytes) and path from the master key, by index of each output that is ours.
        master_fingerprint: 4 bytes; of the keys that have only a path.
        scripts: what stands behind each other output that is ours, by index.

    Raises:
        InvalidValue: inputs don't match `tx`, a previous transaction isn't the one spent, or a path or
            key is malformed; what this returns, `parse_psbt` accepts.
        NativeCurveMissing: see `require_native_curve`.
    """
    require_native_curve()
    if [(i.outpoint, i.sequence) for i in inputs] != [(i.outpoint, i.sequence) for i in tx.inputs]:
        raise InvalidValue("PSBT inputs are not those of the transaction, in its order")
    if len(master_fingerprint) != 4 or not all(0 <= i < len(tx.outputs) for i in (*change, *scripts)):
        raise InvalidValue("PSBT: expected a fingerprint of 4 bytes, and change among the outputs")
    try:
        psbt = embit_psbt.PSBT(EmbitTransaction.parse(tx.serialize()), unknown={})
        for scope, item in zip(psbt.inputs, inputs, strict=True):
            _put_input(scope, item, master_fingerprint)
        for index, (pubkey, path) in change.items():
            origin = KeyOrigin(pubkey, master_fingerprint, path)
            _put_origin(psbt.outputs[index], origin, tx.outputs[index].script)
        for index, behind in scripts.items():
            _put_behind(psbt.outputs[index], behind, tx.outputs[index].script)
        raw: bytes = psbt.serialize()
    except EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT can't be built: {error}") from error
    if parse_psbt(raw).tx != tx:
        raise InvalidValue("PSBT does not hold the transaction it was built from")
    return raw


def _put_input(scope: Any, item: PsbtInput, fingerprint: bytes) -> None:
    scope.non_witness_utxo = EmbitTransaction.parse(item.previous)
    script = bytes(scope.non_witness_utxo.vout[item.outpoint.vout].script_pubkey.data)
    scope.sighash_type = SIGHASH_DEFAULT if classify(script) == "p2tr" else SIGHASH_ALL
    if item.path is not None:
        _put_origin(scope, KeyOrigin(item.pubkey, fingerprint, item.path), script)
    if item.behind is not None:
        _put_behind(scope, item.behind, script)


def _put_behind(scope: Any, behind: ScriptKeys, script: bytes) -> None:
    if behind.script is not None:
        scope.witness_script = Script(behind.script)
    for origin in behind.keys:
        _put_origin(scope, origin, script)


def _put_origin(scope: Any, origin: KeyOrigin, script: bytes) -> None:
    taproot = len(origin.pubkey) == 32
    key = ec.PublicKey.from_xonly(origin.pubkey) if taproot else ec.PublicKey.parse(origin.pubkey)
    derivation = embit_psbt.DerivationPath(origin.fingerprint, list(origin.path))
    if classify(script) == "p2tr":
        scope.taproot_internal_key = ec.PublicKey.from_xonly(key.xonly())
        scope.taproot_bip32_derivations[scope.taproot_internal_key] = ([], derivation)
    else:
        scope.bip32_derivations[key] = derivation
