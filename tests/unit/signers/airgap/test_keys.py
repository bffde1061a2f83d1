"""A holder's key: its entropy, words, shares, file and signatures; by published vectors where there are any."""

from __future__ import annotations

import copy
import pickle
from collections import Counter
from typing import Any

import coincurve
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.btc.network import NETWORKS
from chains.errors import InvalidValue
from chains.eth.safe import owner_of
from chains.secp256k1 import LOW_S_LIMIT
from signers.airgap.entropy import DICE_NEEDED, entropy_of
from signers.airgap.errors import Unsafe, WrongPassphrase
from signers.airgap.keyfile import About, read_keyfile, seal, unseal
from signers.airgap.keys import (
    HolderKey,
    WrongSignature,
    check_signature,
    entropy_of_words,
    words_of,
)
from signers.airgap.records import read_record, record_of
from signers.airgap.secret import Secret
from signers.airgap.shares import join, shares_needed, split
from tests.support.airgap import DICE, holder_key

ABANDON = "abandon " * 11 + "about"
ABOUT = About(
    name="alice", organisation="acme", network="regtest", made_at=1_800_000_000, fingerprint="0f09f381",
    evm_address="0x" + "11" * 20,
)  # fmt: skip


def host(size: int) -> bytes:
    host.calls += 1  # type: ignore[attr-defined]
    return bytes((at * 7 + host.calls * 31) % 256 for at in range(size))  # type: ignore[attr-defined]


host.calls = 0  # type: ignore[attr-defined]


# Entropy.


def test_machine_and_dice_each_change_the_entropy() -> None:
    def drawn(seed: int, dice: str) -> bytes:
        calls = iter((bytes(range(seed, seed + 64)), bytes(range(seed + 64, seed + 128))))
        return entropy_of(dice, lambda _: next(calls)).reveal()

    first = drawn(0, DICE)
    assert len(first) == 32
    assert drawn(0, DICE) == first
    assert drawn(1, DICE) != first
    assert drawn(0, DICE[::-1]) != first
    assert drawn(0, DICE + "1") != first


@pytest.mark.parametrize("rolls", [DICE[:-1], DICE[:-1] + "7", DICE[:-1] + "x", "123456"])
def test_too_few_rolls_or_none_of_a_die_are_refused(rolls: str) -> None:
    with pytest.raises(InvalidValue):
        entropy_of(rolls, host)


@pytest.mark.parametrize("rolls", ["1" * 100, "12" * 50, "12345" * 20, "1" * 41 + "23456" * 12])
def test_made_up_rolls_are_refused(rolls: str) -> None:
    with pytest.raises(InvalidValue, match="do not look like rolls"):
        entropy_of(rolls, host)


@settings(max_examples=30, deadline=None)
@given(st.randoms(use_true_random=False))
def test_honest_rolls_are_taken(random: object) -> None:
    rolls = "".join(random.choice("123456") for _ in range(DICE_NEEDED))  # type: ignore[attr-defined]
    counts = Counter(rolls)
    if min(counts[face] for face in "123456") >= 3 and max(counts.values()) <= 40:
        assert len(entropy_of(rolls, host)) == 32


