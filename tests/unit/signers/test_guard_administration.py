"""A Safe that is a factory's admin changes its treasury: to the active hot key, by three calls, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chains.errors import InvalidValue
from chains.eth.abi import address_word, selector
from chains.eth.address import raw_address
from chains.eth.factory import ACCEPT, CANCEL, PROPOSE, TreasuryCall
from policies.bundle import Bundle, EvmKeyset
from policies.bundle.checks import check_consistent
from policies.intent import Intent, Kind, TreasuryChange
from policies.rules import Need, Operation, Rule, When
from signers.ports import SignRequest
from signers.wallets import EvmWallet, Wallet
from tests.fakes.evm_signing import (
    EVM_CHAIN,
    EVM_DESTINATION,
    FACTORY,
    USDX,
    SoftEvmKeys,
    named_address,
)
from tests.fakes.safe_signing import SAFE, VAULT, ExecutorBench, OwnerBench, SafeDraft, SafeWorld
from tests.fakes.signer import EvmBench
from tests.fakes.signing import ROLE, own_intent

RETIRED_FACTORY = named_address("the factory of the retired key")
MALLORY = named_address("mallory")
ASKED = Rule(
    id="factory",
    when=When(operations=(Operation.ADMINISTRATION,), actions=("propose-treasury", "accept-treasury")),
    route="ledger",
    approvals=Need(group=ROLE, count=1),
)
ASKED_TO_CANCEL = msgspec.structs.replace(
    ASKED, id="cancel", when=When(operations=(Operation.ADMINISTRATION,), actions=("cancel-treasury",))
)


class AdminWorld(SafeWorld):
    """The Safe is cold, and the admin of two factories: the active hot key's, and that of one before it."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        retired = SoftEvmKeys.make("eth-hot-0").record
        keysets = (
            self.keyset_entry(self.record, admin=VAULT),
            self.keyset_entry(
                retired,
                factory=RETIRED_FACTORY,
                payout=None,
                admin=VAULT,
                state="compromised",
            ),
        )
        fields: dict[str, Any] = {
            "keysets": keysets,
            "vault_tier": "cold",
            "requirements": (ASKED, ASKED_TO_CANCEL),
        }
        return super().bundle(version, **(fields | changes))

    @property
    def hot_address(self) -> str:
        return self.record.address


def asked(
    world: AdminWorld,
    step: str = "propose",
    *,
    treasury: str | None = "",
    approved: tuple[str, ...] = ("ada",),
    intent: dict[str, Any] | None = None,
    **tx: Any,
) -> SignRequest:
    """A request for a change of the retired factory's treasury; honest unless told otherwise."""
    named = world.hot_address if treasury == "" else treasury
    call = {
        "propose": PROPOSE + address_word(raw_address(named or MALLORY)),
        "accept": ACCEPT,
        "cancel": CANCEL,
    }[step]
    change = TreasuryChange(step=step, treasury=None if step == "cancel" else named)  # type: ignore[arg-type]
    fields: dict[str, Any] = {
        "destination": RETIRED_FACTORY,
        "tier": "cold",
        "change": change,
        **(intent or {}),
    }
    meant = world.safe_house_intent(Kind.ADMINISTRATION, **fields)
    plain = {"to": raw_address(RETIRED_FACTORY), "value_wei": 0, "data": call}
    request = world.safe_request(SafeDraft([], intents=[meant], tx={**plain, **tx}))
    approvals = tuple(world.approval(meant, name) for name in approved)
    evidence = msgspec.structs.replace(request.evidence, approvals=approvals, verdicts=())
    return msgspec.structs.replace(request, evidence=evidence)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[OwnerBench]:
    made = OwnerBench(tmp_path, AdminWorld.make())
    yield made
    made.journal.close()


