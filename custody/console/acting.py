"""One action of an operator at the host: who it is, what is signed, and that it is recorded with its effect.

The workers' settings and database role are used, not the API: whoever takes the API can ask for payments, but can lift
neither a halt nor a freeze. The operator is somebody of the bundle, known by the key of the client file that
`STRONGROOM_OPERATOR` names; that file also serves the API (`STRONGROOM_CLIENT`).
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from chains.errors import InvalidValue
from custody.audit import repository
from custody.audit.model import Attempt, Via
from custody.audit.service import perform
from custody.config import FILE_VARIABLE, Process, Settings, load
from custody.console import passphrase
from custody.console import settings as client_settings
from custody.errors import InvalidConfiguration
from custody.officers.standing import Standing
from custody.ports import Clock, system_clock
from custody.storage.db import Database, Tx
from custody.wiring import read_trust_root
from policies.administration import Act
from policies.bundle import Bundle, UntrustedBundle
from policies.keys import SigningKey

CONFIG_VARIABLE: Final = "STRONGROOM_OPERATOR_CONFIG"
OPERATOR_VARIABLE: Final = "STRONGROOM_OPERATOR"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Person:
    """Who is at the keyboard."""

    id: str
    """In the bundle."""
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Session:
    """An operator and what he works on."""

    settings: Settings
    database: Database
    person: Person
    bundle: Bundle | None
    """In force; None if none can be believed: then only what stops things is done."""
    clock: Clock

    def do(self, action: str, parameters: Mapping[str, str], effect: Callable[[Tx], _T]) -> _T:
        """Sign an action, do it if it is permitted, and record it either way.

        Args:
            action: of `policies.administration.ACTIONS`.
            parameters: what and why, without secrets and personal data.
            effect: does it, in the transaction of the record.

        Raises:
            NotDone: refused, or others must approve it.
            StrongroomError: of `effect`.
        """
        attempt = self._attempt(action, parameters)
        return perform(self.database, attempt, self.bundle, effect, now=self.clock())

    def _attempt(self, action: str, parameters: Mapping[str, str]) -> Attempt:
        with self.database.snapshot() as tx:
            _, seen = repository.head(tx)
        too_long = [name for name, text in parameters.items() if len(text) > _LONGEST]
        if too_long:
            raise InvalidValue(f"{', '.join(too_long)}: at most {_LONGEST} characters; nothing was done")
        act = Act(
            v=1,
            operator=self.person.id,
            action=action,
            parameters=dict(parameters),
            seen=seen,
            issued_at=self.clock(),
            nonce=secrets.token_hex(16),
        )
        return Attempt(
            operator=self.person.id,
            key=self.person.key.public_hex,
            via=Via.HOST,
            origin=f"{getpass.getuser()}@{socket.gethostname()}",
            action=action,
            parameters=parameters,
            document=act.canonical().decode(),
            signature=self.person.key.sign(act),
        )


_LONGEST: Final = 500


@contextmanager
def session(*, passphrase_fd: int | None = None, clock: Clock = system_clock) -> Iterator[Session]:
    """The operator of the environment, with the workers' database.

    Raises:
        InvalidConfiguration: says what to set.
        UnusableKey: the operator's key cannot be read.
    """
    settings = worker_settings()
    person = operator_of_environment(passphrase_fd)
    with opened(settings) as database:
        yield Session(settings, database, person, _bundle(settings, database, clock), clock)


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """The workers' database, for one command."""
    with Database(settings.database_url.reveal(), application="strongroom-operator", pool_size=2) as database:
        yield database


def operator_of_environment(passphrase_fd: int | None) -> Person:
    """Who `STRONGROOM_OPERATOR` says is at the keyboard. Raises InvalidConfiguration, UnusableKey."""
    named = os.environ.get(OPERATOR_VARIABLE)
    if not named:
        said = f"let {OPERATOR_VARIABLE} name your client file: `caller` in it is your id as an operator of the bundle,"
        raise InvalidConfiguration([f"{said} `caller_key` your key (Ed25519, PKCS#8 PEM, mode 0600)"])
    found = client_settings.load({client_settings.FILE_VARIABLE: named})
    return Person(found.caller, SigningKey.load(found.caller_key, passphrase.present(passphrase_fd)))


def worker_settings() -> Settings:
    """The workers' settings. Raises InvalidConfiguration."""
    variables = dict(os.environ)
    if variables.get(CONFIG_VARIABLE):
        variables[FILE_VARIABLE] = variables[CONFIG_VARIABLE]
    try:
        return load(Process.WORKER, variables)
    except InvalidConfiguration as error:
        hint = f"an operator uses the workers' settings: let {CONFIG_VARIABLE} name their file"
        raise InvalidConfiguration([*error.problems, hint]) from None


def _bundle(settings: Settings, database: Database, clock: Clock) -> Bundle | None:
    with suppress(UntrustedBundle, InvalidValue, InvalidConfiguration):
        root = read_trust_root(settings.trust_root_path)
        return Standing(settings.bundle_path, root, clock, lambda: database)()
    return None