@pytest.mark.parametrize(
    "draw", [bytes, lambda size: b"\x01\x02" * (size // 2), lambda size: bytes(range(64))]
)
def test_a_machine_without_random_numbers_makes_no_key(draw: object) -> None:
    with pytest.raises(Unsafe, match="not random"):
        entropy_of(DICE, draw)  # type: ignore[arg-type]


# Words.


def test_words_are_those_of_bip39_and_lead_to_the_published_keys() -> None:
    """Account of BIP48 and Ethereum address of the words `abandon ... about`, as many wallets publish them."""
    with HolderKey(entropy_of_words(ABANDON), NETWORKS["main"]) as key:
        assert key.origin_text == "73c5da0a/48'/0'/0'/2'"
        assert key.xpub == (
            "xpub6DkFAXWQ2dHxq2vatrt9qyA3bXYU4ToWQwCHbf5XB2mSTexcHZCeKS1VZYcPoBd5X8yVcbXFHJR9R8UCVpt82VX1VhR28"
            "mCyxUFL4r6KFrf"
        )
        assert key.evm_address == "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([16, 20, 24, 28, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
def test_words_give_the_entropy_back_and_another_library_agrees(raw: bytes) -> None:
    from bip_utils import Bip39MnemonicGenerator

    words = " ".join(words_of(Secret(raw)))
    assert words == Bip39MnemonicGenerator().FromEntropy(raw).ToStr()
    assert entropy_of_words(words.upper()).reveal() == raw


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (ABANDON.replace("about", "abandon"), "checksum"),
        (ABANDON.replace("about", "aboot"), "number 12"),
        ("abandon " * 11, "11 words"),
        ("", "0 words"),
    ],
)
def test_wrong_words_are_refused_without_repeating_them(words: str, told: str) -> None:
    with pytest.raises(InvalidValue, match=told) as caught:
        entropy_of_words(words)
    assert "abandon" not in str(caught.value)
    assert "aboot" not in str(caught.value)


# Shares.


@pytest.mark.parametrize(("threshold", "count"), [(2, 2), (2, 3), (3, 5)])
def test_any_shares_that_are_enough_give_the_key_back(threshold: int, count: int) -> None:
    secret = Secret(bytes(range(32)))
    shares = split(secret, threshold, count)
    assert len(set(shares)) == count
    assert {len(share.split()) for share in shares} == {33}
    assert {shares_needed(share) for share in shares} == {threshold}
    assert join(shares[-threshold:]).reveal() == secret.reveal()
    assert join([share.upper() for share in shares[:threshold]]).reveal() == secret.reveal()


def test_too_few_shares_or_of_two_keys_or_damaged_ones_are_refused() -> None:
    one, other = split(Secret(bytes(range(32))), 2, 3), split(Secret(bytes(32)), 2, 3)
    for given_shares in (
        [one[0]],
        [one[0], other[1]],
        [one[0], one[0]],
        [one[0], " ".join(one[1].split()[::-1])],
    ):
        with pytest.raises(InvalidValue):
            join(given_shares)


@pytest.mark.parametrize("numbers", [(1, 1), (1, 3), (3, 2), (2, 17), (0, 0)])
def test_numbers_of_shares_that_protect_nothing_are_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(InvalidValue):
        split(Secret(bytes(32)), *numbers)


def test_shares_are_of_keys_of_24_words_only() -> None:
    with pytest.raises(InvalidValue, match="24 words only"):
        split(Secret(bytes(16)), 2, 3)


# Files.


def test_a_file_opens_with_its_passphrase_and_shows_nothing_of_the_key() -> None:
    secret = Secret(bytes(range(32)))
    raw = seal(secret, ABOUT, Secret(b"correct horse battery staple"))
    assert seal(secret, ABOUT, Secret(b"correct horse battery staple")) != raw
    assert secret.reveal().hex() not in raw.decode()
    file = read_keyfile(raw)
    assert file.about == ABOUT
    assert unseal(file, Secret(b"correct horse battery staple")).reveal() == secret.reveal()
    with pytest.raises(WrongPassphrase):
        unseal(file, Secret(b"correct horse battery stapler"))


def test_a_file_that_was_changed_does_not_open() -> None:
    passphrase = Secret(b"correct horse battery staple")
    file = read_keyfile(seal(Secret(bytes(32)), ABOUT, passphrase))
    for name in ("salt", "nonce", "sealed"):
        text = getattr(file, name)
        other = msgspec.structs.replace(file, **{name: ("0" if text[0] != "0" else "1") + text[1:]})
        with pytest.raises(WrongPassphrase):
            unseal(other, passphrase)
    for change in ({"network": "main"}, {"name": "mallory"}, {"fingerprint": "00000000"}):
        other = msgspec.structs.replace(file, about=msgspec.structs.replace(file.about, **change))
        with pytest.raises(WrongPassphrase):
            unseal(other, passphrase)


# Signatures.


