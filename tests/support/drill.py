"""Computers of people who leave: nothing of ours on them; what is typed there is what README.txt of the kit says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
import venv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from ops.devnet.process import free_port, release_port, wait_until
from ops.devnet.tools import TOOLS

OURS: Final = ("custody", "signers", "chains", "policies", "ops", "tests")
STANDARD: Final = ("eth-account", "shamir-mnemonic", "click")
"""What README.txt has people install, beside Python, openssl and Bitcoin Core."""

_BLOCK: Final = re.compile(r"^\[([^\]\n]+)\]", re.MULTILINE)


def commands(readme: str, block: str, given: Mapping[str, str]) -> str:
    """The commands of a block of README.txt, with a person's own values in the lines NAME=...

    Every value must have its line, and every such line its value: text and drill can't differ.
    """
    found = {each[1]: each.end() for each in _BLOCK.finditer(readme)}
    following = [each.start() for each in _BLOCK.finditer(readme) if each.start() > found[block]]
    end = min([*following, len(readme)])
    lines: list[str] = []
    goes_on = False
    for line in readme[found[block] : end].splitlines():
        if goes_on or line.startswith("    $ "):
            lines.append(line if goes_on else line.removeprefix("    $ "))
            goes_on = line.endswith("\\")
    left = dict(given)
    for at, line in enumerate(lines):
        name, equals, _ = line.partition("=")
        if equals and re.fullmatch("[A-Z]+", name):
            lines[at] = f"{name}='{left.pop(name)}'"
    assert not left, f"{block} has no line for {sorted(left)}"
    assert lines, f"{block} has no commands"
    return "\n".join(lines)


def packages(names: tuple[str, ...]) -> Iterator[Path]:
    """Files and folders that these packages and all that they need put into site-packages."""
    from packaging.requirements import Requirement

    todo, seen = list(names), set[str]()
    while todo:
        name = todo.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue
        wanted = [Requirement(text) for text in found.requires or ()]
        todo += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        yield from (Path(str(found.locate_file(top))) for top in sorted(tops))


@dataclass
class Computer:
    """One that has Python with the standard packages, openssl, Bitcoin Core, and a folder with the kit."""

    root: Path
    name: str
    programs: Path
    """The folder of the virtual environment, which computers share to save time."""
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)

    @property
    def home(self) -> Path:
        return self.root / self.name

    @property
    def kit(self) -> Path:
        return self.home / "kit"

    def configure(self, text: str | None = None) -> None:
        """Bitcoin Core's settings: of this computer's own node, or of one that somebody runs here."""
        folder = self.home / ".bitcoin"
        folder.mkdir()
        (folder / "bitcoin.conf").write_text(text or f"[regtest]\nrpcport={self.port}\n")

    def bring(self, kit: Path) -> None:
        shutil.copytree(kit, self.kit)

    @property
    def environment(self) -> dict[str, str]:
        """Nothing of ours, and nothing of whoever runs the drill."""
        path = f"{self.programs}/bin:{TOOLS}/bin:/usr/bin:/bin"
        return {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}

    def run(self, script: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        """Type commands in the kit's folder, and what they ask for."""
        # Files, as a daemon that was started would hold a pipe open.
        with (self.home / "typed").open("w+") as source, (self.home / "said").open("w+") as said:
            source.write(typed)
            source.seek(0)
            began = time.monotonic()
            code = subprocess.run(
                ["/bin/bash", "-e", "-o", "pipefail", "-c", script],
                stdin=source,
                stdout=said,
                stderr=subprocess.STDOUT,
                cwd=self.kit,
                env=self.environment,
                check=False,
                timeout=120,
            ).returncode
            said.seek(0)
            output = said.read()
        print(f"\n--- {self.name} ({time.monotonic() - began:.1f} s)\n{script}\n... {output[-1200:].strip()}")
        return subprocess.CompletedProcess(script, code, output)

    def follow(self, block: str, typed: str = "", **given: str) -> str:
        """What README.txt says of a block, which must succeed; what it printed."""
        done = self.run(commands((self.kit / "README.txt").read_text(), block, given), typed)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def fails(self, block: str, typed: str = "", **given: str) -> str:
        """The same where something is wrong; what it said."""
        done = self.run(commands((self.kit / "README.txt").read_text(), block, given), typed)
        assert done.returncode != 0, done.stdout
        return done.stdout

    def carry(self, pattern: str, other: Computer) -> None:
        """Files go over on a USB stick."""
        found = list(self.kit.glob(pattern))
        assert found, f"no {pattern} on {self.name}"
        for each in found:
            shutil.copy(each, other.kit)

    def close(self) -> None:
        """Switch it off, whatever was left running."""
        try:
            number = int((self.home / ".bitcoin" / "regtest" / "bitcoind.pid").read_text())
            os.kill(number, signal.SIGTERM)
        except (OSError, ValueError):
            return
        finally:
            release_port(self.port)
        wait_until(lambda: not Path(f"/proc/{number}").exists(), timeout=60, what="the end of a node")


def make_programs(folder: Path) -> Path:
    """A virtual environment with standard packages and nothing else, that cannot see ours."""
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python3.*/site-packages")
    for path in packages(STANDARD):
        target = site / path.name
        if not target.exists():
            target.symlink_to(path)
    # As `pip install shamir-mnemonic` puts it there.
    command = folder / "bin" / "shamir"
    command.write_text(f"#!{folder}/bin/python3\nfrom shamir_mnemonic.cli import cli\ncli()\n")
    command.chmod(0o755)
    for name in OURS:
        done = subprocess.run(
            [folder / "bin" / "python3", "-c", f"import {name}"],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"No module named '{name}'" in done.stderr, f"{name} can be imported there: {done.stderr}"
    return folder
