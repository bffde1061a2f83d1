"""Whitelists: asking for an entry, confirming it, listing it, removing it, and what the policy is told about it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from chains.errors import InvalidValue, PermanentError
from custody.customers import service as customers
from custody.errors import NotFound
from custody.storage import alerts, events
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.storage.sealing import Keys
from custody.whitelist import proofs, repository
from custody.whitelist.errors import AlreadyListed, DuplicateEntry, EntryMismatch
from custody.whitelist.lifecycle import (
    WHITELIST,
    EntryEvent,
    EntryState,
    Standing,
    cooling_seconds,
    standing,
)
from custody.whitelist.lookalikes import ENDS, Ends, lookalikes
from custody.whitelist.model import Destination, Entry
from custody.withdrawals.destinations import destination_of
from custody.withdrawals.orders import SIGNING_SCOPE
from policies.bundle import Bundle, Caller
from policies.facts import Whitelist
from policies.rules import HOUSE
from policies.statements import SignedWhitelistEntry, WhitelistEntry

BATCH = 200
TAMPERED = "whitelist.tampered"
LOOKALIKE = "destination.lookalike"


def request(
    tx: Tx,
    entry_id: UUID,
    *,
    owner: str,
    chain: str,
    address: str,
    label: str | None,
    provenance: str,
    caller: Caller,
    bundle: Bundle,
    keys: Keys | None,
) -> Entry:
    """Ask for an entry. The same again changes nothing. Nothing follows from it until a caller has signed it.

    Args:
        entry_id: chosen by the caller.
        owner: a customer, or `house`.
        address: in its canonical form.
        label: for people; sealed.
        provenance: how the caller came by the address.
        caller: who was authenticated.
        keys: seal the label; only needed where there is one.

    Raises:
        UnknownCustomer, InvalidAddress, OrderMismatch: owner or address is none, or not written as it must be.
        InvalidValue: the bundle has no such chain, or there are no keys for a label.
        DuplicateEntry: the id is taken by other content.
        AlreadyListed: the owner has an entry for this address.
    """
    if owner != HOUSE:
        customers.get(tx, owner)
    destination_of(bundle, chain, address)
    if label is not None and keys is None:
        raise InvalidValue("label: this installation has no sealing keys, so it takes in no labels")
    sealed = None
    if label is not None and keys is not None:
        sealed = keys.seal(repository.place_of(entry_id), label.encode())
    added = repository.insert(
        tx,
        entry_id,
        owner=owner,
        chain=chain,
        address=address,
        label=sealed,
        provenance=provenance,
        requested_by=caller.id,
    )
    found = repository.find(tx, entry_id)
    if found is None:
        taken = repository.present(tx, owner, chain, address)
        raise AlreadyListed(str(taken.id) if taken is not None else "another")
    if added:
        _tell(tx, "whitelist.requested", found, by=caller.id)
    elif (found.owner, found.chain, found.address, found.provenance, found.requested_by) != (
        owner,
        chain,
        address,
        provenance,
        caller.id,
    ) or label_of(found, keys) != label:
        raise DuplicateEntry(str(entry_id))
    return found


def confirm(
    tx: Tx, entry_id: UUID, signed: SignedWhitelistEntry, caller: Caller, bundle: Bundle, *, now: int
) -> Entry:
    """Take a caller's signed word for an entry. A worker lists it next, and then it cools. Again changes nothing.

    Raises:
        NotFound: there is none.
        EntryMismatch: the document is not about this entry, or its caller may not sign.
        BadSignature: not signed by the caller's key.
        ImpossibleTransition: it is confirmed by another document, or removed.
    """
    entry = _locked(tx, entry_id)
    _check(entry, signed, bundle, now=now)
    if signed.entry.caller != caller.id:
        raise EntryMismatch("caller", caller.id, signed.entry.caller)
    if entry.state is not EntryState.REMOVED and entry.document == signed.entry.canonical().decode():
        return entry
    entry = repository.confirm(tx, entry, signed)
    _tell(tx, "whitelist.confirmed", entry, by=caller.id)
    return entry


def remove(tx: Tx, entry_id: UUID, *, by: str) -> Entry:
    """Remove an entry at once: what was let through to it and is not signed is decided again. Again changes nothing.

    Raises:
        NotFound: there is none.
    """
    entry = _locked(tx, entry_id)
    if entry.state is EntryState.REMOVED:
        return entry
    entry = repository.remove(tx, entry, by=by)
    _tell(tx, "whitelist.removed", entry, by=by)
    return entry


def get(tx: Tx, entry_id: UUID) -> Entry:
    """The entry. Raises NotFound."""
    entry = repository.find(tx, entry_id)
    if entry is None:
        raise NotFound("whitelist entry", str(entry_id))
    return entry


def page(tx: Tx, *, owner: str, after: UUID | None, limit: int) -> Sequence[Entry]:
    """At most `limit` entries of an owner by id, beginning after `after`."""
    return repository.page(tx, owner=owner, after=after, limit=limit)


def label_of(entry: Entry, keys: Keys | None) -> str | None:
    """An entry's label; None if it has none. Raises CannotOpen."""
    if entry.label is None:
        return None
    if keys is None:
        raise InvalidValue("label: this installation has no sealing keys")
    return keys.open(repository.place_of(entry.id), entry.label).decode()


