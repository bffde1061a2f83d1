"""The paying side of a small world with a warm Bitcoin vault beside the hot wallet: three members, each with a journal
and a guard of its own, and a verifier whose word the test gives."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from custody.signing.broadcast import broadcast
from custody.signing.btc.site import BtcSite, btc_site
from custody.signing.build import build
from custody.signing.bump import bump
from custody.signing.recorded import shown
from custody.signing.sessions.service import collect
from custody.signing.verdicts import verdicts_on
from custody.withdrawals.screened import screen_again
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import Bundle, TierCap
from policies.intent import Carrier, SignedVerdict, resources_digest
from policies.rules import Policy, Rule, When
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.ports import Reason, Refused, Signer, SignerUnavailable, SignRequest, VerdictRequest
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle, pin
from signers.wallets import BitcoinVaultWallet, Wallet
from tests.fakes.signing import CHAIN, DAY, House, SoftKeys, World
from tests.fakes.teller import Teller
from tests.fakes.till import PricedNode, Till
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultWorld
from tests.support.amounts import HOUSE_RULES

LARGE_SATS = 10_000_000
"""From here on the vault pays."""
MEMBERS = ("c0", "c1", "c2")


class TierWorld(VaultWorld):
    """Small payments are hot, large ones warm with two approvals and a verdict."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        hot: dict[str, Any] = {"tier": "hot", "payment_below": str(LARGE_SATS), "window_cap": "500000000"}
        warm: dict[str, Any] = {"tier": "warm", "payment_from": str(LARGE_SATS)}
        warm |= {"payment_below": "1000000000", "window_cap": "10000000000"}
        small = When(destinations=("external",), amount_below=str(LARGE_SATS), assets=("BTC",))
        large = When(destinations=("external",), amount_from=str(LARGE_SATS), assets=("BTC",))
        policy = Policy(
            rules=(
                Rule(id="small", when=small, route="hot"),
                Rule(id="large", when=large, route="warm"),
                *HOUSE_RULES,
            )
        )
        fields: dict[str, Any] = {
            "caps": tuple(TierCap(asset="BTC", window_seconds=DAY, **cap) for cap in (hot, warm)),
            "policy": policy,
        }
        return super().bundle(version, **(fields | changes))


def given(world: House, request: VerdictRequest) -> SignedVerdict:
    """The verdict that a verifier gives which believes everything, and forgets it."""
    carrier = None
    if request.content is not None:
        carrier = Carrier(content=request.content, resources=resources_digest(request.resources))
    outcome = "bound" if request.order is None else "covered"
    return world.verdict(request.intent, expires_at=int(time.time()) + 300, carrier=carrier, outcome=outcome)


class GivenVerdicts:
    """A verifier that says what the test wants."""

    def __init__(self, world: House) -> None:
        self._world = world
        self.refuses: str | None = None
        self.away = False

    def verdict(self, request: VerdictRequest) -> SignedVerdict:
        if self.away:
            raise SignerUnavailable("the verifier is away")
        if self.refuses:
            raise Refused((Reason(code="not-covered", detail=self.refuses),))
        return given(self._world, request)


class VaultTill(Till):
    """One installation with a hot wallet and a vault, driven by the test."""

    def __init__(self, dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> None:
        self.members: dict[str, Signer] = {}
        super().__init__(dsn, node, directory, **changes)
        self.verifier = GivenVerdicts(self.world)

    def _make_world(self) -> World:
        self.keys = SoftKeys.make(os.urandom(32))
        self.cosigners = [SoftCosigner.make(number, entropy=os.urandom(32)) for number in range(3)]
        records = [cosigner.record for cosigner in self.cosigners]
        return TierWorld(self.keys.record, now=int(time.time()), cosigners=records)

    def _make_signer(self) -> Signer:
        signer = super()._make_signer()
        for name, cosigner in zip(MEMBERS, self.cosigners, strict=True):
            self.members[name] = self._member(name, {VAULT: BitcoinVaultWallet(cosigner)})
        return signer

    def _member(self, name: str, wallets: dict[str, Wallet[Any]]) -> Signer:
        place = self.directory / name
        (place / "mark").mkdir(parents=True)
        Journal.create(place / "journal.sqlite", place / "mark" / "journal.mark")
        pin(self.house.root, place / "pinned.json")
        journal = Journal.open(place / "journal.sqlite", MarkFile.open(place / "mark" / "journal.mark"))
        clock = SteadyClock(journal.write(lambda book: book.latest))
        trust = PinnedBundle(self.bundle_path, place / "pinned.json", journal, clock)
        self._stack.callback(journal.close)
        return SignerService(wallets, trust, journal, clock)

    @property
    def vault_site(self) -> BtcSite:
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace, wallet=self.bundle.wallet(VAULT))

    @property
    def vault_address(self) -> str:
        """Where operators send what the vault begins with."""
        [row] = self.query("SELECT address FROM addresses WHERE keyset = %s ORDER BY index LIMIT 1", VAULT)
        return str(row["address"])

    def fund_vault(self, *units: int) -> None:
        for each in units:
            self.outside.send(self.vault_address, each)
        self.mine(6)

    def build_vault(self) -> UUID | None:
        screen_again(self.db, self.chain, self.screening)
        return build(self.db, self.vault_site, now=int(time.time()))

    def broadcast_vault(self) -> int:
        return broadcast(self.db, self.vault_site)

    def bump_vault(self, transaction_id: UUID, feerate: int) -> int:
        return bump(self.db, self.vault_site, transaction_id, feerate)

    def shown(self, transaction_id: UUID) -> SignRequest:
        """What members are shown of a transaction's newest version."""
        version = self.transaction(transaction_id).versions[-1]
        request = shown(self.db, self.vault_site, version, int(time.time()))
        verdicts = verdicts_on(version, request, [self.verifier], 1)
        evidence = msgspec.structs.replace(request.evidence, verdicts=verdicts)
        return msgspec.structs.replace(request, evidence=evidence)

    def pace_members(self) -> None:
        """Time passes until members that have refused are asked again."""
        self.execute("UPDATE session_members SET asked_at = asked_at - interval '1 hour'")

    def balance_of(self, wallet: str) -> int:
        """Satoshis that the ledger says a wallet holds, negative as it is what we own."""
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s", wallet
        )
        return sum(int(row["balance"]) for row in rows)

    def collect(self, members: Sequence[str] = MEMBERS) -> list[UUID]:
        asked = {name: self.members[name] for name in members}
        return collect(self.db, self.vault_site, asked, [self.verifier])


__all__ = ["LARGE_SATS", "MEMBERS", "VAULT", "PricedNode", "Teller", "VaultTill"]
