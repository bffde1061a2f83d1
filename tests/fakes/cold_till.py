"""The paying side of a small world with a cold Bitcoin vault beside the hot wallet: five holders, each with a key that
no process of ours knows, and a verifier whose word the test gives."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from embit import bip32
from embit.networks import NETWORKS as EMBIT_NETWORKS
from embit.psbt import PSBT

from chains.btc.multisig import Multisig, parse_multisig
from custody.signing import cancelling
from custody.signing.broadcast import broadcast
from custody.signing.btc import bump
from custody.signing.btc.site import BtcSite, btc_site
from custody.signing.build import build
from custody.signing.cold import bringing, handing
from custody.signing.cold.bringing import Taken
from custody.signing.model import Version
from custody.signing.sessions import repository as sessions
from custody.signing.sessions.model import Session
from custody.signing.sessions.service import collect
from custody.withdrawals.screened import screen_again
from ops.devnet.bitcoind import Bitcoind
from policies.bundle import BitcoinVault, Bundle, Cosigner, TierCap
from policies.rules import Operation, Policy, Rule, When
from tests.fakes.approving import Desk
from tests.fakes.signing import CHAIN, DAY, REGTEST, SoftKeys, World
from tests.fakes.till import Till
from tests.fakes.vault_till import GivenVerdicts
from tests.support.amounts import HOUSE_RULES

COLD = "btc-cold"
HOLDERS = ("ann", "bob", "cem", "dag", "eve")
THRESHOLD = 3
LARGE_SATS = 10_000_000
"""From here on the cold vault pays."""
_PATH = "m/48h/1h/0h/2h"


@dataclass
class Holder:
    """A person with a key, and embit to sign with."""

    name: str
    root: Any = field(repr=False)

    @classmethod
    def make(cls, name: str) -> Holder:
        return cls(name, bip32.HDKey.from_seed(os.urandom(32), version=EMBIT_NETWORKS["regtest"]["xprv"]))

    @property
    def origin(self) -> str:
        return f"{self.root.my_fingerprint.hex()}/48'/1'/0'/2'"

    @property
    def account(self) -> str:
        return str(self.root.derive(_PATH).to_public())

    @property
    def account_secret(self) -> str:
        """The account's private key, as other programs take it."""
        return str(self.root.derive(_PATH))

    def sign(self, file: bytes) -> bytes:
        """The file with this holder's signatures in it."""
        psbt = PSBT.parse(file)
        assert psbt.sign_with(self.root) == len(psbt.inputs)
        raw: bytes = psbt.serialize()
        return raw


def together(*files: bytes) -> bytes:
    """Several signed files as one, as standard wallets combine them."""
    first = PSBT.parse(files[0])
    for each in files[1:]:
        for mine, other in zip(first.inputs, PSBT.parse(each).inputs, strict=True):
            mine.partial_sigs.update(other.partial_sigs)
    raw: bytes = first.serialize()
    return raw


@dataclass
class ColdWorld(World):
    """Small payments are hot, large ones cold with two approvals and a verdict."""

    holders: Sequence[Holder] = ()

    @property
    def wallet(self) -> Multisig:
        return parse_multisig(THRESHOLD, [(each.origin, each.account) for each in self.holders], REGTEST)

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        hot: dict[str, Any] = {"tier": "hot", "payment_below": str(LARGE_SATS), "window_cap": "500000000"}
        cold: dict[str, Any] = {"tier": "cold", "payment_from": str(LARGE_SATS)}
        cold |= {"payment_below": "100000000000", "window_cap": "100000000000"}
        paid: dict[str, Any] = {"operations": (Operation.WITHDRAWAL,), "destinations": ("external",)}
        small = When(**paid, amount_below=str(LARGE_SATS), assets=("BTC",))
        large = When(**paid, amount_from=str(LARGE_SATS), assets=("BTC",))
        policy = Policy(
            rules=(
                Rule(id="small", when=small, route="hot"),
                Rule(id="large", when=large, route="cold"),
                *HOUSE_RULES,
            )
        )
        vault = BitcoinVault(
            id=COLD,
            chain=CHAIN,
            tier="cold",
            threshold=THRESHOLD,
            cosigners=tuple(
                Cosigner(
                    id=each.name, organisation=f"org-{each.name}", account=each.account, origin=each.origin
                )
                for each in self.holders
            ),
            descriptor=self.wallet.descriptor,
        )
        fields: dict[str, Any] = {
            "vaults": (vault,),
            "caps": tuple(TierCap(asset="BTC", window_seconds=DAY, **cap) for cap in (hot, cold)),
            "policy": policy,
            "requirements": (self.requirement(tier="cold"),),
        }
        return super().bundle(version, **(fields | changes))


