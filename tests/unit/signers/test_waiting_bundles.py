"""A bundle of the quorum waits, by the signer's own time, while any officer can veto it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from policies.bundle import Bundle, SignedBundle
from policies.keys import SigningKey, sign_clock, sign_veto
from policies.statements import ClockConfirmation, SignedVeto, Veto
from signers.ports import Refused
from signers.trust.officers import MAX_STATEMENTS
from tests.fakes.signer import SignerBench
from tests.fakes.signing import DAY, World

HOUR = 3600
ALL = ("olga", "felix", "sanna")


class Cautious(World):
    """Its bundles let the next one wait for a day."""

    def bundle(self, version: int = 1, **changes: Any) -> Bundle:
        officers = tuple(
            msgspec.structs.replace(officer, not_after=self.now + 9 * DAY)
            for officer in self.people()["officers"]
        )
        return super().bundle(version, **({"veto_seconds": DAY, "officers": officers} | changes))


class CautiousBench(SignerBench):
    """A signer whose bundles wait."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        assert self.trust.present.veto_seconds == DAY

    def publish(self, bundle: Bundle) -> None:
        self.world.__class__ = Cautious
        super().publish(self.world.bundle(bundle.version))

    def hand(self, version: int, names: Sequence[str] = ("olga", "felix"), **changes: Any) -> SignedBundle:
        signed = self.signed(version, names, **changes)
        self.desk.deliver(signed)
        return signed

    def signed(self, version: int, names: Sequence[str] = ("olga", "felix"), **changes: Any) -> SignedBundle:
        return self.world.signed(self.world.bundle(version, **changes), names)

    def pass_time(self, seconds: int) -> None:
        """So many seconds pass, and the daemon does what it does each second."""
        self.time += seconds
        self.tick()

    def tick(self) -> None:
        self.timekeeper.tick()
        self.trust.refresh(self.troubles.append)

    @property
    def version(self) -> int:
        return self.service.status().bundle_version


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[CautiousBench]:
    made = CautiousBench(tmp_path)
    yield made
    made.journal.close()


def veto(
    bench: SignerBench, signed: SignedBundle, key: SigningKey | None = None, **changes: Any
) -> SignedVeto:
    fields: dict[str, Any] = {
        "v": 1,
        "officer": "sanna",
        "bundle": signed.bundle.digest_hex(),
        "reason": "nobody has asked me",
        "issued_at": bench.time,
    }
    made = Veto(**(fields | changes))
    return sign_veto(made, key or bench.world.officers[made.officer])


def logged(bench: SignerBench) -> list[str]:
    return [entry.what for entry in bench.journal.write(lambda book: book.log_entries(0, 1000))]


# It waits.


def test_a_bundle_waits_for_as_long_as_the_present_one_says_from_when_this_signer_first_saw_it(
    bench: CautiousBench,
) -> None:
    signed = bench.signed(2)
    status = bench.desk.deliver(signed)
    assert status.bundle_version == 1
    assert status.waiting is not None
    assert (status.waiting.version, status.waiting.digest) == (2, signed.bundle.digest_hex())
    assert (status.waiting.since, status.waiting.acts_from) == (bench.time, bench.time + DAY)
    bench.pass_time(DAY - 1)
    assert bench.version == 1
    bench.world.now = bench.time  # orders are of today
    bench.signatures(bench.request())
    bench.pass_time(1)
    assert bench.version == 2
    assert bench.service.status().waiting is None
    bench.signatures(bench.under(2))
    assert logged(bench) == ["bundle", "waiting", "transaction", "bundle", "transaction"]


def test_it_waits_longer_where_the_quorum_has_chosen_a_later_time(bench: CautiousBench) -> None:
    bench.hand(2, in_force_from=bench.time + 3 * DAY)
    bench.pass_time(3 * DAY - 1)
    assert bench.version == 1
    bench.pass_time(1)
    assert bench.version == 2


def test_a_chosen_time_does_not_shorten_the_officers_time(bench: CautiousBench) -> None:
    bench.hand(2, in_force_from=bench.time + HOUR)
    bench.pass_time(DAY - 1)
    assert bench.version == 1
    bench.pass_time(1)
    assert bench.version == 2


def test_a_chosen_time_counts_also_where_nothing_else_makes_it_wait(bench: CautiousBench) -> None:
    bench.hand(2, ALL, veto_seconds=0)
    bench.hand(3, in_force_from=bench.time + HOUR)
    assert bench.version == 2
    bench.pass_time(HOUR)
    assert bench.version == 3


def test_again_changes_nothing_neither_in_the_log_nor_in_its_time(bench: CautiousBench) -> None:
    signed = bench.hand(2)
    before, waiting = logged(bench), bench.trust.waiting
    bench.pass_time(HOUR)
    bench.desk.deliver(signed)
    assert (logged(bench), bench.trust.waiting) == (before, waiting)
    bench.pass_time(DAY - HOUR)
    assert bench.version == 2
    bench.desk.deliver(signed)
    assert bench.version == 2


