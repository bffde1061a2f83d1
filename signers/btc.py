"""The guard's BTC part: what a transaction's own bytes say, and every objection to them. Pure."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from dataclasses import dataclass
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
from chains.errors import InvalidValue
from policies.bundle import BitcoinKeyset, BitcoinNetwork, NetworkEntry, WalletEntry
from policies.intent import Kind
from signers.examined import Findings, Grounds, Reach, Unreadable, Unsigned
from signers.keyset import BitcoinKeysetRecord
from signers.ports import Reason, SignRequest

MAX_CHANGE_AHEAD: Final = 1_000
"""How far a change index may be beyond the highest this signer has signed: what recovery will scan."""
MAX_CHANGE_OUTPUTS: Final = 1
TX_VERSION: Final = 2
LOWEST_SEQUENCE: Final = 0x8000_0000
"""Below it, BIP68 would read a relative lock."""
HIGHEST_SEQUENCE: Final = 0xFFFF_FFFD
"""Above it, a transaction does not signal replaceability (BIP125)."""

_TX_BASE_WU: Final = (4 + 4) * WITNESS_SCALE + 2
"""Version, locktime, segwit marker and flag."""


@dataclass(frozen=True, slots=True)
class BitcoinUnsigned(Unsigned):
    """A transaction that spends coins of one key-set."""

    psbt: ParsedPsbt
    places: tuple[tuple[int, int], ...]
    """Branch and index of each input's key, as the PSBT claims and the spent script confirms."""
    pubkeys: tuple[bytes, ...]
    """Each input's public key (33 bytes), derived by this signer."""


class BitcoinRules:
    """A P2WPKH wallet's `FamilyRules`.

    Args:
        record: the signer's own record of the key-set.
        account: its account public key.
    """

    kinds: Final = frozenset({Kind.PAYMENT, Kind.CONSOLIDATION})

    def __init__(self, record: BitcoinKeysetRecord, account: AccountKey) -> None:
        self._record, self._account = record, account

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means these keys, on the network they are for. Raises Unreadable."""
        record = self._record
        ours = (record.id, record.account, record.origin, record.attestation_key)
        if not isinstance(keyset, BitcoinKeyset) or ours != (
            keyset.id,
            keyset.account,
            keyset.origin,
            keyset.attestation_key,
        ):
            raise Unreadable(
                "wrong-keyset", f"the bundle's key-set {keyset.id} is not the one this signer holds"
            )
        genesis = NETWORKS[record.network].genesis_hash
        if not isinstance(network, BitcoinNetwork) or (network.network, network.genesis) != (
            record.network,
            genesis,
        ):
            raise Unreadable(
                "wrong-network", f"{network.chain} is not the {record.network} network of these keys"
            )

    def read(self, request: SignRequest) -> BitcoinUnsigned:
        """The request's PSBT, if all its inputs are ours. Raises Unreadable."""
        psbt = decoded(request)
        places, pubkeys = own_inputs(psbt, self._record, self._account)
        return BitcoinUnsigned(
            content=psbt.tx.txid.hex,
            resources=frozenset(psbt.tx.resources),
            fee_units=psbt.fee_sats,
            psbt=psbt,
            places=places,
            pubkeys=pubkeys,
        )

    def find(self, request: SignRequest, unsigned: BitcoinUnsigned, grounds: Grounds) -> Findings:
        """Objections to shape, outputs and feerate."""
        psbt = unsigned.psbt
        reasons = shape_reasons(psbt)
        change, objections = output_reasons(request, psbt, self._record, self._account)
        reasons += objections
        if any(intent.kind is Kind.CONSOLIDATION for intent in request.intents):
            reasons += self._consolidation_reasons(request, psbt, change)
        reasons += feerate_reasons(psbt, grounds.network)
        highest = max(change, default=-1)
        return Findings(Reach(highest, MAX_CHANGE_AHEAD, "change-index"), frozenset(), reasons)

    def _consolidation_reasons(
        self, request: SignRequest, psbt: ParsedPsbt, change: list[int]
    ) -> list[Reason]:
        """A consolidation has one output, and that is the change address which its intent names."""
        named = {intent.destination for intent in request.intents}
        if len(psbt.tx.outputs) == 1 and {self._account.address(1, index) for index in change} == named:
            return []
        return [Reason("consolidation-output", "a consolidation pays all to the change address it names")]


def decoded(request: SignRequest) -> ParsedPsbt:
    """The request's PSBT. Raises Unreadable unless it is exactly one of the strict form."""
    try:
        return parse_psbt(base64.b64decode(request.transaction, validate=True))
    except (InvalidValue, binascii.Error, ValueError) as error:
        raise Unreadable("malformed-transaction", str(error)) from None


def own_inputs(
    psbt: ParsedPsbt, record: BitcoinKeysetRecord, account: AccountKey
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
    request: SignRequest, psbt: ParsedPsbt, record: BitcoinKeysetRecord, account: AccountKey
) -> tuple[list[int], list[Reason]]:
    """Every output is change of ours or pays exactly one intent; every payment is paid exactly once.

    Returns:
        The change indexes, and the objections.
    """
    reasons: list[Reason] = []
    wanted: Counter[tuple[bytes, int]] = Counter()
    for intent in request.intents:
        if intent.kind is not Kind.PAYMENT:
            continue
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
    return change, reasons


def feerate_reasons(psbt: ParsedPsbt, network: NetworkEntry) -> list[Reason]:
    """Objection to a feerate above the network's cap."""
    fee, vsize = psbt.fee_sats, -(-signed_weight_wu(psbt) // WITNESS_SCALE)
    # Rounding a fee up to whole satoshis may exceed the rate by less than one satoshi.
    if fee > -(-network.feerate_cap * vsize // 1000):
        return [Reason("feerate-cap", f"fee {fee} for {vsize} vB: at most {network.feerate_cap} sat/kvB")]
    return []
