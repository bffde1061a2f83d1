"""The verbs `strongroom approve` and `strongroom approver`: people's answers, and their keys.

What they do is in `approving` and `enrolling`, which load what the other verbs need not wait for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from custody.console.outcome import outcome, output
from custody.console.passphrase import PassphraseOption
from custody.console.pinned import PinnedBundle, PinnedRoot
from custody.console.root import AsJson, app, connected

VALID_SECONDS: Final = 12 * 3600
"""How long an approval holds, unless another time is given."""
PORT: Final = 8765
"""Of the page for passkeys, the same for ever: a passkey is bound to the page's origin, of which it is a part."""

approvers = typer.Typer(help="People who approve payments.", no_args_is_help=True)
app.add_typer(approvers, name="approver")


@app.command("approve")
def approve(
    id: Annotated[
        str | None,
        typer.Argument(help="Of the withdrawal or refill; without one, all that waits is listed."),
    ] = None,
    *,
    approver: Annotated[str | None, typer.Option("--approver", help="Your id in the bundle.")] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="Your key: PKCS#8 PEM, readable by you only.", dir_okay=False),
    ] = None,
    passkey: Annotated[
        bool, typer.Option("--passkey", help="Sign with your passkey, on a page that is served here.")
    ] = False,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Of the policy, for which you answer, if you are in several."),
    ] = None,
    reject: Annotated[bool, typer.Option("--reject", help="Reject it: that ends it.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; signed with your answer.")] = "",
    valid_for: Annotated[
        int, typer.Option(help="Seconds until your approval expires.", min=60, max=24 * 3600)
    ] = VALID_SECONDS,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask: you have read it before.")] = False,
    passphrase_fd: PassphraseOption = None,
    bundle: PinnedBundle,
    trust_root: PinnedRoot,
    as_json: AsJson = False,
) -> None:
    """Approve or reject a withdrawal or refill that waits for you, after you have read what it does.

    Without an id: list all that waits. Exit 1: it is not what it seems, and nothing was signed.
    """
    from custody.console import approving

    shown = output(as_json=as_json)
    with connected(shown) as client:
        desk = approving.Desk.open(client, bundle, trust_root)
        if id is None:
            shown.many(desk.waiting(), approving.COLUMNS, none="Nothing waits for approval.")
            return
        answer = approving.Answer(
            "reject" if reject else "approve", reason=reason, group=group, valid_seconds=valid_for
        )
        way = approving.way_of(key, passphrase_fd, "passkey" if passkey else "key")
        asking = approving.Asking.NOTHING if yes else approving.Asking.THE_WORD
        found = desk.answer(id, approver, answer, way, asking)
        shown.one(found, ("withdrawal", "refill", "state", "reason"))


@approvers.command("enrol")
def enrol(
    approver: Annotated[str, typer.Argument(help="The id that the bundle will have for you.")],
    *,
    organisation: Annotated[
        str, typer.Option(help="To which you belong: where a rule says so, it counts once.")
    ],
    role: Annotated[list[str], typer.Option("--role", help="What you are; may be given again.")],
    not_after: Annotated[
        datetime,
        typer.Option(help="When your grant ends (UTC).", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ],
    key: Annotated[
        Path | None,
        typer.Option("--key", help="A file: made, and encrypted, if it is not there.", dir_okay=False),
    ] = None,
    passkey: Annotated[
        bool, typer.Option("--passkey", help="Make a passkey, on a page that is served here.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of that page, now and ever after.", min=1024, max=65535)] = PORT,
    passphrase_fd: PassphraseOption = None,
    as_json: AsJson = False,
) -> None:
    """Make your key, and print the record (JSON) that officers put into the next bundle."""
    from custody.console import enrolling

    with outcome(output(as_json=as_json)):
        ends = int(not_after.replace(tzinfo=UTC).timestamp())
        person = enrolling.Person(approver, organisation, tuple(role), ends)
        where = enrolling.place_of(key, port if passkey else None)
        record = enrolling.enrolled(person, where, passphrase_fd)
        typer.echo(enrolling.shown(record))
        typer.echo(f"Officers who enter it hear from you: {enrolling.fingerprint(record)}", err=True)
