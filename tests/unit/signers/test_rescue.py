"""A rescue goes on while a thief, an officer's freeze and full windows stop everything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.eth.address import raw_address
from policies.bundle import Breaker, KeyState
from policies.intent import Kind
from signers.errors import Withheld
from signers.ports import SignRequest
from tests.fakes.evm_signing import ETHER, EVM_KEYSET, GWEI, EvmDraft, SoftEvmKeys
from tests.fakes.signer import EvmBench
from tests.fakes.signing import DAY

NEW_KEY = SoftEvmKeys.make("eth-hot-2").record
FEE = 60_000 * 20 * GWEI
"""The most that a draft's fee can be."""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def put(bench: EvmBench, state: KeyState, version: int, **changes: Any) -> None:
    """Adopt a bundle in which the key is in this state and another one follows it."""
    world = bench.world
    old, other = world.bundle().keysets
    keysets = (
        msgspec.structs.replace(old, state=state),
        other,
        world.keyset_entry(NEW_KEY),
    )
    breaker = Breaker(
        id="everything", keysets=(EVM_KEYSET, "xeth-hot"), value_cap=str(10**30), window_seconds=DAY
    )
    bench.adopt(version, **({"keysets": keysets, "breakers": (breaker,)} | changes))


def rotation(bench: EvmBench, nonce: int, version: int = 2) -> SignRequest:
    """What moves 7 ETH to the key that follows."""
    intent = bench.world.house_intent(Kind.ROTATION, destination=NEW_KEY.address, policy_version=version)
    return bench.world.request(
        EvmDraft(
            [],
            to=raw_address(NEW_KEY.address),
            value_wei=7 * ETHER,
            data=b"",
            intents=[intent],
            nonce=nonce,
        )
    )


def test_windows_that_a_thief_has_filled_do_not_delay_a_rescue(bench: EvmBench) -> None:
    """He fills the tier's window, the breaker and the chain's fees, all with what he signs before he is found out."""
    tight: dict[str, Any] = {
        "network_fee_window_cap": str(FEE),
        "cap_window_cap": str(ETHER + FEE),
        "breakers": (
            Breaker(
                id="everything", keysets=(EVM_KEYSET, "xeth-hot"), value_cap="10012000", window_seconds=DAY
            ),
        ),
    }
    bench.adopt(2, **tight)
    thief = bench.draft(ETHER)
    thief.intents = [bench.world.intent(order, policy_version=2) for order in thief.orders]
    bench.signatures(bench.world.request(thief))
    more = bench.world.fill(1)
    more.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in more.intents]
    assert bench.codes(bench.world.request(more)) == {"window-cap", "value-cap", "fee-window"}
    put(bench, "compromised", 3, **tight)
    assert bench.signatures(rotation(bench, 1, version=3))
    # But a rescue has a window for its own fees: nobody burns money without end by asking for rotations.
    assert bench.codes(rotation(bench, 2, version=3)) == {"fee-window"}


def test_what_rescues_have_cost_is_nothing_that_payments_have_paid(bench: EvmBench) -> None:
    tight: dict[str, Any] = {"network_fee_window_cap": str(FEE)}
    put(bench, "compromised", 2, **tight)
    assert bench.signatures(rotation(bench, 0))
    put(bench, "deactivated", 3, **tight)
    fill = bench.world.fill(1, max_fee_wei=20 * GWEI)
    fill.intents = [msgspec.structs.replace(intent, policy_version=3) for intent in fill.intents]
    assert bench.signatures(bench.world.request(fill))


def test_a_rescue_that_was_signed_is_given_out_under_a_freeze_but_a_new_one_is_not(bench: EvmBench) -> None:
    put(bench, "compromised", 2)
    request = rotation(bench, 0)
    before = bench.signatures(request)
    bench.freeze("all")
    assert bench.signatures(request) == before
    assert bench.codes(rotation(bench, 1)) == {"frozen"}
    put(bench, "compromised", 3)
    assert bench.signatures(rotation(bench, 1, version=3))


@pytest.mark.parametrize("state", ["suspended", "compromised", "pre-active"])
def test_a_rescue_that_was_signed_is_given_out_in_every_state_of_keys_that_exist(
    bench: EvmBench, state: KeyState
) -> None:
    put(bench, "deactivated", 2)
    request = rotation(bench, 0)
    before = bench.signatures(request)
    put(bench, state, 3)
    assert bench.signatures(request) == before
    put(bench, "destroyed", 4)
    with pytest.raises(Withheld, match="destroyed"):
        bench.service.sign(request)


def test_keys_that_were_restored_with_an_empty_journal_are_emptied_at_whatever_nonce_they_are(
    bench: EvmBench,
) -> None:
    put(bench, "deactivated", 2)
    fill = bench.world.fill(5_001)
    fill.intents = [msgspec.structs.replace(intent, policy_version=2) for intent in fill.intents]
    assert bench.codes(bench.world.request(fill)) == {"nonce"}
    assert bench.signatures(rotation(bench, 5_000))
    # Now the signer knows where its nonces are.
    assert bench.signatures(bench.world.request(fill))


def test_a_payment_dressed_as_a_rescue_is_none(bench: EvmBench) -> None:
    """An order, an approval or a second intent beside it: a rotation comes alone and with nothing."""
    put(bench, "compromised", 2)
    order = bench.world.order()
    with_order = msgspec.structs.replace(
        rotation(bench, 0), evidence=bench.world.request(EvmDraft([order])).evidence
    )
    assert bench.codes(with_order) == {"stray-order"}
    rescue = rotation(bench, 0)
    payment = bench.world.intent(order, policy_version=2)
    both = msgspec.structs.replace(rescue, intents=(*rescue.intents, payment), evidence=with_order.evidence)
    assert {"mixed-intents", "key-state"} <= bench.codes(both)
    twice = msgspec.structs.replace(rescue, intents=(*rescue.intents, *rotation(bench, 0).intents))
    assert "mixed-intents" in bench.codes(twice)
    for field in ({"amount": "1"}, {"order": "ab" * 32}, {"asset": "USDX"}):
        (intent,) = rescue.intents
        changed = msgspec.structs.replace(rescue, intents=(msgspec.structs.replace(intent, **field),))
        assert "house-intent" in bench.codes(changed)
