"""SQL of signing sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from chains.errors import InvalidValue
from custody.errors import Conflict, NotFound
from custody.ids import new_id
from custody.signing.sessions.lifecycle import SIGNING, SessionEvent, SessionState
from custody.signing.sessions.model import Asked, Session, Source
from custody.storage.db import Row, Tx
from signers.ports import SignResponse


def insert(
    tx: Tx,
    transaction_id: UUID,
    version: int,
    wallet: str,
    threshold: int,
    members: int,
    expires_at: int | None,
    *,
    seconds: int,
) -> None:
    """Open a session for a version that has just been recorded; it ends at `expires_at` (UNIX seconds; None: so many
    `seconds` from now)."""
    tx.execute(
        "INSERT INTO signing_sessions (id, transaction_id, version, wallet, threshold, members, state, expires_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, coalesce(%s, now() + make_interval(secs => %s)))",
        [
            new_id(),
            transaction_id,
            version,
            wallet,
            threshold,
            members,
            SessionState.OPEN,
            None if expires_at is None else datetime.fromtimestamp(expires_at, UTC),
            seconds,
        ],
    )


def find(tx: Tx, transaction_id: UUID, version: int) -> Session | None:
    """The session of a version; None: it has none, as a version of a key-set."""
    row = tx.optional(
        "SELECT * FROM signing_sessions WHERE transaction_id = %s AND version = %s", [transaction_id, version]
    )
    return None if row is None else _session(tx, row)


def get(tx: Tx, session_id: UUID) -> Session:
    """A session. Raises NotFound."""
    row = tx.optional("SELECT * FROM signing_sessions WHERE id = %s", [session_id])
    if row is None:
        raise NotFound("signing session", str(session_id))
    return _session(tx, row)


def of_content(tx: Tx, content: str) -> Session | None:
    """The session about a version with this content (64 hex digits); None: nobody was ever asked for it. What was free
    again may have been built just the same anew: then that one."""
    row = tx.optional(
        "SELECT s.* FROM signing_sessions s JOIN transaction_versions v USING (transaction_id, version)"
        " WHERE v.content = %s ORDER BY v.state = 'refused', s.created_at DESC, s.id LIMIT 1",
        [content],
    )
    return None if row is None else _session(tx, row)


def unsettled(tx: Tx, *, limit: int = 500) -> Sequence[Session]:
    """Sessions that wait for signatures, and those that ended without although a block may hold what they are about;
    oldest first."""
    rows = tx.all(
        "SELECT s.* FROM signing_sessions s JOIN transactions t ON t.id = s.transaction_id"
        " WHERE s.state IN ('open', 'collecting')"
        "  OR s.state = 'expired' AND t.state IN ('built', 'contested')"
        " ORDER BY s.created_at, s.id LIMIT %s",
        [limit],
    )
    return [_session(tx, row) for row in rows]


def lock(tx: Tx, session_id: UUID) -> Session:
    """A session, locked until the end of `tx`. Raises NotFound."""
    tx.optional("SELECT 1 FROM signing_sessions WHERE id = %s FOR UPDATE", [session_id])
    return get(tx, session_id)


def of_transaction(tx: Tx, transaction_id: UUID) -> Sequence[Session]:
    """The sessions of all versions of a transaction, oldest first."""
    rows = tx.all(
        "SELECT * FROM signing_sessions WHERE transaction_id = %s ORDER BY version", [transaction_id]
    )
    return [_session(tx, row) for row in rows]


def page(
    tx: Tx,
    *,
    wallet: str | None = None,
    state: SessionState | None = None,
    after: UUID | None = None,
    limit: int,
) -> Sequence[Session]:
    """Sessions of a wallet (None: of all) in a state (None: any) by id, which is by age: at most `limit`, beginning
    after `after`."""
    rows = tx.all(
        "SELECT * FROM signing_sessions WHERE (%(wallet)s::text IS NULL OR wallet = %(wallet)s)"
        " AND (%(state)s::text IS NULL OR state = %(state)s) AND (%(after)s::uuid IS NULL OR id > %(after)s)"
        " ORDER BY id LIMIT %(limit)s",
        {"wallet": wallet, "state": state, "after": after, "limit": limit},
    )
    return [_session(tx, row) for row in rows]


def last_signed(tx: Tx, wallet: str) -> dict[str, datetime]:
    """When each member of a vault has signed for it last; who never has is not in it."""
    rows = tx.all(
        "SELECT m.member, max(m.answered_at) AS at FROM session_members m"
        " JOIN signing_sessions s ON s.id = m.session_id"
        " WHERE s.wallet = %s AND m.answered_at IS NOT NULL GROUP BY m.member",
        [wallet],
    )
    return {row["member"]: row["at"] for row in rows}


def note_asked(tx: Tx, session: Session, member: str, source: Source) -> None:
    """Record, before it is asked, that a member is; it may sign from then on. What it said before stays until it
    answers again."""
    tx.execute(
        "INSERT INTO session_members AS m (session_id, member, source) VALUES (%s, %s, %s)"
        " ON CONFLICT (session_id, member) DO UPDATE SET refused = '', asked_at = now() WHERE m.response IS NULL",
        [session.id, member, source],
    )


def note_refused(tx: Tx, session: Session, member: str, reason: str) -> None:
    """A member's word that it has not signed."""
    tx.execute(
        "UPDATE session_members SET refused = %s WHERE session_id = %s AND member = %s AND response IS NULL",
        [reason[:500] or "refused", session.id, member],
    )


