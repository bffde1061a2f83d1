"""The holder's folder: each key's file, and what is registered for it, each whole or not at all, for its owner only.

What is registered is public, but must be what the holder once confirmed: a code made with the key (HMAC-SHA256) is
checked before any of it is believed.
"""

from __future__ import annotations

import hmac
import os
import stat
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from chains.errors import InvalidValue
from policies.bundle import TrustRoot
from signers.airgap.errors import Unsafe
from signers.airgap.keyfile import KeyFile, read_keyfile
from signers.airgap.past import Signed
from signers.airgap.registered import Registered
from signers.airgap.secret import Secret

DEFAULT_HOME: Final = "~/.strongroom-airgap"
_OTHERS_MAY: Final = stat.S_IRWXG | stat.S_IRWXO


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is kept beside a key."""

    root: TrustRoot | None = None
    """The quorum that the holder has pinned."""
    registered: Registered = Registered()
    past: tuple[Signed, ...] = ()
    """What was signed with the key here, oldest first."""


class _KeptFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kept: Kept
    code: str


class Home:
    """A folder of keys.

    Args:
        folder: made if it is missing, for its owner only.

    Raises:
        Unsafe: it is open to other users of this machine, or can't be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = folder.stat().st_mode
        except OSError as error:
            raise Unsafe(f"{folder}: {error.strerror}") from None
        if mode & _OTHERS_MAY:
            raise Unsafe(f"{folder} is open to other users of this machine: chmod 700 {folder}")

    def names(self) -> tuple[str, ...]:
        """Of the keys in it."""
        return tuple(sorted(path.stem for path in self.folder.glob("*.key")))

    def only_name(self, wanted: str | None) -> str:
        """The key that is meant: the one named, or the only one there is.

        Raises:
            InvalidValue: there is none, or several and none was named.
        """
        names = self.names()
        if wanted is not None:
            if wanted not in names:
                raise InvalidValue(f"there is no key {wanted!r} in {self.folder}")
            return wanted
        if len(names) != 1:
            told = f"say which key with --key: {', '.join(names)}" if names else "begin with: key create"
            raise InvalidValue(f"{len(names)} keys in {self.folder}: {told}")
        return names[0]

    def add(self, name: str, content: bytes) -> Path:
        """Write a new key's file. Raises InvalidValue: there is one of that name."""
        path = self._key_path(name)
        if path.exists():
            raise InvalidValue(f"there is a key {name!r} already: {path}")
        write_whole(path, content)
        return path

    def keyfile(self, name: str) -> KeyFile:
        """A key's file, not opened yet.

        Raises:
            InvalidValue: malformed.
            Unsafe: it can't be read, or is open to other users.
        """
        path = self._key_path(name)
        try:
            mode, raw = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise Unsafe(f"{path}: {error.strerror}") from None
        if mode & _OTHERS_MAY:
            raise Unsafe(f"{path} is open to other users of this machine: chmod 600 {path}")
        return read_keyfile(raw)

    def kept(self, name: str, entropy: Secret) -> Kept:
        """What is registered for a key; nothing, before the first time.

        Raises:
            Unsafe: it is not what this key's holder confirmed.
        """
        path = self._kept_path(name)
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return Kept()
        except OSError as error:
            raise Unsafe(f"{path}: {error.strerror}") from None
        try:
            file = msgspec.json.decode(raw, type=_KeptFile)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            file = None
        if file is None or not hmac.compare_digest(file.code, _code(file.kept, entropy)):
            raise Unsafe(
                f"{path} is not what you confirmed with this key: somebody changed it. Delete it, register again"
            )
        return file.kept

    def keep(self, name: str, kept: Kept, entropy: Secret) -> None:
        """Keep what is registered for a key, in place of what was."""
        file = _KeptFile(kept=kept, code=_code(kept, entropy))
        write_whole(self._kept_path(name), msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")

    def _key_path(self, name: str) -> Path:
        return self.folder / f"{name}.key"

    def _kept_path(self, name: str) -> Path:
        return self.folder / f"{name}.registered"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file of mode 0600 in place of what was there, so that it is whole or not changed, also after a power cut.

    Raises:
        Unsafe: it can't be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Unsafe(f"{path} can't be written: {error.strerror}") from None


def _code(kept: Kept, entropy: Secret) -> str:
    derived = HKDF(SHA256(), 32, salt=b"strongroom:airgap-registered:v1", info=b"hmac")
    with Secret(derived.derive(entropy.reveal())) as key:
        return hmac.digest(key.reveal(), msgspec.json.encode(kept, order="sorted"), "sha256").hex()
