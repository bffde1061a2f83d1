"""What could leave within 24 hours for each part of the online side in a thief's hands; the README shows this table.

Each row is a campaign against a real guard and journal with the trial's bundle. The thief does not stop at what the
online service would ask: he speaks to the signer himself, with every key and order that the part gives him.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from chains.types import Amount
from ops.devnet.tools import CHECKOUT
from policies.bundle import Bundle
from tests.fakes.fortress import HOUR, Fortress, Taken, Thief, most_in_a_day
from tests.fakes.signing import DAY

ASSETS: Final = ("BTC", "ETH", "USDX")
BEGIN, END = "<!-- the most that could leave -->", "<!-- end of the most that could leave -->"


@pytest.fixture
def fortress(tmp_path: Path) -> Iterator[Fortress]:
    made = Fortress(tmp_path)
    yield made
    made.journal.close()


def sums(thief: Thief, what: str) -> dict[str, int]:
    return {
        asset: most_in_a_day([(t.at, t.units) for t in thief.taken if (t.what, t.asset) == (what, asset)])
        for asset in ASSETS
    }


def value(bundle: Bundle, taken: list[Taken]) -> int:
    """Of everything in the worst 24 hours, in cents, as the breaker counts."""
    counted = [
        (t.at, -(-t.units * int(bundle.price(t.asset).high) // 10 ** bundle.asset(t.asset).decimals))
        for t in taken
    ]
    return most_in_a_day(counted)


def stays_within(bundle: Bundle, thief: Thief) -> None:
    """The bundle's limits hold for everything he got, fees included, in any 24 hours."""
    for cap in bundle.caps:
        if cap.asset in ASSETS:
            taken = [(t.at, t.units) for t in thief.taken if t.asset == cap.asset]
            assert most_in_a_day(taken) <= int(cap.window_cap), cap.asset
            assert all(
                t.units < int(cap.payment_below)
                for t in thief.taken
                if (t.what, t.asset) == ("paid", cap.asset)
            )
    for network in bundle.networks:
        fees = [(t.at, t.units) for t in thief.taken if (t.what, t.asset) == ("fee", network.native_asset)]
        assert most_in_a_day(fees) <= int(network.fee_window_cap), network.chain
    assert value(bundle, thief.taken) <= int(bundle.breakers[0].value_cap)


# ------------------------------------------------------------------------------------------------ the campaigns


def with_the_wire(thief: Thief) -> None:
    """He sees what is asked and answered, and sends it again."""
    thief.replay()


def with_an_officer(thief: Thief) -> None:
    """One officer's key."""
    thief.outvote()


def with_the_door(thief: Thief) -> None:
    """He reaches the signer, and has orders of honest people."""
    for _, request in thief.tamper():
        assert not thief.ask(request)
    thief.burn()


def with_orders(thief: Thief) -> None:
    """Orders of his own are signed: by a stolen key, or by an honest caller who believes invented balances."""
    thief.empty_the_tier()


def with_everything(thief: Thief) -> None:
    """For three days, while he broadcasts what he has when he likes, and the verifier tells of it."""
    for hour in range(0, 72, 3):
        if hour % 2:
            thief.burn()
        thief.empty_the_tier()
        if hour in (21, 24, 48):
            thief.fortress.resolve("confirmed")
        thief.fortress.time += 3 * HOUR


def with_the_verifier_too(thief: Thief) -> None:
    """The verifier calls every signature dead as soon as it is made."""
    for _ in range(24):
        thief.empty_the_tier()
        thief.fortress.resolve("dead")
        thief.fortress.time += 3 * HOUR


ROWS: Final[tuple[tuple[str, str, Callable[[Thief], None]], ...]] = (
    ("the network between our processes", "sees, delays, sends again", with_the_wire),
    ("one officer", "can freeze; one vote of the quorum", with_an_officer),
    ("API", "genuine orders, the signer's door", with_the_door),
    ("trading core", "signs orders", with_orders),
    (
        "monitor, workers, database, online nodes",
        "credit an accomplice, whose orders are genuine",
        with_orders,
    ),
    ("everything online", "all of that, for days, hoarding signatures", with_everything),
    ("everything online and the verifier", "and calls signatures dead", with_the_verifier_too),
)


