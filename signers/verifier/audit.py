"""The audit of everything: each customer's ledger, the house's accounts, all addresses, orders and signed payments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from policies.canonical import decoder_for
from signers.ports import Witness
from signers.verifier.bundles import Bundles
from signers.verifier.examine import UNREADABLE, Examiner, unreadable
from signers.verifier.logs import LogKeeper, read_all
from signers.verifier.model import Finding, Unknown
from signers.verifier.moves import Moves
from signers.verifier.replay import replay_account
from signers.verifier.source import Ledger, Snapshot
from signers.verifier.state import State

PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Audit:
    """What one round has found."""

    findings: tuple[Finding, ...]
    unknowns: tuple[Unknown, ...]


class Auditor:
    """Audits, and keeps an append-only record of what was found and of what is gone again.

    Args:
        state: keeps the record.
        bundles: whom to believe.
        ledger: the database.
        examiner: examines customers.
        moves: audits what moved between wallets.
        logs: copies of the signers' logs.
        signers: by name.
        now: tells the time, UNIX seconds.
    """

    def __init__(
        self,
        state: State,
        bundles: Bundles,
        ledger: Ledger,
        examiner: Examiner,
        moves: Moves,
        logs: LogKeeper,
        signers: Mapping[str, Witness],
        now: Callable[[], int],
    ) -> None:
        self._state, self._bundles, self._ledger, self._examiner = state, bundles, ledger, examiner
        self._moves, self._logs, self._signers, self._now = moves, logs, signers, now
        self._standing = self._kept()

    def customer(self, customer: str) -> Audit:
        """One customer's ledger, now.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        findings, unknowns = self._read_logs()
        with self._ledger.snapshot() as snapshot:
            found = self._examiner.examine(snapshot, customer)
        return Audit((*findings, *found.findings), (*unknowns, *found.unknowns))

    def everything(self, pause: Callable[[], None] = lambda: None) -> Audit:
        """One round over all there is; its result is recorded.

        Args:
            pause: called between two customers: may wait, and may raise to end the round.

        Raises:
            LedgerUnavailable: the database does not answer.
        """
        findings, unknowns = self._read_logs()
        with self._ledger.snapshot() as snapshot:
            for part in (self._house, self._addresses, self._withdrawals):
                try:
                    findings += part(snapshot)
                except UNREADABLE as error:
                    findings.append(unreadable("", part.__name__.strip("_"), error))
            try:
                moved = self._moves.audit(snapshot, [each.subject for each in unknowns])
                findings += moved[0]
                unknowns += moved[1]
            except UNREADABLE as error:
                findings.append(unreadable("", "moves", error))
        after = ""
        known: set[str] = set()
        while True:
            with self._ledger.snapshot() as snapshot:
                customers = snapshot.customers(after, PAGE)
            if not customers:
                break
            for customer in customers:
                found = self._looked_at_twice(customer)
                findings += found.findings
                unknowns += found.unknowns
                pause()
            known.update(customers)
            after = customers[-1]
        findings += self._strangers(known)
        self._examiner.payouts.release_strangers(known)
        audit = Audit(tuple(dict.fromkeys(findings)), tuple(dict.fromkeys(unknowns)))
        self._record(audit)
        return audit

    def _looked_at_twice(self, customer: str) -> Audit:
        """One customer, at a moment of its own: a round may take hours, and holds no snapshot for so long.

        What is settled after its signer's log was read looks like fraud for a moment: what counts is seen twice.
        """
        with self._ledger.snapshot() as snapshot:
            found = self._examiner.examine(snapshot, customer)
        if not found.findings:
            return Audit((), found.unknowns)
        again = self.customer(customer)
        return Audit(tuple(each for each in again.findings if each in found.findings), again.unknowns)

    def standing(self) -> tuple[Finding, ...]:
        """What the last round found, in order of its first sight."""
        return self._standing

    def _kept(self) -> tuple[Finding, ...]:
        found: dict[Finding, None] = {}
        for state, raw in self._state.rows("SELECT state, finding FROM findings ORDER BY number"):
            finding = decoder_for(Finding).decode(raw)
            if state == "found":
                found[finding] = None
            else:
                found.pop(finding, None)
        return tuple(found)

    def _record(self, audit: Audit) -> None:
        """Append what is new, and what is gone; the same again appends nothing."""
        before, now = set(self.standing()), self._now()
        present = set(audit.findings)
        # What could not be looked at may still be there.
        gone = [] if audit.unknowns else sorted(before - present)
        self._state.write_many(
            "INSERT INTO findings (at, state, finding) VALUES (?, ?, ?)",
            [(now, "found", msgspec.json.encode(each)) for each in audit.findings if each not in before]
            + [(now, "gone", msgspec.json.encode(each)) for each in gone],
        )
        self._standing = self._kept()

    def _read_logs(self) -> tuple[list[Finding], list[Unknown]]:
        findings, silent = read_all(self._logs, self._signers, self._bundles.present())
        return findings, [Unknown("signer", name, str(why)) for name, why in silent.items()]

    def _house(self, snapshot: Snapshot) -> list[Finding]:
        found = [
            Finding("asset-out-of-balance", "", asset, f"all accounts together have {total}")
            for asset, total in snapshot.sums()
        ]
        found += [
            Finding("transfer-out-of-balance", "", place, f"it sums to {total}")
            for place, total in snapshot.unbalanced()
        ]
        found += [
            Finding("settlement-broken", "", subject, detail)
            for subject, detail in snapshot.broken_settlements()
        ]
        for account in snapshot.house_accounts():
            wrong = replay_account(account, snapshot.lines_of(account.id))
            if wrong is not None:
                found.append(Finding("account-not-replayed", "", str(account), wrong))
        return found

    def _addresses(self, snapshot: Snapshot) -> list[Finding]:
        found: list[Finding] = []
        after = 0
        while rows := snapshot.addresses(after, PAGE):
            found += [proven for proven in map(self._examiner.proven, rows) if isinstance(proven, Finding)]
            after = rows[-1].id
        return found

    def _withdrawals(self, snapshot: Snapshot) -> list[Finding]:
        found: list[Finding] = []
        after = None
        while rows := snapshot.withdrawals(after, PAGE):
            found += [order for order in map(self._examiner.genuine, rows) if isinstance(order, Finding)]
            after = rows[-1].id
        return found

    def _strangers(self, known: set[str]) -> list[Finding]:
        """Signed payments for customers of whom the ledger knows nothing."""
        return [
            Finding(
                "payment-not-debited",
                customer,
                intent,
                "signed, and the ledger has no such customer any more",
            )
            for customer, intent in self._state.rows(
                "SELECT DISTINCT customer, intent FROM payments WHERE customer <> '' ORDER BY customer, intent"
            )
            if customer not in known
        ]


decoder_for(Finding)
