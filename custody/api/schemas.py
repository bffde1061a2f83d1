"""The JSON of requests and answers, with examples. Amounts are decimal strings beside their asset."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

T = TypeVar("T")


def _units(text: str) -> str:
    if not text.isascii() or not text.isdigit() or len(text) > 78 or (text[0] == "0" and text != "0"):
        raise ValueError(
            'expected base units as a string of digits, e.g. "1000000": no sign, point or exponent'
        )
    return text


NameText = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
UuidText = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
]
UnitsText = Annotated[
    str,
    AfterValidator(_units),
    Field(max_length=200, json_schema_extra={"maxLength": 78, "pattern": "^(0|[1-9][0-9]{0,77})$"}),
]
DecimalText = Annotated[str, Field(description="Exact decimal, all places written.", examples=["0.01000000"])]
UnixSeconds = Annotated[int, Field(ge=0, le=253_370_764_800)]
"""Up to the year 9999: what follows has no date in Python."""


class In(BaseModel):
    """Base of what is read: no field too many, no type bent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Out(BaseModel):
    """Base of what is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Page(Out, Generic[T]):
    """A part of a list."""

    items: list[T]
    next: str | None = Field(description="Pass it as `after` for what follows; null at the end of a list.")


class Money(Out):
    """An amount of one asset."""

    asset: str = Field(examples=["BTC"])
    amount: DecimalText


class Empty(In):
    """A body with nothing in it."""


class NewCustomer(In):
    """A customer to be created."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"id": "alice"}]})

    id: NameText = Field(description="Chosen by you: 1 to 64 of `A-Za-z0-9._-`.")


class CustomerOut(Out):
    """A customer."""

    id: str = Field(examples=["alice"])
    state: Literal["active", "frozen"]
    reason: str = Field(description="Why it is frozen.")
    created_at: datetime


class NewAddress(In):
    """An address to be made for a customer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"asset": "BTC"}]})

    asset: NameText


class AddressOut(Out):
    """A deposit address with the signer's word for it."""

    address: str = Field(examples=["bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"])
    chain: str = Field(examples=["bitcoin-regtest"])
    asset: str = Field(examples=["BTC"])
    customer: str = Field(examples=["alice"])
    attestation: dict[str, Any] = Field(
        description="`{attestation, signature}` by the key-set's attestation key: verify before showing."
    )
    created_at: datetime


class BalanceOut(Out):
    """What a customer has of one asset."""

    asset: str = Field(examples=["BTC"])
    available: DecimalText
    frozen: DecimalText = Field(description="Held for withdrawals under way.")
    trading: DecimalText = Field(description="Handed to the matching engine.")


class Balances(Out):
    """All balances of a customer."""

    customer: str
    balances: list[BalanceOut]


class LineOut(Out):
    """One line of a statement: the balance after it is the balance before it plus the amount."""

    seq: int = Field(description="1, 2, 3 ... within the account, no gaps.")
    account: str = Field(examples=["available"])
    type: str = Field(examples=["deposit"])
    asset: str
    amount: DecimalText = Field(description="Signed.")
    balance_before: DecimalText
    balance_after: DecimalText
    reference: str = Field(examples=["deposit:0b0e7d4d-0f5a-5e21-9a3b-6d1f2c1e8a3b"])
    transfer: UUID
    at: datetime


class DepositOut(Out):
    """Value that arrived at an address of ours."""

    id: UUID
    customer: str | None = Field(description="Null: paid to a change address of the house.")
    asset: str
    amount: DecimalText
    chain: str
    address: str
    txid: str = Field(description="64 hex digits, on EVM without `0x`.")
    resource: str = Field(
        description="The deposit's one identity on its chain: BTC `txid:vout`; tokens `txid:log:n`; native EVM money by"
        " its place in the trace, or by block and address where a node has no traces."
    )
    state: str = Field(examples=["confirming"])
    height: int | None
    confirmations: int
    confirmations_needed: int
    created_at: datetime
    updated_at: datetime


class OrderIn(In):
    """The signed document (RFC 8785; domain `order`, version 1); amounts in base units."""

    v: Literal[1]
    id: UuidText = Field(description="Chosen by you, never reused; the withdrawal's id.")
    caller: NameText
    customer: NameText
    chain: NameText
    asset: NameText
    destination: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="In its canonical form: lower case for bech32, mixed case (EIP-55) on EVM."
    )
    amount: UnitsText = Field(description="What arrives, in base units.")
    fee_ceiling: UnitsText = Field(
        description="Most network fee this may cause, in base units of the chain's native asset (satoshi, wei)."
    )
    expires_at: UnixSeconds


