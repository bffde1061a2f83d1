"""One customer's ledger, examined: replayed, and everything that it rests on proven on own nodes and by signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final
from uuid import UUID

from chains.errors import InvalidValue, NodeUnavailable, PermanentError, Reorganised
from chains.types import BlockRef
from policies.bundle import AssetEntry, BitcoinNetwork
from policies.canonical import BadSignature
from policies.intent import Order, SignedOrder
from signers.verifier.adjusted import unapproved
from signers.verifier.attested import Proven, prove
from signers.verifier.bundles import Bundles
from signers.verifier.chains import script_of
from signers.verifier.follow import Follower
from signers.verifier.ids import deposit_id
from signers.verifier.logs import MemberLogs
from signers.verifier.model import (
    AddressRow,
    Credit,
    Finding,
    FindingKind,
    Held,
    History,
    Replayed,
    Unknown,
    Withdrawal,
)
from signers.verifier.paid import PaidCase
from signers.verifier.payouts import Payouts
from signers.verifier.replay import replay
from signers.verifier.settled import unasked
from signers.verifier.source import Snapshot, TooLong
from signers.verifier.state import State

MAX_CUSTOMERS: Final = 200
"""Whose money has come to one customer, directly or not, and whose ledgers are therefore examined with his."""
UNREADABLE: Final = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What values of a wrong type or form raise. Whoever writes the rows must not end the verifier by them."""


def unreadable(customer: str, subject: str, error: Exception) -> Finding:
    """Rows that no ledger has."""
    return Finding("unreadable", customer, subject, f"{type(error).__name__}: {error}"[:500])


@dataclass(frozen=True, slots=True)
class Examination:
    """What is wrong with a ledger, and what could not be told now."""

    replayed: Replayed
    findings: tuple[Finding, ...]
    unknowns: tuple[Unknown, ...]


class Examiner:
    """Examines customers' ledgers.

    Args:
        state: what is known of signers' logs and of transactions.
        bundles: whom to believe.
        followers: the own nodes, by chain.
        payouts: proves what vaults paid.
        members: what the logs of vaults' members tell.
    """

    def __init__(
        self,
        state: State,
        bundles: Bundles,
        followers: Mapping[str, Follower],
        payouts: Payouts,
        members: MemberLogs,
    ) -> None:
        self._state, self._bundles, self._followers = state, bundles, followers
        self.payouts, self._members = payouts, members

    def examine(self, snapshot: Snapshot, customer: str) -> Examination:
        """One customer's ledger alone.

        Raises:
            LedgerUnavailable: the database was lost.
        """
        try:
            history = snapshot.history(customer)
            paid = PaidCase(self._state, self._bundles, self.payouts, self._members, snapshot, customer)
            return _Case(self._bundles, self._followers, snapshot, history, paid).run()
        except TooLong as error:
            return Examination(Replayed(()), (), (Unknown("size", customer, str(error)),))
        except UNREADABLE as error:
            found = unreadable(customer, customer, error)
            return Examination(Replayed((found,)), (found,), ())

    def examine_with_partners(self, snapshot: Snapshot, customer: str) -> Examination:
        """A customer's ledger, and those of everybody whose money has come to it, directly or not.

        Raises:
            LedgerUnavailable: the database was lost.
        """
        own = self.examine(snapshot, customer)
        findings, unknowns = list(own.findings), list(own.unknowns)
        done, left = {customer}, sorted(own.replayed.partners - {customer})
        while left:
            if len(done) == MAX_CUSTOMERS:
                told = f"money of more than {MAX_CUSTOMERS} customers has come to it"
                unknowns.append(Unknown("size", customer, told))
                break
            partner = left.pop()
            done.add(partner)
            found = self.examine(snapshot, partner)
            findings += found.findings
            unknowns += found.unknowns
            left = sorted((found.replayed.partners | set(left)) - done)
        return Examination(own.replayed, tuple(findings), tuple(unknowns))

    def genuine(self, withdrawal: Withdrawal) -> Order | Finding:
        """The order of a withdrawal, if a caller has signed it and the row says the same."""
        return genuine(self._bundles, withdrawal)

    def proven(self, row: AddressRow) -> Proven | Finding:
        """Whose an address is."""
        bundle = self._bundles.present()
        return prove(row, bundle, partial(script_of, bundle))


