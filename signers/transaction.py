"""The guard's BTC part: what a transaction's own bytes say, and every objection to them. Pure."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from typing import Final

from chains.btc.address import parse_address
from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import ParsedPsbt, parse_psbt
from chains.btc.script import (
    MAX_STANDARD_TX_WU,
    P2WPKH_INPUT_WU,
    WITNESS_SCALE,
    dust_limit_sats,
    p2wpkh_script,
)
from chains.errors import InvalidValue, PermanentError
from policies.bundle import NetworkEntry
from signers.keyset import KeysetRecord
from signers.ports import Reason, SignRequest

MAX_CHANGE_OUTPUTS: Final = 1
TX_VERSION: Final = 2
LOWEST_SEQUENCE: Final = 0x8000_0000
"""Below it, BIP68 would read a relative lock."""
HIGHEST_SEQUENCE: Final = 0xFFFF_FFFD
"""Above it, a transaction does not signal replaceability (BIP125)."""

_TX_BASE_WU: Final = (4 + 4) * WITNESS_SCALE + 2
"""Version, locktime, segwit marker and flag."""


class Unreadable(PermanentError):
    """The request can't be understood any further; `reason` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = Reason(code, detail)


def decoded(request: SignRequest) -> ParsedPsbt:
    """The request's PSBT. Raises Unreadable unless it is exactly one of the strict form."""
    try:
        return parse_psbt(base64.b64decode(request.transaction, validate=True))
    except (InvalidValue, binascii.Error, ValueError) as error:
        raise Unreadable("malformed-transaction", str(error)) from None


def own_inputs(
    psbt: ParsedPsbt, record: KeysetRecord, account: AccountKey
) -> tuple[tuple[tuple[int, int], ...], tuple[bytes, ...]]:
    """Path below the account and public key of each input, where the key's script is the one spent.

    Raises:
        Unreadable: an input spends something else.
    """
    paths, pubkeys = [], []
    for number, (path, spent) in enumerate(zip(psbt.input_paths, psbt.spent, strict=True)):
        place = record.place(path)
        pubkey = account.pubkey(*place) if place is not None else b""
        if place is None or p2wpkh_script(pubkey) != spent.script:
            raise Unreadable(
                "foreign-input", f"input {number} spends an output that this key-set can't sign for"
            )
        paths.append(place)
        pubkeys.append(pubkey)
    return tuple(paths), tuple(pubkeys)


def shape_reasons(psbt: ParsedPsbt) -> list[Reason]:
    """Objections to version, locktime, sequences and weight."""
    tx, reasons = psbt.tx, []
    if tx.version != TX_VERSION:
        reasons.append(Reason("tx-version", f"version {tx.version}: only {TX_VERSION} is signed"))
    if tx.locktime != 0:
        reasons.append(Reason("locktime", f"locktime {tx.locktime}: only 0 is signed"))
    for number, txin in enumerate(tx.inputs):
        if not LOWEST_SEQUENCE <= txin.sequence <= HIGHEST_SEQUENCE:
            reasons.append(
                Reason("sequence", f"input {number}: sequence {txin.sequence:#x} is not replaceable")
            )
    weight = signed_weight_wu(psbt)
    if weight > MAX_STANDARD_TX_WU:
        reasons.append(Reason("tx-weight", f"{weight} WU: at most {MAX_STANDARD_TX_WU} are relayed"))
    return reasons


def signed_weight_wu(psbt: ParsedPsbt) -> int:
    """Largest weight of the transaction when signed (72-byte signatures)."""
    tx = psbt.tx
    outputs = sum(8 + 1 + len(output.script) for output in tx.outputs)
    counts = sum(1 if count < 0xFD else 3 for count in (len(tx.inputs), len(tx.outputs)))
    return _TX_BASE_WU + WITNESS_SCALE * (outputs + counts) + P2WPKH_INPUT_WU * len(tx.inputs)


def output_reasons(
    request: SignRequest, psbt: ParsedPsbt, record: KeysetRecord, account: AccountKey
) -> tuple[int, list[Reason]]:
    """Every output is change of ours or pays exactly one intent; every intent is paid exactly once."""
    reasons: list[Reason] = []
    wanted: Counter[tuple[bytes, int]] = Counter()
    for intent in request.intents:
        try:
            script = parse_address(intent.destination, NETWORKS[record.network], request.chain).script
        except InvalidValue as error:
            reasons.append(Reason("bad-destination", str(error)))
            continue
        wanted[script, intent.units] += 1
    change: list[int] = []
    for number, (output, path) in enumerate(zip(psbt.tx.outputs, psbt.output_paths, strict=True)):
        if output.units < dust_limit_sats(output.script):
            reasons.append(Reason("dust", f"output {number}: {output.units} sats would not be relayed"))
        if path is not None:
            place = record.place(path)
            if place is None or place[0] != 1 or account.script(*place) != output.script:
                reasons.append(Reason("foreign-change", f"output {number} is not the change it claims to be"))
            else:
                change.append(place[1])
        elif wanted[output.script, output.units] > 0:
            wanted[output.script, output.units] -= 1
        else:
            reasons.append(
                Reason("unknown-output", f"output {number}: {output.units} sats that no intent asks for")
            )
    if len(change) > MAX_CHANGE_OUTPUTS:
        reasons.append(Reason("many-change", f"{len(change)} change outputs: at most {MAX_CHANGE_OUTPUTS}"))
    reasons += [
        Reason("unpaid-intent", f"{count} intents of {units} sats are paid by no output")
        for (_, units), count in wanted.items()
        if count > 0
    ]
    return max(change, default=-1), reasons


def fee_reasons(request: SignRequest, psbt: ParsedPsbt, network: NetworkEntry) -> list[Reason]:
    """Objections to the fee: the network's caps, and what the orders allow together."""
    reasons, fee = [], psbt.fee_sats
    if fee > int(network.fee_cap):
        reasons.append(Reason("fee-cap", f"fee {fee}: at most {network.fee_cap}"))
    vsize = -(-signed_weight_wu(psbt) // WITNESS_SCALE)
    # Rounding a fee up to whole satoshis may exceed the rate by less than one satoshi.
    if fee > -(-network.feerate_cap * vsize // 1000):
        reasons.append(
            Reason("feerate-cap", f"fee {fee} for {vsize} vB: at most {network.feerate_cap} sat/kvB")
        )
    ceiling = sum(signed.order.fee_ceiling_units for signed in request.evidence.orders)
    if fee > ceiling:
        reasons.append(Reason("fee-ceiling", f"fee {fee}: the orders allow {ceiling} together"))
    return reasons
