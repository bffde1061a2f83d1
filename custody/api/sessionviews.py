"""Signing sessions as the JSON of `schemas`; base units become decimals here."""

from __future__ import annotations

from custody.api import schemas
from custody.api.views import decimal
from custody.signing.cold.asking import Asking
from custody.signing.sessions.lifecycle import SessionState
from policies.bundle import Bundle
from policies.intent import Intent, Kind


def session(bundle: Bundle, found: Asking) -> schemas.SessionOut:
    """One session, without signatures."""
    about, signed = found.session, sorted(found.session.signed)
    complete = about.state is SessionState.COMPLETE
    return schemas.SessionOut(
        id=about.id,
        wallet=about.wallet,
        chain=found.transaction.chain,
        transaction=about.transaction_id,
        version=about.version,
        kind=found.transaction.kind,
        transaction_state=found.transaction.state,
        state=about.state,
        does=[_does(bundle, intent) for intent in found.intents],
        fee=decimal(bundle, bundle.network(found.transaction.chain).native_asset, found.version.fee_units),
        threshold=about.threshold,
        members=about.members,
        signed=signed,
        missing=0 if complete else max(0, about.threshold - len(signed)),
        asked=[
            schemas.SessionMemberOut(
                member=each.member,
                asked_by=each.source,
                asked_at=each.asked_at,
                signed=each.response is not None,
                refused=each.refused,
            )
            for each in about.asked.values()
        ],
        may_confirm=about.may_confirm,
        expires_at=about.expires_at,
        created_at=about.created_at,
    )


def _does(bundle: Bundle, intent: Intent) -> schemas.SessionDoesOut:
    pays = intent.kind in (Kind.PAYMENT, Kind.REFILL)
    return schemas.SessionDoesOut(
        kind=intent.kind,
        asset=intent.asset,
        amount=decimal(bundle, intent.asset, intent.units) if pays else None,
        destination=intent.destination,
    )
