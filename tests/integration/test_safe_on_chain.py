"""A real Safe 1.4.1 on anvil: our hash is the contract's, our signers' signatures move its money, and what they refuse
would have worked."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings

from chains.errors import Reorganised
from chains.eth.address import raw_address
from chains.eth.network import EthNetwork, NativeMode
from chains.eth.node import EvmNode
from chains.eth.safe import SafeMessage, SafeTx, join_signatures, safe_resource
from chains.types import BlockRef
from ops.devnet.anvil import Anvil
from policies.intent import Kind
from signers.ports import OpenRequest, SignRequest
from signers.verifier.chains import EvmChain
from signers.verifier.follow import Follower
from signers.verifier.logs import LogKeeper
from signers.verifier.resolve import Resolver
from signers.verifier.state import State
from tests.fakes.evm_signing import ETHER, EVM_CHAIN, EVM_CHAIN_ID, EVM_DESTINATION, USDX, named_address
from tests.fakes.safe_signing import OWNERS, ExecutorBench, OwnerBench, SafeDraft, SafeWorld, owner_keys
from tests.fakes.safe_txs import safe_txs, values
from tests.fakes.signing import VERIFIER
from tests.support.evm import Contract, deploy, mined, outside_artifact, succeeded
from tests.support.safe import deploy_safe, safe_artifact

MALLORY = named_address("mallory")


@dataclass
class Vault:
    """A Safe with money, a signer for each owner, and one of the gas payer."""

    node: Anvil
    safe: Contract
    token: Contract
    world: SafeWorld
    owners: list[OwnerBench]
    hot: ExecutorBench
    executed: int = 0

    @property
    def nonce(self) -> int:
        """The Safe's own, from the chain."""
        return int(self.safe.call("nonce"))

    def signatures(self, request: SignRequest, owners: tuple[int, ...]) -> bytes:
        """What the owners' signers give, as `execTransaction` takes it."""
        message = SafeMessage.decode(base64.b64decode(request.transaction))
        given = [bytes.fromhex(self.owners[n].signatures(request)[0].signature) for n in owners]
        return join_signatures(message.signing_hash, given)

    def execute(self, message: SafeMessage, blob: bytes) -> bool:
        """Have the gas payer's signer sign the execution, and mine it; whether it succeeded."""
        draft = self.world.execution(message, blob, nonce=self.executed)
        (signature,) = self.hot.signatures(self.world.request(draft))
        self.executed += 1
        raw = self.world.tx(draft).signed(bytes.fromhex(signature.signature)).encode()
        return succeeded(mined(self.node, self.node.send_raw("0x" + raw.hex())))

    def attempt(self, tx: SafeTx, blob: bytes) -> bool:
        """The same sent by anybody, without asking a signer; whether it succeeded."""
        sender = self.node.accounts()[0]
        return succeeded(
            mined(self.node, self.node.transact(sender, self.safe.address, tx.execution(blob), gas=1_000_000))
        )


