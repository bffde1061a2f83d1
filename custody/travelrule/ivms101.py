"""Originator and beneficiary in the form of IVMS101 (interVASP messaging standard, 2020, camelCase JSON).

Of the standard, the fields that a withdrawal needs, with its rules about them; a field that is not among them is
refused rather than lost. All of it is personal data: nothing here prints a value, in `repr` or in an error.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Final, Literal

import msgspec

from chains.errors import InvalidValue

_SAFE_PATH: Final = re.compile(r"\$[A-Za-z0-9_.\[\]]*")
_LEI: Final = re.compile(r"[A-Z0-9]{18}[0-9]{2}")
_COUNTRY: Final = r"^[A-Z]{2}\Z"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
Short = Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=70)]
Country = Annotated[str, msgspec.Meta(pattern=_COUNTRY)]
"""ISO 3166-1 alpha-2; `XX` where it is not known."""
Date = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]


class _Personal(
    msgspec.Struct,
    frozen=True,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Shows nothing of itself."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}([secret])"


class NaturalPersonNameId(_Personal, frozen=True):
    """One name of a human."""

    primary_identifier: Text
    """Family name; the whole name of somebody who has but one."""
    name_identifier_type: Literal["ALIA", "BIRT", "MAID", "LEGL", "MISC"]
    secondary_identifier: Text | None = None


class NaturalPersonName(_Personal, frozen=True):
    """Names; one of them is the legal one (rule C6)."""

    name_identifier: Annotated[tuple[NaturalPersonNameId, ...], msgspec.Meta(min_length=1, max_length=8)]


class LegalPersonNameId(_Personal, frozen=True):
    """One name of a company."""

    legal_person_name: Text
    legal_person_name_identifier_type: Literal["LEGL", "SHRT", "TRAD"]


class LegalPersonName(_Personal, frozen=True):
    """Names; one of them is the legal one (rule C5)."""

    name_identifier: Annotated[tuple[LegalPersonNameId, ...], msgspec.Meta(min_length=1, max_length=8)]


class Address(_Personal, frozen=True):
    """Where somebody lives or works: lines, or a street with a number or a house's name (rule C8)."""

    address_type: Literal["HOME", "BIZZ", "GEOG"]
    country: Country
    town_name: Annotated[str, msgspec.Meta(min_length=1, max_length=35)] | None = None
    street_name: Line | None = None
    building_number: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] | None = None
    building_name: Annotated[str, msgspec.Meta(min_length=1, max_length=35)] | None = None
    post_code: Annotated[str, msgspec.Meta(min_length=1, max_length=16)] | None = None
    country_sub_division: Annotated[str, msgspec.Meta(min_length=1, max_length=35)] | None = None
    address_line: Annotated[tuple[Line, ...], msgspec.Meta(max_length=7)] = ()


class NationalIdentification(_Personal, frozen=True):
    """A number by which a state, or a register, knows somebody."""

    national_identifier: Annotated[str, msgspec.Meta(min_length=1, max_length=35)]
    national_identifier_type: Literal[
        "ARNU", "CCPT", "RAID", "DRLC", "FIIN", "TXID", "SOCS", "IDCD", "LEIX", "MISC"
    ]
    country_of_issue: Country | None = None
    registration_authority: Annotated[str, msgspec.Meta(pattern=r"^RA[0-9]{6}\Z")] | None = None


class DateAndPlaceOfBirth(_Personal, frozen=True):
    """When and where somebody was born."""

    date_of_birth: Date
    place_of_birth: Line


class NaturalPerson(_Personal, frozen=True):
    """A human."""

    name: NaturalPersonName
    geographic_address: Annotated[tuple[Address, ...], msgspec.Meta(max_length=8)] = ()
    national_identification: NationalIdentification | None = None
    customer_identification: Short | None = None
    date_and_place_of_birth: DateAndPlaceOfBirth | None = None
    country_of_residence: Country | None = None


class LegalPerson(_Personal, frozen=True):
    """A company."""

    name: LegalPersonName
    geographic_address: Annotated[tuple[Address, ...], msgspec.Meta(max_length=8)] = ()
    customer_identification: Short | None = None
    national_identification: NationalIdentification | None = None
    country_of_registration: Country | None = None


class Person(_Personal, frozen=True):
    """A human or a company."""

    natural_person: NaturalPerson | None = None
    legal_person: LegalPerson | None = None


Persons = Annotated[tuple[Person, ...], msgspec.Meta(min_length=1, max_length=8)]
Accounts = Annotated[tuple[Text, ...], msgspec.Meta(min_length=1, max_length=4)]


class Originator(_Personal, frozen=True):
    """Who pays."""

    originator_persons: Persons
    account_number: Accounts
    """With the originating VASP, such as the customer's id."""


class Beneficiary(_Personal, frozen=True):
    """Who is paid."""

    beneficiary_persons: Persons
    account_number: Accounts
    """The address that is paid."""


class OriginatingVasp(_Personal, frozen=True):
    """The service whose customer pays."""

    originating_vasp: Person = msgspec.field(name="originatingVASP")


class BeneficiaryVasp(_Personal, frozen=True):
    """The service whose customer is paid."""

    beneficiary_vasp: Person | None = msgspec.field(name="beneficiaryVASP", default=None)


