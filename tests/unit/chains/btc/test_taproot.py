"""Taproot: vectors of BIP86 and BIP341, agreement with embit, and the strict PSBT of BIP371."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import coincurve
import pytest
from embit import bip32
from embit import psbt as embit_psbt
from embit import script as embit_script
from embit.ec import PublicKey as EmbitPublicKey
from embit.networks import NETWORKS as EMBIT_NETWORKS
from embit.transaction import Transaction as EmbitTransaction
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.hd import HARDENED, AccountKey, agreed_address
from chains.btc.network import NETWORKS
from chains.btc.psbt import InputSignature, InvalidSignature, PsbtInput, build_psbt, finalize, parse_psbt
from chains.btc.script import (
    P2TR_KEY_INPUT_WU,
    p2tr_script,
    p2wpkh_script,
    taproot_output_key,
    taproot_tweak,
)
from chains.btc.tx import Outpoint, TaprootDigests, Transaction, TxIn, TxOut
from chains.errors import InvalidValue
from chains.types import TxId
from tests.support.psbts import paths_of

MAIN, REGTEST = NETWORKS["main"], NETWORKS["regtest"]
XPUB = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ"
MASTER = bip32.HDKey.from_seed(bytes(range(64)), version=EMBIT_NETWORKS["regtest"]["xprv"])
ACCOUNT = MASTER.derive("m/86h/1h/0h")
KEY = AccountKey.parse(ACCOUNT.to_public().to_base58(), REGTEST, "p2tr")
ACCOUNT_PATH = (86 + HARDENED, 1 + HARDENED, HARDENED)
PREVIOUS = [
    Transaction(
        2,
        (TxIn(Outpoint(TxId("11" * 32), number)),),
        (TxOut(7, b"\x51"), TxOut(units, KEY.script(0, number))),
    )
    for number, units in enumerate((50_000, 70_000))
]
TX = Transaction(
    2,
    tuple(TxIn(Outpoint(tx.txid, 1)) for tx in PREVIOUS),
    (TxOut(60_000, p2wpkh_script(b"\x02" * 33)), TxOut(59_000, KEY.script(1, 3))),
)
INPUTS = [
    PsbtInput(txin.outpoint, txin.sequence, tx.serialize(), (*ACCOUNT_PATH, 0, number), KEY.pubkey(0, number))
    for number, (txin, tx) in enumerate(zip(TX.inputs, PREVIOUS, strict=True))
]
CHANGE = {1: (KEY.pubkey(1, 3), (*ACCOUNT_PATH, 1, 3))}
RAW = build_psbt(TX, INPUTS, CHANGE, MASTER.my_fingerprint)
SPENT = [tx.outputs[1] for tx in PREVIOUS]


def signatures() -> list[InputSignature]:
    digests = TaprootDigests(TX, SPENT)
    found = []
    for number in range(2):
        key = ACCOUNT.derive([0, number]).key.taproot_tweak(b"")
        signature = coincurve.PrivateKey(key.secret).sign_schnorr(digests.key_path(number), bytes(32))
        found.append(InputSignature(number, KEY.pubkey(0, number), signature))
    return found


def test_bip86_vectors() -> None:
    key = AccountKey.parse(XPUB, MAIN, "p2tr")
    first = key.pubkey(0, 0)
    assert first[1:].hex() == "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115"
    assert (
        taproot_output_key(first).hex() == "a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c"
    )
    assert key.address(0, 0) == "bc1p5cyxnuxmeuwuvkwfem96lqzszd02n6xdcjrs20cac6yqjjwudpxqkedrcr"
    assert key.address(0, 1) == "bc1p4qhjn9zdvkux4e44uhx8tc55attvtyu358kutcqkudyccelu0was9fqzwh"
    assert key.address(1, 0) == "bc1p3qkhfews2uk44qtvauqyr2ttdsw7svhkl9nkm9s9c3x4ax5h60wqwruhk7"


def test_bip341_key_without_scripts() -> None:
    internal = bytes.fromhex("02d6889cb081036e0faefa3a35157ad71086b123b2b144b649798b494c300a961d")
    assert taproot_tweak(internal).hex() == "b86e7be8f39bab32a6f2c0443abbc210f0edac0e2c53d501b36b64437d9c6c70"
    assert (
        p2tr_script(internal).hex() == "512053a1f6e454df1aa2776a2814a721372d6258050de330b3c6d10ee8f4e0dda343"
    )


@pytest.mark.parametrize("key", [b"", b"\x02" * 32, b"\x04" + bytes(32), b"\x02" + b"\xff" * 32])
def test_what_is_no_key_has_no_output_key(key: bytes) -> None:
    with pytest.raises(InvalidValue):
        taproot_output_key(key)


@given(st.integers(0, 1), st.one_of(st.integers(0, 50), st.integers(0, 2**31 - 1)))
def test_three_implementations_agree(branch: int, index: int) -> None:
    child = ACCOUNT.to_public().derive([branch, index])
    assert KEY.address(branch, index) == embit_script.p2tr(child).address(EMBIT_NETWORKS["regtest"])
    assert agreed_address(KEY, branch, index) == KEY.address(branch, index)
    assert KEY.script(branch, index) == p2tr_script(child.key.serialize())


@given(
    st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 100)), min_size=1, max_size=6),
    st.lists(st.integers(0, 10**8), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
)
def test_digests_are_embits(
    spent: list[tuple[int, int]], paid: list[int], locktime: int, sequence: int
) -> None:
    outputs = [TxOut(units, KEY.script(0, index)) for units, index in spent]
    tx = Transaction(
        2,
        tuple(TxIn(Outpoint(TxId("22" * 32), number), sequence) for number in range(len(spent))),
        tuple(TxOut(units, b"\x51") for units in paid),
        locktime,
    )
    other = EmbitTransaction.parse(tx.serialize())
    digests = TaprootDigests(tx, outputs)
    for number in range(len(spent)):
        theirs = other.sighash_taproot(
            number,
            [embit_script.Script(output.script) for output in outputs],
            [output.units for output in outputs],
        )
        assert digests.key_path(number) == theirs


def test_digests_need_every_output_spent() -> None:
    with pytest.raises(InvalidValue):
        TaprootDigests(TX, SPENT[:1])
    with pytest.raises(InvalidValue):
        TaprootDigests(TX, SPENT).key_path(2)


def test_what_was_built_is_read_back() -> None:
    parsed = parse_psbt(RAW)
    assert parsed.tx == TX
    assert parsed.fee_sats == 1_000
    assert paths_of(parsed.input_keys) == ((*ACCOUNT_PATH, 0, 0), (*ACCOUNT_PATH, 0, 1))
    assert paths_of(parsed.output_keys) == (None, (*ACCOUNT_PATH, 1, 3))
    assert [origin.pubkey for origin in parsed.output_keys[1]] == [KEY.pubkey(1, 3)[1:]]


def test_the_signed_transaction_has_one_signature_per_input_and_the_predicted_weight() -> None:
    signed = Transaction.parse(finalize(parse_psbt(RAW), signatures()))
    assert signed.txid == TX.txid
    assert [len(item) for txin in signed.inputs for item in txin.witness] == [64, 64]
    without = 4 * len(TX.serialize_without_witness()) - 2 * 4 * 41
    assert signed.weight == without + 2 + 2 * P2TR_KEY_INPUT_WU


def test_embit_signs_the_same_psbt_to_the_same_transaction() -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    assert psbt.sign_with(MASTER) == 2
    for scope, item in zip(psbt.inputs, signatures(), strict=True):
        witness = scope.final_scriptwitness.items[0]
        key = coincurve.PublicKeyXOnly(taproot_output_key(item.pubkey))
        assert key.verify(bytes(witness), TaprootDigests(TX, SPENT).key_path(item.index))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda both: both[:1],
        lambda both: [both[0], replace(both[1], pubkey=both[0].pubkey)],
        lambda both: [both[0], replace(both[1], signature=both[0].signature)],
        lambda both: [both[0], replace(both[1], signature=both[1].signature + b"\x01")],
        lambda both: [both[0], replace(both[1], signature=both[1].signature[:-1])],
        lambda both: [both[0], replace(both[1], signature=bytes(64))],
        lambda both: [*both, replace(both[1], pubkey=b"\x05" * 33)],
    ],
)
def test_a_wrong_signature_never_gets_into_a_transaction(
    spoil: Callable[[list[InputSignature]], list[InputSignature]],
) -> None:
    with pytest.raises(InvalidSignature):
        finalize(parse_psbt(RAW), spoil(signatures()))


def other_internal_key(psbt: Any) -> None:
    psbt.inputs[0].taproot_internal_key = EmbitPublicKey.parse(KEY.pubkey(0, 7))


def second_key(psbt: Any) -> None:
    key = EmbitPublicKey.from_xonly(KEY.pubkey(0, 7)[1:])
    derivation = embit_psbt.DerivationPath(MASTER.my_fingerprint, [1])
    psbt.inputs[0].taproot_bip32_derivations[key] = ([], derivation)


def key_in_a_script(psbt: Any) -> None:
    [(key, (_, derivation))] = psbt.inputs[0].taproot_bip32_derivations.items()
    psbt.inputs[0].taproot_bip32_derivations[key] = ([bytes(32)], derivation)


def key_of_another_script(psbt: Any) -> None:
    key = EmbitPublicKey.parse(KEY.pubkey(0, 0))
    psbt.inputs[0].bip32_derivations[key] = embit_psbt.DerivationPath(MASTER.my_fingerprint, [1])


def taproot_key_of_a_payment(psbt: Any) -> None:
    psbt.outputs[0].taproot_internal_key = EmbitPublicKey.parse(KEY.pubkey(0, 7))


def merkle_root(psbt: Any) -> None:
    psbt.inputs[0].taproot_merkle_root = bytes(32)


def sighash_all(psbt: Any) -> None:
    psbt.inputs[0].sighash_type = 1


def no_previous_transaction(psbt: Any) -> None:
    psbt.inputs[0].witness_utxo = psbt.inputs[0].non_witness_utxo.vout[1]
    psbt.inputs[0].non_witness_utxo = None


def another_amount(psbt: Any) -> None:
    psbt.inputs[0].witness_utxo = psbt.inputs[0].non_witness_utxo.vout[1]
    psbt.inputs[0].witness_utxo.value += 1


def a_witness_script(psbt: Any) -> None:
    psbt.inputs[0].witness_script = embit_script.Script(b"\x51")


@pytest.mark.parametrize(
    "edit",
    [
        other_internal_key,
        second_key,
        key_in_a_script,
        key_of_another_script,
        taproot_key_of_a_payment,
        merkle_root,
        sighash_all,
        no_previous_transaction,
        another_amount,
        a_witness_script,
    ],
)
def test_anything_but_a_key_path_with_whole_previous_transactions_is_refused(
    edit: Callable[[Any], None],
) -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    edit(psbt)
    with pytest.raises(InvalidValue):
        parse_psbt(psbt.serialize())


def test_the_default_sighash_may_be_left_unsaid() -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    psbt.inputs[0].sighash_type = None
    assert parse_psbt(psbt.serialize()).tx == TX
