"""Keys inside an HSM through PKCS#11 (PyKCS11): an AES-256 sealing key and an Ed25519 attestation key.

All keys are made inside the token as sensitive and non-extractable. Sessions are pooled; a lost session or a
restarted token is opened and logged in again once per call, and the same operation repeated.

Sources: PKCS#11 v3.0 (CKM_AES_GCM, CKM_EDDSA), NIST SP 800-38D (GCM), RFC 8032 (Ed25519).
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import PyKCS11

from signers.errors import TokenLost, TokenRefused

NONCE_BYTES: Final = 12
TAG_BITS: Final = 128
MAX_SESSIONS: Final = 8

_ED25519_NAME: Final = b"\x13\x0cedwards25519"
"""The PrintableString form that PKCS#11 v3.0 names for the same curve (what SoftHSM takes)."""
_LOST: Final = frozenset(
    {
        PyKCS11.CKR_SESSION_HANDLE_INVALID,
        PyKCS11.CKR_SESSION_CLOSED,
        PyKCS11.CKR_USER_NOT_LOGGED_IN,
        PyKCS11.CKR_DEVICE_ERROR,
        PyKCS11.CKR_DEVICE_REMOVED,
        PyKCS11.CKR_TOKEN_NOT_PRESENT,
        PyKCS11.CKR_CRYPTOKI_NOT_INITIALIZED,
        PyKCS11.CKR_OBJECT_HANDLE_INVALID,
        PyKCS11.CKR_KEY_HANDLE_INVALID,
        PyKCS11.CKR_GENERAL_ERROR,
        PyKCS11.CKR_FUNCTION_FAILED,
    }
)
_WRONG_PIN: Final = frozenset(
    {PyKCS11.CKR_PIN_INCORRECT, PyKCS11.CKR_PIN_INVALID, PyKCS11.CKR_PIN_LEN_RANGE, PyKCS11.CKR_PIN_LOCKED}
)
_T = TypeVar("_T")


class _NoSuchKey(TokenRefused):
    """The key is not there; it may be back after a new connection."""


