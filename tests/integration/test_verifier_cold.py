"""The verifier and a cold vault, whose holders have no log: what it paid is what the verifier's own node shows, by the
bundle's descriptor, each output once. Nothing that is honest is a finding, and what SQL invents is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from chains.errors import NodeUnavailable
from custody.ledger import bookings
from custody.ledger.service import post
from ops.devnet.bitcoind import Bitcoind
from signers.ports import Refused
from tests.fakes.cold_till import COLD, LARGE_SATS, ColdTill
from tests.fakes.forger import Forger, Place
from tests.fakes.verifying import Verifying, verifying

HOT = "btc-hot"


@pytest.fixture
def till(database: str, bitcoind: Bitcoind, tmp_path: Path) -> Iterator[ColdTill]:
    """Not checked in the end: some of its books are cooked by then."""
    opened = ColdTill(database, bitcoind, tmp_path)
    opened.customer("alice", 60_000_000)
    opened.fund_vault(50_000_000, 50_000_000)
    yield opened
    opened.close()


@pytest.fixture
def verifier(till: ColdTill) -> Iterator[Verifying]:
    with verifying(till) as opened:
        till.verifier = opened.verifier.verdicts  # type: ignore[assignment]
        yield opened


@pytest.fixture
def forger(till: ColdTill) -> Forger:
    return Forger(till.admin)


def paid(till: ColdTill, verifier: Verifying, **changes: Any) -> Any:
    """A payment that three holders have signed, settled."""
    verifier.follow()
    withdrawal, session = till.asked(**changes)
    till.sign_all(session)
    till.settle_cold()
    assert till.withdrawal(withdrawal.id).state == "settled"
    return withdrawal


def unpaid(till: ColdTill, **changes: Any) -> Any:
    """A withdrawal that SQL settles out of the vault, as carefully as the ledger itself would."""
    withdrawal = till.approved(**changes)
    settle = bookings.settle_withdrawal(
        withdrawal.id,
        1,
        customer="alice",
        asset="BTC",
        wallet=COLD,
        units=withdrawal.units,
        fee_units=withdrawal.fee_units,
    )
    with till.admin.transaction() as tx:
        post(tx, [settle])
    return withdrawal


def claim(forger: Forger, withdrawal: UUID, other: UUID) -> None:
    """Says that the other one's transaction has paid it."""
    forger.run(
        "UPDATE withdrawals SET state = 'settled', settlement = 'chain', transaction_id ="
        " (SELECT transaction_id FROM withdrawals WHERE id = %s) WHERE id = %s",
        other,
        withdrawal,
    )


def clean(verifier: Verifying) -> None:
    found = verifier.audit()
    assert (found.findings, found.unknowns) == ((), ())


# --------------------------------------------------------------------------------------------------- what is honest


def test_a_cold_payment_has_a_verdict_is_proven_by_the_chain_and_is_no_finding(
    till: ColdTill, verifier: Verifying
) -> None:
    paid(till, verifier)
    clean(verifier)
    clean(verifier)
    verifier.restart()
    clean(verifier)
    assert verifier.verdict(till.order("alice", LARGE_SATS)).verdict.outcome == "covered"


def test_what_is_not_covered_is_handed_out_to_nobody(
    till: ColdTill, verifier: Verifying, forger: Forger
) -> None:
    verifier.follow()
    forged = till.approved()
    forger.run("UPDATE ledger_accounts SET balance = balance + 5 WHERE kind = 'available'")
    assert till.build_cold() is not None
    [row] = till.query("SELECT transaction_id FROM withdrawals WHERE id = %s", forged.id)
    with pytest.raises(Refused, match="account-not-replayed"):
        till.export(till.session(row["transaction_id"]), "ann")


def test_two_equal_payments_are_proven_by_an_output_each(till: ColdTill, verifier: Verifying) -> None:
    first = paid(till, verifier)
    paid(till, verifier, destination=first.destination)
    clean(verifier)


def test_what_was_cancelled_and_given_back_is_no_finding(till: ColdTill, verifier: Verifying) -> None:
    verifier.follow()
    _, session = till.asked()
    till.export(session, "ann")
    instead = till.cancel(session)
    till.sign_all(instead)
    till.settle_cold()
    clean(verifier)


def test_a_request_that_was_given_up_hides_nothing_and_holds_nothing_up(
    till: ColdTill, verifier: Verifying
) -> None:
    verifier.follow()
    withdrawal, session = till.asked()
    till.abandon(session)
    with till.admin.transaction() as tx:
        post(tx, [bookings.release_withdrawal(withdrawal.id)])
    clean(verifier)


def test_while_the_own_node_has_not_come_so_far_it_is_not_known_and_no_finding(
    till: ColdTill, verifier: Verifying
) -> None:
    paid(till, verifier)
    found = verifier.verifier.auditor.everything()
    assert found.findings == ()
    assert {each.code for each in found.unknowns} == {"node"}
    clean(verifier)


def test_what_a_reorg_took_is_forgotten(till: ColdTill, verifier: Verifying) -> None:
    withdrawal = paid(till, verifier)
    clean(verifier)
    [row] = till.query(
        "SELECT block_hash FROM transactions t JOIN withdrawals w ON w.transaction_id = t.id WHERE w.id = %s",
        withdrawal.id,
    )
    till.bitcoind.rpc("invalidateblock", row["block_hash"])
    for _ in range(8):
        till.bitcoind.rpc("generateblock", till.outside.address(), [])
    assert verifier.kinds() == {"payment-not-on-chain"}


# ------------------------------------------------------------------------------------------------- what SQL invents