def standing_of(entry: Entry, bundle: Bundle, *, now: int) -> Standing:
    """What an entry is good for now (UNIX seconds)."""
    return standing(entry.state, entry.listed_seconds, cooling_seconds(bundle.policy), now=now)


def similar(tx: Tx, owner: str, chain: str, address: str, ends: Ends = ENDS) -> tuple[str, ...]:
    """Addresses that an owner has known for longer than this one, and that it could be taken for."""
    since = repository.known_since(tx, owner, chain, address)
    known = repository.known(tx, owner, chain, address[-ends.tail :], until=since)
    return lookalikes(address, known, ends)


def list_confirmed(db: Database, bundle: Bundle, *, now: int, ends: Ends = ENDS) -> int:
    """List what callers have signed: from now on it cools, and its destination is known. Returns how many.

    Entries of the house wait for an operator: `accept`.

    Args:
        db: as the workers' role.
        now: UNIX seconds.
        ends: how much of an address people look at.
    """
    with db.snapshot() as tx:
        ids = repository.unlisted(tx, limit=BATCH)
    done = 0
    for entry_id in ids:
        with db.transaction() as tx:
            entry = repository.lock(tx, entry_id)
            if entry is None or entry.state is not EntryState.CONFIRMED:
                continue
            try:
                _list(tx, entry, bundle, now=now, ends=ends)
                done += 1
            except PermanentError as error:
                _report(tx, entry, error)
    return done


def accept(tx: Tx, entry_id: UUID, bundle: Bundle, *, by: str, now: int) -> Entry:
    """List an entry of the house: an operator's decision. Again changes nothing.

    Args:
        tx: as the workers' role.
        by: the operator.
        now: UNIX seconds.

    Raises:
        NotFound: there is none.
        InvalidValue: a customer's, which needs nobody.
        ImpossibleTransition: nobody has confirmed it, or it is removed.
        PermanentError: the stored entry is not what a caller has signed.
    """
    entry = _locked(tx, entry_id)
    if entry.owner != HOUSE:
        raise InvalidValue(f"entry {entry_id} is of customer {entry.owner}: it is listed without an operator")
    if entry.state is EntryState.LISTED:
        return entry
    WHITELIST.next(entry.state, EntryEvent.LIST)
    return _list(tx, entry, bundle, now=now, by=by)


def _list(tx: Tx, entry: Entry, bundle: Bundle, *, now: int, ends: Ends = ENDS, **more: str) -> Entry:
    signed_entry(entry, bundle)
    repository.note(tx, entry.owner, entry.chain, entry.address, now=now)
    alike = similar(tx, entry.owner, entry.chain, entry.address, ends)
    if alike:
        warn(tx, str(entry.id), entry.address, alike)
    entry = repository.mark_listed(tx, entry, now=now)
    _tell(tx, "whitelist.listed", entry, **more)
    return entry


