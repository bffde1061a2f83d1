"""From the slices' dataclasses to the JSON of `schemas`; base units become decimals here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from chains.types import Amount
from custody.api import readmodel, schemas
from custody.approvals.model import Question
from custody.audit.model import Record
from custody.customers.repository import Customer
from custody.deposits.model import AddressRow, Deposit
from custody.ledger.statements import Balances, PeriodStatement, StatementLine, StatementPage
from custody.screening.cases import Case
from custody.screening.verdicts import Screened
from custody.storage.alerts import Alert
from custody.storage.events import Event
from custody.sweeps.model import Sweep
from custody.travelrule.repository import Attached
from custody.treasury.fees import Suggestion
from custody.treasury.model import Refill
from custody.web import paging
from custody.whitelist.lifecycle import cooling_seconds
from custody.whitelist.model import Entry
from custody.whitelist.proofs import Challenge
from custody.whitelist.service import standing_of
from custody.withdrawals.model import Withdrawal
from policies.bundle import AssetEntry, Bundle, EvmNetwork
from policies.engine import groups_of
from policies.words import needed

T = TypeVar("T")


def answer(model: BaseModel, status: int = 200) -> Response:
    """The model as the HTTP answer (built once, not validated again)."""
    return Response(model.model_dump_json(), status, media_type="application/json")


def page(
    kind: str,
    found: Sequence[T],
    limit: int,
    render: Callable[[T], BaseModel],
    position: Callable[[T], str],
) -> Response:
    """A page of `limit` items out of `limit + 1` that were looked for."""
    shown = found[:limit]
    following = paging.encode(kind, position(shown[-1])) if len(found) > limit else None
    items: list[Any] = [render(item) for item in shown]
    return answer(schemas.Page[Any](items=items, next=following))


def decimal(bundle: Bundle, asset: str, units: int) -> str:
    """Base units as a decimal string with the asset's decimals."""
    return Amount(bundle.asset(asset).asset(), units).decimal()


def money(bundle: Bundle, asset: str, units: int) -> schemas.Money:
    """Base units as a decimal with the asset beside it."""
    return schemas.Money(asset=asset, amount=decimal(bundle, asset, units))


def customer(found: Customer) -> schemas.CustomerOut:
    """A customer."""
    return schemas.CustomerOut(
        id=found.id,
        state="frozen" if found.state == "frozen" else "active",
        reason=found.reason,
        created_at=found.created_at,
    )


def case(found: Case) -> schemas.CaseOut:
    """A case of screening."""
    return schemas.CaseOut(
        id=found.id,
        kind=found.kind.value,
        subject=found.subject,
        chain=found.chain,
        address=found.address,
        findings=[schemas.FindingOut(**each.describe()) for each in found.findings],
        state=found.state.value,
        resolution=found.resolution,
        resolved_by=found.resolved_by,
        opened_at=found.opened_at,
        resolved_at=found.resolved_at,
    )


def screening(found: Screened) -> schemas.ScreeningOut:
    """What providers said of a deposit or a withdrawal."""
    return schemas.ScreeningOut(
        kind=found.kind.value,
        subject=found.subject,
        at=found.at,
        verdicts=[schemas.VerdictOut(**each) for each in found.verdicts],
    )


def action(found: Record) -> schemas.ActionOut:
    """What an operator did."""
    return schemas.ActionOut.model_validate(found.told())


def travel_rule(found: Attached) -> schemas.TravelRuleOut:
    """That travel-rule data is attached."""
    return schemas.TravelRuleOut.model_validate(
        {
            "withdrawal": found.withdrawal,
            "state": found.state,
            "attached_at": found.attached_at,
            "delivered_at": found.delivered_at,
        }
    )


def warnings(alike: Sequence[str]) -> list[str]:
    """What is said of known addresses that one could be taken for."""
    return [f"it begins and ends like {each}, which is another address" for each in alike]


