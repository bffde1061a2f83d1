"""PSBT version 0 (BIP174, BIP371), in the one strict form that our signers read. Pure.

Only what they need is allowed in: the unsigned transaction; per input the whole previous transaction, for taproot too
(a signer that believes a bare amount can be made to overpay fees), optionally its output again, the one sighash type
that is signed (ALL, for taproot DEFAULT), the keys' origins, and the witness script of a P2WSH output; per output that
is ours the same origins and script. Anything else is refused.
"""

from chains.btc.psbt.brought import Brought, BroughtFile, read_brought, verified
from chains.btc.psbt.finish import InvalidSignature, check_multisig_signatures, finalize
from chains.btc.psbt.model import InputSignature, KeyOrigin, ParsedPsbt, PsbtInput, ScriptKeys
from chains.btc.psbt.read import (
    MAX_PATH_STEPS,
    MAX_PSBT_BYTES,
    NativeCurveMissing,
    parse_psbt,
    read_psbt,
    require_native_curve,
)
from chains.btc.psbt.write import build_psbt

__all__ = [
    "MAX_PATH_STEPS",
    "MAX_PSBT_BYTES",
    "Brought",
    "BroughtFile",
    "InputSignature",
    "InvalidSignature",
    "KeyOrigin",
    "NativeCurveMissing",
    "ParsedPsbt",
    "PsbtInput",
    "ScriptKeys",
    "build_psbt",
    "check_multisig_signatures",
    "finalize",
    "parse_psbt",
    "read_brought",
    "read_psbt",
    "require_native_curve",
    "verified",
]
