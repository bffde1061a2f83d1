"""The signer daemon: `python -m signers.daemon --config FILE`.

Making a signer (set-up, once; `SOFTHSM2_CONF` or the vendor's settings in the environment):

    from signers.setup import NewBitcoinKeyset, NewEvmKeyset, initialise, make_keys
    records = make_keys(module_path, label, pin_callback, directory,
                        [NewBitcoinKeyset("btc-hot", "regtest"), NewEvmKeyset("eth-hot", chain_id=1)])
    # -> [BitcoinKeysetRecord(id, network, account, origin, attestation_key),
    #     EvmKeysetRecord(id, chain_id, address, attestation_key)]: copy these fields into the bundle's
    #    BitcoinKeyset(id=..., chain=..., tier="hot", account=..., origin=..., attestation_key=...) and
    #    EvmKeyset(id=..., chain=..., tier="hot", address=..., attestation_key=..., and the contracts of its chain)
    initialise(directory, mark_directory, trust_root)

The configuration (TOML; every field is checked at start):

    environment = "production"                      # or "trial", where keys may be in files
    directory = "/var/lib/strongroom/signer"        # journal.sqlite, pinned.json, KEYSET.{seed,key}.json
    mark_directory = "/var/lib/strongroom-mark"     # journal.mark; another directory, in production another user's
    bundle_path = "/etc/strongroom/bundle.json"     # the signed bundle; re-read when it changes, and on SIGHUP
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
    # max_connections = 64

It prints `strongroom signer: ready on ADDRESS` when it takes calls, ends with 0 on SIGTERM or SIGINT, and with
1 and a sentence on standard error when it must not run.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Final

from chains.errors import StrongroomError
from signers.calls import Desk, handlers
from signers.clock import SteadyClock
from signers.config import SignerConfig, read_config
from signers.hardening import harden_process
from signers.journal import Journal
from signers.mark import MarkFile
from signers.opening import open_keys
from signers.rates import Gate
from signers.selfcheck import check_libraries
from signers.server import Server
from signers.service import SignerService
from signers.trust import PinnedBundle

REFRESH_SECONDS: Final = 1.0
"""How often the bundle's file is looked at."""
SWITCH_SECONDS: Final = 0.001
"""How long a thread may keep the interpreter. The journal's writer gives it up at every statement, and with Python's
5 ms it would wait that long each time for threads that check signatures; measured: a third more payments a second."""

_log = logging.getLogger("strongroom.signer")


def run(config: SignerConfig) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        StrongroomError: it must not start; the message says why and what to do.
    """
    harden_process()
    sys.setswitchinterval(SWITCH_SECONDS)
    check_libraries()
    opened = open_keys(config, _log.warning)
    journal = Journal.open(config.journal_path, MarkFile.open(config.mark_path))
    clock = SteadyClock(journal.write(lambda book: book.latest))
    trust = PinnedBundle(Path(config.bundle_path), config.pinned_path, journal, clock)
    service = SignerService(opened.wallets, trust, journal, clock)
    server = Server(Desk(handlers(service), Gate(config.listen.rates)), config.listen)

    wake, ending = threading.Event(), threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()
        wake.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGHUP, lambda _signal, _frame: wake.set())
    threading.Thread(target=server.serve, daemon=True).start()
    print(f"strongroom signer: ready on {server.address}", flush=True)
    while not ending.is_set():
        wake.wait(REFRESH_SECONDS)
        wake.clear()
        if journal.failure is not None:
            print(
                f"strongroom signer: stops, as the journal failed: {journal.failure}",
                file=sys.stderr,
                flush=True,
            )
            return 1
        trust.refresh(_log.warning)
    server.close()
    journal.close()
    opened.close()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="strongroom signer", description="The signer of one or more key-sets."
    )
    parser.add_argument("--config", type=Path, required=True, help="TOML file, see signers/README.md")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return run(read_config(options.config))
    except StrongroomError as error:
        print(f"strongroom signer: {error}", file=sys.stderr, flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
