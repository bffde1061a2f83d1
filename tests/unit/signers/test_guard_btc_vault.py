"""One cosigner of a Bitcoin vault: it signs honest spending with its own key only, and no other vault's coins."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.btc.psbt import InputSignature, PsbtInput, build_psbt, finalize, parse_psbt
from chains.btc.script import p2wpkh_script_from_hash
from chains.btc.tx import Outpoint, SegwitDigests, Transaction, TxIn, TxOut
from chains.types import TxId
from policies.bundle import BitcoinVault, Cosigner
from policies.intent import Kind
from signers.errors import WrongSignature
from signers.guard.btc_shape import KINDS
from signers.ports import AttestRequest, Refused, SignRequest
from signers.service import SignerService
from signers.wallets import BitcoinVaultWallet, verifies
from tests.fakes.signing import CHAIN, NOW, Draft, coin_of
from tests.fakes.vault_signing import VAULT, SoftCosigner, VaultBench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[VaultBench]:
    made = VaultBench(tmp_path)
    yield made
    made.journal.close()


def under_2(bench: VaultBench, **changes: Any) -> SignRequest:
    """An honest request, decided under version 2."""
    draft = bench.draft(**changes)
    draft.intents = [bench.world.vault_intent(order, policy_version=2) for order in draft.orders]
    return bench.world.vault_request(draft)


# The honest ways.


def test_a_payment_is_signed_with_the_cosigners_own_key_only(bench: VaultBench) -> None:
    request = bench.request()
    (signature,) = bench.signatures(request)
    psbt = parse_psbt(base64.b64decode(request.transaction))
    own = bench.cosigners[0].account.pubkey(0, 0)
    digest = SegwitDigests(psbt.tx).p2wsh(0, psbt.input_scripts[0] or b"", psbt.spent[0].units)
    der = bytes.fromhex(signature.signature)
    assert (bytes.fromhex(signature.pubkey), der[-1:]) == (own, b"\x01")
    assert verifies(own, digest, der[:-1])
    assert bench.signatures(request) == (signature,)


def test_two_cosigners_signatures_finish_the_transaction(bench: VaultBench) -> None:
    request = bench.request()
    psbt = parse_psbt(base64.b64decode(request.transaction))
    signed = []
    for cosigner in (bench.cosigners[2], bench.cosigners[0]):
        wallet = BitcoinVaultWallet(cosigner)
        service = SignerService({VAULT: wallet}, bench.trust, bench.journal, bench.clock)
        signed += [
            InputSignature(s.index, bytes.fromhex(s.pubkey), bytes.fromhex(s.signature))
            for s in service.sign(request).signatures
        ]
    assert Transaction.parse(finalize(psbt, signed)).txid == psbt.tx.txid


def test_a_consolidation_and_a_payment_without_change_are_signed(bench: VaultBench) -> None:
    world = bench.world
    bench.signatures(world.vault_request(Draft([world.vault_coin(20_002_000)], [world.order(20_000_000)])))
    coins = [world.vault_coin(30_000 + n, branch=n % 2, index=n) for n in range(4)]
    draft = Draft(coins, [], intents=[world.vault_house_intent(Kind.CONSOLIDATION)])
    assert len(bench.signatures(world.vault_request(draft))) == 4


def test_a_replacement_must_share_an_input(bench: VaultBench) -> None:
    draft = bench.draft()
    bench.signatures(bench.world.vault_request(draft))
    bench.signatures(bench.world.vault_request(replace(draft, fee_sats=4_000)))
    other = replace(draft, coins=[bench.world.vault_coin(30_000_000)])
    assert bench.codes(bench.world.vault_request(other)) == {"conflicting-version"}


# Descriptors.


def another_key(entry: BitcoinVault) -> BitcoinVault:
    thief = SoftCosigner.make(66).record
    member = Cosigner(id="c2", organisation="org-2", account=thief.account, origin=thief.origin)
    return msgspec.structs.replace(entry, cosigners=(*entry.cosigners[:2], member))


def another_order(entry: BitcoinVault) -> BitcoinVault:
    return msgspec.structs.replace(entry, cosigners=entry.cosigners[::-1])


def another_threshold(entry: BitcoinVault) -> BitcoinVault:
    return msgspec.structs.replace(entry, threshold=3)


def one_member_less(entry: BitcoinVault) -> BitcoinVault:
    return msgspec.structs.replace(entry, cosigners=entry.cosigners[:2])


def another_origin(entry: BitcoinVault) -> BitcoinVault:
    member = msgspec.structs.replace(entry.cosigners[1], origin="00000000/48'/1'/0'/2'")
    return msgspec.structs.replace(entry, cosigners=(entry.cosigners[0], member, entry.cosigners[2]))


def another_checksum(entry: BitcoinVault) -> BitcoinVault:
    text = entry.descriptor
    return msgspec.structs.replace(entry, descriptor=text[:-1] + ("q" if text[-1] != "q" else "p"))


def unsorted(entry: BitcoinVault) -> BitcoinVault:
    return msgspec.structs.replace(entry, descriptor=entry.descriptor.replace("sortedmulti", "multi"))


def one_branch(entry: BitcoinVault) -> BitcoinVault:
    return msgspec.structs.replace(entry, descriptor=entry.descriptor.replace("<0;1>", "0"))


def no_account(entry: BitcoinVault) -> BitcoinVault:
    member = msgspec.structs.replace(entry.cosigners[1], account="tpubnonsense")
    return msgspec.structs.replace(entry, cosigners=(entry.cosigners[0], member, entry.cosigners[2]))


@pytest.mark.parametrize(
    "change",
    [
        another_key,
        another_order,
        another_threshold,
        one_member_less,
        another_origin,
        another_checksum,
        unsorted,
        one_branch,
        no_account,
    ],
)
def test_a_vault_whose_descriptor_is_not_its_cosigners_own_signs_nothing(
    bench: VaultBench, change: Any
) -> None:
    bench.adopt(2, vaults=(change(bench.world.vault_entry()),))
    assert bench.codes(under_2(bench)) == {"wrong-descriptor"}


def test_a_vault_without_this_signers_key_is_refused(bench: VaultBench) -> None:
    others = [SoftCosigner.make(number).record for number in (1, 2, 3)]
    bench.adopt(2, vaults=(bench.world.vault_entry(others),))
    assert bench.codes(under_2(bench)) == {"wrong-keyset"}


def test_a_vault_on_another_network_is_refused(bench: VaultBench) -> None:
    bench.adopt(2, network_genesis="00" * 32)
    assert bench.codes(under_2(bench)) == {"wrong-network"}


def test_the_vaults_name_for_a_key_set_is_refused(bench: VaultBench) -> None:
    entry = bench.world.keyset_entry(id=VAULT, tier="warm")
    bench.adopt(2, vaults=(), keysets=(entry,))
    assert bench.codes(under_2(bench)) == {"wrong-keyset"}


def test_a_vault_attests_no_address(bench: VaultBench) -> None:
    request = AttestRequest(chain=CHAIN, keyset=VAULT, customer="alice", asset="BTC", branch=0, index=0)
    with pytest.raises(Refused):
        bench.service.attest(request)


# Inputs.


def test_coins_of_a_multisig_with_a_strangers_key_are_refused(bench: VaultBench) -> None:
    """The signer's own key is in the script, so only the bundle's cosigners say that it is not the vault's."""
    world = bench.world
    swapped = world.wallet_of([*world.cosigners[:2], SoftCosigner.make(66).record])
    coin = coin_of(swapped.script(0, 0), 24_000_000, 0, 0)
    draft = Draft([coin], [world.order(20_000_000)], fee_sats=4_000_000)
    assert "foreign-input" in bench.codes(world.vault_request(draft, swapped))


