"""Order, intent and evidence, version 1 (DESIGN section 1).

The *order* is what a caller wants, signed by the caller's key and kept verbatim. An *intent* is what should
be done for it. *Evidence* is what travels with intents to a signer: orders, approvals, verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

import msgspec

from policies.canonical import (
    Base64Url,
    Document,
    Hex32,
    Name,
    Part,
    Seconds,
    Units,
    Uuid,
    Version,
    decoder_for,
    domain_hash,
    verify_ed25519,
)

Destination = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Signature = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9+/]{86}==\Z")]
"""Ed25519 signature: 64 bytes as base64."""


class Kind(StrEnum):
    """What an intent does. Only payments come from a caller's order; the others are the house's own."""

    PAYMENT = "payment"
    SWEEP = "sweep"
    REFILL = "refill"
    CONSOLIDATION = "consolidation"
    DEPLOYMENT = "deployment"
    NONCE_FILL = "nonce_fill"
    CANCELLATION = "cancellation"
    ADMINISTRATION = "administration"
    """The Safe that is the admin of a forwarders' factory changes its treasury."""
    ROTATION = "rotation"
    """Moves what a deactivated or compromised key-set holds to the active one of its chain and tier."""
    EXECUTION = "execution"
    """A gas payer sends what a Safe's owners have signed."""


class Context(Part, frozen=True):
    """What a caller says of the customer and the session in which the payment was asked for. Only what it knows is
    there; a rule that asks for the rest denies."""

    kyc_level: Annotated[int, msgspec.Meta(ge=0, le=100)] | msgspec.UnsetType = msgspec.UNSET
    """How well the customer is identified, by the caller's own scale."""
    new_device: bool | msgspec.UnsetType = msgspec.UNSET
    new_ip: bool | msgspec.UnsetType = msgspec.UNSET
    password_changed_at: Seconds | msgspec.UnsetType = msgspec.UNSET
    """UNIX seconds; when it was set first if never changed."""
    mfa_changed_at: Seconds | msgspec.UnsetType = msgspec.UNSET
    mfa_methods: Annotated[tuple[Name, ...], msgspec.Meta(max_length=8)] | msgspec.UnsetType = msgspec.UNSET
    """Second factors that were passed, such as `totp` or `passkey`."""


class Order(Document, frozen=True):
    """A caller's wish to pay, signed over `digest()` by the caller's Ed25519 key."""

    domain: ClassVar[str] = "order"

    v: Literal[1]
    id: Uuid
    """Chosen by the caller; the withdrawal carries it; never reused."""
    caller: Name
    """Whose key signed: a caller of the bundle."""
    customer: Name
    chain: Name
    asset: Name
    destination: Destination
    """Canonical address text of `chain`."""
    amount: Units
    """What arrives at the destination, in base units, above zero."""
    fee_ceiling: Units
    """Most network fee, in base units of the chain's native asset, that this payment may cause."""
    expires_at: Seconds
    """No signer signs for this order afterwards (UNIX seconds)."""
    context: Context | msgspec.UnsetType = msgspec.UNSET
    """Left out where the caller says nothing."""

    @property
    def units(self) -> int:
        """`amount` as an integer."""
        return int(self.amount)

    @property
    def fee_ceiling_units(self) -> int:
        """`fee_ceiling` as an integer."""
        return int(self.fee_ceiling)


class TreasuryChange(Part, frozen=True):
    """What an administration does to a forwarders' factory, the destination of its intent."""

    step: Literal["propose", "accept", "cancel"]
    treasury: Destination | None
    """Whom the forwarders are to pay, as canonical address text; null when a proposal is taken back."""


class Intent(Document, frozen=True):
    """What should happen on a chain, once. Hashes of it are what approvers sign."""

    domain: ClassVar[str] = "intent"

    v: Literal[1]
    kind: Kind
    id: Uuid
    """For a payment the order's id: one order, one intent, for ever."""
    chain: Name
    keyset: Name
    """Key-set of the bundle that is to sign."""
    tier: Literal["hot", "warm", "cold", "ledger"]
    """`ledger`: settled there, without a transaction; no signer has such a wallet."""
    asset: Name
    destination: Destination
    amount: Units
    order: Hex32 | None
    """Digest of the order for a payment; null for the house's own operations."""
    policy_version: Version
    """Version of the bundle under which the decision was made."""
    change: TreasuryChange | msgspec.UnsetType = msgspec.UNSET
    """Of an administration, and left out of all others."""

    @property
    def units(self) -> int:
        """`amount` as an integer."""
        return int(self.amount)


