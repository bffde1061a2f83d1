"""From the slices' dataclasses to the JSON of `schemas`; base units become decimals here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from chains.types import Amount
from custody.api import paging, schemas
from custody.customers.repository import Customer
from policies.bundle import Bundle

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
