"""Following a chain: whatever the node does, what is remembered is what its best chain says."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains.errors import NodeUnavailable, Reorganised
from chains.eth.network import NativeMode
from chains.ports import Consumption, Header, Receipt
from chains.types import BlockRef, TxId
from signers.verifier.chains import Spending
from signers.verifier.follow import AT_ONCE_BLOCKS, KEPT_BLOCKS, Arrival, Follower
from signers.verifier.state import State

SCRIPT = b"ours"


def hashed(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@dataclass
class Scripted:
    """A chain that the test writes block by block; a block is the uses and receipts in it."""

    name: str = "chain"
    blocks: list[tuple[Header, dict[str, str], dict[str, int]]] = field(default_factory=list)
    down: bool = False
    serial: int = 0
    reads: int = 0
    native: tuple[NativeMode, ...] = ()
    moved: dict[str, Spending] = field(default_factory=dict)
    """What transactions of any block have moved."""
    by_way: Mapping[NativeMode, Mapping[str, int]] = field(default_factory=dict)
    """Native receipts of every block, by the way of reading."""

    def mine(self, uses: dict[str, str] | None = None, receipts: dict[str, int] | None = None) -> BlockRef:
        self.serial += 1
        parent = self.blocks[-1][0].ref.hash if self.blocks else "0" * 64
        ref = BlockRef(len(self.blocks), hashed(parent, self.serial))
        self.blocks.append((Header(ref, parent, 1_000_000 + 600 * ref.height), uses or {}, receipts or {}))
        return ref

    def _asked(self) -> None:
        if self.down:
            raise NodeUnavailable("down")

    def tip(self) -> BlockRef:
        self._asked()
        return self.blocks[-1][0].ref

    def header_at(self, height: int) -> Header | None:
        self._asked()
        return self.blocks[height][0] if height < len(self.blocks) else None

    def anchor(self, tip: BlockRef) -> int:
        self._asked()
        return tip.height

    def _block(self, ref: BlockRef) -> tuple[Header, dict[str, str], dict[str, int]]:
        self._asked()
        if ref.height >= len(self.blocks) or self.blocks[ref.height][0].ref != ref:
            raise Reorganised("gone")
        return self.blocks[ref.height]

    def uses(self, block: BlockRef, resources: Iterable[str]) -> Sequence[Consumption]:
        self.reads += 1
        wanted = set(resources)
        return [
            Consumption(resource, TxId(content), content)
            for resource, content in self._block(block)[1].items()
            if resource in wanted
        ]

    def needs_reading(self, resources: Sequence[str]) -> bool:
        return bool(resources)

    def unused(self, resource: str) -> bool:
        self._asked()
        return not any(resource in uses for _, uses, _ in self.blocks)

    def receipts(self, block: BlockRef, script: bytes, mode: NativeMode | None) -> Sequence[Receipt]:
        self.reads += 1
        found = {**self._block(block)[2], **(self.by_way.get(mode, {}) if mode else {})}
        return [
            Receipt(name, TxId(block.hash), script, units, "token" if ":log:" in name else None)
            for name, units in found.items()
        ]

    def spending(self, txid: str, block: BlockRef) -> Spending | None:
        self._block(block)
        self.reads += 1
        return self.moved.get(txid)

    def modes(self) -> tuple[NativeMode, ...]:
        return self.native


@pytest.fixture
def chain() -> Scripted:
    made = Scripted()
    for _ in range(10):
        made.mine()
    return made


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state.sqlite")
    yield opened
    opened.close()


def stranger(_: str) -> int | None:
    return None


def test_a_use_is_seen_when_it_is_mined_and_forgotten_with_its_block(chain: Scripted, state: State) -> None:
    follower = Follower(state, chain)
    follower.watch(["coin:0"], stranger)
    chain.mine({"coin:0": hashed("tx")})
    follower.catch_up()
    use = follower.use_of("coin:0")
    assert use is not None
    assert (use.content, use.block.height) == (hashed("tx"), 10)
    del chain.blocks[10:]
    chain.mine()
    chain.mine()
    follower.catch_up()
    assert follower.use_of("coin:0") is None
    chain.mine({"coin:0": hashed("other")})
    follower.catch_up()
    again = follower.use_of("coin:0")
    assert again is not None
    assert again.content == hashed("other")
    assert follower.step() is False


def test_a_node_that_does_not_answer_or_lost_blocks_changes_nothing(chain: Scripted, state: State) -> None:
    follower = Follower(state, chain)
    follower.watch(["coin:0"], stranger)
    chain.mine({"coin:0": hashed("tx")})
    follower.catch_up()
    before, known = follower.use_of("coin:0"), follower.position()
    chain.down = True
    with pytest.raises(NodeUnavailable):
        follower.step()
    chain.down = False
    everything = list(chain.blocks)
    for left in (10, 5, 1):
        del chain.blocks[left:]
        with pytest.raises(NodeUnavailable, match="before"):
            follower.step()
    assert (follower.use_of("coin:0"), follower.position()) == (before, known)
    chain.blocks = everything
    assert follower.step() is False


def test_what_was_used_before_it_was_heard_of_is_sought_backwards(chain: Scripted, state: State) -> None:
    chain.mine({"coin:0": hashed("old")})
    for _ in range(3 * AT_ONCE_BLOCKS):
        chain.mine()
    follower = Follower(state, chain)
    follower.catch_up()
    follower.watch(["coin:0", "coin:1"], stranger)
    assert follower.use_of("coin:0") is None
    follower.catch_up()
    found = follower.use_of("coin:0")
    assert found is not None
    assert found.block.height == 10
    chain.mine({"coin:1": hashed("new")})
    follower.catch_up()
    assert follower.use_of("coin:1") is not None


def test_seeking_ends_where_the_operator_or_the_time_of_signing_says(chain: Scripted, state: State) -> None:
    chain.mine({"coin:0": hashed("old"), "parent:0": hashed("child")})
    for _ in range(120):
        chain.mine()
    bounded = Follower(state, chain, lowest=50)
    bounded.catch_up()
    bounded.watch(["coin:0"], stranger)
    bounded.catch_up()
    assert bounded.use_of("coin:0") is None
    reads = chain.reads
    signed_late = chain.blocks[100][0].time
    bounded.watch(["parent:0"], lambda content: signed_late if content == "parent" else None)
    bounded.catch_up()
    assert bounded.use_of("parent:0") is None
    assert chain.reads - reads < 60


def test_after_a_reorg_deeper_than_it_remembers_it_begins_anew(chain: Scripted, state: State) -> None:
    follower = Follower(state, chain)
    follower.watch(["coin:0"], stranger)
    for _ in range(5):
        chain.mine()
    follower.catch_up()
    chain.blocks.clear()
    chain.serial += 100
    for _ in range(30):
        chain.mine()
    follower.catch_up()
    position = follower.position()
    assert position is not None
    assert position.block == chain.tip()
    assert state.rows("SELECT * FROM watched") == []
    assert len(state.rows("SELECT * FROM blocks")) <= KEPT_BLOCKS


def test_a_receipt_is_proven_once_and_again_after_its_block_was_undone(chain: Scripted, state: State) -> None:
    block = chain.mine(receipts={"tx:0": 7})
    chain.mine()
    follower = Follower(state, chain)
    follower.catch_up()
    found = follower.receipt("tx:0", block, SCRIPT)
    assert found == Arrival(units="7", contract=None)
    reads = chain.reads
    assert follower.receipt("tx:0", block, SCRIPT) == found
    assert chain.reads == reads
    assert isinstance(follower.receipt("tx:9", block, SCRIPT), str)
    del chain.blocks[block.height :]
    for _ in range(4):
        chain.mine()
    follower.catch_up()
    assert follower.receipt("tx:0", block, SCRIPT) == f"block {block} is not in the best chain"


def test_what_the_own_node_has_not_reached_is_not_known(chain: Scripted, state: State) -> None:
    follower = Follower(state, chain)
    follower.catch_up()
    block = chain.mine(receipts={"tx:0": 7})
    with pytest.raises(NodeUnavailable, match="has not come"):
        follower.receipt("tx:0", block, SCRIPT)


def test_a_native_receipt_is_known_by_all_its_names_and_a_token_by_its_only_one(
    chain: Scripted, state: State
) -> None:
    by_way = {NativeMode.TRACE: {"tx:trace:0": 3, "tx:trace:1": 4}, NativeMode.BALANCE: {"balance": 7}}
    chain.native, chain.by_way = tuple(by_way), by_way
    block = chain.mine(receipts={"tx:log:1": 5})
    follower = Follower(state, chain)
    follower.catch_up()
    assert follower.receipt("tx:trace:0", block, SCRIPT) == Arrival(
        units="3", contract=None, also=("balance",)
    )
    assert follower.receipt("balance", block, SCRIPT) == Arrival(
        units="7", contract=None, also=("tx:trace:0", "tx:trace:1")
    )
    assert follower.receipt("tx:log:1", block, SCRIPT) == Arrival(units="5", contract="token")
    chain.native = (NativeMode.BALANCE,)
    assert "never" in str(follower.receipt("tx:trace:9", block, SCRIPT))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.booleans()), max_size=40))
@settings(max_examples=120)
def test_whatever_the_chain_does_the_uses_that_are_remembered_are_those_of_its_best_chain(
    moves: list[tuple[int, int, bool]],
) -> None:
    chain = Scripted()
    for _ in range(5):
        chain.mine()
    resources = [f"coin:{n}" for n in range(5)]
    with TemporaryDirectory() as directory:
        state = State(Path(directory) / "state.sqlite")
        follower = Follower(state, chain)
        for step, (kind, number, look) in enumerate(moves):
            used = {resource for _, uses, _ in chain.blocks for resource in uses}
            if kind <= 1:
                free = resources[number] not in used
                chain.mine({resources[number]: hashed("use", step)} if free and kind else {})
            elif kind == 2 and len(chain.blocks) > 3 + number:
                del chain.blocks[-1 - number :]
                for _ in range(number + 2):
                    chain.mine()
            else:
                follower.watch(resources[: number + 1], stranger)
            if look:
                follower.catch_up()
        follower.catch_up()
        follower.watch(resources, stranger)
        follower.catch_up()
        best = {
            resource: (content, header.ref)
            for header, uses, _ in chain.blocks
            for resource, content in uses.items()
        }
        found = {
            resource: (use.content, use.block)
            for resource in resources
            if (use := follower.use_of(resource)) is not None
        }
        assert found == best
        state.close()