@pytest.mark.parametrize("step", ["propose", "accept", "cancel"])
def test_an_owner_signs_each_step_of_a_change_to_the_active_hot_key(bench: OwnerBench, step: str) -> None:
    request = asked(bench.world, step)  # type: ignore[arg-type]
    first = bench.signatures(request)
    assert len(first) == 1
    assert bench.signatures(request) == first


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ({"treasury": MALLORY}, {"factory-treasury"}),
        ({"treasury": SAFE}, {"factory-treasury"}),
        ({"step": "accept", "treasury": MALLORY}, {"factory-treasury"}),
        ({"value_wei": 1}, {"value-with-call"}),
        ({"operation": 1}, {"delegate-call"}),
        ({"safe_tx_gas": 1}, {"refund-fields"}),
        ({"base_gas": 1}, {"refund-fields"}),
        ({"gas_price": 1}, {"refund-fields"}),
        ({"gas_token": raw_address(USDX)}, {"refund-fields"}),
        ({"refund_receiver": raw_address(MALLORY)}, {"refund-fields"}),
        ({"to": raw_address(MALLORY)}, {"contract-administration"}),
        ({"to": raw_address(FACTORY)}, {"bad-destination"}),
        ({"to": raw_address(SAFE)}, {"contract-administration"}),
        ({"to": raw_address(USDX)}, {"contract-administration"}),
        ({"data": b""}, {"unknown-call"}),
        ({"data": ACCEPT + b"\x00"}, {"contract-administration"}),
        ({"data": ACCEPT}, {"factory-call"}),
        ({"data": CANCEL}, {"factory-call"}),
        ({"data": PROPOSE + b"\x01" * 32}, {"contract-administration"}),
        (
            {"data": selector("proposeAdmin(address)") + address_word(raw_address(MALLORY))},
            {"contract-administration"},
        ),
        ({"data": selector("acceptAdmin()")}, {"contract-administration"}),
        ({"data": selector("cancelAdmin()")}, {"contract-administration"}),
        ({"data": selector("flush(bytes32[],address[])")}, {"unknown-call"}),
        (
            {"data": selector("transferOwnership(address)") + address_word(raw_address(MALLORY))},
            {"contract-administration"},
        ),
        ({"intent": {"destination": FACTORY}}, {"bad-destination"}),
        ({"intent": {"amount": "1"}}, {"house-intent"}),
        ({"intent": {"asset": "USDX"}}, {"house-intent"}),
        ({"intent": {"order": "00" * 32}}, {"house-intent"}),
        ({"intent": {"change": msgspec.UNSET}}, {"house-intent"}),
        ({"intent": {"change": TreasuryChange(step="accept", treasury=None)}}, {"factory-call"}),
        ({"intent": {"change": TreasuryChange(step="propose", treasury=MALLORY)}}, {"factory-call"}),
        ({"intent": {"tier": "warm"}}, {"wrong-keyset"}),
        ({"approved": ()}, {"approvals-missing"}),
    ],
    ids=str,
)
def test_whatever_else_is_asked_of_the_admin_is_refused(
    bench: OwnerBench, change: dict[str, Any], codes: set[str]
) -> None:
    found = bench.codes(asked(bench.world, **change))  # type: ignore[arg-type]
    assert codes <= found, found
    assert bench.service.status().signed == 0


def test_a_cancellation_names_nobody_and_all_others_name_the_treasury(bench: OwnerBench) -> None:
    world = bench.world
    named = {"change": TreasuryChange(step="cancel", treasury=world.hot_address)}  # type: ignore[attr-defined]
    assert bench.codes(asked(world, "cancel", intent=named)) == {"factory-call"}  # type: ignore[arg-type]
    nobody = {"change": TreasuryChange(step="accept", treasury=None)}
    assert bench.codes(asked(world, "accept", intent=nobody)) == {"factory-call"}  # type: ignore[arg-type]


def test_no_other_kind_of_intent_says_what_changes(tmp_path: Path) -> None:
    bench = OwnerBench(tmp_path)
    change = TreasuryChange(step="cancel", treasury=None)
    intent = bench.world.safe_house_intent(Kind.CANCELLATION, SAFE, change=change)
    draft = SafeDraft([], intents=[intent], tx={"to": raw_address(SAFE), "value_wei": 0})
    assert bench.codes(bench.world.safe_request(draft)) == {"house-intent"}
    bench.journal.close()


def test_where_nobody_is_asked_nothing_is_changed(bench: OwnerBench) -> None:
    bench.adopt(2, requirements=(msgspec.structs.replace(ASKED, approvals=None),))
    request = asked(bench.world, approved=(), intent={"policy_version": 2})  # type: ignore[arg-type]
    assert bench.codes(request) == {"no-requirement"}


def test_a_safe_that_is_no_admin_changes_nothing(bench: OwnerBench) -> None:
    world = bench.world
    keysets = tuple(
        msgspec.structs.replace(k, admin=None) for k in world.bundle().keysets if isinstance(k, EvmKeyset)
    )
    bench.adopt(2, keysets=keysets)
    request = asked(world, intent={"policy_version": 2})  # type: ignore[arg-type]
    assert bench.codes(request) == {"contract-administration"}


def test_the_key_of_another_state_or_tier_never_becomes_a_treasury(bench: OwnerBench) -> None:
    world = bench.world
    old = world.bundle().keysets[0]
    bench.adopt(2, keysets=(msgspec.structs.replace(old, state="deactivated"),))
    request = asked(world, to=raw_address(FACTORY), intent={"policy_version": 2, "destination": FACTORY})  # type: ignore[arg-type]
    assert bench.codes(request) == {"factory-treasury"}


