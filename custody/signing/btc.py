"""Bitcoin payments: choose coins, build the unsigned transaction and its signing request, check what comes
back.

Pure. What is built here a signer decides on by itself; these checks keep requests from being refused.
"""

from __future__ import annotations

import atexit
import base64
import functools
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from chains.btc.coin_index import Coin
from chains.btc.coins import (
    ChangeOutput,
    FeeAboveLimit,
    InsufficientFunds,
    Payments,
    Selection,
    TooManyInputs,
    select,
)
from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE, HARDENED
from chains.btc.psbt import InputSignature, PsbtInput, build_psbt, finalize_p2wpkh, parse_psbt
from chains.btc.script import P2WPKH_INPUT_WU, output_size_vb
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue, PermanentError
from custody.signing.model import SpendableCoin, Version
from custody.signing.site import Site
from custody.signing.tracking import VersionFootprint
from policies.decision import Reason
from policies.intent import Evidence, Intent, Kind, SignedOrder
from signers.ports import MAX_CALL_BYTES, SignRequest, SignResponse

TX_VERSION: Final = 2
MAX_PREVIOUS_BYTES: Final = (MAX_CALL_BYTES - 2**20) // 4 * 3
"""Most that the previous transactions of a request may have: base64 and all else fit into one call."""
_P2WPKH_SCRIPT: Final = b"\x00\x14" + bytes(20)


class DecodersDisagree(PermanentError):
    """Two decoders read different outputs or ids from the same signed bytes: nothing is sent."""


@dataclass(frozen=True, slots=True)
class Payee:
    """One payment of a transaction."""

    signed: SignedOrder
    script: bytes
    """The destination's output script."""

    @property
    def units(self) -> int:
        """Satoshis that arrive."""
        return self.signed.order.units

    @property
    def fee_ceiling(self) -> int:
        """Satoshis of network fee that it may cause."""
        return self.signed.order.fee_ceiling_units


@dataclass(frozen=True, slots=True)
class Plan:
    """Which payments one transaction makes, from which coins, and which payments have to wait and why."""

    payees: tuple[Payee, ...]
    """Empty: nothing can be paid now; then there is no selection."""
    selection: Selection | None
    waiting: tuple[tuple[Payee, Reason], ...]


@dataclass(frozen=True, slots=True)
class Built:
    """An unsigned transaction, ready to be recorded."""

    unsigned: bytes
    request: str
    """JSON of the signing request."""
    resources: tuple[str, ...]
    fee_units: int
    feerate: int
    """sat/kvB, rounded down as bitcoind does."""
    size: int
    """vB with signatures of the largest size."""


def plan(payees: Sequence[Payee], coins: Sequence[SpendableCoin], feerate: FeeRate, site: Site) -> Plan:
    """Pay as many as can be paid at this feerate within everybody's limits.

    The fee stays below the sum of the orders' ceilings and the network's cap. Who cannot pay even for its own
    output waits; where the sum is too low the lowest ceiling waits; where coins are missing the largest
    payment waits, so that it does not stop the others.
    """
    waiting: list[tuple[Payee, Reason]] = []
    chosen: list[Payee] = []
    for payee in payees:
        own = feerate.fee_for(output_size_vb(payee.script))
        if payee.fee_ceiling < own:
            waiting.append((payee, _ceiling_reason(payee, feerate, own)))
        else:
            chosen.append(payee)
    while chosen:
        limit = min(sum(payee.fee_ceiling for payee in chosen), int(site.network.fee_cap))
        try:
            selection = choose(chosen, coins, feerate, site, max_fee_sats=limit)
        except FeeAboveLimit as error:
            dropped = min(chosen, key=lambda payee: payee.fee_ceiling)
            waiting.append((dropped, _ceiling_reason(dropped, feerate, error.fee_sats)))
        except InsufficientFunds as error:
            dropped = max(chosen, key=lambda payee: payee.units)
            waiting.append(
                (
                    dropped,
                    Reason(
                        "insufficient-hot-funds",
                        f"{error.needed_sats} sats are needed with fees, {error.available_sats} are spendable",
                    ),
                )
            )
        except TooManyInputs as error:
            dropped = chosen[-1]
            waiting.append((dropped, Reason("too-heavy", str(error))))
        else:
            return Plan(tuple(chosen), selection, tuple(waiting))
        chosen.remove(dropped)
    return Plan((), None, tuple(waiting))


def choose(
    payees: Sequence[Payee],
    coins: Sequence[SpendableCoin],
    feerate: FeeRate,
    site: Site,
    *,
    max_fee_sats: int,
    pinned: Sequence[SpendableCoin] = (),
) -> Selection:
    """Choose coins by waste. Raises InsufficientFunds, TooManyInputs, FeeAboveLimit."""
    limit = max_fee_sats
    while True:
        selection = select(
            [_coin(coin) for coin in coins],
            Payments.to((payee.units, payee.script) for payee in payees),
            feerate=feerate,
            long_term_feerate=FeeRate(site.pace.long_term_sat_per_kvb),
            change=ChangeOutput.to(_P2WPKH_SCRIPT),
            pinned=[_coin(coin) for coin in pinned],
            max_fee_sats=limit,
        )
        # A changeless choice pays a little more than the feerate; a signer holds it against the cap too.
        allowed = site.feerate_cap.fee_for(selection.vsize_vb)
        if selection.fee_sats <= allowed:
            return selection
        limit = min(allowed, selection.fee_sats - 1)


def previous_bytes(
    selection: Selection, coins: Mapping[str, SpendableCoin], previous: Mapping[str, bytes]
) -> int:
    """Bytes that the previous transactions take in a request: each whole, once for every input that spends it."""
    return sum(len(previous[coins[coin.resource].txid]) for coin in selection.coins)


