"""Sorted multisig: descriptors, BIP67's vectors, agreement with embit, PSBT and witness."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import coincurve
import pytest
from embit import bip32
from embit import psbt as embit_psbt
from embit.descriptor import Descriptor
from embit.descriptor.checksum import add_checksum
from embit.networks import NETWORKS as EMBIT_NETWORKS
from hypothesis import given
from hypothesis import strategies as st

from chains.btc import multisig
from chains.btc.multisig import agreed_multisig_address, multisig_input_wu, parse_multisig, with_checksum
from chains.btc.multisig_script import MultisigScript
from chains.btc.network import NETWORKS
from chains.btc.psbt import InputSignature, InvalidSignature, PsbtInput, build_psbt, finalize, parse_psbt
from chains.btc.tx import Outpoint, SegwitDigests, Transaction, TxIn, TxOut
from chains.errors import DerivationDisagreement, InvalidValue
from chains.types import TxId

REGTEST = NETWORKS["regtest"]
VERSIONS = EMBIT_NETWORKS["regtest"]
ROOTS = [bip32.HDKey.from_seed(bytes([number]) * 64, version=VERSIONS["xprv"]) for number in range(5)]
ACCOUNTS = [root.derive("m/48h/1h/0h/2h") for root in ROOTS]
MEMBERS = [
    (f"{root.my_fingerprint.hex()}/48'/1'/0'/2'", account.to_public().to_base58(version=VERSIONS["xpub"]))
    for root, account in zip(ROOTS, ACCOUNTS, strict=True)
]
WALLET = parse_multisig(2, MEMBERS[:3], REGTEST)

PREVIOUS = Transaction(
    2, (TxIn(Outpoint(TxId("11" * 32), 0)),), (TxOut(7, b"\x51"), TxOut(90_000, WALLET.script(0, 5)))
)
TX = Transaction(
    2,
    (TxIn(Outpoint(PREVIOUS.txid, 1)),),
    (TxOut(60_000, b"\x00\x14" + bytes(20)), TxOut(29_000, WALLET.script(1, 2))),
)
RAW = build_psbt(
    TX,
    [
        PsbtInput(
            TX.inputs[0].outpoint, TX.inputs[0].sequence, PREVIOUS.serialize(), behind=WALLET.behind(0, 5)
        )
    ],
    {},
    bytes(4),
    {1: WALLET.behind(1, 2)},
)


def signature_of(member: int) -> InputSignature:
    key = coincurve.PrivateKey(ACCOUNTS[member].derive([0, 5]).secret)
    digest = SegwitDigests(TX).p2wsh(0, WALLET.witness_script(0, 5).serialize(), 90_000)
    return InputSignature(0, key.public_key.format(), key.sign(digest, hasher=None) + b"\x01")


def test_the_descriptor_names_every_key_with_its_origin_and_both_branches() -> None:
    origins = [origin.replace("'", "h") for origin, _ in MEMBERS[:3]]
    keys = ",".join(f"[{o}]{xpub}/<0;1>/*" for o, (_, xpub) in zip(origins, MEMBERS, strict=False))
    assert WALLET.descriptor == add_checksum(f"wsh(sortedmulti(2,{keys}))")


def test_bip380s_own_checksum() -> None:
    assert with_checksum("raw(deadbeef)") == "raw(deadbeef)#89f8spxm"
    with pytest.raises(InvalidValue):
        with_checksum("raw(dé)")


@given(st.text("0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~`\"\\ ", max_size=60))
def test_checksums_are_embits(text: str) -> None:
    assert with_checksum(text) == add_checksum(text)


@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))),
    st.integers(0, 1),
    st.integers(0, 2**31 - 1),
)
def test_scripts_and_addresses_are_embits(shape: tuple[int, int], branch: int, index: int) -> None:
    threshold, count = shape
    wallet = parse_multisig(threshold, MEMBERS[:count], REGTEST)
    derived = Descriptor.from_string(wallet.descriptor).branch(branch).derive(index)
    assert wallet.witness_script(branch, index).serialize() == derived.witness_script().data
    assert wallet.script(branch, index) == derived.script_pubkey().data
    assert agreed_multisig_address(wallet, branch, index) == derived.address(VERSIONS)


def test_the_order_of_the_members_changes_the_descriptor_but_no_address() -> None:
    wallets = [parse_multisig(2, members, REGTEST) for members in permutations(MEMBERS[:3])]
    assert len({wallet.descriptor for wallet in wallets}) == 6
    assert {wallet.address(1, 7) for wallet in wallets} == {WALLET.address(1, 7)}


def test_another_threshold_is_another_wallet() -> None:
    assert parse_multisig(3, MEMBERS[:3], REGTEST).address(0, 0) != WALLET.address(0, 0)


def test_disagreement_gives_out_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multisig, "second_opinion", lambda *_: "bcrt1qother")
    with pytest.raises(DerivationDisagreement):
        agreed_multisig_address(WALLET, 0, 0)


def test_a_wrong_checksum_is_no_second_opinion() -> None:
    text = WALLET.descriptor
    with pytest.raises(InvalidValue, match="checksum"):
        multisig.second_opinion(text[:-1] + ("q" if text[-1] != "q" else "p"), 0, 0, REGTEST)


@pytest.mark.parametrize(
    ("threshold", "members"),
    [
        (0, MEMBERS[:2]),
        (3, MEMBERS[:2]),
        (1, []),
        (2, [MEMBERS[0], MEMBERS[0]]),
        (2, [MEMBERS[0], ("00000000/48'/1'/0'/2'", MEMBERS[0][1])]),
        (2, [MEMBERS[0], (MEMBERS[1][0], ROOTS[1].to_public().to_base58(version=VERSIONS["xpub"]))]),
        (2, [MEMBERS[0], (MEMBERS[1][0][:-3], MEMBERS[1][1])]),
        (2, [MEMBERS[0], ("48'/1'/0'/2'", MEMBERS[1][1])]),
        (2, [MEMBERS[0], (MEMBERS[1][0], ACCOUNTS[1].to_base58(version=VERSIONS["xprv"]))]),
        (
            2,
            [
                MEMBERS[0],
                (MEMBERS[1][0], ACCOUNTS[1].to_public().to_base58(version=EMBIT_NETWORKS["main"]["xpub"])),
            ],
        ),
    ],
)
def test_what_is_no_wallet_is_refused(threshold: int, members: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidValue):
        parse_multisig(threshold, members, REGTEST)


def test_bip67_vectors() -> None:
    keys = [
        "02ff12471208c14bd580709cb2358d98975247d8765f92bc25eab3b2763ed605f8",
        "02fe6f0a5a297eb38c391581c4413e084773ea23954d93f7753db7dc0adc188b2f",
    ]
    script = MultisigScript(2, tuple(sorted(bytes.fromhex(key) for key in keys)))
    assert script.serialize().hex() == (
        "522102fe6f0a5a297eb38c391581c4413e084773ea23954d93f7753db7dc0adc188b2f"
        "2102ff12471208c14bd580709cb2358d98975247d8765f92bc25eab3b2763ed605f852ae"
    )
    with pytest.raises(InvalidValue):
        MultisigScript(2, tuple(bytes.fromhex(key) for key in keys))


@given(st.data())
def test_a_script_is_read_in_its_one_form_only(data: st.DataObject) -> None:
    raw = WALLET.witness_script(0, 0).serialize()
    assert MultisigScript.parse(raw).serialize() == raw
    at = data.draw(st.integers(0, len(raw) - 1))
    flipped = bytes([*raw[:at], raw[at] ^ data.draw(st.integers(1, 255)), *raw[at + 1 :]])
    with contextlib.suppress(InvalidValue):
        assert MultisigScript.parse(flipped).serialize() == flipped
    for piece in (raw[:at], raw + b"\x00", raw + raw):
        with pytest.raises(InvalidValue):
            MultisigScript.parse(piece)


def test_two_of_three_finalise_in_the_order_of_the_script_within_the_predicted_weight() -> None:
    parsed = parse_psbt(RAW)
    assert parsed.input_keys[0] == WALLET.behind(0, 5).keys
    assert parsed.output_keys == ((), WALLET.behind(1, 2).keys)
    script = WALLET.witness_script(0, 5)
    for pair in permutations((0, 1, 2), 2):
        items = [signature_of(member) for member in pair]
        signed = Transaction.parse(finalize(parsed, items))
        order = sorted(items, key=lambda item: script.pubkeys.index(item.pubkey))
        assert signed.inputs[0].witness == (b"", *(item.signature for item in order), script.serialize())
        bare = 4 * len(TX.serialize_without_witness()) - 4 * 41
        assert (
            bare + 2 + multisig_input_wu(script) - 4 <= signed.weight <= bare + 2 + multisig_input_wu(script)
        )


def test_embit_signs_the_same_psbt() -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    assert psbt.sign_with(ROOTS[1]) == 1
    [signature] = psbt.inputs[0].partial_sigs.values()
    theirs = replace(signature_of(1), signature=bytes(signature))  # embit grinds for a short one
    assert finalize(parse_psbt(RAW), [signature_of(0), theirs])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda two: two[:1],
        lambda two: [*two, signature_of(2)],
        lambda two: [two[0], two[0]],
        lambda two: [two[0], replace(two[1], signature=two[0].signature)],
        lambda two: [two[0], replace(two[1], pubkey=coincurve.PrivateKey().public_key.format())],
        lambda two: [two[0], replace(two[1], signature=two[1].signature[:-1] + b"\x81")],
        lambda two: [two[0], replace(two[1], index=1)],
    ],
)
def test_anything_but_the_thresholds_valid_signatures_is_refused(
    spoil: Callable[[list[InputSignature]], list[InputSignature]],
) -> None:
    with pytest.raises(InvalidSignature):
        finalize(parse_psbt(RAW), spoil([signature_of(0), signature_of(1)]))


def another_script(psbt: Any) -> None:
    psbt.inputs[0].witness_script = psbt.outputs[1].witness_script


def script_of_a_payment(psbt: Any) -> None:
    psbt.outputs[0].witness_script = psbt.outputs[1].witness_script


def two_keys_of_a_payment(psbt: Any) -> None:
    psbt.outputs[0].bip32_derivations.update(psbt.outputs[1].bip32_derivations)


@pytest.mark.parametrize("edit", [another_script, script_of_a_payment, two_keys_of_a_payment])
def test_a_psbt_that_says_something_else_than_its_outputs_is_refused(edit: Callable[[Any], None]) -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    edit(psbt)
    with pytest.raises(InvalidValue):
        parse_psbt(psbt.serialize())


def test_without_its_script_nothing_is_finalised() -> None:
    psbt = embit_psbt.PSBT.parse(RAW)
    psbt.inputs[0].witness_script = None
    with pytest.raises(InvalidSignature, match="no witness script"):
        finalize(parse_psbt(psbt.serialize()), [signature_of(0), signature_of(1)])
