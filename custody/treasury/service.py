"""Proposing refills, and calling them off. What the policy asks people about waits; the rest goes on by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue
from custody.deposits.outputs import outputs_of
from custody.errors import NotFound
from custody.ids import new_id
from custody.signing.btc import change
from custody.signing.cold import proofs
from custody.signing.errors import Raced
from custody.storage import alerts, halts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.treasury import observing, repository
from custody.treasury.errors import RefillRefused
from custody.treasury.joining import join
from custody.treasury.lifecycle import RefillEvent, RefillState
from custody.treasury.model import ASKED, Refill
from custody.treasury.planner import Proposal, plan
from custody.withdrawals import windows
from policies import records
from policies.bundle import BitcoinKeyset, BitcoinVault, Bundle, GasPayer, WalletEntry
from policies.deciding import decide
from policies.decision import Decision, Deny, Routed, Wait
from policies.engine import nobody_asked
from policies.facts import Facts, Operation, Ownership
from policies.rules import HOUSE
from policies.values import value_of

DENIED: Final = "refill.denied"
"""Alert: what should move does not. Its subject is the way: source, target and asset."""

LAST_PLACE: Final = 499
"""Later refills share the address at this place of branch 1. The target's own signers don't see what comes in, and take
change only so far beyond what they have signed: however many refills came, there is room for its change."""

PAUSE_SECONDS: Final = 6 * 3600
"""After people have said no, nobody is asked about the same way again for so long, unless an operator does."""

_IN_TRANSACTIONS: Final = (RefillState.SIGNING, RefillState.BROADCAST)


def get(tx: Tx, refill_id: UUID) -> Refill:
    """A refill. Raises NotFound."""
    found = repository.find(tx, refill_id)
    if found is None:
        raise NotFound("refill", str(refill_id))
    return found


def propose_due(db: Database, bundle: Bundle, *, now: int) -> int:
    """Propose what the plan says, beside or instead of what is open; returns how many refills. Again, nothing.

    Args:
        db: the database, as the worker's role.
        bundle: the one in force.
        now: UNIX seconds.

    Raises:
        DatabaseUnavailable, Conflict: try again; what was proposed before stays.
    """
    with db.snapshot() as tx:
        found = plan(observing.states(tx, bundle), observing.payers(tx, bundle), bundle.told)
        newest = repository.newest(tx)
    made = 0
    for proposal in found:
        way = f"{proposal.source}>{proposal.target}:{proposal.asset}"
        try:
            with db.transaction() as tx:
                if repository.said_no(
                    tx, proposal.source, proposal.target, proposal.asset, seconds=PAUSE_SECONDS
                ):
                    continue
                after = newest.get((proposal.source, proposal.target, proposal.asset))
                made += propose(tx, bundle, proposal, after=after, now=now) is not None
                alerts.resolve_alert(tx, DENIED, way)
        except Raced:
            continue
        except RefillRefused as refused:
            with db.transaction() as tx:
                _tell_refused(tx, way, proposal, refused, bundle)
    return made


def _tell_refused(tx: Tx, way: str, proposal: Proposal, refused: RefillRefused, bundle: Bundle) -> None:
    amount = bundle.told(proposal.asset, proposal.units)
    message = (
        f"{amount} should move from {proposal.source} to {proposal.target}: {proposal.reason}; but {refused}"
    )
    data = {"source": proposal.source, "target": proposal.target, "units": str(proposal.units)}
    alerts.raise_alert(tx, Severity.WARNING, DENIED, way, message[:1000], data)


def ask(tx: Tx, bundle: Bundle, proposal: Proposal, *, by: str, now: int) -> Refill:
    """Propose what an operator wants.

    Raises:
        RefillRefused: the policy does not let it happen now, one of the same way waits to be built, or it goes nowhere.
        Raced: another worker proposes the same.
    """
    way = (proposal.source, proposal.target, proposal.asset)
    if any(each.state not in _IN_TRANSACTIONS for each in repository.under_way(tx, *way)):
        raise RefillRefused(
            f"money is to go from {proposal.source} to {proposal.target} already: see `refill list`, or call that off"
        )
    return _keep(tx, bundle, proposal, repository.newest(tx).get(way), by=by, now=now)


def propose(tx: Tx, bundle: Bundle, proposal: Proposal, *, after: UUID | None, now: int) -> Refill | None:
    """Ask the policy about what the plan says, and keep it if it is let through; None if it waits for what is open.

    Args:
        tx: in which it is decided and kept.
        bundle: the one in force.
        proposal: what should move beyond what open refills bring.
        after: the newest refill of the same way that the plan knew of.
        now: UNIX seconds.

    Raises:
        RefillRefused: it is denied, or has to wait; nothing was changed.
        Raced: another worker proposes the same.
        Conflict: the policy's windows are counted for another bundle, or what it grows out of has just gone on.
    """
    joined = join(repository.under_way(tx, proposal.source, proposal.target, proposal.asset), proposal)
    if joined is None:
        return None
    if joined.instead is not None:
        more = bundle.told(proposal.asset, joined.proposal.units)
        reason = f"superseded: {more} is asked for instead, as {proposal.reason}"
        repository.apply(tx, joined.instead, RefillEvent.DECLINE, reason=reason)
    return _keep(tx, bundle, joined.proposal, after, by=HOUSE, now=now)


def _keep(tx: Tx, bundle: Bundle, proposal: Proposal, after: UUID | None, *, by: str, now: int) -> Refill:
    source, target = _ends(bundle, proposal)
    unproven = proofs.objection(tx, bundle, target, proposal.asset, proposal.units)
    if unproven is not None:
        raise RefillRefused(unproven)
    stopped = halts.halted(tx, source.chain, proposal.asset, tier=source.tier, wallet=source.id)
    if stopped is not None:
        raise RefillRefused(f"halted: {stopped}")
    destination, place = _destination(tx, bundle, target)
    id = new_id()
    facts = Facts(
        operation=Operation.REFILL,
        now=now,
        id=str(id),
        chain=source.chain,
        asset=proposal.asset,
        units=proposal.units,
        value=value_of(bundle, proposal.asset, proposal.units),
        source=source.id,
        destination=destination,
        ownership=Ownership.HOUSE,
        customer=HOUSE,
        initiator=by,
        halts=(),
    )
    decision, spent = windows.decide_now(tx, bundle, facts, partial(decide, bundle))
    routed = _routed(decision, source)
    moment = datetime.fromtimestamp(now, UTC)
    refill = Refill(
        id=id,
        chain=source.chain,
        asset=proposal.asset,
        source=source.id,
        tier=source.tier,
        target=target.id,
        destination=destination,
        place=place,
        units=proposal.units,
        why=ASKED if by != HOUSE else proposal.why,
        about=proposal.reason,
        proposed_by=by,
        state=RefillState.PROPOSED,
        reason="" if nobody_asked(routed.approvals) else "approval: nobody has answered yet",
        decision=records.record(bundle, facts, spent, decision),
        policy_version=bundle.version,
        not_before=moment + timedelta(seconds=routed.delay_seconds),
        transaction_id=None,
        created_at=moment,
        updated_at=moment,
    )
    if not repository.insert(tx, refill, after):
        raise Raced("another worker has just proposed the same")
    windows.count(tx, refill.id, routed.counts)
    repository.tell(tx, refill)
    if nobody_asked(routed.approvals):
        return repository.apply(tx, refill, RefillEvent.APPROVE, reason="approved: the policy asks nobody")
    return refill


def _ends(bundle: Bundle, proposal: Proposal) -> tuple[WalletEntry, WalletEntry]:
    try:
        source, target = bundle.wallet(proposal.source), bundle.wallet(proposal.target)
        asset = bundle.asset(proposal.asset)
    except InvalidValue as error:
        raise RefillRefused(str(error)) from None
    trouble = None
    if {source.chain, target.chain} != {asset.chain}:
        trouble = f"{source.id}, {target.id} and {asset.id} are not on one chain"
    elif (source.state, target.state) != ("active", "active"):
        trouble = f"{source.id} is {source.state}, {target.id} is {target.state}: both must be active"
    elif isinstance(source, GasPayer):
        trouble = f"{source.id} pays for gas, and nothing else"
    elif isinstance(target, GasPayer) and source.tier != "hot":
        trouble = f"gas payer {target.id} is filled from the hot tier"
    elif isinstance(target, GasPayer) and asset.contract is not None:
        trouble = f"gas payer {target.id} has no use for {asset.id}"
    elif not isinstance(target, GasPayer) and source.tier == target.tier:
        trouble = f"{source.id} and {target.id} are both {source.tier}"
    elif proposal.units < 1:
        trouble = "nothing would move"
    elif isinstance(target, GasPayer) and proposal.units > int(target.holding_cap):
        trouble = f"gas payer {target.id} may hold {bundle.told(asset.id, int(target.holding_cap))}"
    if trouble is not None:
        raise RefillRefused(trouble)
    return source, target


def _destination(tx: Tx, bundle: Bundle, target: WalletEntry) -> tuple[str, int | None]:
    """The address that people approve; of BTC wallets one of branch 1, known before anything can be paid to it."""
    if not isinstance(target, BitcoinKeyset | BitcoinVault):
        return target.address, None
    outputs, asset = outputs_of(bundle, target), bundle.network(target.chain).native_asset
    # Other wallets' signers don't know this one's history, and go no further than recovery always scans.
    place = min(change.allocate(tx, target, asset, outputs), LAST_PLACE)
    return outputs.agreed_address(1, place), place


def _routed(decision: Decision, source: WalletEntry) -> Routed:
    if isinstance(decision, Deny | Wait):
        raise RefillRefused("; ".join(str(reason) for reason in decision.reasons)[:1000])
    if decision.tier != source.tier:
        raise RefillRefused(
            f"wrong-tier: the policy has the {decision.tier} tier do it, {source.id} is {source.tier}"
        )
    if decision.verdict:
        raise RefillRefused(
            "verdict: the policy asks for a verifier's verdict, and there is none about refills"
        )
    return decision


def decline(tx: Tx, refill_id: UUID, reason: str) -> Refill:
    """Call off a refill that no transaction carries out yet.

    Raises:
        NotFound: there is none.
        RefillRefused: it is being signed, or over.
    """
    refill = get(tx, refill_id)
    claimed = repository.claim(tx, refill_id, [RefillState.PROPOSED, RefillState.APPROVED])
    if claimed is None:
        raise RefillRefused(
            f"refill {refill_id} is {refill.state}: a signer may have signed it, or it is over"
        )
    return repository.apply(tx, claimed, RefillEvent.DECLINE, reason=reason)


def reconsider(db: Database, bundle: Bundle) -> int:
    """Call off what was decided under another bundle, and is in no transaction: what is still lacking is proposed anew,
    and people are asked about that. Returns how many."""
    with db.snapshot() as tx:
        ids = repository.undecided_by(tx, bundle.version)
    done = 0
    for refill_id in ids:
        with db.transaction() as tx:
            refill = repository.claim(tx, refill_id, [RefillState.PROPOSED, RefillState.APPROVED])
            if refill is None or refill.policy_version >= bundle.version:
                continue
            versions = f"version {refill.policy_version} of the bundle, in force is {bundle.version}"
            reason = f"policy: it was decided under {versions}"
            repository.apply(tx, refill, RefillEvent.DECLINE, reason=reason)
            done += 1
    return done
