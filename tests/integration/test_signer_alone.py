"""A signer where nothing else is: the packages of its own lock, and three of our directories. No custody, no ops."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.devnet.softhsm import SoftHsmToken
from signers.keys.keyset import BitcoinKeysetRecord
from tests.fakes.signer_daemon import BitcoinDaemon

ROOT = Path(__file__).parents[2]
OURS = ("chains", "policies", "signers")


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with our three packages and an environment `venv` with the signer's lock and nothing else."""
    directory = tmp_path_factory.mktemp("alone")
    for name in OURS:
        shutil.copytree(
            ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "verifier")
        )
    uv = Path(sys.executable).with_name("uv")
    python = directory / "venv/bin/python"
    _run(uv, "venv", "--quiet", "--python", sys.executable, directory / "venv")
    into: tuple[str | Path, ...] = (
        "--quiet", "--python", python, "--require-hashes", "--no-build-isolation",
    )  # fmt: skip
    # What packages that come as source are built with; the last step takes it away again.
    for verb, lock in (
        ("install", "requirements-setup.lock"),
        ("install", "signers/requirements.lock"),
        ("sync", "signers/requirements.lock"),
    ):
        _run(uv, "pip", verb, *into, *(["-r"] if verb == "install" else []), ROOT / lock)
    return directory


def _run(*words: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    env.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def in_place(place: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return _run(place / "venv/bin/python", *words, cwd=place, check=check)


def test_nothing_of_the_online_service_is_there(place: Path) -> None:
    for module in ("custody", "ops", "fastapi", "sqlalchemy", "psycopg", "web3", "celery", "redis", "httpx"):
        done = in_place(place, "-c", f"import {module}", check=False)
        assert "ModuleNotFoundError" in done.stderr, module


@pytest.fixture
def daemon(
    softhsm: SoftHsmToken, daemon_keys: tuple[BitcoinKeysetRecord, Path], place: Path, tmp_path: Path
) -> Iterator[BitcoinDaemon]:
    made = BitcoinDaemon(softhsm, *daemon_keys, tmp_path)
    made.command[0], made.code = str(place / "venv/bin/python"), place
    yield made
    made.close()


def test_the_daemon_starts_signs_and_ends_there(daemon: BitcoinDaemon, place: Path) -> None:
    daemon.start()
    assert daemon.process is not None
    maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert str(place / "venv") in maps
    assert str(ROOT / ".venv/lib") not in maps
    request = daemon.request()
    answer = daemon.client.sign(request)
    assert answer.signatures
    assert daemon.client.sign(request) == answer
    assert daemon.end() == 0
    log, root = daemon.stores / "log.jsonl", daemon.stores / "pinned.json"
    trust = ("--bundle", str(daemon.directory / "bundle.json"), "--root", str(root))
    said = in_place(place, "-m", "signers.cli", "log", str(log), *trust)
    assert "whole" in said.stdout


def test_each_of_its_parts_can_be_imported_there(place: Path) -> None:
    """All but the offline signer, which has requirements of its own."""
    every = """
import importlib, pkgutil, signers
names = [m.name for m in pkgutil.walk_packages(signers.__path__, "signers.") if ".airgap" not in m.name]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""
    assert int(in_place(place, "-c", every).stdout) > 50


def test_every_verb_of_its_command_says_how_it_is_used(place: Path) -> None:
    listed = in_place(place, "-m", "signers.cli", "--help").stderr
    verbs = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert {"ceremony", "restore", "test", "freeze", "bundle", "clock", "log"} <= set(verbs)
    for verb in verbs:
        assert "usage: strongroom key" in in_place(place, "-m", "signers.cli", verb, "--help").stdout
