"""The verbs of an operator at the host about personal data: its keys, sealing it anew, and reading it with a reason."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from uuid import UUID

import msgspec
import typer

from custody.config import Settings
from custody.console.operator import acting, operator
from custody.console.outcome import Exit, Form, outcome, output
from custody.console.root import AsJson, IdArgument, uuid_text
from custody.errors import InvalidConfiguration, NotFound
from custody.storage import events
from custody.storage.db import Tx
from custody.storage.resealing import COLUMNS, reseal, under
from custody.storage.sealing import KeyRing, Keys, add_key
from custody.travelrule import service as travelrule
from custody.withdrawals import service as withdrawals


def _keys(settings: Settings) -> Keys:
    """The sealing keys."""
    if settings.sealing_keys_path is None:
        raise InvalidConfiguration(["sealing_keys_path is missing: write it into the workers' settings"])
    return KeyRing(settings.sealing_keys_path)()


@operator.command("sealing-key")
def sealing_key(
    path: Annotated[Path, typer.Argument(help="The key ring; made if it is missing.", dir_okay=False)],
    name: Annotated[str | None, typer.Option("--id", help="Of the key; today's date if not given.")] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Add a fresh key to a ring of sealing keys. From then on it seals; older ones still open."""
    shown = output(as_json=as_json)
    key_id = name or datetime.now(UTC).strftime("%Y-%m-%d")
    with outcome(shown):
        add_key(path, key_id)
    shown.line({"path": str(path), "key": key_id}, f"key {key_id} seals from now on; keep a copy of {path}")


@operator.command("reseal")
def reseal_all(*, as_json: AsJson = False) -> None:
    """Seal all personal data under the newest key. Can be interrupted and begun again; the service goes on.

    Exit 1: something could not be opened; it is as it was.
    """
    shown = output(as_json=as_json)
    with acting(shown) as at:
        database, keys = at.database, _keys(at.settings)
        # Recorded before it is begun: each row is sealed in a transaction of its own.
        at.do("reseal", {"key": keys.newest}, lambda tx: None)
        done = [reseal(database, keys, column) for column in COLUMNS]
        with database.snapshot() as tx:
            left = {column.name: under(tx, column) for column in COLUMNS}
    broken = [{"column": each.column.name, "row": row} for each in done for row in each.broken]
    shown.line(
        {
            "key": keys.newest,
            "sealed": {each.column.name: each.sealed for each in done},
            "under": left,
            "broken": broken,
        },
        "\n".join(
            [f"{each.column.name}: {each.sealed} sealed anew under {keys.newest}" for each in done]
            + [f"{name}: {count} under {key}" for name, keys_ in left.items() for key, count in keys_.items()]
            + [f"{each['column']} {each['row']}" for each in broken]
        ),
    )
    if broken:
        raise typer.Exit(int(Exit.REFUSED))


@operator.command("travel-rule")
def show_travel_rule(
    withdrawal: IdArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept in the event feed.", prompt="Reason")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show who pays and who is paid by a withdrawal. That it was looked at, by whom and why, is an event."""
    shown = output(as_json=as_json)
    id = uuid_text(withdrawal)
    with acting(shown) as at:
        keys = _keys(at.settings)

        def effect(tx: Tx) -> bytes:
            found = withdrawals.get(tx, UUID(id))
            data = travelrule.data_of(tx, keys, found)
            if data is None:
                raise NotFound("travel-rule data of withdrawal", id)
            events.emit(tx, "operator.read_travel_rule", id, {"reason": reason, "by": at.person.id})
            return data.canonical()

        text = at.do("read-travel-rule", {"withdrawal": id, "reason": reason}, effect)
    if shown.form is Form.PEOPLE:
        text = msgspec.json.format(text, indent=2)
    typer.echo(text.decode())
