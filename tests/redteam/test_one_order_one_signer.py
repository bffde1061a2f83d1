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
from signers.guard.btc import BitcoinRules
from signers.guard.guard import examine
from signers.guard.policy import judge
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

    def publish(self, bundle: Bundle) -> None:
        super().publish(msgspec.structs.replace(bundle, longest_order_seconds=LONGEST))

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


def waits(bundle: Bundle, **changes: Any) -> Bundle:
    """The bundle in which the follower's keys are not active yet."""
    waiting = msgspec.structs.replace(bundle.keysets[1], state="pre-active")
    return msgspec.structs.replace(bundle, keysets=(bundle.keysets[0], waiting), **changes)


def test_a_shorter_life_of_orders_does_not_make_old_ones_young_for_the_keys_that_follow(
    tmp_path: Path,
) -> None:
    """The old keys paid it while orders could last a week; an hour after the handover only new ones seem possible."""
    old, new = Desk(tmp_path / "old", HOUSE, OLD), Desk(tmp_path / "new", FOLLOWER, NEW)
    long = 24 * LONGEST
    for signer in (old, new):
        signer.hand(waits(of_both(2, 0), longest_order_seconds=long))
    order = HOUSE.order(100_000, expires_at=old.time + long)
    assert old.signatures(old.payment(order))
    after = msgspec.structs.replace(of_both(3, NOW, state="deactivated"), longest_order_seconds=long)
    new.hand(after)
    new.time += 60
    new.hand(msgspec.structs.replace(after, version=4, longest_order_seconds=LONGEST))
    for _ in range(23):
        new.time += LONGEST
        new.timekeeper.tick()
    assert new.codes(new.payment(order)) == {"order-too-old"}
    new.restart()
    assert new.codes(new.payment(order)) == {"order-too-old"}
    new.time += LONGEST
    later = HOUSE.order(100_000, expires_at=new.time + LONGEST)
    assert new.signatures(new.payment(later))
    for signer in (old, new):
        signer.journal.close()


def of_two_tiers(version: int, boundary: int) -> Bundle:
    """The old keys are the hot tier, the follower's the warm one; each has a signer of its own."""
    hot = HOUSE.bundle().caps[0]
    hot = msgspec.structs.replace(hot, payment_below=str(boundary))
    warm = msgspec.structs.replace(
        hot, tier="warm", payment_from=str(boundary), payment_below=str(10**9), window_cap=str(10**12)
    )
    return HOUSE.bundle(
        version,
        keysets=(HOUSE.keyset_entry(), FOLLOWER.keyset_entry(tier="warm")),
        caps=(hot, warm),
        breakers=(Breaker(id="b", keysets=(OLD.record.id,), value_cap=str(10**30), window_seconds=60),),
        requirements=(HOUSE.requirement(),),
        longest_order_seconds=LONGEST,
    )


def warm_payment(warm: Desk, order: Order) -> SignRequest:
    intent = FOLLOWER.intent(order, policy_version=warm.trust.present.version, tier="warm")
    request = FOLLOWER.request(Draft([FOLLOWER.coin(2_000_000_000)], [order], intents=[intent]))
    return FOLLOWER.evidence(
        request,
        approvals=tuple(FOLLOWER.approval(intent, n, expires_at=warm.time + 60) for n in ("ada", "ben")),
        verdicts=(FOLLOWER.verdict(intent, expires_at=warm.time + 60),),
    )


@pytest.mark.parametrize(("before", "after"), [(1_000_000, 2_000_000), (2_000_000, 1_000_000)])
def test_a_bound_between_tiers_that_moves_over_an_order_lets_no_second_signer_pay_it(
    tmp_path: Path, before: int, after: int
) -> None:
    hot, warm = Desk(tmp_path / "hot", HOUSE, OLD), Desk(tmp_path / "warm", FOLLOWER, NEW)
    for signer in (hot, warm):
        signer.hand(of_two_tiers(2, before))
    order = HOUSE.order(1_500_000, expires_at=hot.time + LONGEST)

    def paid(signer: Desk, wanted: Order) -> SignRequest:
        return signer.payment(wanted) if signer is hot else warm_payment(warm, wanted)

    first, second = (warm, hot) if before < after else (hot, warm)
    assert first.signatures(paid(first, order))
    for signer in (hot, warm):
        signer.time += 60
        signer.hand(of_two_tiers(3, after))
    assert second.codes(paid(second, order)) == {"order-moved"}
    second.restart()
    assert second.codes(paid(second, order)) == {"order-moved"}
    # What was on its side all the time it pays as ever, and the rest once all old orders have ended.
    beside = HOUSE.order(500_000 if second is hot else 3_000_000, expires_at=second.time + 60)
    assert second.signatures(paid(second, beside))
    second.time += LONGEST
    assert second.signatures(paid(second, HOUSE.order(1_500_000, expires_at=second.time + 60)))
    for signer in (hot, warm):
        signer.journal.close()


def test_what_one_signer_keeps_for_both_tiers_it_pays_whoever_it_belongs_to_now(tmp_path: Path) -> None:
    """Its own journal knows what it has signed."""

    class Both(Desk):
        def wallets(self) -> Mapping[str, Wallet[Any]]:
            return {keys.record.id: BitcoinWallet(keys) for keys in (OLD, NEW)}

    both = Both(tmp_path / "both", HOUSE, OLD)
    both.hand(of_two_tiers(2, 1_000_000))
    order = HOUSE.order(1_500_000, expires_at=both.time + LONGEST)
    paid = HOUSE.order(1_500_000, expires_at=both.time + LONGEST)
    assert both.signatures(warm_payment(both, paid))
    both.hand(of_two_tiers(3, 2_000_000))
    assert both.signatures(both.payment(order))
    assert "intent-reused" in both.codes(both.payment(paid))
    both.journal.close()


@pytest.mark.parametrize("floor", ["0", "9999999"])
def test_a_bundle_whose_tiers_overlap_is_not_believed(floor: str) -> None:
    good = of_two_tiers(2, 10_000_000)
    check_consistent(good)
    hot, warm = good.caps
    overlapping = msgspec.structs.replace(warm, payment_from=floor)
    with pytest.raises(InvalidValue, match="both pay one order"):
        check_consistent(msgspec.structs.replace(good, caps=(hot, overlapping)))
