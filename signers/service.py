"""A signer: guard, journal and keys put together. The daemon serves it; tests call it directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from chains.errors import InvalidValue
from policies.bundle import Bundle, KeysetEntry
from policies.intent import Attestation
from signers.guard.examined import Examined, FamilyRules, U, Unreadable
from signers.guard.guard import New, admit, check_keyset, check_released, examine, recall
from signers.guard.sightings import examine_announced, remember
from signers.guard.states import attestation_freezes, attestation_state
from signers.journal.book import Book
from signers.journal.journal import Journal
from signers.journal.windows import trusted, windows
from signers.journal.written import Written
from signers.ports import (
    Announced,
    AnnounceRequest,
    AttestRequest,
    Reason,
    Refused,
    SignedAttestation,
    SignerStatus,
    SignRequest,
    SignResponse,
)
from signers.process.turn import turn_for
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle
from signers.wallets import Wallet, attested

_T = TypeVar("_T")


class SignerService:
    """Implements `signers.ports.Signer` and `Announcing` in this process; many threads may call it at once."""

    def __init__(
        self, wallets: Mapping[str, Wallet[Any]], trust: PinnedBundle, journal: Journal, clock: SteadyClock
    ) -> None:
        self._wallets, self._trust, self._journal, self._clock = dict(wallets), trust, journal, clock

    def status(self) -> SignerStatus:
        """Version of the bundle in force, key-sets, what was signed and still counts, and what holds signing up."""
        bundle, now = self._trust.present, trusted(self._clock)

        def say(book: Book) -> SignerStatus:
            return SignerStatus(
                bundle_version=bundle.version,
                keysets=tuple(sorted(self._wallets)),
                signed=book.signed,
                journal=book.journal,
                frozen=tuple(sorted({freeze.scope for freeze in book.freezes()})),
                lowered=tuple(sorted(f"{each.target}={each.value}" for each in book.officers.lowerings)),
                waiting=self._trust.waiting,
                suspended=self._clock.trouble,
                at=self._clock.glance(),
                unresolved=book.unresolved(),
                windows=windows(book, bundle, self._wallets, now),
            )

        return self._journal.write(say)

    def sign(self, request: SignRequest) -> SignResponse:
        """Check everything, record it, then sign. The same transaction again gets the same signatures.

        Raises:
            Refused: with all reasons found; nothing was recorded.
            TransientError: nothing was released; ask again with the same request.
        """
        return self._sign(request, self._wallet(request.keyset))

    def _sign(self, request: SignRequest, wallet: Wallet[U]) -> SignResponse:
        unsigned, before, record = self._admitted(request, wallet)
        kept = _Kept(self._journal, request.chain, unsigned.content, before)
        # Signed while the record goes to the disks; nobody sees a signature before it is there.
        signatures = wallet.sign(unsigned, kept)
        record.settled()
        # A token may take long, and an officer who is told that it is frozen relies on it from then on.
        check_released(request, unsigned, self._trust.present, self._journal)
        return SignResponse(signatures=signatures)

    def _admitted(self, request: SignRequest, wallet: Wallet[U]) -> tuple[U, str | None, Written[Any]]:
        """The transaction, its signature if one was released before, and its record, which has been decided."""

        def admitted(bundle: Bundle, now: int) -> tuple[U, str | None, Written[Any]]:
            with turn_for(len(request.transaction)):
                examination = examine(request, bundle, wallet.rules, held=self._wallets, now=now)
            examined = examination.examined
            if examined is not None:
                record = self._journal.begin(_Admit(examined, examination.reasons, now))
                return examined.unsigned, record.decided(), record
            recalled = self._journal.begin(_Recall(request, bundle, wallet.rules))
            known = recalled.settled()
            if known is None:
                raise Refused(examination.reasons)
            return *known, recalled

        return self._with_present(admitted)

    def _with_present(self, decide: Callable[[Bundle, int], _T]) -> _T:
        """Decide by the bundle in force; once more if it changed before the journal's writer came to it."""
        while True:
            try:
                return decide(self._trust.present, self._clock.now())
            except _BundleChanged:
                continue

    def attest(self, request: AttestRequest) -> SignedAttestation:
        """Derive the address by two implementations, remember whose it is, and sign both.

        Raises:
            Refused: another customer's, or not this signer's to attest.
            TransientError: nothing was released; ask again.
        """
        wallet = self._wallet(request.keyset)
        path, address = self._with_present(partial(self._attested, request, wallet))
        attestation = Attestation(
            v=1,
            chain=request.chain,
            keyset=request.keyset,
            customer=request.customer,
            asset=request.asset,
            path=path,
            address=address,
        )
        return SignedAttestation(attestation=attestation, signature=attested(wallet.keys, attestation))

    def _attested(
        self, request: AttestRequest, wallet: Wallet[Any], bundle: Bundle, now: int
    ) -> tuple[str, str]:
        """Path and address, remembered as the customer's. Raises Refused."""
        keyset = _attestable(request, bundle, wallet, now)
        path, address = wallet.address(keyset, request.branch, request.index)

        def record(book: Book) -> None:
            _check_present(bundle, book)
            frozen = attestation_freezes(keyset, request.asset, request.customer, book)
            if frozen:
                raise Refused(tuple(frozen))
            wanted = (request.customer, request.asset)
            owner = book.attested(request.keyset, request.branch, request.index)
            if owner is None:
                at = max(now, book.latest)
                book.record_attestation(request.keyset, request.branch, request.index, *wanted, now=at)
            elif owner != wanted:
                raise _refused(
                    "address-taken", f"{request.branch}/{request.index} was attested for another owner"
                )

        self._journal.write(record)
        return path, address

    def announce(self, request: AnnounceRequest) -> Announced:
        """Remember genuine orders and entries, and their destinations; announcing again changes nothing.

        Raises:
            Refused: with all reasons found; nothing was recorded.
            TransientError: nothing is known; ask again.
        """

        def announced(bundle: Bundle, now: int) -> Announced:
            reasons = examine_announced(request, bundle, now=now)
            if reasons:
                raise Refused(tuple(reasons))

            def record(book: Book) -> Announced:
                _check_present(bundle, book)
                return remember(request, bundle, book, now=max(now, book.latest))

            return self._journal.write(record)

        return self._with_present(announced)

    def _wallet(self, keyset: str) -> Wallet[Any]:
        wallet = self._wallets.get(keyset)
        if wallet is None:
            raise _refused("unknown-keyset", f"this signer has no key-set {keyset!r}")
        return wallet


