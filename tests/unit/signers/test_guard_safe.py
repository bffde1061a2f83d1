"""What one owner of a Safe signs: one payment of the vault a transaction, or a rotation, and nothing twice."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from safe_eth.safe.safe_signature import SafeSignature, SafeSignatureType
from safe_eth.safe.safe_tx import SafeTx as TheirSafeTx

from chains.eth.address import checksummed, raw_address
from chains.eth.erc20 import transfer_calldata
from chains.eth.safe import SafeMessage, owner_of
from policies.bundle import EvmVault
from policies.intent import Kind
from policies.keys import SigningKey
from signers.errors import SealBroken, SignerStopped, Withheld, WrongSignature
from signers.keys.keyset import SafeOwnerRecord
from signers.keytest import selfcheck
from signers.ports import AttestRequest, Refused, SignRequest
from signers.wallets import EvmWallet, GasPayerWallet, SafeWallet, evm_wallet
from tests.fakes.evm_signing import (
    ETHER,
    EVM_CHAIN,
    EVM_CHAIN_ID,
    EVM_DESTINATION,
    OTHER_EVM_CHAIN_ID,
    USDX,
    SoftEvmKeys,
    named_address,
)
from tests.fakes.safe_signing import SAFE, VAULT, OwnerBench, SafeDraft
from tests.fakes.signing import carrier_of

NEW_SAFE = named_address("the safe that follows")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OwnerBench]:
    made = OwnerBench(tmp_path)
    yield made
    made.journal.close()


def signature(bench: OwnerBench, request: SignRequest) -> bytes:
    """The one signature, checked to be the owner's by safe-eth-py."""
    (one,) = bench.signatures(request)
    raw = bytes.fromhex(one.signature)
    message = SafeMessage.decode(base64.b64decode(request.transaction))
    (theirs,) = SafeSignature.parse_signature(raw, message.signing_hash)
    assert theirs.signature_type is SafeSignatureType.EOA
    assert theirs.owner == bench.owners[0].record.address
    assert (one.index, one.pubkey) == (0, bench.owners[0].pubkey.hex())
    return raw


# The honest ways.


@pytest.mark.parametrize("asset", ["ETH", "USDX"])
def test_a_payment_is_signed_by_the_owner_as_a_safe_wants_it(bench: OwnerBench, asset: str) -> None:
    request = bench.request(asset=asset)
    message = SafeMessage.decode(base64.b64decode(request.transaction))
    raw = signature(bench, request)
    assert raw[64] in (27, 28)
    assert checksummed(owner_of(message.signing_hash, raw)) == bench.owners[0].record.address


def test_the_same_transaction_gets_the_same_signature_for_ever(bench: OwnerBench) -> None:
    request = bench.request()
    first = bench.signatures(request)
    assert bench.signatures(request) == first
    bench.restart()
    bench.time += 2 * 3600  # the order has expired, and so have approval and verdict
    assert bench.signatures(request) == first
    assert bench.service.status().signed == 1


def test_what_was_signed_for_a_safe_is_given_again_when_the_bundle_has_dropped_it(bench: OwnerBench) -> None:
    request = bench.request()
    first = bench.signatures(request)
    bench.adopt(2, vaults=())
    assert bench.signatures(request) == first
    assert bench.codes(bench.request(nonce=1)) == {"not-in-bundle"}


def test_a_later_nonce_may_be_signed_before_an_earlier_one(bench: OwnerBench) -> None:
    signature(bench, bench.request(nonce=3))
    signature(bench, bench.request(nonce=1))


# Sign once.


def test_a_payment_is_signed_for_one_nonce_only(bench: OwnerBench) -> None:
    draft = bench.world.safe_draft()
    bench.signatures(bench.world.safe_request(draft))
    assert bench.codes(bench.world.safe_request(replace(draft, nonce=1))) == {"conflicting-version"}


def test_two_payments_at_one_nonce_exclude_each_other_so_both_may_be_signed(bench: OwnerBench) -> None:
    signature(bench, bench.request(ETHER, nonce=4))
    signature(bench, bench.request(2 * ETHER, nonce=4))


def test_one_transaction_does_not_serve_two_payments_one_after_the_other(bench: OwnerBench) -> None:
    bench.signatures(bench.request())
    assert bench.codes(bench.request()) == {"transaction-reused"}


def test_a_transaction_does_not_pay_two_intents_at_once(bench: OwnerBench) -> None:
    world = bench.world
    twins = world.safe_draft(ETHER, ETHER)
    assert bench.codes(world.safe_request(twins)) == {"unpaid-intent"}
    sum_of_both = replace(twins, tx={"value_wei": 2 * ETHER})
    assert bench.codes(world.safe_request(sum_of_both)) == {"unknown-output", "unpaid-intent"}


def test_a_nonce_far_beyond_the_highest_signed_is_refused(bench: OwnerBench) -> None:
    assert bench.codes(bench.request(nonce=256)) == {"nonce"}
    signature(bench, bench.request(nonce=255))
    bench.restart()
    assert bench.codes(bench.request(nonce=512)) == {"nonce"}
    signature(bench, bench.request(nonce=511))
    assert bench.codes(bench.request(nonce=2**256 - 1)) == {"nonce"}


