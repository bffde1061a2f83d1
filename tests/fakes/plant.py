"""A till whose signer, workers and beat are processes of their own: the daemon on SoftHSM, Celery on
Redis."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
import redis

from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.process import ManagedProcess
from ops.devnet.redis import RedisServer
from ops.devnet.softhsm import SoftHsmToken
from ops.stack.config import key_section, to_toml, token_section
from ops.stack.keyset import make_signer, mark_directory, signer_directory
from ops.stack.networks import TrialNetwork
from signers.client import SignerClient, UnixAddress
from signers.keys.keyset import BitcoinKeysetRecord, EvmKeysetRecord, KeysetRecord
from signers.ports import Signer, SignerUnavailable
from tests.fakes.api import as_role
from tests.fakes.evm_signing import EVM_CHAIN, EVM_KEYSET
from tests.fakes.evm_till import EvmTill, TillOutside
from tests.fakes.rpc_proxy import RpcProxy, rpc_proxy
from tests.fakes.signing import House, World
from tests.fakes.teller import Teller
from tests.fakes.till import Till


@dataclass(frozen=True, slots=True)
class Parts:
    """What a plant needs beside a database and a chain.

    Args:
        token: for the signer's keys.
        redis_server: the broker.
        proxy: between the worker and the node.
        sockets: a directory with a short path.
    """

    token: SoftHsmToken
    redis_server: RedisServer
    proxy: RpcProxy
    sockets: Path


class Processes(Teller):
    """The processes of a plant; `worker` and `beat` are started by the test."""

    def _equip(self, directory: Path, parts: Parts) -> None:
        """Before all else: the signer's files need it."""
        self.directory = directory
        self.token, self.redis_server, self.proxy = parts.token, parts.redis_server, parts.proxy
        self.socket = parts.sockets / "signer.sock"
        self.redis = redis.Redis.from_url(parts.redis_server.url)
        self.redis.flushall()

    def _make_keys(self, house: House, networks: tuple[TrialNetwork, ...] = ()) -> list[KeysetRecord]:
        return make_signer(self.directory, self.token, house.root, networks)

    def _node_settings(self) -> dict[str, str]:
        return {"rpc_url": self.proxy.rpc_url}

    def _prepare(self) -> None:
        self.worker = self.process("worker", "1")
        self.beat = self.process("beat", "")

    def _make_signer(self) -> Signer:
        self.bundle_path = self.directory / "bundle.json"
        self.bundle_path.write_bytes(self.house.signed(self.bundle).encode())
        self.root_path = self.directory / "root.json"
        self.root_path.write_bytes(msgspec.json.encode(self.house.root))
        config = self.directory / "signer.toml"
        config.write_text(
            to_toml(
                {
                    "environment": "trial",
                    "directory": str(signer_directory(self.directory)),
                    "mark_directory": str(mark_directory(self.directory)),
                    "bundle_path": str(self.bundle_path),
                    "tokens": {"main": token_section(self.token)},
                    "keys": {self.site.wallet.id: key_section(self.bundle.keyset(self.site.wallet.id))},
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
        settings = {
            "DATABASE_URL": as_role(self.dsn, "strongroom_worker"),
            "REDIS_URL": self.redis_server.url,
            "BUNDLE_PATH": str(self.bundle_path),
            "TRUST_ROOT_PATH": str(self.root_path),
            "NODES": msgspec.json.encode({self.chain: self._node_settings()}).decode(),
            "GATHER_SECONDS": "0",
            "SCREENING": '{"elsewhere": "tests"}',
            "SIGNERS": msgspec.json.encode({self.site.wallet.id: {"socket": str(self.socket)}}).decode(),
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


class Plant(Processes, Till):
    """See `Till`."""

    def __init__(self, dsn: str, node: Bitcoind, directory: Path, parts: Parts) -> None:
        self._equip(directory, parts)
        super().__init__(dsn, node, directory)
        self._prepare()

    def _make_world(self) -> World:
        house = House()
        [record] = self._make_keys(house)
        assert isinstance(record, BitcoinKeysetRecord)
        return World(record=record, now=int(time.time()), officers=house.officers)

    def _node_settings(self) -> dict[str, str]:
        return {"rpc_url": self.proxy.rpc_url, "rest_url": self.proxy.rest_url}


class EvmPlant(Processes, EvmTill):
    """See `EvmTill`: the key is in the token."""

    def __init__(self, dsn: str, outside: TillOutside, directory: Path, parts: Parts) -> None:
        self._equip(directory, parts)
        super().__init__(dsn, outside, directory)
        self._prepare()

    def _make_record(self, house: House) -> EvmKeysetRecord:
        network = TrialNetwork(EVM_CHAIN, self.anvil.chain_id, "ETH", EVM_KEYSET, "trace")
        _, record = self._make_keys(house, (network,))
        assert isinstance(record, EvmKeysetRecord)
        return record


P = TypeVar("P", bound=Processes)


@contextmanager
def running(plant: P) -> Iterator[P]:
    """A plant that is closed in the end, and checked before."""
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


@contextmanager
def plant_parts(node: Bitcoind | Anvil, directory: Path, redis_server: RedisServer) -> Iterator[Parts]:
    """A token of its own, a proxy before the node, and a place for sockets."""
    token = SoftHsmToken(directory / "token", "payments")
    token.create()
    with rpc_proxy(node) as proxy, tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        yield Parts(token, redis_server, proxy, Path(sockets))
