"""A signer of EVM key-sets by every way to reach it: the same promises as for BTC, though its signatures are random."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from chains.eth.address import raw_address
from policies.canonical import verify_ed25519
from signers.ports import Refused, Signer, SignerStatus, SignRequest
from tests.fakes.evm_signing import ETHER, EVM_KEYSET, GWEI, USDX, EvmDraft
from tests.fakes.signer import EvmBench
from tests.fakes.signer_server import WAYS, reached


@dataclass
class Reached:
    bench: EvmBench
    signer: Signer


@pytest.fixture(params=WAYS)
def evm(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reached]:
    bench = EvmBench(tmp_path)
    with reached(bench.service, request.param, tmp_path) as signer:
        yield Reached(bench, signer)
    bench.journal.close()


def outcome(signer: Signer, request: SignRequest) -> str:
    try:
        signer.sign(request)
    except Refused as refused:
        return refused.reasons[0].code
    return "signed"


def test_status_names_all_keysets(evm: Reached) -> None:
    journal = evm.bench.journal.id
    status = evm.signer.status()
    assert status == SignerStatus(
        bundle_version=1,
        keysets=(EVM_KEYSET, "xeth-hot"),
        signed=0,
        journal=journal,
        at=evm.bench.time,
        windows=status.windows,
    )


def test_a_payment_is_signed_and_again_changes_nothing(evm: Reached) -> None:
    draft = evm.bench.draft()
    request = evm.bench.world.request(draft)
    first = evm.signer.sign(request)
    assert evm.signer.sign(request) == first
    assert evm.signer.status().signed == 1
    signed = evm.bench.world.tx(draft).signed(bytes.fromhex(first.signatures[0].signature))
    assert signed.sender() == raw_address(evm.bench.keys.record.address)


def test_a_sweep_is_signed_after_its_forwarders_were_attested_by_the_same_way(evm: Reached) -> None:
    sweep = evm.bench.world.request(evm.bench.world.sweep([0, 1], [USDX]))
    with pytest.raises(Refused, match="foreign-forwarder"):
        evm.signer.sign(sweep)
    for index in (0, 1):
        signed = evm.signer.attest(evm.bench.world.attestation(index))
        key = evm.bench.keys.record.attestation_key
        verify_ed25519(key, signed.attestation.digest(), signed.signature)
    assert evm.signer.sign(sweep) == evm.signer.sign(sweep)


def test_a_refusal_arrives_with_all_its_reasons(evm: Reached) -> None:
    request = evm.bench.request(3 * ETHER, chain_id=1, gas_limit=100_001, max_fee_wei=GWEI, nonce=256)
    with pytest.raises(Refused) as refused:
        evm.signer.sign(request)
    assert {reason.code for reason in refused.value.reasons} == {
        "payment-cap",
        "wrong-chain-id",
        "gas-cap",
        "nonce",
    }


def test_eight_at_once_get_one_signature_for_each_transaction(evm: Reached) -> None:
    requests = [evm.bench.request(10_000 + n, nonce=n) for n in range(12)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(evm.signer.sign, requests * 2))
    assert answers[:12] == answers[12:] == [evm.bench.service.sign(request) for request in requests]
    assert evm.signer.status().signed == 12


def test_of_two_racing_nonces_for_one_intent_only_one_is_signed(evm: Reached) -> None:
    drafts = [evm.bench.draft(1_000 + n, nonce=2 * n) for n in range(12)]
    pairs: list[EvmDraft] = [d for draft in drafts for d in (draft, replace(draft, nonce=draft.nonce + 1))]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda d: outcome(evm.signer, evm.bench.world.request(d)), pairs))
    assert [outcomes[n : n + 2].count("signed") for n in range(0, 24, 2)] == [1] * 12
    assert set(outcomes) == {"signed", "conflicting-version"}


def test_racing_token_payments_never_exceed_the_window_cap(evm: Reached) -> None:
    evm.bench.adopt(2, usdx_window_cap="1000")
    drafts = [evm.bench.draft(200, asset="USDX", nonce=n) for n in range(16)]
    for draft in drafts:
        draft.intents = [evm.bench.world.intent(draft.orders[0], policy_version=2)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda d: outcome(evm.signer, evm.bench.world.request(d)), drafts))
    assert (outcomes.count("signed"), outcomes.count("window-cap")) == (5, 11)
