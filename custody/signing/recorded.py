"""What signers say becomes a record: signed bytes, or a refusal; and what they are shown beside the request."""

from __future__ import annotations

from typing import Final

from custody.approvals.evidence import with_approvals
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
from custody.storage.db import Database, Tx
from signers.ports import Announcing, Refused, Signer, SignRequest

_AGES: Final = frozenset({"order-too-young", "destination-too-young"})
_COUNTED: Final = frozenset({"window-cap", "fee-window", "value-cap"})
_HINT: Final = (
    "; what was signed counts until a verifier has told the signer what became of it: is one running?"
)


def shown(db: Database, site: Site, version: Version, now: int) -> SignRequest:
    """The recorded request with the approvals that there are now."""
    with db.snapshot() as tx:
        return with_approvals(tx, read_request(version.request), site.bundle, now=now)


def show(signer: Signer, version: Version, refusal: Refused) -> None:
    """Where the signer has to know an order or a destination for a while, that while begins when it is shown to it."""
    if isinstance(signer, Announcing) and _AGES & {reason.code for reason in refusal.reasons}:
        announce(signer, read_request(version.request).evidence.orders)


def record_signed(tx: Tx, site: Site, version: Version, signed: bytes, txid: str) -> bool:
    """Store the signed bytes; from the commit on they are what is sent. False if another worker was
    quicker."""
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


def refuse(tx: Tx, site: Site, version: Version, refusal: Refused) -> bool:
    """A version that was never signed is given up; of the first one everything is free again. False: nothing was done,
    as another worker was quicker, or a block holds it."""
    found = {reason.code for reason in refusal.reasons}
    codes, hint = ",".join(sorted(found)), _HINT if found & _COUNTED else ""
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
        return False
    if not repository.record_refused(tx, version):
        return False
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
    return True


def trouble(
    db: Database, site: Site, version: Version, severity: Severity, type: str, subject: str, error: str
) -> None:
    """Note what went wrong, and tell of it."""
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
