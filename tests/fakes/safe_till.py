"""The paying side of a small world with a warm Safe beside the hot key: three owners, each with a journal and a guard
of its own, a gas payer, and a verifier whose word the test gives. See `evm_till` and `vault_till`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from chains.eth.address import raw_address
from chains.eth.safe import SafeMessage, safe_resource
from custody.api.readmodel import transactions
from custody.signing.broadcast import broadcast
from custody.signing.build import build, fill_gap
from custody.signing.bump import bump
from custody.signing.evm.safe_cancel import abandon, cancel
from custody.signing.evm.safe_site import SafeSite, safe_site
from custody.signing.evm.site import GasPayerSite, gas_payer_site
from custody.signing.requests import read_request
from custody.signing.sessions.service import bring, collect
from custody.signing.sign import sign
from custody.withdrawals.screened import screen_again
from ops.stack.safes import SafeContracts, deploy_contracts, deploy_safe
from policies.bundle import Bundle, EvmVault, GasPayer, Owner, TierCap
from policies.rules import Need, Operation, Rule, When
from signers.journal.journal import Journal
from signers.journal.mark import MarkFile
from signers.keys.ecdsa import normalised
from signers.keys.keyset import EvmKeysetRecord, GasPayerRecord, SafeOwnerRecord
from signers.ports import (
    AttestRequest,
    InputSignature,
    Reason,
    Refused,
    SignedAttestation,
    Signer,
    SignerStatus,
    SignerUnavailable,
    SignRequest,
    SignResponse,
)
from signers.service import SignerService
from signers.trust.clock import SteadyClock
from signers.trust.trust import PinnedBundle, pin
from signers.wallets import EvmWallet, GasPayerWallet, SafeWallet, Wallet
from tests.fakes.evm_desk import ETHER
from tests.fakes.evm_signing import EVM_CHAIN, EVM_KEYSET, SoftEvmKeys
from tests.fakes.evm_till import EvmTill, TillOutside, TillWorld
from tests.fakes.signing import DAY, ROLE, House
from tests.fakes.vault_till import GivenVerdicts
from tests.support.amounts import AmountRules
from tests.support.ruling import asked_for

VAULT, GAS_PAYER = "eth-warm", "eth-gas"
OWNERS = ("warm-a", "warm-b", "warm-c")
LARGE = {"ETH": 5 * ETHER, "USDX": 1_000 * 10**6, "FALX": 5 * ETHER, "PAUX": 5 * ETHER}
"""From here on the Safe pays, base units."""
MOST = 1_000_000 * ETHER


REFILLS = (
    Rule(
        id="refill-warm",
        when=When(operations=(Operation.REFILL,), sources=(VAULT,)),
        route="warm",
        approvals=Need(group=ROLE, count=1),
    ),
    Rule(id="refill-hot", when=When(operations=(Operation.REFILL,), sources=(EVM_KEYSET,)), route="hot"),
)
"""Out of the Safe with an approval, out of the hot key without."""


def _asked(asset: str) -> Rule:
    """Large payments need an approval and a verdict."""
    paid = When(tiers=("warm",), assets=(asset,), operations=(Operation.WITHDRAWAL,))
    return msgspec.structs.replace(asked_for(asset=asset, group=ROLE, approvals=1), when=paid)


class SafeOutside(TillOutside):
    """With the contracts that all Safes share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.safes: SafeContracts = deploy_contracts(self.node, self.payer)


