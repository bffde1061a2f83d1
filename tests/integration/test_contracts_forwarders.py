"""Forwarders on a real EVM: paid before and after they exist, emptied into the treasury, deaf to all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from eth_utils.address import to_checksum_address

from chains.eth.address import keccak256
from chains.eth.contracts import artifact
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, gas_used, mined, outside_artifact, salt, succeeded

ETHER = 10**18
HOURS = 3600
ZERO = "0x" + "00" * 20
RUNTIME = ("3615602b57363d3d373d3d363d73", "5af4602b57600080fd5b")


@dataclass(frozen=True, slots=True)
class World:
    """A factory of its own on the session's chain, with the people around it."""

    node: Anvil
    factory: Contract
    logic: Contract
    treasury: str
    admin: str
    stranger: str
    payer: str

    def forwarder(self, index: int) -> str:
        """The address by EIP-1014, worked out here and not asked from the factory."""
        initcode = bytes.fromhex("602c8060093d393df3" + RUNTIME[0] + self.logic.address[2:] + RUNTIME[1])
        preimage = b"\xff" + bytes.fromhex(self.factory.address[2:]) + salt(index) + keccak256(initcode)
        return to_checksum_address(keccak256(preimage)[12:])

    def code(self, address: str) -> str:
        return str(self.node.rpc("eth_getCode", address, "latest"))

    def flush(self, indexes: list[int], *tokens: Contract, sender: str | None = None) -> dict[str, object]:
        salts = [salt(index) for index in indexes]
        return self.factory.do(sender or self.stranger, "flush", salts, [token.address for token in tokens])

    def token(self, name: str, *arguments: object) -> Contract:
        return deploy(self.node, self.payer, outside_artifact(name), *arguments)

    def pay(self, to: str, amount_wei: int) -> None:
        assert succeeded(mined(self.node, self.node.send_eth(self.payer, to, amount_wei)))

    def balance_of(self, token: Contract, who: str) -> int:
        return int(token.call("balanceOf", who))


@pytest.fixture
def world(anvil: Anvil) -> World:
    admin, stranger, payer, *_ = anvil.accounts()
    nobody = to_checksum_address(keccak256(str(anvil.height()).encode())[12:])
    factory = deploy(anvil, payer, artifact("ForwarderFactory"), nobody, admin)
    logic = Contract(anvil, to_checksum_address(factory.call("logic")), artifact("ForwarderLogic").abi)
    return World(anvil, factory, logic, nobody, admin, stranger, payer)


# --- addresses ---


def test_the_address_and_the_code_of_a_forwarder_are_known_before_it_exists(world: World) -> None:
    for index in (0, 1, 2**64, 2**256 - 1):
        assert to_checksum_address(world.factory.call("forwarderOf", salt(index))) == world.forwarder(index)
    assert world.code(world.forwarder(7)) == "0x"
    world.flush([7])
    assert world.code(world.forwarder(7)) == "0x" + RUNTIME[0] + world.logic.address[2:].lower() + RUNTIME[1]
    initcode = bytes.fromhex("602c8060093d393df3" + world.code(world.forwarder(7))[2:])
    assert world.factory.call("initcodeHash") == keccak256(initcode)


def test_the_logic_is_the_first_contract_that_the_factory_makes(world: World) -> None:
    preimage = b"\xd6\x94" + bytes.fromhex(world.factory.address[2:]) + b"\x01"  # rlp([factory, 1])
    assert to_checksum_address(keccak256(preimage)[12:]) == world.logic.address
    assert to_checksum_address(world.logic.call("factory")) == world.factory.address


def test_what_is_on_the_chain_is_the_artifact_with_its_immutables_filled_in(world: World) -> None:
    for contract, name in ((world.factory, "ForwarderFactory"), (world.logic, "ForwarderLogic")):
        found = bytes.fromhex(world.code(contract.address)[2:])
        assert artifact(name).is_code(found)
        assert not artifact(name).is_code(found[:-1])
        assert not artifact(name).is_code(bytes([found[0] ^ 1]) + found[1:])
    assert not artifact("ForwarderFactory").is_code(b"")


