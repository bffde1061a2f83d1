"""`strongroom key restore`: a key-set's keys on a new token, from its holders' shares.

    restore run PLAN [--answers FILE]     restore
    restore remove PLAN [--answers FILE]  take away what an interrupted restore has left

For an offline machine. The plan is a TOML file; see `signers.ceremony.rebuilding.RestorePlan`:

    environment = "production"
    keyset = "btc-hot"
    directory = "/var/lib/strongroom/signer"
    backup_directory = "/media/backup"
    token = { module = "...", label = "...", pin_file = "..." }
    operators = [{ name = "olga", key_file = "..." }, { name = "otto", key_file = "..." }]
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main(verb: str, arguments: list[str]) -> int:
    """Run `strongroom key restore`; returns 0."""
    parser = argparse.ArgumentParser(
        prog=f"strongroom key {verb}", description="Make a key-set again from its backup."
    )
    parser.add_argument(
        "command", choices=("run", "remove"), help="restore, or take away what a restore has left"
    )
    parser.add_argument("plan", type=Path, help="TOML file; see signers/cli/restore.py")
    parser.add_argument("--answers", type=Path, help="file that answers for the people; rehearsals only")
    given = parser.parse_args(arguments)

    from signers.ceremony.rebuilding import read_restore_plan, rebuild, take_restore_away
    from signers.ceremony.room import gathered

    plan = read_restore_plan(given.plan)
    with gathered(plan.environment, plan.operators, plan.token, given.answers) as (people, operators, token):
        (rebuild if given.command == "run" else take_restore_away)(plan, people, operators, token)
    return 0
