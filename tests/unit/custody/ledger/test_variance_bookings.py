"""What a variance does in the ledger: the wallet and one account of the house, never a customer."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from custody.ledger.bookings import book_variance, unbook_variance
from custody.ledger.model import AccountKind, LineType, Reverse

ID = UUID(int=7)


@given(
    st.integers(-(10**30), 10**30).filter(bool),
    st.sampled_from([AccountKind.SUSPENSE, AccountKind.NETWORK_FEES]),
)
def test_the_wallet_gains_or_loses_what_the_account_of_the_house_gains_or_bears(
    units: int, account: AccountKind
) -> None:
    transfer = book_variance(ID, asset="ETH", wallet="eth-hot", units=units, account=account)
    assert transfer.id == ID
    amounts = {leg.account.kind: leg.amount for leg in transfer.legs}
    assert amounts == {AccountKind.CHAIN_ASSETS: -units, account: units}
    fees = account is AccountKind.NETWORK_FEES
    assert {leg.type for leg in transfer.legs} == {LineType.NETWORK_FEE if fees else LineType.TRANSFER}


def test_a_variance_of_nothing_is_none() -> None:
    with pytest.raises(InvalidValue):
        book_variance(ID, asset="ETH", wallet="eth-hot", units=0, account=AccountKind.SUSPENSE)


def test_undoing_it_reverses_that_very_transfer() -> None:
    undone = unbook_variance(ID)
    assert isinstance(undone, Reverse)
    assert (undone.transfer_id, undone.reference) == (ID, f"variance:{ID}")
    assert undone.id == unbook_variance(ID).id != ID
