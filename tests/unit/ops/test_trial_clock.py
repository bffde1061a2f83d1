"""A trial that goes on after a long pause: its officer confirms the signer's clock, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.errors import DevnetError
from ops.stack.clock import confirm_clock
from ops.stack.keys import Person
from policies.keys import SigningKey
from signers.config import ListenSection
from signers.errors import ClockUnsteady
from signers.ports import AttestRequest
from tests.fakes.signer import SignerBench
from tests.fakes.signer_server import served
from tests.fakes.signing import CHAIN, KEYSET

HOUR = 3600


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[SignerBench]:
    made = SignerBench(tmp_path)
    yield made
    made.journal.close()


def officer(bench: SignerBench, key: SigningKey | None = None) -> Person:
    return Person("olga", "org-olga", key or bench.world.officers["olga"], Path("unused"))


def test_after_a_long_pause_the_officer_confirms_and_it_signs_again(
    bench: SignerBench, tmp_path: Path
) -> None:
    socket, told = tmp_path / "s.sock", list[str]()
    bench.jump(3 * HOUR)
    bench.boot = "second"
    bench.restart()
    wanted = AttestRequest(chain=CHAIN, keyset=KEYSET, customer="alice", asset="BTC", branch=0, index=1)
    with pytest.raises(ClockUnsteady):
        bench.service.attest(wanted)
    with served(bench.service, ListenSection(unix=str(socket)), officers=bench.desk):
        confirm_clock(socket, officer(bench), at=bench.time, tell=told.append)
        assert len(told) == 1
        assert bench.service.attest(wanted).attestation.customer == "alice"
        confirm_clock(socket, officer(bench), at=bench.time, tell=told.append)
        assert len(told) == 1


def test_a_signer_whose_time_is_right_is_told_nothing(bench: SignerBench, tmp_path: Path) -> None:
    socket, told = tmp_path / "s.sock", list[str]()
    with served(bench.service, ListenSection(unix=str(socket)), officers=bench.desk):
        confirm_clock(socket, officer(bench, SigningKey.generate()), at=0, tell=told.append)
    assert told == []


def test_a_word_that_is_not_taken_ends_the_start(bench: SignerBench, tmp_path: Path) -> None:
    socket = tmp_path / "s.sock"
    bench.jump(3 * HOUR)
    with served(bench.service, ListenSection(unix=str(socket)), officers=bench.desk):
        with pytest.raises(DevnetError, match="officer-signature"):
            confirm_clock(socket, officer(bench, SigningKey.generate()), at=bench.time, tell=print)
        with pytest.raises(DevnetError, match="clock-time"):
            confirm_clock(socket, officer(bench), at=bench.time - HOUR, tell=print)
    with pytest.raises(DevnetError, match="was not confirmed"):
        confirm_clock(socket, officer(bench), at=bench.time, tell=print)
