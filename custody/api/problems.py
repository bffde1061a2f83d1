"""The one place where this API's errors become HTTP, beside the rules that all faces share (`custody.web.problems`).

Every error type that can reach a request has a rule here, its own or that of its nearest listed ancestor; a
test fails for a type whose nearest ancestor is only a root.
"""

from __future__ import annotations

from typing import Any, Final

from chains import errors as chain_errors
from custody import errors as custody_errors
from custody import lifecycle
from custody.api import errors as api_errors
from custody.approvals import errors as approvals
from custody.audit import errors as audit
from custody.customers import service as customers
from custody.deposits import attestation
from custody.storage import sealing
from custody.trades import errors as trades
from custody.travelrule import service as travelrule
from custody.web import problems
from custody.web.problems import REPEAT, Problem, Rule, Rules, Units, inside, of
from custody.whitelist import errors as whitelists
from policies.bundle import Bundle
from signers import ports as signer_ports


def _reasons(error: Any) -> dict[str, Any]:
    return {"reasons": [{"code": reason.code, "detail": reason.detail} for reason in error.reasons]}


def _funds(error: Any) -> dict[str, Any]:
    return {
        "available": Units(error.asset, error.available),
        "needed": Units(error.asset, error.needed),
    }


def _rejected(error: Any) -> dict[str, Any]:
    """The first ones: of a batch that the ledger refuses, all may be."""
    return {
        "rejected": [
            {"transfer": str(one.id), "code": str(one.code), "detail": one.detail}
            for one in error.rejected[:20]
        ]
    }


_NOT_OURS: Final = Rule(
    "address-not-trusted",
    500,
    "An address failed its check",
    "Pay to no address of this customer until an operator has looked.",
    public=inside("an address is not what our keys and the signer's word say."),
)

