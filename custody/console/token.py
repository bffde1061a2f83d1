"""`strongroom token`: the header with which curl and other programs ask an API of ours once."""

from __future__ import annotations

from typing import Annotated

import typer

from custody.console import settings
from custody.console.clock import present
from custody.console.outcome import outcome, output
from custody.console.root import AsJson, app
from custody.web.client import authorization
from policies.keys import SigningKey
from policies.token import Request


@app.command("token")
def token(
    method: Annotated[str, typer.Argument(help="GET, POST, ...")],
    target: Annotated[str, typer.Argument(help="Path and query, as they are sent: /v1/assets?limit=5")],
    *,
    body: Annotated[str, typer.Option(help="The body, exactly as it is sent.")] = "",
    audience: Annotated[str, typer.Option(help="The service that is asked, if it is not the API.")] = "",
    as_json: AsJson = False,
) -> None:
    """Print the Authorization header for one request, to be sent within half a minute."""
    shown = output(as_json=as_json)
    with outcome(shown):
        found = settings.load()
        path, _, query = target.partition("?")
        made = authorization(
            SigningKey.load(found.caller_key),
            found.caller,
            audience or found.audience,
            Request(method, path, query, body.encode()),
            now=int(present()),
        )
        shown.line({"authorization": made}, made)
