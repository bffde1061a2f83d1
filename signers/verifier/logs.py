"""Keeps a copy of each signer's own log, and notices a signer whose log went back or became another one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import msgspec

from chains.errors import InvalidValue, PermanentError, StrongroomError
from policies.bundle import BitcoinVault, Bundle, EvmVault, Vault
from policies.canonical import Hex32, Name, decoder_for
from policies.intent import Kind
from signers.journal.logchain import FIRST_HEAD, LogBroken, Place, follow
from signers.ports import LogEntry, LogPage, LogPayment, LogRequest, SignerUnavailable, Witness
from signers.verifier.model import Finding
from signers.verifier.state import State

ROLLED_BACK: Final = "rolled-back"


def wall_clock() -> int:
    """UNIX seconds."""
    return int(time.time())


class TransactionBody(msgspec.Struct, frozen=True, kw_only=True):
    """What a log entry tells of a signed transaction."""

    chain: Name
    content: Hex32
    keyset: Name
    payments: tuple[LogPayment, ...]


class LogUnreadable(PermanentError):
    """A log that cannot be checked or understood: nothing is known of what its signer has signed."""


class LogKeeper:
    """Copies of signers' logs. Again changes nothing.

    Args:
        state: where they are kept.
        keys: by signer, the key that signs its log, for those whose key-sets have none in the bundle.
        now: tells the time, UNIX seconds.
    """

    def __init__(
        self, state: State, keys: Mapping[str, str] | None = None, now: Callable[[], int] = wall_clock
    ) -> None:
        self._state, self._keys, self._now = state, keys or {}, now
        self._read_at: dict[str, int] = {}
        self._locks: dict[str, threading.Lock] = {}

    def read(self, signer: str, witness: Witness, bundle: Bundle) -> None:
        """Take over what is new in a signer's log.

        Args:
            signer: its name in the configuration.
            witness: the signer.
            bundle: names the attestation key that signs the log's head.

        Raises:
            LogBroken: the log went back, forked, or is another journal's.
            LogUnreadable: its head is not signed by a key-set of the bundle, or its entries are not understood.
            SignerUnavailable: no answer; what was read stays.
        """
        # Two that read at once would both write what comes next.
        with self._locks.setdefault(signer, threading.Lock()):
            began = self._now()
            try:
                while self._read_page(signer, witness, bundle):
                    pass
            except BaseException:
                self._read_at.pop(signer, None)
                raise
            self._read_at[signer] = began

    def read_at(self, signer: str) -> int | None:
        """When the last reading of a signer's log began, if it came to the log's end; else None."""
        return self._read_at.get(signer)

    def _read_page(self, signer: str, witness: Witness, bundle: Bundle) -> bool:
        """One page; whether there may be more."""
        seen = self.place(signer)
        page = witness.log(LogRequest(after=seen.number))
        try:
            after = follow(page, seen, self._key_of(signer, page, bundle))
        except LogBroken as error:
            self._state.write(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, ?)",
                signer,
                seen.journal,
                seen.number,
                seen.head,
                str(error),
            )
            raise
        except (PermanentError, msgspec.MsgspecError) as error:
            raise LogUnreadable(f"log of {signer}: {error}") from error
        self._keep(signer, page, after)
        return bool(page.entries)

    def place(self, signer: str) -> Place:
        """How far a signer's log was read."""
        row = self._state.row("SELECT journal, number, head FROM places WHERE signer = ?", signer)
        return (
            Place(journal="", number=0, head=FIRST_HEAD)
            if row is None
            else Place(journal=row[0], number=row[1], head=row[2])
        )

    def broken(self) -> tuple[Finding, ...]:
        """Signers whose log was found to have gone back, and has not gone on from where it was since."""
        return tuple(
            Finding(ROLLED_BACK, "", signer, detail)
            for signer, detail in self._state.rows("SELECT signer, broken FROM places WHERE broken <> ''")
        )

    def signed_at(self, chain: str, content: str) -> int | None:
        """When a transaction was signed, by the signer's own clock; None if no log tells of it."""
        row = self._state.row(
            "SELECT min(l.at) FROM payments p JOIN logs l ON l.signer = p.signer AND l.number = p.number"
            " WHERE p.chain = ? AND p.content = ?",
            chain,
            content,
        )
        return None if row is None else row[0]

    def _key_of(self, signer: str, page: LogPage, bundle: Bundle) -> str:
        if signer in self._keys:
            return self._keys[signer]
        wallet = bundle.wallet(page.head.keyset)
        if isinstance(wallet, BitcoinVault | EvmVault):
            raise InvalidValue(
                f"{wallet.id} has no attestation key in the bundle: write log_key for this signer"
            )
        return wallet.attestation_key

    def _keep(self, signer: str, page: LogPage, after: Place) -> None:
        payments = [row for entry in page.entries for row in _payments(signer, entry)]
        with self._state.change():
            self._state.write_many(
                "INSERT INTO logs VALUES (?, ?, ?, ?, ?, ?)",
                [(signer, e.number, e.at, e.what, bytes(e.body), e.head) for e in page.entries],
            )
            self._state.write_many("INSERT INTO payments VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", payments)
            self._state.write(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?, '')",
                signer,
                after.journal,
                after.number,
                after.head,
            )


