"""What all requests and answers are made of."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

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


class ProblemOut(BaseModel):
    """RFC 9457. Further members carry the numbers involved."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:strongroom:problem:insufficient-funds"])
    title: str
    status: int
    detail: str
    retryable: bool = Field(description="Whether the same request can succeed later.")
