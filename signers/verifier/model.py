"""What the verifier reads of the ledger, and what it says about it. Pure values.

Every row is a claim of whoever can write the database. Names of kinds and types are the ledger's (texts), written down
here independently of the online service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple
from uuid import UUID

import msgspec

CUSTOMER_KINDS: Final = frozenset({"available", "frozen", "trading"})
"""Accounts that belong to a customer; what stands in them is owed."""
NEVER_NEGATIVE: Final = CUSTOMER_KINDS | {"fees_earned"}

FindingKind = Literal[
    "account-not-replayed",
    "transfer-out-of-balance",
    "asset-out-of-balance",
    "unexplained-transfer",
    "deposit-unproven",
    "deposit-repeated",
    "deposit-not-on-chain",
    "deposit-edited",
    "unlisted-asset",
    "address-swapped",
    "address-of-another",
    "address-unattested",
    "hold-broken",
    "order-not-genuine",
    "fee-not-charged",
    "internal-payment-misdirected",
    "payment-not-debited",
    "payment-not-signed",
    "payment-not-on-chain",
    "payment-repeated",
    "move-unproven",
    "trade-not-asked",
    "adjustment-not-approved",
    "settlement-broken",
    "overdrawn",
    "rolled-back",
    "unreadable",
]
"""What can be wrong. Each is described in `signers/verifier/README.md`."""


class Finding(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """Something that no honest history has."""

    kind: FindingKind
    customer: str
    """Whose ledger it is in; empty for the house's and for what concerns everybody."""
    subject: str
    """The line, transfer, deposit, address, transaction or signer."""
    detail: str
    """For people, with the numbers."""

    def __str__(self) -> str:
        return f"{self.kind} {self.customer or 'house'} {self.subject}: {self.detail}"


class Unknown(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=True):
    """Something that could not be told now: a node is behind, a signer does not answer, there is too much to read."""

    code: Literal["node", "depth", "signer", "size", "open-transaction"]
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"not known: {self.code} {self.subject}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Account:
    """A row of `ledger_accounts`."""

    id: int
    customer: str | None
    """None: the house's."""
    kind: str
    asset: str
    wallet: str
    balance: int
    last_seq: int

    def __str__(self) -> str:
        return ":".join(filter(None, (self.customer or "house", self.kind, self.wallet, self.asset)))


@dataclass(frozen=True, slots=True)
class Line:
    """A row of `ledger_lines`."""

    id: int
    transfer: UUID
    account: int
    seq: int
    type: str
    amount: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Transfer:
    """A row of `ledger_transfers`."""

    id: UUID
    kind: str
    parent: UUID | None
    reference: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A row of `ledger_holds`."""

    id: UUID
    customer: str
    asset: str
    units: int
    state: str


@dataclass(frozen=True, slots=True)
class Deposit:
    """A row of `deposits`: where on the chain a credit's money is said to be."""

    id: UUID
    chain: str
    resource: str
    address: int
    customer: str | None
    asset: str
    units: int
    height: int | None
    block: str | None


@dataclass(frozen=True, slots=True)
class AddressRow:
    """A row of `addresses`."""

    id: int
    chain: str
    keyset: str
    asset: str
    customer: str | None
    purpose: str
    address: str
    script: bytes
    attestation: str | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A row of `withdrawals`, as far as its order and its ledger go."""

    id: UUID
    customer: str
    chain: str
    asset: str
    destination: str
    units: int
    fee: int
    order: str
    signature: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Where a transaction of ours is said to be: a row of `transactions` with its versions."""

    wallet: str
    txid: str | None
    """Of the version that is said to be in a block; null: none."""
    height: int | None
    block: str | None
    resources: tuple[str, ...]
    """What its versions use."""


@dataclass(frozen=True, slots=True)
class Refill:
    """A row of `refills`."""

    id: UUID
    chain: str
    asset: str
    source: str
    target: str
    destination: str
    units: int


@dataclass(frozen=True, slots=True)
class Move:
    """A transfer with lines in the chain's money of more than one wallet of the house."""

    transfer: Transfer
    legs: tuple[tuple[str, str, str, int], ...]
    """Kind of the account, asset, wallet and amount of each line."""

    @property
    def plain(self) -> tuple[str, str, str, int] | None:
        """Asset, source, target and what went from one to the other; None if it is more or less than that."""
        if len(self.legs) != 2 or {leg[0] for leg in self.legs} != {"chain_assets"}:
            return None
        (_, asset, target, got), (_, other, source, gave) = sorted(self.legs, key=lambda leg: leg[3])
        return (asset, source, target, gave) if (asset, -got) == (other, gave) and gave > 0 else None


