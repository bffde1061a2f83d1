"""A till on an EVM chain: customers pay into forwarders, in tokens good and bad, and tests drive the sweeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import msgspec

from chains.eth.contracts import artifact
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.tx import UnsignedTx
from chains.eth.watch import WatchedSenders
from custody.deposits.addresses import allocate
from custody.deposits.model import AddressRow
from custody.monitor.monitor import Monitor, Options
from custody.monitor.watch import ResourceSet
from custody.screening import cases
from custody.screening.lifecycle import CaseEvent, CaseState
from custody.screening.model import Finding, Subject, Word
from custody.screening.ports import Screening
from custody.signing.evm.site import EvmSite, evm_site
from custody.sweeps import readmodel
from custody.sweeps.model import Sweep, SweepPace
from custody.sweeps.service import sweep
from policies.bundle import AssetEntry, Bundle, EvmNetwork
from policies.intent import SignedOrder
from policies.keys import sign_order
from signers.keys.ecdsa import normalised
from signers.wallets import EvmWallet, Wallet
from tests.fakes.evm_desk import Outside
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, EvmWorld, SoftEvmKeys
from tests.fakes.signing import DAY
from tests.fakes.teller import Teller, opened
from tests.support.amounts import AmountRules, policy_of
from tests.support.evm import Contract, deploy

USDX: Final = 10**6
"""One whole USDX in base units."""
AT_ONCE: Final = SweepPace(gather_seconds=0)
_FLOORS: Final = {"ETH": ETHER // 20, "USDX": 50 * USDX}


class SweepOutside(Outside):
    """With two more tokens: one that can be paused, and one with a blacklist."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.paux = self._token("PausableToken")
        self.blax = self._token("BlacklistToken")

    def listed(self) -> dict[str, Contract]:
        return {**super().listed(), "PAUX": self.paux, "BLAX": self.blax}


class SuspiciousScreening:
    """Clears every deposit but those of suspicious amounts."""

    name = "amounts"

    def __init__(self) -> None:
        self.amounts: set[int] = set()

    def ask(self, subject: Subject) -> Word:
        if subject.units not in self.amounts:
            return Word(self.name, "1")
        found = Finding(self.name, str(subject.resource), "a suspicious amount", "tests", "1")
        return Word(self.name, "1", (found,))

    def close(self) -> None:
        pass


