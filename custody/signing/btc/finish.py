"""From a signer's answer to bytes that may be sent: two decoders must read what was recorded."""

from __future__ import annotations

import atexit
import base64
import functools
import os
import shutil
import tempfile
import warnings
from typing import Any

from chains.btc.psbt import InputSignature, finalize, parse_psbt
from chains.btc.tx import Transaction
from custody.signing.errors import DecodersDisagree
from custody.signing.model import Version
from custody.signing.requests import read_request
from signers.ports import SignResponse


def finish(version: Version, response: SignResponse) -> tuple[bytes, str]:
    """The signed bytes and their txid, after both decoders agree that they are what was recorded.

    Raises:
        InvalidSignature: a signature is missing or does not verify (coincurve).
        DecodersDisagree: the signed bytes are not the recorded transaction, or bitcoinlib reads others.
    """
    request = read_request(version.request)
    psbt = parse_psbt(base64.b64decode(request.transaction, validate=True))
    signed = finalize(
        psbt,
        [
            InputSignature(item.index, bytes.fromhex(item.pubkey), bytes.fromhex(item.signature))
            for item in response.signatures
        ],
    )
    recorded, finished = Transaction.parse(version.unsigned), Transaction.parse(signed)
    if psbt.tx != recorded or finished.txid != recorded.txid:
        raise DecodersDisagree(f"asked for {recorded.txid}, got {finished.txid}")
    ours = (
        finished.txid.hex,
        [(output.units, output.script) for output in recorded.outputs],
        [(txin.outpoint.txid.hex, txin.outpoint.vout) for txin in recorded.inputs],
    )
    theirs = _read_by_bitcoinlib(signed)
    if ours != theirs:
        raise DecodersDisagree(f"our decoder reads {ours[0]}, bitcoinlib reads {theirs[0]}, or other outputs")
    return signed, finished.txid.hex


def _read_by_bitcoinlib(raw: bytes) -> tuple[str, list[tuple[int, bytes]], list[tuple[str, int]]]:
    tx = _bitcoinlib().Transaction.parse(raw, strict=True)
    return (
        str(tx.txid),
        [(int(output.value), bytes(output.lock_script)) for output in tx.outputs],
        [(txin.prev_txid.hex(), int.from_bytes(txin.output_n, "big")) for txin in tx.inputs],
    )


@functools.cache
def _bitcoinlib() -> Any:
    # Its import takes a second and writes a data directory, by default into the home directory.
    if "BCL_DATA_DIR" not in os.environ:
        directory = tempfile.mkdtemp(prefix="strongroom-bitcoinlib-")
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ["BCL_DATA_DIR"] = directory
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its database layer, which is not used here, is called in an old way
        from bitcoinlib import transactions

    return transactions
