"""A signer of the ledger's heads as in its daemon: a real journal, and a key of its own."""

from __future__ import annotations

import shutil
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from policies.keys import SigningKey
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.ports import Sealed, SealRequest
from signers.trust.sealing import JournalSealing

KEYSET = "btc-hot"


class Sealer:
    """Signs heads. `clock` is the signer's own."""

    def __init__(self, directory: Path, *, clock: Callable[[], int] = lambda: int(time.time())) -> None:
        self.key = SigningKey.generate()
        self.directory = directory
        self.clock = clock
        self.failing: Exception | None = None
        Journal.create(directory / "journal.sqlite", directory / "journal.mark")
        self.start()

    def start(self) -> None:
        """Open the journal, as a daemon does when it starts."""
        self.journal = Journal.open(
            self.directory / "journal.sqlite", MarkFile.open(self.directory / "journal.mark")
        )
        keys = SimpleNamespace(
            attest=lambda digest: b64decode(self.key.sign_digest(digest)),
            record=SimpleNamespace(attestation_key=self.key.public_hex),
        )
        wallet: Any = SimpleNamespace(keys=keys)
        clock: Any = SimpleNamespace(now=lambda: self.clock())
        self.sealing = JournalSealing({KEYSET: wallet}, self.journal, clock)

    def stop(self) -> None:
        """Close the journal."""
        self.journal.close()

    def forget(self) -> None:
        """Begin with an empty journal, as a signer that is new."""
        self.stop()
        shutil.rmtree(self.directory)
        self.directory.mkdir()
        Journal.create(self.directory / "journal.sqlite", self.directory / "journal.mark")
        self.start()

    def seal(self, request: SealRequest) -> Sealed:
        if self.failing is not None:
            raise self.failing
        return self.sealing.seal(request)

    def bundle(self) -> Any:
        """What of a bundle sealing asks for."""
        return SimpleNamespace(
            keysets=[SimpleNamespace(id=KEYSET, state="active", attestation_key=self.key.public_hex)]
        )