# --- being paid ---


def test_a_contract_that_gives_2300_gas_pays_a_forwarder_before_and_after_it_exists(world: World) -> None:
    wallet = deploy(world.node, world.payer, outside_artifact("ContractWallet"))
    world.pay(wallet.address, ETHER)
    forwarder = world.forwarder(1)
    wallet.do(world.stranger, "payByTransfer", forwarder, 3)
    world.flush([1])
    assert world.node.balance_wei(world.treasury) == 3
    wallet.do(world.stranger, "payByTransfer", forwarder, 4)
    wallet.do(world.stranger, "payByCall", forwarder, 5, b"")
    wallet.do(world.stranger, "payMany", [forwarder, world.forwarder(2)], [6, 7])
    assert world.node.balance_wei(forwarder) == 15
    wallet.do(world.stranger, "destroy", forwarder)
    deploy(world.node, world.payer, outside_artifact("Bequest"), forwarder, value_wei=9)
    assert world.node.balance_wei(forwarder) == ETHER - 3 - 7 + 9
    world.flush([1, 2])
    assert world.node.balance_wei(world.treasury) == ETHER + 9


def test_a_payment_with_calldata_is_refused_once_there_is_code_and_the_money_stays_with_its_sender(
    world: World,
) -> None:
    world.flush([1])
    wallet = deploy(world.node, world.payer, outside_artifact("ContractWallet"))
    world.pay(wallet.address, 10)
    assert not succeeded(wallet.attempt(world.stranger, "payByCall", world.forwarder(1), 5, b"memo"))
    assert world.node.balance_wei(wallet.address) == 10


# --- flushing ---


def test_one_transaction_makes_the_missing_forwarders_and_empties_all_of_money_and_tokens(
    world: World,
) -> None:
    tokens = [world.token("Token", "T", "T", decimals) for decimals in (0, 6, 18, 24)]
    tokens.append(world.token("NoReturnToken"))
    world.flush([1])
    for index in (1, 2, 3):
        world.pay(world.forwarder(index), 100 * index)
        for n, token in enumerate(tokens):
            token.do(world.payer, "mint", world.forwarder(index), 10**n * index)
    receipt = world.flush([1, 2, 3], *tokens)
    assert world.node.balance_wei(world.treasury) == 600
    assert [world.balance_of(t, world.treasury) for t in tokens] == [10**n * 6 for n in range(len(tokens))]
    assert all(world.balance_of(t, world.forwarder(i)) == 0 for t in tokens for i in (1, 2, 3))
    assert world.logic.events(receipt, "EtherFlushed") == [
        (world.forwarder(i), (100 * i,)) for i in (1, 2, 3)
    ]
    assert world.logic.events(receipt, "NotFlushed") == []


def test_flushing_again_changes_nothing(world: World) -> None:
    token = world.token("Token", "T", "T", 6)
    token.do(world.payer, "mint", world.forwarder(1), 5)
    world.flush([1, 1], token, token)
    again = world.flush([1, 1], token, token)
    assert again["logs"] == []
    assert world.balance_of(token, world.treasury) == 5


def test_a_flush_of_nothing_costs_little_and_makes_nothing(world: World) -> None:
    assert gas_used(world.flush([])) < 35_000
    assert world.flush([])["logs"] == []


def refuse_by_returning_false(world: World) -> Contract:
    return world.token("FalseToken")


def refuse_while_paused(world: World) -> Contract:
    token = world.token("PausableToken")
    token.do(world.payer, "mint", world.forwarder(1), 5)
    token.do(world.payer, "setPaused", True)
    return token


def refuse_the_blacklisted(world: World) -> Contract:
    token = world.token("BlacklistToken")
    token.do(world.payer, "setBlacklisted", world.forwarder(1), True)
    return token