def test_what_he_gets_stays_within_the_bundle_and_is_what_the_readme_says(tmp_path: Path) -> None:
    lines = [
        "| in a thief's hands | what it gives him | to him, at most in 24 h | burnt as fees |",
        "|---|---|---|---|",
    ]
    for number, (part, powers, campaign) in enumerate(ROWS):
        fortress = Fortress(_made(tmp_path / str(number)))
        thief = Thief(fortress)
        campaign(thief)
        stays_within(fortress.bundle, thief)
        bundle = fortress.bundle
        paid, fees = (told(bundle, sums(thief, what)) for what in ("paid", "fee"))
        lines.append(f"| {part} | {powers} | {paid} | {fees} |")
        fortress.journal.close()
    table = "\n".join(lines)
    print(table)
    readme = (CHECKOUT / "README.md").read_text()
    assert BEGIN in readme, f"the README lacks the table:\n{table}"
    assert readme.split(BEGIN)[1].split(END)[0].strip() == table


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def told(bundle: Bundle, units: dict[str, int]) -> str:
    """Rounded up to what people read: a hundredth of a bitcoin or ether, a whole dollar."""
    shown = []
    for asset, amount in units.items():
        if amount:
            entry = bundle.asset(asset)
            step = 10 ** (entry.decimals - (0 if asset == "USDX" else 2))
            text = str(Amount(entry.asset(), -(-amount // step) * step)).split()[0]
            shown.append(f"{text.rstrip('0').rstrip('.')} {asset}")
    return ", ".join(shown) or "nothing"


def test_he_does_get_what_the_bundle_allows_so_the_table_says_something(fortress: Fortress) -> None:
    """The breaker ends it before the windows of all assets are full; each window alone can be filled."""
    thief = Thief(fortress)
    thief.empty_the_tier()
    assert value(fortress.bundle, thief.taken) > int(fortress.bundle.breakers[0].value_cap) * 98 // 100
    assert {"value-cap"} <= thief.refusals


def test_splitting_payments_below_the_limit_gains_nothing(fortress: Fortress) -> None:
    thief, cap = Thief(fortress), fortress.bundle.cap("hot", "BTC")
    while thief.pay_himself("BTC", int(cap.payment_below) // 10 - 1):
        pass
    paid = sum(t.units for t in thief.taken if t.asset == "BTC")
    assert int(cap.window_cap) * 98 // 100 < paid <= int(cap.window_cap)
    assert "window-cap" in thief.refusals


def test_signatures_that_he_keeps_for_later_count_until_they_are_used_and_a_day_longer(
    fortress: Fortress,
) -> None:
    thief = Thief(fortress)
    thief.empty_the_tier()
    before = len(thief.taken)
    for _ in range(10):
        fortress.time += DAY
        thief.empty_the_tier()
        assert len(thief.taken) == before, "nothing was told of what became of them"
    fortress.resolve("confirmed")
    fortress.time += DAY - 1
    thief.empty_the_tier()
    assert len(thief.taken) == before, "they left less than a day ago"
    fortress.time += 1
    thief.empty_the_tier()
    assert len(thief.taken) > before


def test_a_flood_of_requests_that_are_refused_leaves_the_journal_as_it_was(fortress: Fortress) -> None:
    thief = Thief(fortress)
    size = sum(path.stat().st_size for path in fortress.directory.glob("journal.sqlite*"))
    for _ in range(300):
        for _, request in thief.tamper():
            assert not thief.ask(request)
    assert sum(path.stat().st_size for path in fortress.directory.glob("journal.sqlite*")) == size
    assert thief.taken == []
