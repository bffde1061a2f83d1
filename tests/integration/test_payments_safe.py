"""Warm payments on an EVM chain: owners of a Safe sign, each by its own judgement, and a gas payer carries it out.
A real Safe, node, database, monitor and guards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from chains.eth.network import NativeMode
from chains.eth.safe import join_signatures
from custody.errors import Conflict, DatabaseUnavailable
from custody.signing.errors import BumpRefused, NotAMember, Raced, WrongSignature
from custody.signing.sessions.service import bring, collect
from custody.storage import halts
from custody.storage.db import Database
from ops.devnet.anvil import Anvil
from tests.fakes.api import as_role
from tests.fakes.approving import Desk
from tests.fakes.evm_desk import ETHER, GWEI
from tests.fakes.evm_signing import EVM_CHAIN
from tests.fakes.safe_till import GAS_PAYER, LARGE, OWNERS, VAULT, SafeOutside, SafeTill
from tests.fakes.teller import opened

USDX = 10**6
FUNDED = 40 * ETHER


@pytest.fixture(scope="module", params=[NativeMode.TRACE, NativeMode.BALANCE], ids=["trace", "balance"])
def outside(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SafeOutside]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("payments-safe")) as node:
        yield SafeOutside(node, request.param)


@pytest.fixture
def till(database: str, outside: SafeOutside, tmp_path: Path) -> Iterator[SafeTill]:
    with opened(SafeTill(database, outside, tmp_path)) as till:
        till.customer("alice", ETH=30 * ETHER, USDX=9_000 * USDX, FALX=0, PAUX=20 * ETHER)
        till.fund_safe(ETH=FUNDED, USDX=20_000 * USDX, PAUX=20 * ETHER)
        yield till


def approved(till: SafeTill, units: int = LARGE["ETH"], **changes: Any) -> Any:
    """A large withdrawal that somebody has approved."""
    desk = Desk(till)  # type: ignore[arg-type]
    withdrawal = desk.request(units, **changes)
    desk.approve(withdrawal, "ada")
    till.route()
    return withdrawal


def built(till: SafeTill, units: int = LARGE["ETH"], **changes: Any) -> tuple[Any, UUID]:
    withdrawal = approved(till, units, **changes)
    transaction = till.build_safe()
    assert transaction is not None, till.withdrawal(withdrawal.id).reason
    return withdrawal, transaction


def complete(till: SafeTill, units: int = LARGE["ETH"], **changes: Any) -> tuple[Any, UUID]:
    withdrawal, transaction = built(till, units, **changes)
    assert till.collect() == [transaction]
    return withdrawal, transaction


def test_a_large_payment_is_signed_by_two_of_three_owners_and_carried_out_by_the_gas_payer(
    till: SafeTill,
) -> None:
    paid, transaction = complete(till, 7 * ETHER + 1)
    assert till.build() is None, "the hot key has nothing to do with it"
    assert till.txids_told(transaction) == [None], "what owners sign is no transaction of the chain"
    execution = till.send_execution()
    assert till.txids_told(transaction) == [till.transaction(execution).versions[0].txid]
    assert till.build_execution() is None, "one at a time"
    till.mine()
    till.check()
    till.track()
    assert till.withdrawal(paid.id).state == "confirming"
    till.settle()
    assert (till.withdrawal(paid.id).state, till.withdrawal(paid.id).tier) == ("settled", "warm")
    assert till.has(paid.destination) == 7 * ETHER + 1
    assert till.in_wallet(VAULT) == till.has(till.safe) == FUNDED - 7 * ETHER - 1
    [fee] = till.query("SELECT fee_units FROM consumptions WHERE fee_units IS NOT NULL")
    assert (
        till.in_wallet(GAS_PAYER) == till.has(till.gas.record.address) == ETHER // 2 - int(fee["fee_units"])
    )
    assert till.transaction(execution).state == till.transaction(transaction).state == "final"
    assert till.safe_nonce == 1
    before = till.contents()
    for step in (till.route, till.build_safe, till.collect, till.build_execution, till.track, till.fill_safe):
        step()
    assert till.contents() == before


def test_tokens_and_the_native_asset_follow_each_other_by_the_safes_nonces(till: SafeTill) -> None:
    first, one = complete(till)
    second, two = complete(till, LARGE["USDX"], asset="USDX")
    assert [till.message(each).tx.nonce for each in (one, two)] == [0, 1]
    till.send_execution()
    assert till.build_execution() is None, "the second would revert as long as the first is not mined"
    till.mine()
    till.track()
    till.send_execution()
    till.settle()
    assert {till.withdrawal(each.id).state for each in (first, second)} == {"settled"}
    assert till.has(second.destination, "USDX") == LARGE["USDX"]
    assert till.in_wallet(VAULT, "USDX") == 19_000 * USDX


def test_owners_sign_offline_in_any_order_and_what_is_not_theirs_is_kept_nowhere(till: SafeTill) -> None:
    paid, transaction = built(till)
    for member, response, error in (
        ("warm-a", till.by_hand(transaction, "warm-b"), WrongSignature),
        ("nobody", till.by_hand(transaction, "warm-b"), NotAMember),
    ):
        with pytest.raises(error):
            till.bring(transaction, member, response)
    assert till.query("SELECT * FROM session_members") == []
    till.bring(transaction, "warm-c")
    till.bring(transaction, "warm-c")
    assert till.transaction(transaction).state == "built"
    assert till.build_execution() is None, "one of two"
    till.bring(transaction, "warm-a")
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"


def test_what_an_owner_signed_before_the_bundle_dropped_him_is_not_used(till: SafeTill) -> None:
    _, transaction = built(till)
    till.bring(transaction, OWNERS[0])
    vault = till.safe_site.wallet
    fewer = replace(till.safe_site, wallet=msgspec.structs.replace(vault, owners=vault.owners[1:]))
    version = till.transaction(transaction).versions[0]
    bring(till.db, fewer, version, OWNERS[1], till.by_hand(transaction, OWNERS[1]))
    assert till.transaction(transaction).state == "built", "one of both counts no more"
    higher = replace(till.safe_site, wallet=msgspec.structs.replace(vault, threshold=3))
    assert collect(till.db, higher, {}, [till.verifier]) == []
    bring(till.db, fewer, version, OWNERS[2], till.by_hand(transaction, OWNERS[2]))
    assert till.transaction(transaction).state == "broadcast"


def test_a_payment_that_would_fail_is_not_asked_for_and_waits_with_its_reason(till: SafeTill) -> None:
    till.outside.paux.do(till.outside.payer, "setPaused", True)
    stopped = approved(till, LARGE["PAUX"], asset="PAUX")
    assert till.build_safe() is None
    assert till.withdrawal(stopped.id).reason.startswith("would-revert")
    assert "withdrawal.would_revert" in till.alerts()
    large = approved(till, 30 * ETHER - ETHER // 1000)
    till.build_execution()
    assert till.build_safe() is not None
    assert till.withdrawal(large.id).state == "signing"
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    assert till.build_safe() is not None
    assert till.withdrawal(stopped.id).state == "signing"


def test_what_the_safe_cannot_pay_waits_and_money_on_its_way_out_is_counted(till: SafeTill) -> None:
    till.customer("bob", ETH=90 * ETHER)
    complete(till, 25 * ETHER)
    more = approved(till, 25 * ETHER, customer="bob")
    assert till.build_safe() is None
    assert till.withdrawal(more.id).reason.startswith("insufficient-warm-funds")
    till.fund_safe(ETH=20 * ETHER)
    assert till.build_safe() is not None


def test_fault_23_an_execution_whose_call_fails_uses_no_nonce_and_the_same_bytes_are_sent_again(
    till: SafeTill,
) -> None:
    """GS013: with safeTxGas and gasPrice of zero the whole reverts. The owners need not sign again."""
    paid, transaction = complete(till, LARGE["PAUX"], asset="PAUX")
    first = till.build_execution()
    assert first is not None
    assert till.sign_execution() == [first]
    till.outside.paux.do(till.outside.payer, "setPaused", True)
    till.broadcast_execution()
    till.mine()
    till.track()
    assert till.transaction(first).state == "confirming", "mined, and failed"
    assert till.safe_nonce == 0
    till.settle()
    assert till.transaction(first).state == "dead"
    assert till.withdrawal(paid.id).state == "broadcast", "its hold stays: it may be carried out any time"
    till.try_again_now()
    assert till.build_execution() is None, "tried on the node first"
    assert "execution.waits" in till.alerts()
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.try_again_now()
    second = till.send_execution()
    assert second != first
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert "execution.waits" not in till.alerts()
    rows = till.query("SELECT serves, attempt FROM executions ORDER BY attempt")
    assert [(row["serves"], row["attempt"]) for row in rows] == [(transaction, 1), (transaction, 2)]


def test_fault_2_what_somebody_else_has_carried_out_is_paid_once_and_our_execution_does_no_harm(
    till: SafeTill,
) -> None:
    """Whoever sees the call in the mempool may send it himself."""
    paid, transaction = complete(till)
    execution = till.build_execution()
    assert execution is not None
    signed = till.transaction(transaction).versions[0].signed
    assert signed is not None
    till.anvil.transact(till.outside.payer, till.safe, signed, gas=400_000)
    till.mine()
    till.sign_execution()
    till.broadcast_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.has(paid.destination) == LARGE["ETH"]
    assert till.transaction(execution).state == "dead"
    assert till.halted() is None
    till.try_again_now()
    assert till.build_execution() is None


def test_fault_9_an_execution_that_a_reorg_drops_is_sent_again_and_pays_once(till: SafeTill) -> None:
    paid, transaction = complete(till)
    execution = till.send_execution()
    till.mine()
    till.track()
    till.reorg(1)
    till.track()
    assert till.transaction(transaction).state == till.transaction(execution).state == "broadcast"
    assert till.withdrawal(paid.id).state == "broadcast"
    till.broadcast_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.has(paid.destination) == LARGE["ETH"]


def test_an_abandoned_payment_loses_its_nonce_to_the_next_and_only_one_of_both_confirms(
    till: SafeTill,
) -> None:
    """WazirX 2024: what was signed and given up is made unusable."""
    given_up, old = complete(till)
    till.abandon(old)
    assert till.transaction(old).state == "contested"
    assert till.build_execution() is None, "given up"
    kept, new = complete(till, LARGE["ETH"] + 1)
    assert till.message(new).tx.nonce == till.message(old).tx.nonce == 0
    assert till.withdrawal(given_up.id).state == "broadcast", "it may be carried out until that is final"
    till.send_execution()
    till.settle()
    assert till.withdrawal(kept.id).state == "settled"
    assert till.withdrawal(given_up.id).state == "failed"
    assert till.has(given_up.destination) == 0
    assert till.balance("alice", "frozen") == 0
    with pytest.raises(BumpRefused):
        till.abandon(old)


def test_a_payment_word_for_word_like_an_abandoned_one_takes_the_nonce_after_it(till: SafeTill) -> None:
    """With one nonce owners' signatures of the first would carry out the second, and nobody knew whom it paid."""
    given_up, old = complete(till)
    till.abandon(old)
    again, new = built(till, destination=given_up.destination)
    assert till.message(old).tx.nonce == 0
    assert till.message(new).tx == replace(till.message(old).tx, nonce=1)
    assert till.query("SELECT 1 FROM transactions WHERE kind = 'cancellation'"), (
        "nothing takes the nonce before it"
    )
    assert len(till.collect()) == 2
    for _ in range(2):
        till.send_execution()
        till.settle()
    assert till.withdrawal(given_up.id).state == "failed"
    assert till.withdrawal(again.id).state == "settled"
    assert till.has(given_up.destination) == LARGE["ETH"], "once"
    assert till.balance("alice", "frozen") == 0


