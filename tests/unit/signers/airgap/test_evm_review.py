"""What the holder of a Safe's key is told of a request, and what is refused whatever the screen of others has shown."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from eth_abi.abi import encode
from eth_account.messages import _hash_eip191_message, encode_typed_data
from hypothesis import given, settings
from hypothesis import strategies as st
from safe_eth.safe.safe_tx import SafeTx as TheirSafeTx

from chains.errors import InvalidValue
from chains.eth.abi import selector
from chains.eth.address import checksummed
from chains.eth.erc20 import transfer_calldata
from chains.eth.named_calls import ALLOWANCES, CONTRACT_ADMINISTRATION
from chains.eth.safe import DELEGATECALL, SafeTx
from chains.eth.safe_files import BadSafeFile, SafeRequest, encode_request
from signers.airgap import evm_review
from signers.airgap.evm_review import DecodersDisagree, SafeReview, review_request
from signers.airgap.evm_second import SecondReading, second_reading
from signers.airgap.evm_words import decimal, grouped_address
from signers.airgap.registered import Registered, Source
from signers.airgap.terminal import WIDTH
from tests.fakes.airgap_safe import (
    CHAIN_ID,
    CUSTOMER,
    ETHER,
    LATER,
    MALLORY,
    NOW,
    OWNERS,
    SAFE,
    TOKEN,
    WARM,
    registered,
    registered_safe,
    request,
    request_file,
)
from tests.fakes.safe_txs import addresses, safe_txs, values

OWNER = OWNERS[0].evm_address
NOBODY = bytes(20)
SINGLETON = "0x41675C099F32341bf84BFc5382aF534df5C7461a"


def review(known: Registered | None = None, **fields: Any) -> SafeReview:
    return review_request(request_file(**fields), known or registered(), OWNER, NOW)


def token_call(data: bytes) -> dict[str, Any]:
    """The fields of a call of the registered token."""
    return {"to": TOKEN, "data": data, "value_wei": 0}


def told(found: SafeReview) -> str:
    return "\n".join(found.lines)


def call(signature: str, *arguments: Any) -> bytes:
    types = signature[signature.index("(") + 1 : -1]
    return selector(signature) + encode(types.split(",") if types else [], arguments)


def test_a_payment_is_shown_in_full() -> None:
    found = review(note="as agreed")
    assert found.objections == ()
    assert found.warnings == ()
    assert found.lines[0] == "SAFE REQUEST of cold-eth (cold, 3 of 5) on anvil (chain id 31337)"
    assert "PAYS  5.000000000000000000 ETH" in told(found)
    assert grouped_address(CUSTOMER) in told(found)
    assert "not of your bundle: an address outside" in told(found)
    assert "NONCE    7:" in told(found)
    assert "2027-01-15 11:00:00 UTC, in 3 h 0 min" in told(found)
    assert "| as agreed" in told(found)
    assert found.safe_tx_hash.hex() in re.sub(r"\s", "", told(found))
    assert found.money is not None
    assert found.money.amount == "5.000000000000000000"


def test_a_payment_of_a_token_is_shown_with_its_units_and_its_registered_contract() -> None:
    found = review(to=TOKEN, value_wei=0, data=transfer_calldata(WARM, 1_234_567_890_123))
    assert found.objections == ()
    assert "PAYS  1234567.890123 USDX" in told(found)
    assert grouped_address(WARM) in told(found)
    assert "of your bundle: warm-eth (warm Safe)" in told(found)
    assert grouped_address(TOKEN) in told(found)


def test_the_empty_cancellation_is_the_only_call_of_the_safe_itself() -> None:
    found = review(to=SAFE, value_wei=0, data=b"")
    assert found.objections == ()
    assert found.money is None
    assert "CANCELLATION: pays nobody" in told(found)
    for fields in ({"value_wei": 1}, {"data": b"\x00"}, {"data": call("nonce()")}):
        changed: dict[str, Any] = {"to": SAFE, "value_wei": 0, "data": b"", **fields}
        assert review(**changed).codes == {"safe-administration"}


ATTACKS: dict[str, tuple[str, dict[str, Any]]] = {
    "delegatecall to multisend": (
        "delegate-call",
        {
            "to": MALLORY,
            "operation": DELEGATECALL,
            "data": call("multiSend(bytes)", b"\x00" * 85),
            "value_wei": 0,
        },
    ),
    "delegatecall without calldata": ("delegate-call", {"operation": DELEGATECALL}),
    "delegatecall to a registered token": (
        "delegate-call",
        {"to": TOKEN, "operation": DELEGATECALL, "data": transfer_calldata(CUSTOMER, 1), "value_wei": 0},
    ),
    "multisend by plain call": (
        "multi-send",
        {"to": MALLORY, "data": call("multiSend(bytes)", b"\x00" * 85)},
    ),
    "owner added": (
        "safe-administration",
        {"to": SAFE, "data": call("addOwnerWithThreshold(address,uint256)", MALLORY, 1), "value_wei": 0},
    ),
    "owner removed": (
        "safe-administration",
        {"to": SAFE, "data": call("removeOwner(address,address,uint256)", WARM, MALLORY, 1), "value_wei": 0},
    ),
    "owner swapped": (
        "safe-administration",
        {
            "to": SAFE,
            "data": call("swapOwner(address,address,address)", WARM, OWNER, MALLORY),
            "value_wei": 0,
        },
    ),
    "threshold changed": (
        "safe-administration",
        {"to": SAFE, "data": call("changeThreshold(uint256)", 1), "value_wei": 0},
    ),
    "guard set": (
        "safe-administration",
        {"to": SAFE, "data": call("setGuard(address)", MALLORY), "value_wei": 0},
    ),
    "module enabled": (
        "safe-administration",
        {"to": SAFE, "data": call("enableModule(address)", MALLORY), "value_wei": 0},
    ),
    "module disabled": (
        "safe-administration",
        {"to": SAFE, "data": call("disableModule(address,address)", WARM, MALLORY), "value_wei": 0},
    ),
    "fallback handler set": (
        "safe-administration",
        {"to": SAFE, "data": call("setFallbackHandler(address)", MALLORY), "value_wei": 0},
    ),
    "implementation changed": (
        "safe-administration",
        {"to": SAFE, "data": call("changeMasterCopy(address)", SINGLETON), "value_wei": 0},
    ),
    "implementation changed by delegatecall, as at Bybit": (
        "delegate-call",
        {"to": MALLORY, "operation": DELEGATECALL, "data": transfer_calldata(MALLORY, 0), "value_wei": 0},
    ),
    "hash approved": (
        "safe-administration",
        {"to": SAFE, "data": call("approveHash(bytes32)", b"\x01" * 32), "value_wei": 0},
    ),
    "administration of another Safe": (
        "safe-administration",
        {"to": WARM, "data": call("changeThreshold(uint256)", 1), "value_wei": 0},
    ),
    "allowance": (
        "allowance",
        {"to": TOKEN, "data": call("approve(address,uint256)", MALLORY, 1), "value_wei": 0},
    ),
    "permit": (
        "allowance",
        {
            "to": TOKEN,
            "data": call(
                "permit(address,address,uint256,uint256,uint8,bytes32,bytes32)",
                *(checksummed(SAFE), MALLORY, 1, 2, 27, b"\x01" * 32, b"\x02" * 32),
            ),
            "value_wei": 0,
        },
    ),
    "transferFrom": (
        "allowance",
        {
            "to": TOKEN,
            "data": call("transferFrom(address,address,uint256)", SAFE, MALLORY, 1),
            "value_wei": 0,
        },
    ),
    "contract administration": (
        "contract-administration",
        {"to": TOKEN, "data": call("transferOwnership(address)", MALLORY), "value_wei": 0},
    ),
    "gas price": ("refund-fields", {"gas_price": 1}),
    "base gas": ("refund-fields", {"base_gas": 1}),
    "gas of the inner call": ("refund-fields", {"safe_tx_gas": 1}),
    "gas token": ("refund-fields", {"gas_token": TOKEN}),
    "refund receiver": ("refund-fields", {"refund_receiver": MALLORY}),
    "other chain": ("wrong-chain-id", {"chain_id": 1}),
    "other Safe": ("unregistered-safe", {"safe": MALLORY}),
    "unregistered token": (
        "unlisted-contract",
        {"to": MALLORY, "data": transfer_calldata(CUSTOMER, 1), "value_wei": 0},
    ),
    "unknown call of a token": (
        "unknown-call",
        {"to": TOKEN, "data": call("burn(uint256)", 1), "value_wei": 0},
    ),
    "token without calldata": ("unknown-call", {"to": TOKEN}),
    "transfer with bytes left over": (
        "unknown-call",
        {"to": TOKEN, "data": transfer_calldata(CUSTOMER, 1) + b"\x00", "value_wei": 0},
    ),
    "transfer with a dirty address": (
        "unknown-call",
        token_call(transfer_calldata(CUSTOMER, 1)[:4] + b"\x01" + bytes(63)),
    ),
    "transfer cut off": (
        "unknown-call",
        token_call(transfer_calldata(CUSTOMER, 1)[:-1]),
    ),
    "ether along with a transfer": ("value-with-call", {"to": TOKEN, "data": transfer_calldata(CUSTOMER, 1)}),
    "token to its own contract": (
        "bad-destination",
        token_call(transfer_calldata(TOKEN, 1)),
    ),
    "token to the Safe itself": (
        "bad-destination",
        token_call(transfer_calldata(SAFE, 1)),
    ),
    "token to nobody": (
        "bad-destination",
        token_call(transfer_calldata(NOBODY, 1)),
    ),
    "ether to nobody": ("bad-destination", {"to": NOBODY}),
    "nothing": ("moves-nothing", {"value_wei": 0}),
    "nothing of a token": (
        "moves-nothing",
        token_call(transfer_calldata(CUSTOMER, 0)),
    ),
    "expired": ("expired", {"expires_at": NOW}),
    "without an expiry": ("expired", {"expires_at": 0}),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_by_its_name(name: str) -> None:
    code, fields = ATTACKS[name]
    found = review(**fields)
    assert code in found.codes
    if name in ("ether along with a transfer", "delegatecall without calldata"):
        assert found.codes == {code}, "nothing else is wrong with it"


@pytest.mark.parametrize("signature", [*ALLOWANCES, *CONTRACT_ADMINISTRATION])
@pytest.mark.parametrize("to", [TOKEN, WARM, CUSTOMER], ids=["token", "ours", "stranger"])
def test_whatever_hands_out_power_is_refused_by_its_name(signature: str, to: bytes) -> None:
    data = selector(signature) + bytes(64)
    assert review(to=to, data=data, value_wei=0).codes <= {"allowance", "contract-administration"}
    assert review(to=to, data=data, value_wei=0).objections


@given(addresses, st.binary(min_size=1, max_size=140), st.sampled_from([0, 1, ETHER]))
def test_any_other_calldata_is_refused_whatever_goes_along(to: bytes, data: bytes, value_wei: int) -> None:
    names = {"allowance", "contract-administration", "safe-administration", "multi-send"}
    for each, code in (
        (to, "unlisted-contract"),
        (WARM, "unlisted-contract"),
        (TOKEN, "unknown-call"),
        (SAFE, ""),
    ):
        found = review(to=each, data=data, value_wei=value_wei)
        assert len(found.codes) == 1
        assert found.codes <= {code, *names}
        assert found.money is None


@pytest.mark.parametrize("data", [b"\x00", b"\x01\x02\x03\x04", bytes(100)])
def test_money_with_calldata_is_refused(data: bytes) -> None:
    assert review(data=data).codes == {"unlisted-contract"}


def test_a_token_is_not_paid_to_another_tokens_contract() -> None:
    known = registered()
    other = msgspec.structs.replace(known.tokens[0], contract=checksummed(CUSTOMER), symbol="OTHER")
    both = msgspec.structs.replace(known, tokens=(*known.tokens, other))
    assert review(both, **token_call(transfer_calldata(CUSTOMER, 1))).codes == {"bad-destination"}
    assert review(both, to=CUSTOMER).codes == {"unknown-call"}


@given(safe_txs)
def test_what_is_signed_is_a_payment_or_a_cancellation_and_nothing_else(tx: SafeTx) -> None:
    """Any transaction: without objection only if an independent look at its fields says the same."""
    small = replace(tx, nonce=tx.nonce % 2**53)
    raw = encode_request(replace(request(), message=replace(request().message, tx=small)))
    found = review_request(raw, registered(), OWNER, NOW)
    plain = not any((tx.operation, tx.safe_tx_gas, tx.base_gas, tx.gas_price)) and (
        tx.gas_token == tx.refund_receiver == NOBODY
    )
    ether = not tx.data and tx.value_wei > 0 and tx.to not in (NOBODY, SAFE, TOKEN)
    assert bool(found.objections) != (plain and ether)


def test_a_fake_token_of_the_same_symbol_is_not_money() -> None:
    """The symbol comes from the registered bundle by the contract's address, never from a contract or a note."""
    fake = checksummed(TOKEN)[:-4] + "0000"
    found = review(
        to=bytes.fromhex(fake[2:]), data=transfer_calldata(CUSTOMER, 10**9), value_wei=0, note="1000 USDX"
    )
    assert found.codes == {"unlisted-contract"}
    assert "PAYS" not in told(found)
    elsewhere = replace_token(chain_id=1)
    assert review(elsewhere, to=TOKEN, data=transfer_calldata(CUSTOMER, 1), value_wei=0).codes == {
        "unlisted-contract"
    }


