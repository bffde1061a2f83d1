"""A ledger in memory, made by the online side's own rules, whose rows can be handed to the verifier, edited or not."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID, uuid4

from custody.ledger import bookings, posting
from custody.ledger.model import (
    AccountKey,
    AccountKind,
    Command,
    Created,
    Leg,
    LineType,
    Reverse,
    Transfer,
    available,
    house,
)
from custody.ledger.posting import Account as Place
from custody.ledger.posting import Book, HoldRecord, TransferRecord
from custody.trades.model import Fill
from signers.verifier import model
from signers.verifier.ids import referred
from signers.verifier.model import NEVER_NEGATIVE, History, Plain

ASSETS = ("BTC", "ETH")
CUSTOMERS = ("alice", "bob")
WALLET = "btc-hot"
CORE = UUID("0192f0c1-5b7e-7c3a-9d2e-3f4a5b6c7d8f")


def _keys() -> list[AccountKey]:
    found = []
    for asset in ASSETS:
        for customer in CUSTOMERS:
            found += [
                AccountKey(customer, kind, asset)
                for kind in (AccountKind.AVAILABLE, AccountKind.FROZEN, AccountKind.TRADING)
            ]
        found += [house(AccountKind.CHAIN_ASSETS, asset, wallet=WALLET)]
        found += [house(kind, asset) for kind in (AccountKind.SUSPENSE, AccountKind.FEES_EARNED)]
    return found


@dataclass
class Rows:
    """The tables. Balances and lines' numbers follow from `legs` when `History`s are made."""

    owners: dict[int, AccountKey]
    transfers: dict[UUID, TransferRecord] = field(default_factory=dict)
    legs: dict[UUID, list[tuple[int, int, str]]] = field(default_factory=dict)
    """By transfer, in the order of the transfers: account, amount, type."""
    holds: dict[UUID, HoldRecord] = field(default_factory=dict)

    def copy(self) -> Rows:
        return Rows(
            dict(self.owners),
            dict(self.transfers),
            {id: list(legs) for id, legs in self.legs.items()},
            dict(self.holds),
        )

    def lines(self) -> list[model.Line]:
        """All lines, consistently numbered and added up, as a careful forger writes them, too."""
        found: list[model.Line] = []
        balances: dict[int, int] = defaultdict(int)
        numbers: dict[int, int] = defaultdict(int)
        for transfer, legs in self.legs.items():
            for account, amount, kind in legs:
                before = balances[account]
                balances[account] += amount
                numbers[account] += 1
                found.append(
                    model.Line(
                        len(found) + 1,
                        transfer,
                        account,
                        numbers[account],
                        kind,
                        amount,
                        before,
                        before + amount,
                    )
                )
        return found

    def consistent(self) -> bool:
        """Whether the database's own checks would let it pass: no balance of a customer is ever negative."""
        return all(
            line.after >= 0 or self.owners[line.account].kind.value not in NEVER_NEGATIVE
            for line in self.lines()
        )

    def history(self, customer: str, lines: Sequence[model.Line] | None = None) -> History:
        """What the verifier would read of a customer."""
        every = self.lines() if lines is None else list(lines)
        mine = {id for id, key in self.owners.items() if key.customer == customer}
        touched = {line.transfer for line in every if line.account in mine}
        references = {
            self.transfers[id].reference
            for id in touched
            if id in self.transfers
            and (
                referred(self.transfers[id].reference, "deposit")
                or referred(self.transfers[id].reference, "withdrawal")
            )
        }
        wanted = touched | {id for id, each in self.transfers.items() if each.reference in references}
        last: dict[int, model.Line] = {line.account: line for line in every}
        return History(
            customer=customer,
            accounts={
                id: model.Account(
                    id,
                    key.customer,
                    key.kind.value,
                    key.asset,
                    key.wallet,
                    last[id].after if id in last else 0,
                    last[id].seq if id in last else 0,
                )
                for id, key in self.owners.items()
            },
            lines=[line for line in every if line.transfer in wanted],
            transfers={
                id: model.Transfer(id, each.kind.value, each.parent, each.reference)
                for id, each in self.transfers.items()
                if id in wanted
            },
            holds={
                id: model.Hold(id, each.customer, each.asset, each.units, each.state.value)
                for id, each in self.holds.items()
                if each.customer == customer or id in wanted
            },
            deposits={},
            addresses={},
            withdrawals={},
        )


