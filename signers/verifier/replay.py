"""Replays a customer's ledger from zero and says what of it nothing in the ledger itself explains. Pure.

Only these movements exist, each with a form that hides nothing: the credit of a deposit and its claw-back; a
withdrawal's hold, its release, its settlement on the chain or to another customer, and that one undone; a move
between a customer's own available and trading money; a trade between trading accounts. Whatever else touches a
customer's account is unexplained. What they rest on outside of the ledger (chains, orders, attestations, what trading
cores have signed) is proven in `examine`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from signers.verifier.ids import referred, traded
from signers.verifier.model import (
    CUSTOMER_KINDS,
    NEVER_NEGATIVE,
    Account,
    Adjustment,
    Credit,
    Finding,
    FindingKind,
    Held,
    History,
    Leg,
    Line,
    Plain,
    Received,
    Replayed,
    Trade,
    Transfer,
)


def replay(history: History) -> Replayed:
    """Everything that the ledger says of one customer, from the first line on."""
    return _Replay(history).run()


def replay_account(account: Account, lines: Iterable[Line]) -> str | None:
    """Why an account's row is not what its lines (in order of `seq`) add up to; None if it is."""
    balance = number = 0
    for number, line in enumerate(lines, start=1):
        if line.seq != number:
            return f"line {number} has number {line.seq}"
        if line.before != balance or line.after != balance + line.amount:
            return f"line {number} goes from {line.before} by {line.amount} to {line.after}, and not from {balance}"
        balance = line.after
        if balance < 0 and account.kind in NEVER_NEGATIVE:
            return f"line {number} takes it to {balance}"
    if (account.balance, account.last_seq) != (balance, number):
        return f"its row says {account.balance} after line {account.last_seq}, its lines {balance} after {number}"
    return None


