"""Flushing forwarders on anvil: batches, floors, gas, odd tokens, crashes and reorgs; the books stay exact."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psycopg
import pytest
from typer.testing import CliRunner, Result

from chains.errors import NodeUnavailable, TransientError
from chains.eth.address import raw_address
from chains.eth.call import Call, Reverted
from chains.eth.forwarder import decode_flush, flush_calldata, index_of, salt_of
from chains.eth.tx import UnsignedTx
from chains.ports import BroadcastResult
from custody.console.app import app
from custody.console.operator import operator
from custody.signing.requests import read_request
from custody.sweeps.lifecycle import SweepState
from custody.sweeps.model import SweepPace
from ops.devnet.anvil import Anvil
from signers.ports import Reason, Refused, SignRequest, SignResponse
from tests.fakes.desk import as_role
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, GWEI
from tests.fakes.operators import client_file
from tests.fakes.sweep_till import AT_ONCE, USDX, SweepOutside, SweepTill, open_sweep_till

GOOD = ("USDX", 60 * USDX)


@pytest.fixture(scope="module")
def outside(anvil: Anvil) -> SweepOutside:
    return SweepOutside(anvil)


@pytest.fixture
def till(database: str, outside: SweepOutside, tmp_path: Path) -> Iterator[SweepTill]:
    with open_sweep_till(database, outside, tmp_path) as opened:
        opened.enrol("alice")
        yield opened


def flush_of(till: SweepTill) -> tuple[UnsignedTx, list[int]]:
    """The newest sweep's transaction, and the indexes of the forwarders that it flushes."""
    sweep = till.last()
    assert sweep.transaction_id is not None
    tx = UnsignedTx.decode(till.transaction(sweep.transaction_id).versions[0].unsigned)
    return tx, [index_of(salt) for salt in decode_flush(tx.data).salts]


# ------------------------------------------------------------------------------------------------ what is swept


def test_ten_forwarders_of_a_token_are_flushed_in_one_transaction_and_the_books_stay_exact(
    till: SweepTill,
) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 10, GOOD)
    assert till.sweep() == 1
    planned = till.last()
    assert (planned.state, planned.reason, planned.addresses) == (SweepState.SIGNING, "floor", 10)
    assert planned.units == {"ETH": 0, "USDX": 600 * USDX}
    tx, indexes = flush_of(till)
    assert indexes == [row.index for row in rows]
    assert tx.value_wei == 0
    assert till.sweep() == 0, "none of them is in two open sweeps"
    till.sign()
    assert till.last().state is SweepState.BROADCAST
    till.broadcast()
    till.mine()
    till.track()
    till.check()
    assert till.last().state is SweepState.BROADCAST, "mined, not final"
    assert {state for _, state in till.deposits(*rows)} == {"credited"}
    till.settle()
    assert till.last().state is SweepState.CONFIRMED
    till.look_back()
    assert set(till.deposits(*rows)) == {("USDX", "swept")}
    assert till.has(till.treasury, "USDX") == 600 * USDX
    assert till.balance("alice", asset="USDX") == 600 * USDX
    [fact] = till.query("SELECT fee_units FROM consumptions")
    assert (
        till.balance(None, "network_fees", "ETH") == -int(fact["fee_units"]) == -(till.last().fee_units or 0)
    )
    assert till.balance(None, "network_fees", "USDX") == 0
    before = till.contents()
    till.track()
    assert till.sweep() == 0
    assert till.contents() == before, "again changes nothing"


def test_a_forwarder_that_exists_is_flushed_again_for_less_gas(till: SweepTill) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    till.sweep_through()
    first = till.last().fee_units
    till.deposit(row, ("USDX", 70 * USDX))
    till.sweep_through()
    assert [state for _, state in till.deposits(row)] == ["swept", "swept"]
    assert first is not None
    assert (till.last().fee_units or 0) < first
    assert till.has(till.treasury, "USDX") == 130 * USDX


