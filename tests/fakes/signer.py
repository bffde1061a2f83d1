"""A signer in the test's own process: soft keys, but the real guard, journal, mark and bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Bundle
from policies.intent import Evidence, SignedOrder
from signers.clock import SteadyClock
from signers.journal import Journal
from signers.ports import InputSignature, Refused, SignRequest
from signers.service import SignerService
from signers.trust import PinnedBundle, pin
from signers.wallets import BitcoinKeys, BitcoinWallet
from tests.fakes.signing import NOW, Draft, SoftKeys, World


class SignerBench:
    """A signer in this process with soft keys, a real journal, and a clock to turn."""

    def __init__(self, directory: Path) -> None:
        self.keys: BitcoinKeys = SoftKeys.make()
        self.world = World(self.keys.record)
        self.time = NOW
        self.directory = directory
        (directory / "mark").mkdir()
        Journal.create(directory / "journal.sqlite", directory / "mark" / "journal.mark")
        pin(self.world.root, directory / "pinned.json")
        self.publish(self.world.bundle())
        self.start()

    def start(self) -> None:
        """Open everything as a daemon does when it starts."""
        directory = self.directory
        self.journal = Journal.open(directory / "journal.sqlite", directory / "mark" / "journal.mark")
        self.clock = SteadyClock(
            self.journal.write(lambda book: book.latest), wall=lambda: self.time, uptime=lambda: self.time
        )
        self.trust = PinnedBundle(
            directory / "bundle.json", directory / "pinned.json", self.journal, self.clock
        )
        wallets = {self.keys.record.id: BitcoinWallet(self.keys)}
        self.service = SignerService(wallets, self.trust, self.journal, self.clock)

    def restart(self) -> None:
        """Close everything and open it again."""
        self.journal.close()
        self.start()

    def publish(self, bundle: Bundle) -> None:
        (self.directory / "bundle.json").write_bytes(self.world.signed(bundle).encode())

    def adopt(self, version: int, **changes: Any) -> None:
        troubles: list[str] = []
        self.publish(self.world.bundle(version, **changes))
        self.trust.refresh(troubles.append)
        assert troubles == []

    def signatures(self, request: SignRequest) -> tuple[InputSignature, ...]:
        return self.service.sign(request).signatures

    def codes(self, request: SignRequest) -> set[str]:
        """Codes with which the request is refused; and being refused must have recorded nothing."""
        before = self.service.status().signed
        with pytest.raises(Refused) as refused:
            self.service.sign(request)
        assert self.service.status().signed == before
        return {reason.code for reason in refused.value.reasons}

    def draft(self, *units: int, **changes: Any) -> Draft:
        """An honest draft: one coin that suffices, one order for each of `units`."""
        units = units or (1_000_000,)
        world = self.world
        return Draft([world.coin(sum(units) + 4_000_000)], [world.order(n) for n in units], **changes)

    def request(self, *units: int, **changes: Any) -> SignRequest:
        return self.world.request(self.draft(*units, **changes))

    def with_orders(self, request: SignRequest, *orders: SignedOrder) -> SignRequest:
        return msgspec.structs.replace(request, evidence=Evidence(orders=orders))
