"""A till whose signer, workers and beat are processes of their own: the daemon on SoftHSM, Celery on
Redis."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis

from ops.devnet.bitcoind import Bitcoind
from ops.devnet.process import ManagedProcess
from ops.devnet.redis import RedisServer
from ops.devnet.softhsm import SoftHsmToken
from ops.stack.config import to_toml
from ops.stack.keyset import make_signer, mark_directory, signer_directory
from policies.bundle import TrustRoot
from policies.keys import SigningKey
from signers.client import SignerClient, UnixAddress
from signers.keyset import BitcoinKeysetRecord
from signers.ports import Signer, SignerUnavailable
from tests.fakes.api import as_role
from tests.fakes.rpc_proxy import RpcProxy
from tests.fakes.signing import CHAIN, KEYSET, World
from tests.fakes.till import Till


class Plant(Till):
    """See `Till`; `worker` and `beat` are started by the test.

    Args:
        proxy: between the worker and the node.
        sockets: a directory with a short path.
    """

    def __init__(
        self,
        dsn: str,
        node: Bitcoind,
        directory: Path,
        token: SoftHsmToken,
        redis_server: RedisServer,
        proxy: RpcProxy,
        sockets: Path,
    ) -> None:
        self.token, self.redis_server, self.proxy = token, redis_server, proxy
        self.socket = sockets / "signer.sock"
        self.redis = redis.Redis.from_url(redis_server.url)
        self.redis.flushall()
        super().__init__(dsn, node, directory)
        self.worker = self.process("worker", "1")
        self.beat = self.process("beat", "")

    def _make_world(self) -> World:
        officers = {name: SigningKey.generate() for name in ("olga", "felix", "sanna")}
        root = TrustRoot(
            threshold=2,
            keys={name: key.public_hex for name, key in officers.items()},
            organisations={name: f"org-{name}" for name in officers},
            minimum_version=1,
        )
        [record] = make_signer(self.directory, self.token, root)
        assert isinstance(record, BitcoinKeysetRecord)
        return World(record, now=int(time.time()), officers=officers)

    def _make_signer(self) -> Signer:
        self.bundle_path = self.directory / "bundle.json"
        self.bundle_path.write_bytes(self.world.signed(self.bundle).encode())
        self.root_path = self.directory / "root.json"
        self.root_path.write_bytes(msgspec.json.encode(self.world.root))
        config = self.directory / "signer.toml"
        config.write_text(
            to_toml(
                {
                    "directory": str(signer_directory(self.directory)),
                    "mark_directory": str(mark_directory(self.directory)),
                    "bundle_path": str(self.bundle_path),
                    "keysets": [KEYSET],
                    "token": {
                        "module": str(self.token.module_path),
                        "label": self.token.label,
                        "pin_file": str(self.token.pin_path),
                    },
                    "listen": {"unix": str(self.socket)},
                }
            )
        )
        self.daemon = ManagedProcess(
            "signer",
            [sys.executable, "-m", "signers.daemon", "--config", config],
            log_path=self.directory / "signer.log",
            env={**os.environ, **self.token.env},
        )
        self._stack.callback(self.daemon.stop)
        self.daemon.start()
        client = SignerClient(UnixAddress(self.socket), timeout_s=10)
        self._stack.callback(client.close)

        def answers() -> bool:
            try:
                client.status()
            except SignerUnavailable:
                return False
            return True

        self.daemon.wait_ready(answers)
        return client

    def process(self, kind: str, suffix: str) -> ManagedProcess:
        """A worker or the beat, as it runs in production, not started yet."""
        node = {"rpc_url": self.proxy.rpc_url, "rest_url": self.proxy.rest_url}
        settings = {
            "DATABASE_URL": as_role(self.dsn, "strongroom_worker"),
            "REDIS_URL": self.redis_server.url,
            "BUNDLE_PATH": str(self.bundle_path),
            "TRUST_ROOT_PATH": str(self.root_path),
            "NODES": msgspec.json.encode({CHAIN: node}).decode(),
            "GATHER_SECONDS": "0",
            "SIGNERS": msgspec.json.encode({KEYSET: {"socket": str(self.socket)}}).decode(),
        }
        process = ManagedProcess(
            f"{kind}{suffix}",
            [sys.executable, "-m", "custody.workers", kind],
            log_path=self.directory / f"{kind}{suffix}.log",
            env={
                **os.environ,
                "BCL_DATA_DIR": str(self.directory / "bitcoinlib"),
                **{f"STRONGROOM_{name}": value for name, value in settings.items()},
            },
        )
        self._stack.callback(process.kill)
        return process

    def close(self) -> None:
        self.proxy.release()
        self.redis.close()
        super().close()


@contextmanager
def open_plant(*arguments: Any) -> Iterator[Plant]:
    """A plant that is closed in the end, and checked before."""
    plant = Plant(*arguments)
    try:
        yield plant
        plant.worker.kill()
        plant.beat.kill()
        plant.proxy.release()
        plant.catch_up()
        plant.track()
        plant.check()
    finally:
        plant.close()