RULES: Final[Rules] = {
    **problems.RULES,
    # Who may not do what.
    api_errors.OperatorsOnly: Rule(
        "operators-only", 403, "This is for operators", "Use an operator's own key.", of("caller")
    ),
    api_errors.AddressNotAllowed: Rule(
        "address-not-allowed", 403, "Operators do not come from there",
        "Come from a network of the setting operator_networks. This is recorded.", of("operator", "address"),
    ),
    audit.NotDone: Rule("action-not-done", 403, "It was not done", "", of("operator", "action")),
    audit.NotAnOperator: Rule(
        "not-an-operator", 403, "This is no operator", "This is recorded.", of("operator", "action")
    ),
    audit.ActionRefused: Rule(
        "action-refused", 403, "The operator may not do this", "This is recorded.", of("operator", "action")
    ),
    audit.ActionAsked: Rule(
        "action-asked", 403, "Other operators must approve it", "", of("operator", "action", "number", "lacking")
    ),
    # What is wrong with the request.
    custody_errors.UnknownCustomer: Rule(
        "unknown-customer", 404, "There is no such customer", "Create it with POST /v1/customers.", of("id")
    ),
    api_errors.NotBumpable: Rule(
        "not-bumpable", 409, "There is nothing to bump", "", of("withdrawal", "state")
    ),
    api_errors.BumpPending: Rule("bump-pending", 409, "A bump is already asked for"),
    # Decisions about the state of things.
    travelrule.DifferentData: Rule(
        "travel-rule-attached", 409, "Other travel-rule data is attached",
        "What was attached stays; cancel the withdrawal and sign a new order to correct it.", of("withdrawal"),
    ),
    sealing.UnusableKeyRing: Rule(
        "sealing-keys", 500, "The sealing keys cannot be used", "", public=inside("an operator must look.")
    ),
    sealing.CannotOpen: Rule(
        "cannot-open", 500, "Sealed data cannot be opened", "", public=inside("an operator must look.")
    ),
    custody_errors.InsufficientFunds: Rule(
        "insufficient-funds", 409, "Not enough funds",
        "Wait for a deposit, or ask for less; the withdrawal fee is part of what is needed.", _funds,
        public=lambda error: f"not enough {error.asset} is available.",
    ),
    custody_errors.OrderMismatch: Rule(
        "order-mismatch", 400, "The order does not fit", "Sign a new order.",
        of("field", "expected", "found"),
    ),
    approvals.ApprovalRefused: Rule(
        "approval-refused", 409, "The approval does not count",
        "Read what waits again, with GET /v1/approvals, and sign anew if it is still to be paid.", _reasons,
    ),
    whitelists.DuplicateEntry: Rule("duplicate-entry", 409, "The entry's id is taken", "", of("id")),
    whitelists.AlreadyListed: Rule(
        "already-listed", 409, "The address is listed already", "Use that entry, or remove it first.", of("entry")
    ),
    whitelists.EntryMismatch: Rule(
        "entry-mismatch", 400, "The signed entry does not fit", "Sign it anew.", of("field", "expected", "found")
    ),
    whitelists.ProofRefused: Rule(
        "proof-refused", 409, "The signature proves nothing",
        "Sign the challenge's text word for word, with the key of this address.",
    ),
    whitelists.ChallengeUsed: Rule("challenge-used", 409, "The challenge was answered", "Ask for a new one."),
    whitelists.ChallengeExpired: Rule(
        "challenge-expired", 409, "The challenge has expired", "Ask for a new one.", of("expires_at", "now")
    ),
    custody_errors.ExpiredOrder: Rule(
        "order-expired", 409, "The order has expired", "Sign a new order with a new id.",
        of("expires_at", "now"),
    ),
    custody_errors.DuplicateOrder: Rule("duplicate-order", 409, "The order's id is taken", "", of("id")),
    custody_errors.Halted: Rule(
        "halted", 503, "Paying is halted", "An operator has to lift the halt.", of("scope", "reason")
    ),
    custody_errors.LedgerRejected: Rule("ledger-rejected", 409, "The ledger refused", "", _rejected),
    trades.SettlementOutOfOrder: Rule(
        "settlement-out-of-order", 409, "The batch does not follow the one before it",
        "Read GET /v1/trading/balances, and go on from there.", of("core", "expected", "first", "last"),
    ),
    trades.TransferExists: Rule("transfer-exists", 409, "The transfer's id is taken", "", of("id")),
    trades.CustomerFrozen: Rule(
        "customer-frozen", 409, "The customer is frozen", "An operator has to unfreeze him.",
        of("customer", "reason"),
    ),
    lifecycle.ImpossibleTransition: Rule(
        "wrong-state", 409, "That cannot happen in this state", "Read the resource again.",
        of("lifecycle", "state", "event"),
    ),
    customers.CustomerExists: Rule("customer-exists", 409, "The customer exists already", "", of("id")),
    # What must never happen: somebody has to look before anything goes on.
    attestation.AddressNotOurs: _NOT_OURS,
    attestation.AttestationMismatch: _NOT_OURS,
    chain_errors.DerivationDisagreement: _NOT_OURS,
    # What cannot be done now.
    custody_errors.DatabaseUnavailable: Rule(
        "database-unavailable", 503, "The database does not answer", REPEAT,
        public=inside("the database is away; whether the request took effect is not known."),
    ),
    custody_errors.Conflict: Rule(
        "conflict", 503, "Another request won a race", REPEAT, public=inside("nothing was changed.")
    ),
    chain_errors.NodeUnavailable: Rule(
        "node-unavailable", 503, "A chain node does not answer", REPEAT, public=inside("the node is away.")
    ),
    chain_errors.NodeRefused: Rule(
        "node-refused", 502, "A chain node refused", "", public=inside("the node refused a call of ours.")
    ),
    chain_errors.WrongNetwork: Rule(
        "wrong-network", 502, "A chain node follows another network", "",
        public=inside("an operator must look at the node."),
    ),
    chain_errors.Reorganised: Rule("reorganised", 503, "The chain was reorganised meanwhile", REPEAT),
    signer_ports.SignerUnavailable: Rule(
        "signer-unavailable", 503, "The signer does not answer", REPEAT,
        public=inside("the signer is away."),
    ),
    signer_ports.Refused: Rule("signer-refused", 409, "The signer refused"),
}  # fmt: skip
"""From error type to its form on the wire."""


def rule_for(error_type: type[BaseException]) -> tuple[type[BaseException], Rule]:
    """The nearest ancestor with a rule, and that rule; the last root for anything else."""
    return problems.rule_for(error_type, RULES)


def describe(error: Exception, bundle: Bundle | None = None) -> Problem:
    """The problem that an error is; `bundle` says how many decimals the amounts in it have."""
    return problems.describe(error, bundle, RULES)
