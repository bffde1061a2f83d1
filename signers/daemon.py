"""The signer daemon: `python -m signers.daemon --config FILE`.

Making a signer (once; `SOFTHSM2_CONF` or the vendor's settings in the environment). In production its keys come from
`strongroom key ceremony`, their entries for the bundle from `strongroom key ceremony entry`. For a trial:

    from signers.setup import NewBitcoinKeyset, NewEvmKeyset, initialise, make_keys
    records = make_keys(module_path, label, pin_callback, directory,
                        [NewBitcoinKeyset("btc-hot", "regtest"), NewEvmKeyset("eth-hot", chain_id=1)])
    # -> [BitcoinKeysetRecord(id, network, script, account, origin, attestation_key),
    #     EvmKeysetRecord(id, chain_id, address, attestation_key)]: copy these fields into the bundle's
    #    BitcoinKeyset and EvmKeyset, beside chain and tier, and the contracts of an EVM chain

Either way then, with the users of the configuration:

    initialise(directory, mark_directory, trust_root, user="strongroom-signer", mark_user="strongroom-mark")

The configuration (TOML; every field is checked at start):

    environment = "production"                      # or "trial", where keys may be in files
    directory = "/var/lib/strongroom/signer"        # journal.sqlite, pinned.json, KEYSET.{seed,key}.json, log.jsonl
    mark_directory = "/var/lib/strongroom-mark"     # journal.mark; another directory, in production another user's
    bundle_path = "/etc/strongroom/bundle.json"     # where signed bundles may lie; looked at each second, and on SIGHUP
    user = "strongroom-signer"                      # whom it becomes; in production it starts as root, and both are
    mark_user = "strongroom-mark"                   # needed: the second keeps the mark
    # log_directory = "/var/log/strongroom"         # for log.jsonl, if elsewhere
    # outgoing = "none"                             # or "token": the token's library may use the network
    [tokens.main]                                   # any number of tokens, also of one library
    module = "/usr/lib/softhsm/libsofthsm2.so"
    label = "strongroom"
    pin_file = "/etc/strongroom/signer.pin"         # 0600; or pin_fd = 3
    [keys.btc-hot]                                  # for each key-set or vault: where its keys are
    uri = "sealed:token=main"                       # see keyref.py
    [keys.eth-hot]
    uri = "pkcs11:token=main"
    [listen]
    unix = "/run/strongroom/signer.sock"            # or: host, port, certificate, private_key, clients = [PEM files]
    # max_connections = 64                          # of each client
    # [listen.rates.sign]                           # of each client and call; defaults in rates.py
    # per_second = 200
    # burst = 1000

It prints `strongroom signer: ready on ADDRESS` when it takes calls, ends with 0 on SIGTERM or SIGINT, and with
1 and a sentence on standard error when it must not run.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Final

from chains.errors import StrongroomError
from signers.config import SignerConfig, read_config
from signers.errors import BadConfiguration, SignerStopped
from signers.journal.journal import Journal
from signers.journal.keeper import MarkClient, start_keeper
from signers.keys.opening import Opened, open_keys
from signers.keytest.selfcheck import check_libraries
from signers.process.calls import Desk, handlers
from signers.process.gauges import standing
from signers.process.hardening import (
    become,
    bound_memory,
    forbid_outgoing,
    harden_process,
    lock_memory,
    seal_system_calls,
)
from signers.process.log import LogWriter
from signers.process.metrics import Family, Instruments, Labels, Measured, gauge, serving
from signers.process.owners import check_configuration, check_files
from signers.process.rates import Gate
from signers.process.server import Server
from signers.process.tls import ends
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.desk import JournalDesk
from signers.trust.sealing import JournalSealing
from signers.trust.timekeeping import Timekeeper, TrialWall, last_note
from signers.trust.trust import PinnedBundle
from signers.trust.witness import JournalWitness

REFRESH_SECONDS: Final = 1.0
"""How often the bundle's file is looked at, the time noted, and the log written."""
LAST_WORDS_SECONDS: Final = 10
"""How long the log's last entries may take at the end; what is missing then is written at the next start."""
SWITCH_SECONDS: Final = 0.0002
"""How long a thread may keep the interpreter while others want it. Who has verified a signature outside of it waits so
long to go on: with Python's 5 ms, or 1 ms, the other processor would have nothing to do meanwhile."""
GARBAGE_OBJECTS: Final = 10_000
"""New objects before Python looks for cycles among them, of which requests leave few: a twentieth less work a signature
than with its 700."""

_log = logging.getLogger("strongroom.signer")


class Notes(list[str]):
    """What makes this signer weaker than it should be: logged once, and in its status ever after."""

    def add(self, text: str) -> None:
        """Note something, unless it is noted already or there is nothing to note."""
        if text and text not in self:
            _log.warning("%s", text)
            self.append(text)


