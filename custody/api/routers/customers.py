"""Customers."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from custody.api import schemas, views
from custody.api.calls import Call, Scope, needs
from custody.customers import service
from custody.web import paging

router = APIRouter(prefix="/v1/customers", tags=["customers"])

Writer = Annotated[Call, Depends(needs(Scope.CUSTOMERS_WRITE))]
Reader = Annotated[Call, Depends(needs(Scope.CUSTOMERS_READ))]


@router.post("", status_code=201, response_model=schemas.CustomerOut)
def create_customer(call: Writer, body: schemas.NewCustomer) -> Response:
    """Create a customer. Its id is yours to choose and never changes."""
    return call.write(201, lambda tx: views.customer(service.create(tx, body.id)))


@router.get("/{customer}", response_model=schemas.CustomerOut)
def show_customer(call: Reader, customer: schemas.NameText) -> Response:
    """One customer."""
    with call.reading() as tx:
        return views.answer(views.customer(service.get(tx, customer)))


@router.get("", response_model=schemas.Page[schemas.CustomerOut])
def list_customers(call: Reader, after: paging.After = None, limit: paging.Limit = 100) -> Any:
    """All customers, by id."""
    position = paging.decode("customers", after)
    with call.reading() as tx:
        found = service.page(tx, after=position, limit=limit + 1)
    return views.page("customers", found, limit, views.customer, lambda customer: customer.id)
