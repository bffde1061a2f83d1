"""Collecting: each member of a vault is asked about each version that waits, until as many have signed as it takes.

A member is a daemon of ours, or a holder who signs offline and brings a file. What it says is believed after its
signatures were verified. Before it is asked, that it is asked is recorded: from then on it may have signed, whatever
becomes of its answer.

A version that nobody has signed and that too few would sign is refused, like a key-set's. Once anybody may have
signed, only time ends a session; and if so many may have signed that a block could hold the transaction, what it serves
stays as it is until a conflict is final.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from chains.errors import NodeUnavailable, PermanentError, Reorganised
from custody.ports import Clock, system_clock
from custody.signing import repository as transactions
from custody.signing.kinds import effects_of
from custody.signing.lifecycle import TransactionState
from custody.signing.model import Version
from custody.signing.recorded import record_signed, refuse, show, shown, trouble
from custody.signing.sessions import repository
from custody.signing.sessions.lifecycle import SessionEvent, SessionState
from custody.signing.sessions.model import EXPIRED, Session, Source
from custody.signing.site import Site
from custody.signing.verdicts import Verifier, majority, verdicts_on
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database
from policies.bundle import BitcoinVault, EvmVault
from signers.ports import Reason, Refused, Signer, SignerUnavailable, SignRequest, SignResponse

NOT_COVERED: Final = "session.not_covered"
STILL_OUT: Final = "its signing request is over and may still be signed, so its money stays held"
"""How the reason of what waits begins."""
SIGNED_AFTER_ALL: Final = "session.signed_after_all"
_WAITS: Final = frozenset({"order-bound", "memory-young"})
"""Of a verifier's reasons, those that go by themselves."""
_LIVE: Final = (SessionState.OPEN, SessionState.COLLECTING)
_COLLECTS: Final = (*_LIVE, SessionState.EXPIRED)


def collect(
    db: Database,
    site: Site,
    members: Mapping[str, Signer],
    verifiers: Sequence[Verifier],
    *,
    clock: Clock = system_clock,
) -> list[UUID]:
    """Ask the daemons of a vault's members about every version that waits; returns the transactions that are complete.

    Again changes nothing: a member that has signed is not asked again, one that has refused only after a while.

    Args:
        db: the database, as the worker's role.
        site: of a vault.
        members: those that are daemons, by their id in the vault; holders' files come by `bring`.
        verifiers: who says that customers' ledgers cover payments: members want to see that.
        clock: UNIX seconds.

    Raises:
        SignerUnavailable: too few answered; nothing is lost, and the next call goes on.
        DatabaseUnavailable, Conflict: try again.
    """
    with db.snapshot() as tx:
        waiting = transactions.to_sign(
            tx, site.chain, site.wallet.id, site.allowed(tx), except_for=site.held(tx)
        )
    done: list[UUID] = []
    unanswered: SignerUnavailable | None = None
    for version in waiting:
        session = _session(db, version)
        if session is None:
            continue
        if _complete(db, site, version, session):
            # The last signature was kept by somebody who got no further.
            done.append(version.transaction_id)
            continue
        if session.state not in _LIVE:
            continue
        if clock() >= session.expires_at.timestamp():
            _expire(db, site, version, session)
            continue
        try:
            if members and _ask(db, site, version, session, members, verifiers, clock):
                done.append(version.transaction_id)
        except SignerUnavailable as error:
            unanswered = error
    if unanswered is not None:
        raise unanswered
    return done


def bring(db: Database, site: Site, version: Version, member: str, response: SignResponse) -> Session:
    """Keep what a holder has signed and brought; completes the transaction where it is enough.

    Signatures that come after the session's time are kept, too: they exist.

    Args:
        db: the database, as the worker's role.
        site: of the vault.
        version: what was signed.
        member: whose signatures they are.
        response: one for each input (BTC), or one (a Safe).

    Raises:
        InvalidSignature: they are not, or do not verify: nothing was kept.
        Conflict: somebody else brought something at the same time; try again.
    """
    site.check_member(version, member, response)
    with db.transaction() as tx:
        found = _known(repository.find(tx, version.transaction_id, version.version), version)
        session = repository.lock(tx, found.id)
        if member not in session.asked:
            repository.note_asked(tx, session, member, Source.FILE)
        if repository.keep(tx, session, member, response) and session.state in _COLLECTS:
            repository.apply(tx, session, SessionEvent.COLLECT)
    session = _known(_session(db, version), version)
    if not _complete(db, site, version, session):
        _warn_of_lies(db, site, version, session)
    return _known(_session(db, version), version)