def signed_entry(entry: Entry, bundle: Bundle) -> SignedWhitelistEntry:
    """What a caller has signed, if the stored row still says the same.

    Raises:
        PermanentError: a column was changed, the signature is not that of a caller who may sign, or nobody has signed.
    """
    if entry.document is None or entry.signature is None:
        raise EntryMismatch("document", "a signed one", "none")
    document = WhitelistEntry.from_canonical(entry.document.encode())
    signed = SignedWhitelistEntry(entry=document, signature=entry.signature)
    _check(entry, signed, bundle, now=None)
    return signed


def _check(entry: Entry, signed: SignedWhitelistEntry, bundle: Bundle, *, now: int | None) -> None:
    """Raises PermanentError unless a caller who may sign orders has signed this entry.

    What was signed before the caller's end stays good: `now` is given where it is signed now.
    """
    told = signed.entry
    for field, found, expected in (
        ("id", told.id, str(entry.id)),
        ("owner", told.owner, entry.owner),
        ("chain", told.chain, entry.chain),
        ("address", told.address, entry.address),
    ):
        if found != expected:
            raise EntryMismatch(field, expected, found)
    caller = bundle.caller(told.caller)
    if SIGNING_SCOPE not in caller.scopes:
        raise EntryMismatch("caller", f"one with the scope {SIGNING_SCOPE}", caller.id)
    if now is not None and now >= caller.not_after:
        raise EntryMismatch("caller", "one whose key is still valid", caller.id)
    signed.verify(caller.key)
    destination_of(bundle, told.chain, told.address)


def note_destination(tx: Tx, owner: str, chain: str, address: str, *, now: int) -> None:
    """A genuine order names this destination: from now on (UNIX seconds) it is known, unless it is known longer."""
    repository.note(tx, owner, chain, address, now=now)


def look_up(
    tx: Tx, bundle: Bundle, owner: str, chain: str, address: str, *, now: int, ends: Ends = ENDS
) -> Destination:
    """What is known of a destination. An entry that is not what a caller signed counts as none, with an alert.

    Args:
        owner: who pays.
        address: exactly this text.
        now: UNIX seconds.
        ends: how much of an address people look at.
    """
    entry = repository.present(tx, owner, chain, address)
    listed = Whitelist.ABSENT
    if entry is not None and entry.state is EntryState.LISTED:
        try:
            signed_entry(entry, bundle)
        except PermanentError as error:
            _report(tx, entry, error)
        else:
            usable = standing_of(entry, bundle, now=now) is Standing.USABLE
            listed = Whitelist.USABLE if usable else Whitelist.COOLING
    since = repository.known_since(tx, owner, chain, address)
    return Destination(
        whitelist=listed,
        age_seconds=0 if since is None else max(0, now - since),
        ownership_proof=proofs.is_proved(tx, bundle, owner, chain, address),
        lookalikes=() if listed is Whitelist.USABLE else similar(tx, owner, chain, address, ends),
    )


def warn(tx: Tx, subject: str, address: str, alike: Sequence[str]) -> None:
    """Tell people that an address looks like a known one."""
    alerts.raise_alert(
        tx,
        Severity.WARNING,
        LOOKALIKE,
        subject,
        f"{address} begins and ends like {', '.join(alike[:5])}, and is another address",
        {"address": address, "known": list(alike[:20])},
    )


def _locked(tx: Tx, entry_id: UUID) -> Entry:
    entry = repository.lock(tx, entry_id)
    if entry is None:
        raise NotFound("whitelist entry", str(entry_id))
    return entry


def _report(tx: Tx, entry: Entry, error: PermanentError) -> None:
    alerts.raise_alert(
        tx,
        Severity.CRITICAL,
        TAMPERED,
        str(entry.id),
        f"the stored entry is not what a present caller has signed: {error}"[:1000],
        {},
    )


def _tell(tx: Tx, type: str, entry: Entry, **more: str) -> None:
    data = {"owner": entry.owner, "chain": entry.chain, "address": entry.address, **more}
    events.emit(tx, type, str(entry.id), data)
