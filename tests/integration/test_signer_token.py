"""Keys in a real SoftHSM token: they work, they don't come out, and a lost session is not the end."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import PyKCS11
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chains.errors import InvalidValue
from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from signers.errors import SealBroken, TokenLost, TokenRefused
from signers.hsm.cryptoki import Library
from signers.hsm.pkcs11 import Token
from signers.hsm.sessions import MAX_SESSIONS
from signers.keys.ecdsa import make_signing_key, normalised, sign_digest
from signers.keys.sealed import (
    SealedCosigner,
    SealedKeys,
    attestation_key_name,
    create_cosigner,
    create_keyset,
    open_keyset,
    read_sealed,
    sealing_key_name,
    seed_path,
)
from signers.keytest.selfcheck import check_bitcoin_keys
from tests.fakes.own_token import OwnToken, in_child, own_store


@pytest.fixture
def name() -> str:
    return f"k-{uuid.uuid4().hex[:12]}"


def test_a_sealed_secret_opens_only_with_the_same_key_and_association(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    token.make_sealing_key(name + "-2")
    sealed = token.seal(name, b"secret", b"for this")
    assert token.unseal(name, sealed, b"for this") == b"secret"
    assert token.unseal(name, sealed, b"for that") is None
    assert token.unseal(name + "-2", sealed, b"for this") is None
    assert token.unseal(name, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"for this") is None
    assert token.unseal(name, sealed[:-1], b"for this") is None
    assert token.unseal(name, b"", b"for this") is None


def test_sealing_twice_uses_another_nonce(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    assert token.seal(name, b"secret", b"") != token.seal(name, b"secret", b"")


def test_attestations_verify_in_another_library_from_many_threads(token: Token, name: str) -> None:
    public = Ed25519PublicKey.from_public_bytes(token.make_attestation_key(name))
    messages = [os.urandom(32) for _ in range(64)]
    with ThreadPoolExecutor(16) as pool:
        for message, signature in zip(
            messages, pool.map(lambda m: token.sign(name, m), messages), strict=True
        ):
            public.verify(signature, message)


def test_a_key_is_never_replaced(token: Token, name: str) -> None:
    token.make_sealing_key(name)
    token.make_attestation_key(name)
    with pytest.raises(TokenRefused, match="already"):
        token.make_sealing_key(name)
    with pytest.raises(TokenRefused, match="already"):
        token.make_attestation_key(name)


def test_an_unknown_key_is_refused(token: Token) -> None:
    with pytest.raises(TokenRefused, match="0 keys named 'nothing'"):
        token.sign("nothing", b"x")


def test_keys_can_not_be_read_out_or_made_readable(token: Token, softhsm: SoftHsmToken, name: str) -> None:
    token.make_sealing_key(name)
    token.make_attestation_key(name)
    session = token._session(token._slot())
    for kind in (PyKCS11.CKO_SECRET_KEY, PyKCS11.CKO_PRIVATE_KEY):
        (key,) = session.findObjects([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)])
        sensitive, extractable, value = session.getAttributeValue(
            key, [PyKCS11.CKA_SENSITIVE, PyKCS11.CKA_EXTRACTABLE, PyKCS11.CKA_VALUE]
        )
        assert (bool(sensitive), bool(extractable), value) == (True, False, None)
        for attribute, wish in ((PyKCS11.CKA_EXTRACTABLE, True), (PyKCS11.CKA_SENSITIVE, False)):
            with pytest.raises(PyKCS11.PyKCS11Error):
                session.setAttributeValue(key, [(attribute, wish)])
    session.closeSession()


def test_fault_30_lost_sessions_are_opened_again_and_give_the_same(token: Token, name: str) -> None:
    token.make_attestation_key(name)
    before = token.sign(name, b"same")
    forget_sessions(token)
    assert token.sign(name, b"same") == before


def test_a_missing_library_or_token_is_a_clear_refusal(softhsm: SoftHsmToken) -> None:
    with pytest.raises(TokenRefused, match="did not load"):
        Token(Path("/nowhere.so"), softhsm.label, softhsm.user_pin)
    with pytest.raises(TokenRefused, match="no token labelled"):
        Token(softhsm.module_path, "elsewhere", softhsm.user_pin)


def test_a_keyset_is_made_once_and_opens_again(token: Token, name: str, tmp_path: Path) -> None:
    record = create_keyset(token, name, "regtest", tmp_path)
    assert create_keyset(token, name, "regtest", tmp_path) == record
    secret = open_keyset(token, read_sealed(seed_path(tmp_path, name)))
    assert secret.public.xpub == record.account
    assert record.origin.endswith("/84'/1'/0'")
    assert seed_path(tmp_path, name).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.seed.json"]


def test_a_taproot_key_set_and_a_cosigner_are_made_once_and_open_as_what_they_are(
    token: Token, name: str, tmp_path: Path
) -> None:
    taproot = create_keyset(token, name, "regtest", tmp_path, script="p2tr")
    assert taproot.origin.endswith("/86'/1'/0'")
    assert create_keyset(token, name, "regtest", tmp_path, script="p2tr") == taproot
    keys = SealedKeys(token, read_sealed(seed_path(tmp_path, name)))
    assert (keys.account.kind, keys.account.xpub) == ("p2tr", taproot.account)
    cosigner = create_cosigner(token, name + "-v", "regtest", tmp_path)
    assert cosigner.origin.endswith("/48'/1'/0'/2'")
    assert create_cosigner(token, name + "-v", "regtest", tmp_path) == cosigner
    own = SealedCosigner(token, read_sealed(seed_path(tmp_path, name + "-v")))
    assert own.account.xpub == cosigner.account
    check_bitcoin_keys(keys)
    check_bitcoin_keys(own)
    assert "[secret]" in repr(keys)
    assert "[secret]" in repr(own)


def test_one_kind_of_keys_does_not_pass_for_another(token: Token, name: str, tmp_path: Path) -> None:
    create_keyset(token, name, "regtest", tmp_path, script="p2tr")
    create_cosigner(token, name + "-v", "regtest", tmp_path)
    taproot, cosigner = (read_sealed(seed_path(tmp_path, n)) for n in (name, name + "-v"))
    for wrong in (
        lambda: create_keyset(token, name, "regtest", tmp_path),
        lambda: create_keyset(token, name, "signet", tmp_path, script="p2tr"),
        lambda: create_cosigner(token, name, "regtest", tmp_path),
        lambda: create_keyset(token, name + "-v", "regtest", tmp_path),
        lambda: create_cosigner(token, name + "-v", "signet", tmp_path),
        lambda: SealedCosigner(token, taproot),
        lambda: SealedKeys(token, cosigner),
    ):
        with pytest.raises(SealBroken):
            wrong()


def test_a_keyset_whose_seed_was_lost_is_not_made_anew(token: Token, name: str, tmp_path: Path) -> None:
    create_keyset(token, name, "regtest", tmp_path)
    seed_path(tmp_path, name).unlink()
    with pytest.raises(TokenRefused, match="already"):
        create_keyset(token, name, "regtest", tmp_path)


def test_a_seed_sealed_for_one_keyset_does_not_open_as_another(
    token: Token, name: str, tmp_path: Path
) -> None:
    create_keyset(token, name, "regtest", tmp_path)
    create_keyset(token, name + "-b", "regtest", tmp_path)
    swapped = seed_path(tmp_path, name).read_bytes().replace(name.encode(), (name + "-b").encode())
    seed_path(tmp_path, name + "-b").write_bytes(swapped)
    with pytest.raises(SealBroken):
        open_keyset(token, read_sealed(seed_path(tmp_path, name + "-b")))


def test_names_and_networks_are_checked_before_anything_is_made(token: Token, tmp_path: Path) -> None:
    for bad_name, network in (("../x", "regtest"), ("", "regtest"), ("good-name", "mainnet")):
        with pytest.raises(InvalidValue):
            create_keyset(token, bad_name, network, tmp_path)
    with pytest.raises(TokenRefused, match="0 keys"):
        token.unseal(sealing_key_name("good-name"), b"x" * 40, b"")
    assert attestation_key_name("a") != sealing_key_name("a")


# What a token and its library go through.


def forget_sessions(token: Token) -> None:
    """The token's side ends all sessions, between calls: SoftHSM crashes if they are closed while they sign."""
    library = token._library
    assert library._close(30)
    try:
        library.raw.closeAllSessions(token._slot())
    finally:
        library._open()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[OwnToken]:
    with own_store(tmp_path / "store") as store:
        yield store