def replace_token(**fields: Any) -> Registered:
    known = registered()
    (token,) = known.tokens
    return msgspec.structs.replace(known, tokens=(msgspec.structs.replace(token, **fields),))


def test_a_key_that_owns_no_part_of_the_safe_and_a_network_that_is_not_known_are_refused() -> None:
    stranger = checksummed(MALLORY)
    assert review_request(request_file(), registered(), stranger, NOW).codes == {"not-an-owner"}
    bare = msgspec.structs.replace(registered(), networks=())
    assert review(bare).codes == {"unregistered-network"}
    assert review(Registered()).codes == {"unregistered-safe"}
    both = msgspec.structs.replace(registered(), safes=(registered_safe(), registered_safe(chain_id=1)))
    assert review(both, chain_id=1).codes == {"unregistered-network"}


def test_fault_43_an_address_that_begins_and_ends_like_one_of_ours_is_refused() -> None:
    for ours in (WARM, SAFE, TOKEN, bytes.fromhex(OWNER[2:])):
        lookalike = ours[:2] + bytes(16) + ours[-2:]
        assert review(to=lookalike).codes == {"lookalike"}
        assert review(**token_call(transfer_calldata(lookalike, 1))).codes == {"lookalike"}
        for other in (ours[:1] + bytes(17) + ours[-2:], ours[:2] + bytes(17) + ours[-1:]):
            assert review(to=other).objections == ()
    assert review(to=WARM).objections == ()