@dataclass
class SafeTillWorld(TillWorld):
    """Small payments are hot, large ones warm with an approval and a verdict."""

    safe: str
    owners: list[SoftEvmKeys[SafeOwnerRecord]] = field(default_factory=list)
    gas: SoftEvmKeys[GasPayerRecord] | None = None

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        assert self.gas is not None
        vault = EvmVault(
            id=VAULT,
            chain=EVM_CHAIN,
            tier="warm",
            threshold=2,
            address=self.safe,
            owners=tuple(
                Owner(id=name, organisation=f"org-{name}", address=keys.record.address)
                for name, keys in zip(OWNERS, self.owners, strict=True)
            ),
        )
        payer = GasPayer(
            id=GAS_PAYER,
            chain=EVM_CHAIN,
            address=self.gas.record.address,
            attestation_key=self.gas.record.attestation_key,
            holding_cap=str(ETHER),
        )
        fields: dict[str, Any] = {
            "vaults": (vault,),
            "gas_payers": (payer,),
            "requirements": (*(_asked(asset) for asset in LARGE), *REFILLS),
        }
        bundle = super().bundle(version, **(fields | changes))
        warm = tuple(
            TierCap(
                tier="warm",
                asset=asset,
                payment_from=str(least),
                payment_below=str(MOST),
                window_cap=str(MOST),
                window_seconds=DAY,
            )
            for asset, least in LARGE.items()
        )
        hot = tuple(
            msgspec.structs.replace(cap, payment_below=str(LARGE.get(cap.asset, MOST))) for cap in bundle.caps
        )
        return msgspec.structs.replace(bundle, caps=(*hot, *warm))

    def _rules(self, id_: str) -> AmountRules:
        return AmountRules(
            asset=id_,
            hot_below=LARGE.get(id_, MOST),
            warm_below=2 * MOST,
            hot_window_cap=MOST,
            customer_window_cap=MOST,
            window_seconds=DAY,
        )


class _Refuses:
    """A signer that refuses one transaction, and answers about no other."""

    def __init__(self, refused: SignRequest) -> None:
        self._refused = refused.transaction

    def sign(self, request: SignRequest) -> SignResponse:
        if request.transaction != self._refused:
            raise SignerUnavailable("not now")
        raise Refused((Reason(code="test", detail="no"),))

    def status(self) -> SignerStatus:
        raise SignerUnavailable("not now")

    def attest(self, request: AttestRequest) -> SignedAttestation:
        raise SignerUnavailable("not now")


