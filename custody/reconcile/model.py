"""What reconciliation looks at and what it says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from uuid import UUID

from chains.types import Asset, BlockRef


@dataclass(frozen=True, slots=True)
class WalletKey:
    """One asset in one wallet (key-set)."""

    chain: str
    wallet: str
    asset: str
    decimals: int
    """Of the asset."""

    def told(self, units: int) -> str:
        """Base units as people read them."""
        return Asset(self.asset, self.chain, self.decimals).told(units)

    def told_beyond(self, units: int) -> str:
        """A difference as people read it, with its sign."""
        return f"{'+' if units > 0 else ''}{self.told(units)}"


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent receipt of ours, or an output that the node has for our keys."""

    resource: str
    units: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """A transaction of ours that is mined and not settled, or settled and not mined, or both by other versions."""

    transaction: str
    state: str
    mined_units: int
    """What the version in the best chain took out of the wallet: what it paid, if it succeeded, and its fee."""
    booked_units: int
    """What its settlement took out of the ledger."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A coin that a stranger's transaction spent and that is not booked as lost, or the other way round."""

    resource: str
    spent_units: int
    """Of the coin, if a stranger's transaction in the best chain has used it."""
    booked_units: int
    """What is booked as its loss."""


class VarianceKind(StrEnum):
    """Why what a node has of an EVM wallet can differ from what blocks said, and where it is booked."""

    SURPLUS = "surplus"
    """Money that came by no way we watch: to an address before we knew it, by a contract's end, as a reward.
    Suspense."""
    TOKEN_FEE = "token_fee"
    """What a fee-on-transfer token kept while we moved it between our own addresses. The house's network fees."""
    LOSS = "loss"
    """What a final transaction of a stranger moved with our key. Suspense."""
    FLUSHED = "flushed"
    """What left forwarders of one wallet for the key of another, which their factory pays since its treasury changed.
    Suspense, from one wallet into the other, so that nothing of it stays there."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """The use of a nonce of ours by a transaction that is none of ours."""

    resource: str
    txid: str
    height: int


@dataclass(frozen=True, slots=True)
class StaleVariance:
    """A booked variance whose block has left the best chain, or which a rescan has explained: to be reversed."""

    id: UUID
    units: int


@dataclass(frozen=True, slots=True)
class Records:
    """EVM: what the blocks that we have read say a wallet has; coins there are none."""

    units: int
    """At the cursor: receipts, less what our transactions moved out and paid for being mined, and booked variances."""
    final_units: int
    """The same at the anchor."""
    anchor: BlockRef | None
    """The newest finalised block; None while there is none that we have read."""
    keeps_fees: bool
    """Whether it is a token that is known to keep a part of what is moved."""
    foreign: tuple[Foreign, ...]
    """Foreign uses of our nonces, oldest first."""
    explained_to: int
    """Foreign uses up to this height are booked as a loss; -1: none."""
    stale: tuple[StaleVariance, ...]
    variances: int
    """How many were ever recorded: numbers the next."""
    is_token: bool = False
    """Whether a contract of somebody else's says who has how much."""
    compromised: bool = False
    """Whether the bundle says that somebody else may have the key."""


@dataclass(frozen=True, slots=True)
class WalletFacts:
    """Everything about one wallet and asset, of one snapshot."""

    key: WalletKey
    ledger_units: int
    """What the ledger says we own: minus the balance of `chain_assets`."""
    uncredited: Mapping[str, int]
    """Units of mined deposits that are in no balance, by state."""
    in_flight: tuple[InFlight, ...]
    lost: tuple[Lost, ...]
    coins: tuple[Coin, ...]
    """BTC: the unspent receipts."""
    records: Records | None = None
    """EVM."""


@dataclass(frozen=True, slots=True)
class Offence:
    """A row that breaks a rule: which rule, and the sentence that says how."""

    rule: int
    detail: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that has waited for long and that no open alert tells of."""

    type: str
    subject: str
    detail: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What one snapshot of the database says."""

    cursors: Mapping[str, BlockRef]
    wallets: tuple[WalletFacts, ...]
    offences: tuple[Offence, ...]
    waiting: tuple[Waiting, ...]
    flushes: Mapping[str, str] = field(default_factory=dict)
    """EVM wallets whose forwarders pay the key of another wallet, and which."""


@dataclass(frozen=True, slots=True)
class NodeCoins:
    """What a node has for a wallet's keys, exactly at `tip`."""

    tip: BlockRef
    coins: tuple[Coin, ...]


@dataclass(frozen=True, slots=True)
class NodeBalance:
    """What a node has of one asset at all addresses of a wallet, exactly at `tip`; where asked, also at the anchor."""

    tip: BlockRef
    units: int
    final_units: int | None


