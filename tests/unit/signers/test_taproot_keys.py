"""Taproot keys and cosigners' keys: accounts at their paths, signatures that a second implementation verifies."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import coincurve
import msgspec
import pytest
from embit import bip32, bip39
from embit.networks import NETWORKS as EMBIT_NETWORKS
from hypothesis import given
from hypothesis import strategies as st

from chains.btc.hd import AccountKey
from chains.btc.network import NETWORKS
from chains.btc.psbt import parse_psbt
from chains.btc.script import taproot_output_key
from chains.btc.tx import TaprootDigests
from chains.errors import InvalidValue
from signers.errors import SelfCheckFailed, WrongSignature
from signers.keys.account import AccountSecret
from signers.keys.keyset import BitcoinCosignerRecord, BitcoinKeysetRecord
from signers.keytest import selfcheck
from signers.keytest.selfcheck import check_bitcoin_keys, check_libraries
from signers.ports import AttestRequest, Refused
from signers.wallets import BitcoinKeys, verifies_taproot
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, KEYSET, SoftKeys
from tests.fakes.vault_signing import SoftCosigner

REGTEST = NETWORKS["regtest"]
ENTROPY = bytes(range(32))
SECRET, ORIGIN = AccountSecret.from_entropy(ENTROPY, REGTEST, "86'/1'/0'")
MASTER = bip32.HDKey.from_seed(
    bip39.mnemonic_to_seed(bip39.mnemonic_from_bytes(ENTROPY)), version=EMBIT_NETWORKS["regtest"]["xprv"]
)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path, "p2tr")
    yield made
    made.journal.close()


class Faulty:
    """Taproot keys behind a faulty HSM: `fault` changes what it returns."""

    def __init__(self, good: BitcoinKeys, fault: Callable[[bytes], bytes]) -> None:
        self.good, self.fault = good, fault
        self.record: BitcoinKeysetRecord = good.record
        self.account: AccountKey = good.account

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        pubkey, signature = self.good.sign(branch, index, digest)
        return pubkey, self.fault(signature)

    def attest(self, digest: bytes) -> bytes:
        return self.good.attest(digest)


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_an_account_is_where_bip86_and_bip48_put_it() -> None:
    for secret, origin, path in (
        (SECRET, ORIGIN, "86h/1h/0h"),
        (*AccountSecret.of_cosigner(ENTROPY, REGTEST, "48'/1'/3'/2'"), "48h/1h/3h/2h"),
    ):
        account = MASTER.derive(f"m/{path}")
        assert origin == f"{MASTER.my_fingerprint.hex()}/{path.replace('h', chr(39))}"
        assert secret.public.xpub == account.to_public().to_base58(version=EMBIT_NETWORKS["regtest"]["xpub"])


@pytest.mark.parametrize("path", ["84'/1'/0'/2'", "85'/1'/0'", "86'/1'/0", "86'/2'/0'", "m/86'/1'/0'", ""])
def test_other_paths_are_no_accounts(path: str) -> None:
    with pytest.raises(InvalidValue):
        AccountSecret.from_entropy(ENTROPY, REGTEST, path)
    with pytest.raises(InvalidValue):
        AccountSecret.of_cosigner(ENTROPY, REGTEST, path)


def test_short_entropy_is_refused() -> None:
    with pytest.raises(InvalidValue, match="entropy"):
        AccountSecret.from_entropy(bytes(16), REGTEST, "86'/1'/0'")


@given(st.integers(0, 1), st.integers(0, 2**31 - 1), st.binary(min_size=32, max_size=32))
def test_three_implementations_accept_a_signature_and_it_is_always_the_same(
    branch: int, index: int, digest: bytes
) -> None:
    pubkey, signature = SECRET.sign(branch, index, digest)
    assert pubkey == SECRET.public.pubkey(branch, index)
    assert verifies_taproot(pubkey, digest, signature)
    assert coincurve.PublicKeyXOnly(taproot_output_key(pubkey)).verify(signature, digest)
    tweaked = MASTER.derive([86 + 2**31, 1 + 2**31, 2**31, branch, index]).key.taproot_tweak(b"")
    assert tweaked.get_public_key().xonly() == taproot_output_key(pubkey)
    assert SECRET.sign(branch, index, digest) == (pubkey, signature)


@given(st.binary(min_size=32, max_size=32), st.integers(0, 511))
def test_no_bit_of_a_signature_can_change(digest: bytes, bit: int) -> None:
    pubkey, signature = SECRET.sign(0, 0, digest)
    damaged = (int.from_bytes(signature, "big") ^ 1 << bit).to_bytes(64, "big")
    assert not verifies_taproot(pubkey, digest, damaged)


def test_what_is_no_signature_of_64_bytes_does_not_verify() -> None:
    pubkey, signature = SECRET.sign(0, 0, bytes(32))
    for wrong in (b"", signature[:-1], signature + b"\x01", bytes(64), b"\xff" * 64):
        assert not verifies_taproot(pubkey, bytes(32), wrong)
    assert not verifies_taproot(SECRET.public.pubkey(0, 1), bytes(32), signature)


@pytest.mark.parametrize("fault", [flipped(0), flipped(31), flipped(63), lambda _: b"", lambda s: s + b"\0"])
def test_fault_31_a_wrong_taproot_signature_is_caught_before_release(
    bench: SignerBench, fault: Callable[[bytes], bytes]
) -> None:
    request, good = bench.request(), bench.keys
    bench.keys = Faulty(good, fault)
    bench.restart()
    with pytest.raises(WrongSignature, match="was not released"):
        bench.service.sign(request)
    bench.keys = good
    bench.restart()
    (signature,) = bench.signatures(request)
    psbt = parse_psbt(base64.b64decode(request.transaction))
    digest = TaprootDigests(psbt.tx, psbt.spent).key_path(0)
    assert verifies_taproot(bytes.fromhex(signature.pubkey), digest, bytes.fromhex(signature.signature))


def test_the_bundle_must_mean_the_same_scripts(bench: SignerBench) -> None:
    bench.adopt(2, keysets=(bench.world.keyset_entry(script="p2wpkh"),))
    assert bench.codes(bench.under(2)) == {"wrong-keyset"}
    request = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=0)
    with pytest.raises(Refused, match="wrong-keyset"):
        bench.service.attest(request)


def test_self_checks_take_sound_keys_only() -> None:
    good = SoftKeys.make(script="p2tr")
    check_bitcoin_keys(good)
    check_bitcoin_keys(SoftCosigner.make(1))
    for fault in (flipped(0), flipped(63), lambda _: bytes(64)):
        with pytest.raises(SelfCheckFailed):
            check_bitcoin_keys(Faulty(good, fault))


def test_keys_whose_signatures_differ_each_time_do_not_serve() -> None:
    class Random(Faulty):
        def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
            pubkey, _ = self.good.sign(branch, index, digest)
            key = MASTER.derive([86 + 2**31, 1 + 2**31, 2**31, branch, index]).key.taproot_tweak(b"")
            return pubkey, coincurve.PrivateKey(key.secret).sign_schnorr(digest)

    keys = Random(SoftKeys.make(ENTROPY, script="p2tr"), bytes)
    with pytest.raises(SelfCheckFailed, match="second signature"):
        check_bitcoin_keys(keys)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("taproot_output_key", lambda _: bytes(32)),
        ("verify_schnorr", lambda *_: False),
        ("agreed_address", lambda *_: "bc1pwrong"),
        ("agreed_multisig_address", lambda *_: "bc1qwrong"),
    ],
)
def test_a_known_answer_that_comes_out_otherwise_stops_the_signer(
    monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., object]
) -> None:
    monkeypatch.setattr(selfcheck, name, wrong)
    with pytest.raises(SelfCheckFailed):
        check_libraries()


def test_a_record_says_nothing_contradictory() -> None:
    record = msgspec.to_builtins(SoftKeys.make(script="p2tr").record)
    for change in ({"script": "p2wpkh"}, {"origin": record["origin"].replace("86'", "84'")}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(record | change, BitcoinKeysetRecord)
    cosigner = msgspec.to_builtins(SoftCosigner.make(1).record)
    for origin in ("00000000/84'/1'/0'", "00000000/48'/1'/0'/1'", "00000000/48'/1'/0'"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(cosigner | {"origin": origin}, BitcoinCosignerRecord)


def test_secrets_are_not_shown_copied_or_pickled() -> None:
    cosigner = SoftCosigner.make(1).secret
    for secret in (SECRET, cosigner):
        assert repr(secret) == "[secret]"
        for copied in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError):
                copied(secret)
