"""Ages of destinations and delays of orders: nothing starts them but what the signer has seen itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Breaker
from policies.intent import Order, SignedOrder
from policies.keys import SigningKey, sign_entry, sign_order
from policies.statements import SignedWhitelistEntry, WhitelistEntry
from signers.guard import sightings
from signers.ports import Announced, AnnounceRequest, EntrySighting, Refused, Sighting, SignRequest
from signers.wallets import BitcoinWallet
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, DESTINATION, NOW, OTHER_DESTINATION, Draft, SoftKeys, World
from tests.support import ruling

HOUR = 3600


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def aged(bench: SignerBench, *, destination: int = 0, delay: int = 0, version: int = 2) -> None:
    """Adopt a bundle that asks for these ages, in seconds."""
    bench.adopt(version, requirements=ruling.aged(destination=destination, delay=delay))


def paying(bench: SignerBench, order: Order, version: int = 2) -> SignRequest:
    world = bench.world
    intent = world.intent(order, policy_version=version)
    return world.request(Draft([world.coin()], [order], intents=[intent]))


def announce(bench: SignerBench, *orders: Order, key: SigningKey | None = None) -> Announced:
    signed = tuple(sign_order(order, key or bench.world.caller) for order in orders)
    return bench.service.announce(AnnounceRequest(orders=signed))


def codes(bench: SignerBench, *orders: Order, key: SigningKey | None = None) -> set[str]:
    """Codes with which an announcement is refused; and being refused must have recorded nothing."""
    before = bench.journal.write(lambda book: book.open_sights(0))
    with pytest.raises(Refused) as refused:
        announce(bench, *orders, key=key)
    assert bench.journal.write(lambda book: book.open_sights(0)) == before
    return {reason.code for reason in refused.value.reasons}


# Ages.


def test_a_destination_must_have_been_known_for_its_age_by_the_signers_own_clock(bench: SignerBench) -> None:
    aged(bench, destination=HOUR)
    order = bench.world.order(expires_at=NOW + DAY)
    assert bench.codes(paying(bench, order)) == {"destination-too-young"}
    announce(bench, order)
    bench.time += HOUR - 1
    assert bench.codes(paying(bench, order)) == {"destination-too-young"}
    bench.restart()
    bench.time += 1
    assert bench.signatures(paying(bench, order))


def test_another_order_to_a_known_destination_needs_no_age_of_its_own(bench: SignerBench) -> None:
    aged(bench, destination=HOUR)
    announce(bench, bench.world.order())
    bench.time += HOUR
    assert bench.signatures(paying(bench, bench.world.order(expires_at=bench.time + 60)))
    elsewhere = bench.world.order(destination=OTHER_DESTINATION, expires_at=bench.time + 60)
    assert bench.codes(paying(bench, elsewhere)) == {"destination-too-young"}


def test_an_order_waits_for_its_delay_even_to_a_known_destination(bench: SignerBench) -> None:
    aged(bench, delay=HOUR)
    first, second = bench.world.order(expires_at=NOW + DAY), bench.world.order(expires_at=NOW + DAY)
    announce(bench, first)
    bench.time += HOUR
    assert bench.codes(paying(bench, second)) == {"order-too-young"}
    assert bench.signatures(paying(bench, first))
    announce(bench, second)
    assert bench.codes(paying(bench, second)) == {"order-too-young"}


def test_asking_for_a_signature_is_no_announcement(bench: SignerBench) -> None:
    aged(bench, destination=HOUR, delay=HOUR)
    order = bench.world.order(expires_at=NOW + DAY)
    assert bench.codes(paying(bench, order)) == {"destination-too-young", "order-too-young"}
    bench.time += DAY - 1
    assert bench.codes(paying(bench, order)) == {"destination-too-young", "order-too-young"}


def test_an_order_with_any_other_content_is_another_order(bench: SignerBench) -> None:
    aged(bench, delay=HOUR)
    order = bench.world.order(expires_at=NOW + DAY)
    announce(bench, order)
    bench.time += HOUR
    changed = msgspec.structs.replace(order, fee_ceiling="50001")
    assert bench.codes(paying(bench, changed)) == {"order-too-young"}


def test_fault_43_a_lookalike_of_a_known_destination_is_unknown(bench: SignerBench) -> None:
    """The same first and last letters, as in a poisoned history: only the whole text is the address."""
    lookalike = DESTINATION[:10] + "q" * 8 + DESTINATION[18:]
    aged(bench, destination=HOUR)
    known = bench.world.order(expires_at=NOW + DAY)
    announce(bench, known)
    bench.time += HOUR
    world, draft = bench.world, Draft([bench.world.coin()], [known])
    # The order says one thing and the intent another.
    draft.intents = [world.intent(known, policy_version=2, destination=OTHER_DESTINATION)]
    assert bench.codes(world.request(draft)) == {
        "order-mismatch",
        "unknown-output",
        "unpaid-intent",
    }
    # The customer was misled and signed an order to the lookalike.
    poisoned = world.order(destination=OTHER_DESTINATION, expires_at=bench.time + HOUR)
    assert bench.codes(paying(bench, poisoned)) == {"destination-too-young"}
    # It is not even an address.
    mistyped = world.order(destination=lookalike, expires_at=bench.time + HOUR)
    draft = Draft([world.coin()], [known], intents=[world.intent(mistyped, policy_version=2)])
    request = bench.with_orders(world.request(draft), sign_order(mistyped, world.caller))
    assert {"bad-destination", "destination-too-young"} <= bench.codes(request)
    assert bench.signatures(paying(bench, known))


# How long orders live.


def test_an_order_that_expires_too_late_is_neither_remembered_nor_signed(bench: SignerBench) -> None:
    order = bench.world.order(expires_at=NOW + DAY + 1)
    assert codes(bench, order) == {"order-too-long"}
    assert bench.codes(paying(bench, order, version=1)) == {"order-too-long"}
    assert bench.signatures(paying(bench, bench.world.order(expires_at=NOW + DAY), version=1))


def test_new_keys_pay_no_order_that_the_keys_before_them_could_have_paid(bench: SignerBench) -> None:
    """Their journal does not know what another signer's journal says; so the order must be of their own time."""
    bench.adopt(2, keysets=(bench.world.keyset_entry(active_from=NOW),))
    old = bench.world.order(expires_at=NOW + DAY)
    assert bench.codes(paying(bench, old)) == {"order-too-old"}
    bench.time += 1
    assert bench.signatures(paying(bench, bench.world.order(expires_at=NOW + DAY + 1)))


