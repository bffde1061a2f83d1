"""What guard, families and journal pass to each other: a request as far as it was understood. No checks here."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from chains.errors import PermanentError
from policies.bundle import Breaker, Bundle, NetworkEntry, Tier, TierCap, WalletEntry
from policies.intent import Approval, Intent, Kind, Order, Verdict
from policies.statements import Freeze
from signers.guard.history import Past
from signers.ports import Reason, SignRequest


class Unreadable(PermanentError):
    """The request can't be understood any further; `reason` says why."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = Reason(code, detail)


class Exposure(StrEnum):
    """What a counter of the journal adds up."""

    PAYMENTS = "payments"
    """Per tier and asset, each intent once."""
    TIER_FEES = "tier_fees"
    """Per tier and chain, each set of intents once, at its highest version."""
    CHAIN_FEES = "chain_fees"
    """Per chain, likewise."""
    ROTATION_FEES = "rotation_fees"
    """Per chain, those of rotations: no thief's fees must delay a rescue. Nor, for ever, rotations of his own that no
    chain takes, and so nobody proves dead: each counts from when it was signed."""
    VALUE = "value"
    """Per breaker, payments and fees of all assets together, in the bundle's unit of account."""
    POLICY = "policy"
    """Per rule of the policy and what it counts for itself, each payment once: in what the rule measures."""


class Counter(Protocol):
    """What was signed and may still be paid, or was within the last so many seconds, by key."""

    def total(self, now: int) -> int:
        """Sum of what counts at `now`."""

    def total_with(self, additions: Iterable[tuple[str, int]], now: int) -> int:
        """What `total` would be with all `additions` (distinct keys) signed at `now`; changes nothing."""


class JournalView(Protocol):
    """What `admit` asks of the journal."""

    def transaction(self, chain: str, content: str) -> dict[str, str] | None:
        """Intents (id to digest) of a journaled transaction, None if there is none."""

    def intent_digest(self, intent_id: str) -> str | None:
        """Digest with which an intent was journaled first."""

    def versions(self, intent_id: str) -> list[tuple[str, frozenset[str]]]:
        """Content and resources of every transaction journaled for an intent."""

    def window(self, kind: Exposure, scope: str, seconds: int) -> Counter:
        """A sum over the journal: what was signed within `seconds`, and what nobody has proven dead or confirmed."""

    def high_water(self, keyset: str) -> int:
        """Highest number (change index, nonce) signed for a key-set, -1 if none."""

    def attested(self, keyset: str, branch: int, index: int) -> tuple[str | None, str] | None:
        """Customer and asset for whom a path was attested, None if it was not."""

    def history(self) -> tuple[Past, ...]:
        """The bundles that this signer has adopted, oldest first, by its own clock."""

    def order_since(self, order_digest: str) -> int | None:
        """When this signer first saw an order, by its own clock; None if it never did."""

    def destination_since(self, chain: str, destination: str) -> int | None:
        """When this signer first saw an order to a destination, by its own clock; None if it never did."""

    def freezes(self) -> tuple[Freeze, ...]:
        """The freezes that no higher bundle has lifted."""


@dataclass(frozen=True, slots=True)
class Evidenced:
    """One payment or refill with its order and all that was said of it by people and verifiers."""

    intent: Intent
    order: Order | None
    """None of a refill."""
    approvals: tuple[Approval, ...]
    """One of each person; their signatures were checked where the bundle names the approver."""
    verdicts: tuple[Verdict, ...]
    """One of each verifier, likewise."""


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A transaction as a family reads it; its own parts are in the family's subclass."""

    content: str
    """Hash of what is signed: the txid on BTC, the signing hash on EVM chains (64 hex digits)."""
    resources: frozenset[str]
    """What it uses and only one transaction can: outpoints; sender and nonce."""
    fee_units: int
    """The most that it can cost, in base units of the native asset."""
    called: bytes
    """Whom it calls (20 bytes) with what calldata: a token that it moves is named in here. Empty on BTC."""


U = TypeVar("U", bound=Unsigned)