def intents_for(payees: Sequence[Payee], site: Site) -> tuple[Intent, ...]:
    """One intent per payment; its id is the order's, so that a signer pays an order once."""
    return tuple(
        Intent(
            v=1,
            kind=Kind.PAYMENT,
            id=payee.signed.order.id,
            chain=site.chain,
            keyset=site.keyset.id,
            tier=site.keyset.tier,
            asset=payee.signed.order.asset,
            destination=payee.signed.order.destination,
            amount=payee.signed.order.amount,
            order=payee.signed.order.digest_hex(),
            policy_version=site.bundle.version,
        )
        for payee in payees
    )


def assemble(
    site: Site,
    payees: Sequence[Payee],
    intents: tuple[Intent, ...],
    selection: Selection,
    coins: Mapping[str, SpendableCoin],
    previous: Mapping[str, bytes],
    change_index: int | None,
) -> Built:
    """The unsigned transaction and the request that asks for its signatures.

    Inputs and outputs are in the order of BIP69, which shows nothing about which output is change.

    Args:
        coins: at least the selected ones, by resource.
        previous: whole previous transactions by txid.
        change_index: index of the change address; needed exactly if the selection has change.

    Raises:
        InvalidValue: the parts do not fit together.
    """
    if (selection.change_sats is None) != (change_index is None):
        raise InvalidValue("a change index belongs to a selection with change")
    spent = sorted((coins[coin.resource] for coin in selection.coins), key=_bip69)
    outputs = [TxOut(payee.units, payee.script) for payee in payees]
    change_script = b""
    if change_index is not None and selection.change_sats is not None:
        change_script = site.account.script(CHANGE, change_index)
        outputs.append(TxOut(selection.change_sats, change_script))
    outputs.sort(key=lambda output: (output.units, output.script))
    tx = Transaction(TX_VERSION, tuple(TxIn(Outpoint.parse(coin.resource)) for coin in spent), tuple(outputs))
    inputs = [
        PsbtInput(
            txin.outpoint,
            txin.sequence,
            previous[coin.txid],
            _path(site, coin.branch, coin.index),
            site.account.pubkey(coin.branch, coin.index),
        )
        for txin, coin in zip(tx.inputs, spent, strict=True)
    ]
    change = {}
    if change_index is not None:
        position = next(i for i, output in enumerate(outputs) if output.script == change_script)
        change[position] = (site.account.pubkey(CHANGE, change_index), _path(site, CHANGE, change_index))
    psbt = build_psbt(tx, inputs, change, site.keyset.fingerprint)
    fee = parse_psbt(psbt).fee_sats
    if fee != selection.fee_sats:
        raise InvalidValue(f"the transaction pays {fee} sats of fee, {selection.fee_sats} were planned")
    request = SignRequest(
        chain=site.chain,
        keyset=site.keyset.id,
        intents=intents,
        evidence=Evidence(orders=tuple(payee.signed for payee in payees)),
        transaction=base64.b64encode(psbt).decode(),
    )
    return Built(
        unsigned=tx.serialize(),
        request=msgspec.json.encode(request).decode(),
        resources=tx.resources,
        fee_units=fee,
        feerate=FeeRate.paid(fee, selection.vsize_vb).sat_per_kvb,
        size=selection.vsize_vb,
    )


def read_request(text: str) -> SignRequest:
    """A recorded request. Raises InvalidValue if the record is damaged."""
    try:
        return msgspec.json.decode(text, type=SignRequest)
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"recorded signing request: {error}") from None


def footprint(version: Version) -> VersionFootprint:
    """How a version would show in the chain: witnesses change neither its txid nor its inputs."""
    return _footprint(version.unsigned)


@functools.lru_cache(maxsize=4096)
def _footprint(unsigned: bytes) -> VersionFootprint:
    tx = Transaction.parse(unsigned)
    return VersionFootprint(tx.txid.hex, frozenset(tx.resources))


def finish(version: Version, response: SignResponse) -> tuple[bytes, str]:
    """The signed bytes and their txid, after both decoders agree that they are what was recorded.

    Raises:
        InvalidSignature: a signature is missing or does not verify (coincurve).
        DecodersDisagree: the signed bytes are not the recorded transaction, or bitcoinlib reads others.
    """
    request = read_request(version.request)
    psbt = parse_psbt(base64.b64decode(request.transaction, validate=True))
    signatures = [_signature(item.index, item.pubkey, item.signature) for item in response.signatures]
    signed = finalize_p2wpkh(psbt, signatures)
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


def _signature(index: int, pubkey: str, signature: str) -> InputSignature:
    raw = bytes.fromhex(signature)
    if raw[-1:] != b"\x01":
        raise InvalidValue(f"input {index}: sighash type {raw[-1:].hex()}, only ALL was asked for")
    return InputSignature(index, bytes.fromhex(pubkey), raw[:-1])


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


def _coin(coin: SpendableCoin) -> Coin:
    return Coin(coin.resource, coin.units, P2WPKH_INPUT_WU)


def _bip69(coin: SpendableCoin) -> tuple[str, int]:
    outpoint = Outpoint.parse(coin.resource)
    return outpoint.txid.hex, outpoint.vout


def _path(site: Site, branch: int, index: int) -> tuple[int, ...]:
    account = [int(step.rstrip("'")) + HARDENED for step in site.keyset.origin.split("/")[1:]]
    return (*account, branch, index)


def _ceiling_reason(payee: Payee, feerate: FeeRate, fee_sats: int) -> Reason:
    return Reason(
        "fee-ceiling",
        f"at {feerate} it would cause {fee_sats} sats of network fee, its order allows {payee.fee_ceiling}",
    )