def test_money_for_the_key_of_an_owner_is_warned_about() -> None:
    (warning,) = review(to=bytes.fromhex(OWNER[2:])).warnings
    assert "hold no money" in warning
    assert review(to=WARM).warnings == ()


def test_a_clock_that_may_be_wrong_and_a_bundle_that_has_ended_are_warned_about() -> None:
    assert "clock" in review(expires_at=NOW + 31 * 86_400).warnings[0]
    assert "10000" in review(expires_at=2**53 - 1).warnings[0]
    source = Source(version=3, digest="ab" * 32, expires_at=NOW)
    (warning,) = review(msgspec.structs.replace(registered(), source=source)).warnings
    assert "register a new one" in warning


@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs")), max_size=200))
def test_a_note_never_looks_like_a_line_of_ours(note: str) -> None:
    with contextlib.suppress(ValueError):
        raw = encode_request(replace(request(), note=note))
        found = review_request(raw, registered(), OWNER, NOW)
        plain = review()
        assert [line for line in found.lines if line not in plain.lines] == [
            line for line in found.lines if line.startswith(("         | ", "NOTE     "))
        ]


@given(safe_txs, st.integers(1, 2**53 - 1))
def test_a_request_fits_a_terminal_of_24_lines(tx: SafeTx, chain_id: int) -> None:
    message = replace(request().message, tx=replace(tx, nonce=tx.nonce % 2**53), chain_id=chain_id)
    raw = encode_request(SafeRequest(message, LATER, "x" * 200))
    found = review_request(raw, registered(), OWNER, NOW)
    assert len(found.lines) <= 24
    amounts = [line for line in found.lines if len(line) > WIDTH]
    assert all(line.startswith(("PAYS", "  with", "        ")) for line in amounts), "only these can be wider"