@pytest.mark.parametrize(
    ("refusing", "relent"),
    [
        (refuse_by_returning_false, ("setRefuses", False)),
        (refuse_while_paused, ("setPaused", False)),
        (refuse_the_blacklisted, ("setBlacklisted", None, False)),
    ],
)
def test_fault_24_a_token_that_refuses_is_left_with_an_event_and_holds_up_nobody(
    world: World, refusing: Callable[[World], Contract], relent: tuple[object, ...]
) -> None:
    bad, good = refusing(world), world.token("Token", "T", "T", 6)
    forwarder = world.forwarder(1)
    held = world.balance_of(bad, forwarder)
    if held == 0:
        # The blacklist forbids receiving too: mint does not ask it.
        bad.do(world.payer, "mint", forwarder, 5)
        held = 5
    good.do(world.payer, "mint", forwarder, 7)
    world.pay(forwarder, 9)
    receipt = world.flush([1], bad, good)
    assert world.logic.events(receipt, "NotFlushed") == [(forwarder, (bad.address.lower(), held))]
    assert world.balance_of(bad, forwarder) == held
    assert world.balance_of(good, world.treasury) == 7
    assert world.node.balance_wei(world.treasury) == 9
    name, *arguments = relent
    bad.do(world.payer, str(name), *(forwarder if one is None else one for one in arguments))
    assert world.logic.events(world.flush([1], bad), "NotFlushed") == []
    assert world.balance_of(bad, world.treasury) == held


def test_fault_24_a_token_that_takes_a_fee_leaves_nothing_behind(world: World) -> None:
    token = world.token("FeeToken", 250)
    token.do(world.payer, "mint", world.forwarder(1), 10_000)
    assert world.logic.events(world.flush([1], token), "NotFlushed") == []
    assert world.balance_of(token, world.forwarder(1)) == 0
    assert world.balance_of(token, world.treasury) == 9_750


def test_what_is_no_token_is_said_and_passed_over(world: World) -> None:
    world.pay(world.forwarder(1), 9)
    stranger, wallet = world.stranger, deploy(world.node, world.payer, outside_artifact("ContractWallet"))
    receipt = world.factory.do(stranger, "flush", [salt(1)], [stranger, wallet.address, ZERO])
    named = [values for _, values in world.logic.events(receipt, "NotFlushed")]
    assert named == [(stranger.lower(), 0), (wallet.address.lower(), 0), (ZERO, 0)]
    assert world.node.balance_wei(world.treasury) == 9


def test_what_a_token_returns_beyond_a_word_is_not_copied(world: World) -> None:
    token = world.token("VerboseToken")
    for index in (1, 2):
        token.do(world.payer, "mint", world.forwarder(index), 5)
    world.flush([1], token)
    own = 100_000 * 3 // 32 + (100_000 // 32) ** 2 // 512  # what its memory costs the token itself
    assert gas_used(world.flush([2], token)) < 90_000 + own
    assert world.balance_of(token, world.treasury) == 10


def test_a_token_that_eats_all_gas_undoes_the_whole_batch_and_the_others_go_without_it(world: World) -> None:
    eater, good = world.token("GasEatingToken"), world.token("Token", "T", "T", 6)
    for token in (eater, good):
        token.do(world.payer, "mint", world.forwarder(1), 5)
    both = [eater.address, good.address]
    assert not succeeded(world.factory.attempt(world.stranger, "flush", [salt(1)], both, gas=2_000_000))
    assert world.balance_of(good, world.forwarder(1)) == 5
    world.flush([1], good)
    assert world.balance_of(good, world.treasury) == 5


def test_a_batch_that_runs_out_of_gas_moves_nothing(world: World) -> None:
    for index in range(5):
        world.pay(world.forwarder(index), 5)
    receipt = world.factory.attempt(
        world.stranger, "flush", [salt(index) for index in range(5)], [], gas=150_000
    )
    assert not succeeded(receipt)
    assert world.node.balance_wei(world.treasury) == 0


