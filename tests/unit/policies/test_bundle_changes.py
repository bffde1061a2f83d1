"""The bundle that ends a key-set, vault or gas payer: what it may say, and that people see all that it changes."""

from __future__ import annotations

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.bundle import BitcoinKeyset, Bundle, KeyState
from policies.bundle.changes import retired, successor_of
from tests.fakes.evm_signing import EVM_CHAIN, named_address
from tests.fakes.safe_signing import SafeWorld
from tests.fakes.signing import DAY, NOW, SoftKeys, World

OLD = World(SoftKeys.make().record)
NEW = World(SoftKeys.make(b"\x01" * 32, "btc-hot-2").record).keyset_entry()
PRESENT = OLD.bundle()


def ended(state: KeyState = "compromised") -> Bundle:
    return retired(PRESENT, "btc-hot", state, NEW, now=NOW, lasts=DAY)


def test_the_old_one_gets_its_state_and_the_new_one_is_active_from_now_on_under_the_same_breaker() -> None:
    draft = ended()
    assert draft.version == PRESENT.version + 1
    assert (draft.issued_at, draft.expires_at) == (NOW, NOW + DAY)
    assert draft.keyset("btc-hot").state == "compromised"
    assert draft.keyset_for("bitcoin-regtest", "hot") == msgspec.structs.replace(NEW, active_from=NOW)
    assert draft.breaker_of("btc-hot-2") == draft.breaker_of("btc-hot")


def test_a_key_set_can_end_before_another_follows_it() -> None:
    draft = retired(PRESENT, "btc-hot", "suspended", None, now=NOW, lasts=DAY)
    with pytest.raises(InvalidValue, match="no active hot key-set"):
        draft.keyset_for("bitcoin-regtest", "hot")
    again = retired(draft, "btc-hot", "compromised", NEW, now=NOW + 1, lasts=DAY)
    assert again.version == PRESENT.version + 2
    assert again.keyset_for("bitcoin-regtest", "hot").id == "btc-hot-2"


@pytest.mark.parametrize("state", ["active", "pre-active"])
def test_nothing_becomes_usable_by_it(state: KeyState) -> None:
    with pytest.raises(InvalidValue, match="does not become"):
        ended(state)


def test_a_successor_is_of_the_same_chain_and_tier() -> None:
    assert isinstance(NEW, BitcoinKeyset)
    for other in (msgspec.structs.replace(NEW, tier="warm"), msgspec.structs.replace(NEW, chain="other")):
        with pytest.raises(InvalidValue, match="cannot follow"):
            retired(PRESENT, "btc-hot", "compromised", other, now=NOW, lasts=DAY)
    with pytest.raises(InvalidValue, match="no key-set, vault or gas payer"):
        retired(PRESENT, "btc-warm", "compromised", NEW, now=NOW, lasts=DAY)


def test_a_vault_and_a_gas_payer_end_like_a_key_set() -> None:
    world = SafeWorld.make()
    present = world.bundle()
    safe = world.vault_entry(id="eth-warm-2", address=named_address("the safe that follows"))
    draft = retired(present, "eth-warm", "compromised", safe, now=NOW, lasts=DAY)
    assert [(each.id, each.state, each.active_from) for each in draft.vaults] == [
        ("eth-warm", "compromised", 0),
        ("eth-warm-2", "active", NOW),
    ]
    payer = world.gas_payer_entry(id="eth-gas-2", address=named_address("the gas payer that follows"))
    draft = retired(present, "eth-gas", "compromised", payer, now=NOW, lasts=DAY)
    assert draft.gas_payer_for(EVM_CHAIN).id == "eth-gas-2"
    assert draft.breaker_of("eth-gas-2") == draft.breaker_of("eth-gas")
    assert draft.wallet("eth-gas").state == "compromised"
    for old, other in (("eth-warm", payer), ("eth-gas", safe), ("eth-hot", payer)):
        with pytest.raises(InvalidValue, match="it cannot follow"):
            retired(present, old, "compromised", other, now=NOW, lasts=DAY)


def test_the_next_bundle_says_the_same_for_longer() -> None:
    draft = successor_of(PRESENT, now=NOW, lasts=DAY, in_force_from=NOW + 60)
    assert (draft.version, draft.expires_at, draft.in_force_from) == (
        PRESENT.version + 1,
        NOW + DAY,
        NOW + 60,
    )
    assert (
        msgspec.structs.replace(
            draft,
            version=PRESENT.version,
            issued_at=PRESENT.issued_at,
            expires_at=PRESENT.expires_at,
            in_force_from=PRESENT.in_force_from,
        )
        == PRESENT
    )
