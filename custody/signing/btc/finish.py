"""From a signer's answer to bytes that may be sent: two decoders must read what was recorded."""

from __future__ import annotations

import atexit
import base64
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from typing import Any

from chains.btc.multisig import Member
from chains.btc.network import NETWORKS
from chains.btc.psbt import (
    InputSignature,
    InvalidSignature,
    ParsedPsbt,
    check_multisig_signatures,
    finalize,
    parse_psbt,
)
from chains.btc.tx import Transaction
from custody.signing.errors import DecodersDisagree
from custody.signing.model import Version
from custody.signing.requests import read_request
from policies.bundle import Cosigner
from signers.ports import SignResponse


def finish(version: Version, response: SignResponse) -> tuple[bytes, str]:
    """The signed bytes and their txid, after both decoders agree that they are what was recorded.

    Raises:
        InvalidSignature: a signature is missing or does not verify (coincurve).
        DecodersDisagree: the signed bytes are not the recorded transaction, or bitcoinlib reads others.
    """
    request = read_request(version.request)
    psbt = parse_psbt(base64.b64decode(request.transaction, validate=True))
    signed = finalize(psbt, signatures_of(response))
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


def signatures_of(response: SignResponse) -> list[InputSignature]:
    """What an answer says, as bytes. Raises InvalidSignature: it is not in hex."""
    try:
        return [
            InputSignature(item.index, bytes.fromhex(item.pubkey), bytes.fromhex(item.signature))
            for item in response.signatures
        ]
    except ValueError as error:
        raise InvalidSignature(f"signatures are written in hex: {error}") from None


def check_cosigner(cosigner: Cosigner, network: str, version: Version, response: SignResponse) -> None:
    """Check that one cosigner has signed every input of a version once, by its own key, and nothing else.

    Args:
        cosigner: as the bundle has it.
        network: on which its keys are.
        version: as it is recorded.
        response: what it says.

    Raises:
        InvalidSignature: it has not.
    """
    member = Member.parse(cosigner.origin, cosigner.account, NETWORKS[network])
    psbt = parse_psbt(base64.b64decode(read_request(version.request).transaction, validate=True))
    expected = {number: _key_in(member, psbt, number) for number in range(len(psbt.spent))}
    said = signatures_of(response)
    if len(said) != len(expected) or {item.index: item.pubkey for item in said} != expected:
        raise InvalidSignature(f"{cosigner.id} has to sign each input once, by its own key")
    check_multisig_signatures(psbt, said)


def cosigners_keys(
    cosigners: Iterable[Cosigner], network: str, version: Version
) -> dict[str, tuple[bytes, ...]]:
    """Each cosigner's public key (33 bytes) of every input of a version, by its id in the vault.

    Raises:
        InvalidSignature: the request names no key of one of them.
    """
    psbt = parse_psbt(base64.b64decode(read_request(version.request).transaction, validate=True))
    members = {each.id: Member.parse(each.origin, each.account, NETWORKS[network]) for each in cosigners}
    return {
        id_: tuple(_key_in(member, psbt, number) for number in range(len(psbt.spent)))
        for id_, member in members.items()
    }


def _key_in(member: Member, psbt: ParsedPsbt, number: int) -> bytes:
    for key in psbt.input_keys[number]:
        place = member.origin.place(key.path) if key.fingerprint == member.origin.fingerprint else None
        if place is not None:
            return member.keys.pubkey(*place)
    raise InvalidSignature(f"input {number}: the request names no key of this cosigner")


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
