"""Choosing coins among 100,000, beside bitcoind's walletcreatefundedpsbt; time, and what the choice costs."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from chains.btc.fees import FeeRate
from ops.bench.compare import Row, Side, interleave
from ops.devnet.bitcoind import Bitcoind, OutsideWallet, btc_to_sats, sats_to_btc

_OUTPUTS: Final = 2_500
_FANOUTS: Final = 40
_FEERATE: Final = FeeRate(10_000)
_LONG_TERM: Final = FeeRate(10_000)
_PAYMENTS_SATS: Final = tuple(random.Random(7).randrange(1_000_000, 100_000_000) for _ in range(40))


def rows(progress: Callable[[str], None]) -> Iterator[Row]:
    """Choices a second, and satoshis of fee for the same payments at the same feerate."""
    # Without a flush for each of 100,000 outputs the wallet is made in seconds; choosing flushes nothing.
    fast = ("-unsafesqlitesync=1", "-rpcservertimeout=600")
    with (
        tempfile.TemporaryDirectory(prefix="strongroom-bench-") as name,
        Bitcoind(Path(name), extra_args=fast) as node,
    ):
        yield from _compare(_wallet_of_many_coins(node, progress), progress)


def _wallet_of_many_coins(node: Bitcoind, progress: Callable[[str], None]) -> OutsideWallet:
    """A wallet with 100,000 coins of 0.0002 to 0.05 BTC, made by 40 transactions of 2,500 outputs."""
    miner = node.wallet("miner")
    progress("coin choice: mining")
    miner.mine(150)
    coins = node.wallet("coins")
    descriptor = next(
        entry["desc"]
        for entry in coins.rpc("listdescriptors")["descriptors"]
        if entry["desc"].startswith("wpkh(") and not entry["internal"]
    )
    addresses = node.rpc("deriveaddresses", descriptor, [0, _OUTPUTS - 1])
    coins.rpc("keypoolrefill", _OUTPUTS)
    draw = random.Random(11)
    for number in range(_FANOUTS):
        progress(f"coin choice: {(number + 1) * _OUTPUTS:,} coins")
        amounts = {address: sats_to_btc(draw.randrange(20_000, 5_000_000)) for address in addresses}
        miner.rpc("sendmany", "", amounts)
        miner.mine(1)
    return coins


def _compare(wallet: OutsideWallet, progress: Callable[[str], None]) -> Iterator[Row]:
    from chains.btc.coin_index import Coin, CoinIndex
    from chains.btc.coins import ChangeOutput, Payments, Selection, select
    from chains.btc.script import P2WPKH_INPUT_WU

    progress("coin choice: listing")
    unspents = wallet.rpc("listunspent", 1, 9_999_999)
    index = CoinIndex(
        Coin(f"{u['txid']}:{u['vout']}", btc_to_sats(u["amount"]), P2WPKH_INPUT_WU) for u in unspents
    )
    script, target = b"\0\x14" + bytes(range(20)), wallet.node.wallet("miner").address()
    change = ChangeOutput.to(script)

    def ours(sats: int) -> Selection:
        return select(
            index,
            Payments.to([(sats, script)]),
            feerate=_FEERATE,
            long_term_feerate=_LONG_TERM,
            change=change,
        )

    def peer(sats: int) -> dict[str, Any]:
        options = {"fee_rate": _FEERATE.sat_per_kvb // 1000, "change_type": "bech32"}
        found: dict[str, Any] = wallet.rpc(
            "walletcreatefundedpsbt", [], [{target: sats_to_btc(sats)}], 0, options
        )
        return found

    progress(f"coin choice: choosing among {len(index):,}")
    again_ours, again_peer = itertools.cycle(_PAYMENTS_SATS), itertools.cycle(_PAYMENTS_SATS)
    ours_rate, peer_rate = interleave(
        Side(lambda: ours(next(again_ours)), 1, runs=200), Side(lambda: peer(next(again_peer)), 1), repeats=9
    )
    name = "bitcoind: walletcreatefundedpsbt"
    yield Row(f"coin-choice-{len(index)}", ours_rate, peer_rate, name, "choices/s")
    sample = _PAYMENTS_SATS[:9]
    progress("coin choice: what the choices cost")
    ours_cost = sum(
        _cost(ours(sats).fee_sats, ours(sats).change_sats is not None, change.input_wu) for sats in sample
    )
    peer_cost = 0
    for sats in sample:
        found = peer(sats)
        peer_cost += _cost(btc_to_sats(found["fee"]), found["changepos"] >= 0, change.input_wu)
    yield Row(
        "coin-choice-cost",
        ours_cost / len(sample),
        peer_cost / len(sample),
        name,
        "sat, less is better",
    )


def _cost(fee_sats: int, with_change: object, change_input_wu: int) -> int:
    """The fee now, and for change what spending it later costs at the long-term feerate."""
    return fee_sats + (_LONG_TERM.fee_for_weight(change_input_wu) if with_change else 0)
