"""Hypothesis strategies for transactions of every shape that has a serialisation."""

from __future__ import annotations

from hypothesis import strategies as st

from chains.btc.tx import Outpoint, Transaction, TxIn, TxOut
from chains.types import TxId

outpoints = st.builds(
    Outpoint,
    st.builds(lambda raw: TxId(raw.hex()), st.binary(min_size=32, max_size=32)),
    st.integers(0, 2**32 - 1),
)
_short = st.one_of(st.binary(max_size=80), st.integers(250, 260).map(bytes))
inputs = st.builds(
    TxIn,
    outpoints,
    sequence=st.integers(0, 2**32 - 1),
    script_sig=_short,
    witness=st.one_of(st.just(()), st.tuples(_short, _short), st.lists(_short, max_size=4).map(tuple)),
)
known_scripts = st.sampled_from([b"\x00\x14" + bytes([number]) * 20 for number in range(8)])
outputs = st.builds(TxOut, st.integers(0, 10**12), st.one_of(known_scripts, _short))
transactions = st.builds(
    Transaction,
    st.integers(0, 2**32 - 1),
    st.lists(inputs, min_size=1, max_size=5, unique_by=lambda txin: txin.outpoint).map(tuple),
    st.lists(outputs, min_size=1, max_size=5).map(tuple),
    st.integers(0, 2**32 - 1),
)