class Token:
    """One PKCS#11 token, logged in as its user.

    Args:
        module: the vendor's PKCS#11 library.
        label: the token's label.
        pin: called whenever a login is needed; its result is not kept.

    Raises:
        TokenRefused: no such library or token, or the PIN is wrong.
        TokenLost: the token does not answer.
    """

    def __init__(self, module: Path, label: str, pin: Callable[[], str]) -> None:
        self.label = label
        self._module = module
        self._pin = pin
        self._idle: queue.LifoQueue[Any] = queue.LifoQueue()
        self._places = threading.BoundedSemaphore(MAX_SESSIONS)
        self._login = threading.Lock()
        self._reconnecting = threading.Lock()
        self._connection = 0
        self._keeper: Any = None
        self._connect()

    def __repr__(self) -> str:
        return f"Token({self.label!r})"

    def make_sealing_key(self, name: str) -> None:
        """Make an AES-256 key that never leaves the token.

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.must_be_free(PyKCS11.CKO_SECRET_KEY, name)
        template = [
            (PyKCS11.CKA_CLASS, PyKCS11.CKO_SECRET_KEY),
            (PyKCS11.CKA_KEY_TYPE, PyKCS11.CKK_AES),
            (PyKCS11.CKA_VALUE_LEN, 32),
            (PyKCS11.CKA_LABEL, name),
            (PyKCS11.CKA_TOKEN, True),
            (PyKCS11.CKA_PRIVATE, True),
            (PyKCS11.CKA_SENSITIVE, True),
            (PyKCS11.CKA_EXTRACTABLE, False),
            (PyKCS11.CKA_ENCRYPT, True),
            (PyKCS11.CKA_DECRYPT, True),
            (PyKCS11.CKA_WRAP, False),
            (PyKCS11.CKA_UNWRAP, False),
        ]
        mechanism = PyKCS11.Mechanism(PyKCS11.CKM_AES_KEY_GEN, None)
        self.call(lambda session: session.generateKey(template, mechanism))

    def make_attestation_key(self, name: str) -> bytes:
        """Make an Ed25519 key pair whose private half never leaves the token; returns the public key (32 bytes).

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.make_pair(
            name,
            PyKCS11.CKK_EC_EDWARDS,
            _ED25519_NAME,
            PyKCS11.Mechanism(PyKCS11.CKM_EC_EDWARDS_KEY_PAIR_GEN, None),
        )
        return self.attestation_public_key(name)

    def attestation_public_key(self, name: str) -> bytes:
        """The public half (32 bytes) of an attestation key. Raises TokenRefused (no such key), TokenLost."""
        return self.point(name)[-32:]

    def sign(self, name: str, message: bytes) -> bytes:
        """Ed25519 signature (64 bytes) by an attestation key. Raises TokenRefused (no such key), TokenLost."""
        return self.signature(name, message, PyKCS11.EDDSA_Mechanism())

    def seal(self, name: str, plaintext: bytes, associated: bytes) -> bytes:
        """AES-256-GCM under a sealing key: nonce (12 bytes), ciphertext, tag (16 bytes).

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """
        nonce = os.urandom(NONCE_BYTES)

        def seal(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_SECRET_KEY, name)
            mechanism = PyKCS11.AES_GCM_Mechanism(nonce, associated, TAG_BITS)
            return nonce + bytes(session.encrypt(handle, plaintext, mechanism))

        return self.call(seal)

    def unseal(self, name: str, sealed: bytes, associated: bytes) -> bytes | None:
        """The plaintext of `seal`, or None where the tag does not match (other key, other data, damage).

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """
        if len(sealed) < NONCE_BYTES + TAG_BITS // 8:
            return None

        def unseal(session: Any) -> bytes | None:
            handle = self.handle(session, PyKCS11.CKO_SECRET_KEY, name)
            mechanism = PyKCS11.AES_GCM_Mechanism(sealed[:NONCE_BYTES], associated, TAG_BITS)
            try:
                return bytes(session.decrypt(handle, sealed[NONCE_BYTES:], mechanism))
            except PyKCS11.PyKCS11Error as error:
                # SoftHSM answers a wrong tag with GENERAL_ERROR or ENCRYPTED_DATA_INVALID, never with a plaintext.
                if error.value in (
                    PyKCS11.CKR_ENCRYPTED_DATA_INVALID,
                    PyKCS11.CKR_ENCRYPTED_DATA_LEN_RANGE,
                    PyKCS11.CKR_GENERAL_ERROR,
                ):
                    return None
                raise

        return self.call(unseal)

    def close(self) -> None:
        """Close this object's sessions. Other users of the library in this process are not touched."""
        sessions = [] if self._keeper is None else [self._keeper]
        self._keeper = None
        while not self._idle.empty():
            sessions.append(self._idle.get_nowait())
        for session in sessions:
            self._discard(session)

    def make_pair(self, name: str, key_type: int, curve: bytes, mechanism: Any) -> None:
        """Make a key pair that signs and does nothing else, and whose private half never leaves the token.

        Args:
            name: of both halves.
            key_type: CKK_...
            curve: CKA_EC_PARAMS, DER.
            mechanism: which generates it.

        Raises:
            TokenRefused: a key of that name exists.
            TokenLost: the token does not answer.
        """
        self.must_be_free(PyKCS11.CKO_PRIVATE_KEY, name)
        public = [
            (PyKCS11.CKA_KEY_TYPE, key_type),
            (PyKCS11.CKA_EC_PARAMS, curve),
            (PyKCS11.CKA_LABEL, name),
            (PyKCS11.CKA_TOKEN, True),
            (PyKCS11.CKA_VERIFY, True),
        ]
        private = [
            (PyKCS11.CKA_KEY_TYPE, key_type),
            (PyKCS11.CKA_LABEL, name),
            (PyKCS11.CKA_TOKEN, True),
            (PyKCS11.CKA_PRIVATE, True),
            (PyKCS11.CKA_SENSITIVE, True),
            (PyKCS11.CKA_EXTRACTABLE, False),
            (PyKCS11.CKA_SIGN, True),
            (PyKCS11.CKA_DERIVE, False),
        ]
        self.call(lambda session: session.generateKeyPair(public, private, mechanism))

    def point(self, name: str) -> bytes:
        """CKA_EC_POINT of a key pair: an OCTET STRING, so the point's own bytes are the last ones.

        Raises:
            TokenRefused: no such key.
            TokenLost: the token does not answer.
        """

        def read(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_PUBLIC_KEY, name)
            return bytes(session.getAttributeValue(handle, [PyKCS11.CKA_EC_POINT])[0])

        return self.call(read)

    def signature(self, name: str, data: bytes, mechanism: Any) -> bytes:
        """What a private key makes of `data`. Raises TokenRefused (no such key), TokenLost."""

        def sign(session: Any) -> bytes:
            handle = self.handle(session, PyKCS11.CKO_PRIVATE_KEY, name)
            return bytes(session.sign(handle, data, mechanism))

        return self.call(sign)

    def must_be_free(self, kind: int, name: str) -> None:
        """Check that no key has this name. Raises TokenRefused (one has: it is never replaced), TokenLost."""
        wanted = [(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)]
        if self.call(lambda session: session.findObjects(wanted)):
            raise TokenRefused(f"token {self.label!r} has a key {name!r} already; it is not replaced")

    def handle(self, session: Any, kind: int, name: str) -> Any:
        """The one object of a class (CKO_...) and name, within an operation of `call`. Raises TokenRefused."""
        found = session.findObjects([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)])
        if len(found) != 1:
            raise _NoSuchKey(
                f"token {self.label!r} has {len(found)} keys named {name!r}; exactly one is needed"
            )
        return found[0]

    def call(self, operation: Callable[[Any], _T]) -> _T:
        """Run `operation` with a session; once more after connecting anew if session, login or token was lost.

        Raises:
            TokenRefused: the token refused, or has no such key.
            TokenLost: the token does not answer.
        """
        connection = self._connection
        try:
            with self._places:
                return self._once(operation, self._session())
        except (TokenLost, _NoSuchKey):
            self._reconnect(connection)
        with self._places:
            return self._once(operation, self._session())

    def _session(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._open()

    def _reconnect(self, failed: int) -> None:
        """Leave the library and load it again: a token that went away comes back only to a fresh C_Initialize.

        Args:
            failed: number of the connection that failed; if another thread has replaced it, nothing is done.
        """
        # Two threads that each collected half of the places would wait for each other for ever.
        with self._reconnecting:
            for _ in range(MAX_SESSIONS):
                self._places.acquire()
        try:
            if self._connection == failed:
                self.close()
                self._library.unload()
                self._connection += 1
                try:
                    self._connect()
                except TokenRefused as error:
                    raise TokenLost(f"token {self.label!r} was lost and is not back: {error}") from None
        finally:
            for _ in range(MAX_SESSIONS):
                self._places.release()

    def _connect(self) -> None:
        self._library = PyKCS11.PyKCS11Lib()
        try:
            self._library.load(str(self._module))
        except PyKCS11.PyKCS11Error:
            raise TokenRefused(
                f"PKCS#11 library {self._module} did not load; name the vendor's library"
            ) from None
        # One session stays open for ever: a token forgets the login when its last session closes.
        self._keeper = self._open()

    def _once(self, operation: Callable[[Any], _T], session: Any) -> _T:
        try:
            result = operation(session)
        except PyKCS11.PyKCS11Error as error:
            self._discard(session)
            raise self._translated(error) from None
        except BaseException:
            self._idle.put(session)
            raise
        self._idle.put(session)
        return result

    def _open(self) -> Any:
        try:
            with self._login:
                session = self._library.openSession(
                    self._slot(), PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION
                )
                try:
                    session.login(self._pin())
                except PyKCS11.PyKCS11Error as error:
                    if error.value != PyKCS11.CKR_USER_ALREADY_LOGGED_IN:
                        self._discard(session)
                        raise
                return session
        except PyKCS11.PyKCS11Error as error:
            raise self._translated(error) from None

    def _slot(self) -> Any:
        for slot in self._library.getSlotList(tokenPresent=True):
            if str(self._library.getTokenInfo(slot).label).rstrip("\0 ") == self.label:
                return slot
        raise TokenRefused(
            f"no token labelled {self.label!r} is present; check the label and the HSM's settings"
        )

    def _discard(self, session: Any) -> None:
        try:
            session.closeSession()
        except PyKCS11.PyKCS11Error:
            return

    def _translated(self, error: Any) -> TokenRefused | TokenLost:
        if error.value in _WRONG_PIN:
            return TokenRefused(
                f"token {self.label!r} refused the PIN ({error}); put the user PIN in the PIN file"
            )
        if error.value in _LOST:
            return TokenLost(f"token {self.label!r} does not answer: {error}")
        return TokenRefused(f"token {self.label!r} refused: {error}")
