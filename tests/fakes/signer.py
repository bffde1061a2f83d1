"""A signer in the test's own process: soft keys, but the real guard, journal, mark and bundle."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import pytest

from chains.btc.script import KeyScript
from policies.bundle import Bundle
from policies.intent import Evidence, SignedOrder
from policies.keys import sign_freeze, sign_resolution
from policies.statements import Freeze, Resolution, SignedResolution
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.ports import InputSignature, OpenRequest, Refused, ResolveRequest, SignRequest
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.desk import JournalDesk
from signers.trust.timekeeping import Timekeeper, last_note
from signers.trust.trust import PinnedBundle, pin
from signers.trust.witness import JournalWitness
from signers.wallets import BitcoinKeys, BitcoinWallet, EvmKeys, EvmWallet, Wallet
from tests.fakes.evm_signing import EvmDraft, EvmWorld, SoftEvmKeys
from tests.fakes.signing import NOW, Draft, House, SoftKeys, World

W = TypeVar("W", bound=House)


class Bench(Generic[W]):
    """A signer in this process with a real journal, and a clock to turn."""

    def __init__(self, directory: Path, world: W) -> None:
        self.world = world
        self.time = NOW
        self.jumped = 0
        """Of `time`, what no uptime vouches for."""
        self.boot = "first"
        self.troubles: list[str] = []
        self.directory = directory
        (directory / "mark").mkdir()
        Journal.create(directory / "journal.sqlite", directory / "mark" / "journal.mark")
        pin(self.world.root, directory / "pinned.json")
        self.publish(self.world.bundle())
        self.start()

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        """What the signer serves."""
        raise NotImplementedError

    def start(self) -> None:
        """Open everything as a daemon does when it starts."""
        directory = self.directory
        self.journal = Journal.open(
            directory / "journal.sqlite", MarkFile.open(directory / "mark" / "journal.mark")
        )
        self.clock = SteadyClock(
            *last_note(self.journal),
            wall=lambda: self.time,
            uptime=lambda: self.uptime,
            boot=lambda: self.boot,
        )
        self.trust = PinnedBundle(
            directory / "bundle.json", directory / "pinned.json", self.journal, self.clock
        )
        self.trust.refresh(self.troubles.append)
        self.timekeeper = Timekeeper(self.clock, self.journal)
        parts = (self.trust, self.journal, self.clock)
        self.service = SignerService(self.wallets(), *parts)
        self.desk = JournalDesk(*parts, self.service.status)
        self.witness = JournalWitness(self.wallets(), *parts)

    def restart(self) -> None:
        """Close everything and open it again."""
        self.timekeeper.tick()
        self.journal.close()
        self.start()

    def jump(self, seconds: int) -> None:
        """Move the wall clock by what no uptime vouches for."""
        self.time += seconds
        self.jumped += seconds

    @property
    def uptime(self) -> int:
        """Seconds that only rise, beside `time`."""
        return self.time - self.jumped

    def resolve(
        self, outcome: Literal["confirmed", "dead"] = "confirmed", contents: Collection[str] = ()
    ) -> int:
        """The verifier's word on all open transactions, or on some; returns how many were taken."""
        told = tuple(
            self.resolution(one.chain, one.content, outcome)
            for one in self.witness.open(OpenRequest()).transactions
            if not contents or one.content in contents
        )
        return self.witness.resolve(ResolveRequest(resolutions=told)).accepted if told else 0

    def resolution(
        self, chain: str, content: str, outcome: Literal["confirmed", "dead"], **changes: Any
    ) -> SignedResolution:
        """The verifier's word on one transaction."""
        fields: dict[str, Any] = {
            "v": 1,
            "verifier": "vera",
            "chain": chain,
            "content": content,
            "resource": self.journal.write(lambda book: (*book.resources(chain, content), "none"))[0],
            "outcome": outcome,
            "block": "ab" * 32,
            "height": 7,
        }
        return sign_resolution(Resolution(**(fields | changes)), self.world.verifier)

    def freeze(self, scope: str) -> None:
        """Have an officer freeze a scope under the bundle in force."""
        told = Freeze(
            v=1,
            officer="olga",
            scope=scope,
            bundle_version=self.trust.present.version,
            reason="something is odd",
            issued_at=self.time,
        )
        self.desk.freeze(sign_freeze(told, self.world.officers["olga"]))

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

    def with_orders(self, request: SignRequest, *orders: SignedOrder) -> SignRequest:
        return msgspec.structs.replace(request, evidence=Evidence(orders=orders))


class SignerBench(Bench[World]):
    """A signer of one BTC key-set with soft keys."""

    def __init__(self, directory: Path, script: KeyScript = "p2wpkh") -> None:
        self.keys: BitcoinKeys = SoftKeys.make(script=script)
        super().__init__(directory, World(self.keys.record))

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {self.keys.record.id: BitcoinWallet(self.keys)}

    def draft(self, *units: int, **changes: Any) -> Draft:
        """An honest draft: one coin that suffices, one order for each of `units`."""
        units = units or (1_000_000,)
        world = self.world
        return Draft([world.coin(sum(units) + 4_000_000)], [world.order(n) for n in units], **changes)

    def request(self, *units: int, **changes: Any) -> SignRequest:
        return self.world.request(self.draft(*units, **changes))

    def under(self, version: int, *units: int, **changes: Any) -> SignRequest:
        """A request that was decided under a version of the bundle."""
        draft = self.draft(*units, **changes)
        draft.intents = [self.world.intent(order, policy_version=version) for order in draft.orders]
        return self.world.request(draft)


class EvmBench(Bench[EvmWorld]):
    """A signer of two EVM key-sets, on two networks of one bundle, with soft keys."""

    def __init__(self, directory: Path) -> None:
        keys, other = SoftEvmKeys.make(), SoftEvmKeys.make("xeth-hot", 31338)
        self.keys: EvmKeys = keys
        self.other: EvmKeys = other
        super().__init__(directory, EvmWorld(keys.record, other.record))

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {keys.record.id: EvmWallet(keys) for keys in (self.keys, self.other)}

    def draft(self, *units: int, asset: str = "ETH", **changes: Any) -> EvmDraft:
        """An honest draft: one order for each of `units`."""
        return EvmDraft([self.world.order(n, asset=asset) for n in units or (10**17,)], **changes)

    def request(self, *units: int, asset: str = "ETH", **changes: Any) -> SignRequest:
        return self.world.request(self.draft(*units, asset=asset, **changes))
