"""The identity, term by term: it holds through every order of mining, settling and reorgs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.types import BlockRef
from custody.reconcile.core import compare
from custody.reconcile.model import Coin, Facts, InFlight, Lost, NodeCoins, Offence, WalletFacts, WalletKey

KEY = WalletKey("bitcoin", "hot", "BTC", 8)
TIP = BlockRef(5, "ab" * 32)


def wallet(ledger: int, coins: list[int], **terms: object) -> WalletFacts:
    found = WalletFacts(
        KEY, ledger, {}, (), (), tuple(Coin(f"{at}", units) for at, units in enumerate(coins))
    )
    return replace(found, **terms)  # type: ignore[arg-type]


def facts(found: WalletFacts, *offences: Offence) -> Facts:
    return Facts({"bitcoin": TIP}, (found,), offences, ())


def test_equal_coins_and_ledger_are_no_difference() -> None:
    found = wallet(30, [10, 20])
    report = compare(facts(found), {KEY: NodeCoins(TIP, found.coins)})
    assert report.ok
    assert report.differences() == ()


def test_one_unit_is_a_difference_of_the_identity() -> None:
    found = wallet(31, [10, 20])
    report = compare(facts(found), {KEY: NodeCoins(TIP, found.coins)})
    assert [check.number for check in report.checks if not check.ok] == [4]
    assert "hot: -0.00000001 BTC: " in report.differences()[0]


def test_a_coin_that_only_one_side_has_is_named() -> None:
    found = wallet(30, [10, 20])
    node = NodeCoins(TIP, (found.coins[0], Coin("other", 20)))
    differences = compare(facts(found), {KEY: node}).differences()
    assert len(differences) == 2
    assert "1 of 0.00000020 BTC is not in the node's UTXO set" in differences[0]
    assert "the node has other of 0.00000020 BTC," in differences[1]


def test_a_node_at_another_block_is_not_compared() -> None:
    with pytest.raises(ValueError, match="the node is at"):
        compare(facts(wallet(0, [])), {KEY: NodeCoins(BlockRef(6, "cd" * 32), ())})


def test_many_differences_are_cut_short() -> None:
    offences = [Offence(5, f"deposit {number}") for number in range(100)]
    found = wallet(0, [])
    [broken] = [c for c in compare(facts(found, *offences), {KEY: NodeCoins(TIP, ())}).checks if not c.ok]
    assert len(broken.differences) == 21
    assert broken.differences[-1] == "and 80 more"


EVENTS = st.lists(
    st.sampled_from(
        (
            *("deposit", "credit", "mine 1", "mine 2", "undo", "settle", "unsettle"),
            *("steal", "book", "return", "unbook"),
        )
    ),
    max_size=40,
)


@given(EVENTS, st.integers(1, 10**12), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_identity_holds_in_whatever_order_things_happen(
    events: list[str], paid: int, fee_1: int, fee_2: int
) -> None:
    """A deposit may or may not be credited; a payment of two versions is mined, undone, settled and reversed."""
    fees = {"a": fee_1, "b": fee_2}
    coins = ledger = uncredited = 0
    mined: str | None = None
    booked: str | None = None
    stolen, lost, funds = 0, 0, 10**13
    coins, ledger = funds, funds
    for event in events:
        match event:
            case "deposit":
                coins, uncredited = coins + 77, uncredited + 77
            case "credit":
                ledger, uncredited = ledger + uncredited, 0
            case "mine 1" | "mine 2" if mined is None:
                mined = "a" if event == "mine 1" else "b"
                coins -= paid + fees[mined]
            case "undo" if mined is not None:
                coins += paid + fees[mined]
                mined = None
            case "settle" if mined is not None and booked is None:
                booked = mined
                ledger -= paid + fees[booked]
            case "unsettle" if booked is not None and booked != mined:
                ledger += paid + fees[booked]
                booked = None
            case "steal" if not stolen:
                coins, stolen = coins - 1_000, 1_000
            case "book" if stolen and not lost:
                ledger, lost = ledger - stolen, stolen
            case "return" if stolen:
                coins, stolen = coins + stolen, 0
            case "unbook" if lost and not stolen:
                ledger, lost = ledger + lost, 0
    flight = InFlight("t", "any", paid + fees[mined] if mined else 0, paid + fees[booked] if booked else 0)
    found = wallet(
        ledger,
        [coins],
        uncredited={"confirming": uncredited},
        in_flight=(flight,) if mined != booked else (),
        lost=(Lost("coin", stolen, lost),) if stolen != lost else (),
    )
    report = compare(facts(found), {KEY: NodeCoins(TIP, found.coins)})
    assert report.ok, report.differences()
