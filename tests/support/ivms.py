"""Travel-rule data for tests, as a caller sends it."""

from __future__ import annotations

from typing import Any

LEI = "529900T8BM49AURSDO55"


def human(name: str, first: str | None = "Ann", **more: Any) -> dict[str, Any]:
    """A natural person with a legal name."""
    legal: dict[str, Any] = {"primaryIdentifier": name, "nameIdentifierType": "LEGL"}
    if first is not None:
        legal["secondaryIdentifier"] = first
    return {"naturalPerson": {"name": {"nameIdentifier": [legal]}, **more}}


def company(name: str, **more: Any) -> dict[str, Any]:
    """A legal person with a legal name."""
    legal = {"legalPersonName": name, "legalPersonNameIdentifierType": "LEGL"}
    return {"legalPerson": {"name": {"nameIdentifier": [legal]}, **more}}


def travel_rule(
    destination: str, *, to_vasp: str | None = "Other Exchange", family: str = "Müller"
) -> dict[str, Any]:
    """Whole data for a payment to `destination`."""
    lei = {"nationalIdentifier": LEI, "nationalIdentifierType": "LEIX"}
    found: dict[str, Any] = {
        "originator": {
            "originatorPersons": [human(family, "Jürgen", customerIdentification="customer-77")],
            "accountNumber": ["alice"],
        },
        "beneficiary": {"beneficiaryPersons": [human("Lindqvist")], "accountNumber": [destination]},
        "originatingVASP": {"originatingVASP": company("Our Exchange", nationalIdentification=lei)},
    }
    if to_vasp is not None:
        found["beneficiaryVASP"] = {"beneficiaryVASP": company(to_vasp)}
    return found
