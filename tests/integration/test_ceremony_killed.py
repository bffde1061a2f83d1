"""A ceremony or restore that is killed at any of its lasting steps leaves nothing half-active, and can go on.

Each run dies by SIGKILL right before its n-th step that outlives it (see tests.support.dying), for every n.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ops.devnet.softhsm import SoftHsmToken
from signers.ceremony.session import read_ceremony
from tests.support.ceremonies import EVM_KEY, HOLDERS, WALLET, RestoreSite, Site
from tests.support.dying import Forge

FAMILIES = pytest.mark.parametrize("keyset", [WALLET, EVM_KEY], ids=lambda keyset: str(keyset["id"]))
MOST_STEPS = 100


class Killer:
    """Holds the ceremonies of a site, and kills them."""

    def __init__(self, site: Site | RestoreSite, stack: ExitStack) -> None:
        self.site = site
        self._stack = stack
        self._forges: dict[str, Forge] = {}

    def killed(self, where: str, step: int) -> bool:
        """Run it and die before a step; False if there are not so many, and it came to its end."""
        code, output = self._forge(self.site.token).run(self.site.arguments(), where, step)
        if where == "main":
            assert code in (0, -signal.SIGKILL), output
        else:
            assert code in (0, 1), output
            assert code == 0 or "ended with -9" in output
        return code != 0

    def held(self, command: str = "run") -> tuple[int, str]:
        """Exit code and output."""
        return self._forge(self.site.token).run(self.site.arguments(command))

    def labels(self, token: SoftHsmToken) -> list[str]:
        """Labels of a token's keys."""
        arguments = ["labels", str(token.module_path), token.label, str(token.pin_path)]
        code, output = self._forge(token).run(arguments)
        assert code == 0, output
        return output.split()

    def made(self) -> bool:
        """Whether there is a key-set."""
        return any((self.site.directory / f"{self.site.id}.{kind}.json").exists() for kind in ("seed", "key"))

    def _forge(self, token: SoftHsmToken) -> Forge:
        if token.label not in self._forges:
            self._forges[token.label] = self._stack.enter_context(Forge(token.env))
        return self._forges[token.label]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@FAMILIES
def test_a_ceremony_killed_at_every_step_leaves_nothing_half_made(
    keyset: dict[str, Any], tmp_path: Path, stack: ExitStack
) -> None:
    site = Site(tmp_path, keyset)
    killer = Killer(site, stack)
    step = 1
    while killer.killed("main", step) and not killer.made():
        assert not (site.directory / f"{site.id}.proven.json").exists()
        begun = (site.directory / f"{site.id}.unfinished.json").exists()
        code, output = killer.held() if begun else (1, "ceremony remove PLAN")
        assert (code, "ceremony remove PLAN" in output) == (1, True), output
        assert begun or not any(site.share_file(holder).exists() for holder in HOLDERS)
        code, output = killer.held("remove")
        assert code == 0, output
        assert ("no key-set was made" if begun else "nothing to take away") in output
        assert killer.labels(site.token) == []
        folders = (site.directory, site.backup, *(site.root / holder for holder in HOLDERS))
        assert [path.name for folder in folders for path in files(folder)] == []
        step += 1
        assert step < MOST_STEPS
    assert step > 15
    # From the key-set's own file on it is made: it is not taken away any more, and goes on.
    killer.held("remove")
    assert killer.made()
    assert len(killer.labels(site.token)) == 2
    assert killer.held()[0] == 0
    assert read_ceremony(site.directory, site.id)[1] is not None


@FAMILIES
def test_a_proof_killed_at_every_step_proves_nothing_and_goes_on(
    keyset: dict[str, Any], tmp_path: Path, stack: ExitStack
) -> None:
    site = Site(tmp_path, keyset)
    site.held_until("proof")
    killer = Killer(site, stack)
    proof = site.directory / f"{site.id}.proven.json"
    step = 1
    while killer.killed("prover", step):
        assert not proof.exists()
        if killer.labels(site.proof_token):
            assert "ceremony remove PLAN" in killer.held()[1]
            killer.held("remove")
        assert killer.labels(site.proof_token) == []
        step += 1
        assert step < MOST_STEPS
    assert step > 4
    for path in (proof, site.backup / proof.name):
        path.unlink()
    step = 1
    while killer.killed("main", step):
        assert not proof.exists() or read_ceremony(site.directory, site.id)[1] is not None
        step += 1
        assert step < MOST_STEPS
    assert read_ceremony(site.directory, site.id)[1] is not None
    assert len(killer.labels(site.token)) == 2


@FAMILIES
def test_a_restore_killed_at_every_step_leaves_nothing_half_made(
    keyset: dict[str, Any], tmp_path: Path, stack: ExitStack
) -> None:
    origin = Site(tmp_path / "origin", keyset)
    origin.held()
    site = RestoreSite(tmp_path / "new", origin)
    killer = Killer(site, stack)
    step = 1
    while killer.killed("main", step) and not killer.made():
        if (site.directory / f"{site.id}.unfinished.json").exists():
            assert "restore remove PLAN" in killer.held()[1]
        killer.held("remove")
        assert killer.labels(site.token) == []
        assert files(site.directory) == []
        step += 1
        assert step < MOST_STEPS
    assert step > 8
    killer.held("remove")
    assert killer.held()[0] == 0
    assert len(killer.labels(site.token)) == 2
    assert read_ceremony(site.directory, site.id) == read_ceremony(origin.directory, origin.id)


def files(folder: Path) -> list[Path]:
    """What is in a folder, but for what `write_new` cut off: it is written over, and never read."""
    return [path for path in sorted(folder.iterdir()) if path.suffix != ".new"] if folder.exists() else []