def test_coins_of_another_threshold_are_refused(bench: VaultBench) -> None:
    world = bench.world
    single = world.wallet_of(world.cosigners, 1)
    coin = coin_of(single.script(0, 0), 20_002_000, 0, 0)
    draft = Draft([coin], [world.order(20_000_000)])
    assert bench.codes(world.vault_request(draft, single)) == {"foreign-input"}


def test_coins_without_this_signers_key_are_refused(bench: VaultBench) -> None:
    world = bench.world
    others = world.wallet_of([SoftCosigner.make(number).record for number in (1, 2, 3)])
    coin = coin_of(others.script(0, 0), 20_002_000, 0, 0)
    draft = Draft([coin], [world.order(20_000_000)])
    assert bench.codes(world.vault_request(draft, others)) == {"foreign-input"}


def test_coins_of_one_key_alone_are_refused(bench: VaultBench) -> None:
    world = bench.world
    coin = world.coin(20_002_000)
    tx = Transaction(2, (TxIn(coin.outpoint),), (TxOut(20_000_000, p2wpkh_script_from_hash(bytes(20))),))
    inputs = [
        PsbtInput(
            coin.outpoint,
            tx.inputs[0].sequence,
            coin.previous.serialize(),
            world.path(0, 0),
            world.account.pubkey(0, 0),
        )
    ]
    raw = build_psbt(tx, inputs, {}, world.record.fingerprint)
    request = msgspec.structs.replace(bench.request(), transaction=base64.b64encode(raw).decode())
    assert bench.codes(request) == {"foreign-input"}


