"""Set-up: what it says when a step fails, that downloads are tried again, what its scripts run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ops.setup import parts
from ops.setup.console import SetupError, run, with_retries
from ops.setup.debs import host_codename, main_archive


def test_a_failed_step_shows_the_end_of_its_output_and_what_to_do() -> None:
    with pytest.raises(SetupError, match=r"(?s)ended with 7.*the reason.*Try the other thing"):
        run(["sh", "-c", "echo the reason >&2; exit 7"], advice="Try the other thing.")
    with pytest.raises(SetupError, match=r"(?s)cannot be started.*Install it"):
        run(["/nonexistent/program"], advice="Install it.")


def test_a_download_is_tried_again_and_the_last_failure_is_told() -> None:
    failures = iter([SetupError("first"), SetupError("second")])

    def flaky() -> str:
        failure = next(failures, None)
        if failure is not None:
            raise failure
        return "done"

    assert with_retries(flaky, what="it", pause_seconds=0) == "done"
    with pytest.raises(SetupError, match="always"):
        with_retries(lambda: fail("always"), what="it", pause_seconds=0)


def fail(why: str) -> None:
    raise SetupError(why)


def test_the_mirror_is_the_one_of_this_machine() -> None:
    assert host_codename() in ("bookworm", "trixie")
    assert "://" in main_archive()


def test_a_script_runs_its_program_through_the_loader_that_came_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "with blanks" / ".tools"
    library = "usr/lib/x86_64-linux-gnu"

    def download(_suites: object, _packages: object, target: Path) -> None:
        (target / library).mkdir(parents=True)
        (target / "usr/bin").mkdir(parents=True)
        loader = target / library / "ld-linux-x86-64.so.2"
        loader.write_text('#!/bin/sh\necho "$@"\n')
        loader.chmod(0o755)
        (target / library / "libc.so.6").touch()

    monkeypatch.setattr(parts, "download_from", download)
    monkeypatch.setattr("ops.setup.parts.shutil.which", lambda _name: None)
    monkeypatch.delenv("BITCOIND", raising=False)
    parts.provide_bitcoind(tools)
    said = subprocess.run(
        [tools / "bin/bitcoind", "-regtest"], capture_output=True, text=True, check=True
    ).stdout
    root = f"{tools}/bin/../bitcoind"
    assert said == f"--library-path {root}/{library} {root}/usr/bin/bitcoind -regtest\n"
    monkeypatch.setattr(parts, "download_from", lambda *_: fail("downloaded again"))
    parts.provide_bitcoind(tools)


def test_what_is_on_path_is_used_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "download_from", lambda *_: fail("downloaded"))
    monkeypatch.setattr(parts, "private_apt", lambda **_: fail("asked apt"))
    # The compiler is no program that a PATH could have: its artifacts are compared byte by byte, so it is pinned.
    monkeypatch.setattr(parts, "provide_solc", lambda *_, **__: None)
    monkeypatch.setattr(parts, "provide_safe", lambda *_, **__: None)
    monkeypatch.setattr("ops.setup.parts.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("SOFTHSM2_MODULE", "/usr/lib/softhsm/libsofthsm2.so")
    parts.provide_parts(tmp_path / ".tools")
    assert not (tmp_path / ".tools").exists()