def opened(own: OwnToken, label: str | None = None) -> Token:
    return Token(own.soft.module_path, label or own.soft.label, own.soft.user_pin)


def test_two_tokens_of_one_library_are_initialised_once_and_end_apart(own: OwnToken) -> None:
    second = own.another("second")
    with closing(opened(own)) as one:
        keys = {one: one.make_attestation_key("k")}
        with closing(Token(second.module_path, second.label, second.user_pin)) as two:
            keys[two] = two.make_attestation_key("k")
            assert one._library is two._library
            assert one._library.number == 1
            assert keys[one] != keys[two]
            with ThreadPoolExecutor(8) as pool:
                for token, public in list(keys.items()) * 50:
                    Ed25519PublicKey.from_public_bytes(public).verify(
                        pool.submit(token.sign, "k", b"m").result(), b"m"
                    )
        one.sign("k", b"still")
        with pytest.raises(TokenRefused, match="is closed"):
            two.sign("k", b"m")
    assert Library._present == {}


def test_fault_30_a_token_that_is_away_does_not_stop_its_neighbour_in_the_same_library(
    own: OwnToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signers.hsm.cryptoki.RENEW_PAUSE_SECONDS", 3600)
    second = own.another("second")
    with (
        closing(opened(own)) as one,
        closing(Token(second.module_path, second.label, second.user_pin)) as two,
    ):
        one.make_attestation_key("k")
        two.make_attestation_key("k")
        expected = {token: token.sign("k", b"m") for token in (one, two)}
        own.take_away("second")
        stop = threading.Event()

        def neighbour() -> int:
            done = 0
            while not stop.is_set():
                assert one.sign("k", b"m") == expected[one]
                done += 1
            return done

        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(neighbour) for _ in range(4)]
            for _ in range(20):
                with pytest.raises(TokenLost):
                    two.sign("k", b"m")
            # The neighbour's sessions are ended once, and not at each of its calls, as long as the pause lasts.
            assert one._library.number == 2
            one._library._renewable_at = 0
            monkeypatch.setattr("signers.hsm.cryptoki.RENEW_PAUSE_SECONDS", 0)
            own.bring_back("second")
            wait_until(lambda: _signs(two) == expected[two], timeout=20, what="the second token")
            stop.set()
            assert all(work.result() > 0 for work in running)


