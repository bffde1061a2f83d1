"""What a holder is told of a call of the deposit factory whose admin his Safe is, and what of it is never signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.eth.abi import address_word, selector
from chains.eth.address import checksummed, keccak256
from chains.eth.factory import ACCEPT, CANCEL, PROPOSE
from signers.airgap import evm_review
from signers.airgap.evm_factory import acceptance_warnings
from signers.airgap.evm_review import DecodersDisagree, SafeReview, review_request
from signers.airgap.evm_second import second_reading
from signers.airgap.evm_words import grouped_address
from signers.airgap.past import Signed
from signers.airgap.registered import Registered, RegisteredFactory, RegisteredTreasury
from signers.airgap.terminal import WIDTH
from tests.fakes.airgap_safe import (
    CHAIN_ID,
    MALLORY,
    NOW,
    OWNERS,
    SAFE,
    TOKEN,
    WARM,
    registered,
    request_file,
)

OWNER = OWNERS[0].evm_address
FACTORY, HOT = keccak256(b"deposit factory")[-20:], keccak256(b"active hot key")[-20:]
OTHERS_FACTORY = keccak256(b"factory of another admin")[-20:]
CALLS = {"propose": PROPOSE + address_word(HOT), "accept": ACCEPT, "cancel": CANCEL}


def known(**changes: Any) -> Registered:
    """The Safe is the admin of one factory; there is another, of another admin."""
    factories = tuple(
        RegisteredFactory(
            chain_id=CHAIN_ID, address=checksummed(address), admin=checksummed(admin), keyset="eth-hot-1"
        )
        for address, admin in ((FACTORY, SAFE), (OTHERS_FACTORY, WARM))
    )
    treasury = RegisteredTreasury(chain_id=CHAIN_ID, address=checksummed(HOT), keyset="eth-hot-2")
    fields = {"factories": factories, "treasuries": (treasury,), **changes}
    return msgspec.structs.replace(registered(), **fields)


def review(data: bytes, about: Registered | None = None, **fields: Any) -> SafeReview:
    raw = request_file(**{"to": FACTORY, "value_wei": 0, "data": data, **fields})
    return review_request(raw, about or known(), OWNER, NOW)


def told(found: SafeReview) -> str:
    return "\n".join(found.lines)


def test_a_proposal_is_shown_with_whose_deposits_flow_where_and_when() -> None:
    found = review(CALLS["propose"])
    assert found.objections == ()
    assert found.money is None
    assert "After 48 hours" in told(found)
    assert "ALL MONEY that comes to these deposit addresses flows to" in told(found)
    assert grouped_address(HOT) in told(found)
    assert "= hot key-set eth-hot-2 of the registered bundle" in told(found)
    assert grouped_address(FACTORY) in told(found)
    assert "of the deposit addresses of eth-hot-1" in told(found)
    assert found.change is not None
    assert found.change.typed == checksummed(HOT)[-6:]


def test_an_acceptance_says_that_its_bytes_name_nobody_and_whom_it_must_be() -> None:
    found = review(CALLS["accept"])
    assert found.objections == ()
    assert "The call does not say who" in told(found)
    assert grouped_address(HOT) in told(found)


def test_a_proposal_is_taken_back_without_naming_anybody() -> None:
    found = review(CALLS["cancel"], known(treasuries=()))
    assert found.objections == ()
    assert "TAKES BACK A PROPOSAL" in told(found)
    assert found.change is not None
    assert found.change.typed == ""


ATTACKS: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "a stranger as the treasury": (PROPOSE + address_word(MALLORY), {}, "factory-treasury"),
    "a Safe of ours as the treasury": (PROPOSE + address_word(WARM), {}, "factory-treasury"),
    "the Safe itself as the treasury": (PROPOSE + address_word(SAFE), {}, "factory-treasury"),
    "one digit of the treasury": (
        PROPOSE + address_word(HOT[:-1] + bytes([HOT[-1] ^ 1])),
        {},
        "factory-treasury",
    ),
    "nobody as the treasury": (PROPOSE + bytes(32), {}, "contract-administration"),
    "a dirty word": (PROPOSE + b"\x01" * 32, {}, "contract-administration"),
    "something left over": (ACCEPT + b"\x00", {}, "contract-administration"),
    "another admin": (
        selector("proposeAdmin(address)") + address_word(MALLORY),
        {},
        "contract-administration",
    ),
    "the office taken over": (selector("acceptAdmin()"), {}, "contract-administration"),
    "the office kept": (selector("cancelAdmin()"), {}, "contract-administration"),
    "a flush": (selector("flush(bytes32[],address[])") + bytes(64), {}, "unknown-call"),
    "money for the factory": (b"", {"value_wei": 1}, "unknown-call"),
    "money along with it": (ACCEPT, {"value_wei": 1}, "value-with-call"),
    "by delegatecall": (ACCEPT, {"operation": 1}, "delegate-call"),
    "a refund of gas": (ACCEPT, {"gas_price": 1}, "refund-fields"),
    "a refund to somebody": (ACCEPT, {"refund_receiver": MALLORY}, "refund-fields"),
    "a refund in a token": (ACCEPT, {"gas_token": TOKEN}, "refund-fields"),
    "gas of the inner call": (ACCEPT, {"safe_tx_gas": 1}, "refund-fields"),
    "gas beside it": (ACCEPT, {"base_gas": 1}, "refund-fields"),
    "the factory of another admin": (ACCEPT, {"to": OTHERS_FACTORY}, "contract-administration"),
    "a stranger's factory": (PROPOSE + address_word(HOT), {"to": MALLORY}, "contract-administration"),
    "another network": (ACCEPT, {"chain_id": 1}, "wrong-chain-id"),
    "another Safe": (ACCEPT, {"safe": MALLORY}, "unregistered-safe"),
    "too late": (ACCEPT, {"expires_at": NOW}, "expired"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_fault_45_whatever_else_the_factory_is_asked_for_is_refused(name: str) -> None:
    data, fields, code = ATTACKS[name]
    assert code in review(data, **fields).codes


def test_without_an_active_hot_key_in_the_bundle_nothing_is_proposed_or_accepted() -> None:
    for step in ("propose", "accept"):
        assert review(CALLS[step], known(treasuries=())).codes == {"factory-treasury"}
    elsewhere = RegisteredTreasury(chain_id=1, address=checksummed(HOT), keyset="eth-hot-2")
    assert review(CALLS["accept"], known(treasuries=(elsewhere,))).codes == {"factory-treasury"}


@given(st.binary(max_size=40), st.sampled_from(sorted(CALLS)))
def test_no_other_bytes_than_the_three_calls_are_signed(data: bytes, step: str) -> None:
    good = set(CALLS.values())
    for each in (data, CALLS[step] + data, CALLS[step][:4] + data):
        assert bool(review(each).objections) is (each not in good)
        assert second_reading(request_file(to=FACTORY, value_wei=0, data=each)).treasury is None or each[
            :4
        ] in {call[:4] for call in good}


@pytest.mark.parametrize("step", sorted(CALLS))
def test_every_flipped_bit_of_a_call_is_refused(step: str) -> None:
    data = CALLS[step]
    for at in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        assert review(bytes(flipped)).objections


@pytest.mark.parametrize("step", sorted(CALLS))
def test_a_reader_that_reads_another_step_stops_it(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[[bytes], Any] = second_reading
    wrong = {"propose": ("propose", MALLORY), "accept": ("cancel", None), "cancel": None}[step]
    monkeypatch.setattr(evm_review, "second_reading", lambda raw: honest(raw)._replace(treasury=wrong))
    with pytest.raises(DecodersDisagree, match="treasury"):
        review(CALLS[step])


def test_a_request_fits_a_terminal_of_24_lines() -> None:
    calls = [*CALLS.values(), PROPOSE + address_word(MALLORY), b"\x00" * 100]
    for about in (known(), known(treasuries=())):
        for data in calls:
            found = review(data, about, note="x" * 200)
            assert len(found.lines) <= 24
            assert all(len(line) <= WIDTH for line in found.lines)


def test_an_acceptance_is_held_against_the_last_proposal_that_was_signed_here() -> None:
    proposal, accept = review(CALLS["propose"]).change, review(CALLS["accept"]).change
    assert proposal is not None
    assert accept is not None

    def signed(proposes: str) -> Signed:
        return Signed(at=NOW, content="ab" * 32, uses=(), pays=(), proposes=proposes)

    assert acceptance_warnings(proposal, []) == []
    assert "no proposal" in acceptance_warnings(accept, [signed("")])[0]
    assert acceptance_warnings(accept, [signed(proposal.proposes)]) == []
    old = proposal.proposes.replace(checksummed(HOT), checksummed(WARM))
    assert "THE LAST PROPOSAL" in acceptance_warnings(accept, [signed(proposal.proposes), signed(old)])[0]
    assert acceptance_warnings(accept, [signed(old), signed(proposal.proposes)]) == []
