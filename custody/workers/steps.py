"""What each step does for one process: for every wallet it can pay from, one call of a service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import structlog

from chains.errors import StrongroomError
from custody.approvals import refills
from custody.approvals.counting import count, end_with_approvers, lapse, reconsider
from custody.ledger.heads import keep_sealed
from custody.ports import Step
from custody.reconcile.service import TRADING, enforce, reconcile
from custody.reconcile.wallets import NotComparable
from custody.signing.announcing import announce_waiting
from custody.signing.broadcast import broadcast
from custody.signing.build import build, fill_gap
from custody.signing.bump import bump_requested, bump_stuck
from custody.signing.families import steps_of
from custody.signing.losses import book_losses
from custody.signing.sessions.service import collect
from custody.signing.sign import sign
from custody.signing.site import Site
from custody.signing.track import track
from custody.signing.watch import watch_signers
from custody.sweeps.model import SweepPace
from custody.sweeps.service import sweep
from custody.travelrule.service import deliver
from custody.treasury.building import carry_out
from custody.treasury.fees import observe
from custody.treasury.holdings import note_levels, watch_excess
from custody.treasury.service import propose_due
from custody.treasury.service import reconsider as calling_off
from custody.whitelist.service import list_confirmed
from custody.wiring import Services
from custody.withdrawals.ending import expire, settle_internal
from custody.withdrawals.routing import cool, route
from custody.withdrawals.screened import screen_again
from policies.bundle import GasPayer, KeysetEntry

_log = structlog.get_logger("strongroom.workers")

MAX_TRANSACTIONS: Final = 20
"""So many are built in one go, so that signing need not wait for all of them."""


def run(step: Step, services: Services) -> int:
    """Do one step once; returns how much was done. Doing it again, or twice at once, changes nothing more.

    Raises:
        TransientError: something did not answer; the next call goes on.
    """
    return _STEPS[step](services)


def _route(services: Services) -> int:
    db, bundle, now = services.database, services.bundle(), services.clock()
    keys = None if services.sealing is None else services.sealing()
    done = list_confirmed(db, bundle, now=now, ends=services.ends) + reconsider(db, bundle, now=now)
    done += route(
        db,
        bundle,
        services.screening,
        now=now,
        keys=keys,
        nodes=services.nodes,
        prices=services.prices,
        ends=services.ends,
    )
    done += count(db, bundle, now=now) + lapse(db, now=now) + end_with_approvers(db, bundle, now=now)
    return done + cool(db)


def _expire(services: Services) -> int:
    return expire(services.database, now=services.clock())


def _settle_internal(services: Services) -> int:
    return settle_internal(services.database, services.bundle(), clock=services.clock)


def _working(services: Services) -> Sequence[Site]:
    """The wallets that sign: a suspended one's requests wait until it is active again."""
    return [site for site in services.wallets() if site.wallet.state != "suspended"]


def _one_of_each_chain(services: Services) -> Sequence[Site]:
    """For what is done for a chain as a whole."""
    return list({site.chain: site for site in reversed(services.wallets())}.values())


def _at_each_site(sites: Iterable[Site], do: Callable[[Site], int]) -> int:
    """How much was done at all of them together. One chain in trouble must not stop the others: all are tried.

    Raises:
        StrongroomError: the first trouble, if nothing was done anywhere; one that no repetition helps in any case.
    """
    done = 0
    troubles: list[StrongroomError] = []
    for site in sites:
        try:
            done += do(site)
        except StrongroomError as error:
            _log.warning("chain postponed", chain=site.chain, reason=str(error))
            troubles.append(error)
    for trouble in troubles:
        if not done or not trouble.transient:
            raise trouble
    return done


def _build(services: Services) -> int:
    def one_site(site: Site) -> int:
        if site.wallet.state == "active":
            screen_again(services.database, site.chain, services.screening)
            for built in range(MAX_TRANSACTIONS):
                if build(services.database, site, now=services.clock()) is None:
                    # Payments fill gaps between nonces by themselves; what is left of those has waited for one.
                    return built + (fill_gap(services.database, site) is not None)
            return MAX_TRANSACTIONS
        # What retired keys have signed above a gap waits as well, and they pay nobody any more.
        return int(site.wallet.state == "deactivated" and fill_gap(services.database, site) is not None)

    return _at_each_site(services.wallets(), one_site)


