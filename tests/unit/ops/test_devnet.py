"""What of the launchers needs no program: ports, waiting, private files, amounts, finding programs."""

from __future__ import annotations

import socket
import stat
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.devnet import tools
from ops.devnet.bitcoind import btc_to_sats, sats_to_btc
from ops.devnet.errors import DeadlineExceeded, DevnetError, PartMissing
from ops.devnet.files import kept_password, kept_pin, let_pass, part_directory, write_private
from ops.devnet.process import free_port, release_port, wait_until


def test_no_port_is_given_twice_while_it_is_claimed() -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    for port in ports:
        release_port(port)
        release_port(port)


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        monkeypatch.setattr("ops.devnet.process.random.sample", lambda _range, _count: [taken])
        with pytest.raises(DevnetError, match="no free port"):
            free_port()


def test_waiting_ends_when_the_predicate_is_true_or_the_time_is_up_or_there_is_no_point() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), timeout=5, what="three looks")
    with pytest.raises(DeadlineExceeded, match=r"0\.05 s for pigs to fly"):
        wait_until(lambda: False, timeout=0.05, what="pigs to fly")
    with pytest.raises(DevnetError, match="they have no wings"):
        wait_until(lambda: False, timeout=5, what="pigs", stop_waiting=lambda: "they have no wings")


def test_secrets_are_kept_in_private_files_and_never_change(tmp_path: Path) -> None:
    for make in (kept_password, kept_pin):
        path = tmp_path / make.__name__
        first = make(path)
        assert make(path) == first
        assert len(first) >= 16
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "kept_pin").read_text().isdigit()
    assert kept_password(tmp_path / "other") != kept_password(tmp_path / "kept_password")


def test_a_private_file_is_private_even_where_there_was_an_open_one(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("public")
    path.chmod(0o644)
    write_private(path, "private")
    assert path.read_text() == "private"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(("before", "after"), [(0o700, 0o711), (0o1777, 0o1777), (0o755, 0o755)])
def test_a_directory_that_others_may_pass_keeps_what_else_they_may(
    tmp_path: Path, before: int, after: int
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(before)
    let_pass(place)
    assert stat.S_IMODE(place.stat().st_mode) == after


def test_a_part_directory_can_be_passed_but_not_listed_by_others() -> None:
    directory = part_directory("strongroom-test-")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o711
    directory.rmdir()


@given(st.integers(min_value=0, max_value=21_000_000 * 100_000_000))
def test_satoshis_survive_the_way_to_bitcoind_and_back(amount_sats: int) -> None:
    assert btc_to_sats(Decimal(sats_to_btc(amount_sats))) == amount_sats


def test_a_fraction_of_a_satoshi_is_no_amount() -> None:
    assert sats_to_btc(150) == "0.00000150"
    with pytest.raises(ValueError, match="whole number of satoshis"):
        btc_to_sats(Decimal("0.000000001"))


def test_a_program_is_taken_from_the_environment_then_path_then_the_tools_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def program(where: str) -> Path:
        path = tmp_path / where / "bitcoind"
        path.parent.mkdir(parents=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    fetched, on_path, named = program("tools/bin"), program("path"), program("named")
    monkeypatch.setattr(tools, "TOOLS", tmp_path / "tools")
    monkeypatch.setenv("BITCOIND", str(named))
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert tools.bitcoind_program() == named
    monkeypatch.delenv("BITCOIND")
    assert tools.bitcoind_program() == on_path
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.bitcoind_program() == fetched
    fetched.unlink()
    with pytest.raises(PartMissing, match="make setup"):
        tools.bitcoind_program()


def test_a_program_named_in_the_environment_that_is_not_there_is_not_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITCOIND", str(tmp_path / "nothing"))
    with pytest.raises(PartMissing, match="BITCOIND"):
        tools.bitcoind_program()