def _signs(token: Token) -> bytes | None:
    try:
        return token.sign("k", b"m")
    except TokenLost:
        return None


def test_fault_30_eight_threads_sign_on_when_the_token_was_away_and_each_gets_its_own_answer(
    own: OwnToken,
) -> None:
    """Each thread asks again with the same digest until it is answered, as callers do."""
    digests = [hashlib.sha256(bytes([n])).digest() for n in range(200)]
    with closing(opened(own)) as token:
        pubkey = make_signing_key(token, "k")
        lost: list[bytes] = []

        def sign(digest: bytes) -> bytes:
            while True:
                try:
                    return normalised(sign_digest(token, "k", digest), pubkey, digest)
                except TokenLost:
                    lost.append(digest)

        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(sign, digest) for digest in digests]
            wait_until(lambda: running[20].done(), timeout=30, what="the first signatures")
            own.take_away()
            wait_until(lambda: len(lost) > 8, timeout=30, what="the loss to be noticed")
            own.bring_back()
            made = [work.result(timeout=60) for work in running]
    assert lost
    assert len({signature[:32] for signature in made}) == len(digests)  # no nonce twice


def test_fault_30_sessions_that_the_token_forgot_are_opened_again_while_eight_threads_sign(
    own: OwnToken,
) -> None:
    with closing(opened(own)) as token:
        public = Ed25519PublicKey.from_public_bytes(token.make_attestation_key("k"))
        with ThreadPoolExecutor(8) as pool:
            running = [pool.submit(token.sign, "k", bytes([n])) for n in range(200)]
            for n in range(5):
                wait_until(running[30 * n].done, timeout=30, what="signatures")
                forget_sessions(token)
            for n, work in enumerate(running):
                public.verify(work.result(), bytes([n]))


