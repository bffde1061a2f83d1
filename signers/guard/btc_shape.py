"""What every Bitcoin transaction must be like, whoever signs it: its form, its outputs, its feerate. Pure."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from chains.btc.address import parse_address
from chains.btc.multisig import multisig_input_wu
from chains.btc.multisig_script import MultisigScript
from chains.btc.network import NETWORKS
from chains.btc.psbt import ParsedPsbt, read_psbt
from chains.btc.script import (
    MAX_STANDARD_TX_WU,
    P2TR_KEY_INPUT_WU,
    P2WPKH_INPUT_WU,
    WITNESS_SCALE,
    classify,
    dust_limit_sats,
    output_size_vb,
)
from chains.errors import DerivationDisagreement, InvalidValue
from policies.bundle import BitcoinNetwork, NetworkEntry
from policies.intent import Intent, Kind
from signers.guard.btc_refill import refilled
from signers.guard.btc_scripts import Place, WalletScripts, active_scripts
from signers.guard.examined import Findings, Grounds, Reach, Unreadable, Unsigned, refills_of
from signers.guard.orders import written_otherwise
from signers.keys.keyset import NetworkName
from signers.ports import Reason, SignRequest

KINDS: Final = frozenset({Kind.PAYMENT, Kind.REFILL, Kind.CONSOLIDATION, Kind.CANCELLATION, Kind.ROTATION})
"""What wallets on Bitcoin sign."""
MAX_CHANGE_AHEAD: Final = 1_000
"""How far a change index may be beyond the highest this signer has signed: what recovery will scan."""
MAX_CHANGE_OUTPUTS: Final = 1
MAX_ROTATION_INDEX: Final = 999
"""Of the wallet that follows this signer knows no highest index, and recovery scans so far from the beginning."""
TX_VERSION: Final = 2
LOWEST_SEQUENCE: Final = 0x8000_0000
"""Below it, BIP68 would read a relative lock."""
HIGHEST_SEQUENCE: Final = 0xFFFF_FFFD
"""Above it, a transaction does not signal replaceability (BIP125)."""
_TO_ITSELF: Final = frozenset({Kind.CONSOLIDATION, Kind.CANCELLATION})
"""What moves all of some coins to one change address. Of a cancellation they are coins of what it makes unusable."""
_TX_BASE_WU: Final = (4 + 4) * WITNESS_SCALE + 2
"""Version, locktime, segwit marker and flag."""


@dataclass(frozen=True, slots=True)
class BitcoinUnsigned(Unsigned):
    """A transaction that spends coins of one key-set or vault."""

    psbt: ParsedPsbt
    places: tuple[Place, ...]
    """Branch and index of each input's key, as the PSBT claims and the spent script confirms."""
    pubkeys: tuple[bytes, ...]
    """This signer's public key (33 bytes) of each input, derived by itself; of taproot the internal key."""


def decoded(request: SignRequest) -> ParsedPsbt:
    """The request's PSBT. Raises Unreadable unless it is exactly one of the strict form."""
    if request.safe_nonce is not None:
        raise Unreadable("malformed-request", "there are no Safes on Bitcoin, so none's nonce")
    try:
        return read_psbt(base64.b64decode(request.transaction, validate=True))
    except (InvalidValue, binascii.Error, ValueError) as error:
        raise Unreadable("malformed-transaction", str(error)) from None


def unsigned_of(psbt: ParsedPsbt, own: list[tuple[Place, bytes]]) -> BitcoinUnsigned:
    """What the guard needs to know of a PSBT, given place and public key of each input."""
    return BitcoinUnsigned(
        content=psbt.tx.txid.hex,
        resources=frozenset(psbt.tx.resources),
        fee_units=psbt.fee_sats,
        called=b"",
        psbt=psbt,
        places=tuple(place for place, _ in own),
        pubkeys=tuple(pubkey for _, pubkey in own),
    )


def check_network(network: NetworkEntry, name: NetworkName) -> None:
    """Check that a network of the bundle is the one that keys are for. Raises Unreadable."""
    ours = (name, NETWORKS[name].genesis_hash)
    if not isinstance(network, BitcoinNetwork) or (network.network, network.genesis) != ours:
        raise Unreadable("wrong-network", f"{network.chain} is not the {name} network of these keys")


def find(
    request: SignRequest, psbt: ParsedPsbt, own: WalletScripts, grounds: Grounds, name: NetworkName
) -> Findings:
    """Objections to form, outputs and feerate, and how far the change index reaches.

    Args:
        request: what is asked for.
        psbt: its transaction.
        own: scripts of the wallet that is to sign.
        grounds: what the bundle says.
        name: the network.
    """
    reasons = shape_reasons(psbt)
    reasons += feerate_reasons(psbt, grounds.network)
    if Kind.ROTATION in grounds.kinds:
        reasons += _rotation_reasons(request, psbt, grounds, name)
        return Findings(Reach(-1, 0, "change-index"), frozenset(), reasons)
    refills, target, objections = refilled(refills_of(request), psbt, grounds, name)
    reasons += objections
    change, objections = output_reasons(request, psbt, own, name, refills)
    reasons += objections
    if grounds.kinds & _TO_ITSELF:
        named = {intent.destination for intent in request.intents}
        if len(psbt.tx.outputs) != 1 or {own.address(1, index) for index in change} != named:
            told = f"a {min(grounds.kinds)} pays all to the change address it names"
            reasons.append(Reason("consolidation-output", told))
    reach = Reach(max(change, default=-1), MAX_CHANGE_AHEAD, "change-index")
    return Findings(reach, frozenset(), reasons, target)


