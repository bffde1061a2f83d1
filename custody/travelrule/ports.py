"""The port to whoever carries travel-rule data to the service on the other side, and an outbox of files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from uuid import UUID

import msgspec

from chains.errors import PermanentError, TransientError
from custody.storage.sealing import CannotOpen, Keys, Place
from custody.travelrule.ivms101 import TravelRuleData

_SUFFIX: Final = ".sealed"


class ExchangeUnavailable(TransientError):
    """It could not be delivered now."""


class ExchangeRefused(PermanentError):
    """The other side, or who carries it there, will not take it: a person must look."""


class Transfer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One payment with its data, as it is told to the other side."""

    id: str
    """The withdrawal's; the same again is the same transfer."""
    chain: str
    asset: str
    units: str
    """Base units, decimal."""
    destination: str
    data: TravelRuleData

    def __repr__(self) -> str:
        return f"Transfer({self.id}, [secret])"


class TravelRuleExchange(Protocol):
    """Carries transfers to the service whose customer is paid."""

    def deliver(self, transfer: Transfer) -> str:
        """Hand it over for good. Again with the same id and content changes nothing.

        Returns:
            The other side's reference.

        Raises:
            ExchangeUnavailable: try again.
            ExchangeRefused: it was not taken, or the id came before with other content.
        """


@dataclass(frozen=True, slots=True)
class FileOutbox:
    """A directory from which a gateway of the installation takes transfers: `ID.sealed`, sealed with the key ring.

    Args:
        directory: made by the operator, on one file system.
        keys: the ring, which the gateway has, too.
    """

    directory: Path
    keys: Callable[[], Keys]

    def deliver(self, transfer: Transfer) -> str:
        """Write it down, durably. See `TravelRuleExchange.deliver`."""
        name = f"{UUID(transfer.id)}{_SUFFIX}"
        path = self.directory / name
        content = msgspec.json.encode(transfer, order="sorted")
        try:
            if path.exists():
                if self._open(transfer.id, path) != content:
                    raise ExchangeRefused(f"{name} is in the outbox with other content")
                return name
            self._write(path, self.keys().seal(_place(transfer.id), content))
        except OSError as error:
            raise ExchangeUnavailable(f"outbox: {error.strerror}") from None
        return name

    def read(self, transfer_id: str) -> Transfer:
        """A transfer that is in the outbox, as the gateway reads it.

        Raises:
            ExchangeUnavailable: it is not there.
            ExchangeRefused: it was changed, or its key is gone.
        """
        try:
            content = self._open(transfer_id, self.directory / f"{UUID(transfer_id)}{_SUFFIX}")
        except OSError as error:
            raise ExchangeUnavailable(f"outbox: {error.strerror}") from None
        return msgspec.json.decode(content, type=Transfer)

    def _open(self, transfer_id: str, path: Path) -> bytes:
        try:
            return self.keys().open(_place(transfer_id), path.read_bytes())
        except CannotOpen as error:
            raise ExchangeRefused(f"outbox: {path.name}: {error}") from None

    def _write(self, path: Path, sealed: bytes) -> None:
        fresh = self.directory / f".{path.name}.{secrets.token_hex(4)}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        directory = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _place(transfer_id: str) -> Place:
    return Place("outbox", "transfer", str(UUID(transfer_id)))
