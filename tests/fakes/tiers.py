"""Bitcoin in three tiers (a hot key-set, a warm and a cold vault), refills between them, and one signer of each."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from chains.btc.multisig import Multisig, parse_multisig
from chains.btc.psbt import PsbtInput, build_psbt
from chains.btc.tx import TxOut
from policies.bundle import BitcoinVault, Bundle, Cosigner, TierCap
from policies.intent import Evidence, Intent, Kind
from signers.ports import SignRequest
from signers.wallets import BitcoinVaultWallet, BitcoinWallet, Wallet
from tests.fakes.signer import Bench
from tests.fakes.signing import (
    CHAIN,
    DAY,
    REGTEST,
    Coin,
    Draft,
    SoftKeys,
    carrier_of,
    coin_of,
    own_intent,
    transaction_of,
)
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultWorld

Tier = Literal["hot", "warm", "cold"]
COLD = "btc-cold"
COLD_THRESHOLD = 3
COLD_MEMBERS = range(10, 15)
UNITS = 20_000_000


@dataclass
class RefillDraft:
    """A refill to be asked for; the defaults are honest, tests change one thing at a time."""

    source: Tier
    target: Tier
    units: int = UNITS
    index: int = 0
    """Of the target's change address."""
    branch: int = 1
    change_index: int = 0
    fee_sats: int = 2_000
    coins: list[Coin] = field(default_factory=list)
    intents: list[Intent] = field(default_factory=list)
    paid: int | None = None
    """In the output, if not `units`."""
    unnamed: bool = False
    """Whether the output names no keys."""
    extra_outputs: list[TxOut] = field(default_factory=list)
    names: Sequence[str] = ("ada", "ben")
    """Who approves."""


@dataclass
class TiersWorld(VaultWorld):
    """The world with a warm vault, and a cold one beside it."""

    cold: Sequence[SoftCosigner] = ()

    @property
    def cold_wallet(self) -> Multisig:
        """The honest cold vault."""
        members = [(c.record.origin, c.record.account) for c in self.cold]
        return parse_multisig(COLD_THRESHOLD, members, REGTEST)

    def cold_entry(self, **changes: Any) -> BitcoinVault:
        """The cold vault in the bundle."""
        fields: dict[str, Any] = {
            "id": COLD,
            "chain": CHAIN,
            "tier": "cold",
            "threshold": COLD_THRESHOLD,
            "cosigners": tuple(
                Cosigner(
                    id=f"h{n}", organisation=f"org-h{n}", account=c.record.account, origin=c.record.origin
                )
                for n, c in enumerate(self.cold)
            ),
            "descriptor": self.cold_wallet.descriptor,
        }
        return BitcoinVault(**(fields | changes))

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        caps: tuple[dict[str, Any], ...] = (
            {"tier": "hot", "payment_below": "1000", "window_cap": "500000000"},
            {"tier": "warm", "payment_from": "1000", "payment_below": "100000", "window_cap": "100000000"},
            {
                "tier": "cold",
                "payment_from": "100000",
                "payment_below": "1000000000",
                "window_cap": "200000000",
            },
        )
        fields: dict[str, Any] = {
            "vaults": (self.vault_entry(), self.cold_entry()),
            "caps": tuple(TierCap(asset="BTC", window_seconds=DAY, **cap) for cap in caps),
            "requirements": (
                self.requirement(verdict=None),
                self.requirement(tier="cold", approvals=3, verdict=None),
            ),
        }
        return super().bundle(version, **(fields | changes))

    def wallet_of_tier(self, tier: Tier) -> Multisig:
        """The vault of a tier."""
        return self.wallet if tier == "warm" else self.cold_wallet

    def name_of(self, tier: Tier) -> str:
        """The id of a tier's wallet."""
        return {"hot": self.record.id, "warm": VAULT, "cold": COLD}[tier]

    def script_at(self, tier: Tier, branch: int, index: int) -> bytes:
        """The script of a place in a tier's wallet."""
        if tier == "hot":
            return self.account.script(branch, index)
        return self.wallet_of_tier(tier).script(branch, index)

    def address_at(self, tier: Tier, branch: int, index: int) -> str:
        """The address of a place in a tier's wallet."""
        if tier == "hot":
            return self.account.address(branch, index)
        return self.wallet_of_tier(tier).address(branch, index)

    def tier_coin(self, tier: Tier, units: int) -> Coin:
        """A coin of a tier's wallet."""
        return coin_of(self.script_at(tier, 0, 0), units, 0, 0)

    def refill_intent(self, draft: RefillDraft, **changes: Any) -> Intent:
        """What should happen."""
        fields: dict[str, Any] = {
            "chain": CHAIN,
            "asset": "BTC",
            "tier": draft.source,
            "destination": self.address_at(draft.target, draft.branch, draft.index),
            "amount": str(draft.units),
        }
        return own_intent(self.name_of(draft.source), Kind.REFILL, **(fields | changes))

    def refill_request(self, draft: RefillDraft, **evidence: Any) -> SignRequest:
        """The request, with approvals of `draft.names`, or other evidence."""
        if not draft.coins:
            draft.coins = [self.tier_coin(draft.source, draft.units + 5_000_000)]
        intents = tuple(draft.intents or [self.refill_intent(draft)])
        given: dict[str, Any] = {
            "approvals": tuple(self.approval(intent, name) for intent in intents for name in draft.names)
        }
        request = SignRequest(
            chain=CHAIN,
            keyset=self.name_of(draft.source),
            intents=intents,
            evidence=Evidence(),
            transaction=base64.b64encode(self.refill_psbt(draft)).decode(),
        )
        if draft.source != "hot":
            carrier = carrier_of(request)
            given["verdicts"] = tuple(self.verdict(intent, carrier=carrier) for intent in intents)
        return msgspec.structs.replace(request, evidence=Evidence(**(given | evidence)))

    def refill_psbt(self, draft: RefillDraft) -> bytes:
        """The PSBT: the target's output, others, and change."""
        units = draft.units if draft.paid is None else draft.paid
        paid = TxOut(units, self.script_at(draft.target, draft.branch, draft.index))
        change = (1, draft.change_index)
        plain = Draft(draft.coins, [], draft.fee_sats, outputs=[paid], extra_outputs=draft.extra_outputs)
        tx, number = transaction_of(plain, self.script_at(draft.source, *change))
        places = {} if draft.unnamed else {0: (draft.target, (draft.branch, draft.index))}
        if number is not None:
            places[number] = (draft.source, change)
        keys = {
            n: (self.account.pubkey(*place), self.path(*place))
            for n, (tier, place) in places.items()
            if tier == "hot"
        }
        scripts = {
            n: self.wallet_of_tier(tier).behind(*place)
            for n, (tier, place) in places.items()
            if tier != "hot"
        }
        inputs = [self._input(draft.source, coin) for coin in draft.coins]
        return build_psbt(tx, inputs, keys, self.record.fingerprint, scripts)

    def _input(self, tier: Tier, coin: Coin) -> PsbtInput:
        sequence, place = Draft([], []).sequence, (coin.branch, coin.index)
        if tier == "hot":
            pubkey = self.account.pubkey(*place)
            return PsbtInput(coin.outpoint, sequence, coin.previous.serialize(), self.path(*place), pubkey)
        behind = self.wallet_of_tier(tier).behind(*place)
        return PsbtInput(coin.outpoint, sequence, coin.previous.serialize(), behind=behind)