def test_the_gas_payer_sends_a_change_of_a_treasury_and_no_other_call_of_the_factory(tmp_path: Path) -> None:
    bench = ExecutorBench(tmp_path, AdminWorld.make())
    world = bench.world
    plain: dict[str, Any] = {"to": raw_address(RETIRED_FACTORY), "value_wei": 0}
    good = (
        PROPOSE + address_word(raw_address(world.record.address)),
        ACCEPT,
        CANCEL,
    )
    for nonce, data in enumerate(good):
        message = bench.message(**plain, data=data, nonce=nonce)
        assert bench.signatures(bench.request(message, nonce=nonce))
    bad: tuple[tuple[dict[str, Any], str], ...] = (
        ({**plain, "data": PROPOSE + address_word(raw_address(MALLORY))}, "factory-treasury"),
        (
            {**plain, "data": selector("proposeAdmin(address)") + address_word(raw_address(MALLORY))},
            "contract-administration",
        ),
        ({**plain, "data": ACCEPT, "value_wei": 1}, "value-with-call"),
        ({**plain, "data": ACCEPT, "operation": 1}, "delegate-call"),
        ({**plain, "data": ACCEPT, "base_gas": 1}, "refund-fields"),
        ({**plain, "to": raw_address(MALLORY), "data": ACCEPT}, "contract-administration"),
    )
    for fields, code in bad:
        assert code in bench.codes(bench.request(bench.message(**fields, nonce=9), nonce=3))
    bench.journal.close()


def test_only_a_cold_safe_of_the_chain_may_be_named_as_an_admin() -> None:
    world = AdminWorld.make()
    check_consistent(world.bundle())
    for change in ({"vault_tier": "warm"}, {"vault_id": "eth-cold-9"}, {"vaults": ()}):
        with pytest.raises(InvalidValue, match="factory is no cold Safe"):
            check_consistent(world.bundle(**change))


def test_each_call_has_one_form() -> None:
    treasury = raw_address(EVM_DESTINATION)
    for call in (TreasuryCall("propose", treasury), TreasuryCall("accept"), TreasuryCall("cancel")):
        raw = call.encode()
        assert TreasuryCall.decode(raw) == call
        for at in range(len(raw)):
            flipped = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
            try:
                found = TreasuryCall.decode(flipped)
            except InvalidValue:
                continue
            assert found != call
            assert at >= 16, "only another treasury is read as a call"
        for other in (raw + b"\x00", raw[:-1]):
            with pytest.raises(InvalidValue):
                TreasuryCall.decode(other)
    for bad in (
        {"step": "propose"},
        {"step": "accept", "treasury": treasury},
        {"step": "propose", "treasury": bytes(20)},
    ):
        with pytest.raises(InvalidValue):
            TreasuryCall(**bad)


def test_an_intent_of_another_kind_has_the_digest_it_had() -> None:
    plain = AdminWorld.make().safe_house_intent(Kind.ROTATION, SAFE)
    assert b"change" not in plain.canonical()
    assert Intent.from_canonical(plain.canonical()) == plain


class SuccessorBench(EvmBench):
    """A signer that holds a hot key and the one that follows it."""

    def __init__(self, directory: Path) -> None:
        self.new = SoftEvmKeys.make("eth-hot-2")
        super().__init__(directory)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {**super().wallets(), "eth-hot-2": EvmWallet(self.new)}

    def retire(self, state: str) -> None:
        """The first key gets a state, and the other one is active, with a factory of its own."""
        world = self.world
        old = world.keyset_entry(world.record, state=state)
        new = world.keyset_entry(self.new.record, factory=RETIRED_FACTORY, payout=None)
        self.adopt(2, keysets=(old, new))

    def sweep(self, index: int, to: str = FACTORY) -> SignRequest:
        """The active key flushes a forwarder of a factory."""
        world = self.world
        intent = own_intent(
            self.new.record.id,
            Kind.SWEEP,
            chain=EVM_CHAIN,
            asset="ETH",
            destination=self.new.record.address,
            policy_version=2,
        )
        draft = world.sweep([index], to=raw_address(to), keyset=self.new.record.id)
        return world.request(replace(draft, intents=[intent]))


@pytest.fixture
def successor(tmp_path: Path) -> Iterator[SuccessorBench]:
    made = SuccessorBench(tmp_path)
    made.service.attest(made.world.attestation(0))
    yield made
    made.journal.close()


@pytest.mark.parametrize("state", ["deactivated", "compromised"])
def test_the_active_key_flushes_forwarders_of_the_one_before_it_that_were_attested_for_that_one(
    successor: SuccessorBench, state: str
) -> None:
    successor.retire(state)
    assert successor.signatures(successor.sweep(0))
    assert successor.codes(successor.sweep(1)) == {"foreign-forwarder"}
    assert successor.codes(successor.sweep(0, RETIRED_FACTORY)) == {"foreign-forwarder"}, "not the new one's"
    assert successor.codes(successor.sweep(0, MALLORY)) == {"unlisted-contract"}


@pytest.mark.parametrize("state", ["suspended", "destroyed", "pre-active"])
def test_forwarders_of_a_key_in_another_state_are_left_alone(successor: SuccessorBench, state: str) -> None:
    successor.retire(state)
    assert successor.codes(successor.sweep(0)) == {"unlisted-contract"}
