"""States of keys and freezes: what is signed, attested, given out again and withheld in each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from policies.bundle import KeysetEntry, KeyState
from policies.intent import Intent, Kind
from signers.errors import Withheld
from signers.guard.states import ALLOWED
from signers.journal.book import Book
from signers.journal.written import Written
from signers.ports import AttestRequest, Refused, SignRequest
from tests.fakes.evm_signing import EVM_CHAIN, EVM_KEYSET
from tests.fakes.signer import EvmBench, SignerBench
from tests.fakes.signing import CHAIN, KEYSET, Draft

STATES: tuple[KeyState, ...] = get_args(KeyState)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


@pytest.fixture
def evm(tmp_path: Path) -> Iterator[EvmBench]:
    made = EvmBench(tmp_path)
    yield made
    made.journal.close()


def put(bench: SignerBench, state: KeyState, version: int = 2) -> None:
    """Adopt a bundle in which the key-set is in this state."""
    bench.adopt(version, keysets=(bench.world.keyset_entry(state=state),))


def of_version(intent: Intent, version: int) -> Intent:
    return msgspec.structs.replace(intent, policy_version=version)


def payment(bench: SignerBench, version: int = 2) -> SignRequest:
    draft = bench.draft()
    draft.intents = [of_version(bench.world.intent(order), version) for order in draft.orders]
    return bench.world.request(draft)


def consolidation(bench: SignerBench, version: int = 2) -> SignRequest:
    world = bench.world
    coins = [world.coin(100_000, index=n) for n in range(2)]
    return world.request(
        Draft(coins, [], intents=[of_version(world.house_intent(Kind.CONSOLIDATION), version)])
    )


def attestation(index: int = 7) -> AttestRequest:
    return AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=index)


def attestation_codes(bench: SignerBench | EvmBench, request: AttestRequest) -> set[str]:
    with pytest.raises(Refused) as refused:
        bench.service.attest(request)
    return {reason.code for reason in refused.value.reasons}


# States.


@pytest.mark.parametrize("state", [state for state in STATES if state != "active"])
def test_keys_pay_only_while_they_are_active(bench: SignerBench, state: KeyState) -> None:
    put(bench, state)
    assert bench.codes(payment(bench)) == {"key-state"}


@pytest.mark.parametrize("state", STATES)
def test_what_collects_the_houses_own_is_signed_by_active_and_deactivated_keys(
    bench: SignerBench, state: KeyState
) -> None:
    put(bench, state)
    if state in ("active", "deactivated"):
        assert bench.signatures(consolidation(bench))
    else:
        assert bench.codes(consolidation(bench)) == {"key-state"}


@pytest.mark.parametrize("state", [state for state in STATES if state != "active"])
def test_keys_attest_only_while_they_are_active_also_what_they_attested_before(
    bench: SignerBench, state: KeyState
) -> None:
    bench.service.attest(attestation())
    put(bench, state)
    assert attestation_codes(bench, attestation()) == {"key-state"}
    assert attestation_codes(bench, attestation(8)) == {"key-state"}


def test_active_keys_rotate_nothing_as_a_rotation_counts_in_no_tiers_window() -> None:
    assert ALLOWED["active"] == set(Kind) - {Kind.ROTATION}
    assert ALLOWED["compromised"] == {Kind.ROTATION}
    assert not {Kind.PAYMENT, Kind.EXECUTION, Kind.REFILL, Kind.DEPLOYMENT} & ALLOWED["deactivated"]


def test_every_state_of_the_bundle_has_its_rule() -> None:
    assert set(ALLOWED) == set(STATES)


@pytest.mark.parametrize("state", STATES)
def test_what_was_signed_is_given_out_again_by_usable_keys_and_withheld_by_others_but_never_refused(
    bench: SignerBench, state: KeyState
) -> None:
    request = payment(bench, version=1)
    before = bench.signatures(request)
    put(bench, state)
    for _ in range(2):
        if state in ("active", "deactivated"):
            assert bench.signatures(request) == before
        else:
            with pytest.raises(Withheld, match=state):
                bench.service.sign(request)
        bench.restart()
    put(bench, "active", 3)
    assert bench.signatures(request) == before
    assert bench.service.status().signed == 1


def test_what_compromised_keys_have_signed_stays_back_when_the_bundle_lists_no_cap_for_them_any_more(
    bench: SignerBench,
) -> None:
    request = payment(bench, version=1)
    bench.signatures(request)
    bench.adopt(2, keysets=(bench.world.keyset_entry(state="compromised"),), caps=(), breakers=())
    with pytest.raises(Withheld, match="compromised"):
        bench.service.sign(request)


def test_a_version_with_a_higher_fee_is_new_and_refused_in_other_states(bench: SignerBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.request(draft))
    put(bench, "suspended")
    draft.fee_sats += 2_000
    assert bench.codes(bench.world.request(draft)) == {"key-state"}


# Freezes.


@pytest.mark.parametrize("scope", ["all", f"chain:{CHAIN}", f"wallet:{KEYSET}", "asset:BTC"])
def test_a_freeze_stops_everything_in_its_scope_until_a_higher_bundle(bench: SignerBench, scope: str) -> None:
    signed_before = payment(bench, version=1)
    before = bench.signatures(signed_before)
    bench.freeze(scope)
    for _ in range(2):
        assert bench.codes(payment(bench, version=1)) == {"frozen"}
        assert bench.codes(consolidation(bench, version=1)) == {"frozen"}
        assert attestation_codes(bench, attestation()) == {"frozen"}
        with pytest.raises(Withheld, match="something is odd"):
            bench.service.sign(signed_before)
        bench.restart()
    bench.adopt(2)
    assert bench.signatures(payment(bench))
    assert bench.signatures(signed_before) == before
    assert bench.service.attest(attestation()).attestation.customer == "alice"


def test_what_was_signed_stays_back_under_a_freeze_also_when_the_bundle_has_dropped_its_cap(
    bench: SignerBench,
) -> None:
    request = payment(bench, version=1)
    bench.signatures(request)
    bench.adopt(2, caps=())
    assert bench.signatures(request)
    bench.freeze("all")
    with pytest.raises(Withheld, match="olga has frozen all"):
        bench.service.sign(request)


def test_a_frozen_token_stays_while_others_are_paid_and_a_frozen_native_asset_stops_all_fees(
    evm: EvmBench,
) -> None:
    evm.freeze("asset:USDX")
    assert evm.codes(evm.request(10**6, asset="USDX")) == {"frozen"}
    assert evm.signatures(evm.request(10**15))
    evm.freeze("asset:ETH")
    assert evm.codes(evm.request(10**15, nonce=1)) == {"frozen"}
    assert evm.codes(evm.world.request(evm.world.fill(1))) == {"frozen"}


@pytest.mark.parametrize("scope", [f"chain:{EVM_CHAIN}", f"wallet:{EVM_KEYSET}"])
def test_a_freeze_of_one_network_is_none_of_the_others(evm: EvmBench, scope: str) -> None:
    evm.freeze(scope)
    assert evm.codes(evm.request()) == {"frozen"}
    world = evm.world
    order = world.order(chain="polygon-devnet", asset="XETH")
    draft = evm.draft(chain="polygon-devnet", keyset="xeth-hot", chain_id=31338)
    draft.orders, draft.intents = [order], [world.intent(order, keyset="xeth-hot")]
    assert evm.signatures(world.request(draft))


# While somebody looks.


def adopting(bench: SignerBench, monkeypatch: pytest.MonkeyPatch, *keysets: KeysetEntry) -> None:
    """Have version 3 adopted while the next request is looked at under version 2."""
    begin, done = bench.journal.begin, list[bool]()

    def after_another(work: Callable[[Book], Any]) -> Written[Any]:
        if not done:
            done.append(True)
            bench.adopt(3, keysets=keysets)
        return begin(work)

    monkeypatch.setattr(bench.journal, "begin", after_another)


def test_a_state_that_changes_while_a_request_is_looked_at_counts(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = payment(bench, version=1)
    bench.signatures(request)
    bench.adopt(2, caps=())
    adopting(bench, monkeypatch, bench.world.keyset_entry(state="compromised"))
    with pytest.raises(Withheld, match="compromised"):
        bench.service.sign(request)


def test_no_address_is_attested_for_keys_that_are_suspended_meanwhile(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.adopt(2)
    adopting(bench, monkeypatch, bench.world.keyset_entry(state="suspended"))
    assert attestation_codes(bench, attestation()) == {"key-state"}