class NewWithdrawal(In):
    """An order with its caller's signature."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "order": {
                        "v": 1,
                        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8e",
                        "caller": "exchange",
                        "customer": "alice",
                        "chain": "bitcoin-regtest",
                        "asset": "BTC",
                        "destination": "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080",
                        "amount": "1000000",
                        "fee_ceiling": "50000",
                        "expires_at": 1893456000,
                    },
                    "signature": "A" * 86 + "==",
                },
                {
                    "order": {
                        "v": 1,
                        "id": "0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f",
                        "caller": "exchange",
                        "customer": "alice",
                        "chain": "ethereum-devnet",
                        "asset": "USDX",
                        "destination": "0x52908400098527886E0F7030069857D2E4169EE7",
                        "amount": "25000000",
                        "fee_ceiling": "3000000000000000",
                        "expires_at": 1893456000,
                    },
                    "signature": "A" * 86 + "==",
                },
            ]
        }
    )

    order: OrderIn
    signature: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{86}==$")] = Field(
        description="Ed25519 over the order's digest, base64."
    )


class VersionOut(Out):
    """One version of the transaction that pays; all versions conflict, so at most one can confirm."""

    version: int
    txid: str | None = Field(description="Null until it is signed.")
    state: str
    network_fee: Money = Field(description="Of the whole transaction, which may serve more withdrawals.")
    feerate: int = Field(description="BTC: sat/kvB; EVM: wei per gas at most.")


class WithdrawalOut(Out):
    """A withdrawal and how far it is."""

    id: UUID
    caller: str
    customer: str
    chain: str
    asset: str
    amount: DecimalText = Field(description="What arrives at the destination.")
    fee: DecimalText = Field(description="What the customer pays besides, of the same asset.")
    fee_ceiling: Money
    destination: str
    state: str = Field(examples=["broadcast"])
    reason: str = Field(description="Why it waits, or why it ended.")
    tier: str | None
    settlement: str | None = Field(description="`chain` or `internal`.")
    transaction: UUID | None
    versions: list[VersionOut]
    txids: list[str] = Field(description="Of all signed versions, oldest first.")
    confirmed_txid: str | None
    network_fee: Money | None = Field(
        description="What the confirmed transaction paid, for all that it serves; null while it is in no block."
    )
    confirmations: int
    expires_at: datetime
    created_at: datetime
    updated_at: datetime


class NewBump(In):
    """A wish to replace an unconfirmed transaction by one with a higher fee."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"feerate": 25000}, {}]})

    feerate: Annotated[int, Field(gt=0, le=2**53 - 1)] | None = Field(
        default=None,
        description="BTC: sat/kvB. EVM: wei per gas at most, tips included (`maxFeePerGas`; 1 gwei is 1000000000)."
        " Raised to the least that a replacement needs; omit for the present estimate.",
    )


class BumpOut(Out):
    """A recorded request; the outcome shows as a new version of the withdrawal."""

    id: UUID
    withdrawal: UUID
    transaction: UUID
    feerate: int | None = Field(description="As asked for; null: the present estimate.")


class ConfirmationsOut(Out):
    """Deposits of at least `from_amount` need `blocks` confirmations."""

    from_amount: DecimalText
    blocks: int


class NetworkOut(Out):
    """A chain and how careful we are on it."""

    chain: str = Field(examples=["ethereum-devnet"])
    family: Literal["btc", "evm"]
    chain_id: int | None = Field(description="EVM: EIP-155; null on BTC.")
    native_asset: str = Field(description="In which its fees are paid.")
    settle_blocks: int = Field(
        description="Confirmations after which a payment is settled; they count from the tip on BTC, from the newest"
        " finalised block on EVM."
    )
    fee_cap: Money = Field(description="Most that one transaction of ours may cost.")


class Networks(Out):
    """All networks of the bundle."""

    bundle_version: int
    items: list[NetworkOut]


class AssetOut(Out):
    """An asset and its terms."""

    id: str = Field(examples=["BTC"])
    chain: str
    family: Literal["btc", "evm"]
    contract: str | None = Field(description="Of a token (EIP-55); null for a chain's native asset.")
    decimals: int
    traits: list[str] = Field(
        description="How a token departs from ERC-20, e.g. `no-return`; `fee-on-transfer` ones cannot be withdrawn."
    )
    native_asset: str = Field(description="In which the chain's fees are paid.")
    minimum_deposit: DecimalText
    withdrawal_fee: DecimalText
    confirmations: list[ConfirmationsOut]
    settle_blocks: int = Field(description="See `/v1/networks`.")


class Assets(Out):
    """All assets of the bundle."""

    bundle_version: int
    items: list[AssetOut]


class SuggestedFee(Money):
    """An amount of one asset, in base units too."""

    units: str = Field(description="Base units, as `order.fee_ceiling` wants them.", examples=["40000"])


class FeeOut(Out):
    """What an order of one asset should allow for its network fee."""

    asset: str = Field(examples=["USDX"])
    chain: str
    fee_ceiling: SuggestedFee | None = Field(
        description="For `order.fee_ceiling`: what a large payment costs at twice the present price, within the"
        " bundle's caps. Null while the price is not known, see `reason`."
    )
    feerate: int | None = Field(
        description="The last price that a worker saw. BTC: sat/kvB; EVM: wei per gas, tip included."
    )
    at: datetime | None = Field(description="When it did.")
    reason: str = Field(description="Why nothing is suggested; empty otherwise.")


