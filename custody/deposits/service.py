"""What happens to deposits when the chain is observed. The monitor calls this within its commits.

Everything here is safe to repeat: an output has one row, states guard each change, and the ledger knows each
credit by (deposit, number of the credit).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from chains.ports import Receipt
from chains.types import BlockRef
from custody.deposits import repository
from custody.deposits.attestation import Prover
from custody.deposits.decisions import Withheld, decide
from custody.deposits.lifecycle import DEPOSIT, DepositEvent, DepositState
from custody.deposits.model import COINBASE_MATURITY_BLOCKS, AddressRow, Deposit, DepositFacts
from custody.deposits.repository import Move, NewDeposit
from custody.ids import derived_id
from custody.ledger.bookings import claw_back, credit_deposit, deposit_reference
from custody.ledger.model import Command
from custody.ledger.service import post_all, shortfall
from custody.screening import cases
from custody.screening import verdicts as screenings
from custody.screening.cases import CaseKind
from custody.screening.judging import Judgement, judge
from custody.screening.model import Answer
from custody.screening.ports import Screening
from custody.storage.alerts import Severity, raise_alert, resolve_alert
from custody.storage.db import Tx
from custody.storage.events import emit
from policies.bundle import BitcoinNetwork, Bundle

E, S = DepositEvent, DepositState

MAX_CREDITS_AT_ONCE: Final = 5_000
"""More wait for the next commit, moments later."""

Verdicts = Mapping[str, Answer]
"""What screening said, by resource."""
_SCREENED_AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Found:
    """A receipt at an address of ours that is a deposit: not change of a transaction of ours."""

    receipt: Receipt
    address: AddressRow
    asset: str
    block: BlockRef | None
    """The block of the best chain that has it; None while it waits in the mempool."""

    def facts(self) -> DepositFacts:
        """For screening."""
        return DepositFacts(
            chain=self.address.chain,
            asset=self.asset,
            resource=self.receipt.resource,
            txid=self.receipt.txid.hex,
            units=self.receipt.units,
            address=self.address.address,
            customer=self.address.customer,
            source=self.receipt.source,
        )


def confirmations_needed(bundle: Bundle, found: Found) -> int:
    """Blocks that a deposit needs up to the anchor; new coins are no deposit before they can be spent."""
    blocks = bundle.asset(found.asset).confirmations_for(found.receipt.units)
    return max(blocks, COINBASE_MATURITY_BLOCKS) if found.receipt.coinbase else blocks


def screen(screening: Screening, facts: Iterable[DepositFacts]) -> dict[str, Answer]:
    """Ask about deposits, several at once, outside any transaction."""
    wanted = list(facts)
    if len(wanted) < 2:
        return {each.resource: screening.ask(each.subject()) for each in wanted}
    with ThreadPoolExecutor(min(len(wanted), _SCREENED_AT_ONCE)) as pool:
        answers = pool.map(lambda each: screening.ask(each.subject()), wanted)
        return {each.resource: answer for each, answer in zip(wanted, answers, strict=True)}


def due(tx: Tx, chain: str, anchor: int) -> list[DepositFacts]:
    """Deposits that have their confirmations when these count from height `anchor`, as screening wants them."""
    return _facts(tx, repository.due(tx, chain, anchor, MAX_CREDITS_AT_ONCE))


def held(tx: Tx, chain: str) -> list[DepositFacts]:
    """Deposits that screening or a doubtful address stopped, and that no open case holds: to be asked about again."""
    rows = repository.in_state(tx, chain, S.HELD)
    stopped = cases.stopped(tx, CaseKind.DEPOSIT, [row.id for row in rows]) if rows else frozenset()
    return _facts(tx, [row for row in rows if row.id not in stopped])


def _facts(tx: Tx, rows: Sequence[Deposit]) -> list[DepositFacts]:
    addresses = repository.addresses_by_id(tx, {row.address_id for row in rows})
    return [
        DepositFacts(
            chain=row.chain,
            asset=row.asset,
            resource=row.resource,
            txid=row.txid,
            units=row.units,
            address=addresses[row.address_id].address,
            customer=row.customer,
            source=row.source,
        )
        for row in rows
    ]


# ------------------------------------------------------------------------------------------ what was observed


def sighted(tx: Tx, bundle: Bundle, chain: str, found: Sequence[Found]) -> None:
    """Record deposits that wait in the mempool. Again changes nothing."""
    known = _stored(tx, bundle, chain, found)
    _move_all(tx, [_move(row, E.SIGHTED) for row in known.values() if row.state is S.ORPHANED])


def vanished(tx: Tx, chain: str, pending: frozenset[str]) -> int:
    """Orphan every deposit that was seen in the mempool, is in no block, and is not among `pending`.

    Args:
        tx: of the monitor.
        chain: whose mempool it is.
        pending: all txids of the mempool, read while the node's best block was the one we have committed.

    Returns:
        How many were orphaned.
    """
    gone = [row for row in repository.in_state(tx, chain, S.SEEN) if row.txid not in pending]
    _move_all(tx, [_move(row, E.VANISHED) for row in gone])
    return len(gone)


def mined(
    tx: Tx, bundle: Bundle, chain: str, found: Sequence[Found], *, undone_above: int | None, anchor: int
) -> None:
    """Record deposits of new blocks and undo those whose blocks are gone. Again changes nothing.

    A deposit whose block was undone and that is deep enough on the new branch only changes its block. All
    others go back: a credit is reversed (the shortfall is the house's), its customer frozen, an alert raised.

    Args:
        tx: of the monitor, in which the blocks are committed too.
        bundle: names the assets' confirmations.
        chain: whose blocks these are.
        found: deposits of the new blocks.
        undone_above: height of the fork if blocks were undone, else None.
        anchor: height from which confirmations count after this commit.
    """
    again = {each.receipt.resource: each for each in found}
    if undone_above is not None:
        for row in repository.in_blocks_above(tx, chain, undone_above):
            _undo(tx, bundle, row, again.get(row.resource), anchor)
    rows = _stored(tx, bundle, chain, found)
    moves = []
    for each in found:
        stored, block = rows.get(each.receipt.resource), each.block
        if stored is not None and block is not None and stored.block_hash != block.hash:
            moves.append(_move(stored, E.MINED, block=block))
    _move_all(tx, moves)


def _undo(tx: Tx, bundle: Bundle, row: Deposit, again: Found | None, anchor: int) -> None:
    block = None if again is None else again.block
    if block is not None and (row.state is S.CONFIRMING or anchor - block.height + 1 >= row.confirmations):
        _move_all(tx, [_move(row, E.MINED, block=block)])
        return
    if row.state in (S.CREDITED, S.SWEPT):
        _claw_back(tx, bundle, row)
    else:
        _move_all(tx, [_move(row, E.UNDONE)])


def _claw_back(tx: Tx, bundle: Bundle, row: Deposit) -> None:
    wallet = repository.addresses_by_id(tx, [row.address_id])[row.address_id].keyset
    post_all(
        tx,
        [
            claw_back(
                row.id,
                row.credits,
                customer=row.customer,
                asset=row.asset,
                wallet=wallet,
                units=row.units,
            )
        ],
    )
    # Of a stranger's deposit nothing is missing: suspense had it, suspense gives it back.
    missing = 0 if row.customer is None else shortfall(tx, deposit_reference(row.id), row.asset)
    detail = {"units": str(row.units), "shortfall": str(missing), "block": row.block_hash}
    _move_all(tx, [_move(row, E.UNDONE, detail=detail)])
    if row.customer is not None:
        repository.freeze_customer(
            tx, row.customer, f"deposit {row.id} was undone by the chain after its credit"
        )
    raise_alert(
        tx,
        Severity.CRITICAL,
        "deposit.clawed_back",
        str(row.id),
        f"{bundle.told(row.asset, row.units)} of {row.customer or 'nobody known'} left the best chain after"
        f" their credit ({row.resource}); the house is short of {bundle.told(row.asset, missing)}",
        {"deposit": str(row.id), "resource": row.resource, "customer": row.customer, **detail},
    )


def _stored(tx: Tx, bundle: Bundle, chain: str, found: Sequence[Found]) -> dict[str, Deposit]:
    """The rows of `found`, made (as SEEN) where missing. What has no value is no deposit."""
    wanted = {each.receipt.resource: each for each in found if each.receipt.units > 0}
    if not wanted:
        return {}
    rows = repository.by_resource(tx, chain, wanted)
    missing = [each for resource, each in wanted.items() if resource not in rows]
    if missing:
        repository.insert_deposits(
            tx,
            [
                NewDeposit(
                    id=deposit_id(chain, each.receipt.resource),
                    chain=chain,
                    resource=each.receipt.resource,
                    txid=each.receipt.txid.hex,
                    address_id=each.address.id,
                    customer=each.address.customer,
                    asset=each.asset,
                    units=each.receipt.units,
                    confirmations=confirmations_needed(bundle, each),
                    source=each.receipt.source,
                )
                for each in missing
            ],
        )
        made = repository.by_resource(tx, chain, [each.receipt.resource for each in missing])
        for row in made.values():
            emit(tx, "deposit.seen", str(row.id), _data(row, row.state, row.height))
        rows |= made
    return rows


def deposit_id(chain: str, resource: str) -> UUID:
    """A deposit's id follows from its identity, so that a rebuilt database has the same ids."""
    return derived_id("deposit", chain, resource)


# ------------------------------------------------------------------------------------------------- crediting


def settle_due(tx: Tx, prover: Prover, chain: str, anchor: int, verdicts: Verdicts) -> int:
    """Credit, hold or leave out every deposit that is deep enough and was screened. Again changes nothing.

    Args:
        tx: of the monitor; `anchor` is the cursor's as this transaction leaves it.
        prover: says whether an address is proven to be its customer's; the address is read anew here.
        chain: whose deposits.
        anchor: height from which confirmations count.
        verdicts: what screening said before this transaction; deposits it was not asked about wait.

    Returns:
        How many deposits changed their state.
    """
    rows = [
        row
        for row in (
            *repository.due(tx, chain, anchor, MAX_CREDITS_AT_ONCE),
            *(repository.in_state(tx, chain, S.HELD) if verdicts else ()),
        )
        if row.resource in verdicts
    ]
    if not rows:
        return 0
    addresses = repository.addresses_by_id(tx, {row.address_id for row in rows})
    ids = [row.id for row in rows]
    kept_out, standing = repository.ever_quarantined(tx, ids), cases.standing(tx, CaseKind.DEPOSIT, ids)
    in_danger = _in_danger(
        tx, prover.bundle, chain, anchor, [(row, addresses[row.address_id]) for row in rows]
    )
    screenings.note(tx, CaseKind.DEPOSIT, {row.id: verdicts[row.resource] for row in rows})
    moves: list[Move] = []
    commands: list[Command] = []
    for row in rows:
        address = addresses[row.address_id]
        judged: Judgement | Withheld = judge(standing[row.id], verdicts[row.resource])
        if row.id in kept_out:
            judged = Withheld("an operator quarantined it")
        if row.resource in in_danger:
            judged = Withheld(
                f"the keys of {address.keyset} are compromised: it counts once a rescue has moved it"
            )
        minimum = int(prover.bundle.asset(row.asset).minimum_deposit)
        decision = decide(row.state, row.units, minimum, _doubt(row, address, prover), judged)
        if decision is None:
            continue
        if decision.case is not None:
            cases.open_case(tx, CaseKind.DEPOSIT, row.id, chain, address.address, decision.case)
        if decision.event is None:
            continue
        move = _decided(tx, prover.bundle, row, decision.event, decision.reason)
        moves.append(move)
        if move.to is S.CREDITED:
            commands.append(_credit(tx, row, address.keyset, move.credits))
    if commands:
        post_all(tx, commands)
    _move_all(tx, moves)
    return len(moves)


def _in_danger(
    tx: Tx, bundle: Bundle, chain: str, anchor: int, rows: Sequence[tuple[Deposit, AddressRow]]
) -> set[str]:
    """Resources at compromised keys that no final transaction of ours has moved away.

    Whoever has the keys could pay to himself, be credited, and take his deposit back.
    """
    lost = {entry.id for entry in bundle.wallets if entry.state == "compromised"}
    found = {row.resource for row, address in rows if address.keyset in lost}
    final = anchor - bundle.network(chain).settle_blocks + 1
    return found - repository.moved_by_us(tx, chain, found, final) if found else found


def _doubt(row: Deposit, address: AddressRow, prover: Prover) -> str | None:
    """Why this deposit cannot be said to be this customer's."""
    if row.customer != address.customer:
        return f"the deposit says {row.customer}; its address {address.customer}"
    # One address serves all assets of its chain: what arrived is the receipt's to say, which must be a listed asset.
    if prover.bundle.asset(row.asset).chain != address.chain:
        return f"the deposit says {row.asset}, which is not on {address.chain}"
    return prover.unproven(address)


def _decided(tx: Tx, bundle: Bundle, row: Deposit, event: DepositEvent, reason: str) -> Move:
    credits_ = row.credits
    if event is E.QUARANTINE:
        resolve_alert(tx, "deposit.held", str(row.id))
    elif event in (E.CREDIT, E.RELEASE):
        credits_ += 1
        resolve_alert(tx, "deposit.held", str(row.id))
        if row.customer is None:
            raise_alert(
                tx,
                Severity.WARNING,
                "deposit.of_nobody",
                str(row.id),
                f"somebody paid {bundle.told(row.asset, row.units)} to an address of the house ({row.resource});"
                " they are in suspense",
                {"deposit": str(row.id), "resource": row.resource, "units": str(row.units)},
            )
    elif event is E.HOLD:
        raise_alert(
            tx,
            Severity.WARNING,
            "deposit.held",
            str(row.id),
            f"deposit {row.resource} of {row.customer or 'nobody known'} is held: {reason}"
            f"{_what_waits(bundle, row)}",
            {"deposit": str(row.id), "resource": row.resource, "reason": reason},
        )
    move = _move(row, event, detail={"reason": reason} if reason else {})
    return replace(move, credits=credits_)


def _what_waits(bundle: Bundle, row: Deposit) -> str:
    """What a held deposit keeps from being swept, and how that ends."""
    network = bundle.network(row.chain)
    if isinstance(network, BitcoinNetwork):
        return ""  # a coin of its own, that holds up no other
    what = "nothing" if row.asset == network.native_asset else f"no {row.asset}"
    return (
        f". Until it is released or quarantined, {what} is swept from its address. Quarantined, it moves to the"
        " treasury with the next sweep, and stays in nobody's balance"
    )


def _credit(tx: Tx, row: Deposit, wallet: str, number: int) -> Command:
    # What the house bore when this very deposit was clawed back is repaid before the customer gets more.
    owed = (
        shortfall(tx, deposit_reference(row.id), row.asset) if number > 1 and row.customer is not None else 0
    )
    return credit_deposit(
        row.id,
        number,
        customer=row.customer,
        asset=row.asset,
        wallet=wallet,
        units=row.units,
        shortfall_units=owed,
    )


def count(tx: Tx, chain: str) -> int:
    """How many deposits there are on a chain, in whatever state."""
    return repository.count(tx, chain)


# ----------------------------------------------------------------------------------------------------- moves


def _move(
    row: Deposit,
    event: DepositEvent,
    *,
    block: BlockRef | None = None,
    detail: Mapping[str, Any] | None = None,
) -> Move:
    """The event applied to the row: MINED brings its block, UNDONE takes it away, others leave it."""
    height, block_hash = row.height, row.block_hash
    if event is E.MINED and block is not None:
        height, block_hash = block.height, block.hash
    elif event is E.UNDONE:
        height, block_hash = None, None
    return Move(row, event, DEPOSIT.next(row.state, event), height, block_hash, row.credits, detail or {})


def _move_all(tx: Tx, moves: Sequence[Move]) -> None:
    if not moves:
        return
    repository.apply(tx, moves)
    for move in moves:
        row = move.deposit
        if move.to is not row.state:
            emit(tx, f"deposit.{move.to}", str(row.id), _data(row, move.to, move.height))


def _data(row: Deposit, state: DepositState, height: int | None) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "chain": row.chain,
        "resource": row.resource,
        "txid": row.txid,
        "customer": row.customer,
        "asset": row.asset,
        "units": str(row.units),
        "state": state.value,
        "height": height,
        "confirmations_needed": row.confirmations,
    }
