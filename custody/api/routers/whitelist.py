"""Whitelists: ask for an entry, confirm, read, remove; and prove whose a destination is."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.ports import Step
from custody.storage.db import Tx
from custody.web import paging
from custody.whitelist import proofs, service
from custody.whitelist.model import Entry
from policies.statements import SignedWhitelistEntry, WhitelistEntry

router = APIRouter(prefix="/v1/whitelist", tags=["whitelist"])
challenges = APIRouter(prefix="/v1/ownership-challenges", tags=["whitelist"])
"""Apart, for `PUT /v1/whitelist/challenges` would name an entry."""

Writer = Annotated[Call, Depends(needs(Scope.WHITELIST_WRITE))]
Reader = Annotated[Call, Depends(needs(Scope.WHITELIST_READ))]


@router.put("/{entry}", response_model=schemas.EntryOut)
def request_entry(call: Writer, entry: schemas.UuidText, body: schemas.NewEntry) -> Response:
    """Ask for an entry under an id of yours. The same again changes nothing."""
    keys = None if call.services.sealing is None else call.services.sealing()

    def effect(tx: Tx) -> schemas.EntryOut:
        found = service.request(
            tx,
            UUID(entry),
            owner=body.owner,
            chain=body.chain,
            address=body.address,
            label=body.label,
            provenance=body.provenance,
            caller=call.caller,
            bundle=call.bundle,
            keys=keys,
        )
        return _shown(tx, call, found, label=body.label)

    return call.put(effect)


@router.post("/{entry}/confirm", response_model=schemas.EntryOut)
def confirm_entry(call: Writer, entry: schemas.UuidText, body: schemas.NewConfirmation) -> Response:
    """Confirm an entry with your signature. It cools from the moment a worker has verified it; an entry of the house:
    from the moment an operator has accepted it."""
    signed = SignedWhitelistEntry(WhitelistEntry.from_object(body.entry.model_dump()), body.signature)

    def effect(tx: Tx) -> schemas.EntryOut:
        return _shown(
            tx, call, service.confirm(tx, UUID(entry), signed, call.caller, call.bundle, now=call.now)
        )

    return call.ring(Step.ROUTE, call.write(200, effect))


@router.post("/{entry}/remove", response_model=schemas.EntryOut)
def remove_entry(call: Writer, entry: schemas.UuidText, body: schemas.Empty | None = None) -> Response:
    """Remove an entry, at once. What was let through to it, and is not signed, is decided again."""

    def effect(tx: Tx) -> schemas.EntryOut:
        return _shown(tx, call, service.remove(tx, UUID(entry), by=call.caller.id))

    return call.ring(Step.ROUTE, call.write(200, effect))


@router.get("/{entry}", response_model=schemas.EntryOut)
def show_entry(call: Reader, entry: schemas.UuidText) -> Response:
    """One entry, with its label."""
    with call.reading() as tx:
        found = service.get(tx, UUID(entry))
        return views.answer(_shown(tx, call, found, label=_label(call, found)))


@router.get("", response_model=schemas.Page[schemas.EntryOut])
def list_entries(
    call: Reader,
    owner: Annotated[schemas.NameText, Query(description="The customer, or `house`.")],
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """An owner's entries, by id, removed ones too."""
    position = paging.decode_uuid("whitelist", after)
    with call.reading() as tx:
        found = service.page(tx, owner=owner, after=position, limit=limit + 1)
        shown = [_shown(tx, call, each, label=_label(call, each)) for each in found]
    return views.page("whitelist", shown, limit, lambda item: item, lambda item: str(item.id))


@challenges.post("", status_code=201, response_model=schemas.ChallengeOut)
def new_challenge(call: Writer, body: schemas.NewChallenge) -> Response:
    """A text for the key of a destination to sign, where a rule asks for a proof of whose it is."""

    def effect(tx: Tx) -> schemas.ChallengeOut:
        return views.challenge(
            proofs.challenge(
                tx,
                call.bundle,
                owner=body.owner,
                chain=body.chain,
                address=body.address,
                service=call.services.audience,
                now=call.now,
            )
        )

    return call.write(201, effect)


@challenges.post("/{challenge}/proof", response_model=schemas.ChallengeOut)
def give_proof(call: Writer, challenge: schemas.UuidText, body: schemas.NewProof) -> Response:
    """Hand in the signature of a challenge. The same again changes nothing."""

    def effect(tx: Tx) -> schemas.ChallengeOut:
        return views.challenge(proofs.prove(tx, call.bundle, UUID(challenge), body.signature, now=call.now))

    return call.write(200, effect)


def _label(call: Call, entry: Entry) -> str | None:
    return service.label_of(entry, None if call.services.sealing is None else call.services.sealing())


def _shown(tx: Tx, call: Call, entry: Entry, *, label: str | None = None) -> schemas.EntryOut:
    # Answers to POST are kept for repetitions: no label is in them.
    alike = service.similar(tx, entry.owner, entry.chain, entry.address, call.services.ends)
    return views.whitelist_entry(entry, call.bundle, alike, label, now=call.now)
