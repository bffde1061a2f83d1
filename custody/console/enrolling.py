"""Making the key of somebody who approves payments, and the record of it for the next bundle."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec
import typer

from chains.errors import InvalidValue
from custody.console import passphrase
from custody.console.passkey_page import make_passkey
from policies.bundle import Approver, Operator, Passkey
from policies.canonical import decoder_for
from policies.keys import SigningKey

Place = Path | int
"""A file for the key, or the port of the page where a passkey is made."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is enrolled."""

    id: str
    organisation: str
    roles: tuple[str, ...]
    not_after: int
    """UNIX seconds."""


def place_of(key: Path | None, port: int | None) -> Place:
    """Where the key is made. Raises InvalidValue unless exactly one is given."""
    if key is not None and port is None:
        return key
    if key is None and port is not None:
        return port
    raise InvalidValue("give --key FILE (a new file, or a key of yours) or --passkey")


def enrolled(person: Person, place: Place, passphrase_fd: int | None) -> Approver:
    """The record, with a key that is made now, or read if the file is there.

    Raises:
        InvalidValue: a name of another form than a bundle takes.
        UnusableKey, NobodySigned: there is no key.
    """
    record = _checked(person)
    key = (
        _from_file(place, passphrase_fd)
        if isinstance(place, Path)
        else make_passkey(
            person.id,
            port=place,
            tell=lambda url: typer.echo(f"Open this page in your browser:\n  {url}", err=True),
        )
    )
    return msgspec.structs.replace(record, key=key)


def _checked(person: Person) -> Approver:
    """As strict as a bundle is, before a key is made."""
    fields = {
        "id": person.id,
        "key": "00" * 32,
        "organisation": person.organisation,
        "roles": person.roles,
        "not_after": person.not_after,
    }
    decoder_for(Approver)
    try:
        return msgspec.convert(fields, Approver)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"approver: {error}") from None


def _from_file(path: Path, passphrase_fd: int | None) -> str | Passkey:
    if path.exists():
        return SigningKey.load(path, passphrase.present(passphrase_fd)).public_hex
    made = SigningKey.generate()
    made.save(path, passphrase.chosen(passphrase_fd))
    typer.echo(f"A new key is in {path}, encrypted; only you can read the file.", err=True)
    return made.public_hex


def enrolled_operator(person: Person, place: Path, passphrase_fd: int | None) -> Operator:
    """An operator's record, with a key that is made now, or read if the file is there.

    Raises:
        InvalidValue: a name or a role of another form than a bundle takes.
        UnusableKey: there is no key.
    """
    fields = {
        "id": person.id,
        "organisation": person.organisation,
        "roles": person.roles,
        "not_after": person.not_after,
        "key": "0" * 64,
    }
    try:
        record = msgspec.convert(fields, Operator)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"the operator: {error}") from None
    return msgspec.structs.replace(record, key=_from_file(place, passphrase_fd))


def shown(record: Approver | Operator) -> str:
    """The record as JSON for people."""
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()


def fingerprint(record: Approver | Operator) -> str:
    """Eight groups of four hex digits, to be read out: what officers enter is what that person has made."""
    digest = hashlib.sha256(msgspec.json.encode(record, order="sorted")).hexdigest()
    return " ".join(digest[i : i + 4] for i in range(0, 32, 4))