# The two readers.


@settings(max_examples=300)
@given(safe_txs, addresses, st.integers(1, 2**53 - 1))
def test_both_readers_and_three_libraries_compute_one_hash(tx: SafeTx, safe: bytes, chain_id: int) -> None:
    small = replace(tx, nonce=tx.nonce % 2**53)
    message = replace(request().message, tx=small, safe=safe, chain_id=chain_id)
    raw = encode_request(replace(request(), message=message))
    found = review_request(raw, registered(), OWNER, NOW)
    assert second_reading(raw).safe_tx_hash == found.safe_tx_hash == typed_data_hash(json.loads(raw))
    if small.nonce:  # safe-eth-py takes nonce 0 for none
        safe_eth_py: Any = TheirSafeTx
        theirs = safe_eth_py(
            None,
            checksummed(safe),
            *values(small)[:-1],
            safe_nonce=small.nonce,
            safe_version="1.4.1",
            chain_id=chain_id,
        )
        assert bytes(theirs.safe_tx_hash) == found.safe_tx_hash


def typed_data_hash(file: dict[str, Any]) -> bytes:
    """What eth-account signs for the fields of a file."""
    kinds = {
        "to": "address",
        "value": "uint256",
        "data": "bytes",
        "operation": "uint8",
        "safeTxGas": "uint256",
        "baseGas": "uint256",
        "gasPrice": "uint256",
        "gasToken": "address",
        "refundReceiver": "address",
        "nonce": "uint256",
    }
    snake = {name: re.sub("[A-Z]", lambda found: "_" + found[0].lower(), name) for name in kinds}
    data = {
        name: bytes.fromhex(file[snake[name]][2:])
        if kind == "bytes"
        else file[snake[name]]
        if kind == "address"
        else int(file[snake[name]])
        for name, kind in kinds.items()
    }
    message = encode_typed_data(
        domain_data={"chainId": file["chain_id"], "verifyingContract": file["safe"]},
        message_types={"SafeTx": [{"name": name, "type": kind} for name, kind in kinds.items()]},
        message_data=data,
    )
    return bytes(_hash_eip191_message(message))