class TierBench(Bench[TiersWorld]):
    """The signer of one tier: the hot key-set's, or one member's of a vault.

    Args:
        directory: for its files.
        tier: whose keys it has.
        beside: a signer of another tier, whose world it shares.
    """

    def __init__(self, directory: Path, tier: Tier, beside: TierBench | None = None) -> None:
        self.tier = tier
        if beside is None:
            self.warm = [SoftCosigner.make(number) for number in range(3)]
            self.cold = [SoftCosigner.make(number, COLD) for number in COLD_MEMBERS]
            self.hot = SoftKeys.make()
            world = TiersWorld(self.hot.record, cosigners=[c.record for c in self.warm], cold=self.cold)
        else:
            self.warm, self.cold, self.hot, world = beside.warm, beside.cold, beside.hot, beside.world
        super().__init__(directory, world)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        if self.tier == "hot":
            return {self.hot.record.id: BitcoinWallet(self.hot)}
        cosigner = (self.warm if self.tier == "warm" else self.cold)[0]
        return {cosigner.record.id: BitcoinVaultWallet(cosigner)}

    def refill(self, target: Tier, **changes: Any) -> SignRequest:
        """An honest refill of this tier's money, or one with a change."""
        return self.world.refill_request(self.draft(target, **changes))

    def draft(self, target: Tier, **changes: Any) -> RefillDraft:
        """The draft of one."""
        names = ("ada", "ben", "cem")[: {"hot": 0, "warm": 2, "cold": 3}[self.tier]]
        return RefillDraft(self.tier, target, **({"names": names} | changes))

    def under(self, version: int, draft: RefillDraft) -> SignRequest:
        """The request for a draft that was decided under a version of the bundle."""
        intents = draft.intents or [self.world.refill_intent(draft)]
        draft.intents = [msgspec.structs.replace(intent, policy_version=version) for intent in intents]
        return self.world.refill_request(draft)