class TravelRuleData(_Personal, frozen=True):
    """All about the two sides of one payment. Without a beneficiary VASP it goes to somebody's own wallet."""

    originator: Originator
    beneficiary: Beneficiary
    originating_vasp: OriginatingVasp = msgspec.field(name="originatingVASP")
    beneficiary_vasp: BeneficiaryVasp | None = msgspec.field(name="beneficiaryVASP", default=None)

    @property
    def other_vasp(self) -> Person | None:
        """The service on the other side; None if there is none."""
        return None if self.beneficiary_vasp is None else self.beneficiary_vasp.beneficiary_vasp

    def canonical(self) -> bytes:
        """The JSON that is sealed: fields sorted, absent ones left out."""
        return msgspec.json.encode(self, order="sorted")


def read(document: Any) -> TravelRuleData:
    """The data of a JSON document.

    Args:
        document: bytes, or the decoded object.

    Raises:
        InvalidValue: not in this form, or against a rule of the standard; names the place and no value.
    """
    try:
        found = (
            msgspec.json.decode(document, type=TravelRuleData)
            if isinstance(document, bytes)
            else msgspec.convert(document, TravelRuleData)
        )
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        # The library's sentence may quote what was given; the place in it is made of field names.
        place = _SAFE_PATH.findall(str(error))
        raise InvalidValue(f"travel rule: {_kind(error)} at {place[-1] if place else '$'}") from None
    _check_originator(found.originator)
    for number, person in enumerate(found.beneficiary.beneficiary_persons):
        _check_person(person, f"$.beneficiary.beneficiaryPersons[{number}]")
    _check_vasp(found.originating_vasp.originating_vasp, "$.originatingVASP.originatingVASP")
    if found.beneficiary_vasp is not None and found.other_vasp is not None:
        _check_vasp(found.other_vasp, "$.beneficiaryVASP.beneficiaryVASP")
    return found


def _kind(error: Exception) -> str:
    text = str(error)
    if "missing required field" in text:
        name = re.search(r"missing required field `([A-Za-z]+)`", text)
        return f"{name[1] if name else 'a field'} is missing"
    if "unknown field" in text:
        return "there is a field that is none of ours"
    return "not of the expected form"


def _check_originator(originator: Originator) -> None:
    for number, person in enumerate(originator.originator_persons):
        place = f"$.originator.originatorPersons[{number}]"
        _check_person(person, place)
        who = person.natural_person or person.legal_person
        assert who is not None
        known = (who.geographic_address, who.national_identification, who.customer_identification)
        born = isinstance(who, NaturalPerson) and who.date_and_place_of_birth is not None
        if not any(known) and not born:
            raise InvalidValue(
                f"travel rule: {place} needs an address, a national or customer identification, or (of a human) a"
                " birth date (C1, C4)"
            )


def _check_vasp(vasp: Person, place: str) -> None:
    _check_person(vasp, place)
    if vasp.legal_person is None:
        raise InvalidValue(f"travel rule: {place} must be a legal person")


def _check_person(person: Person, place: str) -> None:
    human, company = person.natural_person, person.legal_person
    if (human is None) is (company is None):
        raise InvalidValue(f"travel rule: {place} is either a natural or a legal person")
    if human is not None:
        if not any(name.name_identifier_type == "LEGL" for name in human.name.name_identifier):
            raise InvalidValue(f"travel rule: {place} needs a legal name (C6)")
        if human.date_and_place_of_birth is not None:
            _check_birth(human.date_and_place_of_birth, place)
    if company is not None:
        if not any(n.legal_person_name_identifier_type == "LEGL" for n in company.name.name_identifier):
            raise InvalidValue(f"travel rule: {place} needs a legal name (C5)")
        if company.national_identification is not None:
            _check_register(company.national_identification, place)
    for each in _addresses(person):
        if not each.address_line and not (each.street_name and (each.building_number or each.building_name)):
            raise InvalidValue(f"travel rule: {place} has an address without lines or street and number (C8)")


def _addresses(person: Person) -> tuple[Address, ...]:
    if person.natural_person is not None:
        return person.natural_person.geographic_address
    return () if person.legal_person is None else person.legal_person.geographic_address


def _check_birth(birth: DateAndPlaceOfBirth, place: str) -> None:
    try:
        born = date.fromisoformat(birth.date_of_birth)
    except ValueError:
        raise InvalidValue(f"travel rule: {place} has a date of birth that is no date") from None
    if born.year < 1850:
        raise InvalidValue(f"travel rule: {place} has a date of birth that nobody has")


def _check_register(found: NationalIdentification, place: str) -> None:
    if found.national_identifier_type not in ("RAID", "MISC", "LEIX", "TXID"):
        raise InvalidValue(f"travel rule: {place}: a legal person has a RAID, MISC, LEIX or TXID (C7)")
    if found.national_identifier_type == "LEIX" and not _is_lei(found.national_identifier):
        raise InvalidValue(f"travel rule: {place} has an LEI whose check digits are wrong (C11, ISO 17442)")


def _is_lei(text: str) -> bool:
    return _LEI.fullmatch(text) is not None and int("".join(str(int(c, 36)) for c in text)) % 97 == 1
