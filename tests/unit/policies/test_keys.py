from __future__ import annotations

import copy
import pickle
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from chains.errors import InvalidValue
from policies.canonical import BadSignature, verify_ed25519
from policies.intent import Approval, Verdict
from policies.keys import (
    SigningKey,
    UnusableKey,
    sign_approval,
    sign_clock,
    sign_freeze,
    sign_order,
    sign_resolution,
    sign_verdict,
)
from policies.statements import ClockConfirmation, Freeze, Resolution
from tests.fakes.signing import SoftKeys, World


def test_a_saved_key_is_the_same_when_loaded_and_for_its_owner_only(tmp_path: Path) -> None:
    key = SigningKey.generate()
    key.save(tmp_path / "key.pem")
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600
    assert SigningKey.load(tmp_path / "key.pem").public_hex == key.public_hex


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    SigningKey.generate().save(path)
    before = path.read_bytes()
    with pytest.raises(UnusableKey, match="exists"):
        SigningKey.generate().save(path)
    assert path.read_bytes() == before


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    SigningKey.generate().save(path)
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(UnusableKey, match="chmod 600"):
            SigningKey.load(path)


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    other = ec.generate_private_key(ec.SECP256R1())
    locked = Ed25519PrivateKey.generate()
    for content in (
        b"",
        b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
        other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        locked.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
    ):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(UnusableKey):
            SigningKey.load(path)
    with pytest.raises(UnusableKey, match="No such file"):
        SigningKey.load(tmp_path / "missing.pem")


def test_a_key_does_not_show_and_can_not_be_copied() -> None:
    key = SigningKey.generate()
    assert repr(key) == str(key) == f"{key}" == "[secret]"
    assert repr([key]) == "[[secret]]"
    for smuggle in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            smuggle(key)


def test_a_signed_order_verifies_under_its_key_and_no_other() -> None:
    world = World(SoftKeys.make().record)
    signed = sign_order(world.order(), world.caller)
    signed.verify(world.caller.public_hex)
    with pytest.raises(BadSignature):
        signed.verify(world.stranger.public_hex)


def test_only_digests_are_signed() -> None:
    key = SigningKey.generate()
    verify_ed25519(key.public_hex, b"\x01" * 32, key.sign_digest(b"\x01" * 32))
    for size in (0, 31, 33, 64):
        with pytest.raises(InvalidValue):
            key.sign_digest(bytes(size))


def test_whatever_is_signed_is_signed_over_its_own_digest_and_no_other() -> None:
    """Approvals, verdicts, freezes, confirmations of the time, and what became of transactions."""
    key, digest = SigningKey.generate(), "ab" * 32
    approval = Approval(
        v=1, intent=digest, decision="approve", approver="ada", group="risk", policy_version=1, expires_at=9
    )
    verdict = Verdict(v=1, intent=digest, verifier="vera", outcome="covered", expires_at=9)
    freeze = Freeze(v=1, officer="olga", scope="all", bundle_version=1, reason="", issued_at=9)
    clock = ClockConfirmation(v=1, officer="olga", journal=digest, at=9)
    fate = Resolution(
        v=1,
        verifier="vera",
        chain="bitcoin",
        content=digest,
        resource=f"{digest}:0",
        outcome="dead",
        block=digest,
        height=7,
    )
    given, told = sign_approval(approval, key), sign_verdict(verdict, key)
    told.verify(key.public_hex)
    with pytest.raises(BadSignature):
        told.verify(SigningKey.generate().public_hex)
    assert isinstance(given.signature, str)
    signatures = {
        approval.digest(): given.signature,
        verdict.digest(): told.signature,
        freeze.digest(): sign_freeze(freeze, key).signature,
        clock.digest(): sign_clock(clock, key).signature,
        fate.digest(): sign_resolution(fate, key).signature,
    }
    assert len(signatures) == 5
    for of, signature in signatures.items():
        for what in signatures:
            if of == what:
                verify_ed25519(key.public_hex, what, signature)
            else:
                with pytest.raises(BadSignature):
                    verify_ed25519(key.public_hex, what, signature)


def test_a_key_with_a_passphrase_is_read_with_that_one_only(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "ada.pem"
    key.save(path, "correct horse battery")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert SigningKey.load(path, lambda: "correct horse battery").public_hex == key.public_hex
    with pytest.raises(UnusableKey, match="is encrypted"):
        SigningKey.load(path)
    with pytest.raises(UnusableKey, match="wrong passphrase"):
        SigningKey.load(path, lambda: "another")
    damaged = bytearray(path.read_bytes())
    damaged[150] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(UnusableKey):
        SigningKey.load(path, lambda: "correct horse battery")


def test_a_key_without_a_passphrase_is_read_without_asking(tmp_path: Path) -> None:
    key, path = SigningKey.generate(), tmp_path / "ada.pem"
    key.save(path)

    def never() -> str:
        raise AssertionError("nobody is asked")

    assert SigningKey.load(path, never).public_hex == key.public_hex
