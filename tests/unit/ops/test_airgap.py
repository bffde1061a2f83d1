"""What an offline machine of another make is given: wheels for its Python and its C library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ops import airgap
from ops.airgap import platforms


def test_wheels_for_older_c_libraries_run_on_newer_ones() -> None:
    assert platforms(None) == ()
    assert platforms("manylinux_2_18_aarch64") == (
        "manylinux_2_18_aarch64",
        "manylinux_2_17_aarch64",
        "manylinux2014_aarch64",
    )
    assert platforms("musllinux_1_2_x86_64") == ("musllinux_1_2_x86_64",)


def test_a_folder_that_is_there_is_not_touched_and_one_that_failed_is_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path, *_: object) -> None:
        (folder / "wheels").mkdir(parents=True)
        raise subprocess.CalledProcessError(1, "pip")

    monkeypatch.setattr(airgap, "lay_out", fails)
    for folder, said in ((tmp_path, "is there already"), (tmp_path / "new", "nothing was laid out")):
        monkeypatch.setattr(sys, "argv", ["airgap", str(folder)])
        with pytest.raises(SystemExit, match=said):
            airgap.main()
    assert list(tmp_path.iterdir()) == []