def test_a_treasury_that_takes_no_money_leaves_it_in_the_forwarder_but_tokens_go_on(anvil: Anvil) -> None:
    admin, stranger, payer, *_ = anvil.accounts()
    receiver = deploy(anvil, payer, outside_artifact("RevertingReceiver"))
    factory = deploy(anvil, payer, artifact("ForwarderFactory"), receiver.address, admin)
    logic = Contract(anvil, factory.call("logic"), artifact("ForwarderLogic").abi)
    world = World(anvil, factory, logic, receiver.address, admin, stranger, payer)
    token = world.token("Token", "T", "T", 6)
    token.do(payer, "mint", world.forwarder(1), 5)
    world.pay(world.forwarder(1), 9)
    receipt = world.flush([1], token)
    assert logic.events(receipt, "NotFlushed") == [(world.forwarder(1), (ZERO, 9))]
    assert (anvil.balance_wei(receiver.address), world.balance_of(token, receiver.address)) == (0, 5)
    receiver.do(stranger, "setRefuses", False)
    world.flush([1])
    assert anvil.balance_wei(receiver.address) == 9


# --- re-entry ---


def test_a_token_or_a_treasury_that_enters_again_moves_money_to_the_treasury_only(anvil: Anvil) -> None:
    admin, stranger, payer, *_ = anvil.accounts()
    receiver = deploy(anvil, payer, outside_artifact("ReentrantReceiver"))
    factory = deploy(anvil, payer, artifact("ForwarderFactory"), receiver.address, admin)
    logic = Contract(anvil, to_checksum_address(factory.call("logic")), artifact("ForwarderLogic").abi)
    world = World(anvil, factory, logic, receiver.address, admin, stranger, payer)
    token = world.token("ReentrantToken")
    salts = [salt(1), salt(2)]
    again = factory.data("flush", salts, [token.address])
    token.do(stranger, "setCallback", factory.address, again)
    receiver.do(stranger, "setCallback", factory.address, again, 0)
    for index in (1, 2):
        token.do(payer, "mint", world.forwarder(index), 100)
        world.pay(world.forwarder(index), 10)
    receipt = world.flush([1, 2], token)
    assert int(token.call("entered")) > 0
    assert (receiver.address, (True,)) in receiver.events(receipt, "Entered")
    assert (world.balance_of(token, receiver.address), anvil.balance_wei(receiver.address)) == (200, 20)
    assert sum(world.balance_of(token, world.forwarder(i)) for i in (1, 2)) == 0


# --- who may do what ---


def test_nobody_but_the_factory_is_heard_by_a_forwarder_or_by_the_logic(world: World) -> None:
    token = world.token("Token", "T", "T", 6)
    world.flush([1])
    forwarder = Contract(world.node, world.forwarder(1), world.logic.abi)
    for target in (forwarder, world.logic):
        token.do(world.payer, "mint", target.address, 5)
        for sender in (world.stranger, world.admin, world.payer):
            receipt = target.attempt(sender, "flush", sender, [token.address])
            assert not succeeded(receipt)
        assert world.balance_of(token, target.address) == 5


def test_native_money_cannot_be_left_in_the_factory_or_the_logic(world: World) -> None:
    for target in (world.factory, world.logic):
        txid = world.node.transact(world.payer, target.address, value_wei=1, gas=100_000)
        assert not succeeded(mined(world.node, txid))
    assert not succeeded(world.factory.attempt(world.payer, "flush", [], [], value_wei=1))


# --- treasury and admin ---

DELAY, WINDOW = 48 * HOURS, 14 * 24 * HOURS


@pytest.fixture
def later(fresh_anvil: Callable[..., Anvil]) -> World:
    """A world on a chain of its own, whose clock the test may move."""
    node = fresh_anvil()
    admin, stranger, payer, *_ = node.accounts()
    treasury = "0x" + "7e" * 20
    factory = deploy(node, payer, artifact("ForwarderFactory"), treasury, admin)
    logic = Contract(node, to_checksum_address(factory.call("logic")), artifact("ForwarderLogic").abi)
    return World(node, factory, logic, treasury, admin, stranger, payer)