def test_where_this_signer_holds_the_keys_before_them_its_own_journal_knows(bench: SignerBench) -> None:
    world = bench.world
    order = world.order(expires_at=NOW + HOUR)
    other = SoftKeys.make(b"\x01" * 32, "btc-hot-0")
    before = World(other.record, now=world.now).keyset_entry(state="deactivated")
    bench.adopt(2, keysets=(before, world.keyset_entry(active_from=NOW)))
    assert bench.codes(paying(bench, order)) == {"order-too-old"}
    bench.service._wallets["btc-hot-0"] = BitcoinWallet(other)
    assert bench.signatures(paying(bench, order))
    # But what those could not pay, as others had been before them elsewhere, their followers can't pay either.
    before = msgspec.structs.replace(before, active_from=NOW - 60)
    bench.adopt(3, keysets=(before, world.keyset_entry(active_from=NOW)))
    theirs, ours = world.order(expires_at=NOW - 60 + DAY), world.order(expires_at=NOW + DAY)
    assert bench.codes(paying(bench, theirs, version=3)) == {"order-too-old"}
    assert bench.signatures(paying(bench, ours, version=3))


def test_keys_that_are_not_in_use_yet_have_signed_nothing(bench: SignerBench) -> None:
    world = bench.world
    before, next_one = SoftKeys.make(b"\x01" * 32, "btc-hot-0"), SoftKeys.make(b"\x02" * 32, "btc-hot-2")
    keysets = (
        World(before.record).keyset_entry(state="deactivated"),
        world.keyset_entry(active_from=NOW),
        World(next_one.record).keyset_entry(state="pre-active"),
    )
    bench.service._wallets["btc-hot-0"] = BitcoinWallet(before)
    breaker = Breaker(id="b", keysets=("btc-hot-0", "btc-hot"), value_cap=str(10**30), window_seconds=DAY)
    bench.adopt(2, keysets=keysets, breakers=(breaker,))
    assert bench.signatures(paying(bench, world.order()))


