"""A Safe request is signed only as it was reviewed, and no signature leaves that two libraries don't recover."""

from __future__ import annotations

import pytest
from embit.util import secp256k1
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st

from chains.eth.safe_files import decode_signature
from chains.secp256k1 import CURVE_ORDER
from signers.airgap.errors import Refused
from signers.airgap.evm import sign
from signers.airgap.evm_review import SafeReview, review_request
from signers.airgap.keys import WrongSignature
from tests.fakes.airgap_safe import CHAIN_ID, NOW, OWNERS, SAFE, OwnerKey, registered, request, request_file


class LyingKey(OwnerKey):
    """Gives what it was told to give."""

    def __init__(self, signature: bytes) -> None:
        super().__init__(0)
        self.signature = signature

    def sign_ethereum(self, digest: bytes) -> bytes:
        return self.signature


def reviewed(owner: OwnerKey = OWNERS[0], raw: bytes | None = None) -> SafeReview:
    return review_request(raw or request_file(), registered(), owner.evm_address, NOW)


@given(st.integers(0, 2**53 - 1), st.integers(1, 2**128), st.sampled_from(OWNERS))
def test_what_was_reviewed_is_signed_and_eth_account_recovers_the_owner(
    nonce: int, value_wei: int, owner: OwnerKey
) -> None:
    raw = request_file(nonce=nonce, value_wei=value_wei)
    signed = sign(reviewed(owner, raw), owner)
    found = decode_signature(signed)
    assert found.safe_tx_hash == request(nonce=nonce, value_wei=value_wei).message.signing_hash
    assert found.signature[64] in (27, 28)
    assert Account._recover_hash(found.safe_tx_hash, signature=found.signature) == owner.evm_address
    assert sign(reviewed(owner, raw), owner) == signed, "again changes nothing"


def test_what_was_refused_or_reviewed_for_another_key_is_not_signed() -> None:
    for refused in (
        request_file(expires_at=NOW),
        request_file(operation=1),
        request_file(chain_id=CHAIN_ID + 1),
    ):
        with pytest.raises(Refused):
            sign(reviewed(raw=refused), OWNERS[0])
    with pytest.raises(Refused, match="reviewed for"):
        sign(reviewed(), OWNERS[1])


def test_a_signature_that_is_wrong_in_any_way_does_not_leave() -> None:
    review = reviewed()
    good = OWNERS[0].sign_ethereum(review.safe_tx_hash)
    high_s = CURVE_ORDER - int.from_bytes(good[32:64], "big")
    other_hash = request(safe=SAFE, nonce=8).message.signing_hash
    for bad in (
        OWNERS[1].sign_ethereum(review.safe_tx_hash),
        OWNERS[0].sign_ethereum(other_hash),
        good[:64] + bytes([good[64] ^ 7]),
        good[:64] + bytes([good[64] - 27]),
        good[:64] + bytes([good[64] + 4]),
        good[:32] + high_s.to_bytes(32, "big") + bytes([55 - good[64]]),
        bytes(65),
        b"\xff" * 65,
        good[:64],
        good + b"\x00",
        b"",
    ):
        with pytest.raises(WrongSignature, match="nothing was released"):
            sign(review, LyingKey(bad))
    assert decode_signature(sign(review, LyingKey(good))).signature == good


def test_two_libraries_must_recover_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    true = secp256k1.ecdsa_recover
    other = secp256k1.ec_pubkey_create(b"\x05" * 32)
    monkeypatch.setattr(secp256k1, "ecdsa_recover", lambda *_: other)
    with pytest.raises(WrongSignature, match="second library"):
        sign(reviewed(), OWNERS[0])
    monkeypatch.setattr(secp256k1, "ecdsa_recover", true)
    assert sign(reviewed(), OWNERS[0])