class SweepTill(Teller):
    """One installation on anvil, driven by the test.

    Args:
        dsn: superuser's address of a migrated database.
        outside: the chain and what is on it.
        directory: for the signer's files.
        changes: of the bundle, as `EvmWorld.bundle` takes them, and `floors`: `sweep_above` by asset.
    """

    def __init__(self, dsn: str, outside: SweepOutside, directory: Path, **changes: Any) -> None:
        self.outside, self.anvil, self._changes = outside, outside.node, changes
        self.keys = SoftEvmKeys.make(chain_id=self.anvil.chain_id)
        self.world = EvmWorld(self.keys.record, SoftEvmKeys.make("other").record, now=int(time.time()))
        admin = self.anvil.accounts()[9]
        self.factory = deploy(
            self.anvil, outside.payer, artifact("ForwarderFactory"), self.keys.record.address, admin
        )
        self.payout = deploy(self.anvil, outside.payer, artifact("BatchPayout"))
        bundle = self._bundle(1)
        [entry] = [each for each in bundle.networks if each.chain == EVM_CHAIN]
        assert isinstance(entry, EvmNetwork)
        network = EthNetwork(entry.chain_id, entry.genesis, NativeMode(entry.native_mode))
        listed = [token.address for token in outside.listed().values()]
        self.node = EvmNode(EVM_CHAIN, network, self.anvil.rpc_url, tokens=lambda: listed)
        quick = Options(start_height=self.anvil.height(), held_again_seconds=0, heartbeat_seconds=0)
        super().__init__(dsn, directory, self.node, self.world, bundle, quick)
        self.suspicious = SuspiciousScreening()
        self.screening = Screening([self.suspicious])
        session = self._stack.enter_context(self._monitor_db.session())
        self.monitor = Monitor(
            self.node,
            session,
            lambda: self.bundle,
            self.screening,
            options=quick,
            resource_set=self._resource_set,
        )

    def release_cases(self) -> None:
        """An operator finds nothing wrong with anything that is held."""
        self._decide_cases(CaseEvent.RELEASE)

    def refuse_cases(self) -> None:
        """An operator keeps everything that is held out for good, and the monitor learns it."""
        self._decide_cases(CaseEvent.REFUSE)
        self.mine()

    def _decide_cases(self, event: CaseEvent) -> None:
        with self.admin.transaction() as tx:
            for case in cases.page(tx, state=CaseState.OPEN):
                cases.resolve(tx, case.id, event, "looked at it", by="test")

    def _bundle(self, version: int, **changes: Any) -> Bundle:
        merged = {
            "network_genesis": self.anvil.block_hash(0)[2:],
            "network_chain_id": self.anvil.chain_id,
            "keyset_factory": self.factory.address,
            "keyset_forwarder": bytes(self.factory.call("initcodeHash")).hex(),
            "keyset_payout": self.payout.address,
            **self._changes,
            **changes,
        }
        floors: Mapping[str, int] = _FLOORS | merged.pop("floors", {})
        made = self.world.bundle(version, **merged)
        contracts = {"ETH": None} | {id_: token.address for id_, token in self.outside.listed().items()}
        ours = tuple(
            self._asset(id_, contract, floors.get(id_, 50 * USDX)) for id_, contract in contracts.items()
        )
        others = tuple(entry for entry in made.assets if entry.chain != EVM_CHAIN)
        capped = {cap.asset for cap in made.caps}
        caps = [self.world.cap_entry(id_, 10**24, 10**25) for id_ in contracts if id_ not in capped]
        policy = policy_of(_rules(id_) for id_ in contracts)
        return msgspec.structs.replace(made, assets=(*ours, *others), caps=(*made.caps, *caps), policy=policy)

    def _asset(self, id_: str, contract: str | None, floor: int) -> AssetEntry:
        return self.world.asset_entry(
            id_,
            EVM_CHAIN,
            18 if id_ in ("ETH", "FEEX") else 6,
            contract,
            minimum_deposit="1000",
            sweep_above=str(floor),
            traits={"FEEX": ("fee-on-transfer",), "NORX": ("no-return",)}.get(id_, ()),
        )

    def adopt(self, version: int, **changes: Any) -> None:
        """A new bundle for everybody."""
        self.bundle = self._bundle(version, **changes)
        self.bundle_path.write_bytes(self.world.signed(self.bundle).encode())
        troubles: list[str] = []
        self.trust.refresh(troubles.append)
        assert troubles == []

    def _resource_set(self) -> ResourceSet:
        return WatchedSenders([self.keys.record.address])

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {self.keys.record.id: EvmWallet(self.keys)}

    @property
    def site(self) -> EvmSite:
        return evm_site(self.bundle, EVM_CHAIN, self.node, pace=self.pace)

    def close(self) -> None:
        super().close()
        self.node.close()

    # What customers, operators and the chain do.

    def forwarder(self, customer: str) -> AddressRow:
        return allocate(self.admin, self.signer, self.bundle, customer, "ETH")

    def deposit(self, to: AddressRow, *amounts: tuple[str, int]) -> None:
        """Pay to a forwarder from outside, and have that final."""
        for asset, units in amounts:
            self.outside.send(asset, to.address, units)
        self.finalize()

    def forwarders(self, customer: str, count: int, *amounts: tuple[str, int]) -> list[AddressRow]:
        """New forwarders with the same deposits each, final and credited."""
        rows = [self.forwarder(customer) for _ in range(count)]
        for row in rows:
            for asset, units in amounts:
                self.outside.send(asset, row.address, units)
        self.finalize()
        return rows

    def fund_gas(self, wei: int = ETHER) -> None:
        """Operators bring money for gas to the key's address."""
        self.outside.send("ETH", self.treasury, wei)
        self.finalize()

    def order(self, customer: str, units: int, /, **changes: Any) -> SignedOrder:
        fields = {"customer": customer, "expires_at": int(time.time()) + 3600}
        return sign_order(self.world.order(units, **(fields | changes)), self.world.caller)

    def mine(self, blocks: int = 1) -> None:
        self.anvil.mine(blocks)
        self.catch_up()

    def finalize(self) -> None:
        self.anvil.finalize()
        self.catch_up()

    def settle(self) -> None:
        """What is in the pool becomes final, and what follows from that."""
        self.finalize()
        self.track()

    def sign_with_the_key(self, tx: UnsignedTx) -> bytes:
        """The raw bytes of a transaction that no signer was asked for: as if the key had leaked."""
        digest = tx.signing_hash
        return tx.signed(normalised(self.keys.signature(digest), self.keys.pubkey, digest)).encode()

    # Sweeps.

    def sweep(self, pace: SweepPace = AT_ONCE, *, later_seconds: int = 0) -> int:
        return sweep(self.db, self.site, pace, now=int(time.time()) + later_seconds)

    def sweep_through(self, pace: SweepPace = AT_ONCE, *, later_seconds: int = 0) -> None:
        """What is due becomes recorded, signed, sent, final and looked at."""
        assert self.sweep(pace, later_seconds=later_seconds) > 0
        self.sign()
        self.broadcast()
        self.settle()
        self.look_back()

    def look_back(self) -> None:
        """What final sweeps left is looked at; nothing new is planned."""
        self.sweep(SweepPace(gather_seconds=10**9, sweep_after_seconds=10**9))

    def sweeps(self) -> list[Sweep]:
        with self.admin.snapshot() as tx:
            return list(readmodel.shown(tx, limit=500))

    def last(self) -> Sweep:
        return self.sweeps()[-1]

    # What there is.

    @property
    def treasury(self) -> str:
        """The key's address."""
        return self.keys.record.address

    def has(self, address: str, asset: str) -> int:
        """Base units at an address, by the chain's own word."""
        if asset == "ETH":
            return self.anvil.balance_wei(address)
        return int(self.outside.listed()[asset].call("balanceOf", address))

    def deposits(self, *rows: AddressRow) -> list[tuple[str, str]]:
        """Asset and state of the deposits to forwarders, in the chain's order."""
        found = self.query(
            "SELECT asset, state FROM deposits WHERE address_id = ANY (%s) ORDER BY height, resource, asset",
            [row.id for row in rows],
        )
        return [(row["asset"], row["state"]) for row in found]

    def check(self) -> None:
        """As every till; also, the node has what the books say in every asset, to the base unit."""
        super().check()
        for statement in self.reconcile().statements:
            assert statement.difference_units == 0, statement
            assert statement.node_units == statement.coins_units, statement


def _rules(asset: str) -> AmountRules:
    below = {"ETH": 2 * ETHER, "USDX": 5_000 * USDX}.get(asset, 10**24)
    return AmountRules(
        asset=asset,
        hot_below=below,
        warm_below=100 * below,
        hot_window_cap=50 * below,
        customer_window_cap=50 * below,
        window_seconds=DAY,
    )


def open_sweep_till(
    dsn: str, outside: SweepOutside, directory: Path, **changes: Any
) -> AbstractContextManager[SweepTill]:
    """A till that is closed in the end, and checked before."""
    return opened(SweepTill(dsn, outside, directory, **changes))
