"""The EVM adapter on anvil: what counts as an arrival, in both native modes, and what does not, whoever tries.

Each test runs on the same chain, so it has forwarders of its own. Contracts stand for the people outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from chains.errors import NodeUnavailable, Reorganised
from chains.eth.address import checksummed, raw_address
from chains.eth.contracts import artifact
from chains.eth.forwarder import agreed_forwarder
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.watch import WatchedSenders
from chains.ports import Observation, Receipt
from chains.types import BlockRef
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, outside_artifact, salt

ETHER = 10**18


@dataclass
class World:
    """A chain with our contracts on it, the key's address as treasury, and people outside."""

    anvil: Anvil
    mode: NativeMode
    node: EvmNode
    key: str
    payer: str
    stranger: str
    factory: Contract
    wallet: Contract
    tokens: list[Contract]
    watched: set[bytes] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def forwarder(self) -> tuple[int, str]:
        """Index and address of a forwarder that nobody has used; watched from now on."""
        index = next(self.numbers)
        address = agreed_forwarder(self.factory.address, self.factory.call("initcodeHash").hex(), index)
        self.watched.add(raw_address(address))
        return index, address

    def flush(self, *indexes: int, sender: str | None = None) -> str:
        tokens = [token.address for token in self.tokens]
        data = self.factory.data("flush", [salt(index) for index in indexes], tokens)
        return self.anvil.transact(sender or self.stranger, self.factory.address, data, gas=5_000_000)

    def send(self, contract: Contract, function: str, *arguments: object, sender: str | None = None) -> str:
        """A call that waits for the next block."""
        return self.anvil.transact(
            sender or self.payer, contract.address, contract.data(function, *arguments), gas=1_000_000
        )

    def observe(self, ref: BlockRef | None = None) -> Observation:
        senders = WatchedSenders([self.key])
        return self.node.observe_block(ref or self.node.tip(), self.watched, senders)

    def mined(self) -> Observation:
        """Mines one block with all that waits, and reads it."""
        self.anvil.mine()
        return self.observe()

    def got(self, address: str) -> list[tuple[int, str | None]]:
        """Mines one block; units and contract of each receipt at an address."""
        return [(r.units, r.contract) for r in self.at(address, self.mined())]

    def at(self, address: str, seen: Observation) -> list[Receipt]:
        return [receipt for receipt in seen.receipts if receipt.script == raw_address(address)]


def make_world(anvil: Anvil, mode: NativeMode) -> World:
    key, payer, stranger, admin, *_ = anvil.accounts()
    factory = deploy(anvil, payer, artifact("ForwarderFactory"), key, admin)
    wallet = deploy(anvil, payer, outside_artifact("ContractWallet"))
    anvil.send_eth(payer, wallet.address, 100 * ETHER)
    tokens = [
        deploy(anvil, payer, outside_artifact("Token"), "Six", "SIX", 6),
        deploy(anvil, payer, outside_artifact("NoReturnToken")),
        deploy(anvil, payer, outside_artifact("FeeToken"), 100),
        deploy(anvil, payer, outside_artifact("RogueLogs")),
    ]
    node = EvmNode(
        "ethereum-devnet",
        EthNetwork(anvil.chain_id, anvil.block_hash(0)[2:], mode),
        anvil.rpc_url,
        tokens=lambda: [token.address for token in tokens],
    )
    return World(anvil, mode, node, key, payer, stranger, factory, wallet, tokens, {raw_address(key)})


@pytest.fixture(scope="module", params=list(NativeMode))
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # A node of its own: reorgs would disturb those who share one.
    with Anvil(tmp_path_factory.mktemp("eth-node-anvil")) as anvil:
        world = make_world(anvil, request.param)
        yield world
        world.node.close()


@pytest.fixture
def world(shared: World) -> World:
    shared.watched = {raw_address(shared.key)}
    return shared


def test_a_plain_transfer_is_a_receipt_with_the_name_that_its_mode_gives_it(world: World) -> None:
    _, address = world.forwarder()
    txid = world.anvil.send_eth(world.payer, address, 12_345)
    [receipt] = world.mined().receipts
    tip = world.node.tip()
    if world.mode is NativeMode.TRACE:
        assert (receipt.resource, receipt.txid.hex) == (f"{txid[2:]}:trace:", txid[2:])
    else:
        assert (receipt.resource, receipt.txid.hex) == (f"{tip.hash}:{address}", tip.hash)
    assert (receipt.units, receipt.contract, receipt.coinbase) == (12_345, None, False)
    assert world.observe().receipts == (receipt,), "read again, it is the same"
    assert world.mined().receipts == ()