class _Unexplained(Exception):
    """A group of transfers that has no form that we know."""

    def __init__(self, kind: FindingKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: FindingKind = kind


class _Replay:
    def __init__(self, history: History) -> None:
        self.history = history
        self.customer = history.customer
        self.findings: list[Finding] = []
        self.legs: dict[UUID, list[Leg]] = defaultdict(list)
        self.credits: list[Credit] = []
        self.held: dict[UUID, Held] = {}
        self.received: list[Received] = []
        self.trades: list[Trade] = []
        self.partners: set[str] = set()
        self.shortfalls: Counter[str] = Counter()
        self.adjustments: list[Adjustment] = []

    def run(self) -> Replayed:
        balances = self._accounts()
        self._transfers()
        groups: dict[str, list[Transfer]] = defaultdict(list)
        for transfer in self._in_order():
            groups[transfer.reference].append(transfer)
        for reference, transfers in groups.items():
            self._explain(reference, transfers)
        self._holds()
        for asset, missing in self.shortfalls.items():
            left = sum(balances.get((kind, asset), 0) for kind in CUSTOMER_KINDS)
            if missing > left:
                self._find(
                    "overdrawn",
                    asset,
                    f"a reorg took {missing} back that were spent, and only {left} are left",
                )
        return Replayed(
            tuple(self.findings),
            balances,
            tuple(self.credits),
            self.held,
            tuple(self.received),
            frozenset(self.partners),
            tuple(self.trades),
            dict(self.shortfalls),
            tuple(self.adjustments),
        )

    def _find(self, kind: FindingKind, subject: str, detail: str) -> None:
        self.findings.append(Finding(kind, self.customer, subject, detail))

    def _accounts(self) -> dict[tuple[str, str], int]:
        lines: dict[int, list[Line]] = defaultdict(list)
        for line in self.history.lines:
            lines[line.account].append(line)
        balances: dict[tuple[str, str], int] = {}
        for account in self.history.accounts.values():
            if account.customer != self.customer:
                continue
            if account.kind not in CUSTOMER_KINDS or (account.kind, account.asset) in balances:
                self._find(
                    "account-not-replayed", str(account), "no customer has such an account, or two of them"
                )
                continue
            own = sorted(lines[account.id], key=lambda line: line.seq)
            wrong = replay_account(account, own)
            if wrong is not None:
                self._find("account-not-replayed", str(account), wrong)
            balances[account.kind, account.asset] = sum(line.amount for line in own)
        return balances

    def _transfers(self) -> None:
        for line in self.history.lines:
            account = self.history.accounts.get(line.account)
            if account is None or line.transfer not in self.history.transfers:
                self._find(
                    "transfer-out-of-balance",
                    str(line.transfer),
                    f"line {line.id} is of no account or no transfer",
                )
                continue
            self.legs[line.transfer].append(Leg(account, line.amount, line.type, line.id))
        for transfer in self.history.transfers:
            totals: Counter[str] = Counter()
            for leg in self.legs[transfer]:
                totals[leg.account.asset] += leg.amount
            wrong = {asset: total for asset, total in totals.items() if total}
            if wrong or not totals:
                self._find("transfer-out-of-balance", str(transfer), f"it sums to {wrong or 'nothing'}")

    def _in_order(self) -> list[Transfer]:
        return sorted(
            (each for each in self.history.transfers.values() if self.legs[each.id]),
            key=lambda each: min(leg.line for leg in self.legs[each.id]),
        )

    def _explain(self, reference: str, transfers: list[Transfer]) -> None:
        try:
            if (deposit := referred(reference, "deposit")) is not None:
                self._deposit(deposit, transfers)
            elif (withdrawal := referred(reference, "withdrawal")) is not None:
                self._withdrawal(withdrawal, transfers)
            elif (adjustment := referred(reference, "adjustment")) is not None:
                self._adjustment(adjustment, transfers)
            elif (place := traded(reference)) is not None:
                self._trade(place, transfers)
            else:
                self._moves(transfers)
        except _Unexplained as error:
            self._find(error.kind, reference or str(transfers[0].id), str(error))

    # ----------------------------------------------------------------------------------------------- deposits

    def _deposit(self, deposit: UUID, transfers: list[Transfer]) -> None:
        """Credits and claw-backs in turn, all of one receipt and one customer."""
        standing: tuple[str, str, int] | None = None  # asset, wallet, units
        same: tuple[str, str, int] | None = None
        owed = 0
        owners: set[str | None] = set()
        for transfer in transfers:
            legs = self.legs[transfer.id]
            chain = [leg for leg in legs if leg.account.kind == "chain_assets"]
            others = [leg for leg in legs if leg.account.kind != "chain_assets"]
            if transfer.kind != "immediate" or len(chain) != 1:
                raise _Unexplained(
                    "unexplained-transfer", f"{transfer.id} is no credit of a deposit and no claw-back"
                )
            what = chain[0].account.asset, chain[0].account.wallet, abs(chain[0].amount)
            if same not in (None, what):
                raise _Unexplained("deposit-repeated", f"credited as {same} and as {what}")
            same = what
            owners |= {leg.account.customer for leg in others if leg.account.kind != "suspense"}
            if chain[0].amount < 0:
                if standing is not None:
                    raise _Unexplained("deposit-repeated", f"{transfer.id} credits it again")
                owed -= _credited(transfer, chain[0], others, owed)
                standing = what
            else:
                if standing is None:
                    raise _Unexplained(
                        "unexplained-transfer", f"{transfer.id} takes back what was not credited"
                    )
                owed += _clawed_back(transfer, chain[0], others)
                standing = None
        if owners - {self.customer}:
            raise _Unexplained(
                "deposit-repeated", f"credited to {', '.join(map(str, sorted(map(str, owners))))}"
            )
        if same is not None and owed:
            self.shortfalls[same[0]] += owed
        if standing is not None:
            self.credits.append(Credit(deposit, standing[0], standing[2], standing[1]))

    # -------------------------------------------------------------------------------------------- withdrawals

    def _withdrawal(self, withdrawal: UUID, transfers: list[Transfer]) -> None:
        """A hold, and then releases, settlements and their undoing, as the states allow."""
        first, *later = transfers
        held = self._hold(withdrawal, first)
        payer = self.legs[first.id][0].account.customer or ""
        posted: Transfer | None = None
        for transfer in later:
            legs = self.legs[transfer.id]
            if transfer.kind == "reverse" and posted is not None and transfer.parent == posted.id:
                if Counter(leg.plain for leg in legs) != Counter(
                    (account, -amount, kind)
                    for account, amount, kind in (leg.plain for leg in self.legs[posted.id])
                ):
                    raise _Unexplained("hold-broken", f"{transfer.id} is not the mirror of {posted.id}")
                posted, held = None, replace(held, state="pending", paid=0, fee=0, payee=None, wallet="")
            elif held.state != "pending" or transfer.parent != first.id:
                raise _Unexplained(
                    "hold-broken", f"{transfer.id} ({transfer.kind}) of a hold that is {held.state}"
                )
            elif transfer.kind == "void":
                if _plain(legs) != {
                    ("frozen", payer, -held.units, "unfreeze"),
                    ("available", payer, held.units, "unfreeze"),
                }:
                    raise _Unexplained(
                        "hold-broken", f"{transfer.id} does not give back {held.units} to {payer}"
                    )
                held = replace(held, state="voided")
            elif transfer.kind == "post":
                posted, held = transfer, _posted(transfer, legs, held, payer)
            else:
                raise _Unexplained("hold-broken", f"{transfer.id} is of kind {transfer.kind}")
            if any(leg.account.asset != held.asset for leg in legs):
                raise _Unexplained("hold-broken", f"{transfer.id} is of another asset than its hold")
        if payer == self.customer:
            self.held[withdrawal] = held
        elif held.payee == self.customer:
            self.received.append(Received(withdrawal, payer, held.asset, held.paid))
            self.partners.add(payer)
        elif any(leg.account.customer == self.customer for each in later for leg in self.legs[each.id]) and (
            held.state == "posted"
        ):
            raise _Unexplained("hold-broken", f"it is {payer}'s, and pays {held.payee or 'the chain'}")

    def _hold(self, withdrawal: UUID, transfer: Transfer) -> Held:
        legs = self.legs[transfer.id]
        units = abs(legs[0].amount)
        payer, asset = legs[0].account.customer, legs[0].account.asset
        if transfer.kind != "hold" or payer is None or transfer.parent is not None:
            raise _Unexplained("unexplained-transfer", f"{transfer.id} ({transfer.kind}) is not of a hold")
        expected = {("available", payer, -units, "freeze"), ("frozen", payer, units, "freeze")}
        if _plain(legs) != expected or any(leg.account.asset != asset for leg in legs):
            raise _Unexplained("hold-broken", f"{transfer.id} does not freeze money of one customer")
        row = self.history.holds.get(transfer.id)
        if row is None or (row.customer, row.asset, row.units) != (payer, asset, units):
            raise _Unexplained(
                "hold-broken", f"the row of hold {transfer.id} says something else than its lines"
            )
        return Held(withdrawal, asset, units, "pending")

    def _holds(self) -> None:
        """The rows of holds say what the lines say."""
        states = {each.withdrawal: each.state for each in self.held.values()}
        for hold in self.history.holds.values():
            transfer = self.history.transfers.get(hold.id)
            if hold.customer != self.customer and (transfer is None or hold.id not in self.legs):
                continue
            withdrawal = None if transfer is None else referred(transfer.reference, "withdrawal")
            if hold.customer == self.customer and (
                withdrawal is None or states.get(withdrawal) != hold.state
            ):
                found = "nothing" if withdrawal is None else states.get(withdrawal, "nothing")
                self._find("hold-broken", str(hold.id), f"its row says {hold.state}, its lines {found}")

    # -------------------------------------------------------------------------------------------- adjustments

    def _adjustment(self, adjustment: UUID, transfers: list[Transfer]) -> None:
        """One transfer between the customer's available money and suspense, of the id that operators have signed."""
        first = transfers[0]
        legs = self.legs[first.id]
        own = [leg for leg in legs if leg.account.kind == "available"]
        if (
            len(transfers) != 1
            or (first.id, first.kind, first.parent) != (adjustment, "immediate", None)
            or sorted(leg.account.kind for leg in legs) != ["available", "suspense"]
            or any(leg.type != "adjustment" for leg in legs)
            or len({leg.account.asset for leg in legs}) != 1
            or own[0].account.customer != self.customer
        ):
            raise _Unexplained("unexplained-transfer", f"{first.id} is no adjustment of a balance")
        self.adjustments.append(Adjustment(adjustment, self.customer, own[0].account.asset, own[0].amount))

    # ------------------------------------------------------------------------------------------ other movements

    def _moves(self, transfers: list[Transfer]) -> None:
        done: dict[UUID, Counter[tuple[int, int, str]]] = {}
        for transfer in transfers:
            legs = self.legs[transfer.id]
            plain = Counter(leg.plain for leg in legs)
            if transfer.kind == "reverse" and transfer.parent in done:
                mirror = Counter(
                    {(account, -amount, kind): n for (account, amount, kind), n in plain.items()}
                )
                if mirror != done.pop(transfer.parent):
                    raise _Unexplained(
                        "unexplained-transfer", f"{transfer.id} is not the mirror of {transfer.parent}"
                    )
                continue
            if transfer.kind != "immediate" or not _is_own_move(legs):
                raise _unknown_form(transfer, legs)
            done[transfer.id] = plain

    def _trade(self, place: tuple[UUID, int, int], transfers: list[Transfer]) -> None:
        """One fill, settled once, and for good."""
        transfer = transfers[-1]
        legs = self.legs[transfer.id]
        if len(transfers) > 1 or transfer.kind != "immediate" or not _is_trade(legs):
            raise _unknown_form(transfer, legs)
        plain = tuple(
            Plain(leg.account.kind, leg.account.customer, leg.account.asset, leg.amount, leg.type)
            for leg in legs
        )
        self.trades.append(Trade(transfer.id, *place, plain))
        self.partners |= {each.customer for each in plain if each.customer not in (None, self.customer)}


def _unknown_form(transfer: Transfer, legs: Sequence[Leg]) -> _Unexplained:
    told = ", ".join(f"{leg.account} {leg.amount:+} {leg.type}" for leg in legs)
    return _Unexplained("unexplained-transfer", f"{transfer.id} ({transfer.kind}): {told}")


def _plain(legs: Sequence[Leg]) -> set[tuple[str, str | None, int, str]]:
    found = {(leg.account.kind, leg.account.customer, leg.amount, leg.type) for leg in legs}
    # Two equal legs are one in a set, and would hide one of them.
    return found if len(found) == len(legs) else set()


def _credited(transfer: Transfer, chain: Leg, others: Sequence[Leg], owed: int) -> int:
    """What of a credit repays what the house bore for this deposit before."""
    repaid = [leg for leg in others if leg.account.kind == "suspense"]
    owner = [leg for leg in others if leg.account.kind == "available"]
    wrong = (
        chain.type != "deposit"
        or len(repaid) > 1
        or len(owner) > 1
        or len(repaid) + len(owner) != len(others)
        or any(leg.type != "claw_back" or not 0 < leg.amount <= owed for leg in repaid)
        or any(leg.type != "deposit" or leg.amount <= 0 for leg in owner)
        or any(leg.account.asset != chain.account.asset for leg in others)
    )
    if wrong:
        raise _Unexplained("unexplained-transfer", f"{transfer.id} is no credit of a deposit")
    return sum(leg.amount for leg in repaid)


def _clawed_back(transfer: Transfer, chain: Leg, others: Sequence[Leg]) -> int:
    """What of a claw-back the house bears."""
    borne = [leg for leg in others if leg.account.kind == "suspense"]
    owner = [leg for leg in others if leg.account.kind == "available"]
    wrong = (
        chain.type != "claw_back"
        or len(borne) > 1
        or len(owner) > 1
        or len(borne) + len(owner) != len(others)
        or any(leg.type != "claw_back" or leg.amount >= 0 for leg in others)
        or any(leg.account.asset != chain.account.asset for leg in others)
    )
    if wrong:
        raise _Unexplained("unexplained-transfer", f"{transfer.id} is no claw-back of a deposit")
    return -sum(leg.amount for leg in borne)


def _posted(transfer: Transfer, legs: Sequence[Leg], held: Held, payer: str) -> Held:
    """A hold after its settlement: what went where."""
    fee = sum(leg.amount for leg in legs if leg.account.kind == "fees_earned")
    target = [
        leg
        for leg in legs
        if leg.account.kind == "chain_assets" or (leg.account.kind == "available" and leg.type == "deposit")
    ]
    paid = sum(leg.amount for leg in target)
    rest = held.units - paid - fee
    if len(target) != 1 or paid <= 0 or fee < 0 or rest < 0:
        raise _Unexplained("hold-broken", f"{transfer.id} pays {paid} and {fee} of a hold of {held.units}")
    expected = {
        (
            target[0].account.kind,
            target[0].account.customer,
            paid,
            "deposit" if target[0].account.customer else "withdrawal",
        ),
        ("frozen", payer, -paid, "withdrawal"),
    }
    if fee:
        expected |= {("frozen", payer, -fee, "fee"), ("fees_earned", None, fee, "fee")}
    if rest:
        expected |= {("frozen", payer, -rest, "unfreeze"), ("available", payer, rest, "unfreeze")}
    if _plain(legs) != expected:
        raise _Unexplained("hold-broken", f"{transfer.id} is no settlement of a hold of {held.units}")
    account = target[0].account
    return replace(held, state="posted", paid=paid, fee=fee, payee=account.customer, wallet=account.wallet)


def _is_own_move(legs: Sequence[Leg]) -> bool:
    """Between a customer's available and trading money, of one asset."""
    return (
        len(legs) == 2
        and {leg.account.kind for leg in legs} == {"available", "trading"}
        and len({(leg.account.customer, leg.account.asset) for leg in legs}) == 1
        and all(leg.type == "transfer" for leg in legs)
    )


def _is_trade(legs: Sequence[Leg]) -> bool:
    """Between trading accounts; the house takes fees and never gives. That it nets to zero is checked before.

    A rebate is a fee that a customer gets: what others are charged in the same trade pays for it, as fees net to zero
    and the house's part of them is not negative.
    """
    allowed = {
        ("trading", "trade_buy"): (1,),
        ("trading", "trade_sell"): (-1,),
        ("trading", "fee"): (-1, 1),
        ("fees_earned", "fee"): (1,),
    }
    fees: Counter[str] = Counter()
    for leg in legs:
        signs = allowed.get((leg.account.kind, leg.type), ())
        if not any(leg.amount * sign > 0 for sign in signs):
            return False
        if leg.type == "fee":
            fees[leg.account.asset] += leg.amount
    return not any(fees.values()) and any(leg.type != "fee" for leg in legs)
