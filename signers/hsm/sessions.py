"""Sessions with one PKCS#11 token: pooled, logged in, and repaired when they are lost.

Handles of keys are kept as long as their sessions. What is lost is repaired within the call, and the same operation
repeated: first new sessions and a new login, then a newly initialised library. A child after fork starts with the
latter. A PIN that was refused is never tried again, for tokens lock themselves after a few tries.

Source: PKCS#11 v3.0, 5.6 (sessions), 6.7.4 (login is the application's, not a session's).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import PyKCS11

from signers.errors import TokenLost, TokenRefused
from signers.hsm.cryptoki import WAIT_SECONDS, Library

MAX_SESSIONS: Final = 8
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
        PyKCS11.CKR_TOKEN_NOT_RECOGNIZED,
        PyKCS11.CKR_SLOT_ID_INVALID,
        PyKCS11.CKR_SESSION_COUNT,
        PyKCS11.CKR_HOST_MEMORY,
        PyKCS11.CKR_DEVICE_MEMORY,
        PyKCS11.CKR_OPERATION_ACTIVE,
        PyKCS11.CKR_OPERATION_NOT_INITIALIZED,
        PyKCS11.CKR_FUNCTION_CANCELED,
    }
)
_WRONG_PIN: Final = frozenset(
    {PyKCS11.CKR_PIN_INCORRECT, PyKCS11.CKR_PIN_INVALID, PyKCS11.CKR_PIN_LEN_RANGE, PyKCS11.CKR_PIN_LOCKED}
)
_T = TypeVar("_T")


class _Vanished(TokenLost):
    """A key that was there is not there; it may be back with a new connection, or it was destroyed."""


class _Absent(TokenLost):
    """No token of this label is in any slot; it may come back."""


@dataclass(slots=True, eq=False)
class _Connection:
    """Sessions, login and handles that are valid together."""

    number: int
    """Of the library at that time."""
    slot: Any
    keeper: Any
    """A session that stays open: a token forgets the login when its last session closes."""
    idle: list[Any] = field(default_factory=list)
    handles: dict[tuple[int, str], Any] = field(default_factory=dict)
    """By class (CKO_...) and label."""


class _Failed(Exception):
    """An attempt that a repair may help."""

    def __init__(self, connection: _Connection | None, number: int, error: TokenLost) -> None:
        super().__init__(str(error))
        self.connection, self.number, self.error = connection, number, error


@dataclass(frozen=True, slots=True)
class TokenIdentity:
    """Which token in which library, as they say themselves."""

    module: str
    """Path of the library."""
    library: str
    """Its description and version."""
    model: str
    """Manufacturer and model of the token."""
    firmware: str
    """Hardware and firmware version of the token."""
    serial: str


class Sessions:
    """One token, logged in as its user.

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
        self._pin = pin
        self._pin_refused: str | None = None
        self._seen: set[tuple[int, str]] = set()
        """Keys that were there once: if one is missing later, the token is in trouble."""
        self._closed = False
        self.forked()
        self._library = Library.take(module)
        self._library.tokens.add(self)
        try:
            with self._library.inside():
                self._connected()
        except BaseException as error:
            self.close()
            if isinstance(error, _Absent):
                raise TokenRefused(str(error)) from None
            raise

    def __repr__(self) -> str:
        return f"Token({self.label!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a token's sessions are of this process only")

    def forked(self) -> None:
        """In a child after fork: the parent's sessions and locks are not used; the next call logs in anew."""
        self._connection: _Connection | None = None
        self._connecting = threading.Lock()
        self._places = threading.BoundedSemaphore(MAX_SESSIONS)

    def identity(self) -> TokenIdentity:
        """What library and token say of themselves. Raises TokenLost, TokenRefused (the PIN was refused before)."""

        def read(_session: Any) -> TokenIdentity:
            raw = self._library.raw
            library, token = raw.getInfo(), raw.getTokenInfo(self._slot())
            return TokenIdentity(
                module=str(self._library.path),
                library=f"{_text(library.libraryDescription)} {_version(library.libraryVersion)}",
                model=f"{_text(token.manufacturerID)} {_text(token.model)}",
                firmware=f"{_version(token.hardwareVersion)} {_version(token.firmwareVersion)}",
                serial=_text(token.serialNumber),
            )

        return self.call(read)

    def close(self) -> None:
        """Close this object's sessions; the library too, if no other token of it is open. Again changes nothing."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            self._drop(self._connection)
        self._library.tokens.discard(self)
        self._library.release()

    def call(self, operation: Callable[[Any], _T]) -> _T:
        """Run `operation` with a session; again after repairs if session, login, token or library was lost.

        Raises:
            TokenRefused: the token refused, or has no such key, or has refused the PIN before.
            TokenLost: the token does not answer, or all sessions are in use for too long.
        """
        try:
            return self._attempt(operation)
        except _Failed as failed:
            if failed.connection is not None:
                self._drop(failed.connection)
        try:
            return self._attempt(operation)
        except _Failed as failed:
            if not self._library.renew(failed.number):
                raise failed.error from None
        try:
            return self._attempt(operation)
        except _Failed as failed:
            if isinstance(failed.error, _Vanished):
                raise TokenRefused(str(failed.error)) from None
            raise failed.error from None

    def handle(self, session: Any, kind: int, name: str) -> Any:
        """The one object of a class (CKO_...) and name, within an operation of `call`. Raises TokenRefused."""
        connection = self._connection
        known = None if connection is None else connection.handles.get((kind, name))
        if known is not None:
            return known
        found = session.findObjects([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)])
        if len(found) != 1:
            text = f"token {self.label!r} has {len(found)} keys named {name!r}; exactly one is needed"
            raise _Vanished(text) if (kind, name) in self._seen else TokenRefused(text)
        self._seen.add((kind, name))
        if connection is not None:
            connection.handles[kind, name] = found[0]
        return found[0]

    def _attempt(self, operation: Callable[[Any], _T]) -> _T:
        places = self._places
        if not places.acquire(timeout=WAIT_SECONDS):
            raise TokenLost(f"all sessions of token {self.label!r} were in use for {WAIT_SECONDS} seconds")
        try:
            with self._library.inside():
                connection = None
                try:
                    connection = self._connected()
                    return self._with_session(connection, operation)
                except TokenLost as error:
                    raise _Failed(connection, self._library.number, error) from None
        finally:
            places.release()

    def _with_session(self, connection: _Connection, operation: Callable[[Any], _T]) -> _T:
        try:
            session = connection.idle.pop()
        except IndexError:
            session = self._session(connection.slot)
        try:
            result = operation(session)
        except PyKCS11.PyKCS11Error as error:
            _discard(session)
            raise self._translated(error) from None
        except BaseException:
            self._give_back(connection, session)
            raise
        self._give_back(connection, session)
        return result

    def _give_back(self, connection: _Connection, session: Any) -> None:
        if connection is self._connection:
            connection.idle.append(session)
        else:
            _discard(session)  # a neighbour found the connection broken; it is not filled again

    def _connected(self) -> _Connection:
        """The present connection, or a new one. Within the library."""
        connection = self._connection
        if connection is not None and connection.number == self._library.number:
            return connection
        connecting = self._connecting
        if not connecting.acquire(timeout=WAIT_SECONDS):
            raise TokenLost(f"the login to token {self.label!r} takes longer than {WAIT_SECONDS} seconds")
        try:
            connection = self._connection
            if connection is None or connection.number != self._library.number:
                connection = self._connection = self._connect()
            return connection
        finally:
            connecting.release()

    def _connect(self) -> _Connection:
        if self._closed:
            raise TokenRefused(f"token {self.label!r} is closed")
        if self._pin_refused is not None:
            raise TokenRefused(self._pin_refused)  # asking again would lock the token
        slot = self._slot()
        keeper = self._session(slot)
        try:
            keeper.login(self._pin())
        except PyKCS11.PyKCS11Error as error:
            if error.value != PyKCS11.CKR_USER_ALREADY_LOGGED_IN:
                _discard(keeper)
                if error.value in _WRONG_PIN:
                    self._pin_refused = (
                        f"token {self.label!r} refused the PIN ({error}); "
                        "put the user PIN in the PIN file and start again"
                    )
                    raise TokenRefused(self._pin_refused) from None
                raise self._translated(error) from None
        except BaseException:
            _discard(keeper)
            raise
        return _Connection(self._library.number, slot, keeper)

    def _drop(self, connection: _Connection) -> None:
        """Leave a connection; sessions that are in use are closed by who uses them."""
        with self._library.inside():
            connecting = self._connecting
            if not connecting.acquire(timeout=WAIT_SECONDS):
                raise TokenLost(f"the login to token {self.label!r} takes longer than {WAIT_SECONDS} seconds")
            try:
                if self._connection is connection:
                    self._connection = None
                unused, connection.idle = connection.idle, []
                if connection.keeper is not None:
                    unused.append(connection.keeper)
                    connection.keeper = None
            finally:
                connecting.release()
            if connection.number == self._library.number:  # else their numbers may be those of new sessions
                for session in unused:
                    _discard(session)

    def _session(self, slot: Any) -> Any:
        try:
            return self._library.raw.openSession(slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION)
        except PyKCS11.PyKCS11Error as error:
            raise self._translated(error) from None

    def _slot(self) -> Any:
        raw = self._library.raw
        try:
            for slot in raw.getSlotList(tokenPresent=True):
                if _text(raw.getTokenInfo(slot).label) == self.label:
                    return slot
        except PyKCS11.PyKCS11Error as error:
            raise self._translated(error) from None
        raise _Absent(f"no token labelled {self.label!r} is present; check the label and the HSM's settings")

    def _translated(self, error: Any) -> TokenRefused | TokenLost:
        if error.value in _LOST:
            return TokenLost(f"token {self.label!r} does not answer: {error}")
        return TokenRefused(f"token {self.label!r} refused: {error}")


def _discard(session: Any) -> None:
    try:
        session.closeSession()
    except PyKCS11.PyKCS11Error:
        return


def _text(padded: Any) -> str:
    return str(padded).rstrip("\0 ")


def _version(pair: Any) -> str:
    return ".".join(str(part) for part in pair)