def test_bitcoin_signatures_have_low_r_and_low_s_and_are_the_same_each_time() -> None:
    with holder_key(0) as key:
        for number in range(40):
            digest = number.to_bytes(32, "big")
            pubkey, signature = key.sign_bitcoin(0, number, digest)
            assert pubkey == key.keys.pubkey(0, number)
            assert len(signature) <= 70
            assert coincurve.PublicKey(pubkey).verify(signature, digest, hasher=None)
            assert int.from_bytes(signature[-32:], "big") <= LOW_S_LIMIT
            assert key.sign_bitcoin(0, number, digest) == (pubkey, signature)


def test_ethereum_signatures_recover_to_the_key() -> None:
    with holder_key(0) as key:
        for number in range(10):
            digest = number.to_bytes(32, "big")
            signature = key.sign_ethereum(digest)
            assert owner_of(digest, signature) == bytes.fromhex(key.evm_address[2:])
            assert key.sign_ethereum(digest) == signature


def test_fault_31_a_wrong_signature_is_caught_before_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = coincurve.PrivateKey.sign

    def flipped(self: coincurve.PrivateKey, *args: Any, **named: Any) -> bytes:
        signature = bytearray(honest(self, *args, **named))
        signature[-1] ^= 1
        return bytes(signature)

    monkeypatch.setattr(coincurve.PrivateKey, "sign", flipped)
    with holder_key(0) as key, pytest.raises(WrongSignature):
        key.sign_bitcoin(0, 0, bytes(32))


def test_openssl_refuses_what_is_no_signature() -> None:
    with holder_key(0) as key:
        pubkey, signature = key.sign_bitcoin(0, 0, bytes(32))
    check_signature(pubkey, bytes(32), signature)
    for wrong in (
        (pubkey, b"\x01" * 32, signature),
        (b"\x02" * 33, bytes(32), signature),
        (pubkey, bytes(32), b""),
    ):
        with pytest.raises(WrongSignature):
            check_signature(*wrong)


# What must not be seen.


def test_secrets_print_as_such_are_not_copied_and_are_wiped() -> None:
    with Secret(b"a secret") as secret:
        key = holder_key(0)
        for one in (secret, key):
            assert (repr(one), str(one), f"{one}") == ("[secret]",) * 3
            for copying in (pickle.dumps, copy.copy, copy.deepcopy):
                with pytest.raises(TypeError):
                    copying(one)
    assert secret.reveal() == bytes(8)


def test_a_key_without_embits_native_curve_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    from embit.util import py_secp256k1, secp256k1

    from chains.btc.psbt import NativeCurveMissing

    monkeypatch.setattr(secp256k1, "ec_pubkey_create", py_secp256k1.ec_pubkey_create)
    with pytest.raises(NativeCurveMissing):
        holder_key(0)


# Records.


def test_a_record_is_read_as_it_was_written_and_holds_no_secret() -> None:
    with holder_key(0) as key:
        about = msgspec.structs.replace(ABOUT, fingerprint=key.fingerprint.hex(), evm_address=key.evm_address)
        record = record_of(about, key)
    assert read_record(record.encode()) == record
    assert set(msgspec.json.decode(record.encode())) == {
        "type", "v", "name", "organisation", "network", "origin", "xpub", "evm_address", "made_at",
    }  # fmt: skip


def test_a_record_whose_parts_do_not_fit_is_refused() -> None:
    with holder_key(0) as key, holder_key(0, NETWORKS["main"]) as other:
        record = record_of(ABOUT, key)
        private = key._account.to_base58()
        main = other.xpub
    for change in (
        {"origin": "0f09f381/84'/1'/0'"},
        {"origin": "0f09f381/48'/0'/0'/2'"},
        {"xpub": main},
        {"xpub": private},
        {"xpub": record.xpub[:-1]},
        {"evm_address": "0x" + "aB" * 20},
        {"type": "other"},
        {"extra": 1},
    ):
        raw = msgspec.json.encode({**msgspec.to_builtins(record), **change})
        with pytest.raises(InvalidValue):
            read_record(raw)
