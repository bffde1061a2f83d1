"""Brings the whole system up in one directory, and takes it down again without leaving anything behind."""

from __future__ import annotations

import enum
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO

import httpx

from custody.console.client import ApiClient
from custody.console.clock import VARIABLE as CLOCK_VARIABLE
from custody.web.client import RestCaller
from ops.devnet.anvil import Anvil
from ops.devnet.bitcoind import Bitcoind
from ops.devnet.errors import DevnetError
from ops.devnet.external import ExternalPostgres, postgres_for
from ops.devnet.files import kept_password, let_pass
from ops.devnet.postgres import Durability
from ops.devnet.process import ManagedProcess, free_port, release_port, wait_until
from ops.devnet.redis import RedisServer
from ops.devnet.softhsm import SoftHsmToken
from ops.stack import config, trust
from ops.stack.clock import answers, confirm_clock
from ops.stack.keys import private_directory
from ops.stack.members import MEMBERS, members_of
from ops.stack.networks import TRIAL_NETWORKS, TrialNetwork
from ops.stack.places import (
    claim,
    refuse_anothers_records,
    refuse_other_database,
    short_directory,
    try_port,
)
from ops.stack.trading import TRADING_AUDIENCE
from policies.bundle import Bundle
from policies.democlock import DemoClock
from signers.client import SignerClient, UnixAddress
from signers.verifier.client import VerifierClient

SIGNERS: Final = ("signer", *(f"signer-{name}" for name, _ in MEMBERS))
"""That of the hot keys, and one of each member of the warm vaults."""
PROCESSES: Final = (*SIGNERS, "verifier", "api", "trading", "monitor", "worker", "beat")
"""The product's own processes, in the order of their start."""
_READY_SECONDS: Final = 90
_RETRIES: Final = 20


class Part(Protocol):
    """Anything of the stack that can be killed and started again."""

    def start(self) -> None:
        """Starts it and returns when it is ready, or at once for a process of ours."""

    def stop(self) -> object:
        """Stops it in good order."""

    def kill(self) -> None:
        """Kills it at once."""


class OwnPort(enum.IntEnum):
    """Which port the API takes when none is named."""

    FREE = 0