def test_an_input_at_another_place_than_the_psbt_says_is_refused(bench: VaultBench) -> None:
    draft = bench.draft()
    draft.coins = [replace(draft.coins[0], index=1)]
    with pytest.raises(Exception, match="witness script"):  # it can't even be built
        bench.world.vault_request(draft)


def test_a_lie_about_an_inputs_amount_is_refused(bench: VaultBench) -> None:
    request = bench.request()
    raw = base64.b64decode(request.transaction)
    psbt = parse_psbt(raw)
    units = psbt.spent[0].units
    lie = raw.replace(units.to_bytes(8, "little"), (units - 1).to_bytes(8, "little"))
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(lie).decode())
    assert bench.codes(changed) == {"malformed-transaction"}


# Outputs, fees, form.


def test_change_to_another_vault_is_refused(bench: VaultBench) -> None:
    world, draft = bench.world, bench.draft()
    swapped = world.wallet_of([*world.cosigners[:2], SoftCosigner.make(66).record])
    raw = parse_psbt(world.vault_psbt(draft, world.wallet))
    change = raw.tx.outputs[1]
    tx = replace(raw.tx, outputs=(raw.tx.outputs[0], TxOut(change.units, swapped.script(1, 0))))
    inputs = [
        PsbtInput(c.outpoint, draft.sequence, c.previous.serialize(), behind=world.wallet.behind(0, 0))
        for c in draft.coins
    ]
    psbt = build_psbt(tx, inputs, {}, bytes(4), {1: swapped.behind(1, 0)})
    request = world.vault_request(draft)
    changed = msgspec.structs.replace(request, transaction=base64.b64encode(psbt).decode())
    assert bench.codes(world.evidence(changed)) == {"foreign-change"}


def test_change_on_the_deposit_branch_is_refused(bench: VaultBench) -> None:
    world, draft = bench.world, bench.draft()
    wallet = world.wallet
    raw = parse_psbt(world.vault_psbt(draft, wallet))
    tx = replace(raw.tx, outputs=(raw.tx.outputs[0], TxOut(raw.tx.outputs[1].units, wallet.script(0, 9))))
    inputs = [
        PsbtInput(c.outpoint, draft.sequence, c.previous.serialize(), behind=wallet.behind(0, 0))
        for c in draft.coins
    ]
    psbt = build_psbt(tx, inputs, {}, bytes(4), {1: wallet.behind(0, 9)})
    changed = msgspec.structs.replace(world.vault_request(draft), transaction=base64.b64encode(psbt).decode())
    assert bench.codes(world.evidence(changed)) == {"foreign-change"}


def test_change_beyond_reach_is_refused_and_reach_grows_with_what_was_signed(bench: VaultBench) -> None:
    assert bench.codes(bench.request(change_index=1_000)) == {"change-index"}
    bench.signatures(bench.request(change_index=999))
    bench.signatures(bench.request(change_index=1_999))
    assert bench.codes(bench.request(change_index=3_000)) == {"change-index"}


def test_an_extra_output_a_missing_payment_and_dust_are_refused(bench: VaultBench) -> None:
    thief = TxOut(10_000, p2wpkh_script_from_hash(b"\x66" * 20))
    assert bench.codes(bench.request(extra_outputs=[thief])) == {"unknown-output"}
    assert bench.codes(bench.request(outputs=[thief])) == {"unknown-output", "unpaid-intent"}
    draft = bench.draft()
    draft.fee_sats = sum(c.units for c in draft.coins) - 20_000_000 - 300
    assert "dust" in bench.codes(bench.world.vault_request(draft))