def test_fault_6_an_abandoned_payment_that_is_carried_out_all_the_same_is_paid_and_its_rival_is_dead(
    till: SafeTill,
) -> None:
    given_up, old = complete(till)
    signed = till.transaction(old).versions[0].signed
    assert signed is not None
    till.abandon(old)
    rival, new = complete(till, LARGE["ETH"] + 1)
    till.anvil.transact(till.outside.payer, till.safe, signed, gas=400_000)
    till.settle()
    assert till.withdrawal(given_up.id).state == "settled"
    assert till.withdrawal(rival.id).state == "failed"
    assert till.transaction(new).state == "dead"
    assert till.halted() is None


def test_what_is_given_up_is_asked_of_no_owner_any_more(till: SafeTill) -> None:
    _, old = built(till)
    assert till.collect(["warm-a"]) == []
    till.abandon(old)
    assert till.collect() == []
    rows = till.query("SELECT member FROM session_members WHERE response IS NOT NULL")
    assert [row["member"] for row in rows] == ["warm-a"]
    # What was signed elsewhere in time arrives late: it is kept, and not sent.
    till.bring(old, "warm-b")
    assert till.transaction(old).state == "contested"
    assert till.build_execution() is None


def test_a_cancelled_payment_frees_its_hold_once_the_nonce_is_used_by_nothing(till: SafeTill) -> None:
    paid, old = complete(till)
    nothing = till.cancel(old)
    message = till.message(nothing)
    assert (message.tx.to, message.tx.value_wei, message.tx.data) == (message.safe, 0, b"")
    assert message.tx.nonce == till.message(old).tx.nonce
    assert till.collect() == [nothing], "the owners' signers know a cancellation"
    till.send_execution()
    till.mine()
    till.track()
    assert till.withdrawal(paid.id).state == "broadcast", "not final yet"
    till.settle()
    assert till.withdrawal(paid.id).state == "failed"
    assert till.transaction(nothing).state == "final"
    assert till.balance("alice", "frozen") == 0
    assert till.has(paid.destination) == 0
    assert till.in_wallet(VAULT) == FUNDED


