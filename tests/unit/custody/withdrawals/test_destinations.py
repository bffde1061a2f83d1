"""Destinations on EVM chains: one way to write each, and none that loses what is paid to it."""

from __future__ import annotations

import pytest

from chains.errors import InvalidAddress, InvalidValue
from chains.eth.address import checksummed
from custody.errors import OrderMismatch
from custody.withdrawals.destinations import check_payable, destination_of, smallest_payment
from tests.fakes.evm_signing import (
    EVM_CHAIN,
    EVM_DESTINATION,
    FACTORY,
    FEEX,
    OTHER_EVM_CHAIN,
    OTHER_EVM_CHAIN_ID,
    PAYOUT,
    USDX,
    EvmWorld,
    SoftEvmKeys,
)

BUNDLE = EvmWorld(SoftEvmKeys.make().record, SoftEvmKeys.make("xeth-hot", OTHER_EVM_CHAIN_ID).record).bundle()


def test_an_address_is_taken_with_its_checksum_only() -> None:
    found = destination_of(BUNDLE, EVM_CHAIN, EVM_DESTINATION)
    assert (found.text, found.kind, len(found.script)) == (EVM_DESTINATION, "evm", 20)
    assert smallest_payment(found) == 1
    with pytest.raises(OrderMismatch, match=r"destination .* as it must be written, with its checksum"):
        destination_of(BUNDLE, EVM_CHAIN, EVM_DESTINATION.lower())
    for text in (EVM_DESTINATION[:-1], "0x" + EVM_DESTINATION[2:].swapcase(), "bc1qxyz", ""):
        with pytest.raises(InvalidAddress):
            destination_of(BUNDLE, EVM_CHAIN, text)


@pytest.mark.parametrize("text", [checksummed(bytes(20)), USDX, FEEX, FACTORY, PAYOUT])
def test_the_zero_address_tokens_and_our_own_contracts_are_no_destination(text: str) -> None:
    with pytest.raises(InvalidAddress, match=r"lost|nothing is paid"):
        destination_of(BUNDLE, EVM_CHAIN, text)


def test_what_is_a_token_on_one_network_is_just_an_address_on_another() -> None:
    assert destination_of(BUNDLE, OTHER_EVM_CHAIN, USDX).chain == OTHER_EVM_CHAIN


def test_a_token_that_takes_a_fee_cannot_be_paid_and_others_can() -> None:
    for asset in ("ETH", "USDX", "XETH"):
        check_payable(BUNDLE.asset(asset))
    with pytest.raises(InvalidValue, match="fee on transfer"):
        check_payable(BUNDLE.asset("FEEX"))
