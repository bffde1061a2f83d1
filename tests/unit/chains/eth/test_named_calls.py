"""Calls that are known by the names of what thieves ask for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chains.eth.abi import selector
from chains.eth.named_calls import ALLOWANCES, CONTRACT_ADMINISTRATION, named_call
from chains.eth.safe import ADMINISTRATION, MULTI_SEND

KNOWN = {
    **{selector(call): "allowance" for call in ALLOWANCES},
    **{selector(call): "contract-administration" for call in CONTRACT_ADMINISTRATION},
    **dict.fromkeys(ADMINISTRATION, "safe-administration"),
    MULTI_SEND: "multi-send",
}


def test_every_call_has_one_name_whatever_its_arguments() -> None:
    assert len(KNOWN) == len(ALLOWANCES) + len(CONTRACT_ADMINISTRATION) + len(ADMINISTRATION) + 1
    for found, code in KNOWN.items():
        for arguments in (b"", b"\x01", bytes(64)):
            call = named_call(found + arguments)
            assert call is not None
            assert call.code == code
    approve = named_call(bytes.fromhex("095ea7b3"))
    assert approve == ("allowance", "approve(address,uint256)")


@given(st.binary(max_size=80))
def test_nothing_else_has_a_name(data: bytes) -> None:
    assert (named_call(data) is not None) == (data[:4] in KNOWN)
    assert all(named_call(known[:3]) is None for known in KNOWN)


def test_a_transfer_has_no_such_name() -> None:
    assert named_call(selector("transfer(address,uint256)") + bytes(64)) is None
