"""What operators do by hand: the one table of actions, and what an operator signs for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

import msgspec

from policies.bundle.people import Operator, OperatorRole
from policies.canonical import Document, Hex32, Name, Seconds, decoder_for
from policies.intent import Signature

SUPPORT: Final[OperatorRole] = "support"
TREASURY: Final[OperatorRole] = "treasury"
COMPLIANCE: Final[OperatorRole] = "compliance"
SECURITY: Final[OperatorRole] = "security"
AUDITOR: Final[OperatorRole] = "auditor"
APPROVE: Final = "approve"


class Effect(StrEnum):
    """What an action does to what the service would do anyway."""

    STOPS = "stops"
    """It only stops things: no rule of the policy can refuse it."""
    CHANGES = "changes"
    READS = "reads"


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of thing that operators do."""

    name: str
    """As rules say it: `when: {operation: administration, action: lift}`."""
    roles: tuple[OperatorRole, ...]
    """Who has one of them may do it."""
    effect: Effect
    about: str
    others: int = 0
    """So many others approve it, whatever the policy asks for beside them."""

    def open_to(self, operator: Operator) -> bool:
        """Whether one of the operator's roles may do it."""
        return not set(self.roles).isdisjoint(operator.roles)


ACTIONS: Final = {
    action.name: action
    for action in (
        Action("halt", (TREASURY, SECURITY), Effect.STOPS, "stop paying in a scope"),
        Action("lift", (TREASURY,), Effect.CHANGES, "let paying in a scope go on"),
        Action(
            "freeze-customer", (SUPPORT, COMPLIANCE, SECURITY), Effect.STOPS, "stop a customer's withdrawals"
        ),
        Action("unfreeze-customer", (COMPLIANCE,), Effect.CHANGES, "let a customer withdraw again"),
        Action("sweep", (TREASURY,), Effect.CHANGES, "plan sweeps now"),
        Action("propose-refill", (TREASURY,), Effect.CHANGES, "propose that money moves between tiers"),
        Action("decline-refill", (TREASURY,), Effect.CHANGES, "call off what should move between tiers"),
        Action("adjust", (TREASURY,), Effect.CHANGES, "correct what a customer has", others=2),
        Action("bump", (TREASURY,), Effect.CHANGES, "ask for a replacement with a higher fee"),
        Action(
            "cold-export", (TREASURY,), Effect.CHANGES, "hand a signing request to holders of a vault's keys"
        ),
        Action("cold-import", (TREASURY,), Effect.CHANGES, "bring holders' signatures"),
        Action("cold-unsigned", (TREASURY,), Effect.CHANGES, "say that a holder has not signed a request"),
        Action(
            "cold-prove", (TREASURY,), Effect.CHANGES, "record that a cold vault was tried out, in and out"
        ),
        Action("cold-abandon", (TREASURY,), Effect.CHANGES, "ask nobody any more to sign a request"),
        Action("cold-rebuild", (TREASURY,), Effect.CHANGES, "ask anew for what was not signed in time"),
        Action("cold-cancel", (TREASURY,), Effect.CHANGES, "make what may have been signed unusable"),
        Action(
            "propose-treasury",
            (TREASURY, SECURITY),
            Effect.CHANGES,
            "ask holders to propose the active hot key as whom forwarders pay",
        ),
        Action(
            "accept-treasury",
            (TREASURY, SECURITY),
            Effect.CHANGES,
            "ask holders to accept what they proposed",
        ),
        Action(
            "cancel-treasury", (TREASURY, SECURITY), Effect.CHANGES, "ask holders to take a proposal back"
        ),
        Action("close-alert", (SUPPORT, TREASURY, COMPLIANCE, SECURITY), Effect.CHANGES, "close an alert"),
        Action("release-case", (COMPLIANCE,), Effect.CHANGES, "find nothing wrong in what screening found"),
        Action("refuse-case", (COMPLIANCE,), Effect.CHANGES, "quarantine a deposit, reject a withdrawal"),
        Action("accept-entry", (TREASURY,), Effect.CHANGES, "list a destination of the house"),
        Action("read-travel-rule", (COMPLIANCE,), Effect.READS, "read who pays and who is paid"),
        Action("reseal", (SECURITY,), Effect.CHANGES, "seal personal data under the newest key"),
        Action(
            APPROVE,
            (SUPPORT, TREASURY, COMPLIANCE, SECURITY),
            Effect.CHANGES,
            "second what another asked for",
        ),
    )
}
"""Everything that operators do, by name. What is not in it cannot be done by hand."""

OPERATOR: Final = "operator"
CASES_READ: Final = "cases:read"
ACTIONS_READ: Final = "actions:read"
OPERATORS_ONLY: Final = frozenset({OPERATOR, CASES_READ, ACTIONS_READ})
"""Scopes of the API that no caller has, whatever the bundle says."""
_READS: Final = (
    OPERATOR,
    "customers:read",
    "deposits:read",
    "withdrawals:read",
    "approvals:read",
    "whitelist:read",
    "ledger:read",
    "events:read",
    "whitelist:read",
)
_HANDED_IN: Final = ("approvals:give", "statements:give")
"""What others have signed counts whoever hands it in."""
_MORE: Final[dict[OperatorRole, tuple[str, ...]]] = {
    SUPPORT: (CASES_READ, *_HANDED_IN),
    TREASURY: _HANDED_IN,
    COMPLIANCE: (CASES_READ, *_HANDED_IN),
    SECURITY: (CASES_READ, ACTIONS_READ, *_HANDED_IN),
    AUDITOR: (CASES_READ, ACTIONS_READ),
}


def scopes_of(operator: Operator) -> tuple[str, ...]:
    """What an operator may do through the API beside actions: read, and hand in what others have signed."""
    return (*_READS, *dict.fromkeys(scope for role in operator.roles for scope in _MORE[role]))


Text = Annotated[str, msgspec.Meta(max_length=500)]


class Act(Document, frozen=True):
    """One action of one operator, signed before it is done. Whoever does it keeps it verbatim."""

    domain: ClassVar[str] = "operator-act"

    v: Literal[1]
    operator: Name
    action: Name
    parameters: dict[Name, Text]
    """What and why, without secrets and personal data."""
    seen: Hex32
    """Hash of the newest record of actions that the operator's program saw: nobody writes anew what is before it."""
    issued_at: Seconds
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class SignedAct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An act and its operator's signature."""

    act: Act
    signature: Signature


decoder_for(Act)
