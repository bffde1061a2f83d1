"""`strongroom reconcile`: compare, print a table or JSON, and say by the exit code whether all is well."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

import msgspec

from chains.errors import StrongroomError
from custody.config import Process, Settings, load
from custody.nodes import open_node
from custody.officers.service import present
from custody.reconcile.model import Report, Statement
from custody.reconcile.service import reconcile
from custody.reconcile.trading import TradingCore, open_core
from custody.storage.db import Database
from policies.bundle import TrustRoot, read_bundle
from policies.democlock import DemoClock


def main(argv: Sequence[str] | None = None) -> int:
    """Reconcile once.

    Args:
        argv: arguments; None: this process's own.

    Returns:
        0: everything agrees; 1: there is a difference; 2: a chain could not be compared.
    """
    parser = argparse.ArgumentParser(
        prog="strongroom reconcile", description="Compare ledger, records and chain, to the base unit."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args(argv)
    try:
        report = _report(load(Process.RECONCILE))
    except (StrongroomError, OSError, msgspec.MsgspecError) as error:
        print(f"strongroom reconcile: {error}", file=sys.stderr)
        if arguments.json:
            print(json.dumps({"ok": False, "error": str(error)}))
        return 2
    if arguments.json:
        print(json.dumps(report.to_object(), indent=2))
    else:
        print(render(report))
    if not report.ok:
        return 1
    return 2 if report.absent else 0


def _report(settings: Settings) -> Report:
    root = msgspec.json.decode(settings.trust_root_path.read_bytes(), type=TrustRoot)
    with Database(settings.database_url.reveal(), application="strongroom-reconcile", pool_size=2) as db:
        with db.snapshot() as tx:
            known = present(tx, root)
        bundle = known or read_bundle(settings.bundle_path.read_bytes(), root, now=int(time.time()))
        nodes = {chain: open_node(lambda: bundle, chain, entry) for chain, entry in settings.nodes.items()}
        return reconcile(db, bundle, nodes, _core(settings))


def _core(settings: Settings) -> TradingCore | None:
    if settings.trading is None:
        return None
    demo = settings.demo_clock_path
    return open_core(settings.trading, time.time if demo is None else DemoClock(demo))


def render(report: Report) -> str:
    """The identity of each wallet line by line, then the rules, as plain text."""
    lines: list[str] = []
    for statement in report.statements:
        key = statement.key
        lines.append(f"{key.asset} in {key.wallet} at block {report.tips[key.chain].height} of {key.chain}")
        lines += [f"  {label:<44}{key.told(units):>34}" for label, units in _terms(statement)]
        lines.append("")
    for check in report.checks:
        lines.append(f"{'ok  ' if check.ok else 'FAIL'} {check.number}. {check.title}")
        lines += [f"       {difference}" for difference in check.differences]
    lines += [f"waiting, and no alert says so: {each.detail}" for each in report.waiting]
    lines += [f"LOOK: {each.detail}" for each in report.diverted]
    lines += [f"not compared: {chain}: {why}" for chain, why in report.absent.items()]
    lines.append("No difference." if report.ok else "THERE ARE DIFFERENCES.")
    return "\n".join(lines)


def _terms(statement: Statement) -> list[tuple[str, int]]:
    """The identity; terms that are zero most of the time are left out when they are."""
    moving = [
        *((f"+ mined deposits in no balance: {state}", n) for state, n in statement.uncredited.items()),
        ("- mined, not settled", statement.mined_not_settled_units),
        ("+ settled, no longer mined", statement.settled_not_mined_units),
        ("- spent by strangers, not booked as lost", statement.lost_not_booked_units),
        ("+ booked as lost or found, no longer so", statement.booked_not_lost_units),
    ]
    rest = [
        ("= what there must be", statement.expected_units),
        ("what blocks have brought and taken", statement.coins_units),
        ("difference", statement.difference_units),
        ("what the node has", statement.node_units),
    ]
    pending = [("of it not in any block, booked when final", statement.pending_units)]
    return [
        ("what the ledger says we own", statement.ledger_units),
        *((label, n) for label, n in moving if n),
        *rest,
        *((label, n) for label, n in pending if n),
    ]