class SafeTill(EvmTill):
    """One installation with a hot key, a Safe and a gas payer, driven by the test."""

    def __init__(self, dsn: str, outside: SafeOutside, directory: Path, **changes: Any) -> None:
        chain_id = outside.node.chain_id
        self.owners = [SoftEvmKeys.of(SafeOwnerRecord, VAULT, chain_id) for _ in OWNERS]
        self.gas = SoftEvmKeys.of(GasPayerRecord, GAS_PAYER, chain_id)
        names = [keys.record.address for keys in self.owners]
        self.safe = deploy_safe(outside.node, outside.payer, outside.safes, names, 2)
        self.members: dict[str, Signer] = {}
        super().__init__(dsn, outside, directory, **changes)
        self.verifier = GivenVerdicts(self.world)

    def _make_record(self, house: House) -> EvmKeysetRecord:
        return super()._make_record(house)

    def _make_world(self, **fields: Any) -> TillWorld:
        return SafeTillWorld(safe=self.safe, owners=self.owners, gas=self.gas, **fields)

    def _wallets(self) -> dict[str, Wallet[Any]]:
        return {self.keys.record.id: EvmWallet(self.keys), GAS_PAYER: GasPayerWallet(self.gas)}

    def _make_signer(self) -> Signer:
        signer = super()._make_signer()
        for name, keys in zip(OWNERS, self.owners, strict=True):
            self.members[name] = self._member(name, {VAULT: SafeWallet(keys)})
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
    def safe_site(self) -> SafeSite:
        vault = self.bundle.wallet(VAULT)
        assert isinstance(vault, EvmVault)
        return safe_site(self.bundle, vault, self.node, pace=self.pace)

    @property
    def payer_site(self) -> GasPayerSite:
        return gas_payer_site(self.bundle, self.bundle.gas_payer_for(EVM_CHAIN), self.node, pace=self.pace)

    # What operators and workers do.

    def fund_safe(self, **units: int) -> None:
        """Operators bring money to the Safe, and a little to the gas payer."""
        self.outside.send("ETH", self.gas.record.address, ETHER // 2)
        for asset, each in units.items():
            self.outside.send(asset, self.safe, each)
        self.finalize()
        self.enforce()  # where balances are compared, arrivals are a surplus

    def build_safe(self) -> UUID | None:
        screen_again(self.db, self.chain, self.screening)
        return build(self.db, self.safe_site, now=int(time.time()))

    def collect(self, members: Sequence[str] = OWNERS) -> list[UUID]:
        asked = {name: self.members[name] for name in members}
        return collect(self.db, self.safe_site, asked, [self.verifier])

    def refuse_all(self, transaction_id: UUID) -> None:
        """Every owner's signer refuses this transaction, and does not answer about others."""
        request = read_request(self.transaction(transaction_id).versions[-1].request)
        no: dict[str, Signer] = {name: _Refuses(request) for name in OWNERS}
        with suppress(SignerUnavailable):
            collect(self.db, self.safe_site, no, [self.verifier])

    def build_execution(self) -> UUID | None:
        """Record an execution."""
        return build(self.db, self.payer_site, now=int(time.time()))

    def send_execution(self) -> UUID:
        """Record an execution, have it signed by the gas payer's guard, and send it."""
        found = self.build_execution()
        assert found is not None, self.query("SELECT id, state, last_error FROM transactions")
        assert sign(self.db, self.payer_site, self.signer) == [found]
        assert broadcast(self.db, self.payer_site) == 1
        return found

    def sign_execution(self) -> list[UUID]:
        return sign(self.db, self.payer_site, self.signer)

    def broadcast_execution(self) -> int:
        return broadcast(self.db, self.payer_site)

    def bump_execution(self, transaction_id: UUID) -> int:
        return bump(self.db, self.payer_site, transaction_id, None)

    def try_again_now(self) -> None:
        """Time passes until what has failed is tried again."""
        self.execute("UPDATE transactions SET rebroadcast_at = now()")

    def fill_safe(self) -> UUID | None:
        return fill_gap(self.db, self.safe_site)

    def abandon(self, transaction_id: UUID) -> None:
        abandon(self.db, self.safe_site, transaction_id, "the test wants it")

    def cancel(self, transaction_id: UUID) -> UUID:
        return cancel(self.db, self.safe_site, transaction_id, "the test wants it")

    # What owners do with their keys alone, as those of a cold Safe do.

    def message(self, transaction_id: UUID) -> SafeMessage:
        return SafeMessage.decode(self.transaction(transaction_id).versions[0].unsigned)

    def by_hand(self, transaction_id: UUID, owner: str) -> SignResponse:
        """An owner's signature, made without asking any signer."""
        keys = self.owners[OWNERS.index(owner)]
        digest = self.message(transaction_id).signing_hash
        plain = normalised(keys.signature(digest), keys.pubkey, digest)
        signature = plain[:64] + bytes([27 + plain[64]])
        item = InputSignature(index=0, pubkey=keys.pubkey.hex(), signature=signature.hex())
        return SignResponse(signatures=(item,))

    def bring(self, transaction_id: UUID, owner: str, response: SignResponse | None = None) -> None:
        version = self.transaction(transaction_id).versions[0]
        bring(self.db, self.safe_site, version, owner, response or self.by_hand(transaction_id, owner))

    # What there is.

    @property
    def safe_nonce(self) -> int:
        """Of the Safe's next transaction, by the node's word."""
        return self.adapter.safes.nonce(raw_address(self.safe), self.adapter.tip())

    def txids_told(self, transaction_id: UUID) -> list[str | None]:
        """What the API tells of a transaction's versions."""
        with self.api.snapshot() as tx:
            return [each.txid for each in transactions(tx, [transaction_id])[transaction_id].versions]

    def resource(self, nonce: int) -> str:
        return safe_resource(raw_address(self.safe), nonce)

    def in_wallet(self, wallet: str, asset: str = "ETH") -> int:
        """Base units that the ledger says a wallet holds."""
        rows = self.query(
            "SELECT balance FROM ledger_accounts WHERE kind = 'chain_assets' AND wallet = %s AND asset = %s",
            wallet,
            asset,
        )
        return -sum(int(row["balance"]) for row in rows)
