"""An order names no key-set: two signers that may both pay it would both pay it, each within the tier's cap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from chains.errors import InvalidValue
from policies.bundle import Breaker, Bundle, read_bundle
from policies.bundle.checks import check_consistent
from policies.intent import Order
from signers.btc import BitcoinRules
from signers.guard import examine
from signers.policy import judge
from signers.ports import SignRequest
from signers.wallets import BitcoinWallet, Wallet
from tests.fakes.signer import Bench
from tests.fakes.signing import NOW, Draft, SoftKeys, World
from tests.fakes.views import NothingSigned


def test_a_bundle_with_two_keysets_that_pay_from_one_tier_of_a_chain_is_not_believed() -> None:
    world = World(SoftKeys.make().record)
    other = SoftKeys.make(bytes([1]) * 32, "btc-hot-2").record
    second = world.keyset_entry(
        id=other.id, account=other.account, origin=other.origin, attestation_key=other.attestation_key
    )
    good = world.bundle()
    assert read_bundle(world.signed(good).encode(), world.root, now=world.now) == good
    both = msgspec.structs.replace(world.signed(good), bundle=world.bundle(keysets=(*good.keysets, second)))
    signed = msgspec.structs.replace(
        both,
        signatures=tuple(
            msgspec.structs.replace(entry, signature=world.officers[entry.key].sign(both.bundle))
            for entry in both.signatures
        ),
    )
    with pytest.raises(InvalidValue, match="one chain and tier"):
        read_bundle(signed.encode(), world.root, now=world.now)
    warm = msgspec.structs.replace(second, tier="warm")
    read_bundle(world.signed(world.bundle(keysets=(*good.keysets, warm))).encode(), world.root, now=world.now)


# Two signers, one after the other: neither journal knows what the other has signed.

OLD, NEW = SoftKeys.make(), SoftKeys.make(bytes([1]) * 32, "btc-hot-2")
HOUSE = World(OLD.record)
FOLLOWER = World(
    NEW.record,
    officers=HOUSE.officers,
    caller=HOUSE.caller,
    stranger=HOUSE.stranger,
    verifier=HOUSE.verifier,
    approvers=HOUSE.approvers,
)
LONGEST = 3_600
SIGN_BEFORE = 2 * LONGEST


def objections(world: World, keys: SoftKeys, order: Order, bundle: Bundle, now: int) -> set[str]:
    """What one of the signers has against paying an order under a bundle, its journal aside."""
    entry = bundle.keyset(keys.record.id)
    intent = world.intent(order, policy_version=bundle.version, tier=entry.tier)
    request = world.request(Draft([world.coin(2_000_000_000)], [order], intents=[intent], fee_sats=2_000))
    if entry.tier != "hot":
        soon: dict[str, Any] = {"expires_at": now + 60}
        request = world.evidence(
            request,
            approvals=tuple(world.approval(intent, name, **soon) for name in ("ada", "ben")),
            verdicts=(world.verdict(intent, **soon),),
        )
    rules = BitcoinRules(keys.record, keys.account)
    examination = examine(request, bundle, rules, held={keys.record.id}, now=now)
    assert examination.examined is not None
    judged = judge(examination.examined, NothingSigned(), now=now)
    return {reason.code for reason in (*examination.reasons, *judged.reasons)}


def of_both(version: int, active_from: int, **old: Any) -> Bundle:
    """Both key-sets, each under a breaker of its own as each has a signer of its own."""
    breaker: dict[str, Any] = {"value_cap": str(10**30), "window_seconds": 3600}
    return HOUSE.bundle(
        version,
        keysets=(HOUSE.keyset_entry(**old), FOLLOWER.keyset_entry(active_from=active_from)),
        breakers=tuple(Breaker(id=k, keysets=(k,), **breaker) for k in (OLD.record.id, NEW.record.id)),
        longest_order_seconds=LONGEST,
    )


@given(
    expires=st.integers(-SIGN_BEFORE, 2 * LONGEST),
    early=st.integers(1, SIGN_BEFORE),
    late=st.integers(0, 2 * LONGEST),
)
def test_no_order_is_good_enough_for_a_key_set_and_for_the_one_that_follows_it(
    expires: int, early: int, late: int
) -> None:
    """Whenever the old one was asked before the switch, and whenever the new one is asked after it."""
    order = HOUSE.order(100_000, expires_at=NOW + expires)
    before = HOUSE.bundle(1, longest_order_seconds=LONGEST, issued_at=NOW - SIGN_BEFORE)
    after = of_both(2, NOW, state="deactivated")
    first = objections(HOUSE, OLD, order, before, NOW - early)
    second = objections(FOLLOWER, NEW, order, after, NOW + late)
    event(f"old: {sorted(first)}, new: {sorted(second)}")
    assert first or second
    assert first <= {"order-expired", "order-too-long"}
    assert second <= {"order-expired", "order-too-long", "order-too-old"}


def test_both_do_pay_what_is_of_their_time() -> None:
    order = HOUSE.order(100_000, expires_at=NOW + 60)
    assert objections(HOUSE, OLD, order, HOUSE.bundle(1, longest_order_seconds=LONGEST), NOW - 1) == set()
    order = HOUSE.order(100_000, expires_at=NOW + LONGEST + 60)
    assert objections(FOLLOWER, NEW, order, of_both(2, NOW, state="deactivated"), NOW + 60) == set()


def test_a_key_set_that_is_active_again_says_since_when() -> None:
    """What the one after it has paid meanwhile is in another journal; with its first date it would pay that again."""
    order = HOUSE.order(100_000, expires_at=NOW + 2 * LONGEST)
    assert objections(FOLLOWER, NEW, order, of_both(2, NOW, state="deactivated"), NOW + LONGEST + 60) == set()

    def back(active_from: int) -> Bundle:
        both = of_both(3, NOW)
        old, new = both.keysets
        old = msgspec.structs.replace(old, active_from=active_from)
        return msgspec.structs.replace(both, keysets=(old, msgspec.structs.replace(new, state="deactivated")))

    for active_from in (0, NOW - 1):
        with pytest.raises(InvalidValue, match="active again"):
            check_consistent(back(active_from))
    again = back(NOW + LONGEST + 120)
    check_consistent(again)
    assert objections(HOUSE, OLD, order, again, NOW + LONGEST + 180) == {"order-too-old"}


class Desk(Bench[World]):
    """One of both signers, with a journal of its own."""

    def __init__(self, directory: Path, world: World, keys: SoftKeys) -> None:
        directory.mkdir()
        self.keys = keys
        super().__init__(directory, world)

    def wallets(self) -> Mapping[str, Wallet[Any]]:
        return {self.keys.record.id: BitcoinWallet(self.keys)}

    def hand(self, bundle: Bundle) -> None:
        self.desk.deliver(self.world.signed(bundle))

    def payment(self, order: Order) -> SignRequest:
        intent = self.world.intent(order, policy_version=self.trust.present.version)
        return self.world.request(Draft([self.world.coin(2_000_000_000)], [order], intents=[intent]))


def test_the_time_that_a_bundle_takes_from_its_draft_to_the_signers_is_not_the_thiefs(tmp_path: Path) -> None:
    """Until it has heard of it, the old keys' signer takes new orders; what counts is when the next one has heard."""
    old, new = Desk(tmp_path / "old", HOUSE, OLD), Desk(tmp_path / "new", FOLLOWER, NEW)
    before = of_both(2, 0)
    waiting = msgspec.structs.replace(before.keysets[1], state="pre-active")
    before = msgspec.structs.replace(before, keysets=(before.keysets[0], waiting))
    after = of_both(3, NOW, state="deactivated")
    for signer in (old, new):
        signer.hand(before)
        signer.time += 1_800
    order = HOUSE.order(100_000, expires_at=old.time + LONGEST)
    assert old.signatures(old.payment(order))
    for signer in (old, new):
        signer.time += 60
        signer.hand(after)
    assert old.codes(old.payment(order)) & {"key-state"}
    assert new.codes(new.payment(order)) == {"order-too-old"}
    new.restart()
    assert new.codes(new.payment(order)) == {"order-too-old"}
    new.hand(msgspec.structs.replace(after, version=4))
    new.time += 120
    later = HOUSE.order(100_000, expires_at=new.time + LONGEST)
    assert new.signatures(new.payment(later))
    for signer in (old, new):
        signer.journal.close()


@given(units=st.integers(1, 10**9 - 1))
def test_no_order_is_good_enough_for_two_tiers_whose_caps_meet(units: int) -> None:
    hot = HOUSE.bundle().caps[0]
    warm = msgspec.structs.replace(
        hot, tier="warm", payment_from=hot.payment_below, payment_below=str(10**9), window_cap=str(10**12)
    )
    bundle = HOUSE.bundle(
        keysets=(HOUSE.keyset_entry(), FOLLOWER.keyset_entry(tier="warm")),
        caps=(hot, warm),
        breakers=(Breaker(id="b", keysets=(OLD.record.id,), value_cap=str(10**30), window_seconds=60),),
        requirements=(HOUSE.requirement(),),
    )
    order = HOUSE.order(units)
    found = [
        objections(world, keys, order, bundle, NOW) - {"dust"}
        for world, keys in ((HOUSE, OLD), (FOLLOWER, NEW))
    ]
    assert sorted(map(sorted, found)) in ([[], ["payment-cap"]], [[], ["payment-floor"]])
