"""A thief asks for rescues himself, so that the one that matters is not signed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import raw_address
from chains.eth.erc20 import transfer_calldata
from policies.bundle import Breaker
from policies.intent import Kind
from signers.ports import SignRequest
from tests.fakes.evm_signing import EVM_KEYSET, GWEI, USDX, EvmDraft, SoftEvmKeys
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY

NEW_KEY = SoftEvmKeys.make("eth-hot-2").record
FEE = 60_000 * 20 * GWEI
"""The most that a draft's fee can be."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    old, other = made.world.bundle().keysets
    keysets = (msgspec.structs.replace(old, state="compromised"), other, made.world.keyset_entry(NEW_KEY))
    breaker = Breaker(id="all", keysets=(EVM_KEYSET, "xeth-hot"), value_cap=str(10**30), window_seconds=DAY)
    made.adopt(2, keysets=keysets, breakers=(breaker,), network_fee_window_cap=str(3 * FEE))
    yield made
    made.journal.close()


def rotation(bench: EvmBench, nonce: int, units: int) -> SignRequest:
    """What moves some USDX to the key that follows."""
    intent = bench.world.house_intent(Kind.ROTATION, destination=NEW_KEY.address, policy_version=2)
    data: dict[str, Any] = {
        "to": raw_address(USDX),
        "value_wei": 0,
        "data": transfer_calldata(raw_address(NEW_KEY.address), units),
    }
    return bench.world.request(EvmDraft([], intents=[intent], nonce=nonce, **data))


def test_rescues_that_can_never_be_mined_hold_up_the_true_one_for_a_day_at_most(bench: EvmBench) -> None:
    """At nonces that are never reached: nobody can ever prove them dead, so as payments they would count for ever."""
    for far in (10**6, 10**7, 10**8):
        assert bench.signatures(rotation(bench, far, 0))
    assert bench.codes(rotation(bench, 0, 10**6)) == {"fee-window"}
    bench.time += DAY
    bench.timekeeper.tick()
    assert bench.signatures(rotation(bench, 0, 10**6))
    bench.restart()
    assert bench.signatures(rotation(bench, 1, 10**6))
    assert bench.signatures(rotation(bench, 2, 10**6))
    # Burning goes no faster than ever.
    assert bench.codes(rotation(bench, 3, 10**6)) == {"fee-window"}


def test_words_about_rescues_make_no_room_for_more_of_them(bench: EvmBench) -> None:
    for nonce in range(3):
        assert bench.signatures(rotation(bench, nonce, 1))
    assert bench.resolve("dead") == 3
    assert bench.codes(rotation(bench, 3, 1)) == {"fee-window"}
    bench.time += DAY - 1
    assert bench.resolve("confirmed") == 0
    assert bench.codes(rotation(bench, 3, 1)) == {"fee-window"}
    bench.time += 1
    assert bench.signatures(rotation(bench, 3, 1))