class _BundleChanged(Exception):
    """A higher bundle was adopted, or a number lowered, since this request was looked at: look again."""


def _check_present(bundle: Bundle, book: Book) -> None:
    """Raises _BundleChanged unless the bundle is the one in force. Runs in the journal's writer."""
    if not book.goes_by(bundle):
        raise _BundleChanged


class _Admit:
    """Work for the journal's writer: record what may be signed; its signature if one was released before."""

    def __init__(self, examined: Examined[Any], objections: tuple[Reason, ...], now: int) -> None:
        self._examined, self._objections, self._now = examined, objections, now

    def __call__(self, book: Book) -> str | None:
        examined = self._examined
        _check_present(examined.grounds.bundle, book)
        now = max(self._now, book.latest)
        outcome = admit(examined, self._objections, book, now=now)
        if isinstance(outcome, tuple):
            raise Refused(outcome)
        if isinstance(outcome, New):
            book.record_transaction(examined, outcome.counts, now=now)
            return None
        return book.signature(examined.request.chain, examined.unsigned.content)


class _Recall(Generic[U]):
    """Work for the journal's writer: what was journaled for this request, and its signature."""

    def __init__(self, request: SignRequest, bundle: Bundle, rules: FamilyRules[U]) -> None:
        self._request, self._bundle, self._rules = request, bundle, rules

    def __call__(self, book: Book) -> tuple[U, str | None] | None:
        _check_present(self._bundle, book)
        unsigned = recall(self._request, self._bundle, self._rules, book)
        if unsigned is None:
            return None
        return unsigned, book.signature(self._request.chain, unsigned.content)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Implements `wallets.Kept` for one transaction."""

    journal: Journal
    chain: str
    content: str
    before: str | None

    def keep(self, signature: str) -> str:
        """Record it unless there is one; the one that is on the disk now."""

        def keep(book: Book) -> str:
            found = book.signature(self.chain, self.content)
            if found is None:
                book.record_signature(self.chain, self.content, signature)
            return found or signature

        return self.journal.write(keep)


def _refused(code: str, detail: str) -> Refused:
    return Refused((Reason(code, detail),))


def _attestable(request: AttestRequest, bundle: Bundle, wallet: Wallet[Any], now: int) -> KeysetEntry:
    """The bundle's key-set, if an address of it may be attested. Raises Refused."""
    try:
        network, keyset = bundle.network(request.chain), bundle.keyset(request.keyset)
        asset = bundle.asset(request.asset)
    except InvalidValue as error:
        raise _refused("not-in-bundle", str(error)) from None
    try:
        check_keyset(keyset, network, wallet.rules)
    except Unreadable as error:
        raise Refused((error.reason,)) from None
    unfit = attestation_state(keyset.state)
    if unfit:
        raise Refused(tuple(unfit))
    if asset.chain != request.chain:
        raise _refused("wrong-asset", f"{asset.id} is on {asset.chain}, not on {request.chain}")
    if request.branch == 1 and request.customer is not None:
        raise _refused("change-branch", "addresses of branch 1 are the house's own")
    if request.branch == 1 and request.index >= wallet.own_addresses:
        raise _refused("change-branch", f"branch 1 ends at index {wallet.own_addresses - 1}")
    if now >= bundle.expires_at:
        raise _refused("bundle-expired", f"the bundle expired at {bundle.expires_at}; now is {now}")
    return keyset
