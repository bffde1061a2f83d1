"""A vault's signers know only their own signatures. Whoever asks which of them what, and in which order: one payment.

The attacker has everything online, and honest orders with all their approvals. For one order he makes several
transactions, some of which could confirm beside each other, and asks each signer for any of them, again and again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signers.ports import Refused
from tests.fakes.signing import Draft
from tests.fakes.vault_signing import THRESHOLD, VaultBench

SIGNERS = 3
COINS_OF = ((0,), (1,), (0, 1), (1, 2), (2,))
"""Which coins each transaction spends."""


@pytest.fixture(scope="module")
def signers() -> Iterator[list[VaultBench]]:
    with tempfile.TemporaryDirectory() as directory:
        made: list[VaultBench] = []
        for number in range(SIGNERS):
            home = Path(directory) / str(number)
            home.mkdir()
            made.append(VaultBench(home, number, made[0] if made else None))
            made[-1].adopt(2, network_fee_window_cap=str(10**15))
        yield made
        for signer in made:
            signer.journal.close()


@settings(max_examples=120)
@given(st.lists(st.tuples(st.integers(0, SIGNERS - 1), st.integers(0, len(COINS_OF) - 1)), max_size=14))
def test_of_all_transactions_that_enough_have_signed_no_two_could_confirm_beside_each_other(
    signers: list[VaultBench], asks: list[tuple[int, int]]
) -> None:
    world = signers[0].world
    order = world.order(1_000_000)
    intents = [world.vault_intent(order, policy_version=2)]
    coins = [world.vault_coin(2_000_000, index=number) for number in range(3)]
    requests = [
        world.vault_request(Draft([coins[n] for n in spent], [order], intents=intents)) for spent in COINS_OF
    ]
    signed: dict[int, set[int]] = {number: set() for number in range(len(requests))}
    for signer, number in asks:
        try:
            signers[signer].service.sign(requests[number])
        except Refused:
            assert signer not in signed[number], "what was signed once is given again"
        else:
            signed[number].add(signer)
    complete = [number for number, by in signed.items() if len(by) >= THRESHOLD]
    for one, other in combinations(complete, 2):
        assert set(COINS_OF[one]) & set(COINS_OF[other])
