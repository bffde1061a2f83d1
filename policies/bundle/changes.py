"""The next bundle, drafted from the present one, for officers to read and sign. Pure."""

from __future__ import annotations

import msgspec

from chains.errors import InvalidValue
from policies.bundle.checks import check_consistent
from policies.bundle.document import Bundle
from policies.bundle.wallets import KeysetEntry, KeyState


def successor_of(present: Bundle, *, now: int, lasts: int, in_force_from: int = 0) -> Bundle:
    """The same under the next version.

    Args:
        present: the bundle in force.
        now: UNIX seconds; when the draft is made.
        lasts: seconds until it expires.
        in_force_from: UNIX seconds until which it waits, if officers' time to veto has not made it wait longer.

    Raises:
        InvalidValue: it would be inconsistent, such as one that expires before it begins.
    """
    draft = msgspec.structs.replace(
        present,
        version=present.version + 1,
        issued_at=now,
        expires_at=now + lasts,
        in_force_from=in_force_from,
    )
    check_consistent(draft)
    return draft


def retired(
    present: Bundle, keyset: str, state: KeyState, successor: KeysetEntry | None, *, now: int, lasts: int
) -> Bundle:
    """The bundle in which a key-set is no longer active, and another one follows it.

    Args:
        present: the bundle in force.
        keyset: the key-set that ends.
        state: what it becomes: `suspended`, `deactivated`, `compromised` or `destroyed`.
        successor: which is active from now on, on the same chain and in the same tier; None: there is none yet, or it
            is listed already.
        now: UNIX seconds; when the draft is made.
        lasts: seconds until the draft expires.

    Raises:
        InvalidValue: no such key-set, one of another chain or tier as successor, or the outcome is inconsistent.
    """
    entries = list(present.keysets)
    old = present.keyset(keyset)
    if state in ("pre-active", "active"):
        raise InvalidValue(f"{keyset}: a key-set that was used does not become {state} again by this")
    entries[entries.index(old)] = msgspec.structs.replace(old, state=state)
    if successor is not None:
        if (successor.chain, successor.tier) != (old.chain, old.tier):
            raise InvalidValue(
                f"{successor.id} is of {successor.chain}, {successor.tier}: it cannot follow one of {old.chain}, "
                f"{old.tier}"
            )
        follows = msgspec.structs.replace(successor, state="active", active_from=now)
        entries = [entry for entry in entries if entry.id != successor.id]
        entries.append(follows)
    named = {entry.id for entry in entries}
    breakers = tuple(
        msgspec.structs.replace(breaker, keysets=_with(breaker.keysets, keyset, successor, named))
        for breaker in present.breakers
    )
    return successor_of(
        msgspec.structs.replace(present, keysets=tuple(entries), breakers=breakers), now=now, lasts=lasts
    )


def _with(
    keysets: tuple[str, ...], old: str, successor: KeysetEntry | None, named: set[str]
) -> tuple[str, ...]:
    """A successor is under the breaker of what it follows."""
    if successor is None or old not in keysets or successor.id in keysets:
        return keysets
    return (*(keyset for keyset in keysets if keyset in named), successor.id)
