"""Any transactions of Safes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from chains.eth.address import checksummed
from chains.eth.safe import SafeTx

addresses = st.binary(min_size=20, max_size=20)
numbers = st.one_of(st.integers(0, 1000), st.integers(0, 2**256 - 1))
safe_txs = st.builds(
    SafeTx,
    to=addresses,
    value_wei=numbers,
    data=st.binary(max_size=140),
    nonce=numbers,
    operation=st.integers(0, 1),
    safe_tx_gas=numbers,
    base_gas=numbers,
    gas_price=numbers,
    gas_token=addresses,
    refund_receiver=addresses,
)


def values(tx: SafeTx) -> list[Any]:
    """The fields in the contract's order, as eth-abi takes them."""
    return [
        checksummed(tx.to),
        tx.value_wei,
        tx.data,
        tx.operation,
        tx.safe_tx_gas,
        tx.base_gas,
        tx.gas_price,
        checksummed(tx.gas_token),
        checksummed(tx.refund_receiver),
        tx.nonce,
    ]