def at(world: World, timestamp: int, sender: str, function: str, *arguments: object) -> bool:
    """Whether a call succeeds in a block of exactly that time."""
    world.node.rpc("evm_setNextBlockTimestamp", hex(timestamp))
    receipt = world.factory.attempt(sender, function, *arguments)
    block = world.node.rpc("eth_getBlockByHash", receipt["blockHash"], False)
    assert int(block["timestamp"], 16) == timestamp
    return succeeded(receipt)


def proposed(world: World, function: str, candidate: str) -> int:
    """Proposes and returns the first second at which it may be accepted."""
    receipt = world.factory.do(world.admin, function, candidate)
    block = world.node.rpc("eth_getBlockByHash", receipt["blockHash"], False)
    return int(block["timestamp"], 16) + DELAY


def test_a_new_treasury_takes_effect_48_hours_after_its_proposal_and_not_a_second_before(
    later: World,
) -> None:
    token, other = later.token("Token", "T", "T", 6), "0x" + "4e" * 20
    ripe = proposed(later, "proposeTreasury", other)
    assert later.factory.call("proposedTreasury") == (other, ripe)
    assert not at(later, ripe - 1, later.admin, "acceptTreasury")
    token.do(later.payer, "mint", later.forwarder(1), 5)
    later.flush([1], token)
    assert later.balance_of(token, later.treasury) == 5, "until then the old one is paid"
    # The blocks above took seconds of their own: propose again to meet the exact second.
    ripe = proposed(later, "proposeTreasury", other)
    assert not at(later, ripe - 1, later.admin, "acceptTreasury")
    assert at(later, ripe, later.admin, "acceptTreasury")
    assert later.factory.call("treasury") == other
    assert later.factory.call("proposedTreasury") == (ZERO, 0)
    assert not at(later, ripe + 1, later.admin, "acceptTreasury"), "accepted once"
    token.do(later.payer, "mint", later.forwarder(1), 6)
    later.flush([1], token)
    assert later.balance_of(token, other) == 6


def test_a_proposal_that_is_not_accepted_within_14_days_is_void(later: World) -> None:
    other = "0x" + "4e" * 20
    ripe = proposed(later, "proposeTreasury", other)
    assert not at(later, ripe + WINDOW + 1, later.admin, "acceptTreasury")
    ripe = proposed(later, "proposeTreasury", other)
    assert at(later, ripe + WINDOW, later.admin, "acceptTreasury")


def test_a_second_proposal_replaces_the_first_and_waits_anew_and_a_cancelled_one_is_gone(
    later: World,
) -> None:
    first, second = "0x" + "4e" * 20, "0x" + "5e" * 20
    ripe = proposed(later, "proposeTreasury", first)
    later.node.rpc("evm_setNextBlockTimestamp", hex(ripe - 10))
    later_ripe = proposed(later, "proposeTreasury", second)
    assert later_ripe == ripe - 10 + DELAY
    assert not at(later, ripe, later.admin, "acceptTreasury")
    receipt = later.factory.do(later.admin, "cancelTreasury")
    assert later.factory.events(receipt, "TreasuryCancelled") == [(later.factory.address, (second,))]
    assert not at(later, later_ripe, later.admin, "acceptTreasury")
    assert not succeeded(later.factory.attempt(later.admin, "cancelTreasury")), "nothing is proposed"
    assert later.factory.call("treasury") == later.treasury