@dataclass(frozen=True, slots=True)
class Settlement:
    """A row of `trading_settlements`: a batch of fills as a trading core has asked for it."""

    core: UUID
    number: int
    first: int
    last: int
    complete: bool
    fills: int
    caller: str
    document: str
    token: str
    signature: str

    def __str__(self) -> str:
        return f"settlement {self.core}:{self.number}"


@dataclass(frozen=True, slots=True)
class History:
    """Everything in the ledger that touches one customer's accounts, of one snapshot.

    Its transfers are those with a line in the customer's accounts, and all others with the same `deposit:` or
    `withdrawal:` reference, each with all its lines.
    """

    customer: str
    accounts: Mapping[int, Account]
    """The customer's, and all others that the lines name."""
    lines: Sequence[Line]
    """In the order of their ids."""
    transfers: Mapping[UUID, Transfer]
    holds: Mapping[UUID, Hold]
    deposits: Mapping[UUID, Deposit]
    addresses: Mapping[int, AddressRow]
    withdrawals: Mapping[UUID, Withdrawal]
    settlements: Sequence[Settlement] = ()
    """The batches that its trades are said to be of."""
    actions: Sequence[OperatorAction] = ()
    """What operators have recorded about its adjustments."""


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """A row of `operator_actions`."""

    number: int
    at_micros: int
    writer: str
    operator: str
    key: str
    via: str
    origin: str
    action: str
    parameters: str
    outcome: str
    reason: str
    decision: str | None
    bundle_version: int | None
    asked_in: int | None
    document: str
    signature: str
    previous: str


class Plain(NamedTuple):
    """What a line does, without the rows that it stands in."""

    kind: str
    customer: str | None
    asset: str
    amount: int
    type: str


@dataclass(frozen=True, slots=True)
class Trade:
    """A transfer of the form of a trade, and the fill that its reference names."""

    id: UUID
    core: UUID
    sequence: int
    index: int
    legs: tuple[Plain, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    """A deposit that stands credited to the customer, still to be found on a chain."""

    deposit: UUID
    asset: str
    units: int
    """What must have arrived."""
    wallet: str


@dataclass(frozen=True, slots=True)
class Leg:
    """One line of a transfer, with its account."""

    account: Account
    amount: int
    type: str
    line: int

    @property
    def plain(self) -> tuple[int, int, str]:
        """What makes it equal to another: account, amount, type."""
        return self.account.id, self.amount, self.type


HoldState = Literal["pending", "posted", "voided"]


@dataclass(frozen=True, slots=True)
class Held:
    """What became of one withdrawal's money, by the replay."""

    withdrawal: UUID
    asset: str
    units: int
    """Of the hold: amount and fee."""
    state: HoldState
    paid: int = 0
    """While posted: what left for the destination."""
    fee: int = 0
    """While posted: what the house earned."""
    wallet: str = ""
    """While posted on the chain: out of which wallet, as the ledger says."""
    payee: str | None = None
    """While posted within the ledger: the customer who got it; None: it was paid on the chain."""


@dataclass(frozen=True, slots=True)
class Received:
    """Money of another customer's order that the ledger brought, without the chain."""

    withdrawal: UUID
    payer: str
    asset: str
    units: int


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A correction by hand: base units that a customer got (positive) or lost, against suspense."""

    id: UUID
    customer: str
    asset: str
    units: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the replay of a history found out, and what is still to be proven elsewhere."""

    findings: tuple[Finding, ...]
    balances: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Base units by (kind, asset), replayed from zero."""
    credits: tuple[Credit, ...] = ()
    held: Mapping[UUID, Held] = field(default_factory=dict)
    """By withdrawal."""
    received: tuple[Received, ...] = ()
    partners: frozenset[str] = frozenset()
    """Customers whose money came to this one: their ledgers must be explained, too."""
    trades: tuple[Trade, ...] = ()
    """Still to be found among what a trading core has signed."""
    shortfalls: Mapping[str, int] = field(default_factory=dict)
    """Base units by asset that the house bears for deposits that a reorg took back after they were spent."""
    adjustments: tuple[Adjustment, ...] = ()
    """Still to be found among what operators have signed."""

    def balance(self, kind: str, asset: str) -> int:
        """Replayed base units of one account; 0 if it never had any."""
        return self.balances.get((kind, asset), 0)
