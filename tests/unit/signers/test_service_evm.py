"""What leaves a signer of an EVM key: verified signatures, each kept before it is released, and attested addresses."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import coincurve
import msgspec
import pytest

from chains.eth.address import raw_address
from chains.eth.forwarder import second_opinion
from chains.secp256k1 import CURVE_ORDER
from policies.canonical import verify_ed25519
from signers.errors import (
    ClockUnsteady,
    JournalUnavailable,
    SealBroken,
    SelfCheckFailed,
    SignerStopped,
    TokenLost,
    WrongSignature,
)
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord, EvmRecord
from signers.keytest.selfcheck import check_evm_keys
from signers.ports import Refused, SignRequest
from signers.wallets import EvmKeys
from tests.fakes.evm_signing import FACTORY, FORWARDER, OTHER_EVM_CHAIN, SoftEvmKeys
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY, NOW

S_AT = 32
"""Where s begins in a token's signature."""


class FaultyKeys:
    """A key behind a faulty HSM: `fault` changes what it returns."""

    def __init__(
        self,
        good: EvmKeys,
        *,
        ecdsa: Callable[[bytes], bytes] = bytes,
        ed25519: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.good, self.ecdsa, self.ed25519 = good, ecdsa, ed25519
        self.record: EvmRecord = good.record
        self.pubkey = good.pubkey
        self.asked = 0

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        self.asked += 1
        pubkey, raw = self.good.sign(branch, index, digest)
        return pubkey, self.ecdsa(raw)

    def attest(self, digest: bytes) -> bytes:
        return self.ed25519(self.good.attest(digest))


def flip_last_bit(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def with_s(number: Callable[[int], int]) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        s = number(int.from_bytes(raw[S_AT:], "big"))
        return raw[:S_AT] + s.to_bytes(32, "big")

    return change


high_s = with_s(lambda s: max(s, CURVE_ORDER - s))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def behind(bench: EvmBench, keys: EvmKeys) -> None:
    """The same signer, with its keys behind something else."""
    bench.keys = keys
    bench.restart()


@pytest.mark.parametrize(
    "fault",
    [
        flip_last_bit,
        with_s(lambda s: 0),
        with_s(lambda s: CURVE_ORDER),
        lambda raw: bytes(32) + raw[32:],
        lambda raw: b"\xff" * 32 + raw[32:],
        lambda raw: b"",
        lambda raw: raw + b"\0",
        lambda raw: raw[:63],
    ],
)
def test_fault_31_a_wrong_signature_of_the_evm_key_is_caught_before_release(
    bench: EvmBench, fault: Callable[[bytes], bytes]
) -> None:
    request, good = bench.request(), bench.keys
    behind(bench, FaultyKeys(good, ecdsa=fault))
    with pytest.raises(WrongSignature, match="was not released"):
        bench.service.sign(request)
    # It was journaled, so it may not be called refused; a sound HSM signs the same transaction afterwards.
    behind(bench, good)
    assert len(bench.signatures(request)) == 1
    assert bench.service.status().signed == 1


def test_fault_31_a_signature_of_another_key_is_caught_before_release(bench: EvmBench) -> None:
    stranger = SoftEvmKeys.make()
    faulty = FaultyKeys(bench.keys)
    faulty.good = stranger
    behind(bench, faulty)
    with pytest.raises(WrongSignature):
        bench.service.sign(bench.request())


def test_a_key_that_is_not_the_records_signs_nothing(bench: EvmBench) -> None:
    stranger = SoftEvmKeys.make()
    assert isinstance(bench.keys.record, EvmKeysetRecord)
    stranger.record = bench.keys.record
    with pytest.raises(SealBroken, match="not the one of the record's address"):
        behind(bench, stranger)


def test_a_high_s_is_normalised(bench: EvmBench) -> None:
    behind(bench, FaultyKeys(bench.keys, ecdsa=high_s))
    draft = bench.draft()
    (signature,) = bench.signatures(bench.world.request(draft))
    signed = bench.world.tx(draft).signed(bytes.fromhex(signature.signature))
    assert signed.s <= CURVE_ORDER // 2
    assert signed.sender() == raw_address(bench.keys.record.address)


def test_both_halves_of_s_and_both_parities_come_out_right() -> None:
    keys = SoftEvmKeys.make()
    seen = set()
    for number in range(64):
        digest = number.to_bytes(32, "big")
        raw = keys.signature(digest)
        signature = normalised(raw, keys.pubkey, digest)
        seen.add((signature[S_AT:64] == raw[S_AT:], signature[64]))
    assert seen == {(True, 0), (True, 1), (False, 0), (False, 1)}


def test_fault_30_a_token_lost_after_the_record_gives_one_signature_and_no_double(bench: EvmBench) -> None:
    def lose(raw: bytes) -> bytes:
        raise TokenLost("the token is gone")

    draft, good = bench.draft(), bench.keys
    request = bench.world.request(draft)
    behind(bench, FaultyKeys(good, ecdsa=lose))
    with pytest.raises(TokenLost):
        bench.service.sign(request)
    # Nobody has a signature; but the intent is bound to this nonce from now on.
    assert bench.codes(bench.world.request(replace(draft, nonce=1))) == {"conflicting-version"}
    behind(bench, good)
    first = bench.signatures(request)
    assert bench.signatures(request) == first
    assert bench.service.status().signed == 1


def test_a_signature_that_can_not_be_kept_is_not_released(bench: EvmBench) -> None:
    def fail(raw: bytes) -> bytes:
        # The disk goes away between the record of the transaction and that of its signature.
        bench.journal._failed = OSError("no space left")
        return raw

    request, good = bench.request(), bench.keys
    behind(bench, FaultyKeys(good, ecdsa=fail))
    with pytest.raises(JournalUnavailable):
        bench.service.sign(request)
    behind(bench, good)
    assert bench.signatures(request) == bench.signatures(request)


def test_the_kept_signature_is_given_without_asking_the_key_again(bench: EvmBench) -> None:
    counting = FaultyKeys(bench.keys)
    behind(bench, counting)
    request = bench.request()
    first = bench.signatures(request)
    for _ in range(3):
        bench.restart()
        assert bench.signatures(request) == first
    assert counting.asked == 1


def test_the_same_request_by_many_at_once_gets_one_signature(bench: EvmBench) -> None:
    requests = [bench.request(nonce=nonce) for nonce in range(4)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(bench.signatures, requests * 8))
    for at, request in enumerate(requests):
        assert set(answers[at::4]) == {bench.signatures(request)}
    assert bench.service.status().signed == 4


@pytest.mark.parametrize("change", [{"caps": ()}, {"keysets": ()}, {"keyset_tier": "warm"}])
def test_the_kept_signature_is_given_whatever_a_later_bundle_says(
    bench: EvmBench, change: dict[str, object]
) -> None:
    request = bench.request()
    first = bench.signatures(request)
    bench.adopt(2, **change)
    assert bench.signatures(request) == first
    bench.restart()
    assert bench.signatures(request) == first


def test_a_damaged_signature_in_the_journal_stops_the_signer(bench: EvmBench) -> None:
    request = bench.request()
    bench.signatures(request)
    bench.journal.close()
    sql = sqlite3.connect(bench.directory / "journal.sqlite")
    sql.execute("UPDATE signatures SET signature = '00' || substr(signature, 3)")
    sql.commit()
    sql.close()
    bench.start()
    with pytest.raises(SignerStopped, match="damaged"):
        bench.service.sign(request)


def test_fault_34_a_clock_that_goes_back_or_jumps_signs_nothing_and_limits_hold(bench: EvmBench) -> None:
    cap = str(10**18 + 3 * 60_000 * 20 * 10**9)
    bench.adopt(2, cap_window_cap=cap, longest_order_seconds=9 * DAY)

    def payment(units: int, nonce: int) -> SignRequest:
        draft = bench.draft(units, nonce=nonce)
        draft.orders = [msgspec.structs.replace(order, expires_at=NOW + 9 * DAY) for order in draft.orders]
        draft.intents = [bench.world.intent(order, policy_version=2) for order in draft.orders]
        return bench.world.request(draft)

    bench.signatures(payment(10**18, 0))
    for moved in (-DAY, -6):
        bench.time = NOW + moved
        with pytest.raises(ClockUnsteady, match="set the clock right"):
            bench.service.sign(payment(1, 1))
    # A second back is taken as standing still; the window has not moved on either.
    bench.time = NOW - 1
    assert bench.codes(payment(10**18, 1)) == {"window-cap"}
    bench.time = NOW + DAY
    assert bench.codes(payment(10**18, 1)) == {"window-cap"}, "open: a hoarded signature never falls out"
    bench.resolve("dead")
    bench.signatures(payment(10**18, 1))


# Attestations.


def test_a_forwarder_is_attested_with_the_address_that_its_salt_gives(bench: EvmBench) -> None:
    signed = bench.service.attest(bench.world.attestation(7))
    verify_ed25519(bench.keys.record.attestation_key, signed.attestation.digest(), signed.signature)
    assert signed.attestation.path == "m/0/7"
    assert signed.attestation.address == second_opinion(FACTORY, FORWARDER, 7)
    assert signed.attestation.customer == "alice"
    assert bench.service.attest(bench.world.attestation(7)) == signed


def test_the_keys_own_address_is_the_houses_and_the_only_one_of_its_branch(bench: EvmBench) -> None:
    house = bench.world.attestation(0, branch=1, customer=None)
    signed = bench.service.attest(house)
    assert (signed.attestation.path, signed.attestation.address) == ("m/1/0", bench.keys.record.address)
    for wrong in ({"customer": "alice"}, {"index": 1}):
        with pytest.raises(Refused, match="change-branch"):
            bench.service.attest(msgspec.structs.replace(house, **wrong))


def test_a_forwarder_of_one_customer_is_never_attested_for_another(bench: EvmBench) -> None:
    bench.service.attest(bench.world.attestation(3))
    bench.restart()
    for other in ({"customer": "bob"}, {"customer": None}):
        with pytest.raises(Refused, match="address-taken"):
            bench.service.attest(bench.world.attestation(3, **other))


def test_attestations_across_networks_are_refused(bench: EvmBench) -> None:
    for wrong, code in (
        ({"chain": OTHER_EVM_CHAIN}, "wrong-chain"),
        ({"keyset": "xeth-hot"}, "wrong-chain"),
        ({"asset": "XETH"}, "wrong-asset"),
        ({"asset": "DOGE"}, "not-in-bundle"),
    ):
        with pytest.raises(Refused, match=code):
            bench.service.attest(bench.world.attestation(1, **wrong))


def test_a_wrong_attestation_signature_is_caught_before_release(bench: EvmBench) -> None:
    behind(bench, FaultyKeys(bench.keys, ed25519=flip_last_bit))
    with pytest.raises(WrongSignature):
        bench.service.attest(bench.world.attestation(1))


# Self-checks.


def test_the_self_check_passes_sound_keys_and_finds_wrong_ones() -> None:
    good = SoftEvmKeys.make()
    check_evm_keys(good)
    stranger = SoftEvmKeys.make()
    stranger.record = good.record
    for bad in (
        FaultyKeys(good, ecdsa=flip_last_bit),
        FaultyKeys(good, ecdsa=lambda raw: b""),
        FaultyKeys(good, ed25519=flip_last_bit),
        stranger,
    ):
        with pytest.raises(SelfCheckFailed):
            check_evm_keys(bad)


def test_the_self_check_finds_a_key_that_uses_a_nonce_twice() -> None:
    """The same r for two digests gives the key away to whoever sees both signatures."""
    good = SoftEvmKeys.make()
    number = good.secret.private_numbers().private_value
    k = 12345

    class Repeating(SoftEvmKeys[EvmKeysetRecord]):
        def signature(self, digest: bytes) -> bytes:
            r = _x_of(k) % CURVE_ORDER
            s = pow(k, -1, CURVE_ORDER) * (int.from_bytes(digest, "big") + r * number) % CURVE_ORDER
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    bad = Repeating(good.record, good.attestation, good.pubkey, good.secret)
    with pytest.raises(SelfCheckFailed, match="used a nonce twice"):
        check_evm_keys(bad)


def _x_of(k: int) -> int:
    return int(coincurve.PrivateKey.from_int(k).public_key.point()[0])