def whitelist_entry(
    found: Entry, bundle: Bundle, alike: Sequence[str], label: str | None, *, now: int
) -> schemas.EntryOut:
    """An entry of a whitelist; `alike`: known addresses that it could be taken for."""
    cooling = timedelta(seconds=cooling_seconds(bundle.policy))
    listed = found.listed_at if found.state == "listed" else None
    return schemas.EntryOut(
        id=found.id,
        owner=found.owner,
        chain=found.chain,
        address=found.address,
        provenance=found.provenance,
        label=label,
        requested_by=found.requested_by,
        state=standing_of(found, bundle, now=now).value,
        usable_at=None if listed is None else listed + cooling,
        warnings=warnings(alike),
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


def challenge(found: Challenge) -> schemas.ChallengeOut:
    """What the key of an address is to sign."""
    return schemas.ChallengeOut(
        id=found.id,
        owner=found.owner,
        chain=found.chain,
        address=found.address,
        text=found.text,
        expires_at=found.expires_at,
        proved_at=found.proved_at,
    )


def address(found: AddressRow) -> schemas.AddressOut:
    """A customer's address, which the caller of this function has verified."""
    return schemas.AddressOut(
        address=found.address,
        chain=found.chain,
        asset=found.asset,
        customer=found.customer or "",
        attestation=json.loads(found.attestation or "{}"),
        created_at=found.created_at,
    )


def deposit(bundle: Bundle, found: Deposit, paid_to: str, anchor: int) -> schemas.DepositOut:
    """A deposit; its confirmations count from height `anchor` of its chain."""
    return schemas.DepositOut(
        id=found.id,
        customer=found.customer,
        asset=found.asset,
        amount=decimal(bundle, found.asset, found.units),
        chain=found.chain,
        address=paid_to,
        txid=found.txid,
        resource=found.resource,
        state=found.state,
        height=found.height,
        confirmations=found.depth(anchor),
        confirmations_needed=found.confirmations,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


def withdrawal(
    bundle: Bundle, found: Withdrawal, paying: readmodel.TransactionRow | None, anchor: int
) -> schemas.WithdrawalOut:
    """A withdrawal with all versions of the transaction that pays it."""
    native = bundle.network(found.chain).native_asset
    ceiling = found.signed_order.order.fee_ceiling_units
    versions = paying.versions if paying is not None else ()
    return schemas.WithdrawalOut(
        id=found.id,
        caller=found.caller,
        customer=found.customer,
        chain=found.chain,
        asset=found.asset,
        amount=decimal(bundle, found.asset, found.units),
        fee=decimal(bundle, found.asset, found.fee_units),
        fee_ceiling=money(bundle, native, ceiling),
        destination=found.destination,
        state=found.state,
        reason=found.reason,
        tier=found.tier,
        settlement=found.settlement,
        transaction=found.transaction_id,
        versions=[
            schemas.VersionOut(
                version=version.version,
                txid=version.txid,
                state=version.state,
                network_fee=money(bundle, native, version.fee_units),
                feerate=version.feerate,
            )
            for version in versions
        ],
        txids=[version.txid for version in versions if version.txid is not None],
        confirmed_txid=paying.confirmed_txid if paying is not None else None,
        network_fee=(
            None if paying is None or paying.paid_units is None else money(bundle, native, paying.paid_units)
        ),
        confirmations=_depth(paying, anchor),
        expires_at=found.expires_at,
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


def question(found: Question[Withdrawal] | Question[Refill]) -> schemas.QuestionOut:
    """A withdrawal or a refill that waits for approval."""
    subject = found.subject
    ordered, moved = (subject, None) if isinstance(subject, Withdrawal) else (None, subject)
    return schemas.QuestionOut(
        withdrawal=None if ordered is None else ordered.id,
        refill=None if moved is None else moved.id,
        customer=None if ordered is None else ordered.customer,
        order=None if ordered is None else json.loads(ordered.order_json),
        order_signature=None if ordered is None else ordered.order_signature,
        target=None if moved is None else moved.target,
        place=None if moved is None else moved.place,
        about="" if moved is None else moved.about,
        intent=found.intent.to_object(),
        intent_digest=found.intent.digest_hex(),
        asked=needed(found.asked),
        groups=sorted(set(groups_of(found.asked))),
        given=[
            schemas.GivenOut(
                approver=each.approval.approver,
                group=each.approval.group,
                expires_at=datetime.fromtimestamp(each.approval.expires_at, UTC),
            )
            for each in found.heard.approved
        ],
        lacking=found.lacking,
        created_at=subject.created_at,
        expires_at=None if ordered is None else ordered.expires_at,
    )


def networks(bundle: Bundle) -> schemas.Networks:
    """The bundle's networks."""
    return schemas.Networks(
        bundle_version=bundle.version,
        items=[
            schemas.NetworkOut(
                chain=network.chain,
                family=network.family,
                chain_id=network.chain_id if isinstance(network, EvmNetwork) else None,
                native_asset=network.native_asset,
                settle_blocks=network.settle_blocks,
                fee_cap=money(bundle, network.native_asset, int(network.fee_cap)),
            )
            for network in bundle.networks
        ],
    )


def fees(bundle: Bundle, found: Sequence[Suggestion]) -> schemas.Fees:
    """Suggested fee ceilings."""
    return schemas.Fees(
        bundle_version=bundle.version,
        items=[
            schemas.FeeOut(
                asset=each.asset,
                chain=each.chain,
                fee_ceiling=None
                if each.units is None
                else schemas.SuggestedFee(
                    asset=each.native_asset,
                    amount=decimal(bundle, each.native_asset, each.units),
                    units=str(each.units),
                ),
                feerate=each.feerate,
                at=each.at,
                reason=each.reason,
            )
            for each in found
        ],
    )


def assets(bundle: Bundle) -> schemas.Assets:
    """The bundle's assets."""
    return schemas.Assets(
        bundle_version=bundle.version, items=[_asset(bundle, entry) for entry in bundle.assets]
    )


def _asset(bundle: Bundle, entry: AssetEntry) -> schemas.AssetOut:
    network = bundle.network(entry.chain)
    return schemas.AssetOut(
        id=entry.id,
        chain=entry.chain,
        family=network.family,
        contract=entry.contract,
        decimals=entry.decimals,
        traits=list(entry.traits),
        native_asset=network.native_asset,
        minimum_deposit=decimal(bundle, entry.id, int(entry.minimum_deposit)),
        withdrawal_fee=decimal(bundle, entry.id, int(entry.withdrawal_fee)),
        confirmations=[
            schemas.ConfirmationsOut(
                from_amount=decimal(bundle, entry.id, int(step.from_units)), blocks=step.blocks
            )
            for step in entry.confirmations
        ],
        settle_blocks=network.settle_blocks,
    )


_SWEEP_KINDS: Final[Mapping[str, Literal["sweep", "consolidation", "rotation"]]] = {
    "sweep": "sweep",
    "consolidation": "consolidation",
    "rotation": "rotation",
}


def sweep(bundle: Bundle, found: Sweep) -> schemas.SweepOut:
    """A sweep."""
    native = bundle.network(found.chain).native_asset
    return schemas.SweepOut(
        id=found.id,
        chain=found.chain,
        keyset=found.keyset,
        kind=_SWEEP_KINDS[found.kind],
        state=found.state,
        reason=found.reason,
        addresses=found.addresses,
        amounts=[money(bundle, asset, amount) for asset, amount in sorted(found.units.items()) if amount],
        transaction=found.transaction_id,
        txid=found.txid,
        network_fee=None if found.fee_units is None else money(bundle, native, found.fee_units),
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


def alert(bundle: Bundle, found: Alert) -> schemas.AlertOut:
    """An alert."""
    return schemas.AlertOut(
        id=found.id,
        severity=found.severity.value,
        type=found.type,
        subject=found.subject,
        message=found.message,
        data=event_data(bundle, found.data),
        at=found.at,
        resolved_at=found.resolved_at,
    )


def events(bundle: Bundle, found: Sequence[Event], following: str | None) -> schemas.Page[schemas.EventOut]:
    """Events, and the cursor behind the last one ever read (None only in front of the very first)."""
    return schemas.Page[schemas.EventOut](
        items=[
            schemas.EventOut(
                type=event.type, subject=event.subject, data=event_data(bundle, event.data), at=event.at
            )
            for event in found
        ],
        next=None if following is None else paging.encode("events", following),
    )


def balances(bundle: Bundle, customer_id: str, found: Sequence[Balances]) -> schemas.Balances:
    """A customer's balances."""
    return schemas.Balances(
        customer=customer_id,
        balances=[
            schemas.BalanceOut(
                asset=each.asset,
                available=decimal(bundle, each.asset, each.available),
                frozen=decimal(bundle, each.asset, each.frozen),
                trading=decimal(bundle, each.asset, each.trading),
            )
            for each in found
        ],
    )


def _line(bundle: Bundle, asset: str, line: StatementLine) -> schemas.LineOut:
    return schemas.LineOut(
        seq=line.seq,
        account=line.account.value,
        type=line.type.value,
        asset=asset,
        amount=decimal(bundle, asset, line.amount),
        balance_before=decimal(bundle, asset, line.balance_before),
        balance_after=decimal(bundle, asset, line.balance_after),
        reference=line.reference,
        transfer=line.transfer_id,
        at=line.at,
    )


def statement(bundle: Bundle, asset: str, found: StatementPage) -> schemas.Page[schemas.LineOut]:
    """A page of a statement."""
    return schemas.Page[schemas.LineOut](
        items=[_line(bundle, asset, line) for line in found.lines],
        next=paging.encode("statement", found.cursor) if found.more else None,
    )


def period(
    bundle: Bundle, customer: str, found: PeriodStatement, since: datetime, until: datetime
) -> schemas.PeriodOut:
    """A statement over a period."""
    asset = found.opening.asset
    opening, closing = balances(bundle, customer, [found.opening, found.closing]).balances
    return schemas.PeriodOut(
        customer=customer,
        asset=asset,
        since=since,
        until=until,
        opening=opening,
        closing=closing,
        lines=[_line(bundle, asset, line) for line in found.lines],
    )


def period_csv(shown: schemas.PeriodOut) -> str:
    """The same as CSV (RFC 4180): a row for each account's opening balance, the lines, and the closing balances."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(schemas.LineOut.model_fields)
    for name, at, ends in (("opening", shown.since, shown.opening), ("closing", shown.until, shown.closing)):
        if name == "closing":
            for line in shown.lines:
                rows.writerow([_cell(value) for value in line.model_dump(mode="json").values()])
        for kind in ("available", "frozen", "trading"):
            balance = getattr(ends, kind)
            told = {
                "account": kind,
                "type": name,
                "asset": shown.asset,
                "balance_after": balance,
                "at": f"{at}",
            }
            rows.writerow([told.get(field, "") for field in schemas.LineOut.model_fields])
    return text.getvalue()


def _cell(value: object) -> str:
    """A cell that no spreadsheet takes for a formula: only the reference is a text of somebody else's choice."""
    text = str(value)
    return f"'{text}" if text[:1] in ("=", "@", "+", "\t", "\r") else text


def event_data(bundle: Bundle, data: Mapping[str, Any]) -> dict[str, Any]:
    """An event's data with amounts as elsewhere: `units` becomes `amount`, `fee_units` becomes `fee`.

    They are of the asset named beside them; where only a chain is named, of its native asset.
    """
    asset = data.get("asset")
    if asset is None:
        asset = next((each.native_asset for each in bundle.networks if each.chain == data.get("chain")), None)
    entry = next((entry for entry in bundle.assets if entry.id == asset), None)
    shown: dict[str, Any] = {}
    for key, value in data.items():
        number = str(value)
        if entry is None or not key.endswith("units") or not number.removeprefix("-").isdigit():
            shown[key] = value
            continue
        name = "amount" if key == "units" else key.removesuffix("_units")
        shown[name] = Amount(entry.asset(), int(number)).decimal()
    return shown


def _depth(paying: readmodel.TransactionRow | None, anchor: int) -> int:
    return 0 if paying is None or paying.height is None else max(0, anchor - paying.height + 1)