def test_what_was_abandoned_is_cancelled_later_where_no_other_payment_comes_to_take_its_nonce(
    till: SafeTill,
) -> None:
    """Without that its hold would stay for as long as the Safe pays nobody else."""
    paid, old = complete(till)
    till.abandon(old)
    nothing = till.cancel(old)
    with pytest.raises(BumpRefused, match="takes its nonce already"):
        till.cancel(old)
    assert till.collect() == [nothing]
    till.send_execution()
    till.mine()
    till.track()
    with pytest.raises(BumpRefused, match="a block has used"):
        till.cancel(old)
    till.settle()
    assert till.withdrawal(paid.id).state == "failed"
    assert till.balance("alice", "frozen") == 0


def test_fault_21_a_nonce_that_was_refused_below_complete_ones_is_filled_by_nothing(till: SafeTill) -> None:
    """A hole at the Safe's head stops all that owners have signed after it."""
    refused, first = built(till)
    later, second = complete_second(till)
    till.refuse_all(first)
    assert till.withdrawal(refused.id).state == "queued"
    assert till.build_execution() is None, "the second has to wait for a nonce that nobody uses"
    filler = till.fill_safe()
    assert filler is not None
    assert till.message(filler).tx.nonce == 0
    assert till.fill_safe() is None
    assert till.collect() == [filler]
    till.send_execution()
    till.mine()
    till.track()
    till.send_execution()
    till.settle()
    assert till.withdrawal(later.id).state == "settled"
    assert till.transaction(second).state == "final"