# Announcing.


def test_announcing_tells_since_when_and_again_changes_nothing(bench: SignerBench) -> None:
    order = bench.world.order(expires_at=NOW + DAY)
    first = Announced(sightings=(Sighting(order=order.id, order_since=NOW, destination_since=NOW),))
    assert announce(bench, order) == first
    bench.time += HOUR
    assert announce(bench, order) == first
    other = bench.world.order(expires_at=NOW + DAY)
    assert announce(bench, other, order, other).sightings == (
        Sighting(order=other.id, order_since=NOW + HOUR, destination_since=NOW),
        first.sightings[0],
        Sighting(order=other.id, order_since=NOW + HOUR, destination_since=NOW),
    )
    bench.restart()
    assert announce(bench, order) == first
    assert bench.journal.write(lambda book: book.open_sights(bench.time)) == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"caller": "nobody"}, "caller-unknown"),
        ({"caller": "reader"}, "caller-scope"),
        ({"expires_at": NOW}, "order-expired"),
        ({"asset": "DOGE"}, "wrong-asset"),
        ({"chain": "bitcoin-main"}, "wrong-asset"),
    ],
)
def test_an_order_that_could_not_be_paid_is_not_remembered(
    bench: SignerBench, change: dict[str, Any], code: str
) -> None:
    assert codes(bench, bench.world.order(**change)) == {code}
    assert codes(bench, bench.world.order(), bench.world.order(**change)) == {code}


def test_an_order_that_its_caller_did_not_sign_is_not_remembered(bench: SignerBench) -> None:
    assert codes(bench, bench.world.order(), key=bench.world.stranger) == {"order-signature"}
    genuine = sign_order(bench.world.order(), bench.world.caller)
    edited = msgspec.structs.replace(genuine.order, destination=OTHER_DESTINATION)
    request = AnnounceRequest(orders=(SignedOrder(order=edited, signature=genuine.signature),))
    with pytest.raises(Refused, match="order-signature"):
        bench.service.announce(request)


def test_a_caller_whose_time_is_over_and_an_expired_bundle_announce_nothing(bench: SignerBench) -> None:
    world = bench.world
    bench.adopt(2, callers=(world.caller_entry("exchange", world.caller, not_after=NOW),))
    assert codes(bench, world.order()) == {"caller-expired"}
    bench.time += 40 * DAY
    assert "bundle-expired" in codes(bench, world.order(expires_at=bench.time + HOUR))


def test_no_more_orders_are_remembered_than_there_is_room_for_and_expired_ones_make_room(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "MAX_SIGHTINGS", 3)
    orders = [bench.world.order(expires_at=NOW + HOUR + n) for n in range(4)]
    assert codes(bench, *orders) == {"too-many-sightings"}
    announce(bench, *orders[:3])
    announce(bench, *orders[:3])
    assert codes(bench, orders[3]) == {"too-many-sightings"}
    assert codes(bench, *orders) == {"too-many-sightings"}
    bench.time = NOW + HOUR
    announce(bench, orders[3])


def test_a_caller_that_floods_leaves_the_others_their_share(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "MAX_SIGHTINGS", 5)
    world, second = bench.world, SigningKey.generate()
    callers = (world.caller_entry("exchange", world.caller), world.caller_entry("otc", second))
    bench.adopt(2, callers=callers)
    flood = [world.order() for _ in range(4)]
    announce(bench, *flood[:2])
    assert codes(bench, flood[2]) == {"too-many-sightings"}
    announce(bench, world.order(caller="otc"), world.order(caller="otc"), key=second)
    assert codes(bench, world.order(caller="otc"), key=second) == {"too-many-sightings"}


