"""A SoftHSM token of its own: its configuration, its store and its PINs in one directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from ops.devnet.errors import StartFailed
from ops.devnet.files import kept_pin
from ops.devnet.tools import softhsm_module

_MAX_LABEL_BYTES = 32


class SoftHsmToken:
    """One initialised token. SoftHSM is a library: nothing runs, and a copy of the directory is a backup."""

    def __init__(self, directory: Path, label: str) -> None:
        """Prepares a token in `directory`, which is made if missing; `create` initialises it.

        Args:
            directory: holds configuration, store and PINs; made private (0700).
            label: at most 32 bytes, as PKCS#11 has it.

        Raises:
            ValueError: the label is empty or too long.
        """
        if not 0 < len(label.encode()) <= _MAX_LABEL_BYTES:
            raise ValueError(f"a token label has 1 to {_MAX_LABEL_BYTES} bytes, not {len(label.encode())}")
        self.directory = directory.absolute()
        self.label = label
        self.module_path = softhsm_module()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def __repr__(self) -> str:
        return f"SoftHsmToken({self.label!r})"

    @property
    def config_path(self) -> Path:
        """The file that SOFTHSM2_CONF names."""
        return self.directory / "softhsm2.conf"

    @property
    def env(self) -> dict[str, str]:
        """What a process that loads the module must have in its environment before it calls C_Initialize."""
        return {"SOFTHSM2_CONF": str(self.config_path)}

    @property
    def pin_path(self) -> Path:
        """The file (0600) with the user PIN, for a daemon's configuration."""
        return self.directory / "user.pin"

    def user_pin(self) -> str:
        """Returns the user PIN; pass this method on as the callback, not its result."""
        return kept_pin(self.pin_path)

    def create(self) -> None:
        """Writes the configuration and initialises the token with random PINs. Again changes nothing.

        Raises:
            StartFailed: the library refused.
        """
        store = self.directory / "tokens"
        if any(store.glob("*/token.object")):
            return
        store.mkdir(exist_ok=True, mode=0o700)
        self.config_path.write_text(
            f"directories.tokendir = {store}\nobjectstore.backend = file\nlog.level = ERROR\n"
            # Without it a forked child crashes on its parent's sessions; with it, it must log in again.
            "library.reset_on_fork = true\n"
        )
        order = {
            "module": str(self.module_path),
            "label": self.label,
            "so_pin": kept_pin(self.directory / "so.pin"),
            "user_pin": self.user_pin(),
        }
        # In a process of its own, for a process can load one configuration only; PINs on its standard input,
        # for arguments can be read by anyone on the machine.
        done = subprocess.run(
            [sys.executable, "-m", "ops.devnet.softhsm"],
            input=json.dumps(order),
            env={**os.environ, **self.env},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartFailed(f"token {self.label!r}", f"it ended with {done.returncode}", done.stderr)


def _initialise(order: dict[str, str]) -> None:
    import PyKCS11

    library = PyKCS11.PyKCS11Lib()
    library.load(order["module"])
    slot = library.getSlotList(tokenPresent=True)[-1]
    library.initToken(slot, order["so_pin"], order["label"])
    # SoftHSM gives an initialised token a new slot number.
    slot = next(s for s in library.getSlotList(tokenPresent=True) if _label(library, s) == order["label"])
    session = library.openSession(slot, PyKCS11.CKF_SERIAL_SESSION | PyKCS11.CKF_RW_SESSION)
    session.login(order["so_pin"], PyKCS11.CKU_SO)
    session.initPin(order["user_pin"])
    session.logout()
    session.closeSession()


def _label(library: object, slot: int) -> str:
    return str(library.getTokenInfo(slot).label).rstrip("\0 ")  # type: ignore[attr-defined]


if __name__ == "__main__":
    _initialise(json.load(sys.stdin))