def complete_second(till: SafeTill) -> tuple[Any, UUID]:
    """A further payment, of which the first owners' signatures are brought by hand."""
    withdrawal, transaction = built(till, LARGE["ETH"] + 1)
    for owner in ("warm-a", "warm-b"):
        till.bring(transaction, owner)
    return withdrawal, transaction


def test_what_a_halt_stops_is_not_carried_out_and_goes_on_when_it_is_lifted(till: SafeTill) -> None:
    paid, _ = complete(till)
    with till.admin.transaction() as tx:
        halts.halt(tx, halts.ALL, "the test wants it")
    assert till.build_execution() is None
    till.lift_halt()
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"


@pytest.mark.parametrize(
    "scope", ["all", f"chain:{EVM_CHAIN}", "tier:warm", f"wallet:{VAULT}", "asset:ETH", "customer:alice"]
)
def test_what_an_officer_freezes_is_neither_recorded_nor_signed_nor_sent_and_goes_on_after_the_thaw(
    till: SafeTill, scope: str
) -> None:
    scopes: tuple[str, ...] = ()
    till.db.close()
    till.db = Database(
        as_role(till.dsn, "strongroom_worker"), application="worker", pool_size=4, frozen=lambda: scopes
    )
    paid, _ = complete(till)
    scopes = (scope,)
    assert till.build_execution() is None
    scopes = ("tier:cold", "wallet:another", "customer:bob", "asset:USDX")
    till.try_again_now()
    execution = till.build_execution()
    assert execution is not None
    scopes = (scope,)
    assert till.sign_execution() == []
    scopes = ()
    assert till.sign_execution() == [execution]
    scopes = (scope,)
    assert till.broadcast_execution() == 0
    assert till.safe_nonce == 0
    scopes = ()
    assert till.broadcast_execution() == 1
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert "execution.waits" not in till.alerts()


