"""A ceremony or restore that is killed at any of its lasting steps leaves nothing half-active, and can go on.

Each run dies by SIGKILL right before its n-th step that outlives it (see tests.support.dying), for every n.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from signers.ceremony.session import read_ceremony
from tests.support import dying
from tests.support.ceremonies import EVM_KEY, HOLDERS, WALLET, RestoreSite, Site, labels

FAMILIES = pytest.mark.parametrize("keyset", [WALLET, EVM_KEY], ids=lambda keyset: str(keyset["id"]))
MOST_STEPS = 100


def killed(site: Site | RestoreSite, where: str, step: int) -> bool:
    """Run it and die before a step; False if there are not so many, and it came to its end."""
    done = subprocess.run(
        [sys.executable, dying.__file__, where, str(step), *site.arguments()],
        env={**os.environ, **site.token.env, "PYTHONPATH": str(Path(dying.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    if where == "main":
        assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
    else:
        assert done.returncode in (0, 1), done.stdout + done.stderr
        assert done.returncode == 0 or "ended with -9" in done.stderr
    return done.returncode != 0


def key_file(site: Site | RestoreSite) -> bool:
    return any((site.directory / f"{site.id}.{kind}.json").exists() for kind in ("seed", "key"))


@FAMILIES
def test_a_ceremony_killed_at_every_step_leaves_nothing_half_made(
    keyset: dict[str, Any], tmp_path: Path
) -> None:
    site = Site(tmp_path, keyset)
    step = 1
    while killed(site, "main", step) and not key_file(site):
        assert not (site.directory / f"{site.id}.proven.json").exists()
        left = labels(site.token), [holder for holder in HOLDERS if site.share_file(holder).exists()]
        begun = (site.directory / f"{site.id}.unfinished.json").exists()
        if begun:
            again = site.held(check=False)
            assert again.returncode == 1
            assert "ceremony remove PLAN" in again.stderr
        else:
            assert left == ([], [])
        removed = site.held("remove")
        assert ("no key-set was made" if begun else "nothing to take away") in removed.stdout
        assert labels(site.token) == []
        remains = [
            p for f in (site.directory, site.backup, *(site.root / h for h in HOLDERS)) for p in files(f)
        ]
        assert [path.name for path in remains if not path.name.endswith(".new")] == []
        step += 1
        assert step < MOST_STEPS
    assert step > 15
    # From the key-set's own file on it is made: it is not taken away any more, and goes on.
    site.held("remove")
    assert key_file(site)
    assert len(labels(site.token)) == 2
    site.held()
    assert read_ceremony(site.directory, site.id)[1] is not None


@FAMILIES
def test_a_proof_killed_at_every_step_proves_nothing_and_goes_on(
    keyset: dict[str, Any], tmp_path: Path
) -> None:
    site = Site(tmp_path, keyset)
    site.held_until("proof")
    proof = site.directory / f"{site.id}.proven.json"
    step = 1
    while killed(site, "prover", step):
        assert not proof.exists()
        if labels(site.proof_token):
            refused = site.held(check=False)
            assert "ceremony remove PLAN" in refused.stderr
            site.held("remove")
        assert labels(site.proof_token) == []
        assert len(labels(site.token)) == 2
        step += 1
        assert step < MOST_STEPS
    assert step > 4
    for path in (proof, site.backup / proof.name):
        path.unlink()
    step = 1
    while killed(site, "main", step):
        assert not proof.exists() or read_ceremony(site.directory, site.id)[1] is not None
        step += 1
        assert step < MOST_STEPS
    assert read_ceremony(site.directory, site.id)[1] is not None


@FAMILIES
def test_a_restore_killed_at_every_step_leaves_nothing_half_made(
    keyset: dict[str, Any], tmp_path: Path
) -> None:
    origin = Site(tmp_path / "origin", keyset)
    origin.held()
    site = RestoreSite(tmp_path / "new", origin)
    step = 1
    while killed(site, "main", step) and not key_file(site):
        if (site.directory / f"{site.id}.unfinished.json").exists():
            again = site.held(check=False)
            assert "restore remove PLAN" in again.stderr
        site.held("remove")
        assert labels(site.token) == []
        assert [path.name for path in files(site.directory) if not path.name.endswith(".new")] == []
        step += 1
        assert step < MOST_STEPS
    assert step > 8
    site.held("remove")
    site.held()
    assert len(labels(site.token)) == 2
    assert read_ceremony(site.directory, site.id) == read_ceremony(origin.directory, origin.id)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []
