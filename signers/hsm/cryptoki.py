"""One vendor's PKCS#11 library in this process: loaded once, shared by all tokens in it, renewed when it is lost.

PKCS#11 knows applications, and this process is one: it calls C_Initialize once, however many tokens it uses, and
sessions and object handles are void after C_Finalize. So tokens share a `Library`, whose `number` rises each time
it is initialised anew. A child after fork is another application: it initialises anew before its first call, and
never touches a session of its parent.

PyKCS11 keeps Python's lock while it is inside a library. For signatures, which are most of what a signer does, that
would mean one at a time, and a token that hangs would hang the whole process; so C_Sign is called through ctypes,
which gives the lock up. Measured with SoftHSM on two cores, eight threads: 4,500 signatures a second, not 2,000.

Source: PKCS#11 v3.0, 5.4 (C_Initialize, C_Finalize; applications and processes), 6.7 (sessions and handles), 5.13
(C_SignInit, C_Sign), 3.6 (CK_FUNCTION_LIST).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import PyKCS11

from signers.errors import TokenLost, TokenRefused

WAIT_SECONDS: Final = 30
"""How long anybody waits for another thread. A library that keeps a thread for longer is as good as lost."""
FORK_WAIT_SECONDS: Final = 5
"""How long a fork waits for threads inside the library; the child then inherits whatever they hold."""
RENEW_PAUSE_SECONDS: Final = 1
"""Least time between two C_Initialize: a token that stays away is not to end its neighbours' sessions at every call."""


_ULONG: Final = ctypes.c_ulong
_SIGN_INIT_PLACE: Final = 42
"""C_SignInit among the functions of CK_FUNCTION_LIST, C_Initialize being 0; C_Sign follows."""
_MAX_SIGNATURE_BYTES: Final = 512


class _Mechanism(ctypes.Structure):
    """CK_MECHANISM."""

    _fields_ = (("mechanism", _ULONG), ("parameter", ctypes.c_void_p), ("parameter_bytes", _ULONG))


class _FunctionList(ctypes.Structure):
    """CK_FUNCTION_LIST as far as C_Sign."""

    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * (_SIGN_INIT_PLACE + 2)))


_SIGN_INIT: Final = ctypes.CFUNCTYPE(_ULONG, _ULONG, ctypes.POINTER(_Mechanism), _ULONG)
_SIGN: Final = ctypes.CFUNCTYPE(
    _ULONG, _ULONG, ctypes.c_char_p, _ULONG, ctypes.c_char_p, ctypes.POINTER(_ULONG)
)


class Forked(Protocol):
    """What holds sessions of a library."""

    def forked(self) -> None:
        """In the child: forget locks and sessions."""


