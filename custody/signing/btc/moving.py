"""Moves to another wallet of ours: one output of exactly what was approved, at an address of that wallet, and change.

Pure. A replacement makes the same output, spends at least the same coins, and pays the higher fee out of its change.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

from chains.btc.address import parse_address
from chains.btc.coin_index import Coin
from chains.btc.coins import ChangeOutput, Payments, Selection, select
from chains.btc.fees import FeeRate
from chains.btc.hd import CHANGE
from chains.btc.network import NETWORKS
from chains.btc.psbt import ScriptKeys, parse_psbt
from chains.btc.tx import TxOut
from chains.errors import InvalidValue
from custody.signing.btc.plan import written
from custody.signing.btc.site import BtcSite
from custody.signing.model import SpendableCoin
from custody.signing.requests import Built
from policies.intent import Intent
from signers.ports import SignRequest


def choose_for_move(
    site: BtcSite,
    intent: Intent,
    found: Sequence[SpendableCoin],
    feerate: FeeRate,
    *,
    max_fee_sats: int,
    pinned: Sequence[SpendableCoin] = (),
) -> Selection:
    """Choose coins by waste.

    Args:
        site: the wallet that the money leaves.
        intent: of the refill.
        found: what may be spent.
        feerate: to pay.
        max_fee_sats: at most.
        pinned: what every version spends.

    Raises:
        InsufficientFunds, TooManyInputs, FeeAboveLimit.
    """
    limit, lock = max_fee_sats, site.outputs.lock
    script = destination_script(site, intent)
    while True:
        selection = select(
            [Coin(coin.resource, coin.units, lock.input_wu) for coin in found],
            Payments.to([(intent.units, script)]),
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


def assemble_move(
    site: BtcSite,
    intent: Intent,
    to: ScriptKeys,
    selection: Selection,
    by_resource: Mapping[str, SpendableCoin],
    previous: Mapping[str, bytes],
    change_index: int | None,
) -> Built:
    """The unsigned transaction and the request that asks for its signatures.

    Args:
        site: the wallet that the money leaves.
        intent: of the refill; it names amount and address.
        to: what is behind that address.
        selection: coins, fee, change.
        by_resource: at least the selected coins.
        previous: whole previous transactions by txid.
        change_index: needed exactly if the selection has change.

    Raises:
        InvalidValue: the parts do not fit together.
    """
    if (selection.change_sats is None) != (change_index is None):
        raise InvalidValue("a change index belongs to a selection with change")
    outputs = [TxOut(intent.units, destination_script(site, intent))]
    if change_index is not None and selection.change_sats is not None:
        outputs.append(TxOut(selection.change_sats, site.outputs.script(CHANGE, change_index)))
    spent = [by_resource[coin.resource] for coin in selection.coins]
    return written(site, (intent,), (), spent, previous, outputs, selection, change_index, elsewhere=to)


def behind_destination(site: BtcSite, intent: Intent, request: SignRequest) -> ScriptKeys:
    """What an earlier version's request says of the output at the destination.

    Raises:
        InvalidValue: it has no such output.
    """
    asked, script = parse_psbt(base64.b64decode(request.transaction)), destination_script(site, intent)
    for number, output in enumerate(asked.tx.outputs):
        if (output.script, output.units) == (script, intent.units):
            return ScriptKeys(asked.output_scripts[number], asked.output_keys[number])
    raise InvalidValue(f"no output pays {intent.units} to {intent.destination}")


def destination_script(site: BtcSite, intent: Intent) -> bytes:
    """The script of the intent's destination. Raises InvalidValue: it is no address of this network."""
    return parse_address(intent.destination, NETWORKS[site.network.network], site.chain).script
