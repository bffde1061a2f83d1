"""`strongroom api`: serves the REST API from this process's settings, until SIGTERM or SIGINT."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from chains.errors import StrongroomError
from custody.api.app import create_app
from custody.api.services import ApiServices
from custody.bell import answers
from custody.config import Process, load
from custody.logs import log_to_stderr
from custody.web.server import make_server
from custody.wiring import Services, wire

POOL_SIZE = 16
WAIT_SECONDS = 2.0
"""A request waits no longer for a database that is away: its caller is told, and repeats it."""
WAITING_AT_MOST = 24
"""Fewer than there are threads: some are always free to say that the database is away."""
_USAGE = "usage: strongroom api (no arguments: the settings are in STRONGROOM_CONFIG)"


def api_services(services: Services) -> ApiServices:
    """What the application is given, out of what the process has."""
    return ApiServices(
        database=services.database,
        bundle=services.bundle,
        root=services.root,
        signer=services.signer,
        members=services.members,
        audience=services.settings.audience,
        wake=services.wake,
        broker=lambda: answers(services.settings.redis_url),
        clock=services.clock,
        sealing=services.sealing,
        operator_networks=services.settings.operator_networks,
        trusted_proxies=services.settings.trusted_proxies,
        verifier_silent_seconds=services.settings.verifier_silent_seconds,
        ends=services.ends,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Serve. Returns the exit code: 0 after a signal, 2 for unusable settings, 3 if the address is taken."""
    if argv is None:
        argv = sys.argv[1:]
    if argv:
        asked = list(argv) in (["-h"], ["--help"])
        print(_USAGE, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    log_to_stderr()
    try:
        settings = load(Process.API)
        services = wire(
            settings, pool_size=POOL_SIZE, wait_seconds=WAIT_SECONDS, waiting_at_most=WAITING_AT_MOST
        )
    except StrongroomError as error:
        print(error, file=sys.stderr)
        return 2
    with services:
        app = create_app(api_services(services))
        server = make_server(app, host=settings.api_host, port=settings.api_port)
        try:
            server.run()
        except SystemExit:  # uvicorn's way to say that it could not listen; it has logged why
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
