"""A set that holds every nonce of some senders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chains.errors import InvalidAddress
from chains.eth.address import checksummed
from chains.eth.tx import MAX_NONCE, nonce_resource
from chains.eth.watch import WatchedSenders

OURS, THEIRS = b"\xaa" * 20, b"\xbb" * 20
WATCHED = WatchedSenders([checksummed(OURS)])


@given(st.integers(0, MAX_NONCE))
def test_every_nonce_of_a_sender_is_in_it_and_none_of_another(nonce: int) -> None:
    assert nonce_resource(OURS, nonce) in WATCHED
    assert nonce_resource(THEIRS, nonce) not in WATCHED


def test_being_told_of_single_resources_changes_nothing() -> None:
    watched = WatchedSenders([checksummed(OURS)])
    watched.discard(nonce_resource(OURS, 5))
    watched.update([nonce_resource(THEIRS, 5)])
    assert nonce_resource(OURS, 5) in watched
    assert nonce_resource(THEIRS, 5) not in watched


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        f"0x{OURS.hex()}",
        f"0x{OURS.hex()}:",
        f"0x{OURS.hex()}:-1",
        f"0x{OURS.hex()}:01",
        7,
        None,
        f"0x{OURS.hex().upper()}:1",
        f"0x{OURS.hex()}:{MAX_NONCE + 1}",
        f"{'ab' * 32}:0",
    ],
)
def test_what_is_no_resource_is_not_in_it(text: object) -> None:
    assert text not in WATCHED


def test_senders_are_given_in_their_canonical_form() -> None:
    with pytest.raises(InvalidAddress):
        WatchedSenders([f"0x{OURS.hex()}"])