def test_readers_that_disagree_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = request_file(to=TOKEN, data=transfer_calldata(CUSTOMER, 5), value_wei=0)
    true = second_reading(raw)
    for lie in (
        true._replace(chain_id=1),
        true._replace(safe=MALLORY),
        true._replace(fields=(MALLORY, *true.fields[1:])),
        true._replace(expires_at=NOW + 1),
        true._replace(safe_tx_hash=bytes(32)),
        true._replace(transfer=(MALLORY, 5)),
        true._replace(transfer=None),
    ):
        assert isinstance(lie, SecondReading)
        monkeypatch.setattr(evm_review, "second_reading", lambda _, lie=lie: lie)
        with pytest.raises(DecodersDisagree, match="differ"):
            review_request(raw, registered(), OWNER, NOW)
    monkeypatch.setattr(evm_review, "second_reading", lambda _: true)
    assert not review_request(raw, registered(), OWNER, NOW).objections


def test_the_second_reader_takes_no_field_twice_and_no_field_less() -> None:
    raw = request_file()
    assert second_reading(raw).chain_id == CHAIN_ID
    for bad in (
        raw[:-1] + b',"note":"x"}',
        raw.replace(b'"nonce":7,', b""),
        b"[]",
        b"{}",
        b"\xff",
    ):
        with pytest.raises(InvalidValue, match="second reader"):
            second_reading(bad)


FILES = {
    "ether": request_file(note="Friday"),
    "token": request_file(to=TOKEN, data=transfer_calldata(CUSTOMER, 12_345_678), value_wei=0),
    "cancellation": request_file(to=SAFE, value_wei=0, data=b""),
}


