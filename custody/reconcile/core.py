"""The comparison itself: facts of the database and of the node in, a report out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from custody.deposits.model import MOST_UNITS
from custody.reconcile.model import (
    RULES,
    Booking,
    Check,
    Coin,
    Facts,
    NodeBalance,
    NodeCoins,
    Records,
    Report,
    StaleVariance,
    Statement,
    VarianceKind,
    Waiting,
    WalletFacts,
    WalletKey,
)

_SHOWN = 20

Node = NodeCoins | NodeBalance


@dataclass(frozen=True, slots=True)
class Unexplained:
    """What a node has beyond our records of an EVM wallet, judged."""

    differences: tuple[str, ...] = ()
    """What must not be: money is missing."""
    pending_units: int = 0
    """What may be, and waits for being final."""
    kind: VarianceKind | None = None
    """How to book what is final."""
    units: int = 0


@dataclass(frozen=True, slots=True)
class Flushed:
    """What flushes have moved into a wallet from forwarders of others (negative: out of its own ones), and no block
    that we have read explains."""

    now_units: int = 0
    """At the tip."""
    final_units: int = 0
    """At the anchor."""


def compare(facts: Facts, nodes: Mapping[WalletKey, Node]) -> Report:
    """Hold everything against everything.

    Args:
        facts: of one snapshot.
        nodes: what the node of each wallet's chain has, at the block of that chain's cursor.

    Raises:
        ValueError: a node's answer is for another block than the cursor: they cannot be compared.
    """
    statements: list[Statement] = []
    bookings: list[Booking] = []
    stale: list[StaleVariance] = []
    waiting = list(facts.waiting)
    short: dict[str, tuple[str, ...]] = {}
    found: dict[int, list[str]] = {number: [] for number in RULES}
    for offence in facts.offences:
        found[offence.rule].append(offence.detail)
    moved = flushed(facts, nodes)
    for wallet in facts.wallets:
        node = nodes[wallet.key]
        if node.tip != facts.cursors[wallet.key.chain]:
            raise ValueError(f"{wallet.key}: the node is at {node.tip}, the snapshot elsewhere")
        judged = Unexplained()
        if isinstance(node, NodeCoins):
            found[3] += _coins(wallet, node)
        else:
            assert wallet.records is not None, "balances are compared with records"
            judged = unexplained(wallet.key, wallet.records, node, moved.get(wallet.key, Flushed()))
            found[3] += judged.differences
            if judged.differences and _by_its_token_alone(wallet.records):
                short[wallet.key.asset] = (*short.get(wallet.key.asset, ()), *judged.differences)
            found[7] += _foreign(wallet.key, wallet.records)
            bookings += _booking(wallet.key, wallet.records, judged)
            waiting += _unbookable(wallet.key, judged)
            stale += wallet.records.stale
        statement = state(wallet, node, judged.pending_units)
        statements.append(statement)
        if statement.difference_units:
            found[4].append(_identity(statement))
    checks = tuple(Check(number, title, bounded(found[number])) for number, title in RULES.items())
    tips = {wallet.key.chain: facts.cursors[wallet.key.chain] for wallet in facts.wallets}
    # What one wallet lost to another is booked before what that one gained: half of it explains the other half.
    bookings.sort(key=lambda booking: (booking.kind is not VarianceKind.FLUSHED, booking.units))
    return Report(tips, tuple(statements), checks, tuple(waiting), tuple(bookings), tuple(stale), short=short)


def state(wallet: WalletFacts, node: Node, pending_units: int = 0) -> Statement:
    """The identity of one wallet, term by term."""
    if isinstance(node, NodeCoins):
        coins, there, gone = sum(coin.units for coin in wallet.coins), sum(c.units for c in node.coins), 0
    else:
        assert wallet.records is not None, "balances are compared with records"
        coins, there = wallet.records.units, node.units
        gone = sum(each.units for each in wallet.records.stale)
    return Statement(
        key=wallet.key,
        ledger_units=wallet.ledger_units,
        uncredited=dict(wallet.uncredited),
        mined_not_settled_units=sum(each.mined_units for each in wallet.in_flight),
        settled_not_mined_units=sum(each.booked_units for each in wallet.in_flight),
        lost_not_booked_units=sum(each.spent_units for each in wallet.lost),
        booked_not_lost_units=sum(each.booked_units for each in wallet.lost) - gone,
        coins_units=coins,
        node_units=there,
        pending_units=pending_units,
    )


def flushed(facts: Facts, nodes: Mapping[WalletKey, Node]) -> Mapping[WalletKey, Flushed]:
    """What left forwarders of one wallet for the key of another: what the first lacks, as far as the second has it.

    Anybody may flush, whenever he likes, so no transaction of ours tells. What does not arrive is missing all the same.
    """
    found: dict[WalletKey, Flushed] = {}
    there = {
        wallet.key: _beyond(wallet.records, nodes[wallet.key]) for wallet in facts.wallets if wallet.records
    }
    for source in there:
        target = replace(source, wallet=facts.flushes.get(source.wallet, source.wallet))
        if target == source or target not in there:
            continue
        now, final = (
            min(max(-lacks, 0), max(has, 0)) for lacks, has in zip(there[source], there[target], strict=True)
        )
        there[target] = (there[target][0] - now, there[target][1] - final)
        for key, sign in ((source, -1), (target, 1)):
            before = found.get(key, Flushed())
            found[key] = Flushed(before.now_units + sign * now, before.final_units + sign * final)
    return found


def _beyond(records: Records, node: Node) -> tuple[int, int]:
    """What a node has beyond our records, at its tip and at the anchor."""
    assert isinstance(node, NodeBalance), "records are of wallets with balances"
    final = 0 if node.final_units is None else node.final_units - records.final_units
    return node.units - records.units, final


def unexplained(
    key: WalletKey, records: Records, node: NodeBalance, moved: Flushed | None = None
) -> Unexplained:
    """Judge what the node has beyond (+) or below (-) our records of an EVM wallet.

    Anybody can send money in ways that leave no trace in what we read, so more than we know never stops paying: once it
    is final it is booked to suspense. Less than we know is missing, and stops it, unless a token is known to keep fees,
    or a key that is known to be compromised was used by somebody else: that is booked likewise. What was flushed into
    another wallet, or from there, is no difference, and is booked first.
    """
    moved = moved or Flushed()
    beyond, beyond_final = _beyond(records, node)
    now, final = beyond - moved.now_units, beyond_final - moved.final_units
    stolen = records.compromised and any(use.height > records.explained_to for use in records.foreign)
    differences: tuple[str, ...] = ()
    if now < 0 and not records.keeps_fees and not stolen:
        differences = (_short(key, "at its tip", node.units, records.units),)
    pending = (now if records.keeps_fees or stolen else max(now, 0)) + moved.now_units
    if moved.final_units and records.anchor is not None:
        # What is missing beside it is judged again once this is booked; at the tip it is told of at once.
        return Unexplained(differences, pending, VarianceKind.FLUSHED, moved.final_units)
    if final == 0 or records.anchor is None:
        return Unexplained(differences, pending)
    if final > 0:
        return Unexplained(differences, pending, VarianceKind.SURPLUS, final)
    if records.keeps_fees:
        return Unexplained(differences, pending, VarianceKind.TOKEN_FEE, final)
    if not stolen:
        differences = (
            _short(key, f"at {records.anchor}", node.final_units or 0, records.final_units),
            *differences,
        )
    if any(records.explained_to < use.height <= records.anchor.height for use in records.foreign):
        return Unexplained(differences, pending, VarianceKind.LOSS, final)
    return Unexplained(differences, pending)


def _by_its_token_alone(records: Records) -> bool:
    """Whether only the token's contract can have taken what is missing: nobody else has used our key."""
    return records.is_token and not any(use.height > records.explained_to for use in records.foreign)