class Library:
    """A library that is loaded and initialised. Made by `Library.take`, given back by `release`."""

    _present: Final[dict[Path, Library]] = {}
    _registry: threading.Lock = threading.Lock()
    _watching = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 1
        """How many times it was initialised. Sessions and handles of a lower number are void."""
        self.tokens: weakref.WeakSet[Forked] = weakref.WeakSet()
        """Who has locks of its own to forget after a fork."""
        self._users = 0
        self._foreign = False
        self._forget_locks()
        self._renewable_at = time.monotonic()
        self.raw = PyKCS11.PyKCS11Lib()
        """PyKCS11's own object, for calls within `inside`."""
        try:
            self.raw.load(str(path))
        except PyKCS11.PyKCS11Error:
            raise TokenRefused(f"PKCS#11 library {path} did not load; name the vendor's library") from None
        self._sign_init, self._sign = _signing_functions(path)

    def _forget_locks(self) -> None:
        self._turn = threading.Condition()
        self._inside = 0
        self._closed = False

    @classmethod
    def take(cls, path: Path) -> Library:
        """The library at a path, loaded by the first who takes it. Raises TokenRefused: it did not load."""
        with cls._registry:
            if not cls._watching:
                os.register_at_fork(
                    before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child
                )
                cls._watching = True
            found = cls._present.get(path)
            if found is None:
                found = cls._present[path] = cls(path)
            found._users += 1
            return found

    def release(self) -> None:
        """Give it back; the last one finalises it, when no thread is inside any more."""
        with self._registry:
            self._users -= 1
            if self._users:
                return
            del self._present[self.path]
        if self._close(WAIT_SECONDS):
            self.raw.unload()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Be inside the library: `number` does not change meanwhile. Raises TokenLost: no turn within WAIT_SECONDS."""
        with self._turn:
            if not self._turn.wait_for(lambda: not self._closed, WAIT_SECONDS):
                raise TokenLost(f"{self.path} was busy for {WAIT_SECONDS} seconds")
            if self._foreign:
                self._foreign = False
                self._initialise()
            self._inside += 1
        try:
            yield
        finally:
            with self._turn:
                self._inside -= 1
                if not self._inside:
                    self._turn.notify_all()

    def renew(self, seen: int) -> bool:
        """C_Finalize and C_Initialize: a token that went away comes back to a fresh library only.

        Args:
            seen: `number` when the loss was noticed; if it is another one by now, nothing is left to do.

        Returns:
            Whether it is newer than that; False if it was renewed too short a time ago.

        Raises:
            TokenLost: a thread does not come out of the library, or the library does not initialise.
        """
        if not self._close(WAIT_SECONDS):
            raise TokenLost(f"a call in {self.path} does not end")
        try:
            if self.number != seen:
                return True
            now = time.monotonic()
            if now < self._renewable_at:
                return False
            self._renewable_at = now + RENEW_PAUSE_SECONDS
            self._initialise()
            return True
        finally:
            self._open()

    def sign(self, session: Any, key: Any, data: bytes, mechanism: int) -> bytes:
        """C_SignInit and C_Sign, without Python's lock.

        Args:
            session: PyKCS11's, within `inside`.
            key: PyKCS11's handle.
            data: what is signed.
            mechanism: CKM_... without parameters.

        Raises:
            PyKCS11Error: what the token says.
        """
        number = session.session.value()
        answer = self._sign_init(number, ctypes.byref(_Mechanism(mechanism, None, 0)), key.value())
        if answer != PyKCS11.CKR_OK:
            raise PyKCS11.PyKCS11Error(answer)
        size = _ULONG(_MAX_SIGNATURE_BYTES)
        buffer = ctypes.create_string_buffer(_MAX_SIGNATURE_BYTES)
        answer = self._sign(number, data, len(data), buffer, ctypes.byref(size))
        if answer != PyKCS11.CKR_OK:
            raise PyKCS11.PyKCS11Error(answer)
        return buffer.raw[: size.value]

    def _initialise(self) -> None:
        """Only while nobody is inside."""
        self.number += 1
        self.raw.lib.C_Finalize()  # whatever it says: it may be uninitialised, which is just as well
        answer = self.raw.lib.C_Initialize()
        if answer not in (PyKCS11.CKR_OK, PyKCS11.CKR_CRYPTOKI_ALREADY_INITIALIZED):
            raise TokenLost(f"{self.path} does not initialise: {PyKCS11.PyKCS11Error(answer)}")

    def _close(self, seconds: int) -> bool:
        """Let nobody in, and wait until all are out. False: they are not, and it is open again."""
        deadline = time.monotonic() + seconds
        with self._turn:
            if not self._turn.wait_for(lambda: not self._closed, seconds):
                return False
            self._closed = True
            if self._turn.wait_for(lambda: not self._inside, max(deadline - time.monotonic(), 0)):
                return True
            self._closed = False
            self._turn.notify_all()
            return False

    def _open(self) -> None:
        with self._turn:
            self._closed = False
            self._turn.notify_all()

    def forked(self) -> None:
        """In the child: no lock, session or handle of the parent is used."""
        self._forget_locks()
        self._foreign = True
        for token in list(self.tokens):
            token.forked()


def _signing_functions(path: Path) -> tuple[Callable[..., int], Callable[..., int]]:
    """C_SignInit and C_Sign of a library that is loaded already."""
    pointer = ctypes.POINTER(_FunctionList)()
    answer: int = ctypes.CDLL(str(path)).C_GetFunctionList(ctypes.byref(pointer))
    if answer != PyKCS11.CKR_OK:
        raise TokenRefused(f"PKCS#11 library {path} names no functions")
    functions = pointer.contents.functions
    return _SIGN_INIT(functions[_SIGN_INIT_PLACE]), _SIGN(functions[_SIGN_INIT_PLACE + 1])


_held: list[Library] = []


def _before_fork() -> None:
    # A thread inside would leave the library's own locks held for ever in the child.
    _held.extend(library for library in list(Library._present.values()) if library._close(FORK_WAIT_SECONDS))


def _after_fork() -> None:
    while _held:
        _held.pop()._open()


def _in_child() -> None:
    _held.clear()
    Library._registry = threading.Lock()
    for library in Library._present.values():
        library.forked()
