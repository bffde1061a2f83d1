"""What a signer answers, and the messages that carry it. Shared by daemon and client; no I/O here."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, Protocol, runtime_checkable

import msgspec

from chains.errors import PermanentError, TransientError
from policies.bundle import SignedBundle
from policies.canonical import Document, Hex32, Name, Seconds, Uuid, decoder_for
from policies.intent import Attestation, Evidence, Intent, Kind, Signature, SignedOrder, SignedVerdict
from policies.statements import (
    SignedClockConfirmation,
    SignedFreeze,
    SignedLowering,
    SignedResolution,
    SignedVeto,
    SignedWhitelistEntry,
)

MAX_CALL_BYTES: Final = 16 * 1024 * 1024
"""Longest call that a signer reads, or answer that its client does. What is longer can never be answered."""


class SignerUnavailable(TransientError):
    """No answer: it may have signed or not. Ask again with the same request, never a changed one.

    `retry_ms` is the signer's own word on when asking again may help; None where it gave none.
    """

    def __init__(self, message: str, *, retry_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_ms = retry_ms


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One machine-readable reason for a refusal."""

    code: Name
    """Stable, e.g. `payment-cap`, `unknown-output`, `conflicting-version`."""
    detail: str
    """For people, with the numbers."""


class Refused(PermanentError):
    """The signer decided not to sign, and did not record anything for this request."""

    def __init__(self, reasons: tuple[Reason, ...]) -> None:
        super().__init__("; ".join(f"{r.code}: {r.detail}" for r in reasons))
        self.reasons = reasons


class SignRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Intents, the evidence for them, and the unsigned transaction that should carry them out."""

    v: Literal[1] = 1
    chain: Name
    keyset: Name
    intents: Annotated[tuple[Intent, ...], msgspec.Meta(min_length=1, max_length=2000)]
    evidence: Evidence
    transaction: str
    """BTC: PSBT (BIP174, base64) with every input's whole previous transaction and our derivation paths. EVM: the
    unsigned transaction (EIP-1559: 0x02 and its RLP list of nine fields), base64. A Safe's owner: what owners sign,
    `chains.eth.safe.SafeMessage`, base64."""
    safe_nonce: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)] | None = None
    """For an execution: the Safe's nonce for which its owners have signed, as the call itself does not name it."""


class InputSignature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One signature for one input of the transaction; an EVM transaction has one, of index 0."""

    index: Annotated[int, msgspec.Meta(ge=0)]
    pubkey: str
    """33 bytes, hex. BTC: of taproot the internal key; of a vault this cosigner's."""
    signature: str
    """BTC: DER and one sighash byte; of taproot 64 bytes (BIP340, SIGHASH_DEFAULT). EVM: r, s (32 bytes each, s in the
    lower half) and y parity (0 or 1), for a Safe's owner v (27 or 28) instead. Hex."""


class SignResponse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Signatures for all inputs of the request's transaction."""

    signatures: tuple[InputSignature, ...]


class AttestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for the address at `branch`/`index` of a key-set, bound to a customer (null: the house)."""

    v: Literal[1] = 1
    chain: Name
    keyset: Name
    customer: Name | None
    asset: Name
    branch: Annotated[int, msgspec.Meta(ge=0, le=1)]
    index: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class SignedAttestation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An attestation and the signature of the key-set's attestation key over its digest."""

    attestation: Attestation
    signature: Signature


class Unresolved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a wallet has signed on a chain and no verifier has proven confirmed or dead. All of it counts in windows."""

    keyset: Name
    """Key-set or vault."""
    chain: Name
    count: Annotated[int, msgspec.Meta(ge=0)]
    """Transactions, each version by itself."""
    oldest_at: Seconds | None
    """When the oldest of them was signed; null: there is none."""
    resolved_at: Seconds | None
    """When a verifier last told this signer something new about the wallet's transactions; null: never."""


class WindowUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How full one of the bundle's windows is. When it is full, nothing that counts in it is signed."""

    kind: Name
    """What is counted: `payments` of a tier and asset (of the native one fees included), `chain_fees`, `rotation_fees`,
    or the `value` of all assets."""
    scope: str
    """Tier and asset (`hot|BTC`), chain, or the breaker's id."""
    unit: Name
    """Asset, or the bundle's unit of account."""
    units: str
    """What counts now, in base units."""
    cap: str
    """The most that may."""
    seconds: Annotated[int, msgspec.Meta(ge=1)]
    """How long something counts after its fate is known."""


class WaitingBundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bundle of the quorum that is not in force yet: until it is, any officer can veto it."""

    version: int
    digest: Hex32
    """What a veto names."""
    since: Seconds
    """When the signer first saw it."""
    acts_from: Seconds


class SignerStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a signer says of itself."""

    bundle_version: int
    keysets: tuple[str, ...]
    signed: int
    """Transactions signed since the journal began."""
    journal: str = ""
    """Id of its journal, 64 hex digits; empty where there is none (fakes)."""
    frozen: tuple[str, ...] = ()
    """Scopes of the freezes in force."""
    lowered: tuple[str, ...] = ()
    """Numbers of the bundle that officers have lowered, `TARGET=VALUE`."""
    waiting: WaitingBundle | None = None
    """The bundle that is to follow."""
    suspended: str = ""
    """Why its clock suspends signing, empty if it doesn't."""
    notes: tuple[str, ...] = ()
    """What makes it weaker than it should be, e.g. that its memory may be swapped out. For people."""
    at: int = 0
    """Its own time, UNIX seconds; 0 where it has no clock (fakes)."""
    unresolved: tuple[Unresolved, ...] = ()
    """By wallet and chain, of those that have signed anything."""
    unasked_seconds: int = 0
    """How long nobody has asked what is `open`, as a verifier does all the time; of a signer that started since then,
    how long it runs."""
    windows: tuple[WindowUse, ...] = ()
    """Those in which what its wallets sign counts."""


class AnnounceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Show orders to a signer before it is to pay them, and entries of whitelists: from now on it knows them and their
    destinations.

    Where the bundle asks for an age of destinations or a delay, that is the only thing that starts either.
    """

    v: Literal[1] = 1
    orders: Annotated[tuple[SignedOrder, ...], msgspec.Meta(max_length=500)] = ()
    entries: Annotated[tuple[SignedWhitelistEntry, ...], msgspec.Meta(max_length=500)] = ()

    def __post_init__(self) -> None:
        if not self.orders and not self.entries:
            raise ValueError("an announcement has at least one order or entry")


class Sighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Since when a signer knows an order and its destination, by its own clock."""

    order: Uuid
    order_since: Seconds
    destination_since: Seconds


