"""The offline signer on a machine of its own: one folder, no network, nothing of the online service."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.airgap import build_wheel, lay_out, reached
from signers.airgap.btc_file import read_payment
from signers.airgap.keys import HolderKey, entropy_of_words
from tests.support.airgap import REGTEST, Holder, Payment, holder_key, multisig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is carried to the offline machine."""
    made = tmp_path_factory.mktemp("carried") / "strongroom-airgap"
    lay_out(made)
    return made


@pytest.fixture(scope="module")
def machine(folder: Path) -> Path:
    """Where `install.sh` has installed it, without a network."""
    venv = folder.parent / "venv"
    done = offline("sh", str(folder / "install.sh"), str(venv))
    assert done.returncode == 0, done.stderr
    assert "Begin with:" in done.stdout
    return venv


def offline(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a network namespace of its own, with nothing in it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"PATH": path, "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["unshare", "-rn", *words], cwd="/", env=env, capture_output=True, text=True, check=False
    )


def test_the_wheel_holds_what_is_reached_and_nothing_of_the_online_side(tmp_path: Path) -> None:
    names = {str(path) for path in reached()}
    assert {
        "signers/airgap/cli.py",
        "chains/btc/multisig.py",
        "policies/bundle/reading.py",
        "signers/__init__.py",
    } <= names
    ours = {name for name in names if name.startswith("signers/")} - {"signers/__init__.py"}
    assert all(name.startswith("signers/airgap/") for name in ours)
    assert [name for name in names if name.startswith(("custody", "ops")) or "/node" in name] == []
    (tmp_path / "again").mkdir()
    assert build_wheel(tmp_path).read_bytes() == build_wheel(tmp_path / "again").read_bytes()


def test_a_folder_that_was_changed_is_not_installed(folder: Path, tmp_path: Path) -> None:
    wheel = next((folder / "wheels").glob("embit-*.whl"))
    honest = wheel.read_bytes()
    sums = (folder / "SHA256SUMS").read_text()
    try:
        wheel.write_bytes(honest + b"\0")
        assert offline("sh", str(folder / "install.sh"), str(tmp_path / "venv")).returncode != 0
        # A thief who writes the sums anew meets the hashes of the lock.
        (folder / "SHA256SUMS").write_text("")
        uv = str(Path(sys.executable).with_name("uv"))
        venv = str(tmp_path / "other")
        assert offline(uv, "venv", "--quiet", "--python", sys.executable, venv).returncode == 0
        done = offline(
            uv, "pip", "install", "--quiet", "--python", f"{venv}/bin/python", "--no-index", "--no-cache",
            "--find-links", str(folder / "wheels"), "--require-hashes", "-r", str(folder / "requirements.lock"),
        )  # fmt: skip
        assert done.returncode != 0
        assert "hash" in done.stderr.lower()
    finally:
        wheel.write_bytes(honest)
        (folder / "SHA256SUMS").write_text(sums)


def test_its_command_says_how_it_is_used(machine: Path) -> None:
    done = offline(str(machine / "bin/strongroom-airgap"), "--help")
    assert (done.returncode, "never online" in done.stdout) == (0, True)


def test_nothing_of_the_online_service_is_there(machine: Path) -> None:
    for module in ("custody", "ops", "signers.daemon", "chains.btc.node", "fastapi", "web3", "requests"):
        done = offline(str(machine / "bin/python"), "-c", f"import {module}")
        assert "ModuleNotFoundError" in done.stderr, module


def test_a_holder_makes_a_key_registers_and_signs_there(machine: Path, tmp_path: Path) -> None:
    command = ("unshare", "-rn", str(machine / "bin/strongroom-airgap"))
    alice = Holder("alice", tmp_path, command=command)
    shown = alice.create()
    assert "THIS MACHINE IS ONLINE" not in shown
    key = HolderKey(entropy_of_words(" ".join(alice.words)), REGTEST)
    wallet = multisig([key, *(holder_key(number) for number in range(4))], 3)
    descriptor, payment = tmp_path / "cold.txt", tmp_path / "pay.psbt"
    descriptor.write_text(wallet.descriptor)
    payment.write_bytes(Payment(wallet).build())
    comparing = ((r"of address 0/0, as another holder reads them:", lambda *_: wallet.address(0, 0)[-12:]),)
    code, shown = alice.run("register", str(descriptor), "--name", "cold-btc", answers=comparing)
    assert code == 0, shown
    answers = ((r"first digits will do\):", lambda *_: "0.5"),)
    code, shown = alice.run("sign", str(payment), "--png", str(tmp_path), answers=answers)
    assert code == 0, shown
    assert read_payment((tmp_path / "pay-signed-alice.psbt").read_bytes()).signed_by[0]
    assert list(tmp_path.glob("pay-signed-alice*.png"))
