"""The bundle that ends a key-set: what it may say, and that people see all that it changes."""

from __future__ import annotations

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.bundle import BitcoinKeyset, Breaker, Bundle, Confirmations, KeyState
from policies.bundle.changes import differences, retired, successor_of
from tests.fakes.signing import DAY, NOW, SoftKeys, World

OLD = World(SoftKeys.make().record)
NEW = World(SoftKeys.make(b"\x01" * 32, "btc-hot-2").record).keyset_entry()
PRESENT = OLD.bundle()


def ended(state: KeyState = "compromised") -> Bundle:
    return retired(PRESENT, "btc-hot", state, NEW, now=NOW, lasts=DAY)


def test_the_old_one_gets_its_state_and_the_new_one_is_active_from_now_on_under_the_same_breaker() -> None:
    draft = ended()
    assert draft.version == PRESENT.version + 1
    assert (draft.issued_at, draft.expires_at) == (NOW, NOW + DAY)
    assert draft.keyset("btc-hot").state == "compromised"
    assert draft.keyset_for("bitcoin-regtest", "hot") == msgspec.structs.replace(NEW, active_from=NOW)
    assert draft.breaker_of("btc-hot-2") == draft.breaker_of("btc-hot")


def test_a_key_set_can_end_before_another_follows_it() -> None:
    draft = retired(PRESENT, "btc-hot", "suspended", None, now=NOW, lasts=DAY)
    with pytest.raises(InvalidValue, match="no active hot key-set"):
        draft.keyset_for("bitcoin-regtest", "hot")
    again = retired(draft, "btc-hot", "compromised", NEW, now=NOW + 1, lasts=DAY)
    assert again.version == PRESENT.version + 2
    assert again.keyset_for("bitcoin-regtest", "hot").id == "btc-hot-2"


@pytest.mark.parametrize("state", ["active", "pre-active"])
def test_nothing_becomes_usable_by_it(state: KeyState) -> None:
    with pytest.raises(InvalidValue, match="does not become"):
        ended(state)


def test_a_successor_is_of_the_same_chain_and_tier() -> None:
    assert isinstance(NEW, BitcoinKeyset)
    for other in (msgspec.structs.replace(NEW, tier="warm"), msgspec.structs.replace(NEW, chain="other")):
        with pytest.raises(InvalidValue, match="cannot follow"):
            retired(PRESENT, "btc-hot", "compromised", other, now=NOW, lasts=DAY)
    with pytest.raises(InvalidValue, match="no key-set"):
        retired(PRESENT, "btc-warm", "compromised", NEW, now=NOW, lasts=DAY)


def test_people_see_every_change_by_the_name_of_its_entry_and_nothing_else() -> None:
    lines = differences(PRESENT, ended())
    assert 'keysets[btc-hot].state: "active" -> "compromised"' in lines
    assert any(line.startswith("keysets[btc-hot-2]: nothing -> {") for line in lines)
    assert f"version: {PRESENT.version} -> {PRESENT.version + 1}" in lines
    assert {line.split("[")[0].split(".")[0].split(":")[0] for line in lines} == {
        "breakers", "expires_at", "issued_at", "keysets", "version",
    }  # fmt: skip
    assert differences(PRESENT, PRESENT) == []


def test_two_entries_that_swap_their_content_are_seen() -> None:
    first = Breaker(id="a", keysets=("x",), value_cap="1", window_seconds=DAY)
    second = Breaker(id="b", keysets=("y",), value_cap="2", window_seconds=DAY)
    before = msgspec.structs.replace(PRESENT, breakers=(first, second))
    after = msgspec.structs.replace(
        PRESENT,
        breakers=(
            msgspec.structs.replace(first, value_cap="2"),
            msgspec.structs.replace(second, value_cap="1"),
        ),
    )
    assert differences(before, after) == [
        'breakers[a].value_cap: "1" -> "2"',
        'breakers[b].value_cap: "2" -> "1"',
    ]


def test_entries_without_names_of_their_own_are_shown_whole() -> None:
    """Two of one name would hide each other."""
    asset = PRESENT.assets[0]
    more = (*asset.confirmations, Confirmations(from_units="5", blocks=9))
    after = msgspec.structs.replace(PRESENT, assets=(msgspec.structs.replace(asset, confirmations=more),))
    [line] = differences(PRESENT, after)
    assert line.startswith("assets[BTC].confirmations: ")
    assert '"blocks":9' in line


def test_the_next_bundle_says_the_same_for_longer_and_times_are_told_as_dates() -> None:
    draft = successor_of(PRESENT, now=NOW, lasts=DAY)
    assert draft.version == PRESENT.version + 1
    told = [line for line in differences(PRESENT, draft) if not line.startswith("version")]
    assert {line.split(":")[0] for line in told} <= {"issued_at", "expires_at"}
    assert any(line.endswith("UTC)") for line in told)
