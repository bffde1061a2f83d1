"""Bitcoin payments: choose coins, build the unsigned transaction and its signing request, check what comes
back.

Pure. What is built here a signer decides on by itself; these checks keep requests from being refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

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
from chains.btc.hd import CHANGE
from chains.btc.psbt import PsbtInput, ScriptKeys, build_psbt, parse_psbt
from chains.btc.script import output_size_vb
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from custody.signing.btc.site import BtcSite
from custody.signing.model import SpendableCoin
from custody.signing.requests import Built, Payee, make_request
from policies.decision import Reason
from policies.intent import Intent, SignedOrder
from signers.ports import MAX_CALL_BYTES

TX_VERSION: Final = 2
MAX_PREVIOUS_BYTES: Final = (MAX_CALL_BYTES - 2**20) // 4 * 3
"""Most that the previous transactions of a request may have: base64 and all else fit into one call."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Which payments one transaction makes, from which coins, and which payments have to wait and why."""

    payees: tuple[Payee, ...]
    """Empty: nothing can be paid now; then there is no selection."""
    selection: Selection | None
    waiting: tuple[tuple[Payee, Reason], ...]


def plan(payees: Sequence[Payee], coins: Sequence[SpendableCoin], feerate: FeeRate, site: BtcSite) -> Plan:
    """Pay as many as can be paid at this feerate within everybody's limits.

    The fee stays below the sum of the orders' ceilings and the network's cap. Who cannot pay even for its own
    output waits; where the sum is too low the lowest ceiling waits; where coins are missing the largest
    payment waits, so that it does not stop the others.
    """
    waiting: list[tuple[Payee, Reason]] = []
    chosen: list[Payee] = []
    for payee in payees:
        own = feerate.fee_for(output_size_vb(payee.destination.script))
        if payee.fee_ceiling < own:
            waiting.append((payee, _ceiling_reason(site, payee, feerate, own)))
        else:
            chosen.append(payee)
    while chosen:
        limit = min(sum(payee.fee_ceiling for payee in chosen), int(site.network.fee_cap))
        try:
            selection = choose(chosen, coins, feerate, site, max_fee_sats=limit)
        except FeeAboveLimit as error:
            dropped = min(chosen, key=lambda payee: payee.fee_ceiling)
            waiting.append((dropped, _ceiling_reason(site, dropped, feerate, error.fee_sats)))
        except InsufficientFunds as error:
            dropped = max(chosen, key=lambda payee: payee.units)
            waiting.append(
                (
                    dropped,
                    Reason(
                        f"insufficient-{site.wallet.tier}-funds",
                        f"{site.asset.told(error.needed_sats)} are needed with fees,"
                        f" {site.asset.told(error.available_sats)} can be spent now",
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
    site: BtcSite,
    *,
    max_fee_sats: int,
    pinned: Sequence[SpendableCoin] = (),
) -> Selection:
    """Choose coins by waste. Raises InsufficientFunds, TooManyInputs, FeeAboveLimit."""
    limit, lock = max_fee_sats, site.outputs.lock
    while True:
        selection = select(
            [Coin(coin.resource, coin.units, lock.input_wu) for coin in coins],
            Payments.to((payee.units, payee.destination.script) for payee in payees),
            feerate=feerate,
            long_term_feerate=FeeRate(site.pace.long_term_sat_per_kvb),
            change=ChangeOutput.to(lock.script, lock.input_wu),
            pinned=[Coin(coin.resource, coin.units, lock.input_wu) for coin in pinned],
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


def assemble(
    site: BtcSite,
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
    spent = [coins[coin.resource] for coin in selection.coins]
    outputs = [TxOut(payee.units, payee.destination.script) for payee in payees]
    if change_index is not None and selection.change_sats is not None:
        outputs.append(TxOut(selection.change_sats, site.outputs.script(CHANGE, change_index)))
    orders = [payee.signed for payee in payees]
    return written(site, intents, orders, spent, previous, outputs, selection, change_index)


def written(
    site: BtcSite,
    intents: tuple[Intent, ...],
    orders: Sequence[SignedOrder],
    spent: Sequence[SpendableCoin],
    previous: Mapping[str, bytes],
    outputs: Sequence[TxOut],
    selection: Selection,
    change_index: int | None,
    elsewhere: ScriptKeys | None = None,
) -> Built:
    """The unsigned transaction with these inputs and outputs, and the request that asks for its signatures.

    Args:
        selection: what it was planned to pay, and its size.
        change_index: of the output that is change of this wallet, None without one.
        elsewhere: what is behind the output that is another wallet's of ours: the only one beside change.

    Raises:
        InvalidValue: it pays another fee than was planned.
    """
    spent = sorted(spent, key=_bip69)
    outputs = sorted(outputs, key=lambda output: (output.units, output.script))
    tx = Transaction(TX_VERSION, tuple(TxIn(Outpoint.parse(coin.resource)) for coin in spent), tuple(outputs))
    inputs = [
        PsbtInput(
            txin.outpoint,
            txin.sequence,
            previous[coin.txid],
            behind=site.outputs.behind(coin.branch, coin.index),
        )
        for txin, coin in zip(tx.inputs, spent, strict=True)
    ]
    change_script = None if change_index is None else site.outputs.script(CHANGE, change_index)
    own = {}
    if change_index is not None:
        position = next(i for i, output in enumerate(outputs) if output.script == change_script)
        own[position] = site.outputs.behind(CHANGE, change_index)
    if elsewhere is not None:
        own[next(i for i, output in enumerate(outputs) if output.script != change_script)] = elsewhere
    psbt = build_psbt(tx, inputs, {}, bytes(4), own)
    fee = parse_psbt(psbt).fee_sats
    if fee != selection.fee_sats:
        raise InvalidValue(f"the transaction pays {fee} sats of fee, {selection.fee_sats} were planned")
    return Built(
        unsigned=tx.serialize(),
        request=make_request(site, intents, orders, psbt),
        content=tx.txid.hex,
        resources=tx.resources,
        fee_units=fee,
        feerate=FeeRate.paid(fee, selection.vsize_vb).sat_per_kvb,
        size=selection.vsize_vb,
    )


def _bip69(coin: SpendableCoin) -> tuple[str, int]:
    outpoint = Outpoint.parse(coin.resource)
    return outpoint.txid.hex, outpoint.vout


def _ceiling_reason(site: BtcSite, payee: Payee, feerate: FeeRate, fee_sats: int) -> Reason:
    return Reason(
        "fee-ceiling",
        f"at {feerate} it would cause {site.asset.told(fee_sats)} of network fee,"
        f" its order allows {site.asset.told(payee.fee_ceiling)}",
    )