class Fees(Out):
    """For all assets of the bundle, or of one chain."""

    bundle_version: int
    items: list[FeeOut]


class SweepOut(Out):
    """Money that moves between addresses of ours."""

    id: UUID
    chain: str
    keyset: str
    kind: Literal["sweep", "consolidation"] = Field(
        description="Forwarders emptied into the treasury, or small coins gathered into one."
    )
    state: str = Field(examples=["broadcast"])
    reason: str = Field(description="Why it was planned, or why it was abandoned.")
    addresses: int = Field(description="How many it empties.")
    amounts: list[Money] = Field(description="Expected; what is there when it is mined is moved.")
    transaction: UUID | None
    txid: str | None = Field(description="Of the confirmed version, else of the newest signed one.")
    network_fee: Money | None = Field(description="Paid; until it is mined, what it may cost at most.")
    created_at: datetime
    updated_at: datetime


class TierOut(Out):
    """What a tier may pay of an asset."""

    tier: str = Field(examples=["hot"])
    asset: str
    chain: str
    keyset: str | None
    payment_below: DecimalText
    window_cap: DecimalText
    window_seconds: int
    holds: DecimalText = Field(description="What the ledger says of its wallet.")
    holding_cap: DecimalText | None = Field(description="What it should hold at most; null: no limit.")
    excess: DecimalText = Field(description="What it holds beyond that: kept where it is.")


class Tiers(Out):
    """All caps of the bundle."""

    bundle_version: int
    items: list[TierOut]


class PartOut(Out):
    """One part of the service."""

    name: str = Field(examples=["monitor bitcoin-regtest"])
    ok: bool
    detail: str


class ChainStatusOut(Out):
    """How far a chain is followed."""

    chain: str
    family: Literal["btc", "evm"]
    height: int | None = Field(description="Last block committed; null: no monitor has begun.")
    node_tip: int | None = Field(description="Height of the node's best block; null: not known now.")
    behind_blocks: int | None = Field(description="How far we are behind the node.")
    final_height: int | None = Field(
        description="From where confirmations count: the tip on BTC, the newest finalised block on EVM."
    )
    heard_seconds: int | None = Field(description="Since the monitor was last heard of.")
    trouble: str | None = Field(description="Why the node cannot be read, if it cannot.")
    halted: str | None = Field(description="Why nothing is paid on this chain, if so.")


class ReasonOut(Out):
    """Why some wait."""

    reason: str = Field(description="Of one of them; what stands before the colon is the same for all.")
    count: int


class WaitingOut(Out):
    """Deposits or withdrawals of one asset in one state."""

    asset: str
    state: str
    count: int
    amount: DecimalText = Field(description="All of them together.")
    oldest_at: datetime
    reasons: list[ReasonOut] = Field(description="The commonest ones.")


class UnderWayOut(Out):
    """Sweeps or transactions of one chain and kind in one state."""

    chain: str
    kind: str = Field(examples=["payment"])
    state: str = Field(examples=["broadcast"])
    count: int
    oldest_at: datetime


class HaltOut(Out):
    """Paying is stopped."""

    scope: str = Field(description="`all`, the id of a chain, or `asset:` and the id of an asset.")
    reason: str
    at: datetime


class EventOut(Out):
    """A change."""

    type: str = Field(examples=["deposit.credited"])
    subject: str = Field(description="Id of what changed.")
    data: dict[str, Any]
    at: datetime


class AlertOut(Out):
    """A trouble that somebody should look at."""

    id: int
    severity: Literal["info", "warning", "critical"]
    type: str
    subject: str
    message: str
    data: dict[str, Any]
    at: datetime
    resolved_at: datetime | None


class ProblemOut(BaseModel):
    """RFC 9457. Further members carry the numbers involved."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:strongroom:problem:insufficient-funds"])
    title: str
    status: int
    detail: str
    retryable: bool = Field(description="Whether the same request can succeed later.")


class StatusOut(Out):
    """What runs, how far it is, what waits and why."""

    at: datetime
    ready: bool = Field(description="Every part is there.")
    attention: bool = Field(description="Paying is halted somewhere, or a critical alert is open.")
    parts: list[PartOut]
    chains: list[ChainStatusOut]
    deposits: list[WaitingOut] = Field(description="Not credited yet.")
    withdrawals: list[WaitingOut] = Field(description="Not ended yet.")
    sweeps: list[UnderWayOut] = Field(description="Not final yet.")
    transactions: list[UnderWayOut] = Field(description="Ours, not final yet.")
    tiers: list[TierOut]
    halts: list[HaltOut]
    alerts: list[AlertOut] = Field(description="Open ones, oldest first; at most 50.")