def test_fault_26_ether_of_a_contract_wallet_is_seen_once_before_and_after_the_forwarder_exists(
    world: World,
) -> None:
    index, address = world.forwarder()
    world.send(world.wallet, "payByTransfer", address, 1_000)  # 2,300 gas
    assert world.got(address) == [(1_000, None)]
    world.flush(index)
    assert world.mined().receipts == ()
    assert world.node.code(raw_address(address)) != b""
    world.send(world.wallet, "payByTransfer", address, 2_000)
    assert world.got(address) == [(2_000, None)]
    world.send(world.wallet, "payByCall", address, 3_000, b"")
    assert world.got(address) == [(3_000, None)]


def test_several_payments_to_one_forwarder_in_one_transaction_and_one_block_all_count(world: World) -> None:
    _, one = world.forwarder()
    _, two = world.forwarder()
    world.send(world.wallet, "payMany", [one, two, one], [10, 20, 30])
    world.send(world.wallet, "payByTransfer", one, 5)
    world.anvil.send_eth(world.stranger, one, 7)
    seen = world.mined()
    units = sorted(receipt.units for receipt in world.at(one, seen))
    assert units == ([5, 7, 10, 30] if world.mode is NativeMode.TRACE else [52])
    assert [receipt.units for receipt in world.at(two, seen)] == [20]
    assert len({receipt.resource for receipt in seen.receipts}) == len(seen.receipts)


def test_what_a_selfdestruct_leaves_is_an_arrival(world: World) -> None:
    _, address = world.forwarder()
    bequest = outside_artifact("Bequest")
    data = bequest.bytecode + raw_address(address).rjust(32, b"\0")
    world.anvil.transact(world.payer, None, data, value_wei=77, gas=1_000_000)
    assert world.got(address) == [(77, None)]


def test_calls_that_are_undone_bring_nothing_whatever_their_frames_say(world: World) -> None:
    _, address = world.forwarder()
    world.send(world.wallet, "payInVain", address, 900)
    assert world.mined().receipts == ()
    world.send(world.wallet, "payAndRevert", address, 900)
    seen = world.mined()
    assert seen == Observation((), (), world.mode)


def test_delegated_calls_show_a_value_and_move_none(world: World) -> None:
    index, address = world.forwarder()
    world.flush(index)
    world.mined()
    # Any calldata: the forwarder delegates to its logic, which refuses it, value and all.
    world.send(world.wallet, "payByCall", address, 50, b"\x01\x02\x03\x04")
    assert world.mined().receipts == ()


def test_a_flush_is_no_receipt_and_hides_none_that_comes_in_its_block(world: World) -> None:
    index, address = world.forwarder()
    world.anvil.send_eth(world.payer, address, 1_000)
    world.send(world.tokens[0], "mint", address, 500)
    assert sorted(world.got(address), key=str) == [(1_000, None), (500, world.tokens[0].address)]
    world.anvil.send_eth(world.payer, address, 40)
    world.flush(index)
    world.anvil.transact(world.payer, address, value_wei=2, gas=100_000)  # more gas where code has come to be
    world.send(world.tokens[0], "mint", address, 3)
    seen = world.mined()
    assert {receipt.script for receipt in seen.receipts} == {raw_address(address)}
    assert sum(r.units for r in seen.receipts if r.contract is None) == 42
    assert [r.units for r in seen.receipts if r.contract] == [3]


def test_what_our_own_key_sends_to_a_forwarder_is_no_receipt(world: World) -> None:
    _, address = world.forwarder()
    world.anvil.send_eth(world.key, address, 11)
    seen = world.mined()
    assert seen.receipts == ()
    assert [used.resource.split(":")[0] for used in seen.consumptions] == [world.key.lower()]


def test_gas_money_for_the_key_is_a_receipt_where_traces_are_read(world: World) -> None:
    world.anvil.send_eth(world.payer, world.key, 5 * ETHER)
    expected = [(5 * ETHER, None)] if world.mode is NativeMode.TRACE else []
    assert world.got(world.key) == expected


