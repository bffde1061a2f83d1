"""Building: queued withdrawals become one recorded, unsigned transaction.

First everything is read and chosen, without a lock: what the database says, and what the node says. Then one
short transaction claims the withdrawals, checks that the coins are still there, and records the transaction
with its request and reservations. So `building` exists only inside that transaction: there is no claim that a
crash could leave behind, and no node is asked while rows are locked. Of two workers that choose the same, the
database lets one commit; the other finds its withdrawals gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from chains.btc.fees import FeeRate, clamp
from chains.btc.tx import Transaction
from chains.errors import NodeRefused, PermanentError, TransientError
from chains.types import TxId
from custody.errors import OrderMismatch
from custody.ids import new_id
from custody.signing import btc, change, repository
from custody.signing.btc import Payee, Plan
from custody.signing.model import SpendableCoin
from custody.signing.site import Site
from custody.storage import alerts, events, halts
from custody.storage.alerts import Severity
from custody.storage.db import Database, Tx
from custody.withdrawals import repository as withdrawals
from custody.withdrawals.lifecycle import WithdrawalEvent, WithdrawalState
from custody.withdrawals.model import Withdrawal
from custody.withdrawals.orders import check_row, destination_of
from policies.decision import Reason
from policies.intent import Kind

REFUSED_BEFORE = "signer-refused"
"""Reason code of withdrawals that the signer has refused: each is then tried alone, so it stops no other."""


class Raced(TransientError):
    """Another worker took a withdrawal or a coin meanwhile: nothing was recorded."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What the database said, at one moment."""

    payable: Sequence[Withdrawal]
    coins: Sequence[SpendableCoin]
    halted: str | None
    gathered: bool
    """One of the payable has waited long enough for others."""


def build(db: Database, site: Site, *, now: int) -> UUID | None:
    """Record one transaction that pays what can be paid; None if there is nothing to pay, or nothing can be.

    Withdrawals gather for a moment (`Pace.gather_seconds`): those that come together share a transaction.

    Args:
        db: the database, as the worker's role.
        site: the hot wallet to pay from.
        now: UNIX seconds.

    Raises:
        NodeUnavailable, DatabaseUnavailable, Conflict: try again; nothing was recorded.
    """
    with db.snapshot() as tx:
        found = _Found(
            withdrawals.payable(tx, site.chain, "hot", limit=site.pace.batch_payments),
            repository.spendable(tx, site.chain, site.keyset.id, site.asset.id, site.network.settle_blocks),
            halts.halted(tx, site.chain),
            withdrawals.gathered(tx, site.chain, "hot", seconds=site.pace.gather_seconds),
        )
    if not found.gathered and len(found.payable) < site.pace.batch_payments:
        return None
    alive = [withdrawal for withdrawal in found.payable if withdrawal.expires_at.timestamp() > now]
    if not alive or found.halted is not None:
        return None
    payees, broken = _payees(_batch(alive), site)
    if broken:
        _report_broken(db, site, broken)
    if not payees:
        return None
    feerate, too_high = present_feerate(site)
    if too_high is not None:
        _wait(db, site, [(UUID(payee.signed.order.id), too_high) for payee in payees])
        return None
    coins = {coin.resource: coin for coin in found.coins}
    try:
        plan, previous = _plan(payees, coins, feerate, site)
        _wait(db, site, [(UUID(payee.signed.order.id), reason) for payee, reason in plan.waiting])
        return None if plan.selection is None else _record(db, site, plan, coins, previous)
    except Raced:
        return None