def genuine(bundles: Bundles, row: Withdrawal) -> Order | Finding:
    """The order of a withdrawal's row, if a caller of the bundle has signed it and the row says the same."""

    def wrong(detail: str) -> Finding:
        return Finding("order-not-genuine", row.customer, str(row.id), detail)

    try:
        order = Order.from_canonical(row.order.encode())
    except (InvalidValue, UnicodeError) as error:
        return wrong(f"its order cannot be read: {error}")
    said = (order.id, order.customer, order.chain, order.asset, order.destination, order.units)
    if said != (str(row.id), row.customer, row.chain, row.asset, row.destination, row.units):
        return wrong("its row says something else than its order")
    for key in bundles.caller_keys(order.caller):
        try:
            SignedOrder(order, row.signature).verify(key)
            return order
        except BadSignature:
            continue
    return wrong(f"no key of caller {order.caller} has signed it")


class _Case:
    def __init__(
        self,
        bundles: Bundles,
        followers: Mapping[str, Follower],
        snapshot: Snapshot,
        history: History,
        paid: PaidCase,
    ) -> None:
        self.bundles, self.followers, self.paid = bundles, followers, paid
        self.snapshot, self.history = snapshot, history
        self.bundle = bundles.present()
        self.customer = history.customer
        self.findings: list[Finding] = []
        self.unknowns: list[Unknown] = []
        self.credited: set[UUID] = set()

    def run(self) -> Examination:
        replayed = replay(self.history)
        self.findings += replayed.findings
        self.credited = {credit.deposit for credit in replayed.credits}
        for credit in replayed.credits:
            self._credit(credit)
        orders = {held.withdrawal: self._order(held) for held in replayed.held.values()}
        for received in replayed.received:
            self._destination(received.withdrawal, received.payer, received.units, received.asset)
        for subject, detail in unasked(
            replayed.trades, self.history.settlements, self.customer, self.bundles.caller_keys
        ):
            self._find("trade-not-asked", subject, detail)
        for adjustment in replayed.adjustments:
            why = unapproved(adjustment, self.history.actions, self.bundles.operator_keys)
            if why:
                self._find("adjustment-not-approved", adjustment.id, why)
        self.paid.run(replayed.held, orders)
        findings, unknowns = (*self.findings, *self.paid.findings), (*self.unknowns, *self.paid.unknowns)
        return Examination(replayed, findings, unknowns)

    def _find(self, kind: FindingKind, subject: object, detail: str) -> None:
        self.findings.append(Finding(kind, self.customer, str(subject), detail))

    # ------------------------------------------------------------------------------------------------ deposits

    def _credit(self, credit: Credit) -> None:
        row = self.history.deposits.get(credit.deposit)
        if row is None:
            return self._find(
                "deposit-unproven", credit.deposit, f"{credit.units} {credit.asset} came from nowhere"
            )
        if deposit_id(row.chain, row.resource) != credit.deposit:
            return self._find(
                "deposit-edited", credit.deposit, f"it is not the id of {row.resource} on {row.chain}"
            )
        try:
            entry = self.bundle.asset(credit.asset)
        except InvalidValue as error:
            return self._find("unlisted-asset", credit.deposit, str(error))
        if (row.customer, row.asset, row.units, row.chain) != (
            self.customer,
            credit.asset,
            credit.units,
            entry.chain,
        ):
            return self._find(
                "deposit-edited",
                credit.deposit,
                f"its row says {row.units} {row.asset} of {row.customer} on {row.chain}, the ledger {credit.units}"
                f" {credit.asset} of {self.customer}",
            )
        address = self.history.addresses.get(row.address)
        proven = None if address is None else prove(address, self.bundle, partial(script_of, self.bundle))
        if not isinstance(proven, Proven):
            if proven is None:
                return self._find(
                    "deposit-unproven", credit.deposit, "there is no address that it was paid to"
                )
            return self._find(proven.kind, credit.deposit, f"{proven.subject}: {proven.detail}")
        if proven.customer != self.customer:
            return self._find(
                "address-of-another", credit.deposit, f"{proven.address} is {proven.customer}'s"
            )
        if (proven.chain, proven.keyset) != (entry.chain, credit.wallet) or not self._serves(proven, entry):
            return self._find(
                "deposit-edited",
                credit.deposit,
                f"{proven.address} is for {proven.asset} in {proven.keyset}, it was credited as {entry.id} in"
                f" {credit.wallet}",
            )
        if row.height is None or row.block is None:
            return self._find(
                "deposit-not-on-chain", credit.deposit, f"{row.resource} is said to be in no block"
            )
        return self._on_chain(credit, entry, row.resource, row.height, row.block, proven)

    def _serves(self, proven: Proven, entry: AssetEntry) -> bool:
        """An address of an EVM chain takes all assets of its chain, others the one they were made for."""
        network = self.bundle.network(entry.chain)
        return not isinstance(network, BitcoinNetwork) or proven.asset == entry.id

    def _on_chain(
        self, credit: Credit, entry: AssetEntry, resource: str, height: int, block: str, proven: Proven
    ) -> None:
        follower = self.followers.get(entry.chain)
        if follower is None:
            return self.unknowns.append(Unknown("node", entry.chain, "there is no own node of this chain"))
        try:
            found = follower.receipt(resource, BlockRef(height, block), proven.script)
        except (NodeUnavailable, Reorganised) as error:
            return self.unknowns.append(Unknown("node", resource, str(error)))
        except PermanentError as error:
            return self._find("deposit-not-on-chain", credit.deposit, f"{resource}: {error}")
        if isinstance(found, str):
            return self._find("deposit-not-on-chain", credit.deposit, f"{resource}: {found}")
        twins = [name for name in found.also if deposit_id(entry.chain, name) in self.credited]
        if twins:
            return self._find(
                "deposit-repeated", credit.deposit, f"{resource} is credited as {twins[0]}, too"
            )
        if (int(found.units), found.contract) != (credit.units, entry.contract):
            return self._find(
                "deposit-not-on-chain",
                credit.deposit,
                f"{resource} brought {found.units} of {found.contract or 'the native asset'}, and {credit.units} of"
                f" {entry.id} were credited",
            )
        position = follower.position()
        depth = 0 if position is None else position.depth(height)
        needed = entry.confirmations_for(credit.units)
        if depth < needed:
            self.unknowns.append(
                Unknown("depth", resource, f"{depth} of {needed} confirmations on the own node")
            )
        return None

    # --------------------------------------------------------------------------------------- orders and payments

    def _order(self, held: Held) -> Order | None:
        row = self.history.withdrawals.get(held.withdrawal)
        if row is None:
            self._find("order-not-genuine", held.withdrawal, "there is no order for this hold")
            return None
        order = genuine(self.bundles, row)
        if isinstance(order, Finding):
            self._find(order.kind, held.withdrawal, order.detail)
            return None
        fee = held.units - order.units
        if (order.customer, order.asset) != (self.customer, held.asset) or fee < 0:
            self._find(
                "order-not-genuine",
                held.withdrawal,
                f"{held.units} {held.asset} of {self.customer} are held for an order of {order.customer} over"
                f" {order.units} {order.asset}",
            )
            return None
        if fee < self.bundles.lowest_fee(held.asset):
            self._find("fee-not-charged", held.withdrawal, f"{fee} are held for a fee that never was so low")
        if held.state == "posted" and (held.paid, held.fee) != (order.units, fee):
            self._find(
                "hold-broken",
                held.withdrawal,
                f"{held.paid} and a fee of {held.fee} were taken for an order over {order.units} with {fee}",
            )
        if held.state == "posted" and held.payee == self.customer:
            self._destination(held.withdrawal, self.customer, held.paid, held.asset)
        return order

    def _destination(self, withdrawal: UUID, payer: str, units: int, asset: str) -> None:
        """That an order of the payer sent this customer the money."""
        row = self.history.withdrawals.get(withdrawal)
        order = None if row is None else genuine(self.bundles, row)
        if not isinstance(order, Order):
            told = "there is no order" if order is None else order.detail
            return self._find(
                "order-not-genuine", withdrawal, f"it brought {units} {asset} of {payer}: {told}"
            )
        if (order.customer, order.asset, order.units) != (payer, asset, units):
            return self._find(
                "order-not-genuine",
                withdrawal,
                f"it brought {units} {asset} of {payer}; the order is {order.customer}'s over {order.units}"
                f" {order.asset}",
            )
        address = self.snapshot.address_of(order.chain, order.destination)
        proven = None if address is None else prove(address, self.bundle, partial(script_of, self.bundle))
        if not isinstance(proven, Proven) or proven.customer != self.customer:
            return self._find(
                "internal-payment-misdirected",
                withdrawal,
                f"it was settled to {self.customer}, to whom no signer gave {order.destination}",
            )
        return None
