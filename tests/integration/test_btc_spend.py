"""From coins to a mined payment with our own parts, judged by bitcoind: sizes, fees, dust and replacement."""

from __future__ import annotations

from collections.abc import Iterator

import coincurve
import pytest
from embit import bip32
from embit.networks import NETWORKS as EMBIT_NETWORKS

from chains.btc.coin_index import Coin
from chains.btc.coins import ChangeOutput, Payments, select
from chains.btc.fees import FeeRate, minimum_replacement_fee
from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode
from chains.btc.psbt import InputSignature, PsbtInput, build_psbt, finalize, parse_psbt
from chains.btc.script import (
    P2WPKH_INPUT_WU,
    dust_limit_sats,
    p2pkh_script_from_hash,
    p2sh_script_from_hash,
    p2wpkh_script_from_hash,
    witness_script,
)
from chains.btc.tx import Outpoint, SegwitDigests, Transaction, TxIn, TxOut
from chains.ports import BroadcastState, Presence
from ops.devnet.bitcoind import Bitcoind
from tests.support.psbts import paths_of

REGTEST = NETWORKS["regtest"]
MASTER = bip32.HDKey.from_seed(bytes(range(1, 65)), version=EMBIT_NETWORKS["regtest"]["xprv"])
ACCOUNT = AccountKey.parse(MASTER.derive("m/84h/1h/0h").to_public().to_base58(), REGTEST)
ACCOUNT_PATH = (84 + 2**31, 1 + 2**31, 2**31)
KINDS = {
    "p2pkh": p2pkh_script_from_hash(bytes(20)),
    "p2sh": p2sh_script_from_hash(bytes(20)),
    "p2wpkh": p2wpkh_script_from_hash(bytes(20)),
    "p2wsh": witness_script(0, bytes(32)),
    "p2tr": witness_script(1, bytes(32)),
}


@pytest.fixture(scope="module")
def node(bitcoind: Bitcoind) -> Iterator[BitcoinNode]:
    adapter = BitcoinNode("bitcoin-regtest", REGTEST, bitcoind.rpc_url, bitcoind.rest_url)
    yield adapter
    adapter.close()


class Purse:
    """Coins at our account's addresses, funded by a wallet of the node, and a signer for them."""

    def __init__(self, bitcoind: Bitcoind, node: BitcoinNode) -> None:
        self.wallet = bitcoind.wallet("spend")
        self.node = node
        self.places: dict[str, tuple[int, Transaction]] = {}
        self.next_index = 0
        if self.wallet.balance_sats() < 10**8:
            self.wallet.fund()

    def coin(self, units: int) -> Coin:
        """A confirmed coin of ours."""
        index = self.next_index
        self.next_index += 1
        txid = self.wallet.send(ACCOUNT.address(0, index), units)
        self.wallet.mine(1)
        seen = self.node.observe_block(self.node.tip(), {ACCOUNT.script(0, index)}, set())
        [receipt] = [receipt for receipt in seen.receipts if receipt.txid.hex == txid]
        raw = self.node.raw_transaction(receipt.txid, self.node.tip().hash)
        self.places[receipt.resource] = (index, Transaction.parse(raw))
        return Coin(receipt.resource, receipt.units, P2WPKH_INPUT_WU)

    def sign(self, tx: Transaction, change: dict[int, int]) -> bytes:
        """Through a PSBT, as the signer does; `change` names the index of change by output."""
        inputs = []
        for txin in tx.inputs:
            index, previous = self.places[txin.outpoint.resource]
            path = (*ACCOUNT_PATH, 0, index)
            inputs.append(
                PsbtInput(txin.outpoint, txin.sequence, previous.serialize(), path, ACCOUNT.pubkey(0, index))
            )
        origins = {at: (ACCOUNT.pubkey(1, index), (*ACCOUNT_PATH, 1, index)) for at, index in change.items()}
        parsed = parse_psbt(build_psbt(tx, inputs, origins, MASTER.my_fingerprint))
        digests = SegwitDigests(parsed.tx)
        signatures = []
        for number, (path_, spent) in enumerate(zip(paths_of(parsed.input_keys), parsed.spent, strict=True)):
            assert path_ is not None
            secret = coincurve.PrivateKey(MASTER.derive(list(path_)).secret)
            pubkey = secret.public_key.format()
            digest = digests.p2wpkh(number, pubkey, spent.units)
            signatures.append(InputSignature(number, pubkey, secret.sign(digest, hasher=None) + b"\x01"))
        return finalize(parsed, signatures)


