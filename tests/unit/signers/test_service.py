"""What leaves a signer: verified signatures, remembered attestations, and never a secret."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import utils

from chains.btc.hd import AccountKey
from chains.secp256k1 import CURVE_ORDER
from policies.canonical import verify_ed25519
from signers.errors import JournalUnavailable, SelfCheckFailed, WrongSignature
from signers.journal.mark import Mark
from signers.keys.keyset import BitcoinKeysetRecord
from signers.keytest.selfcheck import check_bitcoin_keys, check_libraries
from signers.ports import AttestRequest, Refused
from signers.wallets import BitcoinKeys, verifies
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, KEYSET, SoftKeys


class FaultyKeys:
    """Keys behind a faulty HSM: `fault` changes what it returns."""

    def __init__(
        self,
        good: BitcoinKeys,
        *,
        ecdsa: Callable[[bytes], bytes] = bytes,
        ed25519: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.good, self.ecdsa, self.ed25519 = good, ecdsa, ed25519
        self.record: BitcoinKeysetRecord = good.record
        self.account: AccountKey = good.account

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        pubkey, der = self.good.sign(branch, index, digest)
        return pubkey, self.ecdsa(der)

    def attest(self, digest: bytes) -> bytes:
        return self.ed25519(self.good.attest(digest))


class NoMarks:
    """A second store that goes away, once something else has happened."""

    where = "nowhere"

    def __init__(self, last: Mark, after: threading.Event) -> None:
        self.last, self.after = last, after

    def write(self, mark: Mark) -> None:
        assert self.after.wait(10)
        raise OSError("the second store has gone away")

    def close(self) -> None:
        return None


def flip_last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def high_s(der: bytes) -> bytes:
    r, s = utils.decode_dss_signature(der)
    return utils.encode_dss_signature(r, CURVE_ORDER - s)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def attest_request(**changes: object) -> AttestRequest:
    fields = {"chain": CHAIN, "keyset": KEYSET, "customer": "alice", "asset": "BTC", "branch": 0, "index": 7}
    return msgspec.convert(fields | changes, AttestRequest)


@pytest.mark.parametrize("fault", [flip_last_bit, high_s, lambda der: b"", lambda der: der + b"\0"])
def test_fault_31_a_wrong_signature_of_the_hsm_is_caught_before_release(
    bench: SignerBench, fault: Callable[[bytes], bytes]
) -> None:
    request, good = bench.request(), bench.keys
    bench.keys = FaultyKeys(good, ecdsa=fault)
    bench.restart()
    with pytest.raises(WrongSignature, match="was not released"):
        bench.service.sign(request)
    # It was journaled, so it may not be called refused; a sound HSM signs the same transaction afterwards.
    bench.keys = good
    bench.restart()
    assert len(bench.signatures(request)) == 1
    assert bench.service.status().signed == 1


def test_a_signature_whose_record_does_not_reach_both_disks_is_not_released(bench: SignerBench) -> None:
    signed = threading.Event()

    def sign(der: bytes) -> bytes:
        signed.set()
        return der

    request = bench.request()
    bench.keys = FaultyKeys(bench.keys, ecdsa=sign)
    bench.restart()
    signed.clear()
    before = bench.journal._marks
    bench.journal._marks = NoMarks(before.last, signed)
    with pytest.raises(JournalUnavailable):
        bench.service.sign(request)
    assert signed.is_set()
    bench.journal._marks = before
    bench.restart()
    assert bench.signatures(request) == bench.signatures(request)
    assert bench.service.status().signed == 1


def test_a_wrong_attestation_of_the_hsm_is_caught_before_release(bench: SignerBench) -> None:
    bench.keys = FaultyKeys(bench.keys, ed25519=flip_last_bit)
    bench.restart()
    with pytest.raises(WrongSignature):
        bench.service.attest(attest_request())


def test_an_attestation_names_path_and_address_and_is_signed_by_the_attestation_key(
    bench: SignerBench,
) -> None:
    signed = bench.service.attest(attest_request())
    verify_ed25519(bench.keys.record.attestation_key, signed.attestation.digest(), signed.signature)
    assert signed.attestation.path == "m/84'/1'/0'/0/7"
    assert signed.attestation.address == bench.keys.account.address(0, 7)
    assert signed.attestation.customer == "alice"


def test_the_same_attestation_again_is_the_same(bench: SignerBench) -> None:
    assert bench.service.attest(attest_request()) == bench.service.attest(attest_request())


def test_a_path_of_one_customer_is_never_attested_for_another_also_after_a_restart(
    bench: SignerBench,
) -> None:
    bench.service.attest(attest_request())
    bench.restart()
    for other in ({"customer": "bob"}, {"customer": None}):
        with pytest.raises(Refused, match="address-taken"):
            bench.service.attest(attest_request(**other))


def test_house_change_is_attested_without_a_customer_only(bench: SignerBench) -> None:
    signed = bench.service.attest(attest_request(branch=1, customer=None))
    assert signed.attestation.customer is None
    with pytest.raises(Refused, match="change-branch"):
        bench.service.attest(attest_request(branch=1))


def test_attestations_of_what_the_bundle_does_not_name_are_refused(bench: SignerBench) -> None:
    for change, code in (
        ({"chain": "bitcoin"}, "not-in-bundle"),
        ({"asset": "DOGE"}, "not-in-bundle"),
        ({"keyset": "other"}, "unknown-keyset"),
    ):
        with pytest.raises(Refused, match=code):
            bench.service.attest(attest_request(**change))


def test_keys_that_the_bundle_names_otherwise_attest_nothing(bench: SignerBench) -> None:
    thief = SoftKeys.make(b"\x05" * 32).record
    bench.adopt(2, keysets=(bench.world.keyset_entry(attestation_key=thief.attestation_key),))
    with pytest.raises(Refused, match="wrong-keyset"):
        bench.service.attest(attest_request())


def test_an_expired_bundle_attests_nothing(bench: SignerBench) -> None:
    bench.time += 40 * DAY
    with pytest.raises(Refused, match="bundle-expired"):
        bench.service.attest(attest_request())


def test_known_answers_come_out_as_published() -> None:
    check_libraries()


def test_the_self_check_finds_keys_that_sign_wrongly() -> None:
    good = SoftKeys.make()
    check_bitcoin_keys(good)
    for bad in (FaultyKeys(good, ecdsa=flip_last_bit), FaultyKeys(good, ed25519=flip_last_bit)):
        with pytest.raises(SelfCheckFailed):
            check_bitcoin_keys(bad)


def test_the_self_check_finds_keys_that_are_not_deterministic() -> None:
    good = SoftKeys.make()
    faults: Iterator[Callable[[bytes], bytes]] = iter([bytes, high_s])
    with pytest.raises(SelfCheckFailed):
        check_bitcoin_keys(FaultyKeys(good, ecdsa=lambda der: next(faults)(der)))


def test_verification_accepts_only_the_right_key_and_digest() -> None:
    keys = SoftKeys.make()
    pubkey, der = keys.sign(0, 1, b"\x07" * 32)
    assert verifies(pubkey, b"\x07" * 32, der)
    assert not verifies(pubkey, b"\x08" * 32, der)
    assert not verifies(keys.account.pubkey(0, 2), b"\x07" * 32, der)
    assert not verifies(b"\x02" + bytes(32), b"\x07" * 32, der)


def test_signatures_are_deterministic_and_bound_to_the_path() -> None:
    keys = SoftKeys.make()
    assert keys.sign(0, 1, b"\x07" * 32) == keys.sign(0, 1, b"\x07" * 32)
    assert keys.sign(0, 1, b"\x07" * 32)[0] == keys.account.pubkey(0, 1)
    assert keys.sign(1, 1, b"\x07" * 32)[0] == keys.account.pubkey(1, 1)


def test_the_account_secret_does_not_show_and_can_not_be_copied() -> None:
    secret = SoftKeys.make().secret
    assert repr(secret) == str(secret) == f"{secret}" == "[secret]"
    for smuggle in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            smuggle(secret)