def test_a_new_admin_takes_over_by_its_own_call_after_48_hours_and_the_old_one_is_out(later: World) -> None:
    heir = later.node.accounts()[4]
    ripe = proposed(later, "proposeAdmin", heir)
    assert not at(later, ripe - 1, heir, "acceptAdmin")
    assert not at(later, ripe, later.admin, "acceptAdmin"), "only the new admin shows that its key works"
    assert at(later, ripe + 1, heir, "acceptAdmin")
    assert to_checksum_address(later.factory.call("admin")) == heir
    assert not succeeded(later.factory.attempt(later.admin, "proposeTreasury", later.admin))
    assert succeeded(later.factory.attempt(heir, "proposeTreasury", later.stranger))


def test_a_new_admin_that_is_taken_back_or_comes_too_late_never_takes_over(later: World) -> None:
    heir = later.node.accounts()[4]
    ripe = proposed(later, "proposeAdmin", heir)
    receipt = later.factory.do(later.admin, "cancelAdmin")
    assert later.factory.events(receipt, "AdminCancelled") == [(later.factory.address, (heir.lower(),))]
    assert not at(later, ripe, heir, "acceptAdmin")
    assert not succeeded(later.factory.attempt(later.admin, "cancelAdmin"))
    ripe = proposed(later, "proposeAdmin", heir)
    assert not at(later, ripe + WINDOW + 1, heir, "acceptAdmin")
    assert to_checksum_address(later.factory.call("admin")) == later.admin


def test_only_the_admin_proposes_accepts_and_cancels_even_when_the_time_has_come(later: World) -> None:
    ripe = proposed(later, "proposeTreasury", "0x" + "4e" * 20)
    proposed(later, "proposeAdmin", later.node.accounts()[4])
    later.node.rpc("evm_setNextBlockTimestamp", hex(ripe + HOURS))
    for sender in (later.stranger, later.payer, later.treasury):
        later.node.fund(sender, ETHER)
        for function, arguments in (
            ("proposeTreasury", (sender,)),
            ("acceptTreasury", ()),
            ("cancelTreasury", ()),
            ("proposeAdmin", (sender,)),
            ("acceptAdmin", ()),
            ("cancelAdmin", ()),
        ):
            assert not succeeded(later.factory.attempt(sender, function, *arguments)), (sender, function)
    assert later.factory.call("treasury") == later.treasury
    assert to_checksum_address(later.factory.call("admin")) == later.admin
    assert later.factory.call("proposedTreasury")[1] == ripe


def test_a_treasury_that_could_never_give_money_back_is_refused(world: World) -> None:
    for useless in (ZERO, world.factory.address, world.logic.address):
        for function in ("proposeTreasury", "proposeAdmin"):
            assert not succeeded(world.factory.attempt(world.admin, function, useless))
    compiled = artifact("ForwarderFactory")
    for arguments in ((ZERO, world.admin), (world.treasury, ZERO)):
        with pytest.raises(AssertionError, match="deployment of ForwarderFactory failed"):
            deploy(world.node, world.payer, compiled, *arguments)


def test_every_change_is_announced_by_an_event(later: World) -> None:
    treasury, heir = "0x" + "4e" * 20, later.node.accounts()[4].lower()
    ripe = proposed(later, "proposeTreasury", treasury)
    ripe_admin = proposed(later, "proposeAdmin", heir)
    later.node.rpc("evm_setNextBlockTimestamp", hex(ripe_admin))
    later.factory.do(later.admin, "acceptTreasury")
    later.factory.do(heir, "acceptAdmin")
    where = {"address": later.factory.address, "fromBlock": "0x0", "toBlock": "latest"}
    everything = {"logs": later.node.rpc("eth_getLogs", where)}

    def values(event: str) -> list[tuple[object, ...]]:
        return [found for _, found in later.factory.events(everything, event)]

    admin = later.admin.lower()
    assert values("TreasuryProposed") == [(treasury, ripe)]
    assert values("AdminProposed") == [(heir, ripe_admin)]
    assert values("TreasuryChanged") == [(ZERO, later.treasury), (later.treasury, treasury)]
    assert values("AdminChanged") == [(ZERO, admin), (admin, heir)]