def _short(key: WalletKey, when: str, has: int, expected: int) -> str:
    return (
        f"{key.wallet}: the node has {key.told(has)} {when}, our records say {key.told(expected)}:"
        f" {key.told_beyond(has - expected)}"
    )


def _booking(key: WalletKey, records: Records, judged: Unexplained) -> list[Booking]:
    if judged.kind is None or records.anchor is None or abs(judged.units) > MOST_UNITS:
        return []
    return [Booking(key, judged.kind, judged.units, records.anchor, records.variances + 1)]


def _unbookable(key: WalletKey, judged: Unexplained) -> list[Waiting]:
    """A token that says it is more than there can be: no ledger holds that, and it is none of the books' business."""
    if abs(judged.units) <= MOST_UNITS:
        return []
    where = f"{key.wallet}:{key.asset}"
    detail = (
        f"{where}: {key.told_beyond(judged.units)} are unexplained, and more than there can be of any asset"
    )
    return [Waiting("variance.absurd", where, detail)]


def _foreign(key: WalletKey, records: Records) -> list[str]:
    """Foreign uses that are not final: what they took is not known yet. Of compromised keys they are no surprise."""
    if records.compromised:
        return []
    final = -1 if records.anchor is None else records.anchor.height
    return [
        f"{key.wallet}: {use.resource} was used in block {use.height} by {use.txid}, which is not ours"
        for use in records.foreign
        if use.height > final
    ]


def _coins(wallet: WalletFacts, node: NodeCoins) -> list[str]:
    key, where = wallet.key, wallet.key.wallet
    ours, theirs = set(wallet.coins), set(node.coins)
    return [
        *(f"{where}: {_coin(key, coin)} is not in the node's UTXO set" for coin in _sorted(ours - theirs)),
        *(f"{where}: the node has {_coin(key, coin)}, we do not" for coin in _sorted(theirs - ours)),
    ]


def _sorted(coins: set[Coin]) -> list[Coin]:
    return sorted(coins, key=lambda coin: coin.resource)


def _coin(key: WalletKey, coin: Coin) -> str:
    return f"{coin.resource} of {key.told(coin.units)}"


def _identity(statement: Statement) -> str:
    key, told = statement.key, statement.key.told
    return (
        f"{key.wallet}: {key.told_beyond(statement.difference_units)}: coins are {told(statement.coins_units)},"
        f" expected {told(statement.expected_units)} = {told(statement.ledger_units)} in the ledger"
        f" + {told(sum(statement.uncredited.values()))} not credited"
        f" - {told(statement.mined_not_settled_units)} not settled"
        f" + {told(statement.settled_not_mined_units)} no longer mined"
        f" - {told(statement.lost_not_booked_units)} lost, not booked"
        f" + {told(statement.booked_not_lost_units)} no longer lost"
    )


def bounded(differences: list[str]) -> tuple[str, ...]:
    """The first ones, each once; a broken database has thousands, and an alert is for people."""
    differences = list(dict.fromkeys(differences))
    more = len(differences) - _SHOWN
    return tuple(differences[:_SHOWN]) + ((f"and {more} more",) if more > 0 else ())
