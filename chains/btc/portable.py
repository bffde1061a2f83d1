"""A PSBT as people carry it to signers of any make: beside what our own signers read it has what others ask for.

Added are each input's output again (BIP174, 0x01), without which some take no segwit input, and the account keys of the
wallet's members (PSBT_GLOBAL_XPUB, 0x01 of the global map), by which hardware wallets know a multisig that is not
registered. Neither is believed by ours: amounts come from whole previous transactions, keys from what was registered.
"""

from __future__ import annotations

from collections.abc import Sequence

from embit import bip32
from embit import psbt as embit_psbt
from embit.transaction import TransactionOutput

from chains.btc.multisig import Member
from chains.btc.psbt import parse_psbt, read_brought
from chains.btc.psbt.read import EMBIT_ERRORS
from chains.errors import InvalidValue


def for_any_signer(raw: bytes, members: Sequence[Member]) -> bytes:
    """A strict PSBT with what signers of other makes ask for.

    Args:
        raw: as `build_psbt` gives it.
        members: of the vault that it spends from.

    Raises:
        InvalidValue: it is no strict PSBT, or what came out is not about the same transaction.
        NativeCurveMissing: see `require_native_curve`.
    """
    strict = parse_psbt(raw)
    try:
        psbt = embit_psbt.PSBT.parse(raw)
        for scope, spent in zip(psbt.inputs, strict.spent, strict=True):
            previous = scope.non_witness_utxo.vout[scope.vout]
            scope.witness_utxo = TransactionOutput(spent.units, previous.script_pubkey)
        for member in members:
            key = bip32.HDKey.from_string(member.keys.xpub)
            origin = embit_psbt.DerivationPath(member.origin.fingerprint, list(member.origin.path))
            psbt.xpubs[key] = origin
        written: bytes = psbt.serialize()
    except EMBIT_ERRORS as error:
        raise InvalidValue(f"PSBT can't be handed out: {error}") from error
    if read_brought(written).tx != strict.tx:
        raise InvalidValue("PSBT to hand out is not about the transaction that was built")
    return written
