"""The verifier's process: `strongroom verifier --config FILE`, or with `--once` an audit of everybody and an end.

It prints `strongroom verifier: ready on ADDRESS` when it takes calls, ends with 0 on SIGTERM or SIGINT, and with 1 and
a sentence when it must not run. With `--once` it prints what it found, a line each, and ends with 1 if there is any
finding, else with 2 if something could not be told now, or it must not run at all.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from chains.errors import StrongroomError
from policies.canonical import decoder_for
from signers.ports import Nothing, VerdictRequest
from signers.process.calls import LIST_BYTES, SMALL_BYTES, Desk, Handler
from signers.process.hardening import harden_process
from signers.process.rates import Gate
from signers.process.server import Server
from signers.verifier.config import VerifierConfig, read_config
from signers.verifier.logs import wall_clock
from signers.verifier.parts import Verifier
from signers.verifier.ports import AuditRequest
from signers.wire import CallName

HEARTBEAT_FILE: Final = "heartbeat.json"
_LOOK_SECONDS: Final = 1

_log = logging.getLogger("strongroom.verifier")


class _Ending(Exception):
    """The process ends: whatever goes on, goes on no longer."""


def run(config: VerifierConfig) -> int:
    """Serve until a signal ends it; returns the exit code.

    Raises:
        StrongroomError: it must not start; the message says why and what to do.
    """
    harden_process()
    verifier = Verifier.open(config)
    server = Server(Desk(_handlers(verifier), Gate(config.listen.rates)), config.listen)
    ending, failed = threading.Event(), threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        ending.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    loops = [
        *(_following(verifier, chain, config.poll_seconds, ending) for chain in verifier.followers),
        _attending(verifier, config.poll_seconds, ending),
        _auditing(verifier, config.round_seconds, ending),
    ]
    guarded = [_guarded(loop, ending, failed) for loop in loops]
    threads = [threading.Thread(target=loop, daemon=True) for loop in (*guarded, server.serve)]
    for thread in threads:
        thread.start()
    print(f"strongroom verifier: ready on {server.address}", flush=True)
    while not ending.wait(_LOOK_SECONDS):
        verifier.bundles.refresh(_log.warning)
        _beat(Path(config.directory) / HEARTBEAT_FILE, verifier)
    server.close()
    # Whatever a thread was at is in no half-written state: the file takes whole changes only.
    verifier.close()
    return 1 if failed.is_set() else 0


def audit_once(config: VerifierConfig, tell: Callable[[str], None]) -> int:
    """Follow the chains, attend to the signers, audit everybody; returns the exit code.

    Raises:
        StrongroomError: it must not start, or the database does not answer.
    """
    verifier = Verifier.open(config)
    try:
        for chain in verifier.followers:
            while verifier.follow(chain):
                pass
        for signer in verifier.signers:
            verifier.attend(signer)
        # What was signed before this verifier knew of it may have to be sought in older blocks.
        for chain in verifier.followers:
            while verifier.follow(chain):
                pass
        for signer in verifier.signers:
            verifier.attend(signer)
        found = verifier.auditor.everything()
        for each in (*found.findings, *found.unknowns):
            tell(str(each))
        tell(f"{len(found.findings)} findings, {len(found.unknowns)} not known now")
        return 1 if found.findings else 2 if found.unknowns else 0
    finally:
        verifier.close()


def _handlers(verifier: Verifier) -> dict[CallName, Handler]:
    for kind in (VerdictRequest, AuditRequest, Nothing):
        decoder_for(kind)
    return {
        "verdict": Handler(VerdictRequest, verifier.verdicts.verdict, LIST_BYTES),
        "audit": Handler(AuditRequest, verifier.audit, LIST_BYTES),
        "status": Handler(Nothing, lambda _: verifier.status(), SMALL_BYTES),
        "metrics": Handler(Nothing, lambda _: verifier.metrics(), SMALL_BYTES),
    }


def _following(verifier: Verifier, chain: str, pause: int, ending: threading.Event) -> Callable[[], None]:
    def loop() -> None:
        while not ending.is_set():
            if not verifier.follow(chain):
                ending.wait(pause)

    return loop


def _attending(verifier: Verifier, pause: int, ending: threading.Event) -> Callable[[], None]:
    def loop() -> None:
        while not ending.is_set():
            for signer in verifier.signers:
                verifier.attend(signer)
            ending.wait(pause)

    return loop


def _auditing(verifier: Verifier, pause: int, ending: threading.Event) -> Callable[[], None]:
    def between() -> None:
        if ending.is_set():
            raise _Ending

    def loop() -> None:
        while not ending.is_set():
            verifier.audit_round(between)
            ending.wait(pause)

    return loop


def _guarded(
    loop: Callable[[], None], ending: threading.Event, failed: threading.Event
) -> Callable[[], None]:
    def guarded() -> None:
        try:
            loop()
        except _Ending:
            return
        except Exception:  # noqa: BLE001 - whatever it was, the process must not go on without this part
            if ending.is_set():
                return  # the state was closed under it
            # A bug. A verifier that only seems to run would be worse than none.
            _log.exception("a part of the verifier ended unexpectedly; the process ends")
            failed.set()
            ending.set()

    return guarded


def _beat(path: Path, verifier: Verifier) -> None:
    status = verifier.status()
    beat = {
        "at": wall_clock(),
        "findings": status.standing,
        "round_at": status.round_at,
        "chains": {chain.chain: chain.height for chain in status.chains},
    }
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_text(json.dumps(beat))
        temporary.replace(path)
    except OSError as error:
        _log.error("%s: %s", path, error.strerror)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="strongroom verifier",
        description="Examines ledgers on own nodes; says what became of signatures.",
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="TOML file, see signers/verifier/README.md"
    )
    parser.add_argument("--once", action="store_true", help="audit everybody, print what was found, and end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        config = read_config(options.config)
        return audit_once(config, print) if options.once else run(config)
    except StrongroomError as error:
        print(f"strongroom verifier: {error}", file=sys.stderr, flush=True)
        return 2 if options.once else 1


if __name__ == "__main__":
    sys.exit(main())
