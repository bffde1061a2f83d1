"""An owner of a Safe that was away for long signs again: by its own guard, whose reach is as narrow as before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chains.eth.address import raw_address
from custody.signing.evm.catching_up import STEP, catch_up
from policies.intent import Kind
from signers.guard.safe import MAX_NONCE_AHEAD
from signers.ports import Refused, SignRequest, SignResponse
from tests.fakes.safe_signing import SAFE, OwnerBench, SafeDraft

USED = 3 * STEP + 100


class Asked:
    """The owner's signer, and how often it was asked."""

    def __init__(self, bench: OwnerBench) -> None:
        self.bench, self.times = bench, 0

    def sign(self, request: SignRequest) -> SignResponse:
        self.times += 1
        return self.bench.service.sign(request)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OwnerBench]:
    opened = OwnerBench(tmp_path)
    yield opened
    opened.journal.close()


def nothing(bench: OwnerBench, nonce: int) -> SignRequest:
    tx = {"to": raw_address(SAFE), "value_wei": 0, "data": b"", "nonce": nonce}
    intents = [bench.world.safe_house_intent(Kind.CANCELLATION, SAFE)]
    return bench.world.safe_request(SafeDraft([], tx=tx, intents=intents))


def test_a_step_is_as_far_as_the_guard_lets_it(bench: OwnerBench) -> None:
    assert STEP == MAX_NONCE_AHEAD


def test_it_signs_by_steps_what_the_chain_has_used_and_then_what_is_next(bench: OwnerBench) -> None:
    assert bench.codes(bench.request(nonce=USED)) == {"nonce"}
    asked = Asked(bench)
    assert catch_up(asked, USED, lambda nonce: nothing(bench, nonce))  # type: ignore[arg-type]
    assert asked.times < 10
    assert bench.signatures(bench.request(nonce=USED))


def test_no_further_than_the_chain_has_come(bench: OwnerBench) -> None:
    assert catch_up(bench.service, USED, lambda nonce: nothing(bench, nonce))
    highest = bench.journal.write(lambda book: book.high_water("eth-warm"))
    assert highest == USED - 1
    assert bench.codes(bench.request(nonce=USED + STEP)) == {"nonce"}


def test_a_signer_that_is_there_is_asked_once_more_and_no_nonce_of_a_new_safe(bench: OwnerBench) -> None:
    asked = Asked(bench)
    assert catch_up(asked, 0, lambda nonce: nothing(bench, nonce))  # type: ignore[arg-type]
    assert asked.times == 0
    assert catch_up(asked, 1, lambda nonce: nothing(bench, nonce))  # type: ignore[arg-type]
    assert asked.times == 1


def test_another_refusal_ends_it(bench: OwnerBench) -> None:
    with pytest.raises(Refused, match="unknown-call"):
        catch_up(bench.service, USED, lambda nonce: strange(bench, nonce))


def strange(bench: OwnerBench, nonce: int) -> SignRequest:
    tx = {"to": raw_address(SAFE), "value_wei": 1, "data": b"", "nonce": nonce}
    intents = [bench.world.safe_house_intent(Kind.CANCELLATION, SAFE)]
    return bench.world.safe_request(SafeDraft([], tx=tx, intents=intents))
