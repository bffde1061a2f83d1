"""A demonstration's clock: forward only, and only where no money is worth anything."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from chains.errors import InvalidValue
from policies.democlock import MOST_SECONDS, DemoClock, check_test_networks
from signers.trust.timekeeping import TrialWall
from tests.fakes.signer import EvmBench, SignerBench


def test_it_is_the_machines_clock_until_it_is_set_forward(tmp_path: Path) -> None:
    clock = DemoClock(tmp_path / "clock")
    assert abs(clock() - time.time()) < 5
    clock.set_forward(3600)
    clock.set_forward(60)
    assert clock.ahead() == 3660
    assert DemoClock(tmp_path / "clock")() - time.time() > 3650


@pytest.mark.parametrize("text", ["-1", "1.5", "soon", "", str(MOST_SECONDS + 1), "\u0663"])
def test_anything_else_in_its_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock").write_text(text)
    with pytest.raises(InvalidValue, match="demo clock"):
        DemoClock(tmp_path / "clock")()


def test_it_never_goes_back_and_not_on_for_ever(tmp_path: Path) -> None:
    clock = DemoClock(tmp_path / "clock")
    for seconds in (-1, MOST_SECONDS + 1):
        with pytest.raises(InvalidValue, match="never back"):
            clock.set_forward(seconds)
    assert clock.ahead() == 0


def test_networks_with_real_money_have_none(tmp_path: Path) -> None:
    bench = EvmBench(tmp_path)
    bundle = bench.world.bundle()
    check_test_networks(bundle)
    real = msgspec.structs.replace(bundle.networks[0], chain_id=1)
    with pytest.raises(InvalidValue, match="no local test network"):
        check_test_networks(msgspec.structs.replace(bundle, networks=(real, *bundle.networks[1:])))
    bench.journal.close()


def test_a_signers_trial_clock_is_the_machines_again_under_a_bundle_with_a_real_network(
    tmp_path: Path,
) -> None:
    (tmp_path / "signer").mkdir()
    bench = SignerBench(tmp_path / "signer")
    wall = TrialWall(tmp_path / "clock")
    DemoClock(tmp_path / "clock").set_forward(86_400)
    wall.watch(bench.trust)
    assert wall() - time.time() > 86_000
    bench.adopt(2, network_network="signet")
    assert abs(wall() - time.time()) < 5
    with pytest.raises(InvalidValue):
        wall.watch(bench.trust)
    bench.journal.close()