def test_handles_are_looked_up_once_a_connection(own: OwnToken, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    find = PyKCS11.Session.findObjects
    with closing(opened(own)) as token:
        token.make_attestation_key("k")

        def counted(session: object, wanted: object) -> object:
            looked.append(wanted)
            return find(session, wanted)

        monkeypatch.setattr(PyKCS11.Session, "findObjects", counted)
        first = token.sign("k", b"m")
        assert [token.sign("k", b"m") for _ in range(10)] == [first] * 10
        assert len(looked) == 1
        forget_sessions(token)
        assert [token.sign("k", b"m") for _ in range(10)] == [first] * 10
        assert len(looked) == 2
        assert token._library.number == 1  # a new login was enough


def test_a_refused_pin_is_not_tried_again(own: OwnToken) -> None:
    asked: list[str] = []
    pins = [own.soft.user_pin()]

    def pin() -> str:
        asked.append(pins[-1])
        return pins[-1]

    with closing(Token(own.soft.module_path, own.soft.label, pin)) as token:
        token.make_attestation_key("k")
        assert len(asked) == 1
        pins.append("918273")
        forget_sessions(token)
        for _ in range(5):
            with pytest.raises(TokenRefused, match="refused the PIN") as refused:
                token.sign("k", b"m")
            assert "918273" not in str(refused.value)
        assert asked[1:] == ["918273"]


def test_who_finds_all_sessions_in_use_for_too_long_is_told_so(
    own: OwnToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signers.hsm.sessions.WAIT_SECONDS", 0)
    hold, held = threading.Event(), threading.Barrier(MAX_SESSIONS + 1)
    with closing(opened(own)) as token, ThreadPoolExecutor(MAX_SESSIONS) as pool:

        def keep(_session: object) -> None:
            held.wait(30)
            hold.wait(30)

        running = [pool.submit(token.call, keep) for _ in range(MAX_SESSIONS)]
        held.wait(30)
        with pytest.raises(TokenLost, match="all sessions of token 'own' were in use"):
            token.call(lambda _session: None)
        hold.set()
        for work in running:
            work.result()
        token.call(lambda _session: None)


def test_a_call_that_never_ends_does_not_hold_up_the_repair_for_ever(
    own: OwnToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signers.hsm.cryptoki.WAIT_SECONDS", 0)
    hold, held = threading.Event(), threading.Event()
    with closing(opened(own)) as token, ThreadPoolExecutor(1) as pool:

        def hang(_session: object) -> None:
            held.set()
            hold.wait(30)

        running = pool.submit(token.call, hang)
        held.wait(30)
        with pytest.raises(TokenLost, match="does not end"):
            token._library.renew(token._library.number)
        token.call(lambda _session: None)  # and the others go on
        hold.set()
        running.result()


@pytest.mark.parametrize("reset", ["true", "false"])
def test_a_child_after_fork_initialises_anew_and_leaves_its_parents_sessions_alone(
    own: OwnToken, reset: str
) -> None:
    """Also where the library itself would let it go on with them, as SoftHSM does without `reset_on_fork`."""
    conf = own.soft.config_path
    conf.write_text(conf.read_text().replace("reset_on_fork = true", f"reset_on_fork = {reset}"))
    with closing(opened(own)) as token:
        token.make_attestation_key("k")
        first = token.sign("k", b"m")
        number = token._library.number

        def child() -> bytes:
            assert token._connection is None
            same = token.sign("k", b"m") == first
            return bytes([same, token._library.number - number])

        assert in_child(child) == bytes([True, 1])
        assert token._library.number == number
        assert token.sign("k", b"m") == first


def test_a_token_is_not_pickled_and_says_who_it_is(own: OwnToken) -> None:
    with closing(opened(own)) as token:
        with pytest.raises(TypeError):
            pickle.dumps(token)
        assert repr(token) == "Token('own')"
        identity = token.identity()
        assert identity.module == str(own.soft.module_path)
        assert "SoftHSM" in identity.library + identity.model
        assert identity.serial
