"""Money that the ledger moves from one wallet of the house into another: refills and rotations, each proven."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue
from policies.bundle import EvmKeyset, EvmVault, GasPayer
from signers.verifier.bundles import Bundles
from signers.verifier.ids import referred
from signers.verifier.model import Claim, Finding, Move, Refill, Unknown
from signers.verifier.payouts import Payout, Payouts, Unproven
from signers.verifier.source import Snapshot
from signers.verifier.state import State

KIND: Final = "move-unproven"
Plain = tuple[str, str, str, int]
"""Asset, source, target, base units."""


class Moves:
    """Audits them.

    Args:
        state: what signers' logs tell.
        bundles: whom to believe.
        payouts: proves them on own nodes.
    """

    def __init__(self, state: State, bundles: Bundles, payouts: Payouts) -> None:
        self._state, self._bundles, self._payouts = state, bundles, payouts

    def audit(self, snapshot: Snapshot, unread: Collection[str]) -> tuple[list[Finding], list[Unknown]]:
        """All of them, and all refills that are said to be confirmed.

        Args:
            snapshot: the ledger.
            unread: signers whose logs could not be read now.
        """
        return _Round(self._state, self._bundles, self._payouts, snapshot, unread).run()


class _Round:
    def __init__(
        self, state: State, bundles: Bundles, payouts: Payouts, snapshot: Snapshot, unread: Collection[str]
    ) -> None:
        self.state, self.bundles, self.payouts, self.snapshot = state, bundles, payouts, snapshot
        self.unread = unread
        self.findings: list[Finding] = []
        self.unknowns: list[Unknown] = []

    def run(self) -> tuple[list[Finding], list[Unknown]]:
        booked = self._standing()
        refills = {f"refill:{each.id}": each for each in self._refills(booked)}
        for reference, refill in refills.items():
            self._refill(reference, refill, booked.get(reference))
        for reference, move in booked.items():
            rotation = referred(reference, "rotation")
            if rotation is not None:
                self._rotation(reference, rotation, move)
            elif reference not in refills:
                self._find(reference, "money moved between wallets, for no refill and no rotation")
        self.payouts.release("", {*booked, *refills})
        return self.findings, self.unknowns

    def _find(self, subject: str, detail: str) -> None:
        self.findings.append(Finding(KIND, "", subject, detail))

    def _standing(self) -> dict[str, Plain]:
        """By reference, those that were not undone: asset, source, target, units. Each stands once."""
        by_reference: dict[str, dict[UUID, Move]] = defaultdict(dict)
        for move in self.snapshot.moves():
            transfer, standing = move.transfer, by_reference[move.transfer.reference]
            undone = None if transfer.parent is None else standing.get(transfer.parent)
            if transfer.kind == "reverse" and undone is not None and move.plain == _backwards(undone):
                del standing[undone.transfer.id]
            elif transfer.kind != "immediate" or move.plain is None:
                told = f"{transfer.id} ({transfer.kind}) is no move from one wallet to another"
                self._find(transfer.reference, told)
            else:
                standing[transfer.id] = move
        found: dict[str, Plain] = {}
        for reference, standing in by_reference.items():
            if len(standing) > 1:
                self._find(reference, f"it is booked {len(standing)} times")
            for move in standing.values():
                assert move.plain is not None, "seen above"
                found[reference] = move.plain
        return found

    def _refills(self, booked: Iterable[str]) -> list[Refill]:
        named = (referred(reference, "refill") for reference in booked)
        return self.snapshot.refills([each for each in named if each is not None])

    def _refill(self, reference: str, refill: Refill, booked: Plain | None) -> None:
        if booked is None:
            return self._find(reference, "it is said to be confirmed, and nothing is booked for it")
        if booked != (refill.asset, refill.source, refill.target, refill.units):
            return self._find(reference, "what is booked is not what its row says")
        if self._is_key(refill.source):
            return self._logged(reference, refill)
        destination, target = refill.destination, refill.target
        payout = Payout(
            reference, "", refill.chain, refill.source, refill.asset, refill.units, destination, target
        )
        return self._prove(payout, self.snapshot.refill_claims([refill.id]).get(refill.id))

    def _logged(self, reference: str, refill: Refill) -> None:
        """Out of a key of an EVM chain: its signer's log tells of it."""
        rows = self.state.rows(
            "SELECT asset, units, destination FROM payments p WHERE intent = ? AND chain = ? AND keyset = ?"
            " AND NOT EXISTS (SELECT 1 FROM resolutions r WHERE r.chain = p.chain AND r.content = p.content"
            " AND r.outcome = 'dead')",
            str(refill.id),
            refill.chain,
            refill.source,
        )
        if (refill.asset, str(refill.units), refill.destination) in rows:
            return None
        if self.unread:
            told = f"no log tells of it, and {', '.join(sorted(self.unread))} could not be read"
            return self.unknowns.append(Unknown("signer", reference, told))
        return self._find(reference, f"no signer's log tells that {refill.source} has paid it")

    def _rotation(self, reference: str, id: UUID, move: Plain) -> None:
        asset, source, target, units = move
        try:
            chain = self.bundles.present().asset(asset).chain
        except InvalidValue as error:
            return self._find(reference, str(error))
        if self._is_key(source):
            return None  # its signer's log names the transaction, and not how much it moved
        payout = Payout(reference, "", chain, source, asset, units, self._address_of(target), target)
        return self._prove(payout, self.snapshot.transactions([id]).get(id))

    def _is_key(self, wallet: str) -> bool:
        return any(isinstance(each, EvmKeyset | GasPayer) for each in self.bundles.wallets(wallet))

    def _address_of(self, wallet: str) -> str:
        """Of a wallet with one address only; else empty."""
        for each in self.bundles.wallets(wallet):
            if isinstance(each, EvmKeyset | EvmVault | GasPayer):
                return each.address
        return ""

    def _prove(self, payout: Payout, claim: Claim | None) -> None:
        found = self.payouts.prove(payout, claim, self.snapshot.place)
        if isinstance(found, Unknown):
            self.unknowns.append(found)
        elif isinstance(found, Unproven):
            self._find(payout.owner, found.detail)


def _backwards(move: Move) -> Plain | None:
    if move.plain is None:
        return None
    asset, source, target, units = move.plain
    return asset, target, source, units