def test_native_money_and_tokens_of_one_forwarder_move_together(till: SweepTill) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 2, GOOD, ("NORX", 80 * USDX), ("ETH", ETHER // 10))
    till.sweep_through()
    assert {state for _, state in till.deposits(*rows)} == {"swept"}
    assert len(till.sweeps()) == 1
    assert till.has(till.treasury, "NORX") == 160 * USDX
    assert all(till.has(row.address, asset) == 0 for row in rows for asset in ("ETH", "USDX", "NORX"))


def test_few_forwarders_with_different_assets_share_a_transaction_for_less_gas_than_two(
    till: SweepTill,
) -> None:
    till.fund_gas()

    def gas(*, shared: bool) -> int:
        """For five forwarders with native money and five with a token."""
        before = len(till.sweeps())
        rows = till.forwarders("alice", 5, ("ETH", ETHER // 10))
        if not shared:
            till.sweep_through()
        rows += till.forwarders("alice", 5, GOOD)
        till.sweep_through()
        assert {state for _, state in till.deposits(*rows)} == {"swept"}
        made = till.sweeps()[before:]
        assert [sweep.addresses for sweep in made] == ([10] if shared else [5, 5])
        receipts = [till.anvil.rpc("eth_getTransactionReceipt", f"0x{sweep.txid}") for sweep in made]
        return sum(int(receipt["gasUsed"], 16) for receipt in receipts)

    gas(shared=False)  # the treasury's first token costs more
    apart = gas(shared=False)
    assert gas(shared=True) < apart
    till.check()


def test_fault_24_a_token_that_eats_all_gas_does_not_keep_those_it_shares_with(till: SweepTill) -> None:
    """It says that everybody has some of it, so a forwarder that is asked for it in vain fails as well."""
    till.fund_gas()
    native = till.forwarders("alice", 2, ("ETH", ETHER // 10))
    eaten = till.forwarders("alice", 2, ("PAUX", 90 * USDX))
    address = till.outside.paux.address
    code = till.anvil.rpc("eth_getCode", address, "latest")
    # balanceOf: 90 PAUX; transfer (68 bytes of calldata): INVALID.
    till.anvil.rpc("anvil_setCode", address, "0x3660441460145763055d4a8060005260206000f35bfe")
    try:
        till.sweep_through()
    finally:
        till.anvil.rpc("anvil_setCode", address, code)
    assert set(till.deposits(*native)) == {("ETH", "swept")}
    assert set(till.deposits(*eaten)) == {("PAUX", "credited")}


def test_what_is_below_its_floor_stays_until_it_is_old_and_gas_is_cheap(till: SweepTill) -> None:
    till.fund_gas()
    [dust, small] = till.forwarders("alice", 1, ("USDX", USDX)) + till.forwarders(
        "alice", 1, ("ETH", ETHER // 50)
    )
    assert till.sweep() == 0
    week = AT_ONCE.sweep_after_seconds
    cheap = replace(AT_ONCE, long_term_wei_per_gas=10**15)
    assert till.sweep(cheap, later_seconds=week - 60) == 0
    assert till.sweep(replace(AT_ONCE, long_term_wei_per_gas=1), later_seconds=week) == 1, (
        "ETH knows its worth"
    )
    assert till.last().reason == "old"
    _, indexes = flush_of(till)
    assert indexes == [small.index]
    assert till.sweep(cheap, later_seconds=week) == 1
    _, indexes = flush_of(till)
    assert indexes == [dust.index]


def test_native_money_of_less_than_its_fee_is_not_swept_at_any_age(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 3, ("ETH", 10**12))
    assert till.sweep(later_seconds=10 * AT_ONCE.sweep_after_seconds) == 0


def test_what_waits_for_company_is_swept_with_it(till: SweepTill) -> None:
    till.fund_gas()
    pace = SweepPace(gather_seconds=300)
    till.forwarders("alice", 2, GOOD)
    assert till.sweep(pace) == 0
    till.forwarders("alice", 3, GOOD)
    assert till.sweep(pace, later_seconds=301) == 1
    assert till.last().addresses == 5


def test_withdrawals_that_lack_funds_bring_the_sweep_forward(till: SweepTill) -> None:
    till.fund_gas()
    pace = SweepPace(gather_seconds=10**6)
    till.forwarders("alice", 2, GOOD)
    till.request("alice", 100 * USDX, asset="USDX")
    assert till.sweep(pace) == 0
    till.route()
    assert till.build() is None
    [waiting] = till.query("SELECT reason FROM withdrawals")
    assert waiting["reason"].startswith("insufficient-hot-funds")
    till.sweep_through(pace)
    assert till.last().reason == "needed"
    till.send()
    till.settle()
    assert till.states() == ["settled"]


def test_batches_hold_no_more_than_the_caps_allow(till: SweepTill) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 7, GOOD)
    assert till.sweep(replace(AT_ONCE, max_forwarders=3)) == 3
    assert sorted(sweep.addresses for sweep in till.sweeps()) == [1, 3, 3]
    till.sign()
    till.broadcast()
    till.settle()
    till.look_back()
    assert {state for _, state in till.deposits(*rows)} == {"swept"}
    more = till.forwarders("alice", 4, GOOD)
    till.adopt(2, network_gas_caps=replace_gas(till, sweep=300_000))
    assert till.sweep() >= 2
    assert all(flush_of(till)[0].gas_limit <= 300_000 for _ in more)


def replace_gas(till: SweepTill, **changes: int) -> object:
    return msgspec.structs.replace(till.site.network.gas_caps, **changes)


def test_tokens_that_take_a_fee_on_transfers_stay_where_they_are(till: SweepTill) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, ("FEEX", 100 * ETHER), GOOD)
    till.sweep_through()
    assert dict(till.deposits(row)) == {"FEEX": "credited", "USDX": "swept"}
    assert till.has(row.address, "FEEX") == 99 * ETHER


# ------------------------------------------------------------------------------------------------------- held money


def test_a_forwarder_with_a_held_deposit_is_not_touched_until_that_is_decided(till: SweepTill) -> None:
    till.fund_gas()
    till.suspicious.amounts = {77 * USDX}
    [held, clean] = till.forwarders("alice", 2, GOOD)
    till.deposit(held, ("USDX", 77 * USDX))
    assert [state for _, state in till.deposits(held)] == ["credited", "held"]
    assert till.sweep() == 1
    assert flush_of(till)[1] == [clean.index]
    till.release_cases()
    till.mine()
    assert till.sweep() == 1
    assert flush_of(till)[1] == [held.index]


def test_a_held_token_stays_while_all_else_of_its_forwarder_is_swept(till: SweepTill) -> None:
    till.fund_gas()
    till.suspicious.amounts = {7 * USDX}
    [row] = till.forwarders("alice", 1, GOOD, ("NORX", 80 * USDX), ("ETH", ETHER // 10))
    [good] = till.forwarders("alice", 1, GOOD)
    till.deposit(row, ("USDX", 7 * USDX))
    assert [state for _, state in till.deposits(row)].count("held") == 1
    while till.sweep():
        till.sign()
        till.broadcast()
        till.settle()
    till.look_back()
    assert till.deposits(good) == [("USDX", "swept")]
    assert sorted(till.deposits(row)) == [
        ("ETH", "swept"),
        ("NORX", "swept"),
        ("USDX", "credited"),
        ("USDX", "held"),
    ]
    assert till.has(row.address, "USDX") == 67 * USDX
    till.check()


def test_held_native_money_keeps_its_forwarder_until_it_is_quarantined_and_then_moves_as_nobodys(
    till: SweepTill,
) -> None:
    """Quarantine is about the money, and final: where that lies does not matter, nor whom else it would hold up."""
    till.fund_gas()
    till.suspicious.amounts = {7_777}
    [row] = till.forwarders("alice", 1, GOOD, ("ETH", ETHER // 10))
    till.deposit(row, ("ETH", 7_777))
    assert till.sweep() == 0
    till.refuse_cases()
    till.sweep_through()
    assert sorted(till.deposits(row)) == [("ETH", "quarantined"), ("ETH", "swept"), ("USDX", "swept")]
    assert till.has(row.address, "ETH") == 0
    assert till.balance("alice", asset="ETH") == ETHER // 10
    [statement] = [each for each in till.reconcile().statements if each.key.asset == "ETH"]
    assert statement.uncredited == {"quarantined": 7_777}
    till.check()
    # What comes later is swept, and one that a token refuses is seen to have stayed.
    till.suspicious.amounts = {9 * USDX}
    till.deposit(row, ("PAUX", 9 * USDX), ("PAUX", 90 * USDX))
    till.refuse_cases()
    till.sweep_through()
    till.deposit(row, ("PAUX", 90 * USDX))
    till.outside.paux.do(till.outside.payer, "setPaused", True)
    till.sweep_through()
    assert "sweep.left_behind" in till.alerts()
    till.outside.paux.do(till.outside.payer, "setPaused", False)
    till.sweep_through(later_seconds=AT_ONCE.retry_seconds + 5)
    assert [state for asset, state in till.deposits(row) if asset == "PAUX"].count("swept") == 2


def test_a_held_deposit_that_comes_between_plan_and_flush_is_moved_and_the_books_stay_right(
    till: SweepTill,
) -> None:
    """A flush takes all there is. The deposit stays held, is in no balance, and is credited or kept like any other;
    once it is credited it counts as swept, for its forwarder is empty."""
    till.fund_gas()
    till.suspicious.amounts = {77 * USDX}
    [row] = till.forwarders("alice", 1, GOOD)
    assert till.sweep() == 1
    till.deposit(row, ("USDX", 77 * USDX))
    assert [state for _, state in till.deposits(row)] == ["credited", "held"]
    till.sign()
    till.broadcast()
    till.settle()
    till.look_back()
    assert till.has(row.address, "USDX") == 0
    assert till.has(till.treasury, "USDX") == 137 * USDX
    assert [state for _, state in till.deposits(row)] == ["swept", "held"]
    assert till.balance("alice", asset="USDX") == 60 * USDX
    till.check()
    till.release_cases()
    till.mine()
    assert till.balance("alice", asset="USDX") == 137 * USDX
    assert till.sweep() == 0, "there is nothing to move"
    assert [state for _, state in till.deposits(row)] == ["swept", "swept"]


def test_a_deposit_that_is_held_while_the_sweep_is_planned_stops_it(till: SweepTill) -> None:
    till.fund_gas()
    till.suspicious.amounts = {77 * USDX}
    [row] = till.forwarders("alice", 1, GOOD)
    node = till.node
    seen: list[int] = []

    def nonce(address: bytes, at: object) -> int:
        if not seen:
            seen.append(1)
            till.deposit(row, ("USDX", 77 * USDX))
        return type(node).nonce(node, address, at)  # type: ignore[arg-type]

    node.nonce = nonce  # type: ignore[method-assign]
    assert till.sweep() == 0
    assert till.sweeps() == []
    assert till.query("SELECT * FROM reservations") == []


# --------------------------------------------------------------------------------------------------------------- gas


def test_tokens_are_not_swept_before_their_gas_is_there(till: SweepTill) -> None:
    """peatio #2495: gas that has not confirmed is none."""
    [row] = till.forwarders("alice", 1, GOOD)
    assert till.sweep() == 0
    assert till.sweeps() == []
    assert "sweep.no_gas" in till.alerts()
    till.outside.send("ETH", till.treasury, ETHER)
    assert till.sweep() == 0, "in the pool"
    till.mine()
    assert till.sweep() == 0, "mined, not final"
    till.finalize()
    till.sweep_through()
    assert "sweep.no_gas" not in till.alerts()
    assert till.deposits(row) == [("USDX", "swept")]


def test_gas_is_sized_for_all_that_the_flush_moves_however_the_deposit_was_split(till: SweepTill) -> None:
    """peatio #2155: many small deposits in several assets of one forwarder are one flush, and it suffices."""
    till.fund_gas()
    row = till.forwarder("alice")
    till.deposit(row, *[("USDX", 20 * USDX)] * 5, *[("NORX", 30 * USDX)] * 3, ("ETH", ETHER // 10))
    till.sweep_through()
    assert {state for _, state in till.deposits(row)} == {"swept"}
    tx, _ = flush_of(till)
    [fact] = till.query("SELECT succeeded FROM consumptions")
    assert fact["succeeded"]
    assert tx.gas_limit <= till.site.network.gas_caps.sweep


def test_gas_above_the_cap_sweeps_nothing(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 1, ("USDX", 10**6 * USDX))
    till.anvil.set_next_base_fee(till.site.network.feerate_cap + 1)
    assert till.sweep() == 0
    till.anvil.set_next_base_fee(GWEI)
    assert till.sweep() == 1


def test_a_batch_is_as_large_as_the_cap_of_fees_allows_at_this_price(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 6, GOOD)
    till.adopt(2, network_fee_cap=str(300_000 * 10 * GWEI))
    till.anvil.set_next_base_fee(9 * GWEI)
    assert till.sweep() >= 2
    assert sum(sweep.addresses for sweep in till.sweeps()) == 6
    till.sign()
    assert {sweep.state for sweep in till.sweeps()} == {SweepState.BROADCAST}


def test_fault_29_a_flood_of_dust_costs_no_fee(till: SweepTill) -> None:
    """2,000 forwarders with dust: nothing is planned for them, and what is worth it among them still moves."""
    till.fund_gas()
    [good] = till.forwarders("alice", 1, GOOD)
    till.execute(
        "INSERT INTO addresses (chain, keyset, asset, customer_id, purpose, branch, index, address, script,"
        " attestation) SELECT 'ethereum-devnet', 'eth-hot', 'ETH', 'alice', 'deposit', 0, 10000 + n,"
        " 'dust' || n, decode(lpad(to_hex(n), 40, '0'), 'hex'), '{}' FROM generate_series(1, 2000) n"
    )
    till.execute(
        "INSERT INTO deposits (id, chain, resource, txid, address_id, customer_id, asset, units, state, height,"
        " block_hash, confirmations) SELECT gen_random_uuid(), a.chain, a.address, 'x', a.id, 'alice', 'USDX', 1000,"
        " 'credited', c.anchor, 'x', 1 FROM addresses a JOIN cursors c ON c.chain = a.chain WHERE a.index > 9999"
    )
    assert till.sweep(later_seconds=AT_ONCE.sweep_after_seconds) == 1
    assert flush_of(till)[1] == [good.index]
    till.execute("DELETE FROM deposits WHERE address_id IN (SELECT id FROM addresses WHERE index > 9999)")
    till.execute("DELETE FROM addresses WHERE index > 9999")


# ------------------------------------------------------------------------------------------------ tokens that refuse


def test_fault_24_a_token_that_refuses_does_not_block_the_others_and_is_tried_ever_later(
    till: SweepTill,
) -> None:
    till.fund_gas()
    paused = till.outside.paux
    rows = till.forwarders("alice", 2, GOOD, ("PAUX", 90 * USDX))
    paused.do(till.outside.payer, "setPaused", True)
    till.sweep_through()
    assert set(till.deposits(*rows)) == {("USDX", "swept"), ("PAUX", "credited")}
    assert till.last().state is SweepState.CONFIRMED
    assert "sweep.left_behind" in till.alerts()
    till.check()
    assert till.sweep() == 0
    assert till.sweep(later_seconds=AT_ONCE.retry_seconds + 5) == 1, "a minute later it is tried again"
    paused.do(till.outside.payer, "setPaused", False)
    till.sign()
    till.broadcast()
    till.settle()
    till.look_back()
    assert {state for _, state in till.deposits(*rows)} == {"swept"}
    assert "sweep.left_behind" not in till.alerts()


def test_fault_24_a_forwarder_on_a_blacklist_does_not_block_the_others(till: SweepTill) -> None:
    till.fund_gas()
    token = till.outside.blax
    rows = till.forwarders("alice", 3, ("BLAX", 90 * USDX))
    token.do(till.outside.payer, "setBlacklisted", rows[1].address, True)
    till.sweep_through()
    assert [till.deposits(row) for row in rows] == [
        [("BLAX", state)] for state in ("swept", "credited", "swept")
    ]
    assert till.has(till.treasury, "BLAX") == 180 * USDX


def test_a_token_that_burns_all_gas_only_in_a_block_holds_up_itself_alone(till: SweepTill) -> None:
    till.fund_gas()
    token = till.outside.paux
    healthy = till.anvil.rpc("eth_getCode", token.address, "latest")
    [row] = till.forwarders("alice", 1, GOOD, ("PAUX", 90 * USDX), ("ETH", ETHER // 10))

    def flushed(*, later_seconds: int = 0) -> tuple[str, list[bytes]]:
        """One more sweep while the token turns; its state, and which tokens it named."""
        assert till.sweep(later_seconds=later_seconds) == 1
        till.sign()
        till.anvil.rpc("anvil_setCode", token.address, "0xfe")
        till.broadcast()
        till.anvil.mine(1)
        till.anvil.rpc("anvil_setCode", token.address, healthy)
        till.settle()
        till.look_back()
        return till.last().state, list(decode_flush(flush_of(till)[0].data).tokens)

    paux, usdx = raw_address(token.address), raw_address(till.outside.usdx.address)
    state, tokens = flushed()
    assert (state, set(tokens)) == ("abandoned", {paux, usdx})
    assert flushed() == ("confirmed", []), "native money at once"
    assert till.sweep() == 0
    assert flushed(later_seconds=61) == ("abandoned", [paux])
    assert flushed(later_seconds=61) == ("confirmed", [usdx])
    assert till.sweep(later_seconds=61) == 0
    till.deposit(row, ("USDX", 70 * USDX), ("ETH", ETHER // 10))
    assert flushed() == ("confirmed", [usdx]), "and what comes later is not asked to wait"
    assert (
        sorted(till.deposits(row))
        == [("ETH", "swept")] * 2 + [("PAUX", "credited")] + [("USDX", "swept")] * 2
    )
    till.sweep_through(later_seconds=121)
    assert ("PAUX", "swept") in till.deposits(row)


def test_a_token_whose_flush_would_fail_is_left_out_and_told_of(till: SweepTill) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 2, GOOD, ("PAUX", 90 * USDX), ("ETH", ETHER // 10))
    node = till.node
    burning = raw_address(till.outside.paux.address)

    def estimate_gas(call: Call) -> int | Reverted:
        tokens = decode_flush(call.data).tokens
        return Reverted("out of gas") if burning in tokens else type(node).estimate_gas(node, call)

    node.estimate_gas = estimate_gas  # type: ignore[method-assign]
    for _ in range(3):
        if till.sweep():
            till.sign()
            till.broadcast()
            till.settle()
    till.look_back()
    assert set(till.deposits(*rows)) == {("ETH", "swept"), ("USDX", "swept"), ("PAUX", "credited")}
    found = till.query("SELECT subject FROM alerts WHERE type = 'sweep.would_revert' AND resolved_at IS NULL")
    assert {each["subject"] for each in found} == {f"{row.address}:PAUX" for row in rows}
    del node.estimate_gas
    till.sweep_through()
    assert "sweep.would_revert" not in till.alerts()


def test_whoever_flushes_a_forwarder_the_treasury_gets_it_and_its_deposits_count_as_swept(
    till: SweepTill,
) -> None:
    till.fund_gas()
    [theirs, ours] = till.forwarders("alice", 2, GOOD)
    calldata = flush_calldata([salt_of(theirs.index)], [raw_address(till.outside.usdx.address)])
    till.anvil.transact(till.outside.payer, till.factory.address, calldata, gas=500_000)
    till.finalize()
    till.check()
    assert till.sweep() == 1
    assert till.deposits(theirs) == [("USDX", "swept")]
    assert flush_of(till)[1] == [ours.index]


# ------------------------------------------------------------------------------------------- refused, reverted, dead


class _Refusing:
    """A signer that refuses to sweep a forwarder."""

    def __init__(self, till: SweepTill, index: int) -> None:
        self._signer, self._index = till.signer, index

    def sign(self, request: SignRequest) -> SignResponse:
        tx = UnsignedTx.decode(base64.b64decode(request.transaction))
        if tx.data and salt_of(self._index) in decode_flush(tx.data).salts:
            raise Refused((Reason("unknown-forwarder", "it was never attested"),))
        return self._signer.sign(request)

    def __getattr__(self, name: str) -> object:
        return getattr(self._signer, name)


def test_one_forwarder_that_the_signer_refuses_is_found_by_halves_and_stops_no_other(till: SweepTill) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 4, GOOD)
    till.signer = _Refusing(till, rows[2].index)  # type: ignore[assignment]
    pace = replace(AT_ONCE, max_forwarders=4)
    later = 0
    for _ in range(4):
        till.sweep(pace, later_seconds=later)
        till.sign()
        later += 1000
    assert till.fill_gap() is not None, "the nonce of what was refused is not left open"
    till.sign()
    till.broadcast()
    till.settle()
    till.look_back()
    assert {row.index: till.deposits(row)[0][1] for row in rows} == {
        row.index: "credited" if row is rows[2] else "swept" for row in rows
    }
    states = [sweep.state for sweep in till.sweeps()]
    assert states.count(SweepState.ABANDONED) == 4
    assert "signer.refused" in till.alerts()
    assert till.sweep(pace) == 0, "and it is tried ever later"


def test_a_sweep_that_was_never_signed_frees_its_nonce(till: SweepTill) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    signer = till.signer
    till.signer = _Refusing(till, row.index)  # type: ignore[assignment]
    till.sweep()
    till.sign()
    assert till.last().state is SweepState.ABANDONED
    assert till.query("SELECT * FROM reservations") == []
    till.signer = signer
    assert till.sweep(later_seconds=61) == 1
    assert flush_of(till)[0].nonce == 0


def test_fault_23_a_flush_that_reverts_is_abandoned_when_final_costs_its_gas_and_is_planned_anew(
    till: SweepTill,
) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    till.sweep()
    # What makes it fail for real: too little gas, as if the contract had become dearer since the estimate.
    [version] = till.query("SELECT transaction_id, unsigned, request FROM transaction_versions")
    shrink_gas(till, version)
    till.sign()
    till.broadcast()
    till.mine()
    till.track()
    assert till.last().state is SweepState.BROADCAST, "dead only when that is final"
    assert "transaction.reverted" in till.alerts()
    till.check()
    till.settle()
    assert till.last().state is SweepState.ABANDONED
    assert till.last().reason.startswith("reverted")
    assert "transaction.dead" in till.alerts()
    assert till.balance(None, "network_fees", "ETH") < 0
    assert till.deposits(row) == [("USDX", "credited")]
    assert till.sweep() == 0
    till.sweep_through(later_seconds=61)
    assert till.last().state is SweepState.CONFIRMED
    assert flush_of(till)[0].nonce == 1
    assert till.deposits(row) == [("USDX", "swept")]


def shrink_gas(till: SweepTill, version: dict[str, object]) -> None:
    """Record the same flush with less gas than it takes."""
    tx = replace(UnsignedTx.decode(bytes(version["unsigned"])), gas_limit=60_000)  # type: ignore[call-overload]
    request = read_request(str(version["request"]))
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(tx.encode()).decode())
    till.execute("ALTER TABLE transaction_versions DISABLE TRIGGER transaction_versions_stay")
    till.execute(
        "UPDATE transaction_versions SET unsigned = %s, content = %s, request = %s, size = 60000, fee_units = %s",
        tx.encode(),
        tx.content,
        msgspec.json.encode(changed).decode(),
        tx.max_fee_wei,
    )
    till.execute("ALTER TABLE transaction_versions ENABLE TRIGGER transaction_versions_stay")


# --------------------------------------------------------------------------------------- crashes, reorgs, two workers


def test_fault_1_signed_bytes_are_sent_as_they_are_after_a_crash_before_the_broadcast(
    till: SweepTill,
) -> None:
    till.fund_gas()
    rows = till.forwarders("alice", 2, GOOD)
    till.sweep()

    class Dies:
        def __getattr__(self, name: str) -> object:
            return getattr(node, name)

        def broadcast(self, raw: bytes) -> BroadcastResult:
            raise NodeUnavailable("the worker dies here")

    till.sign()
    signed = till.query("SELECT signed, txid FROM transaction_versions")
    node = till.node
    till.node = Dies()  # type: ignore[assignment]
    with pytest.raises(NodeUnavailable):
        till.broadcast()
    till.node = node
    till.execute("UPDATE transactions SET rebroadcast_at = now()")
    assert till.sign() == []
    till.broadcast()
    assert till.query("SELECT signed, txid FROM transaction_versions") == signed
    till.settle()
    till.look_back()
    assert till.last().txid == signed[0]["txid"]
    assert {state for _, state in till.deposits(*rows)} == {"swept"}


def test_fault_9_a_reorg_drops_the_flush_and_the_same_bytes_are_sent_again(till: SweepTill) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    till.sweep()
    till.sign()
    till.broadcast()
    till.mine()
    till.track()
    txid = till.last().txid
    assert len(till.anvil.reorg(1)) == 1
    till.catch_up()
    till.track()
    assert till.last().state is SweepState.BROADCAST
    till.check()
    till.broadcast()
    till.settle()
    till.look_back()
    assert (till.last().state, till.last().txid) == (SweepState.CONFIRMED, txid)
    assert till.deposits(row) == [("USDX", "swept")]


def test_a_reorg_of_final_blocks_takes_the_sweep_back_and_it_confirms_again(till: SweepTill) -> None:
    """Nothing in Ethereum does this short of a third of all stake; the books follow all the same."""
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    till.sweep_through()
    assert till.deposits(row) == [("USDX", "swept")]
    [place] = till.query("SELECT height FROM transactions")
    removed = till.anvil.reorg(till.anvil.height() - place["height"] + 1)
    till.catch_up()
    till.track()
    assert till.last().state is SweepState.BROADCAST
    assert till.deposits(row) == [("USDX", "credited")]
    assert till.balance(None, "network_fees", "ETH") == 0
    assert len(removed) == 1
    till.broadcast()
    till.settle()
    till.look_back()
    assert till.last().state is SweepState.CONFIRMED
    assert till.deposits(row) == [("USDX", "swept")]


def test_fault_18_of_two_workers_that_plan_the_same_sweep_one_wins(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 3, GOOD)
    barrier = threading.Barrier(3)
    outcomes: list[object] = []

    def work() -> None:
        barrier.wait()
        try:
            outcomes.append(till.sweep())
        except TransientError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(outcome == 1 for outcome in outcomes) == 1, outcomes
    assert [sweep.addresses for sweep in till.sweeps()] == [3]
    assert len(till.query("SELECT * FROM reservations")) == 1


def test_the_database_refuses_a_forwarder_and_asset_in_two_open_sweeps(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 1, GOOD)
    till.sweep()
    with pytest.raises(psycopg.errors.UniqueViolation):
        till.execute(
            "WITH s AS (INSERT INTO sweeps (id, chain, keyset, kind, state)"
            "           VALUES (gen_random_uuid(), 'c', 'k', 'sweep', 'planned') RETURNING id)"
            " INSERT INTO sweep_items (sweep_id, address_id, asset, units)"
            " SELECT s.id, i.address_id, i.asset, 1 FROM s, sweep_items i LIMIT 1"
        )


def test_fault_19_a_worker_that_comes_late_changes_nothing(till: SweepTill) -> None:
    """It paused after choosing, another swept meanwhile, and its own plan is void."""
    till.fund_gas()
    till.forwarders("alice", 2, GOOD)
    node = till.node
    late: list[int] = []

    def nonce(address: bytes, at: object) -> int:
        if not late:
            late.append(1)
            assert till.sweep() == 1
        return type(node).nonce(node, address, at)  # type: ignore[arg-type]

    node.nonce = nonce  # type: ignore[method-assign]
    assert till.sweep() == 0
    assert len(till.sweeps()) == 1
    assert len(till.query("SELECT * FROM transactions")) == 1


def test_fault_21_a_flush_that_the_pool_forgot_is_sent_again_and_fills_its_nonce(till: SweepTill) -> None:
    till.fund_gas()
    [first] = till.forwarders("alice", 1, GOOD)
    till.sweep()
    till.sign()
    till.broadcast()
    txid = till.last().txid
    till.anvil.rpc("anvil_dropTransaction", f"0x{txid}")
    [second] = till.forwarders("alice", 1, GOOD)
    till.track()
    assert till.last().state is SweepState.BROADCAST
    assert till.sweep() == 1
    till.sign()
    till.broadcast()
    till.settle()
    till.look_back()
    assert {sweep.state for sweep in till.sweeps()} == {SweepState.CONFIRMED}
    assert {state for _, state in till.deposits(first, second)} == {"swept"}


def test_halted_paying_halts_sweeping(till: SweepTill) -> None:
    till.fund_gas()
    till.forwarders("alice", 1, GOOD)
    till.execute("INSERT INTO halts (scope, reason) VALUES ('ethereum-devnet', 'a test')")
    assert till.sweep() == 0
    till.execute("DELETE FROM halts")
    assert till.sweep() == 1


def test_an_operator_plans_a_sweep_at_once_and_everything_that_is_worth_its_fee(
    till: SweepTill, database: str, tmp_path: Path
) -> None:
    till.fund_gas()
    till.forwarders("alice", 2, GOOD)
    small = till.forwarders("alice", 1, ("ETH", ETHER // 100))
    root = tmp_path / "root.json"
    root.write_bytes(msgspec.json.encode(till.world.root))
    settings = {
        "STRONGROOM_OPERATOR": str(client_file(tmp_path, "otto", till.world.operator)),
        "STRONGROOM_DATABASE_URL": as_role(database, "strongroom_worker"),
        "STRONGROOM_REDIS_URL": "redis://:unused@127.0.0.1:1/0",
        "STRONGROOM_BUNDLE_PATH": str(till.bundle_path),
        "STRONGROOM_TRUST_ROOT_PATH": str(root),
        "STRONGROOM_NODES": json.dumps({EVM_CHAIN: {"rpc_url": till.anvil.rpc_url}}),
        "STRONGROOM_SCREENING": json.dumps({"elsewhere": "tests"}),
        "STRONGROOM_SIGNERS": json.dumps({"eth-hot": {"socket": str(tmp_path / "signer.sock")}}),
    }

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["operator", "sweep", *arguments], env=settings)

    assert operator in [group.typer_instance for group in app.registered_groups]
    assert run("nowhere").exit_code == 2
    assert json.loads(run(EVM_CHAIN, "--json").stdout) == {"chain": EVM_CHAIN, "count": 1}
    assert flush_of(till)[1] == [0, 1]
    assert "nothing is worth sweeping" in run(EVM_CHAIN).stdout
    assert run(EVM_CHAIN, "--everything").exit_code == 0
    assert flush_of(till)[1] == [small[0].index]
    assert len(till.query("SELECT * FROM events WHERE type = 'operator.swept'")) == 3


def test_where_balances_are_compared_flushes_are_no_deposits_and_leave_the_books_exact(
    database: str, outside: SweepOutside, tmp_path: Path
) -> None:
    with open_sweep_till(database, outside, tmp_path, network_native_mode="balance") as till:
        till.enrol("alice")
        till.fund_gas()
        till.enforce()  # no transaction is known to have brought it: a surplus until then
        rows = till.forwarders("alice", 3, GOOD, ("ETH", ETHER // 10))
        assert till.sweep() == 1
        till.sign()
        # A deposit in the very block of the flush, before or after it, is one all the same.
        till.outside.send("ETH", rows[0].address, ETHER // 7)
        till.broadcast()
        till.outside.send("ETH", rows[1].address, ETHER // 9)
        till.settle()
        till.look_back()
        assert till.balance("alice", asset="ETH") == 3 * (ETHER // 10) + ETHER // 7 + ETHER // 9
        assert set(till.deposits(rows[2])) == {("ETH", "swept"), ("USDX", "swept")}
        till.check()
        assert till.sweep() >= 0
        till.sign()
        till.broadcast()
        till.settle()
        till.look_back()
        assert sum(till.has(row.address, "ETH") for row in rows) == 0


def test_a_flush_whose_nonce_somebody_else_has_used_is_dead_and_planned_anew_when_that_is_lifted(
    till: SweepTill,
) -> None:
    till.fund_gas()
    [row] = till.forwarders("alice", 1, GOOD)
    till.sweep()
    till.sign()
    mine, _ = flush_of(till)
    foreign = replace(mine, to=raw_address(till.treasury), data=b"", gas_limit=21_000)
    till.anvil.send_raw("0x" + till.sign_with_the_key(foreign).hex())
    till.settle()
    assert till.halted() is not None
    assert till.last().state is SweepState.ABANDONED
    assert till.last().reason.startswith("double-spent")
    assert till.query("SELECT * FROM sweep_items WHERE open") == []
    till.enforce()
    till.execute("DELETE FROM halts")
    till.sweep_through(later_seconds=61)
    assert flush_of(till)[0].nonce == 1
    assert till.deposits(row) == [("USDX", "swept")]