class Books:
    """Honest books: what the online side would have booked, and the facts outside of the ledger that it rests on."""

    def __init__(self) -> None:
        self.ids = {key: number for number, key in enumerate(_keys(), start=1)}
        self.book = Book({key: Place(id, 0, 0) for key, id in self.ids.items()})
        self.rows = Rows({id: key for key, id in self.ids.items()})
        self.deposits: dict[UUID, tuple[str, str, int]] = {}
        """What has arrived, and still is on its chain: customer, asset, units."""
        self.undone: dict[UUID, tuple[str, str, int]] = {}
        self.credits: dict[UUID, int] = defaultdict(int)
        self.orders: dict[UUID, tuple[str, str, int, int]] = {}
        """Signed orders: customer, asset, amount, fee."""
        self.paid: set[UUID] = set()
        """Orders that a signer has paid."""
        self.internal: dict[UUID, str] = {}
        self.trades: dict[UUID, Counter[Plain]] = {}
        """What the trading core has signed, by the transfer that settles it."""
        """Orders to an address of another customer, and whose it is."""
        self.settled: dict[UUID, int] = {}
        self.counts: dict[UUID, int] = defaultdict(int)

    def do(self, *commands: Command) -> bool:
        """Book these, if the ledger takes all of them."""
        outcome = posting.post(self.book, commands)
        if not all(isinstance(result, Created) for result in outcome.results):
            return False
        accounts = dict(self.book.accounts)
        by_id = {place.id: key for key, place in accounts.items()}
        legs = {id: list(each) for id, each in self.book.legs.items()}
        for record in outcome.transfers:
            self.rows.transfers[record.id] = record
            self.rows.legs[record.id] = []
            legs[record.id] = []
        for line in outcome.lines:
            accounts[by_id[line.account_id]] = Place(line.account_id, line.balance_after, line.seq)
            self.rows.legs[line.transfer_id].append((line.account_id, line.amount, line.type.value))
            legs[line.transfer_id].append(Leg(by_id[line.account_id], line.amount, line.type))
        holds = dict(self.book.holds) | {hold.id: hold for hold in outcome.new_holds}
        for id, _, after in outcome.hold_changes:
            holds[id] = replace(holds[id], state=after)
        self.rows.holds = dict(holds)
        reversed_ = self.book.reversed | {
            each.parent for each in outcome.transfers if each.kind.value == "reverse" and each.parent
        }
        self.book = Book(
            accounts,
            dict(self.rows.transfers),
            holds,
            {id: tuple(each) for id, each in legs.items()},
            reversed_,
        )
        return True

    def deposit(self, customer: str, asset: str, units: int) -> UUID:
        id = uuid4()
        self.deposits[id] = (customer, asset, units)
        assert self._credit(id)
        return id

    def claw_back(self, id: UUID) -> None:
        customer, asset, units = self.deposits[id]
        wallet = {"wallet": WALLET, "units": units, "customer": customer, "asset": asset}
        assert self.do(bookings.claw_back(id, self.credits[id], **wallet))  # type: ignore[arg-type]
        self.undone[id] = self.deposits.pop(id)

    def mine_again(self, id: UUID) -> None:
        self.deposits[id] = self.undone.pop(id)
        assert self._credit(id)

    def _credit(self, id: UUID) -> bool:
        customer, asset, units = self.deposits[id]
        suspense = self.ids[house(AccountKind.SUSPENSE, asset)]
        owed = -sum(
            amount
            for transfer, legs in self.rows.legs.items()
            if self.rows.transfers[transfer].reference == bookings.deposit_reference(id)
            for account, amount, _ in legs
            if account == suspense
        )
        self.credits[id] += 1
        return self.do(
            bookings.credit_deposit(
                id,
                self.credits[id],
                customer=customer,
                asset=asset,
                wallet=WALLET,
                units=units,
                shortfall_units=owed,
            )
        )

    def request(self, customer: str, asset: str, units: int, fee: int) -> UUID | None:
        id = uuid4()
        if not self.do(
            bookings.hold_withdrawal(id, customer=customer, asset=asset, units=units, fee_units=fee)
        ):
            return None
        self.orders[id] = (customer, asset, units, fee)
        return id

    def pending(self) -> list[UUID]:
        return [
            id
            for id in self.orders
            if self.book.holds[bookings.withdrawal_hold_id(id)].state.value == "pending"
        ]

    def cancel(self, id: UUID) -> None:
        assert id not in self.paid
        assert self.do(bookings.release_withdrawal(id))

    def settle(self, id: UUID) -> None:
        customer, asset, units, fee = self.orders[id]
        self.counts[id] += 1
        command = bookings.settle_withdrawal(
            id, self.counts[id], customer=customer, asset=asset, wallet=WALLET, units=units, fee_units=fee
        )
        assert self.do(command)
        self.paid.add(id)
        self.settled[id] = self.counts[id]

    def settle_internally(self, id: UUID, to: str) -> None:
        customer, asset, units, fee = self.orders[id]
        self.counts[id] += 1
        command = bookings.settle_internally(
            id,
            self.counts[id],
            customer=customer,
            to_customer=to,
            asset=asset,
            units=units,
            fee_units=fee,
        )
        assert self.do(command)
        self.internal[id] = to

    def unsettle(self, id: UUID) -> None:
        assert self.do(bookings.unsettle_withdrawal(id, self.settled.pop(id)))

    def to_trading(self, customer: str, asset: str, units: int) -> bool:
        """Positive: into trading; negative: back."""
        legs = (
            Leg(available(customer, asset), -units, LineType.TRANSFER),
            Leg(AccountKey(customer, AccountKind.TRADING, asset), units, LineType.TRANSFER),
        )
        return self.do(Transfer(uuid4(), legs, "trading"))

    def trade(self, seller: str, buyer: str, sold: int, price: int, fee: int, rebate: int = 0) -> bool:
        """The seller's BTC for the buyer's ETH. The seller is charged a fee, of which the buyer gets a rebate."""
        number = len(self.trades) + 1
        fill = Fill(number, 0, "BTC", "ETH", buyer, seller, sold, price, -rebate, fee)
        transfer = fill.transfer(CORE)
        if not self.do(transfer):
            return False
        self.trades[transfer.id] = Counter(
            Plain(leg.account.kind.value, leg.account.customer, leg.account.asset, leg.amount, leg.type.value)
            for leg in transfer.legs
        )
        return True

    def undo(self, transfer: UUID) -> bool:
        return self.do(Reverse(uuid4(), transfer, self.rows.transfers[transfer].reference))