@pytest.fixture
def vault(anvil: Anvil, tmp_path: Path) -> Iterator[Vault]:
    deployer, keys = anvil.accounts()[0], owner_keys()
    safe = deploy_safe(anvil, deployer, [key.record.address for key in keys], 2)
    token = deploy(anvil, deployer, outside_artifact("Token"), "Token X", "USDX", 6)
    # The world's bundle names the token by an address of its own: its code is put there.
    anvil.rpc("anvil_setCode", USDX, anvil.rpc("eth_getCode", token.address, "latest"))
    token = Contract(anvil, USDX, token.abi)
    token.do(deployer, "mint", safe.address, 10**12)
    world = SafeWorld.make(safe.address, keys)
    anvil.fund(safe.address, 100 * ETHER)
    anvil.fund(world.gas.record.address, ETHER // 2)
    with ExitStack() as stack:
        owners = []
        for number, name in enumerate(OWNERS):
            (tmp_path / name).mkdir()
            owners.append(OwnerBench(tmp_path / name, world, number))
            stack.callback(owners[-1].journal.close)
        (tmp_path / "hot").mkdir()
        hot = ExecutorBench(tmp_path / "hot", world)
        stack.callback(hot.journal.close)
        yield Vault(anvil, safe, token, world, owners, hot)


def test_two_of_three_owners_pay_and_the_money_moves(vault: Vault) -> None:
    world, node = vault.world, vault.node
    before = node.balance_wei(EVM_DESTINATION)
    draft = world.safe_draft(5 * ETHER, safe=vault.safe.address)
    request = world.safe_request(draft)
    assert vault.execute(world.message(draft), vault.signatures(request, (0, 2)))
    assert node.balance_wei(EVM_DESTINATION) - before == 5 * ETHER
    assert node.balance_wei(vault.safe.address) == 95 * ETHER
    token = world.safe_draft(10**9, asset="USDX", safe=vault.safe.address, nonce=1)
    blob = vault.signatures(world.safe_request(token), (2, 1))
    assert vault.execute(world.message(token), blob)
    assert vault.token.call("balanceOf", EVM_DESTINATION) == 10**9
    assert vault.token.call("balanceOf", vault.safe.address) == 10**12 - 10**9
    assert vault.nonce == 2
    # Again: the Safe's nonce has moved on, so the same signatures are good for nothing.
    assert not vault.attempt(world.message(token).tx, blob)
    assert vault.token.call("balanceOf", EVM_DESTINATION) == 10**9


def test_a_payment_that_fails_inside_fails_as_a_whole_and_its_nonce_is_not_used(vault: Vault) -> None:
    """With safeTxGas and gasPrice of zero: the very same bytes are sent again, and no second version is needed."""
    world = vault.world
    draft = world.safe_draft(99 * ETHER, safe=vault.safe.address)
    blob = vault.signatures(world.safe_request(draft), (0, 1))
    vault.node.rpc("anvil_setBalance", vault.safe.address, hex(ETHER))
    assert not vault.execute(world.message(draft), blob)
    assert vault.nonce == 0
    vault.node.fund(vault.safe.address, 100 * ETHER)
    assert vault.execute(world.message(draft), blob)
    assert vault.nonce == 1


def cancelled(vault: Vault, nonce: int = 0) -> SignRequest:
    """The request to use up a nonce of the Safe."""
    world, safe = vault.world, vault.safe.address
    intent = world.safe_house_intent(Kind.CANCELLATION, safe)
    empty = {"to": raw_address(safe), "value_wei": 0, "data": b""}
    return world.safe_request(SafeDraft([], nonce=nonce, safe=safe, intents=[intent], tx=empty))


def test_a_cancelled_payment_can_never_be_carried_out_and_moved_nothing(vault: Vault) -> None:
    """WazirX 2024: what was abandoned is made unusable before the next is asked for."""
    world = vault.world
    abandoned = world.safe_draft(5 * ETHER, safe=vault.safe.address)
    blob = vault.signatures(world.safe_request(abandoned), (0, 1))
    request = cancelled(vault)
    empty = SafeMessage.decode(base64.b64decode(request.transaction))
    before = vault.node.balance_wei(vault.safe.address)
    assert vault.execute(empty, vault.signatures(request, (1, 2)))
    assert (vault.nonce, vault.node.balance_wei(vault.safe.address)) == (1, before)
    assert not vault.attempt(world.message(abandoned).tx, blob)
    assert vault.node.balance_wei(vault.safe.address) == before


def test_a_verifier_proves_dead_what_a_cancellation_has_overtaken(
    vault: Vault, node: EvmNode, tmp_path: Path
) -> None:
    world, owner = vault.world, vault.owners[0]
    abandoned = world.safe_draft(5 * ETHER, safe=vault.safe.address)
    owner.signatures(world.safe_request(abandoned))
    request = cancelled(vault)
    owner.signatures(request)
    empty = SafeMessage.decode(base64.b64decode(request.transaction))
    state = State(tmp_path / "verifier.sqlite")
    bundle = world.bundle()
    follower = Follower(state, EvmChain(node, lambda: bundle))
    resolver = Resolver(
        VERIFIER, world.verifier, state, {EVM_CHAIN: follower}, LogKeeper(state), lambda: bundle
    )
    follower.catch_up()
    assert resolver.serve(owner.witness) == 0
    assert vault.execute(empty, world.signatures_blob(empty))
    vault.node.finalize()
    follower.catch_up()
    assert resolver.serve(owner.witness) == 2
    outcomes = [resolver.outcome(EVM_CHAIN, each.content) for each in (empty, world.message(abandoned))]
    assert outcomes == ["confirmed", "dead"]
    # And what the gas payer has sent is resolved like any sender's.
    assert resolver.serve(vault.hot.witness) == 1
    assert vault.hot.witness.open(OpenRequest()).transactions == ()
    state.close()


def test_what_the_hot_signer_refuses_to_execute_the_safe_refuses_too(vault: Vault) -> None:
    world = vault.world
    message = world.message(world.safe_draft(ETHER, safe=vault.safe.address))
    good = world.signatures_blob(message)
    later = replace(message, tx=replace(message.tx, nonce=1))
    for blob in (
        good[65:] + good[:65],
        good[:65],
        good[:65] * 2,
        world.signatures_blob(replace(message, chain_id=1)),
        world.signatures_blob(replace(message, safe=raw_address(MALLORY))),
        world.signatures_blob(later),
    ):
        assert vault.hot.codes(world.request(world.execution(message, blob))) == {"owner-signatures"}
        assert not vault.attempt(message.tx, blob)
    assert vault.nonce == 0
    assert vault.attempt(message.tx, good)


def test_what_the_owners_signers_refuse_would_have_robbed_the_safe(vault: Vault) -> None:
    """Each is refused by the signers, and carried out by the contract where owners' keys are used without them."""
    world, safe = vault.world, vault.safe
    multi_send = deploy(vault.node, vault.node.accounts()[0], safe_artifact("MultiSend"))
    add = safe.data("addOwnerWithThreshold", MALLORY, 1)
    hidden = bytes([0]) + raw_address(safe.address) + bytes(32) + len(add).to_bytes(32, "big") + add
    thefts = {
        "safe-administration": {"to": raw_address(safe.address), "value_wei": 0, "data": add},
        "delegate-call": {
            "to": raw_address(multi_send.address),
            "value_wei": 0,
            "data": multi_send.data("multiSend", hidden),
            "operation": 1,
        },
        "refund-fields": {
            "gas_price": ETHER // 100_000,
            "base_gas": 100_000,
            "refund_receiver": raw_address(MALLORY),
        },
        "allowance": {
            "to": raw_address(USDX),
            "value_wei": 0,
            "data": vault.token.data("approve", MALLORY, 2**256 - 1),
        },
    }
    start = vault.node.rpc("evm_snapshot")
    for code, tx in thefts.items():
        draft = world.safe_draft(ETHER, safe=safe.address, tx=tx)
        for owner in vault.owners:
            assert code in owner.codes(world.safe_request(draft))
        message = world.message(draft)
        assert code in vault.hot.codes(world.request(world.execution(message)))
        assert vault.attempt(message.tx, world.signatures_blob(message)), code
        robbed = (
            safe.call("isOwner", MALLORY)
            or vault.token.call("allowance", safe.address, MALLORY) == 2**256 - 1
            or vault.node.balance_wei(MALLORY) > 0
        )
        assert robbed, code
        assert vault.node.rpc("evm_revert", start)
        start = vault.node.rpc("evm_snapshot")


# What the verifier says of it.


@pytest.fixture
def node(anvil: Anvil) -> EvmNode:
    network = EthNetwork(EVM_CHAIN_ID, anvil.block_hash(0)[2:], NativeMode.BALANCE)
    return EvmNode(EVM_CHAIN, network, anvil.rpc_url, tokens=lambda: ())


def test_a_node_tells_which_nonces_of_a_safe_were_used_by_what(vault: Vault, node: EvmNode) -> None:
    world, safe = vault.world, raw_address(vault.safe.address)
    sent = []
    for nonce in range(3):
        message = world.message(world.safe_draft(ETHER, safe=vault.safe.address, nonce=nonce))
        assert vault.attempt(message.tx, world.signatures_blob(message))
        sent.append((message.content, node.tip()))
    for nonce, (content, block) in enumerate(sent):
        (use,) = node.safes.executions([safe, b"\x01" * 20], block)
        assert (use.resource, use.content, use.succeeded) == (safe_resource(safe, nonce), content, True)
        assert node.safes.nonce(safe, block) == nonce + 1
    assert node.safes.executions([], sent[0][1]) == []
    assert node.safes.nonce(b"\x01" * 20, node.tip()) == 0
    # Two in one block, and one that fails inside with gas of its own, which uses the nonce up.
    contents = []
    for nonce, tx in ((3, {}), (4, {"safe_tx_gas": 30_000, "value_wei": 500 * ETHER})):
        message = world.message(world.safe_draft(ETHER, safe=vault.safe.address, nonce=nonce, tx=tx))
        data = message.tx.execution(world.signatures_blob(message))
        vault.node.transact(vault.node.accounts()[0], vault.safe.address, data, gas=400_000)
        contents.append(message.content)
    vault.node.mine()
    uses = node.safes.executions([safe], node.tip())
    assert [(use.content, use.succeeded) for use in uses] == list(zip(contents, (True, False), strict=True))
    assert [use.resource for use in uses] == [safe_resource(safe, 3), safe_resource(safe, 4)]
    gone = BlockRef(node.tip().height, "ab" * 32)
    with pytest.raises(Reorganised):
        node.safes.executions([safe], gone)


def test_a_verifier_confirms_what_a_safe_has_executed_and_proves_its_rivals_dead(
    vault: Vault, node: EvmNode, tmp_path: Path
) -> None:
    world, owner = vault.world, vault.owners[0]
    drafts = [world.safe_draft(units * ETHER, safe=vault.safe.address) for units in (1, 2)]
    later = world.safe_draft(ETHER, safe=vault.safe.address, nonce=1)
    for draft in (*drafts, later):
        owner.signatures(world.safe_request(draft))
    paid, rival, waits = (world.message(draft) for draft in (*drafts, later))
    state = State(tmp_path / "verifier.sqlite")
    bundle = world.bundle()
    follower = Follower(state, EvmChain(node, lambda: bundle))
    parts = ({EVM_CHAIN: follower}, LogKeeper(state), lambda: bundle)
    resolver = Resolver(VERIFIER, world.verifier, state, *parts)
    assert resolver.serve(owner.witness) == 0
    assert vault.attempt(paid.tx, world.signatures_blob(paid))
    follower.catch_up()
    assert resolver.serve(owner.witness) == 0, "its block is not final yet"
    vault.node.finalize()
    follower.catch_up()
    assert resolver.serve(owner.witness) == 2
    outcomes = [resolver.outcome(EVM_CHAIN, message.content) for message in (paid, rival, waits)]
    assert outcomes == ["confirmed", "dead", None]
    assert [each.content for each in owner.witness.open(OpenRequest()).transactions] == [waits.content]
    # Executed before the verifier ever heard of it: found in older blocks, whatever has happened since.
    assert vault.attempt(waits.tx, world.signatures_blob(waits))
    for nonce in range(2, 5):
        more = world.message(world.safe_draft(ETHER, safe=vault.safe.address, nonce=nonce))
        assert vault.attempt(more.tx, world.signatures_blob(more))
    vault.node.finalize()
    state.close()
    late_state = State(tmp_path / "late.sqlite")
    late_follower = Follower(late_state, EvmChain(node, lambda: bundle))
    late = Resolver(
        VERIFIER,
        world.verifier,
        late_state,
        {EVM_CHAIN: late_follower},
        LogKeeper(late_state),
        lambda: bundle,
    )
    assert late.serve(owner.witness) == 0
    late_follower.catch_up()
    assert late.serve(owner.witness) == 1
    assert late.outcome(EVM_CHAIN, waits.content) == "confirmed"
    late_state.close()


def test_the_hash_is_the_contracts_own(anvil: Anvil) -> None:
    deployer = anvil.accounts()[0]
    safe = deploy_safe(anvil, deployer, [deployer], 1)
    assert safe.call("VERSION") == "1.4.1"

    @settings(max_examples=40)
    @given(safe_txs)
    def compare(tx: SafeTx) -> None:
        theirs = safe.call("getTransactionHash", *values(tx))
        assert bytes(theirs) == tx.signing_hash(EVM_CHAIN_ID, raw_address(safe.address))

    compare()


def test_owners_and_threshold_are_those_of_the_bundle(vault: Vault) -> None:
    entry = vault.world.vault_entry()
    assert set(vault.safe.call("getOwners")) == {owner.address.lower() for owner in entry.owners}
    assert vault.safe.call("getThreshold") == entry.threshold
    assert SafeDraft([]).chain_id == int(vault.node.rpc("eth_chainId"), 16)