RULES: Mapping[int, str] = {
    1: "every account is the replay of its lines, and each asset sums to zero",
    2: "frozen money is held money, and each withdrawal has the hold that its state asks for",
    3: "what blocks have brought and taken is what the node has",
    4: "the ledger's chain assets and what is in flight are what blocks have brought and taken",
    5: "each deposit is booked once if credited, else not at all",
    6: "each settled withdrawal is paid by one transaction, each transaction spends what it pays",
    7: "coins and nonces are used by our transactions, or booked as lost; each receipt is a deposit or our change",
    8: "what the trading core says that customers have is what the ledger has in trading",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One rule and what breaks it."""

    number: int
    title: str
    differences: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the rule holds."""
        return not self.differences


@dataclass(frozen=True, slots=True)
class Statement:
    """The identity of one wallet and asset, term by term, in base units."""

    key: WalletKey
    ledger_units: int
    uncredited: Mapping[str, int]
    mined_not_settled_units: int
    settled_not_mined_units: int
    lost_not_booked_units: int
    booked_not_lost_units: int
    coins_units: int
    """What blocks have brought and taken: unspent coins on BTC, balances on EVM chains."""
    node_units: int
    pending_units: int = 0
    """EVM: of the node's units, what no block explains and what is booked once it is final: a surplus, or (negative)
    fees that a token kept."""

    @property
    def expected_units(self) -> int:
        """Coins that there must be."""
        return (
            self.ledger_units
            + sum(self.uncredited.values())
            - self.mined_not_settled_units
            + self.settled_not_mined_units
            - self.lost_not_booked_units
            + self.booked_not_lost_units
        )

    @property
    def difference_units(self) -> int:
        """Coins beyond what there must be; negative: missing."""
        return self.coins_units - self.expected_units


@dataclass(frozen=True, slots=True)
class Booking:
    """A variance that is final and not booked."""

    key: WalletKey
    kind: VarianceKind
    units: int
    """Positive: the node has more than we knew; negative: less."""
    block: BlockRef
    """The finalised block at which the node was asked."""
    number: int
    """Of the variances of its wallet and asset, from 1: two workers that find the same one book it once."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome."""

    tips: Mapping[str, BlockRef]
    statements: tuple[Statement, ...]
    checks: tuple[Check, ...]
    waiting: tuple[Waiting, ...]
    bookings: tuple[Booking, ...] = ()
    """What is final and explained by no block: to be booked."""
    stale: tuple[StaleVariance, ...] = ()
    """Bookings to be reversed."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Chains that could not be compared, and why: nothing is known of their wallets."""
    diverted: tuple[Waiting, ...] = ()
    """Factories whose forwarders pay, or soon may pay, somebody else, and Safes that are not what was agreed."""
    short: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Those differences, by asset, that only its token's contract can have made: it is whoever runs it who decides what
    balances are, so they say nothing about any other asset."""

    trading: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Differences between ledger and trading core, by asset."""

    @property
    def ok(self) -> bool:
        """Whether every rule holds."""
        return all(check.ok for check in self.checks)

    def differences(self) -> tuple[str, ...]:
        """All differences, with the number of their rule."""
        return tuple(f"({check.number}) {each}" for check in self.checks for each in check.differences)

    def beyond_assets(self) -> bool:
        """Whether anything differs that is not one asset's alone."""
        alone = {f"(3) {each}" for differences in self.short.values() for each in differences}
        alone |= {f"(8) {each}" for differences in self.trading.values() for each in differences}
        return not alone.issuperset(self.differences())

    def to_object(self) -> dict[str, Any]:
        """As JSON values; amounts are decimal strings of base units."""
        return {
            "ok": self.ok,
            "absent": dict(self.absent),
            "tips": {chain: {"height": tip.height, "hash": tip.hash} for chain, tip in self.tips.items()},
            "wallets": [
                {
                    "chain": each.key.chain,
                    "wallet": each.key.wallet,
                    "asset": each.key.asset,
                    "ledger": str(each.ledger_units),
                    "uncredited": {state: str(units) for state, units in each.uncredited.items()},
                    "mined_not_settled": str(each.mined_not_settled_units),
                    "settled_not_mined": str(each.settled_not_mined_units),
                    "lost_not_booked": str(each.lost_not_booked_units),
                    "booked_not_lost": str(each.booked_not_lost_units),
                    "expected": str(each.expected_units),
                    "coins": str(each.coins_units),
                    "node": str(each.node_units),
                    "pending": str(each.pending_units),
                    "difference": str(each.difference_units),
                }
                for each in self.statements
            ],
            "checks": [
                {"number": c.number, "title": c.title, "ok": c.ok, "differences": list(c.differences)}
                for c in self.checks
            ],
            "waiting": [
                {"type": each.type, "subject": each.subject, "detail": each.detail} for each in self.waiting
            ],
            "diverted": [
                {"type": each.type, "subject": each.subject, "detail": each.detail} for each in self.diverted
            ],
        }