@pytest.fixture(scope="module")
def purse(bitcoind: Bitcoind, node: BitcoinNode) -> Purse:
    return Purse(bitcoind, node)


def inputs_of(coins: tuple[Coin, ...]) -> tuple[TxIn, ...]:
    return tuple(TxIn(Outpoint.parse(coin.resource)) for coin in coins)


def test_a_batch_to_every_standard_type_is_chosen_signed_sent_and_mined(
    purse: Purse, node: BitcoinNode
) -> None:
    coins = [purse.coin(units) for units in (60_000, 80_000, 120_000)]
    outputs = [TxOut(20_000 + number, script) for number, script in enumerate(KINDS.values())]
    feerate = FeeRate(12_345)
    selection = select(
        coins,
        Payments.to((out.units, out.script) for out in outputs),
        feerate=feerate,
        long_term_feerate=FeeRate(10_000),
        change=ChangeOutput.to(ACCOUNT.script(1, 0)),
    )
    change = {}
    if selection.change_sats is not None:
        change = {len(outputs): 0}
        outputs.append(TxOut(selection.change_sats, ACCOUNT.script(1, 0)))
    raw = purse.sign(Transaction(2, inputs_of(selection.coins), tuple(outputs)), change)
    signed = Transaction.parse(raw)
    assert selection.vsize_vb - len(coins) <= signed.vsize <= selection.vsize_vb
    assert FeeRate.paid(selection.fee_sats, signed.vsize) >= feerate
    assert node.test_accept(raw).state is BroadcastState.ACCEPTED
    assert node.broadcast(raw).state is BroadcastState.ACCEPTED
    purse.wallet.mine(1)
    assert node.presence(signed.txid) is Presence.MINED
    seen = node.observe_block(node.tip(), set(KINDS.values()), set(signed.resources))
    assert {receipt.script: receipt.units for receipt in seen.receipts} == {
        out.script: out.units for out in outputs[: len(KINDS)]
    }
    assert [consumption.resource for consumption in seen.consumptions] == list(signed.resources)


@pytest.mark.parametrize("kind", KINDS)
def test_the_dust_limit_is_exactly_bitcoinds(purse: Purse, node: BitcoinNode, kind: str) -> None:
    coin = purse.coin(30_000)
    script = KINDS[kind]
    for below, expected in ((0, BroadcastState.ACCEPTED), (1, BroadcastState.REJECTED)):
        outputs = (TxOut(dust_limit_sats(script) - below, script), TxOut(25_000, ACCOUNT.script(1, 1)))
        raw = purse.sign(Transaction(2, inputs_of((coin,)), outputs), {1: 1})
        result = node.test_accept(raw)
        assert result.state is expected
        assert result.reason.startswith("dust" if below else "")


def test_a_replacement_at_the_minimum_fee_is_accepted_and_one_satoshi_less_is_not(
    purse: Purse, node: BitcoinNode
) -> None:
    coin = purse.coin(100_000)
    first_fee = 1_000

    def version(payment_sats: int, fee_sats: int) -> bytes:
        payment = TxOut(payment_sats, KINDS["p2wpkh"])
        change = TxOut(100_000 - payment_sats - fee_sats, ACCOUNT.script(1, 2))
        return purse.sign(Transaction(2, inputs_of((coin,)), (payment, change)), {1: 2})

    # Now and then a signature is shorter; another amount has another one.
    for payment_sats in range(40_000, 40_050):
        first = version(payment_sats, first_fee)
        size = Transaction.parse(first).vsize
        least = minimum_replacement_fee(
            first_fee, FeeRate.paid(first_fee, size), size, node.incremental_feerate()
        )
        enough, too_little = version(payment_sats, least), version(payment_sats, least - 1)
        if Transaction.parse(enough).vsize == Transaction.parse(too_little).vsize == size:
            break
    else:
        pytest.fail("no three versions of one size")
    assert node.broadcast(first).state is BroadcastState.ACCEPTED
    refused = node.test_accept(too_little)
    assert refused.state is BroadcastState.REJECTED
    assert "insufficient fee" in refused.reason
    assert node.broadcast(too_little).state is BroadcastState.REJECTED
    assert node.broadcast(enough).state is BroadcastState.ACCEPTED
    assert node.presence(Transaction.parse(first).txid) is Presence.UNKNOWN
    assert node.presence(Transaction.parse(enough).txid) is Presence.MEMPOOL
    purse.wallet.mine(1)