def _warn_of_lies(db: Database, site: Site, version: Version, session: Session) -> None:
    """What was given up because too few could have signed is signed by enough: somebody may pay it beside what took
    its place."""
    if len(session.signed) < session.threshold:
        return
    with db.snapshot() as tx:
        transaction = transactions.find(tx, version.transaction_id)
    if transaction is not None and transaction.state is TransactionState.REFUSED:
        why = f"version {version.version} was given up as unsigned, and {len(session.signed)} members have signed it"
        subject = str(version.transaction_id)
        trouble(
            db, site, version, Severity.CRITICAL, SIGNED_AFTER_ALL, subject, f"{why}: it can be paid any time"
        )


def _ask(
    db: Database,
    site: Site,
    version: Version,
    session: Session,
    members: Mapping[str, Signer],
    verifiers: Sequence[Verifier],
    clock: Clock,
) -> bool:
    """Whether it is complete now. No more members are asked than it takes."""
    unanswered: SignerUnavailable | None = None
    with db.snapshot() as tx:
        signed_last = repository.last_signed(tx, site.wallet.id)
    waiting = _to_ask(session, members, signed_last, site, clock())
    request = _request(db, site, version, verifiers, clock()) if waiting else None
    for member in waiting:
        if request is None or len(_good(site, version, session)) >= _needed(site, session):
            break
        try:
            session = _ask_one(db, site, version, session, member, members[member], request)
        except SignerUnavailable as error:
            trouble(
                db,
                site,
                version,
                Severity.WARNING,
                "signer.unavailable",
                f"{site.wallet.id}/{member}",
                str(error),
            )
            unanswered = error
    # Who did not answer may have signed.
    session = _known(_session(db, version), version)
    if _complete(db, site, version, session):
        return True
    if not session.signed and session.may_have_signed == 0 and session.hopeless:
        _give_up(db, site, version, session)
    elif unanswered is not None:
        raise unanswered
    return False


def _request(
    db: Database, site: Site, version: Version, verifiers: Sequence[Verifier], now: int
) -> SignRequest | None:
    """What members are shown; None where a verifier says no: then nobody is asked, until it says yes or time is over.

    Raises:
        SignerUnavailable: no verifier answers.
    """
    request = shown(db, site, version, now)
    subject = str(version.transaction_id)
    try:
        verdicts = verdicts_on(version, request, verifiers, majority(site.bundle))
    except Refused as refusal:
        # What was asked for before is over soon, or dead some time: this one waits for that.
        waits = {reason.code for reason in refusal.reasons} <= _WAITS
        severity = Severity.WARNING if waits else Severity.CRITICAL
        trouble(db, site, version, severity, NOT_COVERED, subject, f"the verifier refuses: {refusal}")
        return None
    with db.transaction() as tx:
        alerts.resolve_alert(tx, NOT_COVERED, subject)
    evidence = msgspec.structs.replace(request.evidence, verdicts=verdicts)
    return msgspec.structs.replace(request, evidence=evidence)


def _to_ask(
    session: Session,
    members: Mapping[str, Signer],
    signed_last: Mapping[str, datetime],
    site: Site,
    now: int,
) -> Sequence[str]:
    """Members to ask now: those that were never asked first, those that have refused only after a while.

    By turns: a signer goes only so far beyond the nonces and change indexes that it has signed itself, so one that is
    never asked would soon be of no use when another is lost.
    """
    again = datetime.fromtimestamp(now, UTC) - timedelta(seconds=site.pace.refused_seconds)
    never = datetime.fromtimestamp(0, UTC)
    turns = sorted(members, key=lambda member: (signed_last.get(member, never), member))
    waiting = [member for member in turns if member not in session.signed]
    fresh = [member for member in waiting if member not in session.asked]
    asked = [session.asked[member] for member in waiting if member in session.asked]
    # Who gave no answer may have signed: asked again before another one is, it gives the same signatures.
    silent = [each.member for each in asked if not each.refused]
    refused = [each.member for each in asked if each.refused and each.asked_at <= again]
    return [*silent, *fresh, *refused]


def _ask_one(
    db: Database,
    site: Site,
    version: Version,
    session: Session,
    member: str,
    signer: Signer,
    request: SignRequest,
) -> Session:
    with db.transaction() as tx:
        # Locked: whoever ends the session at the same time counts this member, or is seen here.
        session = repository.lock(tx, session.id)
        if session.state not in _LIVE or not transactions.still_to_sign(tx, version):
            return session
        repository.note_asked(tx, session, member, Source.DAEMON)
    try:
        response = _sign(site, signer, request)
        site.check_member(version, member, response)
    except Refused as refusal:
        with db.transaction() as tx:
            repository.note_refused(tx, session, member, str(refusal))
        show(signer, version, refusal)
    except SignerUnavailable:
        raise
    except PermanentError as error:
        # A wrong signature is kept nowhere; but who gives one may have given a right one to somebody else.
        subject = f"{version.transaction_id}:{member}"
        trouble(db, site, version, Severity.CRITICAL, "signer.wrong_signature", subject, f"{member}: {error}")
    else:
        with db.transaction() as tx:
            current = _known(repository.find(tx, version.transaction_id, version.version), version)
            if repository.keep(tx, current, member, response):
                repository.apply(tx, current, SessionEvent.COLLECT)
            alerts.resolve_alert(tx, "signer.unavailable", f"{site.wallet.id}/{member}")
    return _known(_session(db, version), version)


