"""A holder of a cold vault's key, or a thief on the way, who copies a request: what one of them says frees nothing.

Holders keep no journal, so if money that a copy may still pay is free, the order is paid a second time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.signing import cancelling
from custody.signing.cancelling import Outcome
from custody.signing.errors import BumpRefused
from custody.signing.sessions.model import Session
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.cold_till import LARGE_SATS, ColdTill
from tests.fakes.teller import opened

FREE, HELD = Outcome.FREE, Outcome.HELD


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield till


def _says_no(till: ColdTill, session: Session, holder: str) -> Outcome:
    return cancelling.not_signed(till.db, till.cold_site, session.id, holder, "burnt, unread")


def test_one_who_passes_his_file_on_and_says_that_he_burnt_it_is_not_paid_twice(till: ColdTill) -> None:
    paid, session = till.asked()
    file = till.export(session, "ann")
    passed_on = till.holders["dag"].sign(till.holders["cem"].sign(till.holders["ann"].sign(file)))
    till.abandon(session)
    assert _says_no(till, session, "ann") is HELD
    assert till.build_cold() is None, "the same order, out of coins that do not conflict"
    till.bring(passed_on)
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_what_was_out_is_free_once_so_many_say_no_that_with_one_liar_too_few_have_signed(
    till: ColdTill,
) -> None:
    paid, session = till.asked()
    till.export(session, "ann")
    till.abandon(session)
    said = [_says_no(till, session, holder) for holder in ("ann", "bob", "cem", "dag")]
    assert said == [HELD, HELD, HELD, FREE]
    assert till.withdrawal(paid.id).state == "queued"


def test_a_word_about_what_was_never_handed_out_or_of_a_stranger_is_not_taken(till: ColdTill) -> None:
    _, session = till.asked()
    with pytest.raises(BumpRefused, match="handed out"):
        _says_no(till, session, "ann")
    till.export(session, "ann")
    with pytest.raises(BumpRefused, match="no holder"):
        _says_no(till, session, "zoe")