@dataclass(frozen=True, slots=True)
class Grounds:
    """What the bundle says about a request."""

    bundle: Bundle
    network: NetworkEntry
    kinds: frozenset[Kind]
    """Of the request's intents."""
    wallet: WalletEntry
    """The key-set or vault that is to sign."""
    caps: tuple[TierCap, ...]
    """Caps of the tier for all assets involved; the native asset is first. None for a rotation, which pays nobody. Of a
    refill those that there are: what flows to a colder tier needs none for its asset."""
    breaker: Breaker | None
    """The limit over all assets that a hot key-set is under; None for vaults and rotations."""
    held: Collection[str]
    """All key-sets and vaults whose signatures this signer's journal knows."""


@dataclass(frozen=True, slots=True)
class Reach:
    """A number that may be only a little beyond the highest signed before."""

    number: int
    """Highest change index, or nonce; -1 if the transaction has none."""
    ahead: int
    """How far it may be beyond."""
    code: str
    """Of the refusal."""


@dataclass(frozen=True, slots=True)
class Target:
    """The wallet of the house that a refill goes to."""

    wallet: str
    tier: Tier
    index: int | None
    """Of its change address, on Bitcoin."""
    upwards: bool
    """To where people look less: a hotter tier, or the gas payer. Then it counts like a payment."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What a family says about a transaction."""

    reach: Reach
    deposits: frozenset[int]
    """Indexes of deposit addresses that it collects from: each must have been attested by this signer."""
    reasons: list[Reason]
    target: Target | None = None
    """Of a refill; None where it goes to none."""
    depositor: str | None = None
    """Key-set whose those deposit addresses are; None: the one that signs."""


class FamilyRules(Protocol[U]):
    """One key-set as its family of chains reads and judges transactions for it. Pure."""

    @property
    def kinds(self) -> frozenset[Kind]:
        """What may be signed."""

    def check_keyset(self, keyset: WalletEntry, network: NetworkEntry) -> None:
        """Check that the bundle means this signer's keys, on the network they are for. Raises Unreadable."""

    def read(self, request: SignRequest) -> U:
        """The request's transaction. Raises Unreadable unless its form is the strict one."""

    def find(self, request: SignRequest, unsigned: U, grounds: Grounds) -> Findings:
        """Every objection to what the transaction's bytes do."""


@dataclass(frozen=True, slots=True)
class Examined(Generic[U]):
    """A request whose transaction was understood."""

    request: SignRequest
    unsigned: U
    grounds: Grounds
    reach: Reach
    deposits: frozenset[int]
    digests: dict[str, str]
    """Digest of each intent by id."""
    fee_group: str
    """Key under which the fee counts: all transactions of one set of intents exclude each other."""
    paid: Mapping[str, tuple[tuple[str, int], ...]] = field(default_factory=dict)
    """By asset, intent id and base units of all payments, and of refills that count like them."""
    value: tuple[tuple[str, int], ...] = ()
    """What counts under the breaker: intent ids and the fee group, each with its value in the bundle's unit."""
    evidence: tuple[Evidenced, ...] = ()
    """Of each payment, as far as its order is there, and of a refill."""
    target: Target | None = None
    """Of a refill."""
    depositor: str | None = None
    """Key-set whose `deposits` are, where it is not the one that signs."""

    @property
    def breaker(self) -> Breaker | None:
        """The limit under which `value` counts."""
        return self.grounds.breaker

    @property
    def chain_fees(self) -> Exposure:
        """In which of the chain's fee windows the fee counts."""
        return Exposure.ROTATION_FEES if Kind.ROTATION in self.grounds.kinds else Exposure.CHAIN_FEES

    @property
    def tier_fees(self) -> str:
        """Scope of the tier's fee window."""
        return f"{self.grounds.wallet.tier}|{self.request.chain}"

    def payments(self, asset: str) -> tuple[tuple[str, int], ...]:
        """Intent id and base units of all payments of an asset, and of refills that count like them."""
        return self.paid.get(asset, ())


def fee_group(intent_ids: Iterable[str]) -> str:
    """The key of a set of intents (64 hex digits)."""
    return hashlib.sha256("\n".join(sorted(intent_ids)).encode()).hexdigest()


def refills_of(request: SignRequest) -> list[Intent]:
    """The request's refills."""
    return [intent for intent in request.intents if intent.kind is Kind.REFILL]


def payments_of(request: SignRequest) -> list[Intent]:
    """The request's payments."""
    return [intent for intent in request.intents if intent.kind is Kind.PAYMENT]