# Entries of whitelists.


def listed(bench: SignerBench, *, key: SigningKey | None = None, **changes: Any) -> SignedWhitelistEntry:
    fields: dict[str, Any] = {
        "v": 1,
        "id": str(uuid.uuid4()),
        "caller": "exchange",
        "owner": "alice",
        "chain": CHAIN,
        "address": DESTINATION,
        "issued_at": bench.time,
    }
    return sign_entry(WhitelistEntry(**(fields | changes)), key or bench.world.caller)


def show(bench: SignerBench, *entries: SignedWhitelistEntry) -> Announced:
    return bench.service.announce(AnnounceRequest(entries=entries))


def entry_codes(bench: SignerBench, *entries: SignedWhitelistEntry) -> set[str]:
    before = bench.journal.write(lambda book: book.open_sights(0))
    with pytest.raises(Refused) as refused:
        show(bench, *entries)
    assert bench.journal.write(lambda book: book.open_sights(0)) == before
    return {reason.code for reason in refused.value.reasons}


def test_the_age_of_a_destination_begins_when_its_entry_is_shown_and_never_begins_again(
    bench: SignerBench,
) -> None:
    aged(bench, destination=HOUR)
    entry = listed(bench)
    first = show(bench, entry)
    assert first.entries == (EntrySighting(entry=entry.entry.id, destination_since=NOW),)
    bench.time += HOUR - 1
    assert bench.codes(paying(bench, bench.world.order(expires_at=bench.time + 60))) == {
        "destination-too-young"
    }
    assert show(bench, entry) == first
    assert show(bench, listed(bench)).entries[0].destination_since == NOW
    bench.restart()
    bench.time += 1
    assert bench.signatures(paying(bench, bench.world.order(expires_at=bench.time + 60)))
    other = bench.world.order(destination=OTHER_DESTINATION, expires_at=bench.time + 60)
    assert bench.codes(paying(bench, other)) == {"destination-too-young"}


def test_what_an_entry_says_of_its_time_makes_no_destination_older(bench: SignerBench) -> None:
    aged(bench, destination=HOUR)
    show(bench, listed(bench, issued_at=NOW - 100 * DAY))
    order = bench.world.order(expires_at=bench.time + 60)
    assert bench.codes(paying(bench, order)) == {"destination-too-young"}


def test_an_entry_is_no_order_and_delays_none_any_less(bench: SignerBench) -> None:
    aged(bench, delay=HOUR)
    show(bench, listed(bench))
    bench.time += HOUR
    order = bench.world.order(expires_at=bench.time + 60)
    assert bench.codes(paying(bench, order)) == {"order-too-young"}


def test_only_entries_that_a_present_caller_has_signed_as_they_are_count(bench: SignerBench) -> None:
    good = listed(bench)
    edited = SignedWhitelistEntry(
        entry=msgspec.structs.replace(good.entry, address=OTHER_DESTINATION), signature=good.signature
    )
    assert entry_codes(bench, good, edited) == {"entry-signature"}
    assert entry_codes(bench, listed(bench, key=SigningKey.generate())) == {"entry-signature"}
    assert entry_codes(bench, listed(bench, caller="nobody")) == {"caller-unknown"}
    assert entry_codes(bench, listed(bench, chain="elsewhere")) == {"wrong-chain"}
    bench.time = bench.world.bundle().callers[0].not_after
    assert "caller-expired" in entry_codes(bench, listed(bench))


def test_entries_fill_the_share_of_their_caller_like_orders(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sightings, "MAX_SIGHTINGS", 3)
    announce(bench, bench.world.order())
    show(bench, listed(bench), listed(bench))
    assert entry_codes(bench, listed(bench)) == {"too-many-sightings"}
    assert codes(bench, bench.world.order()) == {"too-many-sightings"}
    bench.time += bench.world.bundle().longest_order_seconds
    show(bench, listed(bench))


def test_an_announcement_of_nothing_is_none() -> None:
    with pytest.raises(ValueError, match="at least one"):
        AnnounceRequest()