# The tier's rules hold.


def test_without_approval_or_verdict_nothing_is_signed(bench: OwnerBench) -> None:
    request = bench.request()
    world = bench.world
    assert bench.codes(world.evidence(request, ())) == {"approvals-missing"}
    assert bench.codes(world.evidence(request, ("ada",), verdicts=())) == {"no-verdict"}
    stranger = SigningKey.generate()
    carrier = carrier_of(request)
    forged = tuple(world.verdict(intent, key=stranger, carrier=carrier) for intent in request.intents)
    assert bench.codes(world.evidence(request, ("ada",), verdicts=forged)) == {"verdict-signature"}


def test_caps_of_the_tier_hold_for_the_owner_by_itself(bench: OwnerBench) -> None:
    assert bench.codes(bench.request(100 * ETHER)) == {"payment-cap"}
    for nonce in range(10):
        bench.signatures(bench.request(99 * ETHER, nonce=nonce))
    assert bench.codes(bench.request(11 * ETHER, nonce=10)) == {"window-cap"}


def test_an_intent_of_the_hot_tier_is_none_of_the_safe(bench: OwnerBench) -> None:
    draft = bench.world.safe_draft()
    for change in ({"tier": "hot"}, {"tier": "cold"}, {"keyset": "eth-hot"}):
        draft.intents = [bench.world.safe_intent(draft.orders[0], **change)]
        assert "wrong-keyset" in bench.codes(bench.world.safe_request(draft))


@pytest.mark.parametrize("kind", [Kind.SWEEP, Kind.NONCE_FILL, Kind.EXECUTION])
def test_a_safe_signs_no_kind_that_is_a_keys(bench: OwnerBench, kind: Kind) -> None:
    intent = bench.world.safe_house_intent(kind, SAFE)
    draft = SafeDraft([], intents=[intent], tx={"to": raw_address(NEW_SAFE), "value_wei": 0})
    assert "kind-not-supported" in bench.codes(bench.world.safe_request(draft))


def test_the_nonce_of_an_execution_beside_the_bytes_is_refused(bench: OwnerBench) -> None:
    request = msgspec.structs.replace(bench.request(), safe_nonce=0)
    assert bench.codes(request) == {"malformed-request"}


# Rotation.


def rotation(
    bench: OwnerBench,
    to: str = NEW_SAFE,
    *,
    destination: str = NEW_SAFE,
    token: str | None = None,
    **changes: Any,
) -> SafeDraft:
    """What moves 7 ETH, or some of a token, to another address."""
    intent = bench.world.safe_house_intent(Kind.ROTATION, destination, policy_version=2)
    tx: dict[str, Any] = {"to": raw_address(to), "value_wei": 7 * ETHER, "data": b""}
    if token is not None:
        call = transfer_calldata(raw_address(to), 10**12)
        tx = {"to": raw_address(token), "value_wei": 0, "data": call}
    return SafeDraft([], intents=[intent], tx=tx, **changes)


def followed(bench: OwnerBench, state: str) -> None:
    """Adopt a bundle in which another Safe has followed this one."""
    new = bench.world.vault_entry(id="eth-warm-2", address=NEW_SAFE)
    bench.adopt(2, vaults=(bench.world.vault_entry(state=state), new))


@pytest.mark.parametrize("state", ["deactivated", "compromised"])
def test_everything_goes_to_the_safe_that_follows_and_nowhere_else(bench: OwnerBench, state: str) -> None:
    followed(bench, state)
    world = bench.world
    signature(bench, world.safe_request(rotation(bench)))
    signature(bench, world.safe_request(rotation(bench, token=USDX, nonce=1)))
    for bad in (
        rotation(bench, EVM_DESTINATION, nonce=2),
        rotation(bench, world.record.address, nonce=2),
        rotation(bench, EVM_DESTINATION, token=USDX, nonce=2),
    ):
        assert bench.codes(world.safe_request(bad)) == {"rotation-target"}
    elsewhere = rotation(bench, destination=EVM_DESTINATION, nonce=2)
    assert bench.codes(world.safe_request(elsewhere)) == {"bad-destination"}
    unlisted = rotation(bench, token=named_address("unlisted"), nonce=2)
    assert bench.codes(world.safe_request(unlisted)) == {"unlisted-contract"}
    pays = bench.adopted(2, world.safe_draft(nonce=2))
    assert bench.codes(world.safe_request(pays)) == {"key-state"}


def test_a_rotation_to_nobody_is_refused(bench: OwnerBench) -> None:
    bench.adopt(2, vault_state="compromised")
    assert bench.codes(bench.world.safe_request(rotation(bench))) == {"rotation-target"}


@pytest.mark.parametrize("state", ["active", "suspended", "pre-active", "destroyed"])
def test_no_rotation_in_other_states(bench: OwnerBench, state: str) -> None:
    bench.adopt(2, vault_state=state)
    draft = rotation(bench, EVM_DESTINATION)
    assert "key-state" in bench.codes(bench.world.safe_request(draft))