def keep(tx: Tx, session: Session, member: str, response: SignResponse) -> bool:
    """Keep a member's verified signatures, once; False if they are here already."""
    return bool(
        tx.execute(
            "UPDATE session_members SET response = %s, refused = '', answered_at = now()"
            " WHERE session_id = %s AND member = %s AND response IS NULL",
            [msgspec.json.encode(response).decode(), session.id, member],
        )
    )


def reopen(tx: Tx, session: Session, *, seconds: int) -> None:
    """Ask anew for what was not signed in time, for so many seconds from now; the caller has locked the session.

    Raises:
        ImpossibleTransition: it is not over.
        Conflict: it has left the state that the caller saw.
    """
    apply(tx, session, SessionEvent.REOPEN)
    tx.execute(
        "UPDATE signing_sessions SET expires_at = now() + make_interval(secs => %s) WHERE id = %s",
        [seconds, session.id],
    )
    if session.signed:
        apply(tx, get(tx, session.id), SessionEvent.COLLECT)


def apply(tx: Tx, session: Session, event: SessionEvent) -> SessionState:
    """Move it by `event`.

    Raises:
        ImpossibleTransition: the event cannot happen in this state.
        Conflict: it has left the state that the caller saw.
    """
    target = SIGNING.next(session.state, event)
    moved = tx.execute(
        "UPDATE signing_sessions SET state = %s, updated_at = now() WHERE id = %s AND state = %s",
        [target, session.id, session.state],
    )
    if not moved:
        raise Conflict(f"signing session {session.id} is no longer {session.state}")
    return target


def _session(tx: Tx, row: Row) -> Session:
    members = tx.all("SELECT * FROM session_members WHERE session_id = %s ORDER BY member", [row["id"]])
    return Session(
        id=row["id"],
        transaction_id=row["transaction_id"],
        version=row["version"],
        wallet=row["wallet"],
        threshold=row["threshold"],
        members=row["members"],
        state=SessionState(row["state"]),
        expires_at=row["expires_at"],
        asked={each["member"]: _asked(each) for each in members},
        created_at=row["created_at"],
    )


def _asked(row: Row) -> Asked:
    return Asked(
        member=row["member"],
        source=Source(row["source"]),
        asked_at=row["asked_at"],
        response=None if row["response"] is None else _response(row["response"]),
        refused=row["refused"],
    )


def _response(text: str) -> SignResponse:
    try:
        return msgspec.json.decode(text, type=SignResponse)
    except msgspec.MsgspecError as error:
        raise InvalidValue(f"recorded signatures: {error}") from None
