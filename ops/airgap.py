"""`python -m ops.airgap DIR`: everything that an offline machine needs for `strongroom-airgap`, in one folder.

Exactly the modules that the offline signer reaches are packed into one wheel (the same bytes from the same checkout),
beside the wheels of its locked packages. The lock with the hashes of all of them, ours too, is what `install.sh` obeys.
"""

from __future__ import annotations

import argparse
import ast
import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
OURS: Final = ("chains", "policies", "signers")
START: Final = "signers.airgap"
LOCK: Final = ROOT / "signers/airgap/requirements.lock"
LISTED: Final = ROOT / "signers/airgap/requirements.in"
SOURCES: Final = ("embit",)
"""Packages that come as source only: their wheels are built here."""
_MANYLINUX: Final = re.compile(r"manylinux_2_(\d+)_(\w+)")
_OLDEST_GLIBC: Final = 17
"""Minor version that `manylinux2014` names."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every file in the wheel: the earliest that ZIP knows."""

INSTALL: Final = """\
#!/bin/sh
# Installs strongroom-airgap from this folder alone: sh install.sh [FOLDER]. It needs Python's venv and no network.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:-$HOME/strongroom-airgap}
(cd "$here" && sha256sum --check --quiet SHA256SUMS)
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --no-index --find-links "$here/wheels" --require-hashes -r "$here/requirements.lock"
echo "Installed. Begin with:  $venv/bin/strongroom-airgap --help"
"""


def reached(start: str = START) -> tuple[Path, ...]:
    """Files of our modules that a package reaches by imports, those within functions too, relative to the checkout."""
    found: set[Path] = set()
    waiting = [path.relative_to(ROOT) for path in sorted((ROOT / start.replace(".", "/")).glob("*.py"))]
    while waiting:
        path = waiting.pop()
        if path in found or not (ROOT / path).exists():
            continue
        found.add(path)
        waiting += [each / "__init__.py" for each in path.parents if each.name]
        waiting += _imported(path)
    return tuple(sorted(found))


def _imported(path: Path) -> Iterable[Path]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in OURS:
                place = Path(*name.split("."))
                yield from (
                    each
                    for each in (place.with_suffix(".py"), place / "__init__.py")
                    if (ROOT / each).exists()
                )


def build_wheel(folder: Path) -> Path:
    """Write the wheel of our modules; again gives the same bytes. Returns its path."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    info = f"strongroom_airgap-{version}.dist-info"
    needs = [line for line in LISTED.read_text().splitlines() if line and not line.startswith("#")]
    files = {str(path): (ROOT / path).read_bytes() for path in reached()}
    files[f"{info}/METADATA"] = "\n".join(
        ["Metadata-Version: 2.1", "Name: strongroom-airgap", f"Version: {version}", "Requires-Python: >=3.11",
         *(f"Requires-Dist: {need}" for need in needs), ""]
    ).encode()  # fmt: skip
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: strongroom\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = b"[console_scripts]\nstrongroom-airgap = signers.airgap.cli:main\n"
    files[f"{info}/RECORD"] = _record(files, f"{info}/RECORD")
    wheel = folder / f"strongroom_airgap-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as packed:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            packed.writestr(entry, content)
    return wheel


def _record(files: dict[str, bytes], own: str) -> bytes:
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    return "".join([*lines, f"{own},,\n"]).encode()


def lay_out(folder: Path, python: str | None = None, platform: str | None = None) -> None:
    """Fill a new folder.

    Args:
        folder: is made.
        python: version of the offline machine's Python, such as `3.13`; None: this one's.
        platform: of its wheels, such as `manylinux_2_28_x86_64`; None: this one's.

    Raises:
        FileExistsError: the folder is there.
        CalledProcessError: a wheel can't be had.
    """
    wheels = folder / "wheels"
    wheels.mkdir(parents=True)
    locked = _locked()
    built = "".join(text for name, text in locked.items() if name in SOURCES)
    others = "".join(text for name, text in locked.items() if name not in SOURCES)
    where = [
        *(["--python-version", python] if python else []),
        *(word for each in platforms(platform) for word in ("--platform", each)),
    ]
    _pip("wheel", built, wheels, ["--no-build-isolation", "--wheel-dir", str(wheels)])
    _pip("download", others, wheels, ["--only-binary=:all:", "--dest", str(wheels), *where])
    build_wheel(wheels)
    (folder / "requirements.lock").write_text("".join(map(_pinned, sorted(wheels.iterdir()))))
    (folder / "install.sh").write_text(INSTALL)
    shutil.copy(ROOT / "signers/airgap/README.md", folder / "README.md")
    sums = [
        f"{_sha256(path)}  {path.relative_to(folder)}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("".join(sums))


def platforms(wanted: str | None) -> tuple[str, ...]:
    """The tags of wheels that run where one of a platform does: pip takes those that it is told only, and many are
    built for an older C library (PEP 600, PEP 599).

    Args:
        wanted: such as `manylinux_2_28_x86_64`; None: this machine's, which pip knows itself.
    """
    if wanted is None:
        return ()
    found = _MANYLINUX.fullmatch(wanted)
    if found is None:
        return (wanted,)
    newest, machine = int(found[1]), found[2]
    older = tuple(f"manylinux_2_{minor}_{machine}" for minor in range(newest, _OLDEST_GLIBC - 1, -1))
    return older + ((f"manylinux2014_{machine}",) if newest >= _OLDEST_GLIBC else ())


def _locked() -> dict[str, str]:
    """The lock's lines by package."""
    found: dict[str, str] = {}
    name = ""
    for line in LOCK.read_text().splitlines(keepends=True):
        if not line.startswith(" "):
            name = line.split("==")[0]
        found[name] = found.get(name, "") + line
    return found


def _pip(verb: str, lock: str, folder: Path, options: list[str]) -> None:
    """Run pip on a part of the lock, whose hashes it checks."""
    part = folder.with_name("part.lock")
    part.write_text(lock)
    words = [
        sys.executable,
        "-m",
        "pip",
        verb,
        "--quiet",
        "--require-hashes",
        "--no-deps",
        "-r",
        str(part),
        *options,
    ]
    try:
        # What is built has the same bytes every time.
        subprocess.run(words, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "315532800"})
    finally:
        part.unlink()


def _pinned(wheel: Path) -> str:
    """The lock's line for one wheel: what the hashes of the checkout's lock let in, or was built from that."""
    name, version = wheel.name.split("-")[:2]
    return f"{name}=={version} --hash=sha256:{_sha256(wheel)}\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Fill the folder that is named."""
    parser = argparse.ArgumentParser(prog="python -m ops.airgap", description=__doc__, allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", help="version of the offline machine's Python, such as 3.13")
    parser.add_argument("--platform", help="of its wheels, such as manylinux_2_28_x86_64")
    given = parser.parse_args()
    if given.folder.exists():
        sys.exit(f"{given.folder} is there already: name a new folder")
    try:
        lay_out(given.folder, given.python, given.platform)
    except subprocess.CalledProcessError:
        shutil.rmtree(given.folder)
        sys.exit("a package can't be had, as pip says above; nothing was laid out")
    print(f"{given.folder}: carry it to the offline machine, and run  sh install.sh  there.")
    print(f"Read this over the telephone to whoever installs it: {_sha256(given.folder / 'SHA256SUMS')}")


if __name__ == "__main__":
    main()