class ColdTill(Till):
    """One installation with a hot wallet and a cold vault, driven by the test."""

    world: ColdWorld

    def __init__(self, dsn: str, node: Bitcoind, directory: Path, **changes: Any) -> None:
        self.holders = {name: Holder.make(name) for name in HOLDERS}
        super().__init__(dsn, node, directory, **changes)
        self.verifier = GivenVerdicts(self.world)

    def _make_world(self) -> World:
        self.keys = SoftKeys.make(os.urandom(32))
        return ColdWorld(self.keys.record, now=int(time.time()), holders=list(self.holders.values()))

    @property
    def cold_site(self) -> BtcSite:
        return btc_site(self.bundle, CHAIN, self.node, pace=self.pace, wallet=self.bundle.wallet(COLD))

    @property
    def vault_address(self) -> str:
        """Where operators send what the vault begins with."""
        [row] = self.query("SELECT address FROM addresses WHERE keyset = %s ORDER BY index LIMIT 1", COLD)
        return str(row["address"])

    def fund_vault(self, *units: int) -> None:
        for each in units:
            self.outside.send(self.vault_address, each)
        self.mine(6)

    def approved(self, units: int = LARGE_SATS, **changes: Any) -> Any:
        """A large withdrawal that two people have approved."""
        desk = Desk(self)
        withdrawal = desk.request(units, **changes)
        desk.approve(withdrawal, "ada", "ben")
        self.route()
        return withdrawal

    def build_cold(self) -> UUID | None:
        screen_again(self.db, self.chain, self.screening)
        return build(self.db, self.cold_site, now=int(time.time()))

    def asked(self, units: int = LARGE_SATS, **changes: Any) -> tuple[Any, Session]:
        """A large withdrawal, and the request that holders are to sign."""
        withdrawal = self.approved(units, **changes)
        transaction = self.build_cold()
        assert transaction is not None, self.withdrawal(withdrawal.id).reason
        return withdrawal, self.session(transaction)

    def session(self, transaction_id: UUID, version: int | None = None) -> Session:
        """The session of a transaction's newest version, or of another one."""
        number = version or len(self.transaction(transaction_id).versions)
        with self.admin.snapshot() as tx:
            found = sessions.find(tx, transaction_id, number)
        assert found is not None
        return found

    def version(self, session: Session) -> Version:
        return self.transaction(session.transaction_id).versions[session.version - 1]

    def export(self, session: Session, *holders: str) -> bytes:
        """What `strongroom cold export` writes."""
        now = int(time.time())
        ready = handing.prepare(
            self.db, self.cold_site, session.id, holders, [self.verifier], clock=lambda: int(time.time())
        )
        with self.db.transaction() as tx:
            handing.hand_out(tx, self.cold_site, ready, now=now)
        return ready.file

    def bring(self, file: bytes) -> Taken:
        """What `strongroom cold import` does."""
        return bringing.take(self.db, {COLD: self.cold_site}, file)

    def signed_by(self, session: Session, *holders: str) -> list[bytes]:
        """The files of these holders."""
        return [self.holders[name].sign(self.export(session, name)) for name in holders]

    def abandon(self, session: Session) -> cancelling.Outcome:
        return cancelling.abandon(self.db, self.cold_site, session.transaction_id, "the holders are away")

    def rebuild(self, session: Session, feerate: int | None = None) -> Session:
        """Asks anew; the new request."""
        now = int(time.time())
        number = bump.rebuild(self.db, self.cold_site, session.transaction_id, feerate, now=now)
        return self.session(session.transaction_id, number)

    def rebuild_at(self, session: Session, now: int) -> int:
        """Asks anew at a time."""
        return bump.rebuild(self.db, self.cold_site, session.transaction_id, None, now=now)

    def cancel(self, session: Session) -> Session:
        """Gives it up; the request of what takes its place."""
        found = cancelling.cancel(
            self.db, self.cold_site, session.transaction_id, "it is not wanted any more"
        )
        return self.session(found)

    def sign_all(self, session: Session, *holders: str) -> None:
        """These holders sign, and bring it."""
        for file in self.signed_by(session, *holders or ("ann", "bob", "cem")):
            assert not self.bring(file).refused

    def state_of(self, session: Session) -> str:
        return str(self.transaction(session.transaction_id).state)

    def collect_cold(self) -> list[UUID]:
        """What workers do about sessions: no member is a daemon of ours."""
        return collect(self.db, self.cold_site, {}, [self.verifier])

    def broadcast_cold(self) -> int:
        return broadcast(self.db, self.cold_site)

    def send_past_us(self, file: bytes) -> str:
        """Holders put a file's signatures together themselves, and send it by a node of their own."""
        final = self.bitcoind.rpc("finalizepsbt", base64.b64encode(file).decode())
        assert final["complete"]
        return str(self.bitcoind.rpc("sendrawtransaction", final["hex"]))

    def settle_cold(self) -> None:
        self.broadcast_cold()
        self.mine(6)
        self.track()

    def expire_sessions(self) -> None:
        """Time passes until every session is over."""
        self.execute("UPDATE signing_sessions SET expires_at = now() - interval '1 second'")
        self.collect_cold()

    def balance_of(self, wallet: str) -> int:
        """Satoshis that the ledger says a wallet holds, negative as it is what we own."""
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s", wallet
        )
        return sum(int(row["balance"]) for row in rows)

    @staticmethod
    def as_text(file: bytes) -> str:
        """A PSBT as people paste it."""
        return base64.b64encode(file).decode()

    def kept(self) -> list[str]:
        """Whose signatures are here."""
        rows = self.query("SELECT member FROM session_members WHERE response IS NOT NULL ORDER BY member")
        return [row["member"] for row in rows]

    def session_states(self) -> list[str]:
        rows = self.query("SELECT state FROM signing_sessions ORDER BY created_at, id")
        return [row["state"] for row in rows]
