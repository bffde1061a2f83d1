"""Signing: recorded requests go to the signer, and what it signs is recorded before anybody else sees it.

The request is the recorded one, word for word, however often it is sent, and the approvals of its payments: a signer
that has signed it before gives the same signatures again. No answer means: ask again. Only a refusal of the first
version, which was then never signed, sets the withdrawals free.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from chains.errors import PermanentError
from custody.approvals.evidence import with_approvals
from custody.ports import Clock, system_clock
from custody.signing import repository, reservations
from custody.signing.announcing import announce
from custody.signing.kinds import effects_of
from custody.signing.lifecycle import TransactionEvent, TransactionState
from custody.signing.model import Version
from custody.signing.paying import REFUSED_BEFORE
from custody.signing.requests import read_request
from custody.signing.site import Site
from custody.signing.watch import REFUSED
from custody.storage import alerts, events
from custody.storage.alerts import Severity
from custody.storage.db import Database
from signers.ports import Announcing, Refused, Signer, SignerUnavailable, SignRequest

_AGES: Final = frozenset({"order-too-young", "destination-too-young"})
_COUNTED: Final = frozenset({"window-cap", "fee-window", "value-cap"})
_HINT: Final = (
    "; what was signed counts until a verifier has told the signer what became of it: is one running?"
)


def sign(db: Database, site: Site, signer: Signer, *, clock: Clock = system_clock) -> list[UUID]:
    """Ask the signer about every recorded version that waits for it; returns the transactions that got
    signed.

    The signer is shown the approvals that are there now: of those that were there when it was built some may be over.

    Raises:
        SignerUnavailable: no answer; nothing is known, and the next call asks the same again.
        DatabaseUnavailable, Conflict: what was signed meanwhile is signed again, the same.
    """
    with db.snapshot() as tx:
        waiting = repository.to_sign(tx, site.chain, site.wallet.id, site.allowed(tx))
    done = []
    unanswered: SignerUnavailable | None = None
    for version in waiting:
        with db.snapshot() as tx:
            # What was refused meanwhile is being built anew: a signature for it now would block that for ever.
            if not repository.still_to_sign(tx, version):
                continue
        try:
            response = signer.sign(_shown(db, site, version, clock()))
            signed, txid = site.finish(version, response)
        except Refused as refusal:
            _refused(db, site, version, refusal)
            _announce(signer, version, refusal)
        except SignerUnavailable as error:
            _trouble(db, site, version, Severity.WARNING, "signer.unavailable", site.wallet.id, str(error))
            signer.status()  # raises where the signer itself is away
            unanswered = error
        except PermanentError as error:
            # A wrong signature, or bytes that two decoders read differently: never recorded, never sent.
            _trouble(
                db,
                site,
                version,
                Severity.CRITICAL,
                "signer.wrong_signature",
                str(version.transaction_id),
                str(error),
            )
        else:
            if _record(db, site, version, signed, txid):
                done.append(version.transaction_id)
    if unanswered is not None:
        raise unanswered
    return done


def _shown(db: Database, site: Site, version: Version, now: int) -> SignRequest:
    with db.snapshot() as tx:
        return with_approvals(tx, read_request(version.request), site.bundle, now=now)


def _announce(signer: Signer, version: Version, refusal: Refused) -> None:
    """Where the signer has to know an order or a destination for a while, that while begins when it is shown to it."""
    if isinstance(signer, Announcing) and _AGES & {reason.code for reason in refusal.reasons}:
        announce(signer, read_request(version.request).evidence.orders)


def _record(db: Database, site: Site, version: Version, signed: bytes, txid: str) -> bool:
    """Store the signed bytes; from the commit on they are what is sent. False if another worker was
    quicker."""
    with db.transaction() as tx:
        transaction = repository.lock(tx, version.transaction_id)
        if transaction.state not in (
            TransactionState.BUILT,
            TransactionState.BROADCAST,
            TransactionState.CONTESTED,
            TransactionState.CONFIRMING,
        ):
            return False
        if not repository.record_signed(tx, version, signed, txid):
            return False
        if transaction.state is TransactionState.CONFIRMING:
            return True  # an earlier version is in a block: this one is kept, in case a reorg undoes that
        repository.apply(tx, transaction, TransactionEvent.SIGN)
        effects_of(transaction.kind).signed(tx, transaction)
        repository.schedule_broadcast(tx, transaction.id, 0, "")
        alerts.resolve_alert(tx, "signer.unavailable", site.wallet.id)
        alerts.resolve_alert(tx, "signer.wrong_signature", str(transaction.id))
        events.emit(
            tx,
            "transaction.signed",
            str(transaction.id),
            {"version": version.version, "txid": txid, "fee": str(version.fee_units)},
        )
        return True


def _refused(db: Database, site: Site, version: Version, refusal: Refused) -> None:
    found = {reason.code for reason in refusal.reasons}
    codes, hint = ",".join(sorted(found)), _HINT if found & _COUNTED else ""
    with db.transaction() as tx:
        transaction = repository.lock(tx, version.transaction_id)
        if any(
            fact.content == version.content
            for fact in repository.consumptions(tx, site.chain, sorted(version.resources))
        ):
            # It is in a block, so it was signed: the refusal is wrong, and nothing may be released.
            alerts.raise_alert(
                tx,
                Severity.CRITICAL,
                "signer.refused_what_it_signed",
                str(transaction.id),
                f"the signer refuses version {version.version}, which is mined: {refusal}",
                {},
            )
            return
        if not repository.record_refused(tx, version):
            return
        repository.note_error(tx, transaction.id, f"signer refused: {refusal}")
        if version.version == 1 and transaction.state in (TransactionState.BUILT, TransactionState.CONTESTED):
            repository.apply(tx, transaction, TransactionEvent.REFUSE)
            effects_of(transaction.kind).refused(
                tx, transaction, f"{REFUSED_BEFORE}: {refusal}"[:500], seconds=site.pace.refused_seconds
            )
            reservations.release(tx, transaction.id)
        alerts.raise_alert(
            tx,
            Severity.WARNING,
            REFUSED,
            f"{site.wallet.id}:{codes}"[:200],
            f"the signer refused version {version.version} of {transaction.id}: {refusal}"[:800] + hint,
            {"transaction": str(transaction.id), "version": version.version},
        )


def _trouble(
    db: Database, site: Site, version: Version, severity: Severity, type: str, subject: str, error: str
) -> None:
    with db.transaction() as tx:
        repository.note_error(tx, version.transaction_id, error)
        alerts.raise_alert(
            tx,
            severity,
            type,
            subject,
            f"{site.wallet.id}: {error}"[:1000],
            {"transaction": str(version.transaction_id)},
        )