def test_a_halt_of_the_asset_holds_an_execution_that_is_recorded_and_says_so(till: SafeTill) -> None:
    paid, _ = complete(till)
    with till.admin.transaction() as tx:
        halts.halt(tx, halts.of_asset("ETH"), "the test wants it")
    assert till.build_execution() is None
    assert "execution.waits" in till.alerts()
    with till.admin.transaction() as tx:
        halts.lift(tx, halts.of_asset("ETH"))
    till.try_again_now()
    execution = till.build_execution()
    assert till.sign_execution() == [execution]
    with till.admin.transaction() as tx:
        halts.halt(tx, halts.of_asset("ETH"), "the test wants it")
    assert till.broadcast_execution() == 0
    with till.admin.transaction() as tx:
        halts.lift(tx, halts.of_asset("ETH"))
    assert till.broadcast_execution() == 1
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert "execution.waits" not in till.alerts()


def test_a_gas_payer_without_money_waits_says_so_and_goes_on_with_it(till: SafeTill) -> None:
    till.anvil.rpc("anvil_setBalance", till.gas.record.address, "0x0")
    till.finalize()
    till.enforce()
    till.lift_halt()
    paid, _ = complete(till)
    assert till.build_execution() is None
    assert "execution.waits" in till.alerts()
    [row] = till.query("SELECT last_error FROM transactions WHERE keyset = %s", VAULT)
    assert row["last_error"].startswith("insufficient-gas")
    till.anvil.rpc("anvil_setBalance", till.gas.record.address, hex(ETHER // 2))
    till.finalize()
    till.try_again_now()
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"


def test_fault_18_of_many_workers_one_builds_and_one_carries_out(till: SafeTill) -> None:
    first, second = approved(till), approved(till, LARGE["ETH"] + 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: quietly(till.build_safe), range(16)))
        waiting = [row["id"] for row in till.query("SELECT id FROM transactions WHERE keyset = %s", VAULT)]
        assert sorted(till.message(each).tx.nonce for each in waiting) == list(range(len(waiting)))
        while len(waiting) < 2:
            built_now = till.build_safe()
            assert built_now is not None
            waiting.append(built_now)
        assert sorted(till.collect(), key=str) == sorted(waiting, key=str)
        list(pool.map(lambda _: quietly(till.build_execution), range(16)))
    assert len(till.query("SELECT * FROM executions")) <= 1
    while {till.withdrawal(each.id).state for each in (first, second)} != {"settled"}:
        till.build_execution()
        till.sign_execution()
        till.broadcast_execution()
        till.settle()
    rows = till.query("SELECT serves, count(*) AS n FROM executions GROUP BY serves")
    assert [row["n"] for row in rows] == [1, 1]
    assert till.safe_nonce == 2


def quietly(do: Callable[[], object]) -> None:
    """Of workers who race, those who lose try again later."""
    with suppress(Conflict, DatabaseUnavailable, Raced):
        do()


def test_fault_3_an_answer_that_was_lost_makes_no_second_execution(till: SafeTill) -> None:
    paid, _ = complete(till)
    execution = till.build_execution()
    assert execution is not None
    assert till.sign_execution() == [execution]
    # Sent, and nobody noted it: the same bytes go again, and nothing new is made.
    till.anvil.send_raw("0x" + till.raw_of(execution).hex())
    assert till.build_execution() is None
    till.broadcast_execution()
    till.try_again_now()
    till.broadcast_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert len(till.query("SELECT * FROM executions")) == 1


def test_fault_27_an_execution_stuck_below_the_price_of_gas_is_replaced_and_pays_once(till: SafeTill) -> None:
    paid, transaction = complete(till)
    till.price(1)
    execution = till.send_execution()
    till.anvil.rpc("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
    till.price(20, 2)
    assert till.bump_execution(execution) == 2
    assert till.sign_execution() == [execution]
    till.broadcast_execution()
    one, two = (till.tx_of(execution, number) for number in (1, 2))
    assert (one.nonce, one.data, one.to) == (two.nonce, two.data, two.to)
    assert two.max_fee_per_gas_wei > one.max_fee_per_gas_wei
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.transaction(execution).state == till.transaction(transaction).state == "final"


def test_fault_28_the_older_version_of_a_bumped_execution_confirms_and_its_own_fee_is_booked(
    till: SafeTill,
) -> None:
    paid, _ = complete(till)
    till.price(10)
    execution = till.send_execution()
    assert till.bump_execution(execution) == 2
    assert till.sign_execution() == [execution]
    till.settle()  # the newer one was never sent
    assert till.withdrawal(paid.id).state == "settled"
    assert till.transaction(execution).confirmed_txid == till.transaction(execution).versions[0].txid
    assert till.in_wallet(GAS_PAYER) == till.has(till.gas.record.address)


def test_fault_8_a_payment_whose_final_block_a_reorg_removes_is_taken_back_and_paid_once_again(
    till: SafeTill,
) -> None:
    paid, transaction = complete(till)
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    removed = till.reorg(2 * till.anvil.slots_in_an_epoch + 2)
    till.track()
    assert till.transaction(transaction).state == "broadcast"
    assert till.withdrawal(paid.id).state == "broadcast"
    for raw in removed:
        till.anvil.send_raw(raw)
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.has(paid.destination) == LARGE["ETH"]
    assert till.safe_nonce == 1


def test_what_owners_carry_out_past_us_is_paid_once_it_is_final_though_we_never_had_their_signatures(
    till: SafeTill,
) -> None:
    """Holders of a cold Safe need none of our programs."""
    paid, transaction = built(till)
    message = till.message(transaction)
    blob = join_signatures(
        message.signing_hash,
        [
            bytes.fromhex(till.by_hand(transaction, name).signatures[0].signature)
            for name in ("warm-a", "warm-c")
        ],
    )
    till.anvil.transact(till.outside.payer, till.safe, message.tx.execution(blob), gas=400_000)
    till.mine()
    till.track()
    assert till.withdrawal(paid.id).state == "signing"
    assert till.halted() is None, "it is ours"
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
    assert till.has(paid.destination) == LARGE["ETH"]
    assert till.collect() == []
    # A reorg takes it back: now the signatures are needed, and asked for.
    till.reorg(2 * till.anvil.slots_in_an_epoch + 3)
    till.track()
    assert till.withdrawal(paid.id).state == "broadcast"
    assert till.collect() == [transaction]
    till.send_execution()
    till.settle()
    assert till.withdrawal(paid.id).state == "settled"
