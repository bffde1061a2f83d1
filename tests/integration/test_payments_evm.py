"""Paying on an EVM chain: native, tokens, batches; nonces, gas, and what has to wait. A real node, database, monitor
and guard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from chains.errors import InvalidAddress, InvalidValue
from chains.eth.address import raw_address
from chains.eth.erc20 import decode_transfer
from chains.eth.network import NativeMode
from chains.eth.payout import decode_payout
from custody.signing.errors import BumpRefused
from ops.devnet.anvil import Anvil
from policies.bundle import GasCaps
from policies.intent import Kind
from tests.fakes.evm_desk import ETHER, GWEI
from tests.fakes.evm_till import EvmTill, TillOutside, open_evm_till
from tests.fakes.teller import EAGER
from tests.support.evm import deploy, outside_artifact

USDX = 10**6


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> TillOutside:
    return TillOutside(anvil)


@pytest.fixture
def evm_till(database: str, outside: TillOutside, tmp_path: Path) -> Iterator[EvmTill]:
    with open_evm_till(database, outside, tmp_path) as opened:
        opened.fund()
        yield opened


def test_the_native_asset_is_paid_and_settled_once_it_is_final_and_its_gas_is_a_ledger_line(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=3 * ETHER)
    destination = till.nobody()
    withdrawal = till.request(alice, ETHER, destination=destination)
    assert till.balance(alice, "frozen") == ETHER + ETHER // 1000
    transaction_id = till.send()
    tx = till.tx_of(transaction_id)
    assert (tx.nonce, tx.gas_limit, tx.value_wei, tx.data) == (0, 21_000, ETHER, b"")
    version = till.transaction(transaction_id).versions[0]
    assert version.txid in till.pool()
    till.mine()
    till.track()
    till.check()
    assert till.withdrawal(withdrawal.id).state == "confirming"
    till.settle()
    assert till.withdrawal(withdrawal.id).state == "settled"
    assert till.has(destination) == ETHER
    [used] = till.query("SELECT fee_units FROM consumptions")
    assert 0 < used["fee_units"] < version.fee_units
    assert till.balance(None, "network_fees") == -used["fee_units"]
    assert till.balance(None, "fees_earned") == ETHER // 1000
    before = till.contents()
    for step in (till.route, till.build, till.sign, till.broadcast, till.track):
        step()
    assert till.contents() == before


@pytest.mark.parametrize(("asset", "units"), [("USDX", 25 * USDX), ("NORX", ETHER)])
def test_tokens_are_paid_also_by_one_that_returns_nothing_and_the_gas_is_the_native_assets(
    evm_till: EvmTill, asset: str, units: int
) -> None:
    till = evm_till
    alice = till.customer("alice", **{asset: 4 * units})
    till.fund(asset, 10 * units)
    destination = till.nobody()
    till.request(alice, units, asset=asset, destination=destination)
    transaction_id = till.send()
    tx = till.tx_of(transaction_id)
    transfer = decode_transfer(tx.data)
    assert (tx.to, tx.value_wei) == (raw_address(till.bundle.asset(asset).contract or ""), 0)
    assert (transfer.to, transfer.units) == (raw_address(destination), units)
    till.settle()
    assert till.states() == ["settled"]
    assert till.has(destination, asset) == units
    assert till.balance(None, "network_fees") < 0
    assert till.balance(None, "network_fees", asset=asset) == 0


def test_a_token_that_takes_a_fee_and_destinations_that_lose_money_are_refused_at_the_request(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=ETHER)
    with pytest.raises(InvalidValue, match="takes a fee on transfer"):
        till.request(alice, ETHER, asset="FEEX")
    keyset = till.site.wallet
    assert keyset.payout is not None
    usdx = till.bundle.asset("USDX").contract
    for destination in ("0x" + "00" * 20, usdx, keyset.factory, keyset.payout):
        with pytest.raises(InvalidAddress):
            till.request(alice, 1000, destination=destination)
    # The key's own address is the house's, which the policy does not pay.
    house = till.request(alice, 1000, destination=keyset.address)
    till.route()
    assert till.withdrawal(house.id).state == "rejected"
    assert "destination-is-house" in till.withdrawal(house.id).reason
    assert till.balance(alice, "frozen") == 0


def test_native_payments_to_addresses_without_code_share_a_transaction_and_contracts_have_their_own(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER)
    destinations = [till.nobody() for _ in range(4)]
    for n, destination in enumerate(destinations):
        till.request(alice, ETHER + n, destination=destination)
    contract = till.request(alice, ETHER, destination=till.outside.wallet.address)
    batch = till.send()
    tx = till.tx_of(batch)
    assert tx.to == raw_address(till.site.wallet.payout or "")
    assert {(p.to, p.units) for p in decode_payout(tx.data)} == {
        (raw_address(destination), ETHER + n) for n, destination in enumerate(destinations)
    }
    assert tx.value_wei == 4 * ETHER + 6
    request = json.loads(till.transaction(batch).versions[0].request)
    assert len(request["intents"]) == len(request["evidence"]["orders"]) == 4
    alone = till.send()
    assert till.withdrawal(contract.id).transaction_id == alone
    assert till.tx_of(alone).nonce == 1
    assert till.tx_of(alone).gas_limit > 21_000
    till.settle()
    assert set(till.states()) == {"settled"}
    for n, destination in enumerate(destinations):
        assert till.has(destination) == ETHER + n


def test_a_batch_that_is_too_large_for_the_gas_cap_goes_in_parts(
    database: str, outside: TillOutside, tmp_path: Path
) -> None:
    caps = GasCaps(transfer=100_000, token=200_000, payout=160_000, sweep=6_000_000, execution=300_000)
    with open_evm_till(database, outside, tmp_path, network_gas_caps=caps) as till:
        till.fund()
        alice = till.customer("alice", ETH=20 * ETHER)
        for _ in range(5):
            till.request(alice, ETHER)
        sent = []
        till.route()
        while (built := till.build()) is not None:
            sent.append(built)
        assert 2 <= len(sent) <= 4
        till.sign()
        till.broadcast()
        assert all(till.tx_of(each).gas_limit <= 160_000 for each in sent)
        till.settle()
        assert till.states() == ["settled"] * 5


def test_what_the_key_cannot_cover_waits_with_the_reason_and_does_not_stop_others(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=200 * ETHER, USDX=50 * USDX)
    large = till.request(alice, 150 * ETHER)
    token = till.request(alice, 10 * USDX, asset="USDX")
    small = till.request(alice, ETHER)
    till.send()
    assert till.build() is None
    for waiting in (large, token):
        assert till.withdrawal(waiting.id).state == "queued"
        assert till.withdrawal(waiting.id).reason.startswith("insufficient-hot-funds")
    assert till.withdrawal(small.id).state == "broadcast"
    assert "tier.insufficient_funds" in till.alerts()
    till.fund("USDX", 10 * USDX)
    till.send()
    assert till.withdrawal(token.id).state == "broadcast"
    till.fund("ETH", 100 * ETHER)
    till.send()
    till.settle()
    assert set(till.states()) == {"settled"}


def test_money_that_is_on_its_way_out_is_not_paid_a_second_time(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=200 * ETHER)
    first = till.request(alice, 60 * ETHER)
    till.send()
    second = till.request(alice, 60 * ETHER)
    till.route()
    # Neither built, nor mined but not final: at the newest final block the money is still there.
    assert till.build() is None
    till.mine()
    till.track()
    assert till.withdrawal(first.id).state == "confirming"
    assert till.build() is None
    assert "insufficient-hot-funds" in till.withdrawal(second.id).reason
    till.settle()
    assert till.build() is None
    # Nor is what has arrived, and is not final.
    till.outside.send("ETH", till.keys.record.address, 60 * ETHER)
    till.mine()
    assert till.build() is None
    till.finalize()
    assert till.build() is not None


def test_nonces_are_taken_in_a_row_and_one_that_a_signer_refused_is_taken_again(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER, USDX=100 * USDX)
    till.fund("USDX", 100 * USDX)
    for _ in range(3):
        till.request(alice, USDX, asset="USDX")
    till.route()
    ids = [till.build() for _ in range(3)]
    assert [till.tx_of(each).nonce for each in ids if each is not None] == [0, 1, 2]
    assert till.build() is None
    till.adopt(2)  # the signer refuses intents of the old version
    assert till.sign() == []
    assert {till.transaction(each).state for each in ids if each is not None} == {"refused"}
    assert till.query("SELECT * FROM reservations") == []
    till.route()  # decided again, under the new one
    again = []
    while (built := till.build()) is not None:
        again.append(built)
        till.sign()
        till.broadcast()
    assert [till.tx_of(each).nonce for each in again] == [0, 1, 2]
    till.settle()
    assert till.states() == ["settled"] * 3


def test_only_so_many_transactions_wait_for_a_block_at_a_time(evm_till: EvmTill) -> None:
    till = evm_till
    till.pace = replace(EAGER, unconfirmed_at_most=2)
    alice = till.customer("alice", USDX=100 * USDX)
    till.fund("USDX", 100 * USDX)
    withdrawals = [till.request(alice, USDX, asset="USDX") for _ in range(3)]
    till.send()
    till.send()
    assert till.build() is None
    assert till.withdrawal(withdrawals[2].id).reason.startswith("queue-full")
    till.mine()
    till.track()
    till.send()
    till.settle()
    assert till.states() == ["settled"] * 3


def test_fees_above_the_cap_wait_and_a_ceiling_that_is_too_low_does_not_stop_others(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER, USDX=100 * USDX)
    till.fund("USDX", 100 * USDX)
    poor = till.request(alice, USDX, asset="USDX", fee_ceiling=str(GWEI))
    rich = till.request(alice, ETHER)
    till.route()
    till.price(300)
    assert till.build() is None
    assert all(till.withdrawal(w.id).reason.startswith("fees-above-cap") for w in (poor, rich))
    till.price(20)
    till.send()
    assert till.withdrawal(poor.id).reason.startswith("fee-ceiling")
    assert till.withdrawal(rich.id).state == "broadcast"
    offered = till.tx_of(till.withdrawal(rich.id).transaction_id or UUID(int=0))
    assert (offered.max_fee_per_gas_wei, offered.max_priority_fee_per_gas_wei) == (41 * GWEI, GWEI)
    till.settle()


def test_no_transaction_offers_more_than_its_orders_ceiling_pays_for(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER)
    till.price(20)
    till.request(alice, ETHER, fee_ceiling=str(21_000 * 30 * GWEI))
    transaction_id = till.send()
    assert till.tx_of(transaction_id).max_fee_per_gas_wei == 30 * GWEI
    till.price(21)
    with pytest.raises(BumpRefused, match="what orders allow"):
        till.bump(transaction_id)
    till.settle()
    assert till.states() == ["settled"]


def test_what_would_revert_is_not_signed_and_waits_with_an_alert_until_it_would_not(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    till.outside.falx.do(till.outside.payer, "setRefuses", False)
    alice = till.customer("alice", ETH=20 * ETHER, FALX=100)
    till.fund("FALX", 1000)
    refuser = deploy(till.anvil, till.outside.payer, outside_artifact("RevertingReceiver"))
    till.catch_up()
    reverting = till.request(alice, ETHER, destination=refuser.address)
    till.outside.falx.do(till.outside.payer, "setRefuses", True)
    till.catch_up()
    silent = till.request(alice, 100, asset="FALX")
    till.route()
    assert till.build() is None
    assert till.withdrawal(reverting.id).reason.startswith("would-revert")
    assert "says no, without failing" in till.withdrawal(silent.id).reason
    assert "withdrawal.would_revert" in till.alerts()
    assert till.query("SELECT * FROM transactions") == []
    till.outside.falx.do(till.outside.payer, "setRefuses", False)
    refuser.do(till.outside.payer, "setRefuses", False)
    till.catch_up()
    till.send()
    till.send()
    assert "withdrawal.would_revert" not in till.alerts()
    till.settle()
    assert till.states() == ["settled", "settled"]
    assert till.has(refuser.address) == ETHER


# -------------------------------------------------------------------------------------------------------
# bumps


def test_a_bump_has_the_same_nonce_pays_the_same_and_offers_an_eighth_more_of_both_fees(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER)
    till.price(2, 2)
    till.request(alice, ETHER)
    transaction_id = till.send()
    assert till.bump(transaction_id) == 2
    assert till.sign() == [transaction_id]
    till.broadcast()
    first, second = till.transaction(transaction_id).versions
    assert {first.txid, second.txid} & till.pool() == {second.txid}
    old, new = till.tx_of(transaction_id, 1), till.tx_of(transaction_id, 2)
    assert (new.nonce, new.to, new.value_wei, new.gas_limit) == (
        old.nonce,
        old.to,
        old.value_wei,
        old.gas_limit,
    )
    assert new.max_fee_per_gas_wei * 8 >= old.max_fee_per_gas_wei * 9
    assert new.max_priority_fee_per_gas_wei * 8 >= old.max_priority_fee_per_gas_wei * 9
    assert first.resources == second.resources
    till.settle()
    assert till.states() == ["settled"]
    assert till.transaction(transaction_id).confirmed_txid == second.txid


def test_a_bump_needs_a_higher_price_below_the_cap_and_an_unconfirmed_broadcast_transaction(
    evm_till: EvmTill,
) -> None:
    till = evm_till
    alice = till.customer("alice", ETH=20 * ETHER)
    till.price(10)
    till.request(alice, ETHER)
    till.route()
    transaction_id = till.build()
    assert transaction_id is not None
    with pytest.raises(BumpRefused, match="built"):
        till.bump(transaction_id)
    till.sign()
    before = till.contents()
    for feerate, reason in ((21 * GWEI, "already"), (201 * GWEI, "at most")):
        with pytest.raises(BumpRefused, match=reason):
            till.bump(transaction_id, feerate)
    assert till.contents() == before
    assert till.bump(transaction_id, 50 * GWEI) == 2
    assert till.tx_of(transaction_id, 2).max_fee_per_gas_wei == 50 * GWEI
    with pytest.raises(BumpRefused, match="waits for the signer"):
        till.bump(transaction_id)
    till.sign()
    till.broadcast()
    till.mine()
    till.track()
    with pytest.raises(BumpRefused, match="confirming"):
        till.bump(transaction_id)


def test_the_head_of_the_queue_is_replaced_first_and_alone(evm_till: EvmTill) -> None:
    till = evm_till
    till.pace = replace(EAGER, bump_after_blocks=2)
    alice = till.customer("alice", USDX=100 * USDX)
    till.fund("USDX", 100 * USDX)
    till.price(1)
    ids = []
    for _ in range(3):
        till.request(alice, USDX, asset="USDX")
        ids.append(till.send())
    for txid in till.pool():
        till.anvil.drop(txid)  # so that blocks come without them
    till.mine(2)
    assert till.bump_stuck() == 0  # it offers enough: sending it again is all that helps
    till.price(20)
    assert till.bump_stuck() == 1
    assert [len(till.transaction(each).versions) for each in ids] == [2, 1, 1]
    till.sign()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled"] * 3


def test_a_gap_that_a_refusal_left_is_taken_by_the_next_payment(evm_till: EvmTill) -> None:
    till = evm_till
    alice = till.customer("alice", USDX=100 * USDX)
    till.fund("USDX", 100 * USDX)
    first = till.request(alice, USDX, asset="USDX")
    till.route()
    refused = till.build()
    till.request(alice, 2 * USDX, asset="USDX")
    till.route()
    second = till.build()
    assert refused is not None
    assert second is not None
    # Only the first is refused: its order is over for the signer, and so it ends here too.
    till.refuse(refused)
    assert till.sign() == [second]
    till.broadcast()
    assert till.withdrawal(first.id).state == "queued"
    again = till.build()
    assert again is not None
    assert till.tx_of(again).nonce == 0
    till.sign()
    till.broadcast()
    till.settle()
    assert till.states() == ["settled", "settled"]
    assert {row["kind"] for row in till.query("SELECT kind FROM transactions")} == {Kind.PAYMENT}


def test_where_native_deposits_are_found_by_balances_payments_settle_and_the_books_agree_all_the_same(
    database: str, anvil: Anvil, tmp_path: Path
) -> None:
    with open_evm_till(database, TillOutside(anvil, NativeMode.BALANCE), tmp_path) as till:
        till.fund()
        till.enforce()  # what came to the key's address by no way we watch is booked to suspense
        alice = till.customer("alice", ETH=5 * ETHER, USDX=10 * USDX)
        till.fund("USDX", 10 * USDX)
        for units, asset in ((ETHER, "ETH"), (2 * ETHER, "ETH"), (USDX, "USDX")):
            till.request(alice, units, asset=asset)
        till.send()
        till.send()
        till.mine()
        till.track()
        till.check()
        till.settle()
        assert till.states() == ["settled"] * 3
        assert till.balance(alice) == 2 * ETHER - 2 * ETHER // 1000
        assert till.balance(alice, asset="USDX") == 8 * USDX