def test_a_compromised_owner_does_not_give_out_again_what_it_signed(bench: OwnerBench) -> None:
    request = bench.request()
    bench.signatures(request)
    followed(bench, "compromised")
    with pytest.raises(Withheld):
        bench.service.sign(request)


# Keys and addresses.


def test_the_hash_that_signers_know_at_their_start_is_safe_eth_pys() -> None:
    safe_eth_py: Any = TheirSafeTx
    fields = (checksummed(b"\x11" * 20), 10**18, b"\x01\x02\x03", 0, 0, 0, 0, None, None)
    theirs = safe_eth_py(
        None, checksummed(b"\x5a" * 20), *fields, safe_nonce=7, safe_version="1.4.1", chain_id=1
    )
    assert theirs.safe_tx_hash.hex().removeprefix("0x") == selfcheck._SAFE_HASH
    selfcheck.check_libraries()


def test_a_key_made_for_a_safe_pays_nothing_and_one_that_pays_owns_no_safe(bench: OwnerBench) -> None:
    owner, hot = bench.owners[0], bench.hot[0]
    assert isinstance(evm_wallet(owner), SafeWallet)
    assert isinstance(evm_wallet(hot), EvmWallet)
    gas = bench.world.gas
    assert isinstance(evm_wallet(gas), GasPayerWallet)
    for wallet in (EvmWallet, SafeWallet):
        with pytest.raises(SealBroken, match="gas-payer"):
            wallet(gas)
    for keys in (owner, hot):
        with pytest.raises(SealBroken, match="not to pay gas"):
            GasPayerWallet(keys)
    with pytest.raises(SealBroken, match="not made to pay, but as safe-owner"):
        EvmWallet(owner)
    with pytest.raises(SealBroken, match="made as evm-key, not for a Safe"):
        SafeWallet(hot)


def test_a_transaction_of_its_own_address_is_nothing_an_owner_signs(bench: OwnerBench) -> None:
    """The RLP of a payment, to the key that is an owner: no Safe's transaction."""
    plain = bench.world.request(bench.world.fill())
    request = msgspec.structs.replace(bench.request(), transaction=plain.transaction)
    assert bench.codes(request) == {"malformed-transaction"}


def test_an_owner_attests_no_address(bench: OwnerBench) -> None:
    request = AttestRequest(chain=EVM_CHAIN, keyset=VAULT, customer=None, asset="ETH", branch=1, index=0)
    with pytest.raises(Refused):
        bench.service.attest(request)


def test_the_bundle_must_name_this_owner_on_this_network(bench: OwnerBench) -> None:
    vault: EvmVault = bench.world.vault_entry()
    mine = bench.owners[0].record
    without = tuple(owner for owner in vault.owners if owner.address != mine.address)
    request = bench.request()
    bench.adopt(2, vault_owners=without, vault_threshold=2)
    assert bench.codes(request) == {"wrong-keyset"}
    elsewhere = SoftEvmKeys.of(SafeOwnerRecord, VAULT, OTHER_EVM_CHAIN_ID)
    bench.owners[0] = elsewhere
    bench.restart()
    bench.adopt(3)
    assert bench.codes(request) == {"wrong-network"}


# What comes back from the key, and from the journal.


class _Wrong(SoftEvmKeys[SafeOwnerRecord]):
    """A backend that signs another digest (FAULTS row 31)."""

    def signature(self, digest: bytes) -> bytes:
        return super().signature(bytes([digest[0] ^ 1]) + digest[1:])


def test_fault_31_a_wrong_signature_of_an_owner_is_caught_before_release(bench: OwnerBench) -> None:
    good = bench.owners[0]
    bench.owners[0] = _Wrong(good.record, good.attestation, good.pubkey, good.secret)
    bench.restart()
    request = bench.request()
    with pytest.raises(WrongSignature):
        bench.service.sign(request)
    bench.owners[0] = good
    bench.restart()
    signature(bench, request)
    assert bench.service.status().signed == 1


def test_a_damaged_signature_in_the_journal_stops_the_owner(bench: OwnerBench) -> None:
    request = bench.request()
    (one,) = bench.signatures(request)
    content = SafeMessage.decode(base64.b64decode(request.transaction)).content
    # y parity instead of v: the same signature, in a form that no Safe takes.
    other = one.signature[:128] + f"{int(one.signature[128:], 16) - 27:02x}"

    class Kept:
        before = other

        def keep(self, text: str) -> str:
            raise AssertionError("nothing new is kept")

    wallet = SafeWallet(bench.owners[0])
    with pytest.raises(SignerStopped, match=content):
        wallet.sign(wallet.rules.read(request), Kept())


def test_chain_ids_of_record_and_bytes_are_both_the_networks(bench: OwnerBench) -> None:
    assert bench.owners[0].record.chain_id == EVM_CHAIN_ID
    assert bench.codes(bench.request(chain_id=1)) == {"wrong-chain-id"}
