"""Which transactions verdicts were given for: of one intent, never two that could confirm beside each other.

Members of a vault have a journal each, and none knows another's. What binds them together is this record: a verdict
names the one transaction it is good for, and another one for the same intent gets a verdict only if it conflicts with
every earlier one, or those can never confirm any more.

How far the record has come is marked in a second place, as a signer's journal is. Where both disagree the verifier does
not start; where both are gone it begins anew, and takes into account that it may have forgotten.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from chains.errors import StrongroomError
from policies.bundle import Bundle, Vault
from policies.intent import SignedOrder, Verdict
from signers.errors import BadConfiguration, JournalMismatch
from signers.guard.versions import beside
from signers.journal.mark import Mark, MarkFile
from signers.ports import OpenTransaction, Reason, SignerUnavailable, VerdictRequest
from signers.verifier.logs import MemberLogs
from signers.verifier.paid import CLOCKS_APART_SECONDS
from signers.verifier.ports import VERDICT_SECONDS
from signers.verifier.resolve import Resolver
from signers.verifier.state import State

FORGOTTEN_SECONDS: Final = VERDICT_SECONDS + CLOCKS_APART_SECONDS
"""For so long a verdict may still be used that is not remembered."""
MOST_VERSIONS: Final = 100
"""Of one intent: whoever asks for more fills a disk."""
_FIRST_HEAD: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Given:
    """A transaction that verdicts were given for."""

    transaction: OpenTransaction
    wallet: str
    """The vault that was to pay."""
    until: int
    """When the last of those verdicts expires, UNIX seconds."""


class Record:
    """The record, and its mark. Not safe for threads: its owner holds a lock.

    Args:
        state: where it is kept.
        mark_path: its mark, in another directory than the state's, which nobody restores with it.

    Raises:
        BadConfiguration: state and mark are not of one moment; says what to do.
    """

    def __init__(self, state: State, mark_path: Path) -> None:
        self._state = state
        row = state.row("SELECT id FROM memory")
        number, head = self._last()
        try:
            if row is None and not mark_path.exists():
                memory = os.urandom(32).hex()
                MarkFile.create(mark_path, Mark(journal=memory, batch=0, head=_FIRST_HEAD))
                state.write("INSERT INTO memory VALUES (1, ?, NULL, '')", memory)
                row = (memory,)
            self._marks = MarkFile.open(mark_path)
        except (JournalMismatch, OSError) as error:
            raise BadConfiguration(f"{_OLD.format(mark_path)} ({error})") from None
        marked, here = self._marks.last, Mark(journal=row[0] if row else "0" * 64, batch=number, head=head)
        if marked != here and marked != self._before(here):
            self._marks.close()
            told = f"the state has given {number} verdicts, the mark says {marked.batch}"
            raise BadConfiguration(f"{_OLD.format(mark_path)} ({told})")
        if marked != here:
            self._marks.write(here)
        self._memory = here.journal
        self._failed, self._closed = "", False

    def close(self) -> None:
        """Closes the mark. Again changes nothing."""
        if not self._closed:
            self._closed = True
            self._marks.close()

    def began(self, bundle: Bundle) -> int | None:
        """Since when all is known that verdicts of this bundle's verifiers were given for, UNIX seconds; 0: from the
        first day on; None: `begin` has not said, or there are other verifiers now, which may have given some."""
        row = self._state.row("SELECT began FROM memory WHERE verifiers = ?", _verifiers(bundle))
        return None if row is None else row[0]

    @property
    def is_new(self) -> bool:
        """Whether `begin` was never called."""
        return self._state.row("SELECT 1 FROM memory WHERE began IS NULL") is not None

    def begin(self, bundle: Bundle, began: int) -> None:
        """See `began`."""
        self._state.write("UPDATE memory SET began = ?, verifiers = ?", began, _verifiers(bundle))

    def versions(self, intent: str) -> list[Given]:
        """The transactions that verdicts on an intent were given for."""
        rows = self._state.rows(
            "SELECT chain, content, wallet, max(expires_at) FROM bound WHERE intent = ?"
            " GROUP BY chain, content, wallet",
            intent,
        )
        return [
            Given(
                OpenTransaction(chain=chain, content=content, resources=self._resources(chain, content)),
                wallet,
                until,
            )
            for chain, content, wallet, until in rows
        ]

    def note(self, request: VerdictRequest, verdict: Verdict) -> None:
        """Remember what a verdict is given for, on both disks, before it leaves.

        Raises:
            SignerUnavailable: a disk failed, now or before: none leaves until the process was restarted.
        """
        assert request.content is not None, "only these are remembered"
        if self._failed:
            raise SignerUnavailable(f"the mark of verdicts could not be written ({self._failed}); restart")
        number, head = self._last()
        intent = request.intent
        entry = [head, intent.id, intent.chain, intent.keyset, request.content, sorted(request.resources)]
        after = hashlib.sha256(msgspec.json.encode([*entry, verdict.expires_at])).hexdigest()
        with self._state.change():
            self._state.write(
                "INSERT INTO bound VALUES (?, ?, ?, ?, ?, ?, ?)",
                number + 1,
                intent.id,
                intent.chain,
                intent.keyset,
                request.content,
                verdict.expires_at,
                after,
            )
            self._state.write_many(
                "INSERT OR IGNORE INTO bound_resources VALUES (?, ?, ?)",
                [(intent.chain, request.content, resource) for resource in request.resources],
            )
        try:
            # After the state: a mark that is ahead proves that verdicts were forgotten.
            self._marks.write(Mark(journal=self._memory, batch=number + 1, head=after))
        except OSError as error:
            self._failed = str(error)
            raise SignerUnavailable(f"the mark of verdicts cannot be written: {error}") from error

    def _last(self) -> tuple[int, str]:
        row = self._state.row("SELECT number, head FROM bound ORDER BY number DESC LIMIT 1")
        return (0, _FIRST_HEAD) if row is None else (row[0], row[1])

    def _before(self, here: Mark) -> Mark | None:
        """The mark that a crash between both disks leaves; None: there is none."""
        row = self._state.row("SELECT head FROM bound WHERE number = ?", here.batch - 1)
        if here.batch == 0:
            return None
        return Mark(journal=here.journal, batch=here.batch - 1, head=_FIRST_HEAD if row is None else row[0])

    def _resources(self, chain: str, content: str) -> tuple[str, ...]:
        rows = self._state.rows(
            "SELECT resource FROM bound_resources WHERE chain = ? AND content = ? ORDER BY resource",
            chain,
            content,
        )
        return tuple(resource for (resource,) in rows)


def _verifiers(bundle: Bundle) -> str:
    return ",".join(sorted(f"{each.id}:{each.key}" for each in bundle.verifiers))


_OLD: Final = (
    "the verifier's state and its mark {} are not of one moment: one of both was restored from an old copy, or is"
    " missing. Put the newest copies of both back; or move both away, and it begins anew"
)


class Binding:
    """Decides whether a transaction may get a verdict beside what others have got.

    Args:
        state: the copies of signers' logs.
        record: what was given.
        resolver: says what became of transactions, by the own nodes.
        members: what the logs of vaults' members tell.
    """

    def __init__(self, state: State, record: Record, resolver: Resolver, members: MemberLogs) -> None:
        self._state, self._record, self._resolver, self._members = state, record, resolver, members

    def close(self) -> None:
        """Closes what it has open."""
        self._record.close()

    def note(self, request: VerdictRequest, verdict: Verdict) -> None:
        """See `Record.note`."""
        self._record.note(request, verdict)

    def reasons(self, request: VerdictRequest, bundle: Bundle, *, now: int) -> Iterator[Reason]:
        """What speaks against a verdict for exactly this transaction. The logs were just read.

        Args:
            request: names it.
            bundle: the one in force.
            now: UNIX seconds.
        """
        intent, content = request.intent, request.content
        assert content is not None
        wallet = next((each for each in bundle.vaults if each.id == intent.keyset), None)
        if wallet is None or wallet.chain != intent.chain:
            yield Reason("intent-mismatch", f"{intent.keyset} is no vault of the bundle on {intent.chain}")
            return
        yield from self._forgotten(request.order, wallet, bundle, now)
        earlier = self._record.versions(intent.id)
        others = {each.transaction.content: each for each in earlier if each.transaction.content != content}
        if len(others) >= MOST_VERSIONS:
            yield Reason("order-bound", f"{len(others)} transactions were found good for {intent.id} already")
            return
        used = ((name, frozenset(each.transaction.resources)) for name, each in others.items())
        for name in beside(used, frozenset(request.resources)):
            yield from self._alive(others[name], intent.id, bundle)
        known = {each.transaction.content for each in earlier}
        yield from self._unknown(intent.id, content, known)

    def _alive(self, other: Given, intent: str, bundle: Bundle) -> Iterator[Reason]:
        """The objection to a second transaction, unless the first can never confirm."""
        chain, content = other.transaction.chain, other.transaction.content
        try:
            outcome = self._resolver.fate(other.transaction)
        except StrongroomError as error:
            yield Reason("not-known", f"what became of {content}: {error}")
            return
        # No member takes a verdict on it any more, and none took one.
        over = other.until + CLOCKS_APART_SECONDS
        vault = next((each for each in bundle.vaults if each.id == other.wallet), None)
        never = outcome is None and vault is not None and self._members.nobody(vault, chain, content, over)
        if outcome != "dead" and not never:
            became = "is confirmed" if outcome else "may still confirm"
            told = f"{content} was found good for {intent}, {became}, and has nothing in common with this one"
            yield Reason("order-bound", told)

    def _forgotten(
        self, order: SignedOrder | None, wallet: Vault, bundle: Bundle, now: int
    ) -> Iterator[Reason]:
        """Objections where verdicts may have been given that nobody here knows of."""
        began = self.learn(bundle, now=now)
        if began is None:
            told = "this verifier's memory is new: it gives verdicts once it has read the logs of all signers"
            yield Reason("signer-silent", told)
            return
        if not began:
            return
        if now < began + FORGOTTEN_SECONDS:
            left = began + FORGOTTEN_SECONDS - now
            told = f"this verifier's memory is new, and verdicts of before may be used for {left} s more"
            yield Reason("memory-young", told)
        # An order that was signed since then is in nothing that was forgotten.
        young = order is not None and order.order.expires_at > began + bundle.longest_signed_order_seconds
        if not young and not self._members.all_told(wallet):
            told = f"the logs of all members of {wallet.id} tell what was forgotten, and some cannot be read"
            yield Reason("signer-silent", told)

    def learn(self, bundle: Bundle, *, now: int) -> int | None:
        """Since when all verdicts are known here (see `Record.began`), noted as soon as it can be said: once the logs
        of all members were read. A member that is away later stops nothing."""
        began = self._record.began(bundle)
        if began is None and (not self._record.is_new or self._members.configured_told()):
            began = 0 if self._record.is_new and not self._any_signed(bundle) else now
            self._record.begin(bundle, began)
        return began

    def _any_signed(self, bundle: Bundle) -> bool:
        """Whether any vault has ever signed anything, by the logs."""
        return any(
            self._state.row("SELECT 1 FROM payments WHERE keyset = ?", vault.id) for vault in bundle.vaults
        )

    def _unknown(self, intent: str, content: str, known: Set[str]) -> Iterator[Reason]:
        """What members have signed for an intent by verdicts that this verifier does not know."""
        for other, chain in self._state.rows(
            "SELECT DISTINCT content, chain FROM payments WHERE intent = ?", intent
        ):
            if other != content and other not in known and self._resolver.outcome(chain, other) != "dead":
                told = f"{other} is signed for {intent}; by which verdict is not known here, nor what it uses"
                yield Reason("order-bound", told)
