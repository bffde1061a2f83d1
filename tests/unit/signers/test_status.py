"""What a signer's status says of what waits for a verifier, of who asks for it, and of how full its windows are."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from signers.ports import Reason, Unresolved, WindowUse
from signers.process.metrics import Instruments, Measured
from signers.wire import Reply
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, DAY, KEYSET


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def pay(bench: SignerBench, units: int = 1_000_000) -> None:
    bench.signatures(bench.request(units))


def used(bench: SignerBench, kind: str) -> WindowUse:
    (found,) = (use for use in bench.service.status().windows if use.kind == kind)
    return found


def waiting(count: int, oldest_at: int | None, resolved_at: int | None) -> tuple[Unresolved, ...]:
    told = Unresolved(keyset=KEYSET, chain=CHAIN, count=count, oldest_at=oldest_at, resolved_at=resolved_at)
    return (told,)


def test_before_the_first_signature_nothing_waits(bench: SignerBench) -> None:
    status = bench.service.status()
    assert status.unresolved == ()
    assert status.at == bench.time
    assert {use.units for use in status.windows} == {"0"}


def test_what_waits_for_a_verifier_is_counted_since_the_oldest_also_after_a_restart(
    bench: SignerBench,
) -> None:
    first = bench.time
    pay(bench)
    bench.time += 600
    pay(bench)
    assert bench.service.status().unresolved == waiting(2, first, None)
    assert bench.service.status().at == first + 600
    bench.restart()
    assert bench.service.status().unresolved == waiting(2, first, None)


def test_a_verifiers_word_is_remembered_with_its_time_and_again_changes_nothing(bench: SignerBench) -> None:
    first = bench.time
    pay(bench)
    bench.time += 600
    bench.resolve()
    assert bench.service.status().unresolved == waiting(0, None, first + 600)
    bench.time += 60
    pay(bench)
    assert bench.resolve("dead", contents={"0" * 64}) == 0
    assert bench.service.status().unresolved == waiting(1, first + 660, first + 600)
    bench.restart()
    assert bench.service.status().unresolved == waiting(1, first + 660, first + 600)


def test_windows_stand_beside_their_caps_and_empty_when_what_is_in_them_is_over(bench: SignerBench) -> None:
    pay(bench)
    bundle = bench.trust.present
    paid, fees, value = (used(bench, kind) for kind in ("payments", "chain_fees", "value"))
    assert (paid.scope, paid.unit, paid.cap, paid.seconds) == (
        "hot|BTC",
        "BTC",
        bundle.caps[0].window_cap,
        DAY,
    )
    assert int(fees.units) > 0
    # Fees count in the tier's window as well.
    assert int(paid.units) == 1_000_000 + int(fees.units)
    assert (value.scope, value.unit, value.cap) == (
        f"all-{KEYSET}",
        bundle.unit,
        bundle.breakers[0].value_cap,
    )
    bench.resolve()
    bench.time += DAY + 1
    assert {use.units for use in bench.service.status().windows} == {"0"}


def test_while_the_clock_is_suspended_nothing_falls_out_of_a_window(bench: SignerBench) -> None:
    pay(bench)
    bench.resolve()
    before = used(bench, "payments")
    bench.jump(3 * DAY)
    assert bench.service.status().suspended
    assert used(bench, "payments") == before


def test_who_asks_what_is_open_is_noticed_and_nobody_else(
    bench: SignerBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = [5_000_000_000]
    monkeypatch.setattr("signers.process.metrics.time.monotonic_ns", lambda: passed[0])
    instruments = Instruments()
    signer = Measured(bench.service, instruments)
    passed[0] += 90 * 1_000_000_000
    refused = Reply(refused=(Reason("malformed-request", "x"),))
    ok = Reply(ok=msgspec.Raw(b"{}"))
    for call, reply in (
        ("status", ok),
        ("log", ok),
        ("open", refused),
        ("open", Reply(error="x", retry_ms=1)),
    ):
        instruments.answered(call, reply, 1)
    assert signer.status().unasked_seconds == 90
    instruments.answered("open", ok, 1)
    assert signer.status().unasked_seconds == 0
    passed[0] += 7 * 1_000_000_000
    assert signer.status().unasked_seconds == 7


def test_counting_what_waits_reads_an_index_that_holds_nothing_else(bench: SignerBench) -> None:
    """A status is asked for often, and the journal's writer answers it between two payments."""
    pay(bench)
    bench.journal.close()
    connection = sqlite3.connect(bench.directory / "journal.sqlite")
    plan = " ".join(
        row[3]
        for row in connection.execute(
            "EXPLAIN QUERY PLAN SELECT keyset, chain, count(*), min(at) FROM transactions WHERE outcome IS NULL"
            " GROUP BY keyset, chain"
        )
    )
    assert "COVERING INDEX transactions_open" in plan
    connection.close()
    bench.start()
