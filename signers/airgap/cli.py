"""`strongroom-airgap VERB`: the network is given up first, then everything else is loaded."""

from __future__ import annotations

import sys

from signers.airgap.offline import seal


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; returns its exit code: 0 done, 1 refused or declined, 2 wrong input."""
    seal()
    # Only now: some libraries would load network modules.
    from signers.airgap.verbs import run

    return run(sys.argv[1:] if arguments is None else arguments)