def run(config: SignerConfig) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        StrongroomError: it must not start; the message says why and what to do.
    """
    bound_memory()
    notes = Notes()
    # Also loads all that signing needs, while this process can read it: later it is another user.
    check_libraries()
    keeper = give_up_privileges(config, notes)
    check_files(config)
    sys.setswitchinterval(SWITCH_SECONDS)
    opened = open_keys(config, notes.add)
    journal = Journal.open(config.journal_path, keeper)
    signer = Running(config, opened, journal, notes)
    _enclose(config, notes)
    # What is there now stays as long as the process, and needs no looking through.
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)
    code = signer.serve()
    journal.close()
    opened.close()
    return code


def give_up_privileges(config: SignerConfig, notes: Notes) -> MarkClient:
    """Start the mark's keeper, then become the configured user and harden the process.

    Raises:
        BadConfiguration: there is no such user, or in production none but root or the keeper's.
        SignerStopped: the keeper did not start, or the kernel refused.
    """
    keeper = start_keeper(config.mark_path, config.mark_user)
    unlocked = lock_memory()
    if config.user is not None:
        become(config.user)
    # Becoming somebody else makes a process dumpable again, so this comes after.
    harden_process()
    notes.add(unlocked)
    weaknesses = {
        "it runs as root: write user in its configuration": os.geteuid() == 0,
        "its mark is kept by its own user: write mark_user in its configuration": (
            keeper.user in (os.geteuid(), 0)
        ),
    }
    for weakness, is_so in weaknesses.items():
        if is_so and config.environment == "production":
            raise BadConfiguration(f"not in production: {weakness}, and start it as root")
        notes.add(weakness if is_so else "")
    return keeper


def _enclose(config: SignerConfig, notes: Notes) -> None:
    """No way out from now on. Raises SignerStopped: the kernel can't see to it, and this is production."""
    forbid_outgoing()
    unsealed = seal_system_calls(config.outgoing)
    if unsealed and config.environment == "production":
        raise SignerStopped(unsealed)
    notes.add(unsealed)
    if config.outgoing != "none":
        notes.add("the token's library may connect anywhere (outgoing)")


class Running:
    """A signer whose keys and journal are open. Its listener takes connections; nobody answers before `serve`.

    Args:
        config: checked.
        opened: the keys.
        journal: open.
        notes: in its status.

    Raises:
        StrongroomError: it must not start.
    """

    def __init__(self, config: SignerConfig, opened: Opened, journal: Journal, notes: Notes) -> None:
        self._journal, self._notes = journal, notes
        instruments = Instruments()
        journal.time_commits(instruments.commits.observe)
        wall = time.time if config.demo_clock is None else TrialWall(Path(config.demo_clock))
        clock = SteadyClock(*last_note(journal), wall=wall)
        self._trust = PinnedBundle(Path(config.bundle_path), config.pinned_path, journal, clock)
        self._trust.refresh(_log.warning)
        if isinstance(wall, TrialWall):
            wall.watch(self._trust)
        self._timekeeper = Timekeeper(clock, journal)
        parts = (self._trust, journal, clock)
        service = SignerService(opened.wallets, *parts)
        measured = Measured(service, instruments, notes)
        witness = JournalWitness(opened.wallets, *parts)
        try:
            self._writer = LogWriter(config.log_path, journal, witness)
        except OSError as error:
            raise BadConfiguration(f"the log {config.log_path}: {error.strerror}") from None
        served = handlers(
            measured,
            announcing=service,
            officers=JournalDesk(*parts, measured.status),
            witness=witness,
            sealing=JournalSealing(opened.wallets, journal, clock),
            metrics=serving(instruments, standing(*parts), self._families),
        )
        self._server = Server(Desk(served, Gate(config.listen.rates), instruments), config.listen)
        own = (config.listen.certificate,) if config.listen.certificate is not None else ()
        self._certificates = ends(Path(path) for path in (*own, *config.listen.clients))
        self._wake, self._ending = threading.Event(), threading.Event()

    def serve(self) -> int:
        """Serve until SIGTERM or SIGINT (0), or until the journal fails (1)."""
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGINT, self._end)
        signal.signal(signal.SIGHUP, lambda _signal, _frame: self._wake.set())
        # A token that hangs must not keep this thread from hearing signals, so heads are signed in another.
        scribe = threading.Thread(target=self._write_log, name="log", daemon=True)
        for thread in (scribe, threading.Thread(target=self._server.serve, name="listener", daemon=True)):
            thread.start()
        print(f"strongroom signer: ready on {self._server.address}", flush=True)
        code = self._watch()
        self._server.close()
        self._ending.set()
        scribe.join(LAST_WORDS_SECONDS)
        return code

    def _watch(self) -> int:
        """Look after bundle, time and journal until the end; returns the exit code."""
        while not self._ending.is_set():
            self._wake.wait(REFRESH_SECONDS)
            self._wake.clear()
            if self._journal.failure is not None:
                print(
                    f"strongroom signer: stops, as the journal failed: {self._journal.failure}",
                    file=sys.stderr,
                    flush=True,
                )
                return 1
            self._do("the bundle's file", lambda: self._trust.refresh(_log.warning))
            self._do("the time", self._timekeeper.tick)
        return 0

    def _write_log(self) -> None:
        while not self._ending.wait(REFRESH_SECONDS):
            self._do("the log", self._writer.tick)
        self._do("the log", self._writer.close)

    def _do(self, what: str, work: Callable[[], None]) -> None:
        """Do something that is done again in a second. Whether the signer still may sign is the journal's to say."""
        try:
            work()
        except (StrongroomError, OSError) as error:
            _log.error("%s: %s: %s", what, type(error).__name__, error)

    def _families(self) -> Iterable[Family]:
        certificates: dict[Labels, int | str] = {
            (("file", name),): end for name, end in self._certificates.items()
        }
        return [
            gauge("certificate_expires_seconds", "When TLS certificates expire, UNIX time.", certificates),
            gauge("connections", "Connections at present.", self._server.places.count()),
            gauge("log_written", "Number of the last entry in the log's file.", self._writer.written),
            gauge(
                "notes",
                "What makes this signer weaker than it should be; its status says it.",
                len(self._notes),
            ),
        ]

    def _end(self, _signal: int, _frame: FrameType | None) -> None:
        self._ending.set()
        self._wake.set()


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="strongroom signer", description="The signer of one or more key-sets."
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file, see signers/README.md")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_config(options.config)
        check_configuration(options.config)
        return run(config)
    except StrongroomError as error:
        print(f"strongroom signer: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