def test_a_feerate_is_judged_by_the_weight_that_two_signatures_have(bench: VaultBench) -> None:
    # 34 + 4 * (1 + 1 + 31 + 43) of body, 164 + 1 + 1 + 2 * 73 + 1 + 105 of input: 189 vB, at 100 sat/vB.
    assert bench.codes(bench.request(fee_sats=18_901)) == {"feerate-cap"}
    bench.signatures(bench.request(fee_sats=18_900))


def test_locktime_sequence_and_version_are_judged_like_a_key_sets(bench: VaultBench) -> None:
    assert bench.codes(bench.request(locktime=1)) == {"locktime"}
    assert bench.codes(bench.request(sequence=0xFFFF_FFFF)) == {"sequence"}
    assert bench.codes(bench.request(sequence=1)) == {"sequence"}
    assert bench.codes(bench.request(version=1)) == {"tx-version"}


# People.


def test_without_approvals_or_a_verdict_nothing_is_paid(bench: VaultBench) -> None:
    request = bench.request()
    for missing, code in (("approvals", "approvals-missing"), ("verdicts", "no-verdict")):
        evidence = msgspec.structs.replace(request.evidence, **{missing: ()})
        assert bench.codes(msgspec.structs.replace(request, evidence=evidence)) == {code}


def test_a_payment_in_the_name_of_the_hot_tier_is_refused(bench: VaultBench) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.vault_intent(order, tier="hot") for order in draft.orders]
    assert "wrong-keyset" in bench.codes(bench.world.vault_request(draft))


@pytest.mark.parametrize("kind", sorted(set(Kind) - KINDS))
def test_kinds_that_a_vault_does_not_have_are_refused(bench: VaultBench, kind: Kind) -> None:
    draft = bench.draft()
    draft.intents = [bench.world.vault_intent(draft.orders[0], kind=kind, order=None)]
    assert "kind-not-supported" in bench.codes(bench.world.vault_request(draft))


# Faults.


def test_fault_31_a_wrong_signature_is_caught_before_release(bench: VaultBench) -> None:
    request, good = bench.request(), bench.cosigners[0]

    class Faulty(SoftCosigner):
        def sign(self, branch: int, index: int, digest: bytes) -> tuple[bytes, bytes]:
            pubkey, der = good.sign(branch, index, digest)
            return pubkey, der[:-1] + bytes([der[-1] ^ 1])

    bench.cosigners[0] = Faulty(good.record, good.secret, good.attestation)
    bench.restart()
    with pytest.raises(WrongSignature):
        bench.service.sign(request)
    bench.cosigners[0] = good
    bench.restart()
    assert len(bench.signatures(request)) == 1


def test_fault_44_another_destination_than_approved_is_refused(bench: VaultBench) -> None:
    request = bench.request()
    draft = bench.draft()
    changed = msgspec.structs.replace(request, transaction=bench.world.vault_request(draft).transaction)
    assert bench.signatures(request)
    moved = replace(draft, outputs=[TxOut(20_000_000, p2wpkh_script_from_hash(b"\x66" * 20))])
    stolen = msgspec.structs.replace(request, transaction=bench.world.vault_request(moved).transaction)
    assert {"unknown-output", "unpaid-intent"} <= bench.codes(stolen)
    assert bench.codes(bench.world.evidence(changed)) == {"conflicting-version"}


def test_coins_that_do_not_exist_yet_are_no_different(bench: VaultBench) -> None:
    """A chain of two: the second spends the first one's change; both are judged by their own bytes."""
    draft = bench.draft()
    request = bench.world.vault_request(draft)
    bench.signatures(request)
    first = parse_psbt(base64.b64decode(request.transaction)).tx
    coin = replace(draft.coins[0], previous=first, vout=1, branch=1, index=0)
    assert coin.outpoint == Outpoint(TxId(first.txid.hex), 1)
    second = Draft([coin], [bench.world.order(1_000_000, expires_at=NOW + 60)])
    assert len(bench.signatures(bench.world.vault_request(second))) == 1
