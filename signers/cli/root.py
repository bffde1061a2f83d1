"""`strongroom key VERB`: each verb is a module, imported when it is called, so that none drags the others in."""

from __future__ import annotations

import importlib
import sys
from typing import Final

from chains.errors import InvalidValue, StrongroomError
from policies.keys import UnusableKey
from signers.errors import BadConfiguration

VERBS: Final = {
    "ceremony": (
        "signers.cli.ceremony",
        "make a key-set: two operators, printed record, backup, proof by restore",
    ),
    "restore": ("signers.cli.restore", "make a key-set again from its backup"),
    "test": ("signers.cli.keytest", "look for bias and repeats in a backend's signatures"),
    "status": ("signers.cli.officer", "ask signers what they say of themselves"),
    "freeze": ("signers.cli.officer", "stop a scope at the signers themselves, as one officer"),
    "lower": (
        "signers.cli.officer",
        "lower a number of the bundle at the signers themselves, as one officer",
    ),
    "veto": ("signers.cli.officer", "keep a bundle that waits from coming into force, as one officer"),
    "draft": ("signers.cli.bundles", "draft the next bundle: it lifts freezes, renews, and takes changes"),
    "compromise": (
        "signers.cli.bundles",
        "draft the bundle that ends a key-set and names the one that follows",
    ),
    "sign": ("signers.cli.bundles", "show what a drafted bundle changes, and sign it as an officer"),
    "bundle": ("signers.cli.officer", "hand a signed bundle to the signers themselves"),
    "clock": ("signers.cli.officer", "confirm the signers' clocks after a jump or a long stop"),
    "log": ("signers.cli.log", "check a signer's own log"),
}
"""Module with `main(verb, arguments) -> exit code`, and what the verb does."""


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; returns its exit code: 0 done, 1 refused or a check failed, 2 wrong input, 3 not available now."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] not in VERBS:
        print("usage: strongroom key VERB ...   (VERB -h tells more)\n", file=sys.stderr)
        for verb, (_, text) in VERBS.items():
            print(f"  {verb:<10} {text}", file=sys.stderr)
        return 0 if given[:1] in (["-h"], ["--help"]) else 2
    try:
        code: int = importlib.import_module(VERBS[given[0]][0]).main(given[0], given[1:])
    except StrongroomError as error:
        print(f"strongroom key {given[0]}: {error}", file=sys.stderr)
        if isinstance(error, InvalidValue | UnusableKey | BadConfiguration):
            return 2
        return 3 if error.transient else 1
    return code
