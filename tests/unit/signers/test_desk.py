"""What officers hand to a signer themselves: bundles, a veto, and their word on the time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Officer, SignedBundle
from policies.keys import SigningKey, sign_clock, sign_freeze
from policies.statements import ClockConfirmation, Freeze, SignedClockConfirmation, SignedFreeze
from signers.errors import ClockUnsteady
from signers.ports import Refused, ResolveRequest
from signers.trust.desk import MAX_CONFIRMATION_SECONDS, MAX_FREEZE_AHEAD
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def freeze(bench: SignerBench, key: SigningKey | None = None, /, **changes: Any) -> SignedFreeze:
    fields: dict[str, Any] = {
        "v": 1,
        "officer": "olga",
        "scope": "all",
        "bundle_version": 1,
        "reason": "the workers do strange things",
        "issued_at": bench.time,
    }
    return sign_freeze(Freeze(**(fields | changes)), key or bench.world.officers["olga"])


def confirmation(
    bench: SignerBench, key: SigningKey | None = None, /, **changes: Any
) -> SignedClockConfirmation:
    fields: dict[str, Any] = {"v": 1, "officer": "felix", "journal": bench.journal.id, "at": bench.time}
    return sign_clock(ClockConfirmation(**(fields | changes)), key or bench.world.officers["felix"])


def logged(bench: SignerBench) -> list[str]:
    return [entry.what for entry in bench.journal.write(lambda book: book.log_entries(0, 1000))]


# Bundles.


def test_a_bundle_is_taken_from_whoever_brings_it(bench: SignerBench) -> None:
    status = bench.desk.deliver(bench.world.signed(bench.world.bundle(2)))
    assert status.bundle_version == 2
    bench.signatures(bench.under(2))
    bench.restart()
    assert bench.service.status().bundle_version == 2, "though the file is still of version 1"


def test_delivering_again_changes_nothing(bench: SignerBench) -> None:
    signed = bench.world.signed(bench.world.bundle(2))
    bench.desk.deliver(signed)
    before = logged(bench)
    assert bench.desk.deliver(signed).bundle_version == 2
    assert logged(bench) == before


def test_a_bundle_without_its_quorum_older_or_another_of_its_version_is_refused(bench: SignerBench) -> None:
    world = bench.world
    bench.adopt(3)
    for signed in (
        world.signed(world.bundle(2)),
        world.signed(world.bundle(3, expires_at=world.now + DAY)),
        world.signed(world.bundle(4), ["olga"]),
        SignedBundle(bundle=world.bundle(4), signatures=()),
        world.signed(world.bundle(4, expires_at=bench.time)),
    ):
        with pytest.raises(Refused, match="bundle-refused"):
            bench.desk.deliver(signed)
    assert bench.service.status().bundle_version == 3


# Freezes.


@pytest.mark.parametrize("scope", ["all", "chain:bitcoin-regtest", "wallet:btc-hot", "asset:BTC"])
def test_one_officers_freeze_stops_signing_until_a_higher_bundle_also_over_a_restart(
    bench: SignerBench, scope: str
) -> None:
    request = bench.request()
    status = bench.desk.freeze(freeze(bench, scope=scope))
    assert status.frozen == (scope,)
    assert bench.codes(request) == {"frozen"}
    bench.restart()
    assert bench.codes(request) == {"frozen"}
    bench.adopt(2)
    assert bench.service.status().frozen == ()
    bench.signatures(bench.under(2))


def test_a_freeze_of_something_else_stops_nothing(bench: SignerBench) -> None:
    bench.adopt(
        2, keysets=(bench.world.keyset_entry(), bench.world.keyset_entry(id="other", state="suspended"))
    )
    bench.desk.freeze(freeze(bench, scope="wallet:other", bundle_version=2))
    bench.signatures(bench.under(2))


def test_a_freeze_of_nothing_known_is_refused_so_that_nobody_believes_in_it(bench: SignerBench) -> None:
    for scope in ("chain:bitcoin-regtset", "wallet:BTC", "asset:btc"):
        with pytest.raises(Refused, match="freeze-scope"):
            bench.desk.freeze(freeze(bench, scope=scope))


def test_a_freeze_again_changes_nothing(bench: SignerBench) -> None:
    bench.desk.freeze(freeze(bench))
    before = logged(bench)
    bench.desk.freeze(freeze(bench))
    bench.desk.freeze(freeze(bench, reason="said once more", issued_at=bench.time + 5))
    assert logged(bench) == before


def test_a_freeze_for_an_older_bundle_is_refused(bench: SignerBench) -> None:
    """Else anybody who kept one could freeze a signer again that the quorum has freed."""
    old = freeze(bench)
    bench.desk.freeze(old)
    bench.adopt(2)
    with pytest.raises(Refused, match="freeze-version"):
        bench.desk.freeze(old)
    assert bench.service.status().frozen == ()


def test_a_freeze_may_outlast_a_bundle_that_is_on_its_way_but_not_all_to_come(bench: SignerBench) -> None:
    bench.desk.freeze(freeze(bench, bundle_version=2))
    bench.adopt(2)
    assert bench.service.status().frozen == ("all",)
    with pytest.raises(Refused, match="freeze-version"):
        bench.desk.freeze(freeze(bench, bundle_version=3 + MAX_FREEZE_AHEAD))
    bench.adopt(3)
    assert bench.service.status().frozen == ()


def test_only_an_officer_of_bundle_and_root_in_time_freezes(bench: SignerBench) -> None:
    world, new = bench.world, SigningKey.generate()
    officers = world.bundle().officers
    bench.adopt(
        2,
        officers=(
            *officers,
            Officer(id="nina", key=new.public_hex, organisation="org-nina", not_after=bench.time + DAY),
        ),
    )
    caller = world.caller
    for signed, code in (
        (freeze(bench, caller, officer="exchange", bundle_version=2), "officer-unknown"),
        # In the bundle, but the ceremony has not pinned this key.
        (freeze(bench, new, officer="nina", bundle_version=2), "officer-unknown"),
        (freeze(bench, caller, bundle_version=2), "officer-signature"),
        (
            msgspec.structs.replace(freeze(bench, bundle_version=2), freeze=freeze(bench).freeze),
            "officer-signature",
        ),
    ):
        with pytest.raises(Refused, match=code):
            bench.desk.freeze(signed)
    bench.time += DAY
    with pytest.raises(Refused, match="officer-expired"):
        bench.desk.freeze(freeze(bench, bundle_version=2))


def test_an_officer_whose_key_in_the_bundle_is_another_than_pinned_is_none(bench: SignerBench) -> None:
    thief = SigningKey.generate()
    officers = tuple(
        msgspec.structs.replace(o, key=thief.public_hex) if o.id == "olga" else o
        for o in bench.world.bundle().officers
    )
    bench.adopt(2, officers=officers)
    for key in (thief, bench.world.officers["olga"]):
        with pytest.raises(Refused, match="officer-unknown"):
            bench.desk.freeze(freeze(bench, key, bundle_version=2))


def test_a_freeze_works_while_the_clock_is_suspended(bench: SignerBench) -> None:
    bench.jump(1000)
    with pytest.raises(ClockUnsteady):
        bench.service.sign(bench.request())
    assert bench.desk.freeze(freeze(bench)).frozen == ("all",)


# Time.


def test_fault_34_a_jump_of_the_clock_suspends_until_an_officer_confirms_it_also_over_restarts(
    bench: SignerBench,
) -> None:
    request = bench.request()
    bench.jump(2 * 3600)
    for _ in range(2):
        with pytest.raises(ClockUnsteady, match="jumped 7200 s forward"):
            bench.service.sign(request)
        bench.restart()
    assert "jumped 7200 s" in bench.service.status().suspended
    assert bench.desk.confirm_clock(confirmation(bench)).suspended == ""
    assert bench.codes(request) == {"order-expired"}
    bench.world.now = bench.time
    bench.signatures(bench.request())
    bench.restart()
    bench.signatures(bench.request())


def test_fault_34_a_clock_that_jumps_does_not_move_windows_nor_ages_nor_the_journals_time(
    bench: SignerBench,
) -> None:
    bench.adopt(2, cap_window_cap="1500000")
    bench.signatures(bench.under(2, 1_000_000))
    bench.resolve("dead")
    before = bench.journal.write(lambda book: book.latest)
    bench.jump(DAY)
    bench.restart()
    with pytest.raises(ClockUnsteady):
        bench.service.sign(bench.under(2, 1_000_000))
    told = bench.resolution("bitcoin-regtest", "ab" * 32, "dead")
    with pytest.raises(ClockUnsteady):
        bench.witness.resolve(ResolveRequest(resolutions=(told,)))
    assert bench.journal.write(lambda book: book.latest) == before
    bench.jump(-DAY)
    bench.desk.confirm_clock(confirmation(bench))
    assert bench.codes(bench.under(2, 1_000_000)) == {"window-cap"}


def test_fault_34_a_long_stop_suspends_and_a_short_one_does_not(bench: SignerBench) -> None:
    bench.restart()
    bench.journal.close()
    bench.time += 3600
    bench.start()
    bench.world.now = bench.time
    bench.signatures(bench.request())
    bench.timekeeper.tick()
    bench.journal.close()
    bench.time += 3601
    bench.start()
    with pytest.raises(ClockUnsteady, match="stood still for 3601 s"):
        bench.service.sign(bench.request())


def test_the_journal_notes_the_time_each_minute_and_no_more_often(bench: SignerBench) -> None:
    def batches() -> int:
        return bench.journal._last.batch

    before = batches()
    for _ in range(120):
        bench.time += 1
        bench.timekeeper.tick()
    assert batches() == before + 2
    assert bench.journal.write(lambda book: book.latest) == bench.time


def test_a_confirmation_counts_once_for_one_signer_and_at_its_time(bench: SignerBench) -> None:
    bench.jump(1000)
    with pytest.raises(ClockUnsteady):
        bench.clock.now()
    used = confirmation(bench)
    for signed, code in (
        (confirmation(bench, journal="00" * 32), "clock-journal"),
        (confirmation(bench, at=bench.time - MAX_CONFIRMATION_SECONDS - 1), "clock-time"),
        (confirmation(bench, at=bench.time + MAX_CONFIRMATION_SECONDS + 1), "clock-time"),
        (confirmation(bench, bench.world.caller), "officer-signature"),
        (confirmation(bench, bench.world.caller, officer="exchange"), "officer-unknown"),
    ):
        with pytest.raises(Refused, match=code):
            bench.desk.confirm_clock(signed)
        assert bench.clock.trouble
    bench.desk.confirm_clock(used)
    assert not bench.clock.trouble
    bench.jump(200)
    assert bench.clock.trouble
    with pytest.raises(Refused, match="clock-used"):
        bench.desk.confirm_clock(used)
    bench.restart()
    with pytest.raises(Refused, match="clock-used"):
        bench.desk.confirm_clock(used)


def test_a_clock_behind_the_journal_can_not_be_confirmed(bench: SignerBench) -> None:
    bench.signatures(bench.request())
    bench.jump(-100)
    with pytest.raises(Refused, match="clock-behind"):
        bench.desk.confirm_clock(confirmation(bench))


def test_what_officers_do_is_in_the_log(bench: SignerBench) -> None:
    bench.jump(1000)
    with pytest.raises(ClockUnsteady):
        bench.clock.now()
    bench.timekeeper.tick()
    bench.desk.confirm_clock(confirmation(bench))
    bench.desk.freeze(freeze(bench))
    bench.adopt(2)
    assert logged(bench) == ["bundle", "clock", "clock", "freeze", "bundle"]
