"""What npm gives is used only if it is what was pinned, and is fetched only when it is missing."""

from __future__ import annotations

import base64
import hashlib
import io
import platform
import tarfile
from pathlib import Path

import pytest

from ops.setup import npm
from ops.setup.console import SetupError
from ops.setup.npm import (
    ANVIL,
    SAFE,
    SOLC,
    NpmFile,
    WrongContent,
    provide_anvil,
    provide_safe,
    provide_solc,
)


@pytest.fixture(autouse=True)
def no_anvil_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANVIL", raising=False)
    monkeypatch.setattr("ops.setup.npm.shutil.which", lambda name: None)


def registry(place: Path, content: bytes, *members: str) -> tuple[Path, str]:
    """A program that acts as `npm pack`, counting its runs, and the hash of the archive that it gives."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for member in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    (place / "archive").write_bytes(archive.getvalue())
    program = place / "npm"
    program.write_text(f'#!/bin/sh\necho "$@" >> {place}/calls\ncp {place}/archive some-package-1.tgz\n')
    program.chmod(0o755)
    return program, base64.b64encode(hashlib.sha512(archive.getvalue()).digest()).decode()


def test_a_file_is_taken_out_of_the_archive_once_and_again_only_for_another_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, sha512 = registry(tmp_path, b"the compiler", SOLC.member)
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    monkeypatch.setattr(npm, "SOLC", NpmFile("solc@1", sha512, SOLC.member))
    provide_solc(tools, npm=program)
    provide_solc(tools, npm=program)
    assert (tools / "solc/soljson.js").read_bytes() == b"the compiler"
    assert calls.read_text().splitlines() == ["pack --silent --ignore-scripts solc@1"]
    monkeypatch.setattr(npm, "SOLC", NpmFile("solc@2", sha512, SOLC.member))
    provide_solc(tools, npm=program)
    assert len(calls.read_text().splitlines()) == 2


def test_all_safe_contracts_come_out_of_one_archive_and_a_missing_one_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, sha512 = registry(tmp_path, b"compiled", *(file.member for file in SAFE.values()))
    tools, calls = tmp_path / "tools", tmp_path / "calls"
    pinned = {name: NpmFile("safe@1", sha512, file.member) for name, file in SAFE.items()}
    monkeypatch.setattr(npm, "SAFE", pinned)
    for _ in range(2):
        provide_safe(tools, npm=program)
        assert {path.stem for path in (tools / "safe").glob("*.json")} == set(SAFE)
        assert len(calls.read_text().splitlines()) == 1
    (tools / "safe/Safe.json").unlink()
    provide_safe(tools, npm=program)
    assert (tools / "safe/Safe.json").read_bytes() == b"compiled"
    monkeypatch.setattr(npm, "SAFE", {**pinned, "Other": NpmFile("safe@1", sha512, "package/other.json")})
    with pytest.raises(WrongContent, match=r"holds no file package/other\.json"):
        provide_safe(tools, npm=program)


def test_an_archive_with_another_hash_is_refused_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    program, _ = registry(tmp_path, b"something else", SOLC.member)
    with pytest.raises(WrongContent, match="is not what was chosen"):
        provide_solc(tmp_path / "tools", npm=program)
    assert not (tmp_path / "tools/solc/soljson.js").exists()
    assert len((tmp_path / "calls").read_text().splitlines()) == 1, "asking again would not help"


def test_a_failing_download_is_tried_again_and_then_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "npm"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho no network >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr("ops.setup.console.time.sleep", lambda seconds: None)
    with pytest.raises(SetupError, match=r"(?s)no network.*npm config get registry"):
        provide_solc(tmp_path / "tools", npm=program)
    assert len((tmp_path / "calls").read_text().splitlines()) == 3


def test_a_processor_without_a_known_anvil_is_told_to_name_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(SetupError, match=r"aarch64.*ANVIL="):
        provide_anvil(tmp_path / "tools", npm=tmp_path / "no-npm")


def test_an_anvil_that_is_named_is_used_and_none_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANVIL", "/opt/anvil")
    provide_anvil(tmp_path / "tools", npm=tmp_path / "no-npm")
    assert not (tmp_path / "tools").exists()


def test_pins_are_sha512_of_exact_versions() -> None:
    for pinned in (ANVIL, SOLC, *SAFE.values()):
        assert len(base64.b64decode(pinned.sha512)) == 64
        assert pinned.package.rpartition("@")[2].replace(".", "").isdigit()