class Stack:
    """PostgreSQL, Redis, bitcoind, anvils, SoftHSM and the ten processes of Strongroom, below one directory.

    Starting again in the same directory continues where it was; only ports change.
    """

    def __init__(
        self,
        directory: Path,
        *,
        api_port: int = OwnPort.FREE,
        durability: Durability = Durability.FULL,
        database_url: str | None = None,
        networks: Sequence[TrialNetwork] = TRIAL_NETWORKS,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares the stack; `up` starts it.

        Args:
            directory: made if missing (0711); entered by PostgreSQL's user, so open to pass through.
            api_port: port of the API on 127.0.0.1; 0 takes a free one.
            durability: of the embedded PostgreSQL.
            database_url: a database that somebody else runs, in its place; its user may create roles and tables.
            networks: the EVM networks, each with a node of its own; the same as at the first start.
            tell: is told what happens, a line at a time.
        """
        self.directory = directory.absolute()
        self.directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        let_pass(self.directory)
        self.tell = tell
        self._own_port = api_port == OwnPort.FREE
        self.api_port = free_port() if self._own_port else api_port
        self.trading_port = free_port()
        self.trades = bool(networks)
        """Whether there is a trading core: where bitcoin is all there is, nothing can be exchanged for it."""
        self.postgres = postgres_for(self.directory / "postgres", database_url, durability)
        self.redis = RedisServer(self.directory / "redis")
        self.node = Bitcoind(self.directory / "bitcoind")
        # The newest block but one is finalised: people who try things should not mine for long.
        self.chains = {
            network: Anvil(
                self.directory / network.chain,
                chain_id=network.chain_id,
                slots_in_an_epoch=1,
                save_every_seconds=1,
            )
            for network in networks
        }
        self.token = SoftHsmToken(self.directory / "softhsm", "strongroom-hot")
        self._run = short_directory(self.directory)
        self.signer_socket = self._run / "signer.sock"
        self.members = members_of(self.directory, self._run)
        self.verifier_socket = self._run / "verifier.sock"
        self.processes: dict[str, ManagedProcess] = {}
        self._killed: set[str] = set()
        self._passwords: dict[str, str] = {}
        self._trust: trust.Trust | None = None
        self._lock: TextIO | None = None

    # ---------------------------------------------------------------------------------------------- life

    def up(self) -> None:
        """Starts everything and waits until the service says that it is ready.

        Raises:
            DevnetError: a part did not start; carries the end of its log. Or another stack has the directory or port.
        """
        self._lock = claim(self.directory)
        try:
            if not self._own_port:
                try_port(self.api_port)
            self._start()
        except BaseException:
            self._release()
            raise

    def _start(self) -> None:
        started = time.monotonic()
        refuse_other_database(self.directory, type(self.postgres).__name__)
        quorum = trust.quorum_of(self.directory)
        places = trust.KeyPlaces(self.directory, self.token, self.members)
        root = quorum.trust_root(minimum_version=1)
        # Keys need no server: they are made in processes of their own while those start.
        with ThreadPoolExecutor(1) as beside:
            making = beside.submit(trust.make_keys, places, root, list(self.chains))
            for name, part in (("PostgreSQL", self.postgres), ("Redis", self.redis), ("bitcoind", self.node)):
                self.tell(f"starting {name}")
                part.start()
            for network, anvil in self.chains.items():
                self.tell(f"starting anvil as {network.chain}")
                anvil.start()
            self.tell(
                "keys: hot ones and those of three members in HSM tokens, those of five holders in files"
            )
            keys = making.result()
        self.tell(
            "the bundle that is there, and its contracts on the chains"
            if (self.directory / "bundle.json").exists()
            else "the set-up: officers, Safes and other contracts on the chains, bundle"
        )
        self._trust = trust.prepare(self.directory, keys, self.chains)
        self.tell("the database: schema and roles")
        self._passwords = self._migrate()
        files = config.write(self, self._trust, self._passwords)
        self.processes = {
            name: ManagedProcess(
                name,
                argv,
                log_path=self.directory / "logs" / f"{name}.log",
                env=self._environment(name, files),
                cwd=self.directory,
            )
            for name, argv in config.commands(files).items()
            if name in self.names
        }
        private_directory(self.directory / "logs")
        for name in self.names:
            self.tell(f"starting {name}")
            self.processes[name].start()
        self.await_ready()
        # Whoever goes on with an old trial has nobody else to ask.
        self._confirm_clocks()
        self.tell(f"ready after {time.monotonic() - started:.1f} s: {self.api_url}")

    def down(self) -> None:
        """Stops our processes, then the parts they need. The data stay. Again changes nothing."""
        with ThreadPoolExecutor(len(PROCESSES)) as together:
            list(together.map(lambda process: process.stop(timeout=10), self.processes.values()))
            servers = (self.node, *self.chains.values(), self.redis, self.postgres)
            list(together.map(lambda part: part.close(), servers))
        release_port(self.trading_port)
        if self._own_port:
            release_port(self.api_port)
        if self._run.parent != self.directory:
            shutil.rmtree(self._run, ignore_errors=True)
        self._release()

    def remove(self) -> None:
        """Stops everything and deletes the directory, and what lies outside of it for PostgreSQL's sake."""
        self.down()
        self.postgres.remove()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        """Starts everything; takes it down again when that fails."""
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops everything; the data stay."""
        self.down()

    # --------------------------------------------------------------------------------------------- parts

    def part(self, name: str) -> Part:
        """A part by name: `postgres`, `redis`, `bitcoind`, an EVM chain's name, or one of `PROCESSES`.

        Raises:
            DevnetError: there is none of that name.
        """
        parts: dict[str, Part] = {
            "postgres": self.postgres,
            "redis": self.redis,
            "bitcoind": self.node,
            **{network.chain: anvil for network, anvil in self.chains.items()},
            **self.processes,
        }
        if name not in parts:
            raise DevnetError(f"no part {name!r}; there are {', '.join(parts)}")
        return parts[name]

    def kill(self, name: str) -> None:
        """Kills a part with SIGKILL."""
        self._killed.add(name)
        self.part(name).kill()

    def start(self, name: str) -> None:
        """Starts a part that does not run; a signer answers when this returns."""
        self._killed.discard(name)
        self.part(name).start()
        if name in SIGNERS:
            self.processes[name].wait_ready(lambda: answers(self._sockets[name]))

    def restart(self, name: str) -> None:
        """Kills a part and starts it again at once."""
        self.kill(name)
        self.start(name)

    def reconfigure(self) -> None:
        """Takes a new bundle over: rewrites the configuration of our processes and starts them again.

        Raises:
            DevnetError: a process did not come back; carries the end of its log.
        """
        self._trust = trust.prepare(self.directory, self.trust.keys, self.chains)
        config.write(self, self._trust, self._passwords)
        for name in reversed(self.names):
            self.processes[name].stop(timeout=10)
        for name in self.names:
            self.processes[name].start()
        self.await_ready()

    def await_ready(self) -> None:
        """Waits until `/readyz` says that every part is there, and the trading core that it takes orders.

        Raises:
            DevnetError: a process ended meanwhile, or the time was up; says which part is missing.
        """
        last = "no answer"

        def ready() -> bool:
            nonlocal last
            for url in (self.api_url, self.trading_url) if self.trades else (self.api_url,):
                try:
                    answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
                except httpx.HTTPError as error:
                    last = type(error).__name__
                    return False
                last = answer.text
                if answer.status_code != 200:
                    return False
            return True

        try:
            wait_until(ready, timeout=_READY_SECONDS, what="the service", stop_waiting=self._ended)
        except DevnetError as error:
            raise DevnetError(f"{error}\nlast word of the service: {last}") from error

    def _ended(self) -> str | None:
        for name, process in self.processes.items():
            if not process.running and name not in self._killed:
                return f"{name} ended with {process.exit_code}\n{process.log_tail()}"
        return None

    # --------------------------------------------------------------------------------------- for callers

    @property
    def names(self) -> tuple[str, ...]:
        """Our processes, in the order in which they start."""
        return tuple(name for name in PROCESSES if self.trades or name != "trading")

    @property
    def api_url(self) -> str:
        """Address of the REST API."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def trading_url(self) -> str:
        """Address of the trading core."""
        return f"http://127.0.0.1:{self.trading_port}"

    @property
    def clock_file(self) -> Path:
        """By how much the trial's clock is ahead."""
        return config.clock_file(self.directory)

    @property
    def trust(self) -> trust.Trust:
        """Quorum, callers and bundle.

        Raises:
            DevnetError: the stack has not been up yet.
        """
        if self._trust is None:
            raise DevnetError("the stack has not been up yet")
        return self._trust

    @property
    def bundle(self) -> Bundle:
        """The bundle in force."""
        return self.trust.bundle

    def client(self, caller: str) -> ApiClient:
        """A client of the API for one of the callers, `exchange` or `operator`."""
        person = self.trust.callers[caller]
        client = (self.api_url, config.AUDIENCE, person.id, person.key)
        # A part that was killed comes back in its own time, and machines are busy.
        return ApiClient(*client, clock=self.clock, retries=_RETRIES)

    @property
    def clock(self) -> DemoClock:
        """The trial's clock, which a demonstration may set forward."""
        return DemoClock(self.clock_file)

    def trader(self) -> RestCaller:
        """A client of the trading core for the exchange."""
        person = self.trust.callers["exchange"]
        own = (self.trading_url, TRADING_AUDIENCE, person.id, person.key)
        return RestCaller(*own, clock=self.clock, retries=_RETRIES)

    def pass_time(self, seconds: int) -> None:
        """Set the trial's clock forward. Signers take that for a jump, so an officer confirms the time to each."""
        self.clock.set_forward(seconds)
        self._confirm_clocks()

    def verifier(self) -> VerifierClient:
        """A client of the verifier; whoever opens it closes it."""
        return VerifierClient(SignerClient(UnixAddress(self.verifier_socket)))

    def reconcile(self) -> dict[str, Any]:
        """Runs `strongroom reconcile --json` as an operator would, and returns what it printed.

        Raises:
            DevnetError: it printed no JSON; carries what it said.
        """
        done = subprocess.run(
            [sys.executable, "-m", "ops.cli", "reconcile", "--json"],
            env=self._environment("reconcile", config.files(self.directory)),
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise DevnetError(f"strongroom reconcile ended with {done.returncode}: {done.stderr}") from error
        return {"exit_code": done.returncode, **found}

    # --------------------------------------------------------------------------------------------- inner

    @property
    def _sockets(self) -> dict[str, Path]:
        """Of each signer."""
        return {"signer": self.signer_socket, **{each.process: each.socket for each in self.members}}

    def _confirm_clocks(self) -> None:
        officer = self.trust.quorum.officers[0]
        for name, socket_path in self._sockets.items():
            if self.processes[name].running:
                confirm_clock(socket_path, officer, at=int(self.clock()), tell=self.tell)

    def _migrate(self) -> dict[str, str]:
        """Migrates the database; returns the password of each role."""
        from custody.storage.migrate import ROLES, set_role_password, upgrade

        dsn = self.postgres.owner_dsn()
        secrets = private_directory(self.directory / "secrets")
        if isinstance(self.postgres, ExternalPostgres) and not (secrets / f"{ROLES[0]}.password").exists():
            refuse_anothers_records(dsn)
        upgrade(dsn)
        passwords = {role: kept_password(secrets / f"{role}.password") for role in ROLES}
        for role, password in passwords.items():
            set_role_password(dsn, role, password)
        return passwords

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _environment(self, name: str, files: dict[str, Path]) -> dict[str, str]:
        """What a process inherits: little, so that nothing of this shell decides what it does."""
        home = private_directory(self.directory / "home")
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "TZ") if key in os.environ}
        found = {
            **keep,
            "HOME": str(home),
            "BCL_DATA_DIR": str(home / "bitcoinlib"),
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            config.FILE_VARIABLE: str(files[name]),
            CLOCK_VARIABLE: str(self.clock_file),
        }
        tokens = {"signer": self.token, **{each.process: each.token for each in self.members}}
        return found | tokens[name].env if name in tokens else found
