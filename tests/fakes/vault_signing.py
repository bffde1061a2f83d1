"""A Bitcoin vault of three cosigners in the small world of `signing`, and one signer of it in the test's process."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chains.btc.hd import BranchKeys
from chains.btc.multisig import Multisig, parse_multisig
from chains.btc.psbt import PsbtInput, build_psbt
from policies.bundle import BitcoinVault, Bundle, Cosigner, TierCap
from policies.intent import Evidence, Intent, Kind, Order
from policies.keys import SigningKey, sign_order
from signers.keys.account import AccountSecret
from signers.keys.keyset import BitcoinCosignerRecord
from signers.ports import SignRequest
from signers.wallets import BitcoinVaultWallet, Wallet
from tests.fakes.signer import Bench
from tests.fakes.signing import (
    CHAIN,
    DAY,
    REGTEST,
    Coin,
    Draft,
    SoftKeys,
    World,
    coin_of,
    own_intent,
    payment_intent,
    transaction_of,
)

VAULT = "btc-warm"
THRESHOLD = 2


@dataclass
class SoftCosigner:
    """One cosigner's keys without an HSM."""

    record: BitcoinCosignerRecord
    secret: AccountSecret[BranchKeys]
    attestation: SigningKey
    account: BranchKeys = field(init=False)

    def __post_init__(self) -> None:
        self.account = self.secret.public

    @classmethod
    def make(cls, number: int, vault: str = VAULT, entropy: bytes | None = None) -> SoftCosigner:
        """The same keys for the same number, unless there is entropy: vaults that share a node must not share coins."""
        secret, origin = AccountSecret.of_cosigner(entropy or bytes([number]) * 32, REGTEST, "48'/1'/0'/2'")
        attestation = SigningKey.generate()
        record = BitcoinCosignerRecord(
            id=vault,
            network="regtest",
            account=secret.public.xpub,
            origin=origin,
            attestation_key=attestation.public_hex,
        )
        return cls(record, secret, attestation)

    def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
        return self.secret.sign(branch, index, digest)

    def attest(self, digest: bytes) -> bytes:
        return base64.b64decode(self.attestation.sign_digest(digest))


@dataclass
class VaultWorld(World):
    """A world with a warm vault beside the hot key-set."""

    cosigners: Sequence[BitcoinCosignerRecord] = ()

    @property
    def wallet(self) -> Multisig:
        """The honest vault."""
        return self.wallet_of(self.cosigners)

    def wallet_of(self, cosigners: Sequence[BitcoinCosignerRecord], threshold: int = THRESHOLD) -> Multisig:
        """A vault of some cosigners, in their order."""
        return parse_multisig(threshold, [(c.origin, c.account) for c in cosigners], REGTEST)

    def vault_entry(self, cosigners: Sequence[BitcoinCosignerRecord] = (), **changes: Any) -> BitcoinVault:
        """The vault in the bundle; with a descriptor that fits unless `changes` name another one."""
        members = cosigners or self.cosigners
        fields: dict[str, Any] = {
            "id": VAULT,
            "chain": CHAIN,
            "tier": "warm",
            "threshold": THRESHOLD,
            "cosigners": tuple(
                Cosigner(id=f"c{n}", organisation=f"org-{n}", account=c.account, origin=c.origin)
                for n, c in enumerate(members)
            ),
        }
        fields |= changes
        fields.setdefault("descriptor", self.wallet_of(members, fields["threshold"]).descriptor)
        return BitcoinVault(**fields)

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        # The vault pays whatever there is, so the hot tier pays nothing.
        hot: dict[str, Any] = {"tier": "hot", "payment_below": "1", "window_cap": "500000000"}
        warm: dict[str, Any] = {"tier": "warm", "payment_from": "1"}
        warm |= {"payment_below": "1000000000", "window_cap": "10000000000"}
        fields: dict[str, Any] = {
            "vaults": (self.vault_entry(),),
            "caps": tuple(TierCap(asset="BTC", window_seconds=DAY, **cap) for cap in (hot, warm)),
            "requirements": (self.requirement(),),
        }
        return super().bundle(version, **(fields | changes))

    def vault_coin(self, units: int = 50_000_000, branch: int = 0, index: int = 0) -> Coin:
        """A coin of the vault."""
        return coin_of(self.wallet.script(branch, index), units, branch, index)

    def vault_intent(self, order: Order, /, **changes: Any) -> Intent:
        return payment_intent(VAULT, order, **({"tier": "warm"} | changes))

    def vault_house_intent(self, kind: Kind, **changes: Any) -> Intent:
        fields = {"chain": CHAIN, "asset": "BTC", "tier": "warm", "destination": self.wallet.address(1, 0)}
        return own_intent(VAULT, kind, **(fields | changes))

    def vault_request(self, draft: Draft, wallet: Multisig | None = None) -> SignRequest:
        """The request for a draft, with approvals and verdicts; `wallet` is whose coins the PSBT says they are."""
        orders = draft.orders
        return self.evidence(
            SignRequest(
                chain=CHAIN,
                keyset=VAULT,
                intents=tuple(draft.intents or [self.vault_intent(order) for order in orders]),
                evidence=Evidence(orders=tuple(sign_order(order, self.caller) for order in orders)),
                transaction=base64.b64encode(self.vault_psbt(draft, wallet or self.wallet)).decode(),
            )
        )

    def vault_psbt(self, draft: Draft, wallet: Multisig) -> bytes:
        tx, number = transaction_of(draft, wallet.script(1, draft.change_index))
        scripts = {} if number is None else {number: wallet.behind(1, draft.change_index)}
        inputs = [
            PsbtInput(
                coin.outpoint,
                draft.sequence,
                coin.previous.serialize(),
                behind=wallet.behind(coin.branch, coin.index),
            )
            for coin in draft.coins
        ]
        return build_psbt(tx, inputs, {}, bytes(4), scripts)


class VaultBench(Bench[VaultWorld]):
    """The signer of one of the vault's cosigners.

    Args:
        directory: for its files.
        own: which of the three it is.
        beside: a signer of the same vault, whose people and bundle it shares.
    """

    def __init__(self, directory: Path, own: int = 0, beside: VaultBench | None = None) -> None:
        self.own = own
        if beside is None:
            self.cosigners = [SoftCosigner.make(number) for number in range(3)]
            world = VaultWorld(SoftKeys.make().record, cosigners=[c.record for c in self.cosigners])
        else:
            self.cosigners, world = beside.cosigners, beside.world
        super().__init__(directory, world)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {VAULT: BitcoinVaultWallet(self.cosigners[self.own])}

    def draft(self, *units: int, **changes: Any) -> Draft:
        """An honest draft: one coin of the vault that suffices, one order for each of `units`."""
        units = units or (20_000_000,)
        world = self.world
        coins = [world.vault_coin(sum(units) + 4_000_000)]
        return Draft(coins, [world.order(n) for n in units], **changes)

    def request(self, *units: int, **changes: Any) -> SignRequest:
        return self.world.vault_request(self.draft(*units, **changes))