def shape_reasons(psbt: ParsedPsbt) -> list[Reason]:
    """Objections to version, locktime, sequences, weight and dust."""
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
    for number, output in enumerate(tx.outputs):
        if output.units < dust_limit_sats(output.script):
            reasons.append(Reason("dust", f"output {number}: {output.units} sats would not be relayed"))
    return reasons


def signed_weight_wu(psbt: ParsedPsbt) -> int:
    """Largest weight of the transaction when signed (72-byte ECDSA signatures; of multisig the threshold's)."""
    tx = psbt.tx
    outputs = sum(output_size_vb(output.script) for output in tx.outputs)
    counts = sum(1 if count < 0xFD else 3 for count in (len(tx.inputs), len(tx.outputs)))
    inputs = sum(_input_wu(psbt, number) for number in range(len(tx.inputs)))
    return _TX_BASE_WU + WITNESS_SCALE * (outputs + counts) + inputs


def _input_wu(psbt: ParsedPsbt, number: int) -> int:
    script = psbt.input_scripts[number]
    if script is not None:
        return multisig_input_wu(MultisigScript.parse(script))
    return P2TR_KEY_INPUT_WU if classify(psbt.spent[number].script) == "p2tr" else P2WPKH_INPUT_WU


def output_reasons(
    request: SignRequest,
    psbt: ParsedPsbt,
    own: WalletScripts,
    name: NetworkName,
    refills: Collection[int],
) -> tuple[list[int], list[Reason]]:
    """Every output is change of ours or pays exactly one intent; every payment is paid exactly once.

    Args:
        request: its intents.
        psbt: the transaction.
        own: scripts of the wallet that is to sign.
        name: the network.
        refills: numbers of outputs that were found to be a refill's.

    Returns:
        The change indexes, and the objections.
    """
    wanted, reasons = _wanted(request, name)
    change: list[int] = []
    for number, (output, keys) in enumerate(zip(psbt.tx.outputs, psbt.output_keys, strict=True)):
        if number in refills:
            continue
        if keys or psbt.output_scripts[number] is not None:
            place = own.place(keys)
            if place is None or place[0] != 1 or own.script(*place) != output.script:
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
    return change, reasons


def _wanted(request: SignRequest, name: NetworkName) -> tuple[Counter[tuple[bytes, int]], list[Reason]]:
    """How often the payments ask for each script and amount."""
    reasons: list[Reason] = []
    wanted: Counter[tuple[bytes, int]] = Counter()
    for intent in request.intents:
        if intent.kind is not Kind.PAYMENT:
            continue
        try:
            to = parse_address(intent.destination, NETWORKS[name], request.chain)
        except InvalidValue as error:
            reasons.append(Reason("bad-destination", str(error)))
            continue
        reasons += written_otherwise(intent.destination, to.text)
        wanted[to.script, intent.units] += 1
    return wanted, reasons


def feerate_reasons(psbt: ParsedPsbt, network: NetworkEntry) -> list[Reason]:
    """Objection to a feerate above the network's cap."""
    fee, vsize = psbt.fee_sats, -(-signed_weight_wu(psbt) // WITNESS_SCALE)
    # Rounding a fee up to whole satoshis may exceed the rate by less than one satoshi.
    if fee > -(-network.feerate_cap * vsize // 1000):
        return [Reason("feerate-cap", f"fee {fee} for {vsize} vB: at most {network.feerate_cap} sat/kvB")]
    return []


def _rotation_reasons(
    request: SignRequest, psbt: ParsedPsbt, grounds: Grounds, name: NetworkName
) -> list[Reason]:
    """A rotation has one output: the address of the active wallet's branch 1 that its intent names."""
    try:
        target = active_scripts(grounds.bundle, request.chain, grounds.wallet.tier, name)
        fits = [_is_rotation(intent, psbt, target) for intent in request.intents]
    except (InvalidValue, DerivationDisagreement) as error:
        return [Reason("rotation-target", str(error))]
    if fits == [True]:
        return []
    return [Reason("rotation-target", "a rotation pays all to the active wallet's change address it names")]


def _is_rotation(intent: Intent, psbt: ParsedPsbt, target: WalletScripts) -> bool:
    if len(psbt.tx.outputs) != 1:
        return False
    place = target.place(psbt.output_keys[0])
    if place is None or place[0] != 1 or place[1] > MAX_ROTATION_INDEX:
        return False
    return (target.script(*place), target.address(*place)) == (psbt.tx.outputs[0].script, intent.destination)