def test_signatures_of_all_officers_leave_nobody_who_could_veto(bench: CautiousBench) -> None:
    bench.hand(2)
    assert bench.version == 1
    bench.hand(2, ALL)
    assert bench.version == 2, "the third officer has signed while it waited"
    bench.hand(3, ALL, in_force_from=bench.time + DAY)
    assert bench.version == 3


def test_a_restart_neither_shortens_nor_prolongs_the_wait(bench: CautiousBench) -> None:
    bench.hand(2)
    bench.pass_time(DAY // 2)
    bench.restart()
    assert bench.version == 1
    waiting = bench.service.status().waiting
    assert waiting is not None
    assert waiting.acts_from == bench.time + DAY // 2
    bench.pass_time(DAY // 2)
    assert bench.version == 2
    bench.restart()
    assert bench.version == 2


def test_what_became_due_while_the_signer_was_down_acts_at_its_start(bench: CautiousBench) -> None:
    bench.hand(2)
    bench.pass_time(DAY - 60)
    bench.timekeeper.tick()
    bench.journal.close()
    bench.time += 120
    bench.start()
    assert bench.version == 2


def test_a_file_that_lies_there_waits_as_well(bench: CautiousBench) -> None:
    (bench.directory / "bundle.json").write_bytes(bench.signed(2).encode())
    bench.tick()
    assert bench.version == 1
    bench.pass_time(DAY)
    assert bench.version == 2


def test_a_second_one_needs_a_higher_version_and_waits_from_its_own_first_sight(bench: CautiousBench) -> None:
    first = bench.hand(3)
    with pytest.raises(Refused, match="version 3 waits already"):
        bench.hand(3, expires_at=bench.time + 20 * DAY)
    with pytest.raises(Refused, match="version 3 waits already"):
        bench.hand(2)
    bench.pass_time(HOUR)
    bench.hand(4)
    bench.pass_time(DAY - HOUR)
    assert bench.version == 1, "the first one gave its place"
    with pytest.raises(Refused, match="version 4 waits already"):
        bench.desk.deliver(first)
    bench.pass_time(HOUR)
    assert bench.version == 4
    with pytest.raises(Refused, match="older than 4"):
        bench.desk.deliver(first)


def test_one_that_would_expire_before_it_acts_is_refused(bench: CautiousBench) -> None:
    with pytest.raises(Refused, match="would expire"):
        bench.hand(2, expires_at=bench.time + DAY)


def test_one_that_expires_though_it_waits_is_told_of_once_and_gives_its_place(bench: CautiousBench) -> None:
    bench.hand(2, expires_at=bench.time + DAY + 60)
    bench.journal.close()
    bench.time += DAY + 120
    bench.start()
    bench.desk.confirm_clock(confirmation(bench))  # it stood still for long
    bench.pass_time(DAY)
    bench.tick()
    assert bench.version == 1
    assert ["expired" in trouble for trouble in bench.troubles].count(True) == 1
    bench.hand(3)
    bench.pass_time(DAY)
    assert bench.version == 3


def test_a_new_signer_begins_with_a_bundle_that_is_in_force(tmp_path: Path) -> None:
    class Early(SignerBench):
        def publish(self, bundle: Bundle) -> None:
            super().publish(self.world.bundle(1, in_force_from=self.time + HOUR))

    with pytest.raises(Exception, match="begins with one that is"):
        Early(tmp_path)


# Clocks.


def confirmation(bench: SignerBench) -> Any:
    told = ClockConfirmation(v=1, officer="felix", journal=bench.journal.id, at=bench.time)
    return sign_clock(told, bench.world.officers["felix"])


def test_a_clock_that_jumps_does_not_end_the_wait_and_one_officer_who_confirms_it_does_not_either(
    bench: CautiousBench,
) -> None:
    """Who has two officers' keys and the time server would else have a bundle adopted before anybody knows of it."""
    bench.hand(2)
    bench.jump(2 * DAY)
    bench.tick()
    assert bench.version == 1
    bench.desk.confirm_clock(confirmation(bench))
    bench.tick()
    assert bench.version == 1
    bench.pass_time(DAY - 1)
    assert bench.version == 1
    bench.pass_time(1)
    assert bench.version == 2


def test_a_bundle_that_vouches_for_a_false_time_does_not_end_the_wait_of_another(
    bench: CautiousBench,
) -> None:
    bench.hand(3)
    bench.jump(2 * DAY)
    bench.world.now = bench.time
    bench.hand(2, ALL)
    assert bench.version == 2
    bench.tick()
    assert bench.version == 2
    waiting = bench.service.status().waiting
    assert waiting is not None
    assert (waiting.version, waiting.acts_from) == (3, bench.time + DAY)


def test_a_bundle_is_seen_also_while_the_clock_is_in_doubt_but_its_time_does_not_run(
    bench: CautiousBench,
) -> None:
    bench.jump(HOUR)
    bench.hand(2, issued_at=bench.world.now - DAY)
    assert bench.service.status().suspended != ""
    bench.pass_time(2 * DAY)
    assert bench.version == 1
    bench.desk.confirm_clock(confirmation(bench))
    bench.tick()
    assert bench.version == 1
    bench.pass_time(DAY)
    assert bench.version == 2


# Vetoes.


def test_one_officer_vetoes_for_good(bench: CautiousBench) -> None:
    signed = bench.hand(2)
    status = bench.desk.veto(veto(bench, signed))
    assert status.waiting is None
    bench.pass_time(2 * DAY)
    assert bench.version == 1
    for names in (("olga", "felix"), ALL):
        with pytest.raises(Refused, match="sanna has vetoed it: nobody has asked me"):
            bench.hand(2, names)
    bench.restart()
    bench.pass_time(2 * DAY)
    assert bench.version == 1
    bench.world.now = bench.time
    bench.signatures(bench.request())
    assert logged(bench)[:3] == ["bundle", "waiting", "veto"]


def test_a_veto_again_changes_nothing(bench: CautiousBench) -> None:
    signed = bench.hand(2)
    bench.desk.veto(veto(bench, signed))
    before = logged(bench)
    bench.desk.veto(veto(bench, signed))
    bench.desk.veto(veto(bench, signed, reason="said once more"))
    assert logged(bench) == before
    bench.desk.veto(veto(bench, signed, officer="olga"))
    assert len(logged(bench)) == len(before) + 1


def test_a_veto_that_comes_first_counts_when_its_bundle_comes(bench: CautiousBench) -> None:
    signed = bench.signed(2)
    bench.desk.veto(veto(bench, signed))
    with pytest.raises(Refused, match="vetoed"):
        bench.desk.deliver(signed)


def test_another_bundle_may_have_the_version_of_a_vetoed_one_and_waits_anew(bench: CautiousBench) -> None:
    bench.desk.veto(veto(bench, bench.hand(2)))
    bench.pass_time(HOUR)
    bench.hand(2, expires_at=bench.time + 20 * DAY)
    bench.pass_time(DAY - 1)
    assert bench.version == 1
    bench.pass_time(1)
    assert bench.version == 2


def test_what_a_vetoed_one_had_replaced_does_not_come_back(bench: CautiousBench) -> None:
    first = bench.hand(2)
    bench.pass_time(HOUR)
    bench.desk.veto(veto(bench, bench.hand(3)))
    assert bench.service.status().waiting is None
    bench.pass_time(2 * DAY)
    assert bench.version == 1
    bench.desk.deliver(first)
    assert bench.version == 1, "it waits anew: people may have forgotten it"
    bench.pass_time(DAY)
    assert bench.version == 2


def test_a_veto_of_what_is_in_force_comes_too_late(bench: CautiousBench) -> None:
    signed = bench.hand(2, ALL)
    with pytest.raises(Refused, match="veto-late"):
        bench.desk.veto(veto(bench, signed))
    bench.hand(3, ALL)
    with pytest.raises(Refused, match="veto-late"):
        bench.desk.veto(veto(bench, signed))


def test_a_veto_is_an_officers_own_and_in_time(bench: CautiousBench) -> None:
    signed = bench.hand(2)
    stranger = SigningKey.generate()
    for code, bad in (
        ("officer-unknown", veto(bench, signed, stranger, officer="mallory")),
        ("officer-signature", veto(bench, signed, stranger)),
        ("officer-signature", veto(bench, signed, bench.world.officers["olga"])),
    ):
        with pytest.raises(Refused, match=code):
            bench.desk.veto(bad)
    bench.pass_time(9 * DAY)
    with pytest.raises(Refused, match="officer-expired"):
        bench.desk.veto(veto(bench, bench.signed(3)))


def test_nobody_silences_officers_by_setting_the_clock_to_a_time_when_their_grants_have_ended(
    bench: CautiousBench,
) -> None:
    signed = bench.hand(2)
    bench.jump(10 * DAY)
    bench.tick()
    assert bench.desk.veto(veto(bench, signed)).waiting is None
    bench.freeze("all")


def test_a_stolen_key_fills_no_disk_with_vetoes(bench: CautiousBench) -> None:
    room = bench.journal.write(lambda book: book.officers)
    for number in range(MAX_STATEMENTS):
        made = veto(bench, bench.signed(2), bundle=f"{number:064x}")
        bench.journal.write(lambda book, made=made: book.record_veto(made, now=bench.time))  # type: ignore[misc]
    assert room.vetoed(f"{7:064x}") is not None
    with pytest.raises(Refused, match="officer-too-much"):
        bench.desk.veto(veto(bench, bench.signed(2), bundle="ab" * 32))
    bench.desk.veto(veto(bench, bench.signed(2), officer="olga"))