def _plan(
    payees: Sequence[Payee], coins: dict[str, SpendableCoin], feerate: FeeRate, site: Site
) -> tuple[Plan, dict[str, bytes]]:
    """A plan whose request a signer can read, and its previous transactions.

    Anybody can pay us out of transactions as large as a block. The whole of each goes to the signer, so what would
    not fit is not asked for: it could never be answered, and would wait in front of everything else.
    """
    chosen = list(payees)
    waiting: list[tuple[Payee, Reason]] = []
    while True:
        plan = btc.plan(chosen, list(coins.values()), feerate, site)
        if plan.selection is None:
            return Plan((), None, (*plan.waiting, *waiting)), {}
        previous = fetch_previous(site, [coins[coin.resource] for coin in plan.selection.coins])
        size = btc.previous_bytes(plan.selection, coins, previous)
        if size <= btc.MAX_PREVIOUS_BYTES:
            return Plan(plan.payees, plan.selection, (*plan.waiting, *waiting)), previous
        reason = Reason(
            "too-heavy",
            f"its coins come from transactions of {size} bytes together,"
            f" at most {btc.MAX_PREVIOUS_BYTES} can be shown to a signer",
        )
        largest = sorted(plan.payees, key=lambda payee: payee.units)[-max(1, len(plan.payees) // 4) :]
        waiting += [(payee, reason) for payee in largest]
        chosen = [payee for payee in chosen if payee not in largest]


def present_feerate(site: Site) -> tuple[FeeRate, Reason | None]:
    """The feerate to pay now: the node's estimate, at least what its mempool takes, within the bundle's
    bounds.

    Returns:
        The feerate, and a reason to wait if what the mempool takes is above the cap.
    """
    lowest = max(site.feerate_floor, site.node.mempool_min_feerate())
    if lowest > site.feerate_cap:
        return site.feerate_cap, Reason(
            "fees-above-cap", f"the mempool takes {lowest} and more, the cap is {site.feerate_cap}"
        )
    estimate = site.node.fee_estimate(site.pace.confirm_target_blocks)
    return clamp(estimate or lowest, lowest, site.feerate_cap), None


def fetch_previous(site: Site, coins: Sequence[SpendableCoin]) -> dict[str, bytes]:
    """Whole previous transactions by txid, without witnesses: a signer believes amounts only from them.

    Their ids do not cover witnesses, and a stranger's may weigh megabytes.

    Raises:
        Raced: the node no longer has one in the block we know: a reorg is under way.
    """
    blocks = {coin.txid: coin.block_hash for coin in coins}
    try:
        return {
            txid: Transaction.parse(site.node.raw_transaction(TxId(txid), block)).serialize_without_witness()
            for txid, block in blocks.items()
        }
    except NodeRefused as error:
        raise Raced(f"previous transaction: {error}") from error


def payee_of(withdrawal: Withdrawal, site: Site) -> Payee:
    """What a stored withdrawal asks to be paid, if it still says what its caller signed.

    Raises:
        PermanentError: a column was changed, the signature or the destination is not right.
    """
    order = check_row(withdrawal)
    if order.asset != site.asset.id:
        raise OrderMismatch("asset", site.asset.id, order.asset)
    withdrawal.signed_order.verify(site.bundle.caller(order.caller).key)
    return Payee(withdrawal.signed_order, destination_of(site.bundle, order.chain, order.destination).script)


def _batch(payable: Sequence[Withdrawal]) -> Sequence[Withdrawal]:
    fresh = [w for w in payable if not w.reason.startswith(REFUSED_BEFORE)]
    return fresh or payable[:1]


def _payees(
    payable: Sequence[Withdrawal], site: Site
) -> tuple[list[Payee], list[tuple[Withdrawal, PermanentError]]]:
    payees, broken = [], []
    for withdrawal in payable:
        try:
            payees.append(payee_of(withdrawal, site))
        except PermanentError as error:
            broken.append((withdrawal, error))
    return payees, broken


def _report_broken(db: Database, site: Site, broken: Sequence[tuple[Withdrawal, PermanentError]]) -> None:
    with db.transaction() as tx:
        for withdrawal, error in broken:
            withdrawals.wait(
                tx, withdrawal.id, f"order-not-genuine: {error}", seconds=site.pace.refused_seconds
            )
            alerts.raise_alert(
                tx,
                Severity.CRITICAL,
                "withdrawal.tampered",
                str(withdrawal.id),
                f"the stored withdrawal is not what its caller signed: {error}",
                {},
            )


def _wait(db: Database, site: Site, waiting: Sequence[tuple[UUID, Reason]]) -> None:
    """Leave withdrawals in the queue with their reason; missing funds raise an alert until there are
    enough."""
    with db.transaction() as tx:
        for withdrawal_id, reason in waiting:
            withdrawals.wait(tx, withdrawal_id, str(reason), seconds=site.pace.wait_seconds)
        short = [str(reason) for _, reason in waiting if reason.code == "insufficient-hot-funds"]
        if short:
            alerts.raise_alert(
                tx,
                Severity.WARNING,
                "tier.insufficient_funds",
                site.keyset.id,
                f"{len(short)} withdrawals wait for funds in {site.keyset.id}; {short[0]}",
                {"withdrawals": [str(w) for w, reason in waiting if reason.code == "insufficient-hot-funds"]},
            )
        else:
            alerts.resolve_alert(tx, "tier.insufficient_funds", site.keyset.id)


def _record(
    db: Database,
    site: Site,
    plan: Plan,
    coins: dict[str, SpendableCoin],
    previous: dict[str, bytes],
) -> UUID:
    """The one transaction in which withdrawals are claimed and the transaction that pays them is recorded."""
    selection = plan.selection
    assert selection is not None
    resources = [coin.resource for coin in selection.coins]
    with db.transaction() as tx:
        claimed = _claim(tx, site, plan)
        if not repository.still_spendable(
            tx, site.chain, site.keyset.id, site.asset.id, site.network.settle_blocks, resources
        ):
            raise Raced("a coin was spent, reserved or undone meanwhile")
        change_index = None
        if selection.change_sats is not None:
            change_index = change.allocate(tx, site.keyset, site.asset.id, site.account)
        built = btc.assemble(
            site,
            plan.payees,
            btc.intents_for(plan.payees, site),
            selection,
            coins,
            previous,
            change_index,
        )
        transaction_id = new_id()
        repository.insert(tx, transaction_id, site.chain, site.keyset.id, Kind.PAYMENT, change_index)
        repository.insert_version(
            tx,
            transaction_id,
            1,
            request=built.request,
            unsigned=built.unsigned,
            fee_units=built.fee_units,
            feerate=built.feerate,
            size=built.size,
        )
        if not repository.reserve(tx, site.chain, built.resources, transaction_id):
            raise Raced("a coin was reserved meanwhile")
        for withdrawal in claimed:
            building = withdrawals.apply(tx, withdrawal, WithdrawalEvent.CLAIM)
            withdrawals.attach(tx, withdrawal.id, transaction_id)
            withdrawals.apply(
                tx, building, WithdrawalEvent.RECORD, detail={"transaction": str(transaction_id)}
            )
        events.emit(
            tx,
            "transaction.built",
            str(transaction_id),
            {"chain": site.chain, "payments": len(claimed), "fee": str(built.fee_units)},
        )
    return transaction_id


def _claim(tx: Tx, site: Site, plan: Plan) -> list[Withdrawal]:
    if halts.halted(tx, site.chain) is not None:
        raise Raced("paying was halted meanwhile")
    claimed = []
    for withdrawal_id in sorted(UUID(payee.signed.order.id) for payee in plan.payees):
        withdrawal = withdrawals.claim(tx, withdrawal_id, [WithdrawalState.QUEUED])
        if withdrawal is None:
            raise Raced(f"withdrawal {withdrawal_id} was taken or cancelled meanwhile")
        claimed.append(withdrawal)
    return claimed
