"""The programs that Strongroom runs beside itself: redis-server, SoftHSM's library, bitcoind and bitcoin-cli,
anvil; the compiler of its contracts, and the Safe contracts.

One that is on PATH already (or named by `BITCOIND`, `ANVIL` or `SOFTHSM2_MODULE`) is used as it is. Else it
is taken from Debian into `.tools/`, with a small script in `.tools/bin/` that runs it with the libraries it
came with; anvil, solc and the Safe contracts come from npm. Nothing becomes a system service, for nothing is installed
on the system.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ops.setup.console import SetupError, run, say
from ops.setup.debs import SYSTEM_STATUS, download_from, extract, private_apt
from ops.setup.npm import provide_anvil, provide_safe, provide_solc

SYSTEM_SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
_BITCOIN_PACKAGE = "bitcoin-knots/trixie-backports"
_BITCOIN_SUITES = ("trixie", "trixie-backports")


def provide_parts(tools: Path) -> None:
    """Makes every part available, downloading only what is missing. Again changes nothing.

    Args:
        tools: the directory `.tools` of the checkout.

    Raises:
        SetupError: a part could not be had; the message says what to do.
    """
    provide_redis(tools)
    provide_softhsm(tools)
    provide_bitcoind(tools)
    npm = tools.parent / ".venv/bin/npm"
    provide_anvil(tools, npm=npm)
    provide_solc(tools, npm=npm)
    provide_safe(tools, npm=npm)


def provide_redis(tools: Path) -> None:
    """Provides `redis-server`, from PATH or as `.tools/bin/redis-server`."""
    script = tools / "bin/redis-server"
    if shutil.which("redis-server") or script.exists():
        return
    say("fetching redis-server from Debian into .tools/")
    # redis-tools holds the program; the package redis-server only adds the service and this very link.
    _extract_host_packages(("redis-tools",), tools / "redis")
    binary = tools / "redis/usr/bin/redis-server"
    binary.unlink(missing_ok=True)
    binary.symlink_to("redis-check-rdb")
    _write_script(
        script,
        f"export LD_LIBRARY_PATH={_library_path(tools / 'redis', script)}\n"
        'exec "$here/../redis/usr/bin/redis-server" "$@"\n',
    )
    run([script, "--version"], advice="Install redis-server by hand (it need not run) and try again.")


def provide_softhsm(tools: Path) -> None:
    """Provides `libsofthsm2.so`, from the system or as `.tools/lib/libsofthsm2.so`."""
    link = tools / "lib/libsofthsm2.so"
    if os.environ.get("SOFTHSM2_MODULE") or Path(SYSTEM_SOFTHSM).exists() or link.exists():
        return
    say("fetching SoftHSM from Debian into .tools/")
    _extract_host_packages(("libsofthsm2",), tools / "softhsm")
    found = sorted((tools / "softhsm").glob("usr/lib/**/libsofthsm2.so"))
    if not found:
        raise SetupError(
            "Debian's libsofthsm2 holds no libsofthsm2.so; install softhsm2 by hand and try again"
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(found[0], link.parent))


def provide_bitcoind(tools: Path) -> None:
    """Provides `bitcoind` and `bitcoin-cli`, from BITCOIND, PATH, or as scripts in `.tools/bin/`."""
    node, client = tools / "bin/bitcoind", tools / "bin/bitcoin-cli"
    if os.environ.get("BITCOIND") or shutil.which("bitcoind") or (node.exists() and client.exists()):
        return
    say("fetching bitcoind from Debian's backports into .tools/")
    download_from(_BITCOIN_SUITES, (_BITCOIN_PACKAGE,), tools / "bitcoind")
    for script in (node, client):
        _write_script(script, _own_loader_script(tools / "bitcoind", script))
        run([script, "-version"], advice="Install bitcoind by hand, or name it in BITCOIND, and try again.")


def _extract_host_packages(packages: tuple[str, ...], target: Path) -> None:
    with private_apt(status=SYSTEM_STATUS) as apt:
        apt.update()
        extract(apt.download(packages), target)


def _library_folders(root: Path) -> list[Path]:
    """Folders below `root` that hold shared libraries, where Debian puts them."""
    return sorted(
        {
            library.parent
            for where in ("lib", "usr/lib")
            for library in root.glob(f"{where}/*-linux-gnu*/*.so.*")
        }
    )


def _library_path(root: Path, script: Path) -> str:
    return ":".join(f'"$here"/{os.path.relpath(folder, script.parent)}' for folder in _library_folders(root))


def _own_loader_script(root: Path, script: Path) -> str:
    """A script that runs a program with the loader and libc it was built for, maybe newer than the host's."""
    loaders = sorted(root.glob("usr/lib/*-linux-gnu*/ld-linux*.so.*"))
    if not loaders:
        raise SetupError(f"{root} holds no dynamic loader; remove .tools/ and run the same command again")
    loader = os.path.relpath(loaders[0], script.parent)
    program = os.path.relpath(root / "usr/bin" / script.name, script.parent)
    return f'exec "$here/{loader}" --library-path {_library_path(root, script)} "$here/{program}" "$@"\n'


def _write_script(script: Path, body: str) -> None:
    script.parent.mkdir(parents=True, exist_ok=True)
    building = script.with_name(script.name + ".new")
    building.write_text('#!/bin/sh\nhere=$(dirname "$(readlink -f "$0")")\n' + body)
    building.chmod(0o755)
    building.rename(script)
