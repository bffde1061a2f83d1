"""The batch payout on a real EVM: everybody is paid exactly, or nobody is; nothing stays, nobody reaches into it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.eth.contracts import artifact
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, gas_used, mined, outside_artifact, succeeded


@pytest.fixture(scope="module")
def payout(anvil: Anvil) -> Contract:
    return deploy(anvil, anvil.accounts()[0], artifact("BatchPayout"))


def somebody(n: int) -> str:
    return f"0x{0xFEED << 64 | n:040x}"


payees = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 10**18)), max_size=12)


@settings(max_examples=40)
@given(payees, st.integers(-3, 3), st.integers(-1, 1))
def test_all_are_paid_exactly_or_nobody_is_and_the_contract_keeps_nothing(
    payout: Contract, wanted: list[tuple[int, int]], surplus_wei: int, extra_amounts: int
) -> None:
    node, sender = payout.node, payout.node.accounts()[0]
    to, amounts = [somebody(n) for n, _ in wanted], [amount for _, amount in wanted]
    value_wei = max(0, sum(amounts) + surplus_wei)
    given_amounts = amounts[:extra_amounts] if extra_amounts < 0 else amounts + [0] * extra_amounts
    before = {address: node.balance_wei(address) for address in set(to)}
    receipt = payout.attempt(sender, "pay", to, given_amounts, value_wei=value_wei)
    right = value_wei == sum(given_amounts) and len(given_amounts) == len(to)
    assert succeeded(receipt) == right
    for address in before:
        paid = sum(amount for payee, amount in zip(to, amounts, strict=True) if payee == address)
        assert node.balance_wei(address) - before[address] == (paid if right else 0)
    assert node.balance_wei(payout.address) == 0


@pytest.mark.parametrize("name", ["RevertingReceiver", "GasBurner"])
def test_a_payee_that_takes_no_money_or_too_much_gas_undoes_the_batch_at_a_bounded_price(
    payout: Contract, name: str
) -> None:
    node, sender = payout.node, payout.node.accounts()[0]
    bad = deploy(node, sender, outside_artifact(name))
    receipt = payout.attempt(sender, "pay", [somebody(77), bad.address], [5, 6], value_wei=11)
    assert not succeeded(receipt)
    assert gas_used(receipt) < 170_000, "50,000 a payee at most, whatever the limit of the transaction"
    assert node.balance_wei(somebody(77)) == node.balance_wei(bad.address) == 0


def test_a_contract_wallet_is_paid_and_what_it_returns_is_not_copied(payout: Contract) -> None:
    node, sender = payout.node, payout.node.accounts()[0]
    wallet = deploy(node, sender, outside_artifact("ContractWallet"))
    payout.do(sender, "pay", [wallet.address, somebody(78)], [5, 6], value_wei=11)
    assert (node.balance_wei(wallet.address), node.balance_wei(somebody(78))) == (5, 6)


def test_a_payee_that_enters_again_spends_its_own_money_only(payout: Contract) -> None:
    node, sender = payout.node, payout.node.accounts()[0]
    thief = deploy(node, sender, outside_artifact("ReentrantReceiver"))
    loot = somebody(79)
    payout.do(sender, "pay", [loot, thief.address, somebody(80)], [1, 9, 1], value_wei=11)
    for stolen_wei, own_wei, enters in ((6, 0, False), (6, 2, False), (2, 2, True)):
        thief.do(sender, "setCallback", payout.address, payout.data("pay", [loot], [stolen_wei]), own_wei)
        before = node.balance_wei(loot), node.balance_wei(thief.address)
        # The thief comes first, while the money of the next payee is still in the contract.
        receipt = payout.do(sender, "pay", [thief.address, somebody(80)], [5, 6], value_wei=11)
        assert thief.events(receipt, "Entered") == [(thief.address, (enters,))]
        spent = own_wei if enters else 0
        assert node.balance_wei(loot) == before[0] + spent
        assert node.balance_wei(thief.address) == before[1] + 5 - spent
        assert node.balance_wei(payout.address) == 0


def test_money_sent_without_a_call_is_refused_and_what_is_forced_in_pays_nobody(payout: Contract) -> None:
    node, sender = payout.node, payout.node.accounts()[0]
    assert not succeeded(mined(node, node.transact(sender, payout.address, value_wei=5, gas=100_000)))
    fresh = deploy(node, sender, artifact("BatchPayout"))
    deploy(node, sender, outside_artifact("Bequest"), fresh.address, value_wei=9)
    assert not succeeded(fresh.attempt(sender, "pay", [sender], [9]))
    assert not succeeded(fresh.attempt(sender, "pay", [sender], [10], value_wei=1))
    assert succeeded(fresh.attempt(sender, "pay", [], []))
    assert node.balance_wei(fresh.address) == 9
