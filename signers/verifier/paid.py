"""One customer's payments: what signers have signed was debited, and what was debited was paid."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from policies.bundle import BitcoinVault, EvmVault, Vault
from policies.intent import Order
from signers.verifier.bundles import Bundles
from signers.verifier.logs import MemberLogs
from signers.verifier.model import Claim, Finding, FindingKind, Held, Unknown
from signers.verifier.payouts import Payout, Payouts, Unproven
from signers.verifier.source import Snapshot
from signers.verifier.state import State

CLOCKS_APART_SECONDS: Final = 600
"""A signer whose clock is behind takes an order or a verdict for so much longer."""
_OUTCOME: Final = """CASE WHEN EXISTS (
    SELECT 1 FROM payments q WHERE q.chain = p.chain AND q.content = p.content AND NOT EXISTS (
        SELECT 1 FROM payments s WHERE s.signer = q.signer AND s.chain = q.chain AND s.content = q.content
            AND s.intent = p.intent))
    THEN 'open' ELSE coalesce(r.outcome, 'open') END"""
"""What became of a payment. Where another signer has signed the same bytes for other intents (two senders of one EVM
chain), what was decided may be about the other one."""


@dataclass(frozen=True, slots=True)
class _Version:
    """A signed transaction that pays a withdrawal, as a signer's log tells it."""

    chain: str
    content: str
    wallet: str
    asset: str
    units: int
    outcome: str

    def __str__(self) -> str:
        return f"{self.units} {self.asset} in {self.content} on {self.chain}"