@pytest.mark.parametrize("name", FILES)
def test_every_byte_changed_to_any_of_many_is_refused_or_shown_for_what_it_is(name: str) -> None:
    """Whatever is still accepted signs what eth-account says of the changed file, and shows its money and receiver."""
    good = FILES[name]
    before = review_request(good, registered(), OWNER, NOW)
    accepted = 0
    for at in range(len(good)):
        for other in {good[at] ^ (1 << bit) for bit in range(8)} | set(b'0159afx"') - {good[at]}:
            raw = good[:at] + bytes([other]) + good[at + 1 :]
            try:
                found = review_request(raw, registered(), OWNER, NOW)
            except (BadSafeFile, DecodersDisagree):
                continue
            if found.objections:
                continue
            accepted += 1
            file = json.loads(raw)
            assert found.safe_tx_hash == typed_data_hash(file)
            assert found.safe_tx_hash.hex() in re.sub(r"\s", "", told(found))
            if found.safe_tx_hash == before.safe_tx_hash:
                assert found.money == before.money
                assert {*json.loads(good).items()} ^ {*file.items()} <= {
                    (field, value)
                    for each in (json.loads(good), file)
                    for field, value in each.items()
                    if field in ("note", "expires_at")
                }
            else:
                shows_what_it_does(found, file)
    assert accepted > 0, "a digit of the nonce can be changed, and is then shown"


def shows_what_it_does(found: SafeReview, file: dict[str, Any]) -> None:
    assert f"NONCE    {file['nonce']}:" in told(found)
    if found.money is None:
        assert (file["to"], file["value"], file["data"]) == (file["safe"], "0", "0x")
        return
    if found.money.contract is None:
        units, decimals, receiver = int(file["value"]), 18, file["to"]
    else:
        units, decimals, receiver = int(file["data"][-64:], 16), 6, "0x" + file["data"][34:74]
    assert f"PAYS  {decimal(units, decimals)} " in told(found)
    assert receiver.lower()[2:] in re.sub(r"\s", "", told(found)).lower()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=80),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.sampled_from([*FILES.values()]), st.data())
def test_a_file_with_any_other_values_is_refused_or_shown_for_what_it_is(
    good: bytes, chance: st.DataObject
) -> None:
    file = json.loads(good)
    for field in chance.draw(st.lists(st.sampled_from([*file, "more"]), min_size=1, max_size=3)):
        near = st.sampled_from([*file.values(), f"{file['value']}0", "0x00", "1e3", 2**53, 2**256, "\u0661"])
        file[field] = chance.draw(JSON_VALUES | near)
    raw = json.dumps(file, separators=(",", ":"), ensure_ascii=False).encode("utf-8", errors="surrogatepass")
    try:
        found = review_request(raw, registered(), OWNER, NOW)
    except BadSafeFile:
        return
    assert found.safe_tx_hash == typed_data_hash(file)
    if not found.objections:
        shows_what_it_does(found, file)


@given(st.binary(max_size=300), st.text(max_size=100))
def test_what_is_no_request_is_refused(raw: bytes, text: str) -> None:
    for each in (raw, text.encode(), b"{" + raw, json.dumps(text).encode(), FILES["ether"] + raw + b"x"):
        with pytest.raises(BadSafeFile):
            review_request(each, registered(), OWNER, NOW)


def test_it_loads_no_network_module_once_the_process_is_sealed() -> None:
    program = """
from signers.airgap.offline import NETWORK_MODULES, seal
seal()
seal()
import sys
import chains.bbqr, signers.airgap.qr, chains.pictures, signers.airgap.evm, signers.airgap.evm_review
import segno, zxingcpp, PIL.Image, eth_abi.abi
from signers.airgap.qr import draw
draw("B$2U0100", 5)
plain = {"__name__", "__doc__", "__package__", "__loader__", "__spec__"}
print(*(name for name in NETWORK_MODULES if vars(sys.modules[name]).keys() - plain))
online = {"custody", "ops", "sqlalchemy", "web3", "eth_account", "fastapi", "httpx", "requests"}
print(*(name for name in sys.modules if name.split(".")[0] in online or name.endswith(".node")))
del sys.modules["_socket"]
import _socket
try:
    _socket.socket()
except Exception as error:
    print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["", "", "NetworkRefused"]
