"""Consolidations: many coins of ours become one, at a change address. No payments, one output.

Rotations are the same, but that the address is one of the key-set that follows. A replacement spends the same coins
into the same address, and pays the higher fee out of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.address import parse_address
from chains.btc.codec import compact_size
from chains.btc.coin_index import Coin
from chains.btc.coins import Selection
from chains.btc.fees import FeeRate, minimum_replacement_fee
from chains.btc.hd import CHANGE
from chains.btc.network import NETWORKS
from chains.btc.outputs import lock_of
from chains.btc.psbt import ScriptKeys
from chains.btc.script import Lock, dust_limit_sats, output_size_vb
from chains.btc.tx import TxOut
from custody.signing.btc.plan import assemble, written
from custody.signing.btc.site import BtcSite
from custody.signing.errors import BumpRefused
from custody.signing.model import SpendableCoin
from custody.signing.requests import Built, house_intent
from policies.intent import Intent, Kind


@dataclass(frozen=True, slots=True)
class Merged:
    """What gathering some coins takes."""

    vsize_vb: int
    """With signatures of the largest size."""
    fee_sats: int


def merged(count: int, feerate: FeeRate, spent: Lock, made: Lock) -> Merged:
    """Size and fee of a transaction that gathers so many coins of one kind into one of another or the same."""
    # version and locktime, the two counts, the output; segwit marker and flag
    body_vb = 8 + len(compact_size(count)) + 1 + output_size_vb(made.script)
    vsize_vb = -(-(body_vb * 4 + 2 + count * spent.input_wu) // 4)
    return Merged(vsize_vb, feerate.fee_for(vsize_vb))


def least_change_sats(long_term: FeeRate, made: Lock) -> int:
    """The smallest coin worth making: nodes relay it, and spending it later leaves something."""
    return max(dust_limit_sats(made.script), long_term.fee_for_weight(made.input_wu) + 1)


def all_of(coins: Sequence[SpendableCoin], fee_sats: int, spent: Lock, made: Lock) -> Selection:
    """All of these coins, and what they are worth beyond the fee as the only output."""
    return Selection(
        coins=tuple(Coin(coin.resource, coin.units, spent.input_wu) for coin in coins),
        change_sats=sum(coin.units for coin in coins) - fee_sats,
        fee_sats=fee_sats,
        vsize_vb=merged(len(coins), FeeRate(0), spent, made).vsize_vb,
        waste_sats=0,
        algorithm="pinned",
    )


def replaced(
    site: BtcSite,
    coins: Sequence[SpendableCoin],
    target: FeeRate,
    made: Lock,
    *,
    old_fee_sats: int,
    old_feerate: FeeRate,
    incremental: FeeRate,
) -> Selection:
    """The same coins with a higher fee.

    Args:
        site: the wallet.
        coins: what every version spends.
        target: feerate that it should pay at least.
        made: the one output.
        old_fee_sats, old_feerate: the highest among the versions there are.
        incremental: what nodes want for relaying a replacement.

    Raises:
        BumpRefused: a cap, or what the coins are worth, does not allow it.
    """
    spent = site.outputs.lock
    vsize_vb = merged(len(coins), target, spent, made).vsize_vb
    fee_sats = max(
        target.fee_for(vsize_vb), minimum_replacement_fee(old_fee_sats, old_feerate, vsize_vb, incremental)
    )
    most = min(int(site.network.fee_cap), site.feerate_cap.fee_for(vsize_vb))
    if fee_sats > most:
        raise BumpRefused(f"a replacement needs {fee_sats} sats of fee, the caps allow {most}")
    left = sum(coin.units for coin in coins) - fee_sats
    least = least_change_sats(FeeRate(site.pace.long_term_sat_per_kvb), made)
    if left < least:
        raise BumpRefused(
            f"a fee of {fee_sats} sats would leave {left}, less than {least} is not worth having"
        )
    return all_of(coins, fee_sats, spent, made)


def assemble_consolidation(
    site: BtcSite,
    sweep_id: UUID,
    coins: Sequence[SpendableCoin],
    previous: Mapping[str, bytes],
    fee_sats: int,
    change_index: int,
) -> Built:
    """The unsigned transaction and its request.

    Args:
        site: the wallet.
        sweep_id: of the intent.
        coins: all that it spends.
        previous: whole previous transactions by txid.
        fee_sats: what it pays.
        change_index: where everything goes.

    Raises:
        InvalidValue: the parts do not fit together.
        DerivationDisagreement: two implementations derive different addresses; neither is used.
    """
    selection = all_of(coins, fee_sats, site.outputs.lock, site.outputs.lock)
    destination = site.outputs.agreed_address(CHANGE, change_index)
    intent = house_intent(site, Kind.CONSOLIDATION, str(sweep_id), destination)
    by_resource = {coin.resource: coin for coin in coins}
    return assemble(site, (), (intent,), selection, by_resource, previous, change_index)


def assemble_rotation(
    site: BtcSite,
    intents: tuple[Intent, ...],
    coins: Sequence[SpendableCoin],
    previous: Mapping[str, bytes],
    fee_sats: int,
    to: ScriptKeys,
) -> Built:
    """The unsigned transaction that moves all of these coins to another key-set of ours, and its request.

    Args:
        site: the wallet that they leave.
        intents: the one rotation; it names the address.
        coins: all that it spends.
        previous: whole previous transactions by txid.
        fee_sats: what it pays.
        to: what is behind the address.

    Raises:
        InvalidValue: the parts do not fit together.
    """
    [intent] = intents
    address = parse_address(intent.destination, NETWORKS[site.network.network], site.chain)
    selection = all_of(coins, fee_sats, site.outputs.lock, lock_of(address.script, to.script))
    outputs = [TxOut(sum(coin.units for coin in coins) - fee_sats, address.script)]
    return written(site, intents, (), coins, previous, outputs, selection, None, elsewhere=to)
