"""The verifier and warm vaults: three members' logs, of which two tell of a payment, and the chain; and what too few of
them have signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from custody.ledger import bookings
from custody.ledger.service import post
from ops.devnet.bitcoind import Bitcoind
from signers.ports import SignerUnavailable
from signers.service import SignerService
from tests.fakes.approving import Desk
from tests.fakes.forger import Forger
from tests.fakes.vault_till import LARGE_SATS, MEMBERS, VAULT, VaultTill
from tests.fakes.verifying import Verifying, verifying

HOURS = 3_600


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[VaultTill]:
    """Not checked in the end: some of its books are cooked by then."""
    opened = VaultTill(database, bitcoind, tmp_path)
    opened.customer("alice", 60_000_000)
    opened.fund_vault(80_000_000)
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: VaultTill) -> Iterator[Verifying]:
    members = {name: each for name, each in till.members.items() if isinstance(each, SignerService)}
    with verifying(till, members=members) as opened:
        till.verifier = opened.verifier.verdicts  # type: ignore[assignment]
        yield opened


def built(till: VaultTill, verifier: Verifying) -> Any:
    verifier.follow()
    desk = Desk(till)
    withdrawal = desk.request(LARGE_SATS)
    desk.approve(withdrawal, "ada", "ben")
    till.route()
    assert till.build_vault() is not None
    return withdrawal


def paid(till: VaultTill, verifier: Verifying) -> Any:
    withdrawal = built(till, verifier)
    till.collect()
    till.broadcast_vault()
    till.mine(6)
    till.track()
    assert till.withdrawal(withdrawal.id).state == "settled"
    return withdrawal


def given_back(till: VaultTill, withdrawal: Any) -> None:
    with till.admin.transaction() as tx:
        post(tx, [bookings.release_withdrawal(withdrawal.id)])


def test_a_warm_payment_is_in_two_of_three_logs_and_on_the_chain(
    till: VaultTill, verifier: Verifying
) -> None:
    paid(till, verifier)
    for _ in range(2):
        found = verifier.audit()
        assert (found.findings, found.unknowns) == ((), ())
    told = verifier.state.rows("SELECT DISTINCT signer FROM payments WHERE keyset = ?", VAULT)
    assert len(told) == 2
    assert verifier.verdict(till.order("alice", LARGE_SATS)).verdict.outcome == "covered"


def test_a_settlement_that_logs_tell_of_and_the_chain_does_not(till: VaultTill, verifier: Verifying) -> None:
    """Signed by all that it takes, and then kept back, and settled by SQL out of either wallet."""
    withdrawal = built(till, verifier)
    till.collect()
    forger = Forger(till.admin)
    for wallet, kind in ((VAULT, "payment-not-on-chain"), ("btc-hot", "payment-not-signed")):
        settle = bookings.settle_withdrawal(
            withdrawal.id,
            1,
            customer="alice",
            asset="BTC",
            wallet=wallet,
            units=withdrawal.units,
            fee_units=withdrawal.fee_units,
        )
        with till.admin.transaction() as tx:
            post(tx, [settle])
        assert verifier.kinds() == {kind}
        [row] = forger.rows("SELECT id FROM ledger_transfers WHERE kind = 'post'")
        forger.forget([row["id"]])
        forger.run("UPDATE ledger_holds SET state = 'pending'")


def test_what_the_chain_shows_and_no_members_log_tells_of_is_found(
    till: VaultTill, verifier: Verifying
) -> None:
    """Two keys were used past their signers."""
    paid(till, verifier)
    assert verifier.kinds() == set()
    verifier.state.write("DELETE FROM payments WHERE keyset = ?", VAULT)
    assert verifier.kinds() == {"payment-not-signed"}


def test_what_one_member_has_signed_holds_nothing_up_once_no_other_will_sign_it(
    till: VaultTill, verifier: Verifying
) -> None:
    withdrawal = built(till, verifier)
    till.collect(["c0"])
    given_back(till, withdrawal)
    found = verifier.audit()
    assert found.findings == ()
    assert [each.code for each in found.unknowns] == ["open-transaction"]
    # The order is over, and the logs were read since.
    late = verifier.clock() + 2 * HOURS
    verifier.clock = lambda: late
    found = verifier.audit()
    assert (found.findings, found.unknowns) == ((), ())


def test_a_member_whose_log_was_not_read_since_may_have_signed_it(
    till: VaultTill, verifier: Verifying
) -> None:
    withdrawal = built(till, verifier)
    till.collect(["c0"])
    given_back(till, withdrawal)
    verifier.look()
    late = verifier.clock() + 2 * HOURS
    verifier.clock = lambda: late
    with verifier.verifier.auditor._ledger.snapshot() as snapshot:
        found = verifier.verifier.examiner.examine(snapshot, "alice")
    assert [each.code for each in found.unknowns] == ["open-transaction"]


def test_what_enough_members_have_signed_stays_open_until_the_chain_decides(
    till: VaultTill, verifier: Verifying
) -> None:
    withdrawal = built(till, verifier)
    till.collect()
    given_back(till, withdrawal)
    late = verifier.clock() + 2 * HOURS
    verifier.clock = lambda: late
    assert [each.code for each in verifier.audit().unknowns] == ["open-transaction"]


def test_a_member_that_is_away_when_the_first_verdict_is_asked_for_stops_nothing(
    till: VaultTill, verifier: Verifying
) -> None:
    for name in verifier.signers:
        verifier.verifier.attend(name)
    verdicts = verifier.verifier.verdicts
    verdicts._signers = dict(verdicts._signers) | {MEMBERS[2]: Away()}
    assert MEMBERS[2] in verifier.signers
    withdrawal = built(till, verifier)
    assert till.collect(MEMBERS[:2]) != []
    assert till.withdrawal(withdrawal.id).state == "broadcast"


class Away:
    """A member's signer that does not answer."""

    def open(self, request: object) -> Any:
        raise SignerUnavailable("away")

    resolve = log = open
