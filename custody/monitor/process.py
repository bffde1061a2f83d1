"""The process `strongroom monitor`: settings, one thread per chain, and the two operator's commands."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import msgspec
import structlog

from chains.btc.block import WatchedOutpoints
from chains.btc.network import NETWORKS
from chains.btc.node import BitcoinNode, BlockAnnouncements
from chains.errors import InvalidValue, StrongroomError
from custody.config import Process, Settings, load
from custody.deposits.screening import ListScreening, NoScreening, Screening
from custody.deposits.service import quarantine
from custody.errors import Conflict
from custody.monitor.lead import Chain, lead, lock_name
from custody.monitor.monitor import Options
from custody.monitor.rescan import rescan
from custody.storage.db import Database
from policies.bundle import Bundle, TrustRoot, read_bundle

_log = structlog.get_logger("monitor")


class BundleFile:
    """The bundle in force, read again when its file changes; an older or untrusted one is not taken over.

    Args:
        path: of the signed bundle.
        root: the pinned quorum.

    Raises:
        UntrustedBundle, InvalidValue: the first one is not to be believed.
    """

    def __init__(self, path: Path, root: TrustRoot) -> None:
        self._path, self._root = path, root
        self._stamp = self._stat()
        self._bundle = self._read()

    def __call__(self) -> Bundle:
        """The bundle in force."""
        try:
            if (stamp := self._stat()) != self._stamp:
                self._stamp = stamp
                fresh = self._read()
                if fresh.version > self._bundle.version:
                    self._bundle = fresh
                    _log.info("new bundle", version=fresh.version)
        except (OSError, StrongroomError) as error:
            _log.error("the bundle's file is not taken over", error=str(error))
        return self._bundle

    def _stat(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size

    def _read(self) -> Bundle:
        return read_bundle(self._path.read_bytes(), self._root, now=int(time.time()))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the monitor until SIGTERM or SIGINT, or carry out one operator's command.

    Args:
        argv: arguments; None: this process's own.

    Returns:
        Exit code: 0 after a stop or a finished command, 1 if it could not be done.
    """
    arguments = _parser().parse_args(argv)
    try:
        settings = load(Process.MONITOR)
        root = msgspec.json.decode(settings.trust_root_path.read_bytes(), type=TrustRoot)
        bundle = BundleFile(settings.bundle_path, root)
        with Database(settings.database_url.reveal(), application="strongroom monitor") as db:
            if arguments.quarantine is not None:
                with db.transaction() as tx:
                    quarantine(tx, arguments.quarantine, arguments.reason)
            elif arguments.rescan_from is not None:
                _rescan(db, settings, bundle(), arguments)
            else:
                _run(db, settings, bundle, arguments.start_height)
    except (StrongroomError, OSError, msgspec.MsgspecError) as error:
        print(f"strongroom monitor: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="strongroom monitor",
        description="Follow the chains and credit deposits; STRONGROOM_CONFIG says how.",
    )
    parser.add_argument(
        "--start-height",
        type=int,
        help="where the very first start begins (default: the node's tip; 0 on regtest)",
    )
    parser.add_argument(
        "--rescan-from", type=int, metavar="HEIGHT", help="add what is missing since then, and end"
    )
    parser.add_argument("--chain", help="the chain to rescan, if there are several")
    parser.add_argument("--quarantine", type=UUID, metavar="DEPOSIT", help="keep a held deposit out for good")
    parser.add_argument("--reason", default="", help="why, for --quarantine")
    return parser


def _run(db: Database, settings: Settings, bundle: Callable[[], Bundle], start_height: int | None) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []

    def follow(chain_id: str) -> None:
        try:
            with ExitStack() as stack:
                lead(db, _chain(stack, settings, bundle, chain_id, start_height, stop), stop)
        except BaseException as error:  # noqa: BLE001 - one chain's bug must end the process, not only its thread
            _log.exception("the monitor of a chain failed", chain=chain_id)
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=follow, args=(name,), name=name) for name in sorted(settings.nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # in slices: a signal is handled between them
    if failures:
        raise failures[0]


def _chain(
    stack: ExitStack,
    settings: Settings,
    bundle: Callable[[], Bundle],
    chain_id: str,
    start_height: int | None,
    stop: threading.Event,
) -> Chain:
    network = bundle().network(chain_id)
    if start_height is None and network.network == "regtest":
        start_height = 0
    wait: Callable[[float], object] = stop.wait
    if settings.nodes[chain_id].zmq_url:
        wait = stack.enter_context(BlockAnnouncements(settings.nodes[chain_id].zmq_url)).wait
    return Chain(
        adapter=_node(settings, bundle(), chain_id),
        bundle=bundle,
        screening=_screening(settings),
        wait=wait,
        options=Options(start_height=start_height),
        resource_set=WatchedOutpoints,
    )


def _node(settings: Settings, bundle: Bundle, chain_id: str) -> BitcoinNode:
    node = settings.nodes[chain_id]
    network = NETWORKS[bundle.network(chain_id).network]
    return BitcoinNode(chain_id, network, node.rpc_url.reveal(), node.rest_url)


def _screening(settings: Settings) -> Screening:
    return NoScreening() if settings.screening_path is None else ListScreening(settings.screening_path)


def _rescan(db: Database, settings: Settings, bundle: Bundle, arguments: argparse.Namespace) -> None:
    chain_id: str = arguments.chain or (next(iter(settings.nodes)) if len(settings.nodes) == 1 else "")
    if chain_id not in settings.nodes:
        raise InvalidValue(f"--chain: write one of {', '.join(sorted(settings.nodes))}")
    with db.session() as session:
        if not session.try_lock(lock_name(chain_id)):
            raise Conflict(f"a monitor of {chain_id} is running: stop it first, start it again afterwards")
        added = rescan(
            _node(settings, bundle, chain_id),
            session,
            bundle,
            _screening(settings),
            arguments.rescan_from,
            progress=lambda height: print(f"read again down to block {height}", file=sys.stderr),
        )
    print(
        f"added {added.blocks} blocks, {added.receipts} receipts, {added.consumptions} consumptions, "
        f"{added.deposits} deposits"
    )