class EntrySighting(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Since when a signer knows the destination of an entry, by its own clock."""

    entry: Uuid
    destination_since: Seconds


class Announced(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answer to `AnnounceRequest`, in the order of its orders and entries."""

    sightings: tuple[Sighting, ...]
    entries: tuple[EntrySighting, ...] = ()


class OpenTransaction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A transaction that was signed and of which the signer does not know what became."""

    chain: Name
    content: Hex32
    resources: tuple[str, ...]
    """What it uses and only one transaction can, as `chains.ports.Consumption` names it."""


class OpenRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for open transactions, by chain and content, after the given one."""

    v: Literal[1] = 1
    after: tuple[Name, Hex32] | None = None


class OpenPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 1,000 open transactions; fewer mean that there are no more."""

    transactions: tuple[OpenTransaction, ...]


class ResolveRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A verifier's words on what became of transactions."""

    v: Literal[1] = 1
    resolutions: Annotated[tuple[SignedResolution, ...], msgspec.Meta(min_length=1, max_length=1000)]


class Resolved(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many of them said something new."""

    accepted: int


Resource = Annotated[str, msgspec.Meta(min_length=1, max_length=120)]
"""What only one transaction can use, as `chains.ports.Consumption` names it."""


class VerdictRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask a verifier whether a customer's ledger covers an order, for the intent that is to carry it out; and, of what
    leaves a vault, to say so of one transaction only."""

    v: Literal[1] = 1
    intent: Intent
    order: SignedOrder | None
    """Null for a refill, which must name its transaction."""
    content: Hex32 | None = None
    """The transaction's; null: the verdict is for people to look at, and no member of a vault takes it."""
    resources: Annotated[tuple[Resource, ...], msgspec.Meta(max_length=2000)] = ()
    """All that the transaction uses and only one can. Members compare them with what they read in its bytes."""

    def __post_init__(self) -> None:
        if (self.content is None) != (not self.resources):
            raise ValueError("a transaction is named with the resources that it uses")
        if self.order is None and self.content is None:
            raise ValueError("a refill is asked about with its transaction")


class LogPayment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One intent of a signed transaction, as the signer's log tells it."""

    intent: Uuid
    kind: Kind
    asset: Name
    units: str
    destination: str
    customer: Name | None
    """Of the order; null for the house's own."""


class LogEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One record of the signer's own append-only log."""

    number: Annotated[int, msgspec.Meta(ge=1)]
    """Without gaps."""
    at: Seconds
    what: Literal[
        "transaction", "attestation", "bundle", "waiting", "veto", "freeze", "lowering", "clock", "resolution"
    ]
    body: msgspec.Raw
    """JSON; what is in it depends on `what` (see signers/README.md)."""
    head: Hex32
    """SHA-256 over the entry before's head (64 zeros before the first) and this one's number, time, `what` and body."""


class LogRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for the log's entries after a number (0: from the beginning)."""

    v: Literal[1] = 1
    after: Annotated[int, msgspec.Meta(ge=0)]


class LogHead(Document, frozen=True):
    """A signer's word on where its log ends, signed by the attestation key of its first key-set (by name)."""

    domain: ClassVar[str] = "signer-log"

    v: Literal[1]
    journal: Hex32
    keyset: Name
    """Whose attestation key signs."""
    number: int
    head: Hex32


class LogPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Up to 500 entries, and the signed head after the last of them."""

    entries: tuple[LogEntry, ...]
    head: LogHead
    signature: Signature


class LedgerHead(Document, frozen=True):
    """Where the chains of all accounts of the ledger end at one moment. Each head continues the one before it."""

    domain: ClassVar[str] = "ledger-head"

    v: Literal[1]
    number: Annotated[int, msgspec.Meta(ge=1, le=2**53 - 1)]
    """1, 2, 3 ... without gaps."""
    previous: Hex32
    """Digest of the head before; 64 zeros before the first."""
    at: Seconds
    day: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")] | None
    """The UTC day that it closes: the first head after its end. Null: one in between."""
    accounts: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    """So many accounts have lines since the head before."""
    lines: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    """So many lines there are in all, up to here."""
    root: Hex32
    """SHA-256 over those accounts, by id: for each `ID SEQ HASH` of its last line, and a newline."""


class SealRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask for the signature of the last of these heads; the others lead from what the signer has signed to it. With no
    heads: ask only what it has signed last."""

    v: Literal[1] = 1
    keyset: Name
    """Whose attestation key signs."""
    heads: Annotated[tuple[LedgerHead, ...], msgspec.Meta(max_length=1000)] = ()


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The last head that a signer has signed, and its signature if it was asked for one."""

    number: int
    """0: it has signed none."""
    digest: Hex32
    signature: Signature | None = None


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No content: a call without arguments, or an answer that says only that it was done."""


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Metrics in Prometheus' text format."""

    text: str


class Signer(Protocol):
    """A signer for one or more key-sets: what the online side asks of it."""

    def status(self) -> SignerStatus:
        """Raises SignerUnavailable."""

    def attest(self, request: AttestRequest) -> SignedAttestation:
        """The address and the signer's word for it. Raises Refused (another customer's), SignerUnavailable."""

    def sign(self, request: SignRequest) -> SignResponse:
        """Signatures for every input, the same for the same transaction. Raises Refused, SignerUnavailable."""


@runtime_checkable
class Announcing(Protocol):
    """A signer to which orders can be shown early."""

    def announce(self, request: AnnounceRequest) -> Announced:
        """Remember genuine orders, entries, and their destinations. Raises Refused (not genuine), SignerUnavailable."""


@runtime_checkable
class Sealing(Protocol):
    """A signer that signs heads of the ledger."""

    def seal(self, request: SealRequest) -> Sealed:
        """Sign a head that continues the last one, and remember it. Raises Refused (it does not), SignerUnavailable."""


class OfficersDesk(Protocol):
    """What officers hand to a signer directly. All of it is signed; who brings it does not matter."""

    def deliver(self, bundle: SignedBundle) -> SignerStatus:
        """A new bundle. Raises Refused (no quorum, not newer), SignerUnavailable."""

    def freeze(self, freeze: SignedFreeze) -> SignerStatus:
        """Sign nothing in a scope. Raises Refused (not an officer's), SignerUnavailable."""

    def veto(self, veto: SignedVeto) -> SignerStatus:
        """No to a bundle that is not in force yet. Raises Refused (not an officer's, too late), SignerUnavailable."""

    def lower(self, lowering: SignedLowering) -> SignerStatus:
        """A lower number of the bundle. Raises Refused (not an officer's, not lower), SignerUnavailable."""

    def confirm_clock(self, confirmation: SignedClockConfirmation) -> SignerStatus:
        """End the suspension after a jump of the clock. Raises Refused, SignerUnavailable."""


class Witness(Protocol):
    """What a verifier asks and tells."""

    def open(self, request: OpenRequest) -> OpenPage:
        """Transactions whose fate the signer does not know. Raises SignerUnavailable."""

    def resolve(self, request: ResolveRequest) -> Resolved:
        """Take a verifier's words. Raises Refused (not a verifier of the bundle), SignerUnavailable."""

    def log(self, request: LogRequest) -> LogPage:
        """The log from a place on, with its signed head. Raises SignerUnavailable."""


for _kind in (
    SignRequest,
    SignResponse,
    AttestRequest,
    SignedAttestation,
    SignerStatus,
    AnnounceRequest,
    Announced,
    OpenRequest,
    OpenPage,
    ResolveRequest,
    Resolved,
    VerdictRequest,
    SignedVerdict,
    LogPayment,
    LogRequest,
    LogPage,
    LedgerHead,
    SealRequest,
    Sealed,
    Nothing,
    Metrics,
):
    decoder_for(_kind)