def payment_intent(order: Order, wallet: str, tier: str, policy_version: int) -> Intent:
    """The one intent of an order: its id is the order's, so that a signer pays an order once.

    Args:
        order: what the caller has signed.
        wallet: key-set or vault of the bundle that is to pay it.
        tier: of that wallet.
        policy_version: version of the bundle under which it was decided.

    Raises:
        InvalidValue: no such tier.
    """
    return Intent.from_object(
        {
            "v": 1,
            "kind": Kind.PAYMENT,
            "id": order.id,
            "chain": order.chain,
            "keyset": wallet,
            "tier": tier,
            "asset": order.asset,
            "destination": order.destination,
            "amount": order.amount,
            "order": order.digest_hex(),
            "policy_version": policy_version,
        }
    )


class Approval(Document, frozen=True):
    """One approver's decision on one intent."""

    domain: ClassVar[str] = "approval"

    v: Literal[1]
    intent: Hex32
    decision: Literal["approve", "reject"]
    approver: Name
    group: Name
    """Of the policy, for which it counts: nobody counts for two."""
    policy_version: Version
    expires_at: Seconds
    reason: Annotated[str, msgspec.Meta(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")] = ""
    """Why, for those who read the withdrawal's history."""


class Carrier(Part, frozen=True):
    """The one transaction that a verdict is about."""

    content: Hex32
    """BTC: its id; of a Safe the EIP-712 hash that owners sign."""
    resources: Hex32
    """`resources_digest` of all that it uses and only one transaction can."""


def resources_digest(resources: Iterable[str]) -> str:
    """Digest of a set of resources (64 hex digits), as `chains.ports.Consumption` names them."""
    return domain_hash("resources", 1, msgspec.json.encode(sorted(set(resources)))).hex()


class Verdict(Document, frozen=True):
    """The verifier's word that a customer's ledger and deposits cover an order; and that of all transactions that it
    has named for one intent no two can both confirm."""

    domain: ClassVar[str] = "verdict"

    v: Literal[1]
    intent: Hex32
    verifier: Name
    outcome: Literal["covered", "bound", "not_covered"]
    """`bound`: a refill of the house's own money, which no ledger of a customer covers: only the second half of it."""
    expires_at: Seconds
    carrier: Carrier | None = None
    """Null: it says nothing of a transaction, and members of vaults do not take it."""


class SignedOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An order and its caller's signature, as it arrived."""

    order: Order
    signature: Signature

    def verify(self, public_key_hex: str) -> None:
        """Raises BadSignature unless `public_key_hex` (32 bytes) signed this order."""
        verify_ed25519(public_key_hex, self.order.digest(), self.signature)


class Assertion(Part, frozen=True):
    """What a passkey has signed (WebAuthn section 5.2.2); its challenge is the document's digest."""

    authenticator_data: Annotated[Base64Url, msgspec.Meta(max_length=700)]
    """37 bytes, and extensions."""
    client_data: Annotated[Base64Url, msgspec.Meta(max_length=1400)]
    """The browser's JSON."""
    signature: Annotated[Base64Url, msgspec.Meta(max_length=120)]
    """ES256: DER, at most 72 bytes; EdDSA: 64 bytes."""


class SignedApproval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An approval and its approver's signature; `policies.approvals.verify` checks it."""

    approval: Approval
    signature: Signature | Assertion


class SignedVerdict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict and its verifier's signature."""

    verdict: Verdict
    signature: Signature

    def verify(self, public_key_hex: str) -> None:
        """Raises BadSignature unless `public_key_hex` (32 bytes) signed this verdict."""
        verify_ed25519(public_key_hex, self.verdict.digest(), self.signature)


class Evidence(Document, frozen=True):
    """Everything that goes with intents to a signer."""

    domain: ClassVar[str] = "evidence"

    v: Literal[1] = 1
    orders: tuple[SignedOrder, ...] = ()
    approvals: tuple[SignedApproval, ...] = ()
    verdicts: tuple[SignedVerdict, ...] = ()


class Attestation(Document, frozen=True):
    """The signer's word that an address is its own and belongs to a customer (house: `customer` is null)."""

    domain: ClassVar[str] = "attestation"

    v: Literal[1]
    chain: Name
    keyset: Name
    customer: Name | None
    asset: Name
    path: Annotated[str, msgspec.Meta(pattern=r"^m(/[0-9]{1,10}'?){1,8}\Z")]
    """Derivation path from the master key, e.g. `m/84'/1'/0'/0/7`."""
    address: Destination


for _kind in (Order, Intent, Evidence, SignedApproval, SignedVerdict, SignedOrder, Attestation):
    decoder_for(_kind)
