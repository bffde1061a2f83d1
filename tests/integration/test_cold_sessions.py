"""Cold payments on Bitcoin: requests leave as PSBTs, three of five holders sign offline, in any order and by any
program, and what comes back is believed after it was verified."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from custody.api import sessionviews
from custody.signing.cold import asking
from custody.signing.sessions.lifecycle import SessionState
from custody.storage.db import Database
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.api import as_role
from tests.fakes.cold_till import COLD, LARGE_SATS, ColdTill, together
from tests.fakes.teller import opened


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield till


def test_three_of_five_holders_pay_offline(till: ColdTill) -> None:
    paid, session = till.asked()
    assert till.withdrawal(paid.id).tier == "cold"
    for name, state in (("eve", "collecting"), ("ann", "collecting"), ("cem", "complete")):
        [file] = till.signed_by(session, name)
        taken = till.bring(file)
        assert (taken.kept, taken.refused, taken.session.state) == ((name,), (), state)
        assert taken.objection is None
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_importing_again_changes_nothing(till: ColdTill) -> None:
    _, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.bring(files[0])
    before = till.contents()
    again = till.bring(files[0])
    assert (again.kept, again.known, again.refused) == ((), ("ann",), ())
    assert till.contents() == before
    for file in files[1:]:
        till.bring(file)
    before = till.contents()
    assert till.bring(files[2]).known == ("cem",)
    assert till.contents() == before
    till.settle_cold()


def test_one_file_brings_what_several_holders_have_signed_as_text_too(till: ColdTill) -> None:
    _, session = till.asked()
    files = till.signed_by(session, "dag", "bob", "ann")
    taken = till.bring(till.as_text(together(*files)).encode() + b"\n")
    assert (taken.kept, taken.session.state) == (("ann", "bob", "dag"), "complete")
    till.settle_cold()


def test_two_inputs_are_signed_both_or_nothing_is_kept(till: ColdTill) -> None:
    _, session = till.asked(55_000_000)
    assert len(till.version(session).resources) == 2
    files = till.signed_by(session, "ann", "bob", "cem")
    for file in files:
        till.bring(file)
    till.settle_cold()
    assert till.session_states() == ["complete"]


def test_what_holders_sent_past_us_completes_its_session_once_it_is_final(till: ColdTill) -> None:
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.bring(files[0])
    till.send_past_us(together(*files))
    till.mine(5)
    till.track()
    assert till.session_states() == ["collecting"], "a reorg can still undo it"
    till.mine(1)
    till.track()
    assert till.session_states() == ["complete"]
    assert till.withdrawal(paid.id).state == "settled"
    before = till.contents()
    till.collect_cold()
    till.track()
    assert till.contents() == before
    # A signature that comes late is kept, and sends nothing again.
    assert till.bring(files[1]).kept == ("bob",)
    assert (till.bring(files[2]).session.state, till.broadcast_cold()) == ("complete", 0)


def test_whoever_was_asked_for_a_version_that_cannot_confirm_any_more_is_asked_no_longer(
    till: ColdTill,
) -> None:
    _, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.abandon(session)
    till.rebuild(session, feerate=30_000)
    assert till.session_states() == ["expired", "open"]
    till.send_past_us(together(*files))
    till.mine(6)
    till.track()
    assert till.session_states() == ["complete", "expired"], "the first version is in the chain"


def test_callers_of_the_api_read_who_has_signed_and_who_is_missing(till: ColdTill) -> None:
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.bring(files[1])

    def read(**wanted: Any) -> list[dict[str, Any]]:
        given = {"wallet": None, "state": None, "after": None, "limit": 10} | wanted
        with Database(as_role(till.dsn, "strongroom_api"), application="test") as db, db.snapshot() as tx:
            return [
                sessionviews.session(till.bundle, each).model_dump(mode="json")
                for each in asking.page(tx, **given)
            ]

    [found] = read(wallet=COLD, state=SessionState.COLLECTING)
    assert (found["signed"], found["missing"], found["threshold"], found["members"]) == (["bob"], 2, 3, 5)
    assert {each["member"]: each["signed"] for each in found["asked"]} == {
        "ann": False,
        "bob": True,
        "cem": False,
    }
    assert found["does"] == [
        {"kind": "payment", "asset": "BTC", "amount": "0.10000000", "destination": paid.destination}
    ]
    assert found["expires_at"] > found["created_at"]
    assert (read(wallet="other"), read(state=SessionState.COMPLETE), read(after=session.id)) == ([], [], [])
    for file in files:
        till.bring(file)
    assert [(each["state"], each["missing"]) for each in read()] == [("complete", 0)]
    till.settle_cold()