def _announce(services: Services) -> int:
    def one_site(site: Site) -> int:
        db, now = services.database, services.clock()
        if isinstance(site.wallet, GasPayer):
            return 0  # it pays no orders
        if not site.is_vault:
            return announce_waiting(db, site, services.signer(site.wallet.id), now=now)
        members = services.members(site.wallet.id)
        return sum(announce_waiting(db, site, each, now=now, member=name) for name, each in members.items())

    return _at_each_site(_working(services), one_site)


def _sign(services: Services) -> int:
    def one_site(site: Site) -> int:
        db, wallet = services.database, site.wallet.id
        if site.is_vault:
            return len(collect(db, site, services.members(wallet), services.verifiers, clock=services.clock))
        return len(sign(db, site, services.signer(wallet), clock=services.clock))

    return _at_each_site(_working(services), one_site)


def _broadcast(services: Services) -> int:
    return _at_each_site(services.wallets(), lambda site: broadcast(services.database, site))


def _track(services: Services) -> int:
    return _at_each_site(_one_of_each_chain(services), lambda site: track(services.database, site))


def _bump(services: Services) -> int:
    def one_site(site: Site) -> int:
        made = bump_requested(services.database, site)
        if not site.is_vault or services.members(site.wallet.id):  # nobody bothers people offline by himself
            made += bump_stuck(services.database, site)
        price = steps_of(site).price(site)
        with services.database.transaction() as tx:
            observe(tx, site.chain, price)
        return made

    return _at_each_site(_working(services), one_site)


def _book_losses(services: Services) -> int:
    return _at_each_site(_one_of_each_chain(services), lambda site: book_losses(services.database, site))


def _sweep(services: Services) -> int:
    gather = services.settings.gather_seconds
    pace = SweepPace() if gather is None else SweepPace(gather_seconds=gather)
    with services.database.transaction() as tx:
        watch_excess(tx, services.bundle())
    hot = [site for site in _working(services) if isinstance(site.wallet, KeysetEntry)]
    return _at_each_site(hot, lambda site: sweep(services.database, site, pace, now=services.clock()))


def _treasury(services: Services) -> int:
    db, bundle, now = services.database, services.bundle(), services.clock()
    with db.transaction() as tx:
        note_levels(tx)
    done = calling_off(db, bundle) + propose_due(db, bundle, now=now)
    done += refills.count(db, bundle, now=now) + refills.lapse(db, now=now)
    return done + _at_each_site(services.sites(), lambda site: carry_out(db, site, now=services.clock()))


def _reconcile(services: Services) -> int:
    report = reconcile(services.database, services.bundle(), services.nodes, services.core)
    enforce(services.database, report)
    chains = {chain: why for chain, why in report.absent.items() if chain != TRADING}
    if chains:
        raise NotComparable("; ".join(f"{chain}: {why}" for chain, why in chains.items()))
    return len(report.differences())


def _watch_signers(services: Services) -> int:
    patience = services.settings.verifier_silent_seconds
    watch_signers(services.database, services.bundle(), services.signers, patience)
    return 0


def _seal(services: Services) -> int:
    return keep_sealed(services.database, services.bundle(), services.signers, now=services.clock())


def _tell_others(services: Services) -> int:
    if services.exchange is None or services.sealing is None:
        return 0
    return deliver(services.database, services.exchange, services.sealing())


_STEPS: Final[Mapping[Step, Callable[[Services], int]]] = {
    Step.ROUTE: _route,
    Step.EXPIRE: _expire,
    Step.SETTLE_INTERNAL: _settle_internal,
    Step.ANNOUNCE: _announce,
    Step.BUILD: _build,
    Step.SIGN: _sign,
    Step.BROADCAST: _broadcast,
    Step.TRACK: _track,
    Step.BUMP: _bump,
    Step.BOOK_LOSSES: _book_losses,
    Step.SWEEP: _sweep,
    Step.TREASURY: _treasury,
    Step.RECONCILE: _reconcile,
    Step.WATCH_SIGNERS: _watch_signers,
    Step.SEAL: _seal,
    Step.TELL_OTHERS: _tell_others,
}

FOLLOWED_BY: Final[Mapping[Step, tuple[Step, ...]]] = {
    Step.ROUTE: (Step.ANNOUNCE, Step.BUILD, Step.SETTLE_INTERNAL),
    Step.BUILD: (Step.SIGN,),
    Step.SIGN: (Step.BROADCAST, Step.BUILD),
    Step.BUMP: (Step.SIGN,),
    Step.SWEEP: (Step.SIGN,),
    Step.TREASURY: (Step.SIGN,),
    Step.TRACK: (Step.SWEEP,),
}
"""What a step that did something makes possible: rung for at once, instead of waiting for the next beat."""