def test_tokens_are_named_by_transaction_and_place_among_its_events(world: World) -> None:
    _, address = world.forwarder()
    six, no_return, *_ = world.tokens
    first = world.send(six, "mint", address, 1_000_000)
    second = world.send(no_return, "mint", address, 9)
    seen = world.mined()
    assert [(r.resource, r.units, r.contract) for r in seen.receipts] == [
        (f"{first[2:]}:log:0", 1_000_000, six.address),
        (f"{second[2:]}:log:0", 9, no_return.address),
    ]
    world.send(six, "mint", world.payer, 100)
    world.anvil.mine()
    world.send(six, "transfer", address, 30)
    world.send(six, "transfer", address, 0)  # nothing, by anybody, for free
    assert world.got(address) == [(30, six.address)]


def test_fault_24_of_a_token_that_keeps_a_fee_only_what_arrived_counts(world: World) -> None:
    index, address = world.forwarder()
    fee = world.tokens[2]
    world.send(fee, "mint", world.payer, 100_000)
    world.anvil.mine()
    world.send(fee, "transfer", address, 10_000)
    assert world.got(address) == [(9_900, fee.address)]
    world.send(fee, "transfer", address, 1_000)
    world.send(fee, "transfer", address, 2_000)
    assert world.got(address) == [(990, fee.address), (1_980, fee.address)]
    world.flush(index)
    world.send(fee, "transfer", address, 500)
    assert world.got(address) == [(495, fee.address)]


def test_fault_25_events_of_contracts_that_are_not_listed_are_nothing(world: World) -> None:
    _, address = world.forwarder()
    fake = deploy(world.anvil, world.payer, outside_artifact("Token"), "Six", "SIX", 6)
    world.send(fake, "mint", address, 10**12)
    assert world.mined().receipts == ()


def test_fault_25_events_of_a_listed_contract_without_an_arrival_are_nothing(world: World) -> None:
    _, address = world.forwarder()
    rogue = world.tokens[3]
    world.send(rogue, "pretend", world.payer, address, 10**24)
    world.send(rogue, "pretend", "0x" + "00" * 20, address, 2**256 - 1)
    world.send(rogue, "pretendCollectible", world.payer, address, 5)
    world.send(rogue, "pretendBriefly", world.payer, address)
    assert world.mined().receipts == ()


def test_two_identical_events_of_one_transaction_have_two_names(world: World) -> None:
    _, address = world.forwarder()
    six = world.tokens[0]
    world.send(six, "mint", world.wallet.address, 100)
    world.anvil.mine()
    world.send(world.wallet, "payByCall", six.address, 0, six.data("transfer", address, 50))
    world.send(world.wallet, "payByCall", six.address, 0, six.data("transfer", address, 50))
    seen = world.mined()
    assert [r.units for r in seen.receipts] == [50, 50]
    assert len({r.resource for r in seen.receipts}) == 2


def test_a_reorg_keeps_the_names_of_transactions_and_their_arrivals(world: World) -> None:
    _, address = world.forwarder()
    world.anvil.send_eth(world.payer, address, 1_234)
    world.send(world.tokens[0], "mint", address, 77)
    before = world.mined().receipts
    stale = world.node.tip()
    removed = world.anvil.reorg(1)
    with pytest.raises(Reorganised):
        world.observe(stale)
    with pytest.raises(Reorganised):
        world.node.balances([(raw_address(address), None)], stale)
    with pytest.raises(Reorganised):
        world.node.nonce(raw_address(world.key), stale)
    assert world.observe().receipts == ()
    for raw in removed:
        world.anvil.send_raw(raw)
    after = world.mined().receipts
    tokens = [[r for r in receipts if r.contract] for receipts in (before, after)]
    assert tokens[0] == tokens[1] != []
    native = [[r for r in receipts if r.contract is None] for receipts in (before, after)]
    assert [r.units for r in native[1]] == [1_234]
    # A balance has no transaction, so it is known by its block only.
    assert (native[0] == native[1]) is (world.mode is NativeMode.TRACE)


def test_fault_22_a_use_of_our_nonce_that_nobody_reserved_is_a_consumption(world: World) -> None:
    tip = world.node.tip()
    nonce = world.node.nonce(raw_address(world.key), tip)
    txid = world.anvil.send_eth(world.key, world.stranger, 5)
    [used] = world.mined().consumptions
    assert (used.resource, used.txid.hex) == (f"{world.key.lower()}:{nonce}", txid[2:])
    assert used.succeeded
    assert used.content != txid[2:], "content is what was signed"
    receipt = world.anvil.receipt(txid)
    assert receipt is not None
    assert used.fee_units == int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
    assert world.node.nonce(raw_address(world.key), world.node.tip()) == nonce + 1


