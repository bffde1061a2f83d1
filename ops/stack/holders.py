"""The five holders of a trial's cold vaults: each has a folder that stands for a machine which is never online.

Their keys are made by the offline signer's own code, in a process of its own. What keeps a trial from being cold: all
folders, and the passphrases beside them, are on this one machine.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chains.btc.network import NETWORKS
from ops.devnet.errors import StartFailed
from ops.devnet.files import kept_password
from ops.stack.keys import private_directory
from signers.airgap.entropy import DICE_NEEDED, FACES, check_dice, entropy_of
from signers.airgap.keyfile import About, seal
from signers.airgap.keys import HolderKey
from signers.airgap.records import KeyRecord, read_record, record_of
from signers.airgap.secret import Secret
from signers.airgap.store import Home, write_whole

HOLDERS: Final = (
    ("ines", "board"),
    ("jonas", "notary"),
    ("kira", "treasury"),
    ("liam", "security"),
    ("mona", "audit"),
)
"""Who they are, and whose."""


@dataclass(frozen=True, slots=True)
class Holder:
    """One of the five."""

    name: str
    organisation: str
    folder: Path
    """Stands for the holder's machine."""

    @property
    def home(self) -> Path:
        """What `strongroom-airgap --home` names."""
        return self.folder / "home"

    @property
    def record_path(self) -> Path:
        """The public record of the key."""
        return self.folder / f"{self.name}.record.json"

    def passphrase(self) -> str:
        """Of the key; made once, and kept beside it as only a trial does."""
        return kept_password(self.folder / "passphrase")


def holders_of(directory: Path) -> tuple[Holder, ...]:
    """The five, below an installation's directory."""
    return tuple(
        Holder(name, organisation, private_directory(directory / "holders" / name))
        for name, organisation in HOLDERS
    )


def make_holders(directory: Path) -> list[KeyRecord]:
    """Make the holders' keys, or find them; returns their records.

    Raises:
        StartFailed: the offline signer's code refused.
    """
    holders = holders_of(directory)
    if not all(holder.record_path.exists() for holder in holders):
        # Their keys are never in the process that runs everything else.
        done = subprocess.run(
            [sys.executable, "-m", "ops.stack.holders", str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise StartFailed("the holders' keys", f"it ended with {done.returncode}", done.stderr)
    return [read_record(holder.record_path.read_bytes()) for holder in holders]


def _make(holder: Holder) -> None:
    """What `strongroom-airgap key create` and `key record` do, with dice that the machine rolls."""
    if holder.record_path.exists():
        return
    network = NETWORKS["regtest"]
    # A key whose record was not written any more has never been told to anybody.
    (holder.home / f"{holder.name}.key").unlink(missing_ok=True)
    with entropy_of(_dice(), os.urandom) as entropy, HolderKey(entropy, network) as key:
        about = About(
            name=holder.name,
            organisation=holder.organisation,
            network="regtest",
            made_at=int(time.time()),
            fingerprint=key.fingerprint.hex(),
            evm_address=key.evm_address,
        )
        with Secret(holder.passphrase().encode()) as passphrase:
            Home(holder.home).add(holder.name, seal(entropy, about, passphrase))
        write_whole(holder.record_path, record_of(about, key).encode())


def _dice() -> str:
    while True:
        rolls = "".join(secrets.choice(FACES) for _ in range(DICE_NEEDED))
        try:
            check_dice(rolls)
        except ValueError:
            continue
        return rolls


if __name__ == "__main__":
    for each in holders_of(Path(sys.argv[1])):
        _make(each)
