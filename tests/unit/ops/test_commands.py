"""`up`, `demo` and `bench` refuse what cannot work before they begin, in a sentence, and leave nothing behind."""

from __future__ import annotations

import fcntl
import socket
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from ops.bench.__main__ import measure
from ops.bench.compare import Row
from ops.cli import writable
from ops.demo.command import After, run
from ops.devnet.errors import DevnetError
from ops.stack.stack import Stack


def test_a_directory_belongs_to_one_stack_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DevnetError, match=r"runs in .* already"):
            Stack(tmp_path).up()


def test_a_port_that_somebody_has_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        stack = Stack(tmp_path, api_port=taken.getsockname()[1])
        for _ in range(2):  # the directory is free again after the refusal
            with pytest.raises(DevnetError, match=r"cannot have port \d+ .* --port"):
                stack.up()
        assert not (tmp_path / "postgres/data").exists()


def test_a_tour_that_cannot_begin_leaves_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", "garbage")
    assert run(After.END, json_file=None, keep=None) == 2
    assert "DATABASE_URL is no connection string" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_tour_begins_in_an_empty_directory_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    for keep in (tmp_path, tmp_path / "file"):
        assert run(After.END, json_file=None, keep=keep) == 2
        assert "is not an empty directory" in capsys.readouterr().out
    assert (tmp_path / "file").read_text() == "mine"


def test_a_record_s_file_is_tried_before_the_work(tmp_path: Path) -> None:
    assert writable(tmp_path / "tour.json") == tmp_path / "tour.json"
    assert writable(None) is None
    for impossible in (tmp_path, tmp_path / "nowhere/tour.json"):
        with pytest.raises(typer.BadParameter, match="cannot be written"):
            writable(impossible)


def test_one_row_is_measured_under_the_name_that_it_is_printed_with(monkeypatch: pytest.MonkeyPatch) -> None:
    two = [Row(name, 2.0, 1.0, "a peer", "rows/s") for name in ("addresses", "addresses-of-ten")]
    module = SimpleNamespace(rows=lambda _progress: iter(two))
    monkeypatch.setitem(sys.modules, "ops.bench.addresses", module)
    assert list(measure("addresses", lambda _: None)) == two
    assert list(measure("addresses-of-ten", lambda _: None)) == two[1:]
    for name in ("addresses-of-mars", "nothing"):
        with pytest.raises(typer.BadParameter, match="there are block-scan"):
            list(measure(name, lambda _: None))