def test_a_reverted_transaction_of_ours_is_a_consumption_that_failed_and_cost_gas(world: World) -> None:
    world.send(world.tokens[0], "transfer", world.stranger, 10**30, sender=world.key)
    [used] = world.mined().consumptions
    assert not used.succeeded
    assert used.fee_units is not None
    assert used.fee_units > 0


def test_what_a_transaction_without_a_valid_signature_has_as_content_is_none_of_ours(world: World) -> None:
    # Only a node that plays others takes such; a lying one might show one.
    outsider = "0x" + "77" * 20
    world.anvil.fund(outsider, ETHER)
    txid = world.anvil.send_eth(outsider, world.stranger, 1)
    world.anvil.mine()
    seen = world.node.observe_block(
        world.node.tip(), set(), WatchedSenders([checksummed(bytes([0x77]) * 20)])
    )
    assert [used.content for used in seen.consumptions] == [txid[2:]]


def test_balances_are_those_after_the_block_that_is_named(world: World) -> None:
    _, address = world.forwarder()
    before = world.node.tip()
    world.anvil.send_eth(world.payer, address, 50)
    world.send(world.tokens[0], "mint", address, 60)
    world.anvil.mine()
    raw, contract = raw_address(address), world.tokens[0].address
    wanted = [(raw, None), (raw, contract), (raw, checksummed(raw_address(world.payer)))]
    assert world.node.balances(wanted, before) == [0, 0, 0]
    assert world.node.balances(wanted, world.node.tip()) == [50, 60, 0]
    assert world.node.balance(raw, None, world.node.tip()) == 50
    assert world.node.balances([], world.node.tip()) == []


def test_more_addresses_than_fit_in_one_request_are_asked_for_in_several(world: World) -> None:
    addresses = [n.to_bytes(20, "big") for n in range(1_000_000, 1_000_250)]
    assert world.node.balances([(a, None) for a in addresses], world.node.tip()) == [0] * 250


def test_finality_comes_some_blocks_after_and_never_above_the_tip_asked_about(world: World) -> None:
    tip = world.node.tip()
    assert world.node.anchor(tip) < tip.height
    world.anvil.finalize()
    assert world.node.anchor(world.node.tip()) >= tip.height
    assert world.node.anchor(tip) == tip.height


def test_headers_are_linked_and_end_at_the_tip(world: World) -> None:
    tip = world.node.tip()
    headers = world.node.headers(tip.height - 2, 10)
    assert [header.ref.height for header in headers] == [tip.height - 2, tip.height - 1, tip.height]
    assert headers[-1].ref == tip
    assert headers[2].previous == headers[1].ref.hash


def test_a_block_whose_number_and_hash_do_not_belong_together_is_not_read(world: World) -> None:
    tip = world.node.tip()
    with pytest.raises(NodeUnavailable, match="instead of"):
        world.node.observe_block(BlockRef(tip.height - 1, tip.hash), world.watched, set())


def test_a_single_nonce_can_be_watched_too(world: World) -> None:
    nonce = world.node.nonce(raw_address(world.key), world.node.tip())
    for _ in range(2):
        world.anvil.send_eth(world.key, world.stranger, 5)
    world.anvil.mine()
    seen = world.node.observe_block(world.node.tip(), set(), {f"{world.key.lower()}:{nonce + 1}"})
    assert [used.resource for used in seen.consumptions] == [f"{world.key.lower()}:{nonce + 1}"]


def test_a_block_takes_two_requests_if_it_concerns_us_and_one_if_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import http.client

    asked: list[str] = []
    request: Callable[..., Any] = http.client.HTTPConnection.request

    def counted(self: http.client.HTTPConnection, method: str, url: str, *rest: Any) -> Any:
        asked.append(url)
        return request(self, method, url, *rest)

    _, address = world.forwarder()
    world.anvil.send_eth(world.payer, address, 5)
    world.send(world.tokens[0], "mint", address, 5)
    world.anvil.send_eth(world.key, world.stranger, 5)
    world.anvil.mine()
    busy = world.node.tip()
    world.anvil.mine()
    quiet = world.node.tip()
    monkeypatch.setattr(http.client.HTTPConnection, "request", counted)
    world.observe(busy)
    for_busy = len(asked)
    world.observe(quiet)
    balances = world.mode is NativeMode.BALANCE  # one more; and the parent's, unless it was read just before
    assert (for_busy, len(asked) - for_busy) == ((4, 2) if balances else (2, 1))
