"""Signing: recorded requests go to the signer, and what it signs is recorded before anybody else sees it.

The request is the recorded one, word for word, however often it is sent, and the approvals of its payments: a signer
that has signed it before gives the same signatures again. No answer means: ask again. Only a refusal of the first
version, which was then never signed, sets the withdrawals free. Vaults have several signers: see
`custody.signing.sessions`.
"""

from __future__ import annotations

from uuid import UUID

from chains.errors import PermanentError
from custody.ports import Clock, system_clock
from custody.signing import repository
from custody.signing.recorded import record_signed, refuse, show, shown, trouble
from custody.signing.site import Site
from custody.storage.alerts import Severity
from custody.storage.db import Database
from signers.ports import Refused, Signer, SignerUnavailable


def sign(db: Database, site: Site, signer: Signer, *, clock: Clock = system_clock) -> list[UUID]:
    """Ask the signer about every recorded version that waits for it; returns the transactions that got
    signed.

    The signer is shown the approvals that are there now: of those that were there when it was built some may be over.

    Raises:
        SignerUnavailable: no answer; nothing is known, and the next call asks the same again.
        DatabaseUnavailable, Conflict: what was signed meanwhile is signed again, the same.
    """
    with db.snapshot() as tx:
        waiting = repository.to_sign(
            tx, site.chain, site.wallet.id, site.allowed(tx), except_for=site.held(tx)
        )
    done = []
    unanswered: SignerUnavailable | None = None
    for version in waiting:
        with db.snapshot() as tx:
            # What was refused meanwhile is being built anew: a signature for it now would block that for ever.
            if not repository.still_to_sign(tx, version):
                continue
        try:
            response = signer.sign(shown(db, site, version, clock()))
            signed, txid = site.finish(version, response)
        except Refused as refusal:
            with db.transaction() as tx:
                refuse(tx, site, version, refusal)
            show(signer, version, refusal)
        except SignerUnavailable as error:
            trouble(db, site, version, Severity.WARNING, "signer.unavailable", site.wallet.id, str(error))
            signer.status()  # raises where the signer itself is away
            unanswered = error
        except PermanentError as error:
            # A wrong signature, or bytes that two decoders read differently: never recorded, never sent.
            subject = str(version.transaction_id)
            trouble(db, site, version, Severity.CRITICAL, "signer.wrong_signature", subject, str(error))
        else:
            with db.transaction() as tx:
                recorded = record_signed(tx, site, version, signed, txid)
            if recorded:
                done.append(version.transaction_id)
    if unanswered is not None:
        raise unanswered
    return done
