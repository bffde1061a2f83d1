"""Safe transactions beside safe-eth-py, eth-account and eth-abi: the same hashes and bytes, and only these are read."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import coincurve
import pytest
from eth_abi.abi import encode
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given
from hypothesis import strategies as st
from safe_eth.eth.contracts import get_safe_V1_4_1_contract
from safe_eth.safe.safe_tx import SafeTx as TheirSafeTx
from web3 import Web3

from chains.errors import InvalidValue
from chains.eth.address import checksummed
from chains.eth.safe import (
    ADMINISTRATION,
    DELEGATECALL,
    DOMAIN_TYPEHASH,
    EXEC_TRANSACTION,
    SAFE_TX_TYPEHASH,
    SafeMessage,
    SafeTx,
    decode_execution,
    join_signatures,
    owner_of,
    owners_of,
    safe_resource,
)
from chains.eth.tx import address_of_key
from chains.secp256k1 import CURVE_ORDER
from tests.fakes.safe_txs import addresses, safe_txs, values

SAFE = bytes.fromhex("11" * 20)
CHAIN_ID = 31337
TYPES = (
    "address",
    "uint256",
    "bytes",
    "uint8",
    "uint256",
    "uint256",
    "uint256",
    "address",
    "address",
    "uint256",
)
PLAIN = SafeTx(to=b"\x22" * 20, value_wei=5, data=b"", nonce=7)
KEYS = [coincurve.PrivateKey(bytes([n]) * 32) for n in (1, 2, 3)]


def signed(digest: bytes, key: coincurve.PrivateKey) -> bytes:
    compact = key.sign_recoverable(digest, hasher=None)
    return compact[:64] + bytes([27 + compact[64]])


@given(safe_txs)
def test_the_tuple_is_what_eth_abi_writes_and_is_read_back(tx: SafeTx) -> None:
    assert tx.encode() == encode(TYPES, values(tx))
    assert SafeTx.decode(tx.encode()) == tx


@given(safe_txs, addresses, st.integers(1, 2**53))
def test_the_hash_is_what_safe_eth_py_and_eth_account_make(tx: SafeTx, safe: bytes, chain_id: int) -> None:
    mine = tx.signing_hash(chain_id, safe)
    fields_of_theirs = values(tx)
    safe_eth_py: Any = TheirSafeTx
    theirs = safe_eth_py(
        None,  # it asks a node only for what is not given
        checksummed(safe),
        *fields_of_theirs[:-1],
        safe_nonce=tx.nonce,
        safe_version="1.4.1",
        chain_id=chain_id,
    )
    if tx.nonce:  # it takes nonce 0 for none
        assert bytes(theirs.safe_tx_hash) == mine
    names = (
        "to",
        "value",
        "data",
        "operation",
        "safeTxGas",
        "baseGas",
        "gasPrice",
        "gasToken",
        "refundReceiver",
    )
    message = dict(zip((*names, "nonce"), fields_of_theirs, strict=True))
    typed = encode_typed_data(
        domain_data={"chainId": chain_id, "verifyingContract": checksummed(safe)},
        message_types={
            "SafeTx": [{"name": n, "type": t} for n, t in zip((*names, "nonce"), TYPES, strict=True)]
        },
        message_data=message,
    )
    assert bytes(_hash_eip191_message(typed)) == mine


@given(safe_txs, addresses, st.integers(1, 2**53))
def test_what_owners_sign_is_chain_safe_and_tuple(tx: SafeTx, safe: bytes, chain_id: int) -> None:
    message = SafeMessage(chain_id, safe, tx)
    assert message.encode() == encode(["uint256", "address"], [chain_id, checksummed(safe)]) + tx.encode()
    assert SafeMessage.decode(message.encode()) == message
    assert message.content == tx.signing_hash(chain_id, safe).hex()


def test_a_message_for_no_chain_or_with_a_dirty_address_is_none() -> None:
    good = SafeMessage(CHAIN_ID, SAFE, PLAIN).encode()
    for bad in (bytes(32) + good[32:], good[:32] + b"\x01" + good[33:], good[:63], b"", good + bytes(32)):
        with pytest.raises(InvalidValue):
            SafeMessage.decode(bad)


def test_the_type_hashes_are_those_in_the_contract() -> None:
    assert DOMAIN_TYPEHASH.hex() == "47e79534a245952e8b16893a336b85a3d9ea9fa8c573f3d803afb92a79469218"
    assert SAFE_TX_TYPEHASH.hex() == "bb8310d486368db6bd6f849402fdd73ad53d316b5a4b2644ad6efe0f941286d8"
    assert EXEC_TRANSACTION.hex() == "6a761202"


def test_a_delegatecall_is_told_from_a_call_and_there_is_nothing_else() -> None:
    assert SafeTx.decode(replace(PLAIN, operation=DELEGATECALL).encode()).operation == DELEGATECALL
    with pytest.raises(InvalidValue, match="operation"):
        replace(PLAIN, operation=2)


@given(safe_txs, st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique_by=id))
def test_an_execution_is_what_web3_writes_and_is_read_back(
    tx: SafeTx, keys: list[coincurve.PrivateKey]
) -> None:
    digest = tx.signing_hash(CHAIN_ID, SAFE)
    blob = join_signatures(digest, [signed(digest, key) for key in keys])
    calldata = tx.execution(blob)
    contract = get_safe_V1_4_1_contract(Web3(), checksummed(SAFE))
    assert "0x" + calldata.hex() == contract.encode_abi("execTransaction", [*values(tx)[:-1], blob])
    execution = decode_execution(calldata, tx.nonce)
    assert execution.tx == tx
    assert b"".join(execution.signatures) == blob
    assert owners_of(digest, execution.signatures) == tuple(
        sorted(address_of_key(k.public_key.format()) for k in keys)
    )


@pytest.mark.parametrize("kind", ["tuple", "call"])
@given(data=st.data())
def test_what_we_would_not_write_ourselves_is_not_read(kind: str, data: st.DataObject) -> None:
    tx = replace(PLAIN, data=b"\x01\x02\x03")
    digest = tx.signing_hash(CHAIN_ID, SAFE)
    call = kind == "call"
    good = tx.execution(signed(digest, KEYS[0])) if call else tx.encode()
    bent = bytearray(good)
    match data.draw(st.sampled_from(["byte", "cut", "more"])):
        case "byte":
            bent[data.draw(st.integers(0, len(good) - 1))] ^= data.draw(st.integers(1, 255))
        case "cut":
            del bent[data.draw(st.integers(0, len(good) - 1)) :]
        case "more":
            bent += data.draw(st.binary(min_size=1, max_size=64))
    try:
        read = decode_execution(bytes(bent), 7) if call else SafeTx.decode(bytes(bent))
    except InvalidValue:
        return
    again = read.tx.execution(b"".join(read.signatures)) if not isinstance(read, SafeTx) else read.encode()
    assert again == bytes(bent), "two encodings of one meaning"


def test_every_field_is_in_the_hash_and_so_are_chain_and_safe() -> None:
    changes: dict[str, Any] = {
        "to": b"\x23" * 20,
        "value_wei": 6,
        "data": b"\x00",
        "nonce": 8,
        "operation": 1,
        "safe_tx_gas": 1,
        "base_gas": 1,
        "gas_price": 1,
        "gas_token": b"\x01" * 20,
        "refund_receiver": b"\x01" * 20,
    }
    assert changes.keys() == {field.name for field in fields(SafeTx)}
    hashes = {replace(PLAIN, **{name: value}).signing_hash(CHAIN_ID, SAFE) for name, value in changes.items()}
    hashes |= {PLAIN.signing_hash(CHAIN_ID, SAFE), PLAIN.signing_hash(1, SAFE)}
    hashes.add(PLAIN.signing_hash(CHAIN_ID, b"\x12" * 20))
    assert len(hashes) == len(changes) + 3
    refunds = {name for name, value in changes.items() if replace(PLAIN, **{name: value}).refunds}
    assert refunds == {"safe_tx_gas", "base_gas", "gas_price", "gas_token", "refund_receiver"}


def test_a_hash_for_no_network_is_none() -> None:
    with pytest.raises(InvalidValue, match="chain id 0"):
        PLAIN.signing_hash(0, SAFE)


@pytest.mark.parametrize(
    "change",
    [
        {"to": b"\x01" * 19},
        {"to": "0x" + "11" * 20},
        {"value_wei": -1},
        {"value_wei": 2**256},
        {"value_wei": True},
        {"nonce": 1.0},
        {"data": "0x"},
        {"data": bytes(128 * 1024 + 1)},
        {"gas_token": b""},
        {"refund_receiver": bytes(32)},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_not_made(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        replace(PLAIN, **change)


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 31, 32, 255])
def test_contract_signatures_approved_hashes_and_eth_sign_are_none_of_ours(v: int) -> None:
    digest = PLAIN.signing_hash(CHAIN_ID, SAFE)
    good = signed(digest, KEYS[0])
    assert owner_of(digest, good) == address_of_key(KEYS[0].public_key.format())
    with pytest.raises(InvalidValue, match="27 or 28"):
        owner_of(digest, good[:64] + bytes([v]))


def test_a_signature_with_a_high_s_or_of_no_key_is_none() -> None:
    digest = PLAIN.signing_hash(CHAIN_ID, SAFE)
    good = signed(digest, KEYS[0])
    high = CURVE_ORDER - int.from_bytes(good[32:64], "big")
    for bad in (
        good[:32] + high.to_bytes(32, "big") + bytes([55 - good[64]]),
        bytes(32) + good[32:],
        b"\xff" * 32 + good[32:],
        good[:-1],
        good + b"\x1b",
        # x = 5 is on no point of the curve.
        (5).to_bytes(32, "big") + good[32:],
    ):
        with pytest.raises(InvalidValue, match="signature"):
            owner_of(digest, bad)


def test_signatures_out_of_order_or_twice_are_refused_as_the_contract_refuses_them() -> None:
    digest = PLAIN.signing_hash(CHAIN_ID, SAFE)
    each = [signed(digest, key) for key in KEYS]
    blob = join_signatures(digest, each)
    ordered = [blob[at : at + 65] for at in range(0, len(blob), 65)]
    assert len(owners_of(digest, ordered)) == 3
    for bad in ([*reversed(ordered)], [ordered[0], ordered[0]], [ordered[1], ordered[0], ordered[2]]):
        with pytest.raises(InvalidValue, match="ascending"):
            owners_of(digest, bad)
    with pytest.raises(InvalidValue, match="twice"):
        join_signatures(digest, [each[0], each[0]])


def test_every_function_of_a_safe_that_changes_something_but_its_execution_is_known_as_administration() -> (
    None
):
    abi = get_safe_V1_4_1_contract(Web3()).abi
    changing = {
        entry["name"]
        for entry in abi
        if entry["type"] == "function" and entry["stateMutability"] not in ("view", "pure")
    }
    assert set(ADMINISTRATION.values()) == (changing - {"execTransaction"}) | {"changeMasterCopy"}


def test_a_resource_names_safe_and_nonce() -> None:
    assert SafeMessage(CHAIN_ID, SAFE, PLAIN).resource == safe_resource(SAFE, 7) == f"safe:0x{'11' * 20}:7"
    for bad in ((SAFE[1:], 7), (SAFE, -1)):
        with pytest.raises(InvalidValue):
            safe_resource(*bad)
