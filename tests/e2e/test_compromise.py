"""The rehearsal of a compromise holds, step by step, on the whole stack: old keys sign nothing but the rescue."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_compromised_key_set_is_ended_and_all_it_held_goes_to_new_keys(tmp_path: Path) -> None:
    record = tmp_path / "rehearsal.json"
    done = subprocess.run(
        [sys.executable, "-m", "ops.cli", "rehearse", "--json", str(record)],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    found = json.loads(record.read_text())
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert found["ok"]
    steps = {step["name"]: step["detail"] for step in found["steps"]}
    assert all(step["ok"] for step in found["steps"])
    assert list(steps) == [
        "start", "before", "freeze", "halt", "ceremony", "bundle", "rescue", "refused", "after", "late", "reconcile",
    ]  # fmt: skip
    assert "frozen" in steps["freeze"]["reason"]
    assert "key-state" in steps["refused"]["codes"]
    assert steps["rescue"]["held_sats"]["btc-hot"] == 0
    assert steps["bundle"]["version"] == 2
