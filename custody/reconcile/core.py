"""The comparison itself: facts of the database and of the node in, a report out. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from custody.reconcile.model import (
    RULES,
    Check,
    Coin,
    Facts,
    InFlight,
    NodeCoins,
    Report,
    Statement,
    WalletFacts,
    WalletKey,
)

_SHOWN = 20


def compare(facts: Facts, nodes: Mapping[WalletKey, NodeCoins]) -> Report:
    """Hold everything against everything.

    Args:
        facts: of one snapshot.
        nodes: what the node of each wallet's chain has, at the block of that chain's cursor.

    Raises:
        ValueError: a node's answer is for another block than the cursor: they cannot be compared.
    """
    statements: list[Statement] = []
    found: dict[int, list[str]] = {number: [] for number in RULES}
    for offence in facts.offences:
        found[offence.rule].append(offence.detail)
    for wallet in facts.wallets:
        node = nodes[wallet.key]
        if node.tip != facts.cursors[wallet.key.chain]:
            raise ValueError(f"{wallet.key}: the node is at {node.tip}, the snapshot elsewhere")
        statement = state(wallet, node)
        statements.append(statement)
        found[3] += _coins(wallet, node)
        if statement.difference_units:
            found[4].append(_identity(statement))
    checks = tuple(Check(number, title, _bounded(found[number])) for number, title in RULES.items())
    tips = {wallet.key.chain: facts.cursors[wallet.key.chain] for wallet in facts.wallets}
    return Report(tips, tuple(statements), checks, facts.waiting)


def state(wallet: WalletFacts, node: NodeCoins) -> Statement:
    """The identity of one wallet, term by term."""
    return Statement(
        key=wallet.key,
        ledger_units=wallet.ledger_units,
        uncredited=dict(wallet.uncredited),
        mined_not_settled_units=sum(_mined(each) for each in wallet.in_flight),
        settled_not_mined_units=sum(_settled(each) for each in wallet.in_flight),
        lost_not_booked_units=sum(each.spent_units for each in wallet.lost),
        booked_not_lost_units=sum(each.booked_units for each in wallet.lost),
        coins_units=sum(coin.units for coin in wallet.coins),
        node_units=sum(coin.units for coin in node.coins),
    )


def _mined(each: InFlight) -> int:
    """What its mined version took out of the coins."""
    return 0 if each.mined_txid is None else each.paid_units + each.mined_fee_units


def _settled(each: InFlight) -> int:
    """What its settlement took out of the ledger."""
    return 0 if each.booked_txid is None else each.paid_units + each.booked_fee_units


def _coins(wallet: WalletFacts, node: NodeCoins) -> list[str]:
    where = f"{wallet.key.wallet} {wallet.key.asset}"
    ours, theirs = set(wallet.coins), set(node.coins)
    return [
        *(f"{where}: {_coin(coin)} is not in the node's UTXO set" for coin in _sorted(ours - theirs)),
        *(f"{where}: the node has {_coin(coin)}, we do not" for coin in _sorted(theirs - ours)),
    ]


def _sorted(coins: set[Coin]) -> list[Coin]:
    return sorted(coins, key=lambda coin: coin.resource)


def _coin(coin: Coin) -> str:
    return f"{coin.resource} of {coin.units}"


def _identity(statement: Statement) -> str:
    key = statement.key
    return (
        f"{key.wallet} {key.asset}: {statement.difference_units:+d} base units: coins are {statement.coins_units},"
        f" expected {statement.expected_units} = {statement.ledger_units} in the ledger"
        f" + {sum(statement.uncredited.values())} not credited - {statement.mined_not_settled_units} not settled"
        f" + {statement.settled_not_mined_units} no longer mined - {statement.lost_not_booked_units} lost, not booked"
        f" + {statement.booked_not_lost_units} no longer lost"
    )


def _bounded(differences: list[str]) -> tuple[str, ...]:
    """The first ones; a broken database has thousands, and an alert is for people."""
    more = len(differences) - _SHOWN
    return tuple(differences[:_SHOWN]) + ((f"and {more} more",) if more > 0 else ())
