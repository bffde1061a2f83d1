"""What belongs to one customer: addresses, balances, the statement."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from custody.api import schemas, views
from custody.api.calls import REPLAYED, Call, Scope, needs
from custody.api.examples import PERIOD_CSV
from custody.customers import service as customers
from custody.deposits import addresses
from custody.deposits import repository as deposits
from custody.deposits.attestation import AddressNotOurs, AttestationMismatch, verify, verify_row
from custody.ledger import statements
from custody.web import paging
from signers.ports import SignedAttestation

router = APIRouter(prefix="/v1/customers/{customer}", tags=["accounts"])

AddressWriter = Annotated[Call, Depends(needs(Scope.ADDRESSES_WRITE))]
CustomerReader = Annotated[Call, Depends(needs(Scope.CUSTOMERS_READ))]
LedgerReader = Annotated[Call, Depends(needs(Scope.LEDGER_READ))]


@router.post("/addresses", status_code=201, response_model=schemas.AddressOut)
def create_address(call: AddressWriter, customer: schemas.NameText, body: schemas.NewAddress) -> Response:
    """Make a deposit address. The signer has attested it, and we have verified that, before you see it."""

    def attest() -> addresses.AttestedAddress:
        asset = call.bundle.asset(body.asset)
        signer = call.services.signer(call.bundle.keyset_for(asset.chain, "hot").id)
        return addresses.attest(call.services.database, signer, call.bundle, customer, asset.id)

    answer = call.write_after(201, attest, lambda tx, attested: views.address(addresses.record(tx, attested)))
    if answer.status_code == 201 and answer.headers[REPLAYED] == "true":
        _check_shown(call, customer, body.asset, bytes(answer.body))
    return answer


def _check_shown(call: Call, customer: str, asset: str, body: bytes) -> None:
    """Check a remembered answer as if the database had invented it: it names where customers will pay to."""
    shown = schemas.AddressOut.model_validate_json(body)
    try:
        signed = msgspec.convert(shown.attestation, SignedAttestation)
        branch, index = (int(part) for part in signed.attestation.path.split("/")[-2:])
    except (msgspec.MsgspecError, ValueError):
        raise AttestationMismatch("a remembered address has no readable attestation") from None
    keyset = signed.attestation.keyset
    text, _ = verify(
        signed, call.bundle, keyset=keyset, customer=customer, asset=asset, branch=branch, index=index
    )
    if shown.address != text:
        raise AddressNotOurs(f"a remembered answer says {shown.address}, the attestation {text}")


@router.get("/addresses", response_model=schemas.Page[schemas.AddressOut])
def list_addresses(
    call: CustomerReader,
    customer: schemas.NameText,
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """A customer's addresses, oldest first; each is verified against the signer's word before it is shown."""
    position = paging.decode_int("addresses", after) or 0
    with call.reading() as tx:
        customers.get(tx, customer)
        found = [row for row in deposits.addresses_of(tx, customer) if row.id > position][: limit + 1]
    for row in found:
        verify_row(row, call.bundle)
    return views.page("addresses", found, limit, views.address, lambda row: str(row.id))


@router.get("/balances", response_model=schemas.Balances)
def show_balances(call: LedgerReader, customer: schemas.NameText) -> Response:
    """What a customer has of each asset."""
    with call.reading() as tx:
        customers.get(tx, customer)
        found = statements.balances(tx, customer)
    return views.answer(views.balances(call.bundle, customer, found))


@router.get("/statement", response_model=schemas.Page[schemas.LineOut])
def show_statement(
    call: LedgerReader,
    customer: schemas.NameText,
    asset: Annotated[schemas.NameText, Query(description="Asset id.")],
    after: paging.After = None,
    limit: paging.Limit = 100,
) -> Response:
    """Every change of a customer's accounts of one asset, oldest first, with the balance after it."""
    known = call.bundle.asset(asset)
    position = paging.decode("statement", after)
    with call.reading() as tx:
        customers.get(tx, customer)
        found = statements.statement(tx, customer, known.id, after=position, limit=limit)
    return views.answer(views.statement(call.bundle, known.id, found))


@router.get(
    "/statement/period",
    response_model=schemas.PeriodOut,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}, "example": PERIOD_CSV}}}},
)
def show_period(
    call: LedgerReader,
    customer: schemas.NameText,
    asset: Annotated[schemas.NameText, Query(description="Asset id.")],
    since: Annotated[datetime, Query(description="First moment, RFC 3339 with its zone.")],
    until: Annotated[datetime, Query(description="First moment that is no more in it.")],
    form: Annotated[Literal["json", "csv"], Query(description="What the answer is.")] = "json",
) -> Response:
    """All changes of a customer's accounts of one asset in a period, with the balances before and after it."""
    known = call.bundle.asset(asset)
    with call.reading() as tx:
        customers.get(tx, customer)
        found = statements.period(tx, customer, known.id, since=since, until=until)
    shown = views.period(call.bundle, customer, found, since, until)
    if form == "csv":
        return Response(views.period_csv(shown), media_type="text/csv; charset=utf-8")
    return views.answer(shown)
