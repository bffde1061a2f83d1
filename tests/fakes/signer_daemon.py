"""The signer daemon as a process of its own, with its directories; tests start, kill, restore and misconfigure it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ops.devnet.process import wait_until
from ops.devnet.softhsm import SoftHsmToken
from policies.bundle import SignedBundle, TrustRoot
from signers.client import SignerClient, UnixAddress
from signers.keys.keyset import BitcoinKeysetRecord
from signers.ports import SignRequest
from signers.setup import NewBitcoinKeyset, initialise, make_keys
from tests.fakes.signing import Draft, World


class SignerDaemon:
    """One daemon.

    Args:
        token: with the keys.
        keysets: their names.
        files: directory with the files that making them has left; they are copied.
        root: the quorum to pin.
        bundle: the signed bundle of a version.
        directory: for everything of this daemon.
    """

    def __init__(
        self,
        token: SoftHsmToken,
        keysets: Sequence[str],
        files: Path,
        root: TrustRoot,
        bundle: Callable[[int], SignedBundle],
        directory: Path,
    ) -> None:
        self.token, self.keysets, self.directory, self._bundle = token, keysets, directory, bundle
        self.stores, self.marks = directory / "signer", directory / "mark"
        initialise(self.stores, self.marks, root)
        for path in files.glob("*.json"):
            shutil.copy(path, self.stores)
        self.settings = {
            "more": "",
            "pin": f'pin_file = "{token.pin_path}"',
            "listen": f'unix = "{directory}/s.sock"',
        }
        self.environment, self.config_mode = "trial", 0o644
        self.command = [sys.executable, "-m", "signers.daemon"]
        self.code: Path | None = None
        """Directory that it starts in, and so from which it takes its code; None: this one."""
        self.publish(1)
        self.process: subprocess.Popen[str] | None = None
        self.log = directory / "log"
        self.client = SignerClient(UnixAddress(directory / "s.sock"), timeout_s=20)

    def listen_in(self, directory: Path) -> None:
        """Has it make its socket in another directory."""
        self.settings["listen"] = f'unix = "{directory}/s.sock"'
        self.client.close()
        self.client = SignerClient(UnixAddress(directory / "s.sock"), timeout_s=20)

    def publish(self, version: int) -> None:
        (self.directory / "bundle.json").write_bytes(self._bundle(version).encode())

    def run(self, *, pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[str]:
        config = self.directory / "signer.toml"
        keys = "".join(f'[keys.{name}]\nuri = "{self._uri(name)}"\n' for name in self.keysets)
        config.write_text(
            f'environment = "{self.environment}"\ndirectory = "{self.stores}"\nmark_directory = "{self.marks}"\n'
            f'bundle_path = "{self.directory}/bundle.json"\n{self.settings["more"]}\n'
            f'[tokens.main]\nmodule = "{self.token.module_path}"\nlabel = "{self.token.label}"\n'
            f"{self.settings['pin']}\n{keys}"
            f"[listen]\n{self.settings['listen']}\n"
        )
        config.chmod(self.config_mode)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(config)],
                env={**os.environ, **self.token.env},
                cwd=self.code,
                stdout=log,
                stderr=log,
                text=True,
                pass_fds=pass_fds,
            )
        return self.process

    def belongs_to(self, user: str, mark_user: str) -> None:
        """Gives its files, and its own copy of the token, to two users; root starts it, and it becomes them."""
        self.with_a_token_of_its_own()
        self.settings["pin"] = f'pin_file = "{self.token.pin_path}"'
        self.settings["more"] = f'user = "{user}"\nmark_user = "{mark_user}"'
        run = self.directory / "run"
        run.mkdir()
        for place, owner in (
            (self.stores, user),
            (self.token.directory, user),
            (run, user),
            (self.marks, mark_user),
        ):
            entry = pwd.getpwnam(owner)
            for path in (place, *place.rglob("*")):
                os.chown(path, entry.pw_uid, entry.pw_gid)
        self.listen_in(run)

    def _uri(self, keyset: str) -> str:
        """A sealed seed where its set-up has left one, else a key in the token."""
        scheme = "sealed" if (self.stores / f"{keyset}.seed.json").exists() else "pkcs11"
        return f"{scheme}:token=main"

    def start(self, *, pass_fds: tuple[int, ...] = ()) -> None:
        seen = self.printed().count("ready on")
        process = self.run(pass_fds=pass_fds)
        wait_until(
            lambda: self.printed().count("ready on") > seen or process.poll() is not None,
            timeout=60,
            what="the signer to be ready",
        )
        assert process.poll() is None, self.printed()

    def printed(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def refuses_to_start(self) -> str:
        """Starts it, expects it to end with 1, and returns what it said."""
        before = len(self.printed())
        assert self.run().wait(60) == 1
        return self.printed()[before:]

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(30)

    def close(self) -> None:
        """Ends it, however it is."""
        self.client.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def with_a_token_of_its_own(self) -> Path:
        """Gives it a copy of the token, which a test may take away; returns the directory of the copy."""
        copy = self.directory / "token"
        shutil.copytree(self.token.directory, copy)
        conf = (copy / "softhsm2.conf").read_text().replace(str(self.token.directory), str(copy))
        (copy / "softhsm2.conf").write_text(conf)
        self.token = SoftHsmToken(copy, self.token.label)
        return copy


KEYSET = "daemon-test"


def make_daemon_keys(token: SoftHsmToken, directory: Path) -> BitcoinKeysetRecord:
    """Makes the key-set `KEYSET` in a token; its sealed seed is in `directory`."""
    new = NewBitcoinKeyset(KEYSET, "regtest")
    (record,) = make_keys(token.module_path, token.label, token.user_pin, directory, [new])
    assert isinstance(record, BitcoinKeysetRecord)
    return record


class BitcoinDaemon(SignerDaemon):
    """One daemon with a BTC key-set.

    Args:
        token: with the keys.
        record: their public half.
        seeds: the directory with their files.
        directory: for everything of this daemon.
    """

    def __init__(
        self, token: SoftHsmToken, record: BitcoinKeysetRecord, seeds: Path, directory: Path
    ) -> None:
        self.world = World(record, now=int(time.time()))
        super().__init__(token, [record.id], seeds, self.world.root, self.signed_bundle, directory)

    def signed_bundle(self, version: int) -> SignedBundle:
        return self.world.signed(self.world.bundle(version))

    def request(self, units: int = 1_000_000, coins: int = 1, **changes: object) -> SignRequest:
        world = self.world
        draft = Draft([world.coin(index=n) for n in range(coins)], [world.order(units, fee_ceiling="100000")])
        for name, value in changes.items():
            setattr(draft, name, value)
        return world.request(draft)
