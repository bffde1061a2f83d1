"""What rescues of both families of chains do alike, for tests in which they meet payments of the same keys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol
from uuid import UUID

from custody.signing.broadcast import broadcast
from custody.signing.sign import sign
from custody.signing.site import Site
from custody.storage.db import Database
from custody.sweeps.model import Sweep
from signers.ports import Signer, SignerUnavailable


class _Till(Protocol):
    """An installation whose keys are retired."""

    @property
    def db(self) -> Database: ...

    @property
    def signer(self) -> Signer: ...

    @property
    def old_site(self) -> Site: ...

    def rotate(self) -> int: ...

    def rotations(self) -> Sequence[Sweep]: ...

    def execute(self, sql: str, *params: Any) -> int: ...

    def out(self) -> None: ...


class Rescues:
    """A mixin for tills."""

    def out(self: _Till) -> None:
        """What is recorded for the old keys goes to the signer and the node."""
        with suppress(SignerUnavailable):  # it keeps back what it signed for payments
            sign(self.db, self.old_site, self.signer)
        broadcast(self.db, self.old_site)

    def rescue(self: _Till) -> list[UUID]:
        """Everything up to the node's pool; returns the transactions that were recorded."""
        before = {each.transaction_id for each in self.rotations()}
        self.rotate()
        self.out()
        return [
            each.transaction_id
            for each in self.rotations()
            if each.transaction_id is not None and each.transaction_id not in before
        ]

    def later(self: _Till) -> None:
        """A minute has passed since the last rescue was spoiled."""
        self.execute("UPDATE sweeps SET updated_at = updated_at - interval '61 seconds'")
