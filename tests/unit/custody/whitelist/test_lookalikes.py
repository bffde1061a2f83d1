"""Addresses that a hasty eye takes for a known one (FAULTS row 43)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.whitelist.lookalikes import Ends, lookalikes

KNOWN = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
EVM = "0x52908400098527886E0F7030069857D2E4169EE7"


def test_fault_43_the_same_ends_with_something_else_between_are_a_lookalike() -> None:
    poison = "bcrt1qw508" + "q" * 30 + "t080"
    assert lookalikes(poison, [KNOWN, EVM]) == (KNOWN,)
    assert lookalikes("0x5290" + "0" * 32 + "9ee7", [KNOWN, EVM]) == (EVM,)
    assert lookalikes("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", ["1BvBM" + "z" * 24 + "NVN2"]) != ()


def test_an_address_does_not_look_like_itself() -> None:
    assert lookalikes(KNOWN, [KNOWN, KNOWN]) == ()


@pytest.mark.parametrize(
    "other",
    [
        "bcrt1qw509" + "q" * 30 + "t080",
        "bcrt1qw508" + "q" * 30 + "t081",
        "bcrt1pw5a8" + "q" * 30 + "t080",
        EVM,
    ],
)
def test_other_ends_are_no_lookalike(other: str) -> None:
    assert lookalikes(other, [KNOWN]) == ()


def test_what_all_addresses_of_a_kind_begin_with_is_no_likeness() -> None:
    assert lookalikes("bcrt1qzzzz" + "q" * 30 + "t080", [KNOWN], Ends(head=2, tail=4)) == ()
    assert lookalikes("0x1111" + "0" * 32 + "9ee7", [EVM]) == ()


def test_how_much_people_look_at_can_be_chosen() -> None:
    poison = "bcrt1qw508" + "q" * 30 + "t080"
    assert lookalikes(poison, [KNOWN], Ends(head=5, tail=4)) == ()
    assert lookalikes(poison, [KNOWN], Ends(head=2, tail=2)) == (KNOWN,)
    for wrong in ((1, 4), (4, 17)):
        with pytest.raises(InvalidValue):
            Ends(*wrong)


@given(st.lists(st.text(alphabet="0123456789abcdef", min_size=40, max_size=40), max_size=6))
def test_likeness_is_mutual(found: list[str]) -> None:
    addresses = [f"0x{each}" for each in found]
    for one in addresses:
        for other in addresses:
            assert (one in lookalikes(other, [one])) == (other in lookalikes(one, [other]))
