"""The ledger told a second time, as simply as possible: what property tests compare the real one with.

Every command is worked out as a dict of changes and applied to a plain dict of balances. Nothing is shared
with `custody.ledger.posting` but the values.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from uuid import UUID

from custody.ledger.model import (
    AccountKey,
    AccountKind,
    Command,
    Hold,
    PostHold,
    Reverse,
    Transfer,
    VoidHold,
    available,
    frozen,
)

_MAY_BE_NEGATIVE = {
    AccountKind.CHAIN_ASSETS,
    AccountKind.IN_TRANSIT,
    AccountKind.NETWORK_FEES,
    AccountKind.SUSPENSE,
}
Steps = list[tuple[AccountKey, int]]


@dataclass
class LedgerModel:
    """Balances, what was done under each id, and which holds are pending."""

    balances: dict[AccountKey, int] = field(default_factory=lambda: defaultdict(int))
    done: dict[UUID, tuple[Command, Steps]] = field(default_factory=dict)
    pending: set[UUID] = field(default_factory=set)
    reversed: set[UUID] = field(default_factory=set)

    def apply(self, command: Command) -> str:
        """Carry out a command; returns `created`, `exists`, or the code of the rejection."""
        if command.id in self.done:
            return "exists" if self.done[command.id][0] == command else "exists_with_different_content"
        steps = self._steps(command)
        if isinstance(steps, str):
            return steps
        balances = dict(self.balances)
        for account, amount in steps:
            balances[account] = balances.get(account, 0) + amount
            if balances[account] < 0 and account.kind not in _MAY_BE_NEGATIVE:
                return "insufficient_funds"
        self.balances = defaultdict(int, balances)
        self.done[command.id] = (command, steps)
        self._holds(command)
        return "created"

    def _holds(self, command: Command) -> None:
        if isinstance(command, Hold):
            self.pending.add(command.id)
        elif isinstance(command, PostHold | VoidHold):
            self.pending.remove(command.hold_id)
        elif isinstance(command, Reverse):
            self.reversed.add(command.transfer_id)
            undone = self.done[command.transfer_id][0]
            if isinstance(undone, PostHold):
                self.pending.add(undone.hold_id)

    def _steps(self, command: Command) -> Steps | str:
        if isinstance(command, Hold):
            units, of = command.units, (command.customer, command.asset)
            return [(available(*of), -units), (frozen(*of), units)]
        if isinstance(command, Reverse):
            return self._mirror(command)
        if isinstance(command, PostHold | VoidHold):
            hold = self.done.get(command.hold_id)
            if hold is None or not isinstance(hold[0], Hold):
                return "unknown_hold"
            if command.hold_id not in self.pending:
                return "hold_not_pending"
            return self._release(command, hold[0])
        return self._legs(command)

    def _mirror(self, command: Reverse) -> Steps | str:
        if command.transfer_id not in self.done:
            return "unknown_transfer"
        undone, steps = self.done[command.transfer_id]
        if not isinstance(undone, Transfer | PostHold):
            return "not_reversible"
        if command.transfer_id in self.reversed:
            return "already_reversed"
        return [(account, -amount) for account, amount in reversed(steps)]

    def _release(self, command: PostHold | VoidHold, hold: Hold) -> Steps | str:
        of = (hold.customer, hold.asset)
        paid, steps = 0, Steps()
        if isinstance(command, PostHold):
            if command.frozen_account != frozen(*of):
                return "not_of_hold"
            paid = sum(-leg.amount for leg in command.legs if leg.account == frozen(*of))
            if paid > hold.units:
                return "exceeds_hold"
            legs = self._legs(command)
            if isinstance(legs, str):
                return legs
            steps = legs
        rest = hold.units - paid
        return steps + ([(frozen(*of), -rest), (available(*of), rest)] if rest else [])

    def _legs(self, command: Transfer | PostHold) -> Steps | str:
        totals: dict[str, int] = defaultdict(int)
        balances, steps = dict(self.balances), Steps()
        for leg in command.legs:
            totals[leg.account.asset] += leg.amount
            taken = leg.amount
            if leg.overflow is not None:
                taken = -min(-leg.amount, max(0, balances.get(leg.account, 0)))
                if taken != leg.amount:
                    steps.append((leg.overflow, leg.amount - taken))
                    balances[leg.overflow] = balances.get(leg.overflow, 0) + leg.amount - taken
            if taken:
                steps.append((leg.account, taken))
                balances[leg.account] = balances.get(leg.account, 0) + taken
        return "out_of_balance" if any(totals.values()) else steps
