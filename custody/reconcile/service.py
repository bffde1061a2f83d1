"""Reconciliation on the real parts, chain by chain; and its teeth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from chains.errors import NodeUnavailable, Reorganised
from custody.reconcile import repository, trading
from custody.reconcile.core import bounded, compare
from custody.reconcile.factories import SEVERITY as FACTORY_SEVERITY
from custody.reconcile.factories import factories, flushing, resolve_others
from custody.reconcile.model import Facts, Report, Waiting
from custody.reconcile.safes import differing
from custody.reconcile.trading import TradingCore
from custody.reconcile.variances import book, reverse
from custody.reconcile.wallets import Compared, Node, NotComparable, wallets_of
from custody.storage import halts
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Database
from policies.bundle import Bundle

ALERT: Final = "reconcile.difference"
TRADING: Final = "trading"
"""The trading core among what is absent; no chain is called so."""
UNAVAILABLE: Final = "trading.unavailable"


def reconcile(
    db: Database, bundle: Bundle, nodes: Mapping[str, Node], core: TradingCore | None = None
) -> Report:
    """Compare ledger, records, chains and the trading core. Changes nothing; payments and trades may be in flight.

    Each chain is compared at a moment of its own. One whose node or monitor does not answer keeps no other from being
    compared: the report names it as absent.

    Args:
        db: any role that may read.
        bundle: names the wallets.
        nodes: by chain, of its family; the wallets of chains without one are not looked at.
        core: None: there is none.

    Raises:
        NotComparable, NodeUnavailable: no chain could be compared.
        DatabaseUnavailable: no answer.
    """
    found: dict[str, Compared] = {}
    absent: dict[str, NotComparable | NodeUnavailable | Reorganised] = {}
    diverted: list[Waiting] = []
    flushes: dict[str, str] = {}
    for chain, node in nodes.items():
        try:
            diverted += (*factories(bundle, chain, node), *differing(bundle, chain, node))
            flushes |= flushing(bundle, chain, node)
            compared = wallets_of(db, bundle, chain, node)
        except (NotComparable, NodeUnavailable, Reorganised) as error:
            absent[chain] = error
        else:
            if compared is not None:
                found[chain] = compared
    if absent and not found:
        raise next(iter(absent.values()))
    with db.snapshot() as tx:
        offences, waiting = repository.offences_of(tx, bundle), repository.waiting(tx)
    facts = Facts(
        cursors={chain: each.at for chain, each in found.items()},
        wallets=tuple(wallet for each in found.values() for wallet in each.wallets),
        offences=(*offences, *(offence for each in found.values() for offence in each.offences)),
        waiting=waiting,
        flushes=flushes,
    )
    answers = {key: answer for each in found.values() for key, answer in each.nodes.items()}
    report = replace(
        compare(facts, answers),
        absent={chain: str(error) for chain, error in absent.items()},
        diverted=tuple(diverted),
    )
    return report if core is None else with_trading(db, report, core)


def with_trading(db: Database, report: Report, core: TradingCore) -> Report:
    """The report with what ledger and trading core differ in; a core that does not answer is absent in it."""
    try:
        found = trading.look(db, core)
    except trading.CoreUnavailable as error:
        return replace(report, absent={**report.absent, TRADING: str(error)})
    by_asset: dict[str, tuple[str, ...]] = {}
    for each in found.differences:
        by_asset[each.asset] = bounded([*by_asset.get(each.asset, ()), str(each)])
    told = [found.ahead] if found.ahead else [each for told in by_asset.values() for each in told]
    checks = tuple(
        replace(check, differences=tuple(told)) if check.number == trading.RULE else check
        for check in report.checks
    )
    return replace(report, checks=checks, trading=by_asset)


def enforce(db: Database, report: Report) -> None:
    """A difference raises a critical alert and halts all paying, or if only a token's contract can have made it, or it
    is between ledger and trading core, that of its asset, and its settlements; what waits unseen gets an alert; what is
    final and explained by no block is booked.

    Again changes nothing. Needs a role that may halt. An operator lifts the halt once the difference is explained.
    """
    with db.transaction() as tx:
        differences = report.differences()
        if differences:
            text = "; ".join(differences)[:2000]
            raise_alert(
                tx,
                Severity.CRITICAL,
                ALERT,
                "all",
                f"ledger, chain or trading core differ, paying is halted: {text}",
                {"differences": list(differences[:20])},
            )
            if report.beyond_assets():
                halts.halt(tx, halts.ALL, f"reconciliation: {text}"[:500])
            for asset, lacks in (*report.short.items(), *report.trading.items()):
                halts.halt(tx, halts.of_asset(asset), f"reconciliation: {'; '.join(lacks)}"[:500])
        elif not report.absent:
            resolve_alert(tx, ALERT, "all")
        if TRADING in report.absent:
            told = f"what customers have in trading cannot be compared: {report.absent[TRADING]}"
            raise_alert(tx, Severity.WARNING, UNAVAILABLE, TRADING, told, {})
        else:
            resolve_alert(tx, UNAVAILABLE, TRADING)
        for each in report.waiting:
            raise_alert(tx, Severity.WARNING, each.type, each.subject, each.detail, {})
        for each in report.diverted:
            severity = FACTORY_SEVERITY.get(each.type, Severity.CRITICAL)
            raise_alert(tx, severity, each.type, each.subject, each.detail, {})
        if not report.absent:
            resolve_others(tx, report.diverted)
    for stale in report.stale:
        reverse(db, stale)
    for booking in report.bookings:
        book(db, booking)
