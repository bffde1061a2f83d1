"""What is left of a house: two chains with its money on them, the recovery kit, and people with backups."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ops.devnet.anvil import Anvil, Automine
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle
from tests.support.airgap import Quorum
from tests.support.drill import Computer, make_programs
from tests.support.leaving import Backups, Tokens, house_bundle

ADDRESSES = 40


@dataclass
class Left:
    """What is left."""

    root: Path
    programs: Path
    kit: Path
    bundle: Bundle
    backups: Backups
    bitcoind: Bitcoind
    anvil: Anvil
    tokens: Tokens
    computers: list[Computer] = field(default_factory=list)

    def computer(self, name: str, settings: str | None = None) -> Computer:
        """One that is never online, or as `settings` of Bitcoin Core say."""
        made = Computer(self.root / f"computer-{len(self.computers)}", name, self.programs)
        self.computers.append(made)
        made.bring(self.kit)
        made.configure(settings)
        return made

    def online(self) -> Computer:
        """One beside a node that is in sync."""
        user, _, rest = self.bitcoind.rpc_url.removeprefix("http://").partition(":")
        return self.computer(
            "online",
            f"[regtest]\nrpcport={self.bitcoind.rpc_port}\nrpcuser={user}\nrpcpassword={rest.partition('@')[0]}\n",
        )

    def secret_of(self, name: str, computer: Computer) -> str:
        """64 hex digits that a ceremony's shares give."""
        said = computer.follow("join shares", self.backups.shares(name))
        return said.strip().splitlines()[-1].split()[-1]

    def wallet(self, name: str) -> Any:
        """A wallet as the kit has it."""
        kit = msgspec.json.decode((self.kit / "kit.json").read_bytes())
        (found,) = (each for each in (*kit["bitcoin"], *kit["ethereum"]) if each["wallet"] == name)
        return found


def run_kit(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`strongroom recovery kit` with the bundle and root of a folder."""
    command = [sys.executable, "-m", "ops.cli", "recovery", "kit", "--bundle", str(folder / "bundle.json")]
    command += ["--trust-root", str(folder / "root.json"), "--out", str(folder / "kit")]
    command += ["--addresses", str(ADDRESSES), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def sign_into(folder: Path, bundle: Bundle) -> None:
    """The files that `strongroom recovery kit` is made of."""
    quorum = Quorum()
    (folder / "bundle.json").write_bytes(quorum.signed(bundle))
    (folder / "root.json").write_bytes(msgspec.json.encode(quorum.root))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Anvil, Backups, Bundle, Tokens]]:
    """Ceremonies, contracts and the kit; then Strongroom is gone."""
    root = tmp_path_factory.mktemp("left")
    backups = Backups.make(root / "ceremonies")
    with Anvil(root / "anvil") as node:
        bundle, tokens = house_bundle(backups, node)
        node.set_automine(Automine.ON)
        sign_into(root, bundle)
        done = run_kit(root)
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        print((root / "kit" / "README.txt").read_text())
        make_programs(root / "programs")
        yield root, node, backups, bundle, tokens
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def left(house: tuple[Path, Anvil, Backups, Bundle, Tokens], bitcoind: Bitcoind) -> Iterator[Left]:
    root, node, backups, bundle, tokens = house
    found = Left(root, root / "programs", root / "kit", bundle, backups, bitcoind, node, tokens)
    bitcoind.wallet("funds").fund()
    yield found
    for computer in found.computers:
        computer.close()