def test_a_settlement_that_no_transaction_stands_behind(till: ColdTill, verifier: Verifying) -> None:
    unpaid(till)
    assert verifier.kinds() == {"payment-not-on-chain"}
    assert verifier.refusal(till.order("alice", LARGE_SATS)) == {"payment-not-on-chain"}


def test_a_settlement_by_another_ones_payment(till: ColdTill, verifier: Verifying, forger: Forger) -> None:
    real = paid(till, verifier)
    clean(verifier)
    elsewhere = unpaid(till)
    claim(forger, elsewhere.id, real.id)
    assert verifier.kinds() == {"payment-not-on-chain"}
    same = unpaid(till, destination=real.destination)
    claim(forger, same.id, real.id)
    assert verifier.kinds() == {"payment-not-on-chain", "payment-repeated"}
    found = verifier.audit().findings
    assert {each.subject for each in found} == {str(elsewhere.id), str(same.id)}


def test_a_settlement_by_a_payment_that_somebody_else_has_made(
    till: ColdTill, verifier: Verifying, forger: Forger
) -> None:
    """The right amount at the right address, and not out of the vault."""
    real = paid(till, verifier)
    fake = unpaid(till)
    txid = till.outside.send(fake.destination, LARGE_SATS)
    [block] = till.mine(1)
    till.mine(5)
    claim(forger, fake.id, real.id)
    forger.run(
        "UPDATE transactions SET confirmed_txid = %s, block_hash = %s, height = %s WHERE keyset = %s",
        txid,
        block,
        till.bitcoind.rpc("getblockheader", block)["height"],
        COLD,
    )
    assert {each.subject for each in verifier.audit().findings} == {str(real.id), str(fake.id)}
    assert verifier.kinds() == {"payment-not-on-chain"}


def test_addresses_that_rows_give_to_the_vault_are_not_the_vaults(
    till: ColdTill, verifier: Verifying, forger: Forger
) -> None:
    """What a row says of an address is derived again from the bundle."""
    real = paid(till, verifier)
    fake = unpaid(till)
    txid = till.outside.send(fake.destination, LARGE_SATS)
    [block] = till.mine(1)
    till.mine(5)
    claim(forger, fake.id, real.id)
    height = till.bitcoind.rpc("getblockheader", block)["height"]
    forger.run(
        "UPDATE transactions SET confirmed_txid = %s, block_hash = %s, height = %s", txid, block, height
    )
    for number, vin in enumerate(till.bitcoind.rpc("getrawtransaction", txid, 2, block)["vin"]):
        script = bytes.fromhex(vin["prevout"]["scriptPubKey"]["hex"])
        forger.run(
            "INSERT INTO addresses (chain, keyset, asset, purpose, branch, index, address, script)"
            " VALUES (%s, %s, 'BTC', 'change', 1, %s, %s, %s)",
            till.chain,
            COLD,
            900 + number,
            f"invented {number}",
            script,
        )
    assert "payment-not-on-chain" in verifier.kinds()
    assert str(fake.id) in {each.subject for each in verifier.audit().findings}


def test_money_given_back_though_the_vault_has_paid(
    till: ColdTill, verifier: Verifying, forger: Forger
) -> None:
    withdrawal = paid(till, verifier)
    clean(verifier)
    with till.admin.transaction() as tx:
        post(tx, [bookings.unsettle_withdrawal(withdrawal.id, 1), bookings.release_withdrawal(withdrawal.id)])
    assert verifier.kinds() == {"payment-not-debited"}
    assert verifier.refusal(till.order("alice", LARGE_SATS)) == {"payment-not-debited"}


def test_a_refill_that_was_invented(till: ColdTill, verifier: Verifying, forger: Forger) -> None:
    refill = uuid4()
    with till.admin.transaction() as tx:
        post(tx, [bookings.book_refill(refill, 1, asset="BTC", source=COLD, target=HOT, units=40_000_000)])
    assert verifier.kinds() == {"move-unproven"}
    hot = till.query("SELECT address FROM addresses WHERE keyset = %s LIMIT 1", HOT)[0]["address"]
    forger.run(
        "INSERT INTO refills (id, chain, asset, source, tier, target, destination, units, why, about, proposed_by,"
        " state, decision, policy_version) VALUES (%s, %s, 'BTC', %s, 'cold', %s, %s, 40000000, 'asked', '', 'otto',"
        " 'confirmed', '{}', 1)",
        refill,
        till.chain,
        COLD,
        HOT,
        hot,
    )
    assert verifier.kinds() == {"move-unproven"}
    # And by a real payment of the vault to somebody else.
    real = paid(till, verifier)
    forger.run(
        "UPDATE refills SET transaction_id = (SELECT transaction_id FROM withdrawals WHERE id = %s)", real.id
    )
    assert verifier.kinds() == {"move-unproven"}


def test_a_move_between_wallets_under_another_name(verifier: Verifying, forger: Forger) -> None:
    forger.book(
        "housekeeping",
        [
            (Place(None, "chain_assets", "BTC", HOT), -40_000_000, "transfer"),
            (Place(None, "chain_assets", "BTC", COLD), 40_000_000, "transfer"),
        ],
    )
    assert verifier.kinds() == {"move-unproven"}


def test_a_node_that_does_not_answer_is_no_evidence(
    till: ColdTill, verifier: Verifying, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid(till, verifier)
    verifier.follow()

    def down(*_: object) -> None:
        raise NodeUnavailable("it is pruned")

    monkeypatch.setattr(verifier.chain, "spending", down)
    found = verifier.audit()
    assert found.findings == ()
    assert {each.code for each in found.unknowns} == {"node"}
    monkeypatch.undo()
    clean(verifier)
