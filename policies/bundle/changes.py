"""The next bundle, drafted from the present one, for officers to read and sign. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from chains.errors import InvalidValue
from policies.bundle.checks import check_consistent
from policies.bundle.document import Bundle
from policies.bundle.wallets import GasPayer, KeysetEntry, KeyState, WalletEntry


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
    present: Bundle, wallet: str, state: KeyState, successor: WalletEntry | None, *, now: int, lasts: int
) -> Bundle:
    """The bundle in which a key-set, vault or gas payer is no longer active, and another one follows it.

    Args:
        present: the bundle in force.
        wallet: what ends, by its id.
        state: what it becomes: `suspended`, `deactivated`, `compromised` or `destroyed`.
        successor: which is active from now on, of the same sort, on the same chain and in the same tier; None: there is
            none yet, or it is listed already.
        now: UNIX seconds; when the draft is made.
        lasts: seconds until the draft expires.

    Raises:
        InvalidValue: no such wallet, one of another sort, chain or tier as successor, or the outcome is inconsistent.
    """
    if state in ("pre-active", "active"):
        raise InvalidValue(f"{wallet}: a wallet that was used does not become {state} again by this")
    old = present.wallet(wallet)
    if successor is not None and _place(successor) != _place(old):
        told = ("is of {}, {} ({})".format(*_place(each)) for each in (successor, old))
        raise InvalidValue(f"{successor.id} {next(told)}: it cannot follow {old.id}, which {next(told)}")
    changed: dict[str, tuple[WalletEntry, ...]] = {}
    for field in ("keysets", "vaults", "gas_payers"):
        entries: tuple[WalletEntry, ...] = getattr(present, field)
        if old in entries:
            changed[field] = _followed(entries, old, state, successor, now)
    draft = msgspec.structs.replace(present, **changed)
    named = {entry.id for entry in draft.wallets}
    breakers = tuple(
        msgspec.structs.replace(breaker, keysets=_with(breaker.keysets, wallet, successor, named))
        for breaker in present.breakers
    )
    return successor_of(msgspec.structs.replace(draft, breakers=breakers), now=now, lasts=lasts)


def _place(entry: WalletEntry) -> tuple[str, str, str]:
    """Chain, tier and sort: only what has the same can follow."""
    if isinstance(entry, GasPayer):
        return entry.chain, entry.tier, "gas payer"
    return entry.chain, entry.tier, "key-set" if isinstance(entry, KeysetEntry) else "vault"


def _followed(
    entries: Iterable[WalletEntry], old: WalletEntry, state: KeyState, successor: WalletEntry | None, now: int
) -> tuple[WalletEntry, ...]:
    """A list of wallets with one in another state, and what follows it, active, at the end."""
    kept = [msgspec.structs.replace(each, state=state) if each is old else each for each in entries]
    if successor is None:
        return tuple(kept)
    follows = msgspec.structs.replace(successor, state="active", active_from=now)
    return (*(each for each in kept if each.id != successor.id), follows)


def _with(
    keysets: tuple[str, ...], old: str, successor: WalletEntry | None, named: set[str]
) -> tuple[str, ...]:
    """A successor is under the breaker of what it follows."""
    if successor is None or old not in keysets or successor.id in keysets:
        return keysets
    return (*(keyset for keyset in keysets if keyset in named), successor.id)
