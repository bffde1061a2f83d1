"""A real Safe 1.4.1 with five owners: three offline signatures, carried over by QR pictures, move its money; and what
the offline signer refuses would have robbed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chains.bbqr import FileType, split
from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import join_signatures
from chains.eth.safe_files import SafeRequest, decode_request, decode_signature, encode_request
from chains.pictures import read_series
from ops.devnet.anvil import Anvil
from signers.airgap.errors import Refused
from signers.airgap.evm import sign
from signers.airgap.evm_review import SafeReview, review_request
from signers.airgap.qr import PICTURE_VERSION, write_pictures
from signers.airgap.registered import Registered
from tests.fakes.airgap_safe import (
    CHAIN_ID,
    CUSTOMER,
    ETHER,
    MALLORY,
    NOW,
    OWNERS,
    OwnerKey,
    registered,
    request,
)
from tests.fakes.evm_signing import named_address
from tests.fakes.safe_txs import values
from tests.support.evm import Contract, deploy, mined, outside_artifact, succeeded
from tests.support.safe import deploy_safe, safe_artifact

PAYEE = raw_address(named_address("payee"))


@dataclass
class Cold:
    """A Safe 3-of-5 with money, and what its holders have registered."""

    node: Anvil
    safe: Contract
    token: Contract

    @property
    def registered(self) -> Registered:
        """As each holder has it on the offline machine."""
        return registered(raw_address(self.safe.address), raw_address(self.token.address))

    def request(self, **fields: Any) -> SafeRequest:
        """A request for this Safe."""
        nonce = int(self.safe.call("nonce"))
        return request(safe=raw_address(self.safe.address), **{"nonce": nonce, "to": PAYEE, **fields})

    def review(self, raw: bytes, owner: OwnerKey) -> SafeReview:
        """What one holder is told."""
        return review_request(raw, self.registered, owner.evm_address, NOW)

    def attempt(self, asked: SafeRequest, signatures: list[bytes]) -> bool:
        """Send it with these signatures, without asking anybody; whether it succeeded."""
        blob = join_signatures(asked.message.signing_hash, signatures)
        data = asked.message.tx.execution(blob)
        sent = self.node.transact(self.node.accounts()[0], self.safe.address, data, gas=1_000_000)
        return succeeded(mined(self.node, sent))


@pytest.fixture
def cold(anvil: Anvil) -> Cold:
    deployer = anvil.accounts()[0]
    safe = deploy_safe(anvil, deployer, [key.evm_address for key in OWNERS], 3)
    token = deploy(anvil, deployer, outside_artifact("Token"), "Token X", "USDX", 6)
    token.do(deployer, "mint", safe.address, 10**12)
    anvil.fund(safe.address, 100 * ETHER)
    return Cold(anvil, safe, token)


def carried(data: bytes, folder: Path, name: str) -> bytes:
    """The same bytes after a journey as pictures of QR codes."""
    folder.mkdir()
    write_pictures(split(FileType.JSON, data, PICTURE_VERSION), PICTURE_VERSION, folder, name)
    received = read_series([folder], lambda _: None)
    assert received.file_type is FileType.JSON
    return received.data


def test_three_of_five_holders_sign_offline_and_the_money_moves(cold: Cold, tmp_path: Path) -> None:
    before = cold.node.balance_wei(PAYEE.hex())
    assert int(cold.node.rpc("eth_chainId"), 16) == CHAIN_ID
    for number, asked in enumerate((cold.request(), cold.request(nonce=1, **payment(cold, 10**9)))):
        message = asked.message
        theirs = cold.safe.call("getTransactionHash", *fields(asked))
        assert bytes(theirs) == message.signing_hash
        signatures = []
        for holder in (4, 0, 2):
            there = carried(encode_request(asked), tmp_path / f"{number}-{holder}-there", "request")
            assert decode_request(there) == asked
            review = cold.review(there, OWNERS[holder])
            assert review.objections == ()
            back = carried(sign(review, OWNERS[holder]), tmp_path / f"{number}-{holder}-back", "signature")
            found = decode_signature(back)
            assert found.safe_tx_hash == message.signing_hash
            signatures.append(found.signature)
        assert not cold.attempt(asked, signatures[:2]), "two of five are not enough"
        assert cold.attempt(asked, signatures)
        assert not cold.attempt(asked, signatures), "again changes nothing"
    assert cold.node.balance_wei(PAYEE.hex()) - before == 5 * ETHER
    assert cold.token.call("balanceOf", "0x" + PAYEE.hex()) == 10**9


def test_a_cancellation_makes_the_abandoned_request_unusable(cold: Cold) -> None:
    abandoned = cold.request(value_wei=50 * ETHER)
    theft = [sign(cold.review(encode_request(abandoned), key), key) for key in OWNERS[:3]]
    cancellation = cold.request(to=raw_address(cold.safe.address), value_wei=0)
    assert cancellation.message.tx.nonce == abandoned.message.tx.nonce
    files = [sign(cold.review(encode_request(cancellation), key), key) for key in OWNERS[1:4]]
    assert cold.attempt(cancellation, [decode_signature(file).signature for file in files])
    assert not cold.attempt(abandoned, [decode_signature(file).signature for file in theft])
    assert cold.node.balance_wei(cold.safe.address) == 100 * ETHER


def test_fault_45_what_the_offline_signer_refuses_would_have_robbed_the_safe(cold: Cold) -> None:
    """Each is carried out by the contract where holders sign hashes blindly, and refused where they decode."""
    safe, mallory = cold.safe, "0x" + MALLORY.hex()
    multi_send = deploy(cold.node, cold.node.accounts()[0], safe_artifact("MultiSend"))
    own = raw_address(safe.address)
    add = safe.data("addOwnerWithThreshold", mallory, 1)
    hidden = bytes([0]) + own + bytes(32) + len(add).to_bytes(32, "big") + add
    thefts: dict[str, dict[str, Any]] = {
        "delegate-call": {
            "to": raw_address(multi_send.address),
            "value_wei": 0,
            "data": multi_send.data("multiSend", hidden),
            "operation": 1,
        },
        "safe-administration": {"to": own, "value_wei": 0, "data": add},
        "refund-fields": {"gas_price": ETHER // 100_000, "base_gas": 100_000, "refund_receiver": MALLORY},
        "allowance": {
            "to": raw_address(cold.token.address),
            "value_wei": 0,
            "data": cold.token.data("approve", mallory, 2**256 - 1),
        },
    }
    start = cold.node.rpc("evm_snapshot")
    for code, theft in thefts.items():
        asked = cold.request(**theft)
        for key in OWNERS:
            review = cold.review(encode_request(asked), key)
            assert code in review.codes
            with pytest.raises(Refused):
                sign(review, key)
        assert cold.attempt(asked, [key.sign_ethereum(asked.message.signing_hash) for key in OWNERS[:3]]), (
            code
        )
        robbed = (
            safe.call("isOwner", mallory)
            or cold.token.call("allowance", safe.address, mallory) == 2**256 - 1
            or cold.node.balance_wei(mallory) > 0
        )
        assert robbed, code
        assert cold.node.rpc("evm_revert", start)
        start = cold.node.rpc("evm_snapshot")


def test_fault_46_signatures_for_another_chain_or_safe_are_not_made_and_would_be_worth_nothing(
    cold: Cold,
) -> None:
    here = cold.request()
    for code, message in (
        ("wrong-chain-id", replace(here.message, chain_id=1)),
        ("unregistered-safe", replace(here.message, safe=CUSTOMER)),
    ):
        elsewhere = replace(here, message=message)
        for key in OWNERS:
            assert code in cold.review(encode_request(elsewhere), key).codes
        foreign = [key.sign_ethereum(message.signing_hash) for key in OWNERS[:3]]
        blob = join_signatures(message.signing_hash, foreign)
        data = here.message.tx.execution(blob)
        sent = cold.node.transact(cold.node.accounts()[0], cold.safe.address, data, gas=1_000_000)
        assert not succeeded(mined(cold.node, sent))


def payment(cold: Cold, units: int) -> dict[str, Any]:
    """The fields of a token's payment."""
    return {
        "to": raw_address(cold.token.address),
        "value_wei": 0,
        "data": transfer_calldata(PAYEE, units),
    }


def fields(asked: SafeRequest) -> list[Any]:
    """As `getTransactionHash` takes them."""
    return values(asked.message.tx)
