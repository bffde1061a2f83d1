"""A SoftHSM store that belongs to one test: it may take tokens away, and bring them back."""

from __future__ import annotations

import os
import select
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import PyKCS11

from ops.devnet.softhsm import SoftHsmToken
from signers.hsm.cryptoki import Library
from signers.hsm.pkcs11 import Token


class OwnToken:
    """Tokens in a store of their own, for this very process.

    Args:
        directory: of its own.
    """

    def __init__(self, directory: Path) -> None:
        self.soft = SoftHsmToken(directory, "own")
        self.soft.create()
        self._away = directory / "away"
        self._away.mkdir(exist_ok=True)
        self._folders = {"own": self._folder(set())}

    @property
    def _store(self) -> Path:
        return self.soft.directory / "tokens"

    def _folder(self, known: set[str]) -> str:
        (new,) = {path.name for path in self._store.iterdir()} - known
        return new

    def another(self, label: str) -> SoftHsmToken:
        """A second token in the same store, so in the same library."""
        made = SoftHsmToken(self.soft.directory.with_name(f"{self.soft.directory.name}-{label}"), label)
        made.create()
        (folder,) = (made.directory / "tokens").iterdir()
        folder.rename(self._store / folder.name)
        self._folders[label] = folder.name
        return made

    def take_away(self, label: str = "own") -> None:
        """As if it was pulled out."""
        folder = self._folders[label]
        (self._store / folder).rename(self._away / folder)

    def bring_back(self, label: str = "own") -> None:
        """As it was."""
        folder = self._folders[label]
        (self._away / folder).rename(self._store / folder)

    def destroy(self, kind: int, name: str) -> None:
        """A key of a class (CKO_...) and name is no more."""
        self._destroy([(PyKCS11.CKA_CLASS, kind), (PyKCS11.CKA_LABEL, name)])

    def forget_keys(self) -> None:
        """All that is in the token is no more."""
        self._destroy([])

    def _destroy(self, wanted: list[tuple[int, object]]) -> None:
        token = Token(self.soft.module_path, self.soft.label, self.soft.user_pin)
        try:
            token.call(lambda session: [session.destroyObject(key) for key in session.findObjects(wanted)])
        finally:
            token.close()


def in_child(work: Callable[[], bytes], seconds: int = 60) -> bytes:
    """What `work` returns in a child that was forked from this very process; its failure is ours."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = b"+" + work()
        except BaseException:  # noqa: BLE001  the parent raises it
            answer = b"-" + traceback.format_exc().encode()
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    try:
        answer = os.read(reading, 65536) if select.select([reading], [], [], seconds)[0] else b"-it hangs"
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert answer[:1] == b"+", answer[1:].decode()
    return answer[1:]


@contextmanager
def own_store(directory: Path) -> Iterator[OwnToken]:
    """A token whose configuration this process uses from now on, as long as it has no other token open."""
    token = OwnToken(directory)
    assert not Library._present, "a token of another test is still open, and with it its configuration"
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ.update(token.soft.env)
    try:
        yield token
        assert not Library._present, "this test has left a token open"
    finally:
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
