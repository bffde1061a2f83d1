"""Contracts on a test chain: deploy one, call it, read its events. The chain mines when we say so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eth_abi.abi import decode, encode
from eth_utils.address import to_checksum_address

from chains.eth.address import keccak256
from chains.eth.contracts import Artifact, artifact
from ops.devnet.anvil import Anvil

TEST_CONTRACTS = Path(__file__).resolve().parents[1] / "contracts"
PLENTY_OF_GAS = 12_000_000
"""Below what a block and a transaction may use; so that what reverts is mined and seen to revert."""


def outside_artifact(name: str) -> Artifact:
    """A contract of `tests/contracts`."""
    return artifact(name, TEST_CONTRACTS)


@dataclass(frozen=True, slots=True)
class Contract:
    """A contract on a chain: functions and events by their names in its ABI."""

    node: Anvil
    address: str
    abi: tuple[dict[str, Any], ...]

    def data(self, function: str, *arguments: object) -> bytes:
        """Calldata of a call."""
        inputs = _types(self._entry("function", function)["inputs"])
        return keccak256(f"{function}({','.join(inputs)})".encode())[:4] + encode(inputs, arguments)

    def call(self, function: str, *arguments: object) -> Any:
        """What a view returns at the latest block; a tuple where it returns several values."""
        question = {"to": self.address, "data": "0x" + self.data(function, *arguments).hex()}
        answer = bytes.fromhex(self.node.rpc("eth_call", question, "latest")[2:])
        values = decode(_types(self._entry("function", function)["outputs"]), answer)
        return values[0] if len(values) == 1 else values

    def attempt(
        self, sender: str, function: str, *arguments: object, value_wei: int = 0, gas: int = PLENTY_OF_GAS
    ) -> dict[str, Any]:
        """Sends a call, mines it, and returns its receipt, whether it succeeded or not."""
        data = self.data(function, *arguments)
        return mined(self.node, self.node.transact(sender, self.address, data, value_wei=value_wei, gas=gas))

    def do(self, sender: str, function: str, *arguments: object, value_wei: int = 0) -> dict[str, Any]:
        """Sends a call that must succeed, mines it, and returns its receipt."""
        receipt = self.attempt(sender, function, *arguments, value_wei=value_wei)
        assert succeeded(receipt), f"{function} failed"
        return receipt

    def events(self, receipt: dict[str, Any], event: str) -> list[tuple[str, tuple[Any, ...]]]:
        """Emitter and values of each event of that name, in the order of the ABI."""
        return [
            (to_checksum_address(log["address"]), self._read(event, log))
            for log in receipt["logs"]
            if log["topics"] and log["topics"][0] == self.topic(event)
        ]

    def topic(self, event: str) -> str:
        """First topic of an event, in hex."""
        inputs = _types(self._entry("event", event)["inputs"])
        return "0x" + keccak256(f"{event}({','.join(inputs)})".encode()).hex()

    def _read(self, event: str, log: dict[str, Any]) -> tuple[Any, ...]:
        inputs = self._entry("event", event)["inputs"]
        plain = [entry for entry in inputs if not entry["indexed"]]
        values = iter(decode(_types(plain), bytes.fromhex(log["data"][2:])))
        topics = iter(log["topics"][1:])
        return tuple(
            decode([entry["type"]], bytes.fromhex(next(topics)[2:]))[0] if entry["indexed"] else next(values)
            for entry in inputs
        )

    def _entry(self, kind: str, name: str) -> dict[str, Any]:
        [found] = [entry for entry in self.abi if entry["type"] == kind and entry["name"] == name]
        return found


def deploy(node: Anvil, sender: str, compiled: Artifact, *arguments: object, value_wei: int = 0) -> Contract:
    """Deploys a contract, mines it, and returns it."""
    inputs = [_types(entry["inputs"]) for entry in compiled.abi if entry["type"] == "constructor"]
    data = compiled.bytecode + (encode(inputs[0], arguments) if inputs else b"")
    receipt = mined(node, node.transact(sender, None, data, value_wei=value_wei, gas=PLENTY_OF_GAS))
    assert succeeded(receipt), f"deployment of {compiled.name} failed"
    return Contract(node, to_checksum_address(receipt["contractAddress"]), compiled.abi)


def mined(node: Anvil, txid: str) -> dict[str, Any]:
    """Mines a block and returns the receipt of a transaction that must be in it."""
    node.mine()
    receipt = node.receipt(txid)
    assert receipt is not None, f"{txid} was not mined"
    return receipt


def succeeded(receipt: dict[str, Any]) -> bool:
    """Whether a transaction did what it says."""
    return int(receipt["status"], 16) == 1


def gas_used(receipt: dict[str, Any]) -> int:
    """Gas that a transaction paid for, after refunds."""
    return int(receipt["gasUsed"], 16)


def salt(index: int) -> bytes:
    """The salt of a forwarder: 32 bytes, big-endian."""
    return index.to_bytes(32, "big")


def _types(entries: list[dict[str, Any]]) -> list[str]:
    return [str(entry["type"]) for entry in entries]
