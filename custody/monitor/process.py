"""The process `strongroom monitor`: settings, one thread per chain, and a command for the operator."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import structlog

from chains.btc.block import WatchedOutpoints
from chains.btc.node import BlockAnnouncements
from chains.errors import InvalidValue, StrongroomError
from custody.config import Process, load
from custody.errors import Conflict, InvalidConfiguration
from custody.logs import log_to_stderr
from custody.monitor.lead import Chain, lead, lock_name
from custody.monitor.monitor import Options
from custody.monitor.rescan import rescan
from custody.monitor.watch import ResourceSet, watched_nonces
from custody.wiring import Services, wire
from policies.bundle import BitcoinNetwork, Bundle, EvmNetwork

_log = structlog.get_logger("monitor")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the monitor until SIGTERM or SIGINT, or carry out one operator's command.

    Args:
        argv: arguments; None: this process's own.

    Returns:
        Exit code: 0 after a stop or a finished command, 1 if it could not be done, 2 for wrong input or settings,
        3 if what it needs is away.
    """
    arguments = _parser().parse_args(argv)
    log_to_stderr()
    try:
        with wire(load(Process.MONITOR)) as services:
            if arguments.rescan_from is not None:
                _rescan(services, arguments)
            else:
                _run(services, arguments.start_height)
    except StrongroomError as error:
        print(f"strongroom monitor: {error}", file=sys.stderr)
        if isinstance(error, InvalidConfiguration | InvalidValue):
            return 2
        return 3 if error.transient else 1
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
    return parser


def _run(services: Services, start_height: int | None) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    failures: list[BaseException] = []

    def follow(chain_id: str) -> None:
        try:
            with ExitStack() as stack:
                lead(services.database, _chain(stack, services, chain_id, start_height, stop), stop)
        except BaseException as error:  # noqa: BLE001 - one chain's bug must end the process, not only its thread
            _log.exception("the monitor of a chain failed", chain=chain_id)
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=follow, args=(name,), name=name) for name in sorted(services.nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)  # in slices: a signal is handled between them
    if failures:
        raise failures[0]


def _chain(
    stack: ExitStack, services: Services, chain_id: str, start_height: int | None, stop: threading.Event
) -> Chain:
    network = services.bundle().network(chain_id)
    if start_height is None and isinstance(network, BitcoinNetwork) and network.network == "regtest":
        start_height = 0
    wait: Callable[[float], object] = stop.wait
    zmq_url = services.settings.nodes[chain_id].zmq_url
    if zmq_url:
        wait = stack.enter_context(BlockAnnouncements(zmq_url)).wait
    return Chain(
        adapter=services.node(chain_id),
        bundle=services.bundle,
        screening=services.screening,
        wait=wait,
        options=Options(start_height=start_height),
        resource_set=_resource_set(services.bundle, chain_id),
    )


def _resource_set(bundle: Callable[[], Bundle], chain_id: str) -> Callable[[], ResourceSet]:
    """What makes the set of resources that a chain's adapter scans fastest."""
    if isinstance(bundle().network(chain_id), EvmNetwork):
        return lambda: watched_nonces(bundle(), chain_id)
    return WatchedOutpoints


def _rescan(services: Services, arguments: argparse.Namespace) -> None:
    chain_id: str = arguments.chain or (next(iter(services.nodes)) if len(services.nodes) == 1 else "")
    if chain_id not in services.nodes:
        raise InvalidValue(f"--chain: write one of {', '.join(sorted(services.nodes))}")
    with services.database.session() as session:
        if not session.try_lock(lock_name(chain_id)):
            raise Conflict(f"a monitor of {chain_id} is running: stop it first, start it again afterwards")
        added = rescan(
            services.node(chain_id),
            session,
            services.bundle(),
            services.screening,
            arguments.rescan_from,
            resource_set=_resource_set(services.bundle, chain_id),
            progress=lambda height: print(f"read again down to block {height}", file=sys.stderr),
        )
    print(
        f"added {added.blocks} blocks, {added.receipts} receipts, {added.consumptions} consumptions, "
        f"{added.deposits} deposits"
    )
