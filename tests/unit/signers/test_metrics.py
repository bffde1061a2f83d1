"""The text of the metrics, read back by Prometheus' own parser, and what the numbers in it are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from signers.ports import Reason, Refused
from signers.process.calls import Desk, handlers
from signers.process.gauges import standing
from signers.process.metrics import Instruments, Measured, gauge, serving
from signers.wire import Reply
from tests.fakes.signer import SignerBench
from tests.fakes.signing import CHAIN, KEYSET

Found = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: str) -> Found:
    """All samples: name without the prefix, sorted labels, value."""
    return {
        (sample.name.removeprefix("strongroom_signer_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def test_calls_are_counted_by_outcome_and_refusals_by_code() -> None:
    instruments = Instruments()
    ok, busy = Reply(ok=msgspec.Raw(b"{}")), Reply(error="too often", retry_ms=5)
    refused = Reply(refused=(Reason("fee-cap", "x"), Reason("fee-cap", "y"), Reason("dust", "z")))
    for reply in (ok, ok, busy, Reply(error="x"), refused, refused):
        instruments.answered("sign", reply, 1)
    found = read(instruments.render([]).text)
    counted = {
        dict(labels)["outcome"]: value for (name, labels), value in found.items() if name == "calls_total"
    }
    assert counted == {"ok": 2, "busy": 1, "error": 1, "refused": 2}
    assert found["refusals_total", (("code", "fee-cap"),)] == 2
    assert found["refusals_total", (("code", "dust"),)] == 2
    assert found["call_seconds_count", (("call", "sign"),)] == 6


def test_durations_fall_into_the_bucket_that_holds_them() -> None:
    instruments = Instruments()
    for nanoseconds in (1, 100_000, 100_001, 3_000_000, 9_000_000_000):
        instruments.commits.observe(nanoseconds)
    found = read(instruments.render([]).text)
    buckets = {
        dict(labels)["le"]: value
        for (name, labels), value in found.items()
        if name == "journal_commit_seconds_bucket"
    }
    assert buckets["0.0001"] == 2
    assert buckets["0.00025"] == 3
    assert buckets["0.005"] == 4
    assert buckets["2.5"] == 4
    assert buckets["+Inf"] == 5
    assert found["journal_commit_seconds_count", ()] == 5
    assert found["journal_commit_seconds_sum", ()] == pytest.approx(9.003202)


def test_what_labels_hold_does_not_break_the_text() -> None:
    odd = 'a"b\\c\nd'
    found = read(Instruments().render([gauge("odd", "Odd.", {(("name", odd),): 10**30})]).text)
    assert found == {("odd", (("name", odd),)): 10**30}


def test_counting_from_many_threads_loses_nothing() -> None:
    instruments = Instruments()
    reply = Reply(ok=msgspec.Raw(b"{}"))

    def count() -> None:
        for _ in range(500):
            instruments.answered("status", reply, 5_000)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(instruments.render([]).text)
    assert found["calls_total", (("call", "status"), ("outcome", "ok"))] == 4_000
    assert found["call_seconds_count", (("call", "status"),)] == 4_000


def test_a_signers_standing_moves_with_what_it_signs(bench: SignerBench) -> None:
    instruments = Instruments()
    bench.journal.time_commits(instruments.commits.observe)
    signer = Measured(bench.service, instruments)
    metrics = serving(instruments, standing(bench.trust, bench.journal, bench.clock))
    before = read(metrics().text)
    signer.sign(bench.request(1_000_000))
    with pytest.raises(Refused):
        signer.sign(bench.request(locktime=5))
    after = read(metrics().text)
    paid = next(key for key in after if key[0] == "exposure_units" and dict(key[1])["kind"] == "payments")
    fees = next(key for key in after if key[0] == "exposure_units" and dict(key[1])["kind"] == "chain_fees")
    assert (before[paid], after[paid]) == (0, 1_000_000 + after[fees])
    assert after["exposure_cap_units", paid[1]] == int(bench.trust.present.caps[0].window_cap)
    value = next(key for key in after if key[0] == "exposure_units" and dict(key[1])["kind"] == "value")
    assert after[value] > before[value] == 0
    assert (before["journal_open", ()], after["journal_open", ()]) == (0, 1)
    assert after["journal_transactions", ()] == 1
    assert after["signatures_total", (("chain", CHAIN), ("keyset", KEYSET))] == 1
    assert after["journal_commit_seconds_count", ()] >= 1
    assert after["bundle_version", ()] == bench.trust.present.version
    assert after["bundle_expires_seconds", ()] == bench.trust.present.expires_at
    assert after["clock_suspended", ()] == 0


def test_no_label_says_what_a_request_says(bench: SignerBench) -> None:
    instruments = Instruments()
    desk = Desk(handlers(Measured(bench.service, instruments)), meter=instruments)
    request = msgspec.structs.replace(bench.request(), keyset="canary-keyset")
    call = b'{"v":1,"call":"sign","body":' + msgspec.json.encode(request) + b"}"
    assert desk.answer("user:0", call).refused is not None
    assert desk.answer("user:0", b'{"v":1,"call":"canary","body":{}}').refused is not None
    text = instruments.render([]).text
    assert "canary" not in text
    assert 'call="malformed"' in text
