"""Whether the record of operators' actions is whole: nothing changed, left out, or said in somebody else's name.

Every row has the hash of the one before, and what its operator signed, which names the newest row that he saw. So who
can write to the database, its owner included, can forge no row without that operator's key, and can edit or delete none
that any operator has signed after. What was cut off at the end is found by whoever kept the head of an earlier look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import msgspec

from chains.errors import InvalidValue
from custody.audit import repository, seconding
from custody.audit.errors import NotDone
from custody.audit.model import BEGINNING, Outcome, Record, Via, signed_by
from custody.audit.permission import misrepresented, permit
from custody.officers import repository as bundles
from custody.officers import service as officers
from custody.storage.db import Tx
from policies.administration import Act
from policies.bundle import Bundle, TrustRoot

_PAGE: Final = 500
_RACE_SECONDS: Final = 60
"""Between an operator's look at an empty record and his own row in it."""
_SLOW_SECONDS: Final = 24 * 3600
"""Between clocks of processes and the database's."""
_BY_API: Final = {"bump": re.compile(r"/v1/withdrawals/[0-9a-f-]{36}/bump")}
"""Paths of what is done through the API."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a row."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look at the whole record found."""

    rows: int
    head: tuple[int, str]
    """Number and hash of the last row: keep them elsewhere, and give them to the next look."""
    findings: tuple[Finding, ...]


@dataclass(slots=True)
class _Walk:
    tx: Tx
    root: TrustRoot
    rows: int = 0
    number: int = 0
    hash: str = BEGINNING
    began: datetime | None = None
    seen: dict[str, int] = field(default_factory=dict)
    signatures: set[str] = field(default_factory=set)
    bundles: dict[int, Bundle | None] = field(default_factory=dict)


def verify(tx: Tx, root: TrustRoot, *, known: tuple[int, str] | None = None) -> Verified:
    """Look at every row.

    Args:
        tx: a snapshot.
        root: the pinned quorum, by which bundles are believed that say who was an operator.
        known: number and hash of the last row at an earlier look.
    """
    walk = _Walk(tx, root)
    findings: list[Finding] = []
    while rows := repository.page(tx, after=walk.number, limit=_PAGE):
        for row in rows:
            findings += [Finding(row.number, text) for text in _wrong(walk, row)]
            walk.rows += 1
            walk.number, walk.hash = row.number, row.computed_hash()
            walk.seen[walk.hash] = row.number
    if known is not None and known[0] > 0 and walk.seen.get(known[1]) != known[0]:
        findings.append(Finding(known[0], "this row is not the one that was known, or it is gone"))
    return Verified(walk.rows, (walk.number, walk.hash), tuple(findings))


def _wrong(walk: _Walk, row: Record) -> Iterator[str]:
    if row.number != walk.number + 1:
        yield f"rows {walk.number + 1} to {row.number - 1} are gone"
    elif row.previous != walk.hash:
        yield "the row before it is another one than when it was written"
    if row.computed_hash() != row.hash:
        yield "it was changed"
    walk.began = walk.began or row.at
    if row.signature in walk.signatures:
        yield "what was signed is here twice"
    walk.signatures.add(row.signature)
    trouble = misrepresented(row)
    if trouble is not None:
        yield trouble
        return
    yield from _out_of_place(walk, row)
    if row.outcome in (Outcome.DONE, Outcome.ASKED):
        yield from _not_allowed(walk, row)


def _out_of_place(walk: _Walk, row: Record) -> Iterator[str]:
    """Whether what was signed was signed for this place."""
    signed = signed_by(row)
    if isinstance(signed, Act):
        early = walk.began is not None and signed.issued_at <= walk.began.timestamp() + _RACE_SECONDS
        if signed.seen not in walk.seen and not (signed.seen == BEGINNING and early):
            yield "the row that its operator saw last is gone, or was changed"
    elif row.outcome == Outcome.DONE:
        path = _BY_API.get(row.action)
        if path is None or not path.fullmatch(signed.path):
            yield f"its token is for {signed.method} {signed.path}, which is not {row.action}"
    if (row.writer == "strongroom_api") != (row.via == Via.API):
        yield f"{row.writer} wrote it, and it came by {row.via}"


def _not_allowed(walk: _Walk, row: Record) -> Iterator[str]:
    """Whether the bundle of that time let this person do it: roles, the policy, and the approvals it asked for."""
    bundle = None
    if row.bundle_version is not None:
        bundle = _bundle(walk, row.bundle_version)
        if bundle is None:
            yield f"bundle {row.bundle_version}, by which it was done, was never in force here"
            return
    now = _decided_at(row)
    if abs(now - row.at.timestamp()) > _SLOW_SECONDS:
        yield "it was decided long before, or after, it was done"
    try:
        permission = permit(row, bundle, now=now)
    except (NotDone, InvalidValue) as error:
        yield f"it was not allowed: {error}"
        return
    if row.outcome == Outcome.DONE and bundle is not None and seconding.needed(permission):
        asked = None if row.asked_in is None else repository.find(walk.tx, row.asked_in)
        lacking = seconding.lacking_of(walk.tx, asked, permission, bundle, now=int(row.at.timestamp()))
        same = asked is not None and (asked.via, asked.action, asked.parameters) == (
            row.via,
            row.action,
            row.parameters,
        )
        if lacking or not same:
            yield f"it was done without {lacking or 'having been asked for'}"


def _decided_at(row: Record) -> int:
    """When the policy was asked, UNIX seconds; for what it was not asked about, when it was done."""
    decision = {} if row.decision is None else msgspec.json.decode(row.decision)
    found = decision.get("facts", {}).get("now")
    return found if isinstance(found, int) else int(row.at.timestamp())


def _bundle(walk: _Walk, version: int) -> Bundle | None:
    """The bundle of a version that was in force."""
    if version not in walk.bundles:
        stored = (
            officers.in_its_time(each.document, walk.root) for each in bundles.of_version(walk.tx, version)
        )
        walk.bundles[version] = next((each for each in stored if each is not None), None)
    return walk.bundles[version]
