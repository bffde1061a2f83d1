"""Our decoders against bitcoind's own, on scripts, addresses, transactions, PSBTs and whole blocks."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from embit import bip32
from embit.networks import NETWORKS as EMBIT_NETWORKS

from chains.btc.address import address_text, parse_address
from chains.btc.block import Block, WatchedOutpoints
from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import PsbtInput, build_psbt, parse_psbt
from chains.btc.script import (
    classify,
    p2pkh_script_from_hash,
    p2sh_script_from_hash,
    p2wpkh_script_from_hash,
    witness_script,
)
from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.errors import InvalidAddress
from ops.devnet.bitcoind import Bitcoind, btc_to_sats

REGTEST = NETWORKS["regtest"]
KINDS = {
    "pubkeyhash": "p2pkh",
    "scripthash": "p2sh",
    "witness_v0_keyhash": "p2wpkh",
    "witness_v0_scripthash": "p2wsh",
    "witness_v1_taproot": "p2tr",
}


def standard_scripts(draw: random.Random) -> list[bytes]:
    return [
        p2pkh_script_from_hash(draw.randbytes(20)),
        p2sh_script_from_hash(draw.randbytes(20)),
        p2wpkh_script_from_hash(draw.randbytes(20)),
        witness_script(0, draw.randbytes(32)),
        witness_script(1, draw.randbytes(32)),
    ]


def test_scripts_and_addresses_mean_the_same_to_bitcoind(bitcoind: Bitcoind) -> None:
    draw = random.Random(1)
    for _ in range(10):
        for script in standard_scripts(draw):
            theirs = bitcoind.rpc("decodescript", script.hex())
            assert classify(script) == KINDS[theirs["type"]]
            assert address_text(script, REGTEST) == theirs["address"]
            validated = bitcoind.rpc("validateaddress", theirs["address"])
            assert validated["scriptPubKey"] == script.hex()


def test_scripts_of_other_types_are_other_types_to_bitcoind_too(bitcoind: Bitcoind) -> None:
    draw = random.Random(2)
    for standard in standard_scripts(draw):
        for damaged in (standard + b"\x00", standard[:-1], b"\x52" + standard[1:], b"\x6a" + standard):
            theirs = bitcoind.rpc("decodescript", damaged.hex())["type"]
            assert classify(damaged) == KINDS.get(theirs)


@pytest.mark.parametrize("kind", ["legacy", "p2sh-segwit", "bech32", "bech32m"])
def test_every_type_of_address_the_wallet_gives_is_read(bitcoind: Bitcoind, kind: str) -> None:
    text = bitcoind.wallet("decoders").address(kind)
    address = parse_address(text, REGTEST, "bitcoin-regtest")
    assert address.script.hex() == bitcoind.rpc("validateaddress", text)["scriptPubKey"]
    assert address_text(address.script, REGTEST) == text


def test_what_bitcoind_does_not_validate_we_do_not_read(bitcoind: Bitcoind) -> None:
    draw = random.Random(3)
    for script in standard_scripts(draw) * 10:
        text = list(address_text(script, REGTEST))
        text[draw.randrange(len(text))] = draw.choice("acdefgh234567890")
        damaged = "".join(text)
        if bitcoind.rpc("validateaddress", damaged)["isvalid"]:
            assert parse_address(damaged, REGTEST, "c").text == damaged
        else:
            with pytest.raises(InvalidAddress):
                parse_address(damaged, REGTEST, "c")


def same_transaction(tx: Transaction, theirs: dict[str, Any]) -> None:
    assert tx.txid.hex == theirs["txid"]
    assert (tx.version, tx.locktime, tx.vsize, tx.weight) == (
        theirs["version"],
        theirs["locktime"],
        theirs["vsize"],
        theirs["weight"],
    )
    assert len(tx.inputs) == len(theirs["vin"])
    for txin, other in zip(tx.inputs, theirs["vin"], strict=True):
        assert txin.sequence == other["sequence"]
        assert [item.hex() for item in txin.witness] == other.get("txinwitness", [])
        if "coinbase" in other:
            assert tx.is_coinbase
            assert txin.script_sig.hex() == other["coinbase"]
        else:
            assert txin.outpoint.resource == f"{other['txid']}:{other['vout']}"
            assert txin.script_sig.hex() == other["scriptSig"]["hex"]
    assert [(out.units, out.script.hex()) for out in tx.outputs] == [
        (btc_to_sats(other["value"]), other["scriptPubKey"]["hex"]) for other in theirs["vout"]
    ]


def test_generated_transactions_decode_to_the_same_fields(bitcoind: Bitcoind) -> None:
    draw = random.Random(4)
    for number in range(60):
        inputs = tuple(
            TxIn(
                Outpoint.from_raw(draw.randbytes(32) + draw.randrange(2**32).to_bytes(4, "little")),
                draw.randrange(2**32),
                draw.randbytes(draw.choice((0, 0, 23, 107, 300))),
                tuple(
                    draw.randbytes(draw.choice((0, 33, 72, 260))) for _ in range(draw.choice((0, 1, 2, 5)))
                ),
            )
            for _ in range(draw.choice((1, 2, 3, 260 if number == 0 else 4)))
        )
        outputs = tuple(
            TxOut(draw.randrange(10**12), script) for script in standard_scripts(draw)[: draw.randrange(1, 6)]
        )
        tx = Transaction(draw.randrange(1, 2**31), inputs, outputs, draw.randrange(2**32))
        has_witness = any(txin.witness for txin in inputs)
        raw = tx.serialize()
        same_transaction(tx, bitcoind.rpc("decoderawtransaction", raw.hex(), has_witness))
        assert Transaction.parse(raw) == tx


def test_a_psbt_of_ours_means_the_same_to_bitcoind(bitcoind: Bitcoind) -> None:
    root = bip32.HDKey.from_seed(bytes(range(64)), version=EMBIT_NETWORKS["regtest"]["xprv"])
    account = AccountKey.parse(root.derive("m/84h/1h/0h").to_public().to_base58(), REGTEST)
    path = (84 + 2**31, 1 + 2**31, 2**31)
    previous = Transaction(
        2, (TxIn(Outpoint.from_raw(bytes(range(36)))),), (TxOut(50_000, account.script(0, 3)),)
    )
    source = TxIn(Outpoint(previous.txid, 0))
    tx = Transaction(
        2, (source,), (TxOut(30_000, witness_script(1, bytes(32))), TxOut(19_000, account.script(1, 7)))
    )
    raw = build_psbt(
        tx,
        [
            PsbtInput(
                source.outpoint, source.sequence, previous.serialize(), (*path, 0, 3), account.pubkey(0, 3)
            )
        ],
        {1: (account.pubkey(1, 7), (*path, 1, 7))},
        root.my_fingerprint,
    )
    theirs = bitcoind.rpc("decodepsbt", base64.b64encode(raw).decode())
    assert theirs["tx"]["txid"] == parse_psbt(raw).tx.txid.hex
    assert btc_to_sats(theirs["fee"]) == parse_psbt(raw).fee_sats == 1_000
    [derivation] = theirs["inputs"][0]["bip32_derivs"]
    assert derivation["pubkey"] == account.pubkey(0, 3).hex()
    assert derivation["path"].replace("'", "h") == "m/84h/1h/0h/0/3"
    assert derivation["master_fingerprint"] == root.my_fingerprint.hex()
    [derivation] = theirs["outputs"][1]["bip32_derivs"]
    assert derivation["path"].replace("'", "h") == "m/84h/1h/0h/1/7"


def test_bitcoind_derives_the_same_addresses(bitcoind: Bitcoind) -> None:
    root = bip32.HDKey.from_seed(bytes(64), version=EMBIT_NETWORKS["regtest"]["xprv"])
    account = AccountKey.parse(root.derive("m/84h/1h/5h").to_public().to_base58(), REGTEST)
    for branch in (0, 1):
        text = f"wpkh({account.xpub}/{branch}/*)"
        descriptor = bitcoind.rpc("getdescriptorinfo", text)["descriptor"]
        assert bitcoind.rpc("deriveaddresses", descriptor, [0, 20]) == account.addresses(branch, 0, 21)


def test_a_real_block_holds_for_us_what_bitcoind_says_it_holds(bitcoind: Bitcoind) -> None:
    wallet = bitcoind.wallet("decoders")
    if wallet.balance_sats() < 10**8:
        wallet.fund()
    addresses = [wallet.address(kind) for kind in ("legacy", "p2sh-segwit", "bech32", "bech32m") * 3]
    wallet.send_many({address: 100_000 + number for number, address in enumerate(addresses)})
    wallet.mine(1)
    for number, address in enumerate(addresses):
        wallet.send(address, 20_000 + number)
    [block_hash] = wallet.mine(1)

    theirs = bitcoind.rpc("getblock", block_hash, 2)
    block = Block.parse(bytes.fromhex(bitcoind.rpc("getblock", block_hash, 0)))
    block.check_merkle_root()
    assert (block.hash, block.previous) == (block_hash, theirs["previousblockhash"])
    for position, expected in enumerate(theirs["tx"]):
        same_transaction(block.transaction(position), expected)

    watched = {
        bytes.fromhex(bitcoind.rpc("validateaddress", address)["scriptPubKey"]) for address in addresses
    }
    outputs = [(tx["txid"], out) for tx in theirs["tx"] for out in tx["vout"]]
    inputs = [
        (tx["txid"], f"{vin['txid']}:{vin['vout']}")
        for tx in theirs["tx"]
        for vin in tx["vin"]
        if "txid" in vin
    ]
    assert len(inputs) >= len(addresses)
    seen = block.observe(watched, WatchedOutpoints(resource for _, resource in inputs))
    assert [(receipt.resource, receipt.units) for receipt in seen.receipts] == [
        (f"{txid}:{out['n']}", btc_to_sats(out["value"]))
        for txid, out in outputs
        if bytes.fromhex(out["scriptPubKey"]["hex"]) in watched
    ]
    assert [(c.txid.hex, c.resource) for c in seen.consumptions] == inputs
