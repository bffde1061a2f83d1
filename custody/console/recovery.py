"""`strongroom recovery kit`: all that is needed to leave without us, from the signed bundle alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from custody.console.outcome import Form, outcome, output
from custody.console.pinned import PinnedBundle, PinnedRoot, pinned_even_if_expired
from custody.console.root import AsJson, app
from custody.ports import system_clock

recovery_app = typer.Typer(
    help="Leaving without us: everything recovered by standard tools.", no_args_is_help=True
)
app.add_typer(recovery_app, name="recovery")

_ADDRESSES: Final = 2_000
_SHOWN: Final = ("directory", "bundle_version", "expired", "bitcoin", "ethereum", "files", "fingerprint")


@recovery_app.callback()
def _group() -> None:
    """Keeps `kit` a verb of its own."""


@recovery_app.command("kit")
def kit(
    bundle: PinnedBundle,
    trust_root: PinnedRoot,
    out: Annotated[Path, typer.Option("--out", help="A new or empty directory.", file_okay=False)],
    addresses: Annotated[
        int,
        typer.Option(
            help="Addresses of each branch to look at; take more than were given out.", min=20, max=1_000_000
        ),
    ] = _ADDRESSES,
    *,
    as_json: AsJson = False,
) -> None:
    """Write descriptors, key origins, Safes, policy, plain scripts and instructions. Holds no secret."""
    from custody.recovery import writing

    shown = output(as_json=as_json)
    with outcome(shown):
        now = system_clock()
        found, signed, expired = pinned_even_if_expired(bundle, trust_root, now=now)
        content = writing.files(found, signed, addresses=addresses, now=now)
        writing.write(out, content)
        wallets = [each for each in found.wallets if each.state != "destroyed"]
        shown.one(
            {
                "directory": str(out),
                "bundle_version": found.version,
                "expired": expired,
                "bitcoin": [each.id for each in wallets if each.family == "btc"],
                "ethereum": [each.id for each in wallets if each.family == "evm"],
                "files": list(content),
                "fingerprint": writing.fingerprint(content),
            },
            _SHOWN,
        )
        if shown.form is Form.PEOPLE:
            typer.echo(
                "\nWrite the fingerprint on paper: whoever uses the kit compares it. Keep copies of kit and paper in"
                "\ndifferent places, make a new kit whenever a wallet changes, and try it: make drill."
            )
            if expired:
                typer.echo(
                    "The bundle HAS EXPIRED: wallets that a later one lists are not in this kit.", err=True
                )
