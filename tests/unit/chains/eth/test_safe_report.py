"""A Safe that differs in any way from the vault that was agreed is objected to."""

from __future__ import annotations

from dataclasses import replace

from eth_abi.abi import encode
from hypothesis import given
from hypothesis import strategies as st

from chains.eth.abi import selector
from chains.eth.address import checksummed, keccak256
from chains.eth.safe_report import (
    NOBODY,
    PROXY_CODE,
    SETUP,
    SINGLETON_CODE,
    SafeReport,
    objections,
    setup_calldata,
)

A, B, C, MALLORY = (bytes([n]) * 20 for n in (1, 2, 3, 0xEE))
GOOD = SafeReport(
    safe=b"\x5a" * 20,
    code_hash=PROXY_CODE,
    singleton=b"\x51" * 20,
    singleton_code_hash=SINGLETON_CODE,
    version="1.4.1",
    owners=(B, A, C),
    threshold=2,
    modules=(),
    guard=None,
    fallback_handler=None,
    nonce=7,
)


def test_the_vault_that_was_agreed_is_not_objected_to_whatever_the_order_of_its_owners() -> None:
    assert objections(GOOD, [A, B, C], 2) == []


def test_each_difference_is_named() -> None:
    one_of_one = replace(GOOD, owners=(A,), threshold=1)
    assert objections(one_of_one, [A, B, C], 2) == [
        f"{checksummed(B)} should be an owner, and is not",
        f"{checksummed(C)} should be an owner, and is not",
        "its threshold is 1, not 2",
    ]
    for change, word in (
        ({"owners": (A, B, C, MALLORY)}, "is an owner, and should not be"),
        ({"owners": (A, B)}, "should be an owner, and is not"),
        ({"threshold": 3}, "threshold is 3, not 2"),
        ({"modules": (MALLORY,)}, "is a module"),
        ({"guard": MALLORY}, "is its guard"),
        ({"fallback_handler": MALLORY}, "fallback handler"),
        ({"version": "1.3.0"}, "version is '1.3.0'"),
    ):
        [found] = objections(replace(GOOD, **change), [A, B, C], 2)
        assert word in found


def test_of_a_safe_with_other_code_nothing_is_believed() -> None:
    for change in ({"code_hash": bytes(32)}, {"singleton_code_hash": bytes(32)}):
        [found] = objections(replace(GOOD, **change), [A, B, C], 2)  # type: ignore[arg-type]
        assert "official code" in found
    [found] = objections(replace(GOOD, code_hash=keccak256(b"")), [A, B, C], 2)
    assert "no code" in found


@given(st.lists(st.binary(min_size=20, max_size=20), max_size=6), st.integers(0, 2**256 - 1))
def test_the_set_up_is_encoded_as_others_encode_it(owners: list[bytes], threshold: int) -> None:
    types = "(address[],uint256,address,bytes,address,address,uint256,address)"
    values = (owners, threshold, NOBODY, b"", NOBODY, NOBODY, 0, NOBODY)
    theirs = encode([types[1:-1].split(",")[n] for n in range(8)], values)
    assert setup_calldata(owners, threshold) == SETUP + theirs
    assert selector(f"setup{types}") == SETUP
