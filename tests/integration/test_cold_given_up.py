"""Requests of a cold vault that were not signed in time: asked for anew, or cancelled, so that at most one of all that
was ever handed out can confirm; and money that stays held until it is certain which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from custody.signing import cancelling
from custody.signing.errors import BumpRefused, NotHandedOut
from ops.devnet.bitcoind import Bitcoind
from tests.fakes.cold_till import LARGE_SATS, ColdTill, together
from tests.fakes.teller import opened

FREE, HELD = cancelling.Outcome.FREE, cancelling.Outcome.HELD


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    with opened(ColdTill(database, bitcoind, tmp_path)) as till:
        till.customer("alice", 60_000_000)
        till.fund_vault(50_000_000, 50_000_000)
        yield till


def test_what_was_never_handed_out_is_free_at_once(till: ColdTill) -> None:
    paid, session = till.asked()
    assert till.abandon(session) is FREE
    assert (till.withdrawal(paid.id).state, till.state_of(session)) == ("queued", "refused")
    again = till.build_cold()
    assert again is not None
    till.sign_all(till.session(again))
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"


def test_it_is_free_when_it_expires_too(till: ColdTill) -> None:
    paid, session = till.asked()
    till.expire_sessions()
    assert (till.withdrawal(paid.id).state, till.session_states()) == ("queued", ["expired"])
    with pytest.raises(NotHandedOut):
        till.export(session, "ann")


def test_one_file_that_is_out_counts_for_all_holders_as_it_can_be_passed_on(till: ColdTill) -> None:
    """One export, three signatures: money that was held on the word of a count would have been paid twice."""
    paid, session = till.asked()
    file = till.export(session, "ann")
    passed_on = till.holders["cem"].sign(till.holders["bob"].sign(till.holders["ann"].sign(file)))
    till.expire_sessions()
    held = till.withdrawal(paid.id)
    assert (held.state, till.state_of(session)) == ("signing", "built")
    assert "stays held" in held.reason
    assert "session.expired" in till.alerts()
    assert till.build_cold() is None
    assert till.bring(passed_on).session.state == "complete"
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert "session.expired" not in till.alerts()


def test_words_of_enough_holders_that_it_came_to_nothing_free_it(till: ColdTill) -> None:
    paid, session = till.asked()
    till.export(session, "ann", "bob")
    assert till.abandon(session) is HELD
    for holder in ("ann", "bob", "bob", "cem"):
        assert cancelling.not_signed(till.db, till.cold_site, session.id, holder, "burnt") is HELD
    assert till.withdrawal(paid.id).state == "signing"
    assert cancelling.not_signed(till.db, till.cold_site, session.id, "eve", "never saw it") is FREE
    assert till.withdrawal(paid.id).state == "queued"


def test_a_lie_about_that_is_told_when_the_signatures_appear(till: ColdTill) -> None:
    paid, session = till.asked()
    signed = together(*till.signed_by(session, "ann", "bob", "cem"))
    till.abandon(session)
    for holder in ("ann", "bob", "cem", "dag"):
        cancelling.not_signed(till.db, till.cold_site, session.id, holder, "I have not")
    assert till.withdrawal(paid.id).state == "queued"
    till.bring(signed)
    assert "session.signed_after_all" in till.alerts()
    assert till.state_of(session) == "refused"


def test_the_next_request_spends_all_that_the_first_one_did(till: ColdTill) -> None:
    paid, session = till.asked()
    [late] = till.signed_by(session, "ann")
    till.expire_sessions()
    second = till.rebuild(session)
    first, newer = till.transaction(session.transaction_id).versions
    assert first.resources <= newer.resources
    assert newer.fee_units > first.fee_units
    assert till.bring(late).session.id == session.id  # kept where it belongs
    till.sign_all(second, "ann", "dag", "eve")
    till.settle_cold()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_fault_6_the_abandoned_version_is_mined_after_the_next_one_was_sent_and_pays_once(
    till: ColdTill,
) -> None:
    paid, session = till.asked()
    old = together(*till.signed_by(session, "ann", "bob", "cem"))
    till.abandon(session)
    second = till.rebuild(session)
    till.sign_all(second, "cem", "dag", "eve")
    till.broadcast_cold()
    assert till.bring(old).session.state == "complete"  # what exists is known, and conflicts by construction
    first, newer = till.transaction(session.transaction_id).versions
    assert first.signed is not None
    assert newer.txid in till.mempool()
    till.mine_with(first.signed.hex())
    till.mine(6)
    till.track()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.paid_to(paid.destination) == LARGE_SATS


def test_fault_28_the_older_request_is_combined_by_others_and_confirms_with_its_own_fee(
    till: ColdTill,
) -> None:
    """Nobody brings us the signatures: the block does."""
    paid, session = till.asked()
    files = till.signed_by(session, "ann", "bob", "cem")
    till.abandon(session)
    till.rebuild(session)
    combined = till.bitcoind.rpc("combinepsbt", [till.as_text(file) for file in files])
    final = till.bitcoind.rpc("finalizepsbt", combined)
    assert final["complete"]
    till.mine_with(final["hex"])
    till.mine(6)
    till.track()
    assert till.withdrawal(paid.id).state == "settled"
    first = till.transaction(session.transaction_id).versions[0]
    assert -till.balance_of("btc-cold") == 100_000_000 - LARGE_SATS - first.fee_units


def test_a_cancellation_releases_the_hold_only_when_it_is_final(till: ColdTill) -> None:
    paid, session = till.asked()
    till.signed_by(session, "ann", "bob", "cem")
    cancelling_it = till.cancel(session)
    instead = till.transaction(cancelling_it.transaction_id)
    assert instead.versions[0].resources & till.version(session).resources
    assert (till.state_of(session), till.withdrawal(paid.id).state) == ("contested", "signing")
    with pytest.raises(BumpRefused, match="cancels it already"):
        till.cancel(session)
    till.sign_all(cancelling_it, "bob", "dag", "eve")
    till.broadcast_cold()
    till.mine(5)
    till.track()
    assert till.withdrawal(paid.id).state == "signing"
    before = till.balance("alice")
    till.mine(1)
    till.track()
    assert (till.state_of(session), till.withdrawal(paid.id).state) == ("dead", "failed")
    assert till.balance("alice") > before
    assert -till.balance_of("btc-cold") == 100_000_000 - instead.versions[0].fee_units


def test_what_was_cancelled_and_confirms_all_the_same_pays_once(till: ColdTill) -> None:
    paid, session = till.asked()
    old = together(*till.signed_by(session, "ann", "bob", "cem"))
    cancelling_it = till.cancel(session)
    till.sign_all(cancelling_it)
    till.broadcast_cold()
    till.bring(old)
    version = till.version(session)
    assert version.signed is not None
    till.mine_with(version.signed.hex())
    till.mine(6)
    till.track()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.state_of(cancelling_it) == "dead"


def test_a_cancellation_replaces_what_waits_in_mempools(till: ColdTill) -> None:
    paid, session = till.asked()
    till.sign_all(session)
    till.broadcast_cold()
    old = till.version(session)
    assert old.txid in till.mempool()
    cancelling_it = till.cancel(session)
    till.sign_all(cancelling_it)
    till.broadcast_cold()
    assert old.txid not in till.mempool()
    till.mine(6)
    till.track()
    assert till.withdrawal(paid.id).state == "failed"


def test_an_order_that_has_expired_is_asked_for_no_more(till: ColdTill) -> None:
    paid, session = till.asked()
    till.export(session, "ann")
    till.abandon(session)
    with pytest.raises(BumpRefused, match="expired"):
        till.rebuild_at(session, int(paid.signed_order.order.expires_at) + 1)
    till.cancel(session)
