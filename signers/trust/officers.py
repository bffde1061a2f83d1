"""What officers have handed over, as the journal keeps it: bundles that wait, vetoes, freezes, lowerings.

Nothing is taken away from these tables: what counts follows from the highest bundle adopted.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from policies.canonical import decoder_for
from policies.statements import Freeze, Lowering, SignedFreeze, SignedLowering, SignedVeto, Veto
from signers.ports import Reason, Refused

MAX_STATEMENTS: Final = 1_000
"""Most of one kind that one officer may leave at a time: a stolen key must not fill the disk."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A bundle of the quorum that is not in force yet."""

    version: int
    digest: str
    signed: bytes
    """JSON of the `SignedBundle`."""
    since: int
    """When this signer first saw it, by the journal's time; later if the clock was set right since."""


class Officers:
    """The officers' pages of the journal. Used by its single writer only, through `Book`."""

    def __init__(self, connection: sqlite3.Connection, version: int) -> None:
        self._sql = connection
        self.turn_to(version)

    def turn_to(self, version: int) -> None:
        """Forget what was said under bundles below `version`, which is in force now."""
        self._version = version
        self._read()

    def _read(self) -> None:
        version = (self._version,)
        self.freezes: tuple[Freeze, ...] = tuple(
            decoder_for(SignedFreeze).decode(raw).freeze
            for (raw,) in self._sql.execute(
                "SELECT document FROM freezes WHERE bundle_version >= ?", version
            ).fetchall()
        )
        """Those that no higher bundle has lifted."""
        self.lowerings: tuple[Lowering, ...] = tuple(
            decoder_for(SignedLowering).decode(raw).lowering
            for (raw,) in self._sql.execute(
                "SELECT document FROM lowerings WHERE bundle_version = ? ORDER BY number", version
            ).fetchall()
        )
        """Those of the bundle in force, in the order in which they came."""
        self.lowered: tuple[str, ...] = tuple(lowering.digest_hex() for lowering in self.lowerings)
        """Their digests."""
        self.waiting: Waiting | None = self._last_waiting()

    def _last_waiting(self) -> Waiting | None:
        row = self._sql.execute(
            "SELECT version, digest, signed, since FROM waiting ORDER BY number DESC LIMIT 1"
        ).fetchone()
        if row is None or row[0] <= self._version or self.vetoed(row[1]) is not None:
            return None
        return Waiting(int(row[0]), str(row[1]), bytes(row[2]), int(row[3]))

    def vetoed(self, digest: str) -> Veto | None:
        """The first veto of a bundle, None if there is none."""
        row = self._sql.execute(
            "SELECT document FROM vetoes WHERE bundle = ? ORDER BY number LIMIT 1", (digest,)
        ).fetchone()
        return None if row is None else decoder_for(SignedVeto).decode(row[0]).veto

    def has_vetoed(self, veto: Veto) -> bool:
        """Whether this officer has vetoed this bundle before."""
        return self._exists(
            "SELECT 1 FROM vetoes WHERE bundle = ? AND officer = ?", veto.bundle, veto.officer
        )

    def adopted(self, digest: str) -> bool:
        """Whether a bundle is in force, or ever was."""
        return self._exists("SELECT 1 FROM bundles WHERE digest = ?", digest)

    def check_room(self, officer: str, table: Literal["vetoes", "freezes", "lowerings"]) -> None:
        """Raises Refused if an officer has said so much since the bundle came into force that no more is kept."""
        found = self._sql.execute(
            f"SELECT count(*) FROM {table} WHERE officer = ? AND bundle_version >= ?",
            (officer, self._version),
        ).fetchone()
        if int(found[0]) >= MAX_STATEMENTS:
            told = (
                f"{officer} has left {found[0]} {table} under this bundle: at most {MAX_STATEMENTS} are kept"
            )
            raise Refused((Reason("officer-too-much", told),))

    def _exists(self, sql: str, *values: Any) -> bool:
        return self._sql.execute(sql, values).fetchone() is not None

    def add_waiting(self, waiting: Waiting) -> None:
        """Let a bundle wait, instead of what waited before."""
        self._sql.execute(
            "INSERT INTO waiting (version, digest, signed, since) VALUES (?, ?, ?, ?)",
            (waiting.version, waiting.digest, waiting.signed, waiting.since),
        )
        self.waiting = waiting

    def add_veto(self, signed: SignedVeto, *, now: int) -> None:
        """Keep a veto that was not there before."""
        self._sql.execute(
            "INSERT INTO vetoes (bundle, officer, bundle_version, document, at) VALUES (?, ?, ?, ?, ?)",
            (signed.veto.bundle, signed.veto.officer, self._version, msgspec.json.encode(signed), now),
        )
        self._read()

    def add_freeze(self, signed: SignedFreeze, *, now: int) -> None:
        """Keep a freeze that was not there before."""
        freeze = signed.freeze
        self._sql.execute(
            "INSERT INTO freezes VALUES (?, ?, ?, ?, ?)",
            (freeze.officer, freeze.scope, freeze.bundle_version, msgspec.json.encode(signed), now),
        )
        self._read()

    def add_lowering(self, signed: SignedLowering, *, now: int) -> None:
        """Keep a lowering that was not there before."""
        lowering = signed.lowering
        self._sql.execute(
            "INSERT INTO lowerings (officer, bundle_version, document, at) VALUES (?, ?, ?, ?)",
            (lowering.officer, lowering.bundle_version, msgspec.json.encode(signed), now),
        )
        self._read()
