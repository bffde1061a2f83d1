"""Leaving without us (`make drill`): everything is moved out with the recovery kit, the backups and standard tools.

Each test follows README.txt of the kit word by word, on computers that have nothing of ours.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle
from signers.airgap.keys import words_of
from signers.airgap.secret import Secret
from tests.support.airgap import Quorum, cold_bundle, holder_key
from tests.support.drill import Computer, make_programs

HOLDERS = tuple(holder_key(number) for number in range(5))
ADDRESSES = 50


def words(number: int) -> str:
    """What holder `number` has on paper."""
    return " ".join(words_of(Secret(bytes([number + 1]) * 32)))


def write_kit(bundle: Bundle, folder: Path) -> Path:
    """`strongroom recovery kit`, before Strongroom is gone."""
    quorum = Quorum()
    folder.mkdir()
    (folder / "bundle.json").write_bytes(quorum.signed(bundle))
    (folder / "root.json").write_bytes(msgspec.json.encode(quorum.root))
    command = [sys.executable, "-m", "ops.cli", "recovery", "kit", "--bundle", str(folder / "bundle.json")]
    command += ["--trust-root", str(folder / "root.json"), "--out", str(folder / "kit")]
    done = subprocess.run(
        [*command, "--addresses", str(ADDRESSES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return folder / "kit"


@dataclass
class Exit:
    """What is left when we are gone: chains, the kit, and people with backups."""

    root: Path
    programs: Path
    kit: Path
    bitcoind: Bitcoind

    def computer(self, name: str) -> Computer:
        made = Computer(self.root, name, self.programs)
        made.bring(self.kit)
        return made

    def online(self, name: str) -> Computer:
        """One beside a node that is in sync."""
        made = self.computer(name)
        user, _, rest = self.bitcoind.rpc_url.removeprefix("http://").partition(":")
        password = rest.partition("@")[0]
        made.configure(
            f"[regtest]\nrpcport={self.bitcoind.rpc_port}\nrpcuser={user}\nrpcpassword={password}\n"
        )
        return made

    def offline(self, name: str) -> Computer:
        """One whose node has never seen a block."""
        made = self.computer(name)
        made.configure()
        return made


@pytest.fixture(scope="module")
def left(bitcoind: Bitcoind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exit]:
    root = tmp_path_factory.mktemp("drill")
    bundle = cold_bundle(HOLDERS)
    btc = tuple(each for each in bundle.vaults if each.id == "btc-cold")
    bundle = msgspec.structs.replace(bundle, vaults=btc, keysets=(), breakers=(), caps=())
    kit = write_kit(bundle, root / "house")
    yield Exit(root, make_programs(root / "programs"), kit, bitcoind)
    shutil.rmtree(root)


def test_three_of_five_holders_empty_the_cold_bitcoin_vault(left: Exit) -> None:
    funds = left.bitcoind.wallet("funds")
    funds.fund()
    online = left.online("online-cold")
    print((online.kit / "README.txt").read_text())
    online.follow("check kit")
    assert "FAILED" not in online.follow("check kit")
    wallet = "btc-cold"
    from tests.support.airgap import multisig

    for branch, index in ((0, 0), (0, 7), (1, 3), (1, ADDRESSES - 1)):
        funds.send(multisig(HOLDERS, 3).address(branch, index), 100_000_000)
    funds.mine(1)
    said = online.follow(f"find {wallet}")
    assert said.count('"success": true') == 1
    assert '"trusted": 4.00000000' in said
    destination = funds.address()
    online.follow(f"build {wallet}", DESTINATION=destination, FEERATE="10")
    for number in (4, 0, 2):
        holder = left.offline(f"holder-{number}")
        online.carry("*.request.psbt", holder)
        said = holder.follow(f"sign {wallet}", words(number) + "\n", HOLDER=f"holder-{number}")
        assert f"This is the key of holder-{number} (org-{number})." in said
        assert '"success": true' in said
        assert destination in said
        holder.carry(f"{wallet}.signed-*.psbt", online)
        holder.close()
    online.follow(f"send {wallet}")
    funds.mine(1)
    assert (
        '"trusted": 0.00000000'
        in online.run(f"bitcoin-cli -chain=regtest -rpcwallet=watch-{wallet} getbalances").stdout
    )
