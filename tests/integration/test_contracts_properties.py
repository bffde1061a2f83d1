"""Whoever calls whatever: what forwarders hold reaches the treasury, and nobody else, ever.

A model of balances, treasury and admin runs beside the contracts; after each step both must agree to the unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
from eth_utils.address import to_checksum_address
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from chains.eth.contracts import artifact
from ops.devnet.anvil import Anvil
from tests.support.evm import Contract, deploy, mined, outside_artifact, salt, succeeded

ZERO = "0x" + "00" * 20
DELAY, WINDOW = 48 * 3600, 14 * 24 * 3600
FORWARDERS = range(4)
TREASURIES = [to_checksum_address("0x" + digits * 20) for digits in ("71", "72", "73")]
TOKENS: dict[str, tuple[object, ...]] = {
    "Token": ("T", "T", 0),
    "NoReturnToken": (),
    "FalseToken": (),
    "FeeToken": (300,),
    "PausableToken": (),
    "BlacklistToken": (),
    "ReentrantToken": (),
    "VerboseToken": (),
}
ETH = "ETH"

indexes = st.lists(st.sampled_from(FORWARDERS), max_size=5)
some = st.lists(st.sampled_from(FORWARDERS), min_size=1, max_size=3)
waits = st.sampled_from([0, 1, 47, 48, 49, 14 * 24, 17 * 24])
names = st.lists(st.sampled_from([*TOKENS, "no token"]), max_size=6)
outsiders = st.sampled_from(["stranger", "payer", "treasury"])


def test_nothing_leaves_a_forwarder_except_to_the_treasury_whoever_calls_whatever(
    fresh_anvil: Callable[..., Anvil],
) -> None:
    node = fresh_anvil()
    run_state_machine_as_test(
        lambda: Forwarders(node),  # type: ignore[arg-type] # any factory of machines will do
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            # Making a failure smaller would take longer than a test may; its steps are printed as they were.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )


class Forwarders(RuleBasedStateMachine):
    """A factory with four forwarders, eight tokens, and everybody who might try something."""

    def __init__(self, node: Anvil) -> None:
        super().__init__()
        self.node = node
        self.admin, self.stranger, self.payer, self.heir, *_ = node.accounts()
        self.factory = deploy(node, self.payer, artifact("ForwarderFactory"), TREASURIES[0], self.admin)
        self.logic = Contract(
            node, to_checksum_address(self.factory.call("logic")), artifact("ForwarderLogic").abi
        )
        self.wallet = deploy(node, self.payer, outside_artifact("ContractWallet"))
        self.tokens = {
            name: deploy(node, self.payer, outside_artifact(name), *arguments)
            for name, arguments in TOKENS.items()
        }
        self.forwarders = [
            to_checksum_address(self.factory.call("forwarderOf", salt(index))) for index in FORWARDERS
        ]
        assert succeeded(mined(node, node.send_eth(self.payer, self.wallet.address, 10**18)))
        # The model.
        self.treasury: str = TREASURIES[0]
        self.manager = self.admin
        self.next_treasury: tuple[str, int] = (ZERO, 0)
        self.next_admin: tuple[str, int] = (ZERO, 0)
        self.held: Counter[tuple[str, str]] = Counter()  # (holder, asset) -> units
        for treasury in TREASURIES:
            node.fund(treasury, 10**20)
        self.before = {address: node.balance_wei(address) for address in TREASURIES}
        self.paused = self.callback = False
        self.refuses = True
        self.blacklist: set[str] = set()
        self.entered = False

    # --- deposits ---

    @rule(index=st.sampled_from(FORWARDERS), amount=st.integers(1, 10**9))
    def pay_plainly(self, index: int, amount: int) -> None:
        self.held[self.forwarders[index], ETH] += amount
        txid = self.node.transact(self.payer, self.forwarders[index], value_wei=amount, gas=23_300)
        assert succeeded(mined(self.node, txid))

    @rule(index=st.sampled_from(FORWARDERS), amount=st.integers(1, 10**9))
    def pay_from_a_contract_with_2300_gas(self, index: int, amount: int) -> None:
        self.held[self.forwarders[index], ETH] += amount
        self.wallet.do(self.stranger, "payByTransfer", self.forwarders[index], amount)

    @rule(chosen=some, amount=st.integers(1, 10**9))
    def pay_every_token(self, chosen: list[int], amount: int) -> None:
        txids = []
        for index in chosen:
            for name, token in self.tokens.items():
                self.held[self.forwarders[index], name] += amount
                data = token.data("mint", self.forwarders[index], amount)
                txids.append(self.node.transact(self.payer, token.address, data, gas=200_000))
        self.node.mine()
        receipts = [self.node.receipt(txid) for txid in txids]
        assert all(receipt is not None and succeeded(receipt) for receipt in receipts)

    # --- moods of tokens ---

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self.paused = paused
        self.tokens["PausableToken"].do(self.payer, "setPaused", paused)

    @rule(refuses=st.booleans())
    def refuse(self, refuses: bool) -> None:
        self.refuses = refuses
        self.tokens["FalseToken"].do(self.payer, "setRefuses", refuses)

    @rule(index=st.sampled_from(FORWARDERS), listed=st.booleans())
    def blacklist_a_forwarder(self, index: int, listed: bool) -> None:
        (self.blacklist.add if listed else self.blacklist.discard)(self.forwarders[index])
        self.tokens["BlacklistToken"].do(self.payer, "setBlacklisted", self.forwarders[index], listed)

    @rule(what=st.sampled_from(["flush everything", "take the treasury", "empty the other", "nothing"]))
    def have_a_token_call_back(self, what: str) -> None:
        everything = [token.address for token in self.tokens.values()]
        flush = self.factory.data("flush", [salt(index) for index in FORWARDERS], everything)
        target, data = {
            "flush everything": (self.factory.address, flush),
            "take the treasury": (self.factory.address, self.factory.data("proposeTreasury", self.stranger)),
            "empty the other": (self.forwarders[1], self.logic.data("flush", self.stranger, everything)),
            "nothing": (ZERO, b""),
        }[what]
        self.tokens["ReentrantToken"].do(self.stranger, "setCallback", target, data)
        self.callback = what == "flush everything"

    # --- flushes, by anybody ---

    @rule(sender=outsiders, chosen=indexes, named=names)
    def flush(self, sender: str, chosen: list[int], named: list[str]) -> None:
        addresses = [self.stranger if name == "no token" else self.tokens[name].address for name in named]
        salts = [salt(index) for index in chosen]
        receipt = self._charge(self.factory.do(self._address(sender), "flush", salts, addresses))
        expected: list[tuple[str, tuple[str, int]]] = []
        self._flush(chosen, named, expected)
        assert self.logic.events(receipt, "NotFlushed") == expected

    # --- what must not work ---

    @rule(sender=outsiders, hours=waits)
    def meddle_with_the_factory(self, sender: str, hours: int) -> None:
        self.node.increase_time(hours * 3600)
        who = self._address(sender)
        calls = [self.factory.data(f"propose{what}", who) for what in ("Treasury", "Admin")]
        calls += [
            self.factory.data(f"{verb}{what}")
            for verb in ("accept", "cancel")
            for what in ("Treasury", "Admin")
        ]
        txids = [self.node.transact(who, self.factory.address, data, gas=200_000) for data in calls]
        self.node.mine()
        for txid in txids:
            receipt = self.node.receipt(txid)
            assert receipt is not None
            assert not succeeded(self._charge(receipt))

    @rule(sender=outsiders, index=st.sampled_from(FORWARDERS), named=names, directly=st.booleans())
    def order_a_forwarder_about(self, sender: str, index: int, named: list[str], directly: bool) -> None:
        tokens = [self.tokens[name].address for name in named if name != "no token"]
        target = self.logic.address if directly else self.forwarders[index]
        data = self.logic.data("flush", self._address(sender), tokens)
        txid = self.node.transact(self._address(sender), target, data, gas=1_000_000)
        worked = succeeded(self._charge(mined(self.node, txid)))
        assert not worked or not self._exists(target), "only an address without code swallows a call"

    @rule(
        sender=outsiders,
        callee=st.sampled_from(["factory", "logic", *FORWARDERS]),
        data=st.binary(min_size=1, max_size=100),
    )
    def send_any_bytes(self, sender: str, callee: str | int, data: bytes) -> None:
        named = {"factory": self.factory.address, "logic": self.logic.address}
        address = self.forwarders[callee] if isinstance(callee, int) else named[callee]
        self._charge(
            mined(self.node, self.node.transact(self._address(sender), address, data, gas=1_000_000))
        )

    # --- treasury and admin ---

    @rule(candidate=st.sampled_from(TREASURIES))
    def propose_a_treasury(self, candidate: str) -> None:
        receipt = self.factory.do(self.manager, "proposeTreasury", candidate)
        self.next_treasury = (candidate, self._time(receipt) + DELAY)

    @rule(hours=waits)
    def accept_the_treasury(self, hours: int) -> None:
        self.node.increase_time(hours * 3600)
        receipt = self.factory.attempt(self.manager, "acceptTreasury")
        assert succeeded(receipt) == self._ripe(self.next_treasury, receipt)
        if succeeded(receipt):
            self.treasury, self.next_treasury = self.next_treasury[0], (ZERO, 0)

    @rule()
    def cancel_the_treasury(self) -> None:
        worked = succeeded(self.factory.attempt(self.manager, "cancelTreasury"))
        assert worked == (self.next_treasury != (ZERO, 0))
        self.next_treasury = (ZERO, 0)

    @rule()
    def propose_the_other_admin(self) -> None:
        other = self.heir if self.manager == self.admin else self.admin
        receipt = self.factory.do(self.manager, "proposeAdmin", other)
        self.next_admin = (other, self._time(receipt) + DELAY)

    @rule(hours=waits)
    def accept_the_admin(self, hours: int) -> None:
        self.node.increase_time(hours * 3600)
        for sender in (self.admin, self.heir):
            receipt = self.factory.attempt(sender, "acceptAdmin")
            right = sender == self.next_admin[0] and self._ripe(self.next_admin, receipt)
            assert succeeded(receipt) == right
            if right:
                self.manager, self.next_admin = sender, (ZERO, 0)

    # --- what is always so ---

    @invariant()
    def balances_are_the_models(self) -> None:
        holders = (*self.forwarders, *TREASURIES)
        native = [("eth_getBalance", (holder, "latest")) for holder in holders]
        asked = [(holder, name) for holder in holders for name in self.tokens]
        found = self.node.rpc_batch([*native, *(self._balance_call(*pair) for pair in asked)])
        for holder, balance in zip(holders, found, strict=False):
            assert int(balance, 16) - self.before.get(holder, 0) == self.held[holder, ETH], holder
        for pair, balance in zip(asked, found[len(holders) :], strict=True):
            assert int(balance, 16) == self.held[pair], pair

    def teardown(self) -> None:
        """Nobody else has anything in the end: nothing that once got there could have been taken back."""
        others = (self.stranger, self.payer, self.admin, self.heir, self.factory.address, self.logic.address)
        assert all(token.call("balanceOf", who) == 0 for who in others for token in self.tokens.values())
        assert self.node.balance_wei(self.factory.address) == self.node.balance_wei(self.logic.address) == 0

    @invariant()
    def treasury_and_admin_are_the_models(self) -> None:
        assert to_checksum_address(self.factory.call("treasury")) == self.treasury
        assert to_checksum_address(self.factory.call("admin")) == self.manager
        candidate, not_before = self.factory.call("proposedTreasury")
        assert (to_checksum_address(candidate), not_before) == self.next_treasury

    # --- the model of a flush ---

    def _flush(self, chosen: Any, named: list[str], refused: list[tuple[str, tuple[str, int]]]) -> None:
        for index in chosen:
            forwarder = self.forwarders[index]
            for name in named:
                held = self.held[forwarder, name]
                if name == "no token":
                    refused.append((forwarder, (self.stranger.lower(), 0)))
                elif held and self._refuses(name, forwarder):
                    refused.append((forwarder, (self.tokens[name].address.lower(), held)))
                elif held:
                    self._move(forwarder, name, refused)
            self.held[self.treasury, ETH] += self.held.pop((forwarder, ETH), 0)

    def _move(self, forwarder: str, name: str, refused: list[tuple[str, tuple[str, int]]]) -> None:
        if name == "ReentrantToken" and self.callback and not self.entered:
            self.entered = True
            self._flush(FORWARDERS, [*TOKENS], refused)
            self.entered = False
        held = self.held.pop((forwarder, name), 0)
        self.held[self.treasury, name] += held - (held * 300 // 10_000 if name == "FeeToken" else 0)

    def _refuses(self, name: str, forwarder: str) -> bool:
        return (
            (name == "FalseToken" and self.refuses)
            or (name == "PausableToken" and self.paused)
            or (name == "BlacklistToken" and forwarder in self.blacklist)
        )

    def _address(self, who: str) -> str:
        return {"stranger": self.stranger, "payer": self.payer, "treasury": self.treasury}[who]

    def _charge(self, receipt: dict[str, Any]) -> dict[str, Any]:
        """Takes the gas that a treasury paid as a sender out of what it is expected to have."""
        sender = to_checksum_address(receipt["from"])
        if sender in self.before:
            self.before[sender] -= int(receipt["gasUsed"], 16) * int(receipt["effectiveGasPrice"], 16)
        return receipt

    def _balance_call(self, holder: str, name: str) -> tuple[str, tuple[object, ...]]:
        token = self.tokens[name]
        data = "0x" + token.data("balanceOf", holder).hex()
        return "eth_call", ({"to": token.address, "data": data}, "latest")

    def _exists(self, address: str) -> bool:
        return str(self.node.rpc("eth_getCode", address, "latest")) != "0x"

    def _time(self, receipt: dict[str, Any]) -> int:
        block = self.node.rpc("eth_getBlockByHash", receipt["blockHash"], False)
        return int(block["timestamp"], 16)

    def _ripe(self, proposal: tuple[str, int], receipt: dict[str, Any]) -> bool:
        candidate, not_before = proposal
        return candidate != ZERO and not_before <= self._time(receipt) <= not_before + WINDOW