def read_all(
    keeper: LogKeeper, signers: Mapping[str, Witness], bundle: Bundle
) -> tuple[list[Finding], dict[str, StrongroomError]]:
    """Read all logs; returns what was found, and by signer why it could not be read: `SignerUnavailable` or
    `LogUnreadable`."""
    findings: list[Finding] = []
    silent: dict[str, StrongroomError] = {}
    for name, witness in signers.items():
        try:
            keeper.read(name, witness, bundle)
        except LogBroken as error:
            findings.append(Finding(ROLLED_BACK, "", name, str(error)))
        except (SignerUnavailable, LogUnreadable) as error:
            silent[name] = error
    return findings, silent


def untold(
    silent: Mapping[str, StrongroomError], member_of: Mapping[str, Collection[str]], bundle: Bundle
) -> dict[str, str]:
    """Of signers that are silent, those of which something could have been signed that no other log tells of, with why.

    Who signs for vaults only, as one of fewer than it takes, is none of them: each transaction is in another's log too.

    Args:
        silent: by signer, as `read_all` gives them.
        member_of: by signer that has keys of vaults' members and of nothing else, those vaults.
        bundle: says how many sign for a vault.
    """
    vaults = {vault.id: vault.threshold for vault in bundle.vaults}
    away = {
        name
        for name, error in silent.items()
        if isinstance(error, SignerUnavailable)
        and member_of.get(name)
        and set(member_of[name]) <= vaults.keys()
    }
    too_many = {
        name
        for vault, threshold in vaults.items()
        for members in [{name for name in away if vault in member_of[name]}]
        if len(members) >= threshold
        for name in members
    }
    return {name: str(error) for name, error in silent.items() if name not in away - too_many}


class MemberLogs:
    """What is known of vaults' members by their own logs.

    Args:
        state: what the logs tell.
        keeper: knows when they were read.
        member_of: see `untold`.
    """

    def __init__(self, state: State, keeper: LogKeeper, member_of: Mapping[str, Collection[str]]) -> None:
        self._state, self._keeper, self._member_of = state, keeper, member_of

    def would_tell(self, vault: Vault) -> bool:
        """Whether whatever has enough signatures of this vault is in a log that was just read."""
        heard = [name for name in self._signers(vault) if self._keeper.read_at(name) is not None]
        return _members(vault) - len(heard) < vault.threshold

    def too_few(self, vault: Vault, chain: str, content: str, since: int) -> bool:
        """Whether fewer members than it takes have signed a transaction. Those without a log count as if they had, and
        so do those whose log was not read since a time, UNIX seconds, after which none of them signs it."""
        rows = self._state.rows(
            "SELECT DISTINCT signer FROM payments WHERE chain = ? AND content = ?", chain, content
        )
        innocent = {name for name in self._signers(vault) if (self._keeper.read_at(name) or 0) > since}
        return _members(vault) - len(innocent - {row[0] for row in rows}) < vault.threshold

    def all_told(self, vault: Vault) -> bool:
        """Whether the logs of all its members were just read."""
        return len([n for n in self._signers(vault) if self._keeper.read_at(n) is not None]) == _members(
            vault
        )

    def configured_told(self) -> bool:
        """Whether the logs of all members that there are were just read."""
        return all(self._keeper.read_at(name) is not None for name in self._member_of)

    def nobody(self, vault: Vault, chain: str, content: str, since: int) -> bool:
        """Whether no member at all has signed a transaction, by logs that were read since a time, UNIX seconds, after
        which none of them signs it. Those who lie are fewer than it takes."""
        told = self._state.row("SELECT 1 FROM payments WHERE chain = ? AND content = ?", chain, content)
        read = [name for name in self._signers(vault) if (self._keeper.read_at(name) or 0) > since]
        return told is None and len(read) == _members(vault)

    def _signers(self, vault: Vault) -> list[str]:
        return [name for name, vaults in self._member_of.items() if vault.id in vaults]


def _members(vault: Vault) -> int:
    return len(vault.cosigners if isinstance(vault, BitcoinVault) else vault.owners)


def _payments(signer: str, entry: LogEntry) -> list[tuple[Any, ...]]:
    if entry.what != "transaction":
        return []
    try:
        body = decoder_for(TransactionBody).decode(entry.body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise LogUnreadable(f"log of {signer}: entry {entry.number}: {error}") from error
    return [
        (
            signer,
            entry.number,
            body.chain,
            body.content,
            body.keyset,
            payment.intent,
            payment.asset,
            payment.units,
            payment.destination,
            (payment.customer or "") if payment.kind is Kind.PAYMENT else "",
        )
        for payment in body.payments
    ]


decoder_for(TransactionBody)
