"""IVMS101: what is whole, what is refused and why, and that no value of it is ever shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.travelrule.ivms101 import read
from tests.support.ivms import LEI, company, human, travel_rule

WHOLE = travel_rule("bc1qdestination")
SECRET = "Kaltenbrunner"


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    document = deepcopy(WHOLE)
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document


ORIGINATOR = ("originator", "originatorPersons", 0)
BENEFICIARY = ("beneficiary", "beneficiaryPersons", 0)


def born(day: str) -> dict[str, Any]:
    return human("x", dateAndPlaceOfBirth={"dateOfBirth": day, "placeOfBirth": "B"})


def registered(number: str, kind: str) -> dict[str, Any]:
    return company("x", nationalIdentification={"nationalIdentifier": number, "nationalIdentifierType": kind})


def test_whole_data_is_read_from_bytes_and_objects_and_its_canonical_form_is_its_own() -> None:
    found = read(WHOLE)
    assert read(json.dumps(WHOLE).encode()) == found
    assert read(found.canonical()) == found
    assert json.loads(found.canonical()) == WHOLE
    reordered = dict(reversed(list(WHOLE.items())))
    assert read(reordered).canonical() == found.canonical()


def test_nothing_of_it_is_shown() -> None:
    found = read(travel_rule("bc1q", family=SECRET))
    for shown in (
        repr(found),
        str(found),
        f"{found.originator}",
        repr(found.originator.originator_persons[0]),
    ):
        assert SECRET not in shown
        assert "[secret]" in shown


def test_a_payment_to_somebodys_own_wallet_has_no_other_vasp() -> None:
    assert read(travel_rule("bc1q", to_vasp=None)).other_vasp is None
    assert read(travel_rule("bc1q") | {"beneficiaryVASP": {}}).other_vasp is None
    assert read(WHOLE).other_vasp is not None


@pytest.mark.parametrize(
    "known",
    [
        {"customerIdentification": "77"},
        {"nationalIdentification": {"nationalIdentifier": "1", "nationalIdentifierType": "CCPT"}},
        {"dateAndPlaceOfBirth": {"dateOfBirth": "1971-02-28", "placeOfBirth": "Bern"}},
        {"geographicAddress": [{"addressType": "HOME", "country": "CH", "addressLine": ["Rue 1", "Genf"]}]},
        {
            "geographicAddress": [
                {
                    "addressType": "HOME",
                    "country": "CH",
                    "streetName": "Rue",
                    "buildingNumber": "1",
                    "townName": "G",
                }
            ]
        },
    ],
)
def test_one_thing_that_is_known_of_the_originator_is_enough(known: dict[str, Any]) -> None:
    read(changed(*ORIGINATOR, to=human("Meier", None, **known)))


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (changed("originator", to=None), "originator is missing"),
        (changed("beneficiary", "accountNumber", to=None), "accountNumber is missing"),
        (changed("originatingVASP", to=None), "originatingVASP is missing"),
        (changed("originator", "originatorPersons", to=[]), r"not of the expected form at \$.originator"),
        (changed(*ORIGINATOR, to={}), "either a natural or a legal person"),
        (changed(*ORIGINATOR, to=human("x") | company("y")), "either a natural or a legal person"),
        (changed(*ORIGINATOR, to=human("x")), r"C1, C4"),
        (changed(*ORIGINATOR, to=company("x")), r"C1, C4"),
        (changed(*BENEFICIARY, "naturalPerson", "name", "nameIdentifier", 0, "nameIdentifierType", to="ALIA"), "C6"),
        (changed("originatingVASP", "originatingVASP", to=human("x")), "must be a legal person"),
        (
            changed(*BENEFICIARY, to=human("x", geographicAddress=[{"addressType": "HOME", "country": "CH"}])),
            "C8",
        ),
        (
            changed(*BENEFICIARY, to=born("1971-02-30")),
            "is no date",
        ),
        (
            changed(*BENEFICIARY, to=born("0001-01-01")),
            "that nobody has",
        ),
        (changed(*BENEFICIARY, to=human("x", countryOfResidence="Swiss")), "not of the expected form"),
        (
            changed(
                *BENEFICIARY,
                to=registered(LEI[:-1] + "6", "LEIX"),
            ),
            "C11",
        ),
        (
            changed(
                *BENEFICIARY,
                to=registered("1", "CCPT"),
            ),
            "C7",
        ),
        (WHOLE | {"payload": 1}, "none of ours"),
        (b"{", "not of the expected form"),
        (b"\xff", "not of the expected form"),
        ([], "not of the expected form"),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_refused_with_its_place(document: Any, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence):
        read(document)


def _strings(place: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(place, dict):
        return [found for name, each in place.items() for found in _strings(each, (*path, name))]
    if isinstance(place, list):
        return [found for number, each in enumerate(place) for found in _strings(each, (*path, number))]
    return [path]


@pytest.mark.parametrize("path", _strings(WHOLE), ids=str)
@pytest.mark.parametrize(
    "spoil", [lambda _: SECRET * 40, lambda _: {SECRET: 1}, lambda _: [SECRET], lambda _: 7]
)
def test_no_error_quotes_what_was_given(path: tuple[str | int, ...], spoil: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        read(changed(*path, to=spoil(None)))
    assert SECRET not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_anything_else_is_refused_in_one_way(document: Any) -> None:
    with pytest.raises(InvalidValue):
        read(document)