def _sign(site: Site, signer: Signer, request: SignRequest) -> SignResponse:
    """What a member's signer answers; one that was away for long catches up first. Raises like `Signer.sign`."""
    try:
        return signer.sign(request)
    except Refused as refusal:
        try:
            if not site.catch_up(signer, refusal):
                raise
        except (NodeUnavailable, Reorganised):
            raise refusal from None
        return signer.sign(request)


def _complete(db: Database, site: Site, version: Version, session: Session) -> bool:
    """Put the signatures together, verify the whole, record it. False while there are too few."""
    chosen = _good(site, version, session)
    if len(chosen) < _needed(site, session):
        return False
    together = SignResponse(signatures=tuple(each for response in chosen for each in response.signatures))
    try:
        signed, txid = site.finish(version, together)
    except PermanentError as error:
        subject = str(version.transaction_id)
        trouble(db, site, version, Severity.CRITICAL, "signer.wrong_signature", subject, str(error))
        return False
    with db.transaction() as tx:
        if not record_signed(tx, site, version, signed, txid):
            return False
        if session.state is not SessionState.COMPLETE:  # else a block had it before we had the signatures
            repository.apply(tx, session, SessionEvent.COMPLETE)
        alerts.resolve_alert(tx, EXPIRED, str(version.transaction_id))
    return True


def _good(site: Site, version: Version, session: Session) -> list[SignResponse]:
    """As many signatures as it takes, or fewer, of those who are members now, by the keys that the bundle has now: what
    somebody signed before he was removed is never used."""
    good: list[SignResponse] = []
    for member in sorted(session.signed):
        try:
            site.check_member(version, member, session.signed[member])
        except PermanentError:
            continue
        good.append(session.signed[member])
    return good[: _needed(site, session)]


def _needed(site: Site, session: Session) -> int:
    """How many signatures it takes by now."""
    wallet = site.wallet
    present = wallet.threshold if isinstance(wallet, BitcoinVault | EvmVault) else 0
    return max(session.threshold, present)


def _give_up(db: Database, site: Site, version: Version, session: Session) -> None:
    """Nobody has signed it, and too few would."""
    reasons = tuple(
        Reason(code="member-refused", detail=f"{each.member}: {each.refused}")
        for each in session.asked.values()
        if each.refused
    )
    with db.transaction() as tx:
        current = repository.lock(tx, session.id)
        if current.state is not SessionState.OPEN or current.may_have_signed or not current.hopeless:
            return  # another worker is asking again
        if refuse(tx, site, version, Refused(reasons)):
            repository.apply(tx, current, SessionEvent.REFUSE)


def _expire(db: Database, site: Site, version: Version, session: Session) -> None:
    """Its time is over. Where fewer may have signed than it takes, no block will ever hold it: what it serves is free.
    Else only a conflict that is final ends it."""
    why = f"{len(session.signed)} of {session.threshold} members have signed in time"
    with db.transaction() as tx:
        current = repository.lock(tx, session.id)
        if current.state not in _LIVE:
            return
        repository.apply(tx, current, SessionEvent.EXPIRE)
        if not current.may_confirm:
            refuse(tx, site, version, Refused((Reason(code="session-expired", detail=why),)))
            return
        transactions.note_error(tx, version.transaction_id, f"signing session expired: {why}")
        transaction = transactions.lock(tx, version.transaction_id)
        effects_of(transaction.kind).waits(tx, transaction, f"{STILL_OUT}: {why}")
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            EXPIRED,
            str(version.transaction_id),
            f"{why}, and {current.may_have_signed} may have: it may still be put together and confirm, so it"
            " stays until a transaction that conflicts with it is final. Ask anew or cancel it: strongroom cold",
            {"transaction": str(version.transaction_id), "version": version.version},
        )


def _session(db: Database, version: Version) -> Session | None:
    with db.snapshot() as tx:
        return repository.find(tx, version.transaction_id, version.version)


def _known(session: Session | None, version: Version) -> Session:
    if session is None:
        raise LookupError(f"version {version.version} of {version.transaction_id} has no signing session")
    return session
