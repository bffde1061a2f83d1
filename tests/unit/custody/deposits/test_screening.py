"""The list in a file: exact matches, changes taken over at once, and no answer where there is no list."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from custody.deposits.model import DepositFacts
from custody.deposits.screening import Clear, Hit, ListScreening, ScreeningUnavailable

FACTS = DepositFacts("bitcoin-regtest", "BTC", f"{'ab' * 32}:1", "ab" * 32, 5_000, "bcrt1qexample", "alice")


@pytest.mark.parametrize("entry", [FACTS.address, FACTS.txid, FACTS.resource])
def test_an_entry_matches_exactly_and_comments_do_not_count(tmp_path: Path, entry: str) -> None:
    path = tmp_path / "list"
    path.write_text(f"# {FACTS.address}\n\n  {entry}   # why\n")
    assert ListScreening(path).check_deposit(FACTS) == Hit(f"{entry} is on the screening list")
    path.write_text(f"# {entry}\n{entry}0\n")
    assert ListScreening(path).check_deposit(FACTS) == Clear()


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "list"
    path.write_text("")
    screening = ListScreening(path)
    assert screening.check_deposit(FACTS) == Clear()
    path.write_text(FACTS.address)
    assert screening.check_deposit(FACTS) == Hit(f"{FACTS.address} is on the screening list")
    path.write_text("x" * len(FACTS.address))
    os.utime(path, ns=(1, 1))
    assert screening.check_deposit(FACTS) == Clear()


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_list_that_cannot_be_read_is_no_answer(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "list"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ScreeningUnavailable):
        ListScreening(path).check_deposit(FACTS)
