"""What the compiled contracts can do at all, read from their instructions."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from chains.eth.contracts import HERE, artifact

PUSH1, PUSH32 = 0x60, 0x7F
NAMES = {
    0x00: "STOP",
    0x31: "BALANCE",
    0x54: "SLOAD",
    0x55: "SSTORE",
    0x5F: "PUSH0",
    0xA0: "LOG0",
    0xA1: "LOG1",
    0xA2: "LOG2",
    0xA3: "LOG3",
    0xA4: "LOG4",
    0xF0: "CREATE",
    0xF1: "CALL",
    0xF2: "CALLCODE",
    0xF4: "DELEGATECALL",
    0xF5: "CREATE2",
    0xFA: "STATICCALL",
    0xFF: "SELFDESTRUCT",
}
FORWARDER = bytes.fromhex("3615602b57363d3d373d3d363d73" + "11" * 20 + "5af4602b57600080fd5b")


def instructions(code: bytes) -> Counter[str]:
    """How often each instruction of interest stands in the code, operands of PUSH left out."""
    found: Counter[str] = Counter()
    at = 0
    while at < len(code):
        found[NAMES.get(code[at], "other")] += 1
        at += 1 + (code[at] - PUSH1 + 1 if PUSH1 <= code[at] <= PUSH32 else 0)
    del found["other"]
    return found


@pytest.mark.parametrize("name", ["ForwarderLogic", "ForwarderFactory", "BatchPayout"])
def test_no_contract_can_delegate_destroy_itself_or_run_on_new_networks_only(name: str) -> None:
    found = instructions(artifact(name).runtime)
    assert not {"DELEGATECALL", "CALLCODE", "SELFDESTRUCT", "PUSH0"} & set(found), found


def test_the_logic_keeps_nothing_and_makes_no_contract() -> None:
    found = instructions(artifact("ForwarderLogic").runtime)
    assert not {"SLOAD", "SSTORE", "CREATE", "CREATE2"} & set(found), found
    assert (found["CALL"], found["STATICCALL"]) == (2, 1), "a token's transfer, native money; balanceOf"


def test_the_factory_calls_forwarders_only_and_makes_nothing_else() -> None:
    found = instructions(artifact("ForwarderFactory").runtime)
    assert (found["CALL"], found["CREATE2"], found["CREATE"], found["STATICCALL"]) == (1, 1, 0, 0)


def test_the_payout_keeps_nothing_and_makes_one_kind_of_call() -> None:
    found = instructions(artifact("BatchPayout").runtime)
    assert found == Counter({"CALL": 1, "STOP": found["STOP"]})


def test_a_forwarder_is_44_bytes_with_one_delegatecall_and_no_way_to_change() -> None:
    assert len(FORWARDER) == 44
    assert instructions(FORWARDER) == Counter({"DELEGATECALL": 1})
    assert FORWARDER[:5].hex() == "3615602b57", "the first thing asked is whether there is calldata"
    assert FORWARDER[0x2B:].hex() == "5b", "and without any it jumps to the end"


def test_artifacts_name_their_compiler_settings_and_the_places_of_immutables() -> None:
    for path in HERE.glob("*.json"):
        found = json.loads(path.read_text())
        assert found["compiler"]["version"].startswith("0.8.37+commit.")
        assert found["compiler"]["settings"]["evmVersion"] == "paris"
        compiled = artifact(path.stem)
        assert (HERE / found["source"]).exists()
        assert all(compiled.runtime[start : start + n] == bytes(n) for start, n in compiled.immutables)
        assert len(compiled.runtime) < 24_576, "EIP-170"