class PaidCase:
    """A customer's payments in one snapshot.

    Args:
        state: what logs tell, and what became of it.
        bundles: whom to believe.
        payouts: proves on own nodes what vaults paid.
        members: what is known of vaults' members.
        snapshot: the ledger.
        customer: whose.
    """

    def __init__(
        self,
        state: State,
        bundles: Bundles,
        payouts: Payouts,
        members: MemberLogs,
        snapshot: Snapshot,
        customer: str,
    ) -> None:
        self._state, self._bundles, self._payouts, self._members = state, bundles, payouts, members
        self._snapshot, self._customer = snapshot, customer
        self.findings: list[Finding] = []
        self.unknowns: list[Unknown] = []

    def run(self, held: Mapping[UUID, Held], orders: Mapping[UUID, Order | None]) -> None:
        """Compare logs, chains and ledger.

        Args:
            held: what the ledger has done with each withdrawal's money.
            orders: the genuine order of each; None: it has none, which was found already.
        """
        signed = self._signed()
        for withdrawal, versions in signed.items():
            self._debited(withdrawal, versions, held.get(withdrawal), orders.get(withdrawal))
        claims = self._snapshot.claims(list(held)) if held else {}
        standing = set()
        for withdrawal, each in held.items():
            order, claim = orders.get(withdrawal), claims.get(withdrawal)
            alive = [v for v in signed.get(withdrawal, ()) if v.outcome != "dead"]
            if each.state == "posted" and each.payee is None:
                if self._vaults(each.wallet):
                    standing.add(f"withdrawal:{withdrawal}")
                    self._paid_by_vault(withdrawal, each, order, claim, alive)
                elif not any(v.wallet == each.wallet for v in alive):
                    told = (
                        "of which all versions are dead"
                        if signed.get(withdrawal)
                        else "that no signer's log tells of"
                    )
                    self._find(
                        "payment-not-signed",
                        withdrawal,
                        f"{each.paid} {each.asset} were taken for a payment {told}",
                    )
        self._payouts.release(self._customer, standing)
        for withdrawal, each in held.items():
            order = orders.get(withdrawal)
            if each.state == "voided" and order is not None:
                self._given_back(withdrawal, order, claims.get(withdrawal))

    def _find(self, kind: FindingKind, subject: UUID, detail: str) -> None:
        self.findings.append(Finding(kind, self._customer, str(subject), detail))

    def _signed(self) -> dict[UUID, list[_Version]]:
        signed: dict[UUID, list[_Version]] = defaultdict(list)
        for intent, chain, content, wallet, asset, units, outcome in self._state.rows(
            f"SELECT DISTINCT p.intent, p.chain, p.content, p.keyset, p.asset, p.units, {_OUTCOME}"
            " FROM payments p LEFT JOIN resolutions r ON r.chain = p.chain AND r.content = p.content"
            " WHERE p.customer = ?",
            self._customer,
        ):
            signed[UUID(intent)].append(_Version(chain, content, wallet, asset, int(units), outcome))
        return signed

    def _vaults(self, wallet: str) -> list[Vault]:
        return [each for each in self._bundles.wallets(wallet) if isinstance(each, BitcoinVault | EvmVault)]

    # ------------------------------------------------------------------------------------ paid by a vault, or said so

    def _paid_by_vault(
        self,
        withdrawal: UUID,
        held: Held,
        order: Order | None,
        claim: Claim | None,
        alive: Sequence[_Version],
    ) -> None:
        """A vault's holders have no log, or one each: the chain tells, and logs as far as there are any."""
        if order is None:
            return  # that is found already, and what it should have paid is not known
        found = self._payouts.prove(self._payout(withdrawal, order, held.wallet), claim, self._snapshot.place)
        if isinstance(found, Unknown):
            self.unknowns.append(found)
        elif isinstance(found, Unproven):
            self._find(found.kind, withdrawal, f"{held.paid} {held.asset} of {held.wallet}: {found.detail}")
        elif not any(each.wallet == held.wallet for each in alive):
            [newest, *_] = self._vaults(held.wallet)
            if self._members.would_tell(newest):
                told = f"{held.wallet} has paid it, and no log of its members tells of that"
                self._find("payment-not-signed", withdrawal, told)

    def _payout(self, withdrawal: UUID, order: Order, wallet: str) -> Payout:
        return Payout(
            f"withdrawal:{withdrawal}",
            self._customer,
            order.chain,
            wallet,
            order.asset,
            order.units,
            order.destination,
        )

    def _given_back(self, withdrawal: UUID, order: Order, claim: Claim | None) -> None:
        """Money that was given back was not paid by a vault: neither where rows say, nor by any nonce of a Safe."""
        safes = [
            each
            for each in self._bundles.all_vaults()
            if isinstance(each, EvmVault) and each.chain == order.chain
        ]
        where = self._payouts.paid_all_the_same(self._payout(withdrawal, order, ""), safes)
        if where is None and claim is not None and claim.txid is not None and self._vaults(claim.wallet):
            payout = self._payout(withdrawal, order, claim.wallet)
            found = self._payouts.paid_as_said(payout, claim, self._snapshot.place)
            if isinstance(found, Unknown):
                return self.unknowns.append(found)
            where = found
        if where is not None:
            told = f"a vault paid it: {where}; its hold was given back"
            self._find("payment-not-debited", withdrawal, told)
        return None

    # ----------------------------------------------------------------------------------------------- signed, by logs

    def _debited(
        self, withdrawal: UUID, versions: Sequence[_Version], held: Held | None, order: Order | None
    ) -> None:
        alive = [each for each in versions if each.outcome != "dead"]
        if not alive:
            return None
        where = f"signed: {alive[0]}"
        paid = sorted({each.content for each in alive if each.outcome == "confirmed"})
        if len(paid) > 1:
            told = f"paid {len(paid)} times, debited once at most: {', '.join(paid)}"
            return self._find("payment-not-debited", withdrawal, told)
        if held is None:
            return self._find("payment-not-debited", withdrawal, f"{where}; the ledger has no hold for it")
        if (held.asset, held.units >= alive[0].units) != (alive[0].asset, True):
            return self._find("payment-not-debited", withdrawal, f"{where}; held: {held.units} {held.asset}")
        if held.state == "posted" and held.payee is not None:
            return self._find("payment-not-debited", withdrawal, f"{where}; settled to {held.payee}")
        if held.state == "voided":
            if any(each.outcome == "confirmed" for each in alive):
                return self._find(
                    "payment-not-debited", withdrawal, f"paid: {alive[0]}; its hold was given back"
                )
            if not all(self._never_will(each, order) for each in alive):
                told = f"{where}; its hold was given back, and it is not dead yet"
                self.unknowns.append(Unknown("open-transaction", str(withdrawal), told))
        return None

    def _never_will(self, version: _Version, order: Order | None) -> bool:
        """Whether a vault's members have signed a transaction, and nobody who is missing will any more: the order is
        over, so that none of them signs for it, and their logs were read since."""
        vaults = self._vaults(version.wallet)
        if order is None or not vaults:
            return False
        over = order.expires_at + CLOCKS_APART_SECONDS
        return all(self._members.too_few(each, version.chain, version.content, over) for each in vaults)
