"""What a rescue does about transactions of the compromised keys that are on their way.

Those keys sign nothing but rotations any more, so payments can be neither replaced nor brought on. Their coins and
nonces are taken: the rescue conflicts with them by construction, and whichever is final first is the end of the other.
A rescue that cannot confirm any more, as it looks now, gives way to the next one at once, not only when that is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

from custody.signing import closing
from custody.signing import repository as transactions
from custody.signing.errors import Raced
from custody.signing.lifecycle import TransactionState
from custody.signing.model import OurTransaction
from custody.signing.site import Site
from custody.storage import alerts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from policies.intent import Kind

CAPPED = "rotation.capped"
_OVERTAKEN = "its keys are compromised: a rescue takes what it uses, and one of both will confirm"
_SENT = (TransactionState.BUILT, TransactionState.BROADCAST)


def overtake(tx: Tx, rivals: Iterable[OurTransaction], reason: str = _OVERTAKEN) -> None:
    """Take everything from these transactions, in the database transaction that records what takes their place.

    Args:
        tx: the caller's transaction.
        rivals: as the caller planned to replace them; in no block.
        reason: a sentence for those who look.

    Raises:
        Raced: one of them has changed since.
    """
    for planned in sorted(rivals, key=lambda each: each.id):
        found = transactions.lock(tx, planned.id)
        if (found.state, len(found.versions)) != (planned.state, len(planned.versions)):
            raise Raced(f"transaction {planned.id} was confirmed, replaced or overtaken meanwhile")
        if found.state in _SENT:
            closing.contest(tx, found, reason)


def give_way(db: Database, site: Site) -> int:
    """Contest what nothing that could be signed would bring on; returns how much. Again changes nothing.

    Raises:
        DatabaseUnavailable, Conflict: try again; nothing has changed.
    """
    done = 0
    with db.transaction() as tx:
        for transaction_id in transactions.sent(tx, site.chain, site.wallet.id):
            found = transactions.lock(tx, transaction_id)
            reason = _hopeless(tx, site, found) if found.state in _SENT else None
            if reason is not None:
                closing.contest(tx, found, reason)
                done += 1
    return done


def _hopeless(tx: Tx, site: Site, transaction: OurTransaction) -> str | None:
    """Why it will not go on by itself; None where it may."""
    contents = {version.content for version in transaction.versions}
    resources = frozenset[str]().union(*(version.resources for version in transaction.versions))
    facts = transactions.consumptions(tx, transaction.chain, sorted(resources))
    if any(fact.content in contents for fact in facts):
        # Its keys give no signature of a payment out any more, so it would never be told apart from what was not
        # signed.
        waits = transaction.state is TransactionState.BUILT and not site.signs(transaction.kind)
        return "it is mined, and its signature never reached us" if waits else None
    if transaction.kind != Kind.ROTATION:
        return None
    if facts:
        return f"{facts[0].txid} has used a part of what it moves"
    gone = site.vanished(tx, transaction)
    return f"a reorg removed {', '.join(gone)}, which it moves" if gone else None


def tell_prices(db: Database, site: Site, too_high: str | None) -> None:
    """Say of a key-set that the network asks for more than the caps allow its rescue, or (None) that it does no
    more."""
    with db.transaction() as tx:
        if too_high is None:
            alerts.resolve_alert(tx, CAPPED, site.wallet.id)
            return
        alerts.raise_alert(
            tx,
            Severity.CRITICAL,
            CAPPED,
            site.wallet.id,
            f"its keys are compromised, and its rescue may not come through: {too_high}",
            {"chain": site.chain, "keyset": site.wallet.id},
        )


def tell_capped(db: Database, site: Site, forbidden: Mapping[UUID, str]) -> None:
    """Say of transactions that the caps let no rescue replace them: it waits until they confirm."""
    if not forbidden:
        return
    with db.transaction() as tx:
        for transaction_id, why in forbidden.items():
            alerts.raise_alert(
                tx,
                Severity.CRITICAL,
                CAPPED,
                str(transaction_id),
                f"its keys are compromised, and the rescue of what it uses waits for it: {why}"[:1000],
                {"chain": site.chain, "keyset": site.wallet.id},
            )
